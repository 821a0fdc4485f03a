"""Offline checks: an honest ledger passes, and every mutation of it is refused by name (G2, G4, G7)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.consensus.components import replay
from collegium.crypto.errors import VerificationError
from collegium.crypto.identity import Identity
from collegium.node.core.events import RequestWithdrawal, StoredBlock
from collegium.node.verify import (
    Disk,
    Report,
    checkpoints,
    verify_ledger,
    verify_states,
    verify_withdrawal,
)
from collegium.protocol.blocks import Certificate
from collegium.protocol.records import Record
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import payload, payload_values
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .memory import Memory

Blocks = list[StoredBlock]


def grown(*, withdraw: bool, rounds: int = 4, horizon: int = 1000) -> Cluster:
    cluster = Cluster(4, 7, Invariants, rounds=rounds, components=2, horizon=horizon)
    cluster.start()
    if withdraw:
        assert cluster.run(lambda: cluster.all_closed(2))
        cluster.nodes[0].deliver(RequestWithdrawal())
        assert cluster.run(lambda: all(refolded(node.core) for node in cluster.nodes))
    assert cluster.run(lambda: cluster.all_closed(rounds))
    assert cluster.run(lambda: all(certified(node.core, rounds) for node in cluster.nodes))
    return cluster


def refolded(core: object) -> bool:
    return all(c.generation == 1 for c in core.ledger.components.values())  # type: ignore[attr-defined]


def certified(core: object, rounds: int) -> bool:
    components = core.ledger.components.values()  # type: ignore[attr-defined]
    return all(
        c.certified and (c.certified.round, c.certified.generation) == (rounds, c.generation) for c in components
    )


@pytest.fixture(scope="module")
def plain() -> Cluster:
    return grown(withdraw=False)


@pytest.fixture(scope="module")
def withdrawn() -> Cluster:
    return grown(withdraw=True)


def blocks_of(cluster: Cluster, node: int = 1) -> Blocks:
    return list(cluster.nodes[node].store.snapshot().blocks)


def bytes_of(cluster: Cluster, node: int = 1) -> Memory:
    return Memory(dict(cluster.nodes[node].store.blobs))


def verified(cluster: Cluster) -> Report:
    return verify_ledger(cluster.charter, blocks_of(cluster))


# ---- the ledger


def test_an_honest_ledger_passes_and_names_what_to_pin(plain: Cluster) -> None:
    blocks = blocks_of(plain)
    seen: list[int] = []
    report = verify_ledger(plain.charter, blocks, progress=lambda what, done, total: seen.append(done))
    core = plain.nodes[1].core
    assert core is not None
    assert report.ledger == core.ledger
    assert report.as_map()["block"] == blocks[-1].block.id.hex()
    assert report.as_map()["tree_root"] == blocks[-1].block.tree_root.hex()
    assert report.records == sum(len(block.records) for block in blocks)
    assert seen == list(range(1, len(blocks) + 1))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def with_block(blocks: Blocks, index: int, **changes: object) -> Blocks:
    stored = blocks[index]
    blocks[index] = replace(stored, block=replace(stored.block, **changes))  # type: ignore[arg-type]  # by name
    return blocks


def with_records(blocks: Blocks, index: int, records: Sequence[Signed[Record]]) -> Blocks:
    blocks[index] = replace(blocks[index], records=tuple(records))
    return blocks


def with_certificate(blocks: Blocks, index: int, change: Callable[[Certificate], Certificate]) -> Blocks:
    blocks[index] = replace(blocks[index], certificate=change(blocks[index].certificate))
    return blocks


def first_record(blocks: Blocks, change: Callable[[Signed[Record]], Signed[Record]]) -> Blocks:
    records = blocks[1].records
    return with_records(blocks, 1, [change(records[0]), *records[1:]])


def resigned(record: Signed[Record]) -> Signed[Record]:
    """The same place in the feed, signed by a key that is not the author's."""
    forged = sign(Identity.generate(), record.value)
    return Signed(record.value, forged.wire, record.digest)


def stranger_signs(certificate: Certificate) -> Certificate:
    entries = [replace(certificate.signatures[0], author=Identity.generate().public_key), *certificate.signatures[1:]]
    return replace(certificate, signatures=tuple(sorted(entries, key=lambda entry: entry.author)))


def broken_signature(certificate: Certificate) -> Certificate:
    first = certificate.signatures[0]
    return replace(
        certificate, signatures=(replace(first, signature=flip(first.signature, 5)), *certificate.signatures[1:])
    )


MUTATIONS: dict[str, tuple[Callable[[Blocks], Blocks], str]] = {
    "one bit of a record's payload": (
        lambda b: first_record(b, lambda r: replace(r, wire=flip(r.wire, len(r.wire) - 3))),
        "height 2, record",
    ),
    "one bit of a record's signature": (
        lambda b: first_record(b, lambda r: replace(r, wire=flip(r.wire, 3))),
        "bad-signature",
    ),
    "a record signed by somebody else": (lambda b: first_record(b, resigned), "bad-signature"),
    "a record whose decoded value is not its bytes": (
        lambda b: first_record(b, lambda r: replace(r, value=replace(r.value, kind="offer2"))),
        "not-its-bytes",
    ),
    "a record's digest": (lambda b: first_record(b, lambda r: replace(r, digest=flip(r.digest, 0))), "not-its-bytes"),
    "a record left out": (lambda b: with_records(b, 1, b[1].records[:-1]), "header-differs"),
    "a feed's first record of a block left out": (lambda b: with_records(b, 1, b[1].records[1:]), "height 2: "),
    "a record twice": (lambda b: with_records(b, 1, [b[1].records[0], *b[1].records]), "gap"),
    "the order of records": (lambda b: with_records(b, 1, b[1].records[::-1]), "order"),
    "a record moved to the next block": (
        lambda b: with_records(with_records(b, 2, [b[1].records[-1], *b[2].records]), 1, b[1].records[:-1]),
        "header-differs",
    ),
    "the order of blocks": (lambda b: [b[0], b[2], b[1], *b[3:]], "height 2: height"),
    "a block left out": (lambda b: [b[0], *b[2:]], "height 2: height"),
    "a signature of the certificate": (lambda b: with_certificate(b, 1, broken_signature), "bad-signature"),
    "a stranger in the certificate": (lambda b: with_certificate(b, 1, stranger_signs), "certificate-not-a-member"),
    "too small a certificate": (
        lambda b: with_certificate(b, 1, lambda c: replace(c, signatures=c.signatures[:2])),
        "no-quorum",
    ),
    "one signature twice": (
        lambda b: with_certificate(b, 1, lambda c: replace(c, signatures=(c.signatures[0], *c.signatures))),
        "certificate-order",
    ),
    "another height's certificate": (
        lambda b: with_certificate(b, 1, lambda c: b[0].certificate),
        "bad-signature",
    ),
    "the view of a certificate": (
        lambda b: with_certificate(b, 1, lambda c: replace(c, view=c.view + 1)),
        "bad-signature",
    ),
    "the cut": (lambda b: with_block(b, 1, cut=b[1].block.cut[:-1]), "bad-signature"),
    "the tree root": (lambda b: with_block(b, 1, tree_root=flip(b[1].block.tree_root, 0)), "bad-signature"),
    "the fold digest": (lambda b: with_block(b, 1, fold=flip(b[1].block.fold, 0)), "bad-signature"),
    "the closed rounds": (lambda b: with_block(b, 1, close=()), "bad-signature"),
    "the federation": (lambda b: with_block(b, 1, federation=bytes(32)), "bad-signature"),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_every_mutation_is_refused_by_name(plain: Cluster, what: str) -> None:
    mutate, reason = MUTATIONS[what]
    with pytest.raises(VerificationError) as raised:
        verify_ledger(plain.charter, mutate(blocks_of(plain)))
    assert reason in raised.value.message
    assert raised.value.message.startswith("height ")
    assert raised.value.advice


HEADER_FIELDS = ("cut", "close", "tree_size", "tree_root", "members", "fold", "prev")


@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_a_quorum_that_certifies_a_false_header_is_found_out(plain: Cluster, field: str) -> None:
    """Even all members together cannot make a header that does not follow from the records (G4)."""
    from collegium.protocol import schema
    from collegium.protocol.blocks import PRECOMMIT, Vote, VoteSignature

    blocks = blocks_of(plain)
    index = next(i for i, stored in enumerate(blocks) if stored.block.close)
    block = blocks[index].block
    false = {
        "cut": block.cut[:-1],
        "close": (),
        "tree_size": block.tree_size + 1,
        "tree_root": flip(block.tree_root, 9),
        "members": flip(block.members, 9),
        "fold": flip(block.fold, 9),
        "prev": flip(block.prev, 9),
    }
    forged = replace(block, **{field: false[field]})  # type: ignore[arg-type]  # by name
    signatures = []
    for node in sorted(plain.nodes, key=lambda node: node.identity.public_key):
        vote = Vote(block.federation, node.identity.public_key, block.height, 0, PRECOMMIT, forged.id)
        signatures.append(VoteSignature(node.identity.public_key, node.identity.sign(Vote.DOMAIN, schema.dump(vote))))
    blocks[index] = replace(blocks[index], block=forged, certificate=Certificate(0, tuple(signatures)))
    with pytest.raises(VerificationError, match=f"height {block.height}: (header-differs|prev)"):
        verify_ledger(plain.charter, blocks)


def test_another_charter_does_not_fit(plain: Cluster) -> None:
    other = replace(plain.charter, name="another")
    with pytest.raises(VerificationError, match=r"height 1, record 1 of .*: wrong-federation"):
        verify_ledger(other, blocks_of(plain))


def test_a_cut_off_end_shows_only_against_a_pin(plain: Cluster) -> None:
    blocks = blocks_of(plain)
    head = {blocks[-1].block.height: blocks[-1].block.id}
    assert verify_ledger(plain.charter, blocks, pins=head).ledger.height == len(blocks)
    assert verify_ledger(plain.charter, blocks[:-1]).ledger.height == len(blocks) - 1
    with pytest.raises(VerificationError, match="pinned-block: the ledger ends"):
        verify_ledger(plain.charter, blocks[:-1], pins=head)
    with pytest.raises(VerificationError, match=r"height 2: pinned-block"):
        verify_ledger(plain.charter, blocks, pins={2: bytes(32)})


def test_states_are_recomputed_and_equal_the_certified_ones(plain: Cluster) -> None:
    report = verified(plain)
    core = plain.nodes[1].core
    assert core is not None
    for state in verify_states(report, bytes_of(plain)):
        assert state.digest == core.folded[state.component][3]
        assert (state.certified_round, state.as_map()["label"]) == (4, "certified")


def test_a_missing_or_changed_blob_is_named(plain: Cluster) -> None:
    report, memory = verified(plain), bytes_of(plain)
    entry = report.ledger.components["head/task0"].rounds[1].entries[2]
    whole = memory.blobs.pop(entry.blob)
    where = rf"head/task0 round 2, update of {entry.author.hex()[:16]}"
    with pytest.raises(VerificationError, match=f"{where}: blob-missing"):
        verify_states(report, memory)
    for damaged in (b"", whole[:-1], flip(whole, len(whole) // 2), b"\0" * len(whole)):
        memory.blobs[entry.blob] = damaged
        with pytest.raises(VerificationError, match=f"{where}: blob-digest"):
            verify_states(report, memory)


def test_a_certificate_over_another_state_is_found_out(plain: Cluster) -> None:
    report = verified(plain)
    c = report.ledger.components["head/task1"]
    assert c.certified is not None
    wrong = replace(c, certified=replace(c.certified, digest=flip(c.certified.digest, 0)))
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task1": wrong})
    with pytest.raises(VerificationError, match="head/task1 round 4, generation 0: state-differs"):
        verify_states(report, bytes_of(plain))


def test_an_uncertified_state_that_no_host_attests_is_found_out(plain: Cluster) -> None:
    report = verified(plain)
    c = report.ledger.components["head/task1"]
    attests = tuple((r, e, host, bytes(32)) for r, e, host, _ in c.attests)
    wrong = replace(c, certified=None, attests=attests)
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task1": wrong})
    with pytest.raises(VerificationError, match="no host attests"):
        verify_states(report, bytes_of(plain))


def test_a_stored_state_that_is_not_the_fold_is_found_out(plain: Cluster) -> None:
    report, memory = verified(plain), bytes_of(plain)

    def fold(component: str, chain: bytes) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        c, spec = report.ledger.components[component], plain.charter.component(component)
        assert spec is not None
        assert c.chain == chain
        start = np.zeros(spec.dimension, np.int32)
        state, _ = replay(start, spec, c.rounds, lambda e: payload_values(memory.blobs[e.blob], spec))
        return state

    assert all(state.stored for state in verify_states(report, memory, stored=fold))

    def off_by_one(component: str, chain: bytes) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        state = fold(component, chain).copy()
        state[3] += 1
        return state

    with pytest.raises(VerificationError, match="stored-state-differs"):
        verify_states(report, memory, stored=off_by_one)


def test_an_update_that_the_ledger_does_not_hold_is_found_out(plain: Cluster) -> None:
    report = verified(plain)
    entry = report.ledger.components["head/task0"].rounds[0].entries[0]
    del report.updates[entry.update]
    with pytest.raises(VerificationError, match="not-in-ledger"):
        verify_states(report, bytes_of(plain))


def test_a_blob_outside_the_norm_bounds_is_found_out(plain: Cluster) -> None:
    """What hosts acknowledged they checked; a verifier checks it once more (G5)."""
    from collegium.crypto.hashing import sha256

    report, memory = verified(plain), bytes_of(plain)
    entry = report.ledger.components["head/task0"].rounds[0].entries[0]
    spec = plain.charter.component("head/task0")
    assert spec is not None
    loud = np.full(spec.dimension, 127, dtype=spec.integer_type)
    data = payload(report.ledger.federation, entry.author, "head/task0", 1, loud)
    counted = report.updates[entry.update]
    header = replace(counted.header, blob=sha256(data), size=len(data))
    report.updates[entry.update] = replace(counted, header=header)
    c = report.ledger.components["head/task0"]
    entries = (replace(entry, blob=sha256(data), size=len(data)), *c.rounds[0].entries[1:])
    changed = replace(c, rounds=(replace(c.rounds[0], entries=entries), *c.rounds[1:]))
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task0": changed})
    memory.blobs[sha256(data)] = data
    with pytest.raises(VerificationError, match="norm-above"):
        verify_states(report, memory)


# ---- withdrawals


def leaver(cluster: Cluster) -> bytes:
    return cluster.nodes[0].identity.public_key


def test_a_withdrawal_is_verified_from_another_members_store(withdrawn: Cluster) -> None:
    """G7: lists, recomputed state, certificate and disk, at each of the other members."""
    for node in (1, 2, 3):
        report = verify_ledger(withdrawn.charter, blocks_of(withdrawn, node))
        verdict = verify_withdrawal(report, leaver(withdrawn), bytes_of(withdrawn, node))
        verdict.require()
        assert verdict.verified
        assert verdict.erased > 0
        for c in verdict.components:
            core = withdrawn.nodes[node].core
            assert core is not None
            assert c.digest == core.folded[c.component][3]
            assert c.removed == 2
            assert c.attested >= c.needed == 3
            assert c.label == "certified"


def test_nobody_elses_update_was_touched(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    for (name, number), frozen in report.frozen.items():
        now = report.ledger.components[name].rounds[number - 1].entries
        assert [e for e in frozen.entries if e.author != leaver(withdrawn)] == list(now)


def test_without_a_withdrawal_there_is_nothing_to_verify(withdrawn: Cluster) -> None:
    with pytest.raises(VerificationError, match="no-withdrawal"):
        verify_withdrawal(verified(withdrawn), withdrawn.nodes[2].identity.public_key, bytes_of(withdrawn))


def problems(report: Report, cluster: Cluster, memory: Memory, **options: object) -> str:
    verdict = verify_withdrawal(report, leaver(cluster), memory, **options)  # type: ignore[arg-type]  # by name
    assert not verdict.verified
    with pytest.raises(VerificationError):
        verdict.require()
    return " / ".join((*verdict.problems, *verdict.pending))


def test_a_list_that_still_holds_the_withdrawn_is_found_out(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    c = report.ledger.components["head/task0"]
    back = replace(c, rounds=(report.frozen["head/task0", 1], *c.rounds[1:]))
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task0": back})
    assert "head/task0 round 1: list-differs" in problems(report, withdrawn, bytes_of(withdrawn))


def test_a_list_that_lost_somebody_else_is_found_out(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    c = report.ledger.components["head/task0"]
    fewer = replace(c.rounds[2], entries=c.rounds[2].entries[1:])
    changed = replace(c, rounds=(*c.rounds[:2], fewer, *c.rounds[3:]))
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task0": changed})
    assert "head/task0 round 3: list-differs" in problems(report, withdrawn, bytes_of(withdrawn))


def test_a_state_that_still_contains_the_withdrawn_is_found_out(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    c = report.ledger.components["head/task0"]
    assert c.certified is not None
    false = replace(c, certified=replace(c.certified, digest=flip(c.certified.digest, 1)))
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task0": false})
    assert "head/task0 round 4, generation 1: state-differs" in problems(report, withdrawn, bytes_of(withdrawn))


def test_a_refold_that_is_not_certified_is_no_withdrawal_yet(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    c = report.ledger.components["head/task1"]
    early = replace(c, certified=None)
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task1": early})
    assert "head/task1 generation 1: not-certified" in problems(report, withdrawn, bytes_of(withdrawn))
    verdict = verify_withdrawal(report, leaver(withdrawn), bytes_of(withdrawn))
    assert (verdict.problems, len(verdict.pending)) == ((), 1)
    few = replace(early, hosts=early.hosts[:3])  # too few for any certificate: waiting does not help
    report.ledger = replace(report.ledger, components={**report.ledger.components, "head/task1": few})
    assert len(verify_withdrawal(report, leaver(withdrawn), bytes_of(withdrawn)).problems) == 1


def test_bytes_that_are_still_there_are_found(withdrawn: Cluster) -> None:
    report, memory = verified(withdrawn), bytes_of(withdrawn)
    entry = next(e for e in report.frozen["head/task0", 1].entries if e.author == leaver(withdrawn))
    memory.blobs[entry.blob] = b"anything"
    assert f"blob-not-erased: the withdrawn bytes {entry.blob.hex()}" in problems(report, withdrawn, memory)


def test_checkpoints_of_earlier_lists_are_found(withdrawn: Cluster) -> None:
    report = verified(withdrawn)
    now = {round_.chain for c in report.ledger.components.values() for round_ in c.rounds}
    assert verify_withdrawal(report, leaver(withdrawn), bytes_of(withdrawn), checkpoints=now).verified
    old = report.frozen["head/task0", 2].chain
    text = problems(report, withdrawn, bytes_of(withdrawn), checkpoints=[*now, old])
    assert f"checkpoint-not-erased: a state of earlier lists is on this disk: {old.hex()}" in text


def test_a_member_that_hosts_nothing_checks_lists_and_certificates(withdrawn: Cluster) -> None:
    verdict = verify_withdrawal(verified(withdrawn), leaver(withdrawn), Memory({}), components=())
    assert verdict.verified
    assert all(c.digest is None for c in verdict.components)


def test_what_is_beyond_the_refold_horizon_stays_and_is_said() -> None:
    cluster = grown(withdraw=True, horizon=1)
    report = verified(cluster)
    verdict = verify_withdrawal(report, leaver(cluster), bytes_of(cluster))
    assert verdict.problems == ()
    assert {(c.removed, c.kept) for c in verdict.components} == {(1, 1)}


# ---- bytes on disk


def test_the_disk_reader_finds_whole_cut_and_quarantined_bytes(tmp_path: Path) -> None:
    from collegium.node.store.blobs import Blobs

    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.put(b"bytes")
    disk = Disk(tmp_path / "blobs")
    assert disk.get(digest) == b"bytes"
    assert disk.has(digest)
    assert disk.get(bytes(32)) is None
    assert not disk.has(bytes(32))
    for folder in ("partial", "quarantine"):
        (tmp_path / "blobs" / folder / ("ab" * 32)).write_bytes(b"part")
        assert disk.has(bytes.fromhex("ab" * 32))
        (tmp_path / "blobs" / folder / ("ab" * 32)).unlink()


def test_checkpoints_are_found_by_their_names(tmp_path: Path) -> None:
    from collegium.node.store.states import States

    assert checkpoints(tmp_path / "none") == frozenset()
    States(tmp_path).put("head/digit", 1, b"c" * 32, np.zeros(4, np.int32))
    (next(tmp_path.iterdir()) / "strange.state").write_bytes(b"")
    assert checkpoints(tmp_path) == {b"c" * 32}
