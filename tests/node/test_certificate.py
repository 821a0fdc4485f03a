"""Withdrawal certificates: what an outsider sees offline, and that a forged or changed one is refused (G7)."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from collegium.consensus.components import Entry, Round, chained
from collegium.consensus.summary import Summary, summary, summary_digest
from collegium.crypto.errors import CollegiumError, CorruptError, UsageError, VerificationError
from collegium.crypto.identity import Identity
from collegium.crypto.merkle import consistency_proof, leaf_hash
from collegium.node.core import events as ev
from collegium.node.core.motions import undecided
from collegium.node.verify import certificate as certificates
from collegium.node.verify import files
from collegium.node.verify.certificate import Checked, Removal, check, make
from collegium.node.verify.heads import CosignedHead
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.protocol.blocks import PRECOMMIT, Certificate, Vote, VoteSignature
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.protocol.membership import Rekeying
from collegium.protocol.records import GENESIS
from collegium.protocol.signing import sign
from collegium.sims.paper.sample_ledger import sample_ledger
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

from .memory import Memory

A, B = "head/task0", "head/task1"
ROUNDS = 5


def source_of(cluster: Cluster, node: Node) -> Source:
    signed = SignedCharter(schema.dump(cluster.charter), ())
    for member in cluster.nodes:
        signed = add_signature(cluster.charter, signed, member.identity)
    blocks = {stored.block.height: stored for stored in node.store.snapshot().blocks}
    return Source(cluster.charter, dump_file(signed), blocks.get, max(blocks), "the store")


def settled(cluster: Cluster, generation: Callable[[str], int]) -> bool:
    return all(
        node.core is not None
        and all(
            c.certified is not None and c.generation >= generation(name) and c.certified.generation == c.generation
            for name, c in node.core.ledger.components.items()
        )
        for node in cluster.nodes
    )


@dataclass(frozen=True)
class Case:
    cluster: Cluster
    source: Source
    data: Memory

    def key(self, node: int) -> bytes:
        return self.cluster.nodes[node].identity.public_key

    def made(self, node: int = 0, *, updates: bool = False) -> bytes:
        return b"".join(make(self.source, self.key(node), self.data if updates else None))

    def checked(self, content: bytes, *, data: bool = False) -> Checked:
        return check(io.BytesIO(content), "cert", data=self.data if data else None)


@pytest.fixture(scope="module")
def case() -> Case:
    """Five members, two components. 0 withdraws a component, then single updates; the others rewind 1's last update."""
    cluster = Cluster(5, 3, Invariants, rounds=ROUNDS, components=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    cluster.nodes[0].deliver(ev.RequestWithdrawal("components", (A,)))
    assert cluster.run(lambda: settled(cluster, lambda name: int(name == A)))
    core = cluster.nodes[0].core
    assert core is not None
    update = next(e.update for e in core.ledger.components[B].rounds[1].entries if e.author == core.me)
    cluster.nodes[0].deliver(ev.RequestWithdrawal("updates", updates=(update,)))
    assert cluster.run(lambda: settled(cluster, lambda _: 1))
    target = cluster.nodes[1].identity.public_key
    last = core.ledger.components[A].round
    asked = ev.RequestWithdrawal("rounds", (A,), last, last)
    terms = asked.terms(cluster.federation, target, "rewind", core.ledger.heads[target][0])
    cluster.nodes[2].deliver(ev.ProposeMotion("rewind", target, schema.dump(terms), "", 1000))

    def vote() -> bool:
        for node in cluster.nodes:
            for motion in undecided(node.core.ledger, node.core.me) if node.core is not None else ():
                node.deliver(ev.Cast(motion.digest, True))
        return settled(cluster, lambda name: 2 if name == A else 1) and any(
            w.mode == "rewind" for w in core.ledger.withdrawn
        )

    assert cluster.run(vote)
    return Case(cluster, source_of(cluster, cluster.nodes[3]), Memory(dict(cluster.nodes[3].store.blobs)))


def test_what_went_is_shown_and_refolded_from_the_file_alone(case: Case) -> None:
    checked = case.checked(case.made(updates=True))
    assert checked.verified, checked.problems
    assert [(w.scope, w.mode) for w in checked.withdrawn] == [("components", "refold"), ("updates", "refold")]
    removed = {c.component: (c.removed, c.others, c.refolded) for c in checked.components}
    assert removed[A][0] >= 3
    assert removed[B][0] >= 1
    assert all(refolded for _, _, refolded in removed.values())
    ledger = case.cluster.nodes[3].core.ledger  # type: ignore[union-attr]
    for c in checked.components:
        certified = ledger.components[c.component].certified
        assert certified is not None
        assert (c.digest, c.certified_round) == (certified.digest, certified.round)
    assert checked.as_map()["verified"] is True


def test_a_rewind_shows_what_went_of_others_and_the_motion_behind_it(case: Case) -> None:
    checked = case.checked(case.made(1))
    (withdrawn,) = checked.withdrawn
    assert (withdrawn.mode, bool(withdrawn.motion)) == ("rewind", True)
    by_name = {c.component: c for c in checked.components}
    assert by_name[A].removed == 1
    assert by_name[A].others >= 1
    assert not by_name[A].refolded, "no update is in it"


def test_updates_may_come_from_elsewhere_and_wrong_ones_do_not_pass(case: Case) -> None:
    content = case.made()
    assert all(c.refolded for c in case.checked(content, data=True).components)
    some = Memory(dict(list(case.data.blobs.items())[:1]))
    assert not any(c.refolded for c in check(io.BytesIO(content), "cert", data=some).components)
    lies = Memory({blob: b"x" + data for blob, data in case.data.blobs.items()})
    assert not any(c.refolded for c in check(io.BytesIO(content), "cert", data=lies).components)


def test_g7_another_fold_than_the_certified_one_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    content = case.made(updates=True)
    monkeypatch.setattr(certificates, "state_digest", lambda *_: bytes(32))
    with pytest.raises(VerificationError, match="fold to"):
        case.checked(content)


def test_through_changes_of_members_and_keys() -> None:
    source = sample_ledger()
    ledger = list(source.history(source.top))[-1][1]
    owners = {w.author for w in ledger.withdrawn}
    assert owners
    for owner in owners:
        checked = check(io.BytesIO(b"".join(make(source, owner))), "cert")
        assert checked.walk.changes, "members changed on the way"
        assert checked.withdrawn


def test_who_withdrew_nothing_gets_none(case: Case) -> None:
    with pytest.raises(UsageError, match="has no withdrawal"):
        case.made(4)


def test_other_files_and_other_federations_are_told(case: Case) -> None:
    content = case.made()
    other = replace(case.cluster.charter, name="another")
    with pytest.raises(VerificationError, match="of federation"):
        check(io.BytesIO(content), "cert", charter=other)
    assert check(io.BytesIO(content), "cert", charter=case.cluster.charter).verified
    with pytest.raises(UsageError, match="unlearn verify"):
        files.verify_file(io.BytesIO(content), "cert")
    with pytest.raises(CorruptError, match="empty"):
        check(io.BytesIO(b""), "cert")
    with pytest.raises(VerificationError, match="pinned-block"):
        check(io.BytesIO(content), "cert", pins={case.source.top: bytes(32)})


def test_the_summary_is_what_the_header_names(case: Case) -> None:
    for stored, ledger in case.source.history(case.source.top):
        assert summary_digest(summary(ledger)) == stored.block.fold
        read = Summary.read(summary(ledger), 1 << 20)
        assert {n: (c.round, c.generation, c.chain, c.certified) for n, c in read.components.items()} == {
            n: (c.round, c.generation, c.chain, c.certified) for n, c in ledger.components.items()
        }
        assert [replace(w, height=0, carrier=b"") for w in ledger.withdrawn] == list(read.withdrawn)


# ---- forgeries: canonical files that say something else


def parts(content: bytes) -> tuple[bytes, Removal, list[bytes]]:
    frames = files.Frames(io.BytesIO(content), "cert")
    frames.kind()
    start = frames.load(files.Opening, "opening", files.OPENING_LIMIT)
    claim = frames.load(Removal, "claim", certificates.LIMIT)
    rest = [frames.next("head", files.HEAD_LIMIT) for _ in range(start.heads)]
    return files.opening(files.WITHDRAWAL, start.charter, start.heads), claim, rest


def joined(begin: bytes, claim: Removal, rest: list[bytes]) -> bytes:
    return b"".join((begin, files.frame(schema.dump(claim)), *map(files.frame, rest)))


def forgeries(case: Case) -> dict[str, bytes]:
    begin, claim, rest = parts(case.made())
    lists = claim.after.lists
    back = next(r for r in claim.before.lists[0].rounds if r.entries)
    kept = replace(lists[0], rounds=(back, *lists[0].rounds[1:]))
    fewer = replace(lists[1], rounds=(replace(lists[1].rounds[0], entries=()), *lists[1].rounds[1:]))
    words = claim.words
    rewinding = parts(case.made(1))[1]
    changed = {
        "a withdrawn entry is back": replace(claim, after=replace(claim.after, lists=(kept, *lists[1:]))),
        "an entry more is gone": replace(claim, after=replace(claim.after, lists=(lists[0], fewer))),
        "lists are left out": replace(claim, after=replace(claim.after, lists=lists[:1])),
        "lists are there twice": replace(claim, after=replace(claim.after, lists=(*lists, lists[0]))),
        "before is after": replace(claim, before=claim.after, after=claim.before),
        "nothing lies between": replace(claim, before=claim.after),
        "another's before": replace(claim, before=rewinding.before),
        "the summary of before": replace(claim, after=replace(claim.after, summary=claim.before.summary)),
        "no words": replace(claim, words=words[:1]),
        "words elsewhere": replace(claim, words=(replace(words[0], index=words[0].index + 1), *words[1:])),
        "words on another path": replace(claim, words=(replace(words[0], path=words[0].path[:-1]), *words[1:])),
        "another's words": replace(claim, words=rewinding.words),
        "another member": replace(claim, member=case.key(4)),
        "a path cut": replace(claim, path=claim.path[:-1]),
        "updates that are not there": replace(claim, updates=3),
    }
    made = {name: joined(begin, field, rest) for name, field in changed.items()}
    head = schema.load(CosignedHead, rest[-1], files.HEAD_LIMIT)
    lonely = replace(head, certificate=replace(head.certificate, signatures=head.certificate.signatures[:2]))
    made["two signatures"] = joined(begin, claim, [*rest[:-1], schema.dump(lonely)])
    made["a head less"] = joined(begin, claim, rest[:-1])
    made["an update more"] = case.made(updates=True) + files.frame(b"more")
    other = bytearray(case.made(updates=True))
    other[-5] ^= 1
    made["another update"] = bytes(other)
    return made


def test_g7_what_says_something_else_is_refused(case: Case) -> None:
    assert case.checked(joined(*parts(case.made()))).verified
    for name, content in forgeries(case).items():
        with pytest.raises((VerificationError, CorruptError), match="cert"):
            pytest.fail(f"{name}: {case.checked(content).as_map()}")


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.soak)])
def test_g7_any_changed_byte_is_refused(case: Case, count: int) -> None:
    chance, content = random.Random(count), case.made(updates=True)
    for _ in range(count):
        changed = bytearray(content)
        index = chance.randrange(len(changed))
        how = chance.randrange(4)
        if how == 0:
            changed[index] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[index]
        elif how == 2:
            changed.insert(index, chance.randrange(256))
        else:
            del changed[index:]
        if bytes(changed) == content:
            continue
        with pytest.raises(CollegiumError) as caught:
            case.checked(bytes(changed))
        assert isinstance(caught.value, VerificationError | CorruptError), caught.value


def test_g7_a_certificate_that_begins_at_the_withdrawal_is_refused(case: Case) -> None:
    """It would show that nothing of it was ever counted."""
    begin, claim, _ = parts(case.made())
    top = case.source.top
    history = {stored.block.height: ledger for stored, ledger in case.source.history(top)}
    first = next(height for height, ledger in history.items() if ledger.withdrawn)
    late = history[first]
    leaves = [
        leaf_hash(record.digest)
        for height in range(1, top + 1)
        if (stored := case.source.block(height)) is not None
        for record in stored.records
    ]
    forged = replace(claim, before=certificates.state_of(late), path=tuple(consistency_proof(leaves, late.tree.size)))
    walk = case.source.walk(history[top], (first, top))
    opening = files.opening(files.WITHDRAWAL, case.source.charter_file, len(walk))
    content = joined(opening, forged, [schema.dump(head) for head in walk])
    with pytest.raises(VerificationError, match="not before the first withdrawal"):
        case.checked(content)
    assert begin[:20] == opening[:20]


def cosigned(case: Case, claim: Removal, **wrong: Any) -> bytes:
    """Return the certificate under a header that a quorum signed for a ledger state that is not the fold."""
    ledger = list(case.source.history(case.source.top))[-1][1]
    false = replace(ledger, **wrong)
    stored = case.source.block(case.source.top)
    assert stored is not None
    block = replace(stored.block, fold=summary_digest(summary(false)))
    signatures = []
    for node in sorted(case.cluster.nodes, key=lambda node: node.identity.public_key):
        key = node.identity.public_key
        vote = Vote(block.federation, key, block.height, 0, PRECOMMIT, block.id)
        signatures.append(VoteSignature(key, node.identity.sign(Vote.DOMAIN, schema.dump(vote))))
    walk = case.source.walk(ledger, (claim.before.height, block.height))
    head = replace(walk[-1], block=block, certificate=Certificate(0, tuple(signatures)))
    opening = files.opening(files.WITHDRAWAL, case.source.charter_file, len(walk))
    changed = replace(claim, after=certificates.state_of(false))
    return joined(opening, changed, [schema.dump(header) for header in (*walk[:-1], head)])


def test_g7_lists_that_a_quorum_signed_and_no_rule_gives_are_refused(case: Case) -> None:
    """The checks behind the chains: whoever folded wrongly, or lied, is found from the file alone."""
    _, claim, _ = parts(case.made())
    ledger = list(case.source.history(case.source.top))[-1][1]
    before = next(led for s, led in case.source.history(claim.before.height) if s.block.height == claim.before.height)
    assert case.checked(cosigned(case, claim)).verified

    def with_rounds(change: Callable[[tuple[Round, ...]], list[Round]]) -> dict[str, Any]:
        c = ledger.components[B]
        rounds = chained(change(c.rounds), GENESIS)
        return {"components": {**ledger.components, B: replace(c, rounds=rounds)}}

    def edit(number: int, entries: tuple[Entry, ...]) -> Callable[[tuple[Round, ...]], list[Round]]:
        return lambda rounds: [replace(r, entries=entries) if r.number == number else r for r in rounds]

    whole = before.components[B].rounds[1].entries
    first = ledger.components[B].rounds[0].entries
    cases = {
        "still counts": with_rounds(edit(2, whole)),
        "that was not withdrawn": with_rounds(edit(1, first[1:])),
        "gained or reordered": with_rounds(edit(1, tuple(reversed(first)))),
        "no statement or motion": {"withdrawn": tuple(replace(w, through=w.through + 1) for w in ledger.withdrawn)},
    }
    for reason, wrong in cases.items():
        with pytest.raises(VerificationError, match=reason):
            case.checked(cosigned(case, claim, **wrong))
    uncertified = {n: replace(c, certified=None) for n, c in ledger.components.items()}
    checked = case.checked(cosigned(case, claim, components=uncertified))
    assert not checked.verified
    assert all("not-certified" in problem for problem in checked.problems)


def test_a_member_that_moved_to_a_new_key_gets_one_under_either(case: Case) -> None:
    cluster = Cluster(4, 9, Invariants, rounds=6)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    mover, others = cluster.nodes[0], cluster.nodes[1:]
    core = mover.core
    assert core is not None
    update = next(e.update for e in core.ledger.components[A].rounds[0].entries if e.author == core.me)
    mover.deliver(ev.RequestWithdrawal("updates", updates=(update,)))
    assert cluster.run(lambda: all(n.core is not None and bool(n.core.ledger.withdrawn) for n in cluster.nodes))
    old, new = mover.identity, Identity.from_seed(bytes(range(32)))
    statement = sign(new, Rekeying(cluster.federation, new.public_key, old.public_key)).wire
    mover.deliver(ev.ProposeMotion("rekey", old.public_key, statement, "", 1000))
    assert cluster.run(lambda: all(n.core is not None and new.public_key in n.core.ledger.members for n in others))
    source = source_of(cluster, others[0])
    for key in (old.public_key, new.public_key):
        checked = check(io.BytesIO(b"".join(make(source, key))), "cert")
        assert [(w.author, w.scope) for w in checked.withdrawn] == [(old.public_key, "updates")]
        assert checked.member == new.public_key
        assert [c.removed for c in checked.components] == [1]
