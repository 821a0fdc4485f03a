"""Withdrawal certificates: what an outsider sees offline, and that a forged or changed one is refused (G7)."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from collegium.consensus.ledger import Summary, summary, summary_digest
from collegium.crypto.errors import CollegiumError, CorruptError, UsageError, VerificationError
from collegium.node.core import events as ev
from collegium.node.core.motions import undecided
from collegium.node.verify import certificate as certificates
from collegium.node.verify import files
from collegium.node.verify.certificate import Checked, Removal, check, make
from collegium.node.verify.heads import CosignedHead
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.sims.cluster import Cluster, Node
from collegium.sims.eventful import eventful

A, B = "head/task0", "head/task1"
ROUNDS = 5


@dataclass(frozen=True)
class Memory:
    blobs: dict[bytes, bytes]

    def get(self, digest: bytes) -> bytes | None:
        return self.blobs.get(digest)

    def has(self, digest: bytes) -> bool:
        return digest in self.blobs


def source_of(cluster: Cluster, node: Node) -> Source:
    signed = SignedCharter(schema.dump(cluster.charter), ())
    for each in cluster.nodes:
        signed = add_signature(cluster.charter, signed, each.identity)
    blocks = {stored.block.height: stored for stored in node.store.snapshot().blocks}
    return Source(cluster.charter, dump_file(signed), blocks.get, max(blocks), "the store")


def settled(cluster: Cluster, epoch: Callable[[str], int]) -> bool:
    return all(
        node.core is not None
        and all(
            c.certified is not None and c.epoch >= epoch(name) and c.certified.epoch == c.epoch
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
    cluster = Cluster(5, 3, rounds=ROUNDS, components=2)
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
    cluster.nodes[2].deliver(ev.Move("rewind", target, schema.dump(terms), "", 1000))

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
    found = case.checked(case.made(updates=True))
    assert found.verified, found.problems
    assert [(w.scope, w.mode) for w in found.withdrawn] == [("components", "refold"), ("updates", "refold")]
    removed = {c.component: (c.removed, c.others, c.refolded) for c in found.components}
    assert removed[A][0] >= 3
    assert removed[B][0] >= 1
    assert all(refolded for _, _, refolded in removed.values())
    ledger = case.cluster.nodes[3].core.ledger  # type: ignore[union-attr]
    for c in found.components:
        certified = ledger.components[c.component].certified
        assert certified is not None
        assert (c.digest, c.certified_round) == (certified.digest, certified.round)
    assert found.as_map()["verified"] is True


def test_a_rewind_shows_what_went_of_others_and_the_motion_behind_it(case: Case) -> None:
    found = case.checked(case.made(1))
    (withdrawn,) = found.withdrawn
    assert (withdrawn.mode, bool(withdrawn.motion)) == ("rewind", True)
    by_name = {c.component: c for c in found.components}
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
    source = eventful()
    ledger = list(source.history(source.top))[-1][1]
    owners = {w.author for w in ledger.withdrawn}
    assert owners
    for owner in owners:
        found = check(io.BytesIO(b"".join(make(source, owner))), "cert")
        assert found.walk.changes, "members changed on the way"
        assert found.withdrawn


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
        assert {n: (c.round, c.epoch, c.chain, c.certified) for n, c in read.components.items()} == {
            n: (c.round, c.epoch, c.chain, c.certified) for n, c in ledger.components.items()
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
    made = {name: joined(begin, each, rest) for name, each in changed.items()}
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
        place = chance.randrange(len(changed))
        how = chance.randrange(4)
        if how == 0:
            changed[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[place]
        elif how == 2:
            changed.insert(place, chance.randrange(256))
        else:
            del changed[place:]
        if bytes(changed) == content:
            continue
        with pytest.raises(CollegiumError) as caught:
            case.checked(bytes(changed))
        assert isinstance(caught.value, VerificationError | CorruptError), caught.value
