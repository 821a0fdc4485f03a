"""The walk of cosigned heads: what `collect` makes, `check` accepts, and nothing that was changed (G2)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from collegium.consensus.ledger import Ledger
from collegium.crypto.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from collegium.crypto.identity import Identity
from collegium.node.core.events import StoredBlock
from collegium.node.verify import heads
from collegium.node.verify.heads import CosignedHead
from collegium.node.verify.outsiders import Source
from collegium.protocol import schema
from collegium.sims.paper.sample_ledger import sample_ledger

Walk = tuple[CosignedHead, ...]


@pytest.fixture(scope="module")
def source() -> Source:
    return sample_ledger()


@pytest.fixture(scope="module")
def history(source: Source) -> list[tuple[StoredBlock, Ledger]]:
    return list(source.history(source.top))


@pytest.fixture(scope="module")
def ledger(history: list[tuple[StoredBlock, Ledger]]) -> Ledger:
    return history[-1][1]


def changes(source: Source, history: list[tuple[StoredBlock, Ledger]]) -> list[int]:
    """By the ledgers themselves, not by what is under test."""
    members = [tuple(member.key for member in source.charter.members), *(ledger.members for _, ledger in history)]
    return [height for height in range(1, len(members)) if members[height] != members[height - 1]]


def test_the_eventful_ledger_has_what_it_says(source: Source, ledger: Ledger) -> None:
    seats = ledger.roll.seats.values()
    assert {seat.gone for seat in seats} == {"", "evidence", "expelled", "left", "rekeyed"}
    assert {outcome.result for outcome in ledger.roll.outcomes} >= {"passed", "refused"}
    assert ledger.withdrawn
    kinds = {record.value.kind for stored, _ in source.history(source.top) for record in stored.records}
    known = {kind for kind in kinds if not kind.startswith("noise-")}  # whose floods are of unknown kinds
    assert known == {"offer", "update", "attest", "evidence", "withdrawal", "motion", "ballot"}


def test_the_roll_tells_who_decided_at_every_height(
    source: Source, history: list[tuple[StoredBlock, Ledger]], ledger: Ledger
) -> None:
    for stored, then in history:
        assert heads.members_after(ledger.roll, stored.block.height) == then.members
        assert heads.members_after(then.roll, stored.block.height) == then.members


def test_every_height_can_be_walked_to(source: Source, history: list[tuple[StoredBlock, Ledger]]) -> None:
    ledger = history[-1][1]
    moved = changes(source, history)
    assert len(moved) >= 5
    for stored, then in history:
        height = stored.block.height
        walk = source.walk(ledger, (height,))
        assert walk == source.walk(then, (height,)), "an older roll says the same"
        assert [head.block.height for head in walk] == sorted({*(h for h in moved if h < height), height})
        blocks = heads.check(source.charter, walk, (height,))
        assert blocks.blocks == {height: stored.block}
        assert blocks.members == frozenset(then.members)
        assert blocks.changes == tuple(h for h in moved if h <= height)
        assert blocks.signatures == sum(len(head.certificate.signatures) for head in walk)


def test_it_travels_as_canonical_bytes(source: Source, ledger: Ledger) -> None:
    for head in source.walk(ledger, (1, source.top)):
        assert schema.load(CosignedHead, schema.dump(head), 1 << 19) == head


def test_pins_hold_the_heads_that_are_in_it(source: Source, ledger: Ledger) -> None:
    walk = source.walk(ledger, (2, source.top))
    pins = {head.block.height: head.block.id for head in walk}
    heads.check(source.charter, walk, (2, source.top), pins=pins)
    with pytest.raises(VerificationError, match="pinned-block"):
        heads.check(source.charter, walk, (2, source.top), pins={2: bytes(32)})
    with pytest.raises(VerificationError, match="pinned-block: it holds the headers at 2,"):
        heads.check(source.charter, walk, (2, source.top), pins={source.top + 1: bytes(32)})


def test_nothing_to_walk_to_is_an_empty_walk(source: Source, ledger: Ledger) -> None:
    assert source.walk(ledger, ()) == ()
    assert heads.check(source.charter, (), ()).members == {member.key for member in source.charter.members}


def _head(walk: Walk, index: int, **changed: object) -> Walk:
    return (*walk[:index], replace(walk[index], **changed), *walk[index + 1 :])  # type: ignore[arg-type]  # by name


def _block(walk: Walk, index: int, **changed: object) -> Walk:
    return _head(walk, index, block=replace(walk[index].block, **changed))  # type: ignore[arg-type]  # by name


def _signatures(walk: Walk, index: int, count: int) -> Walk:
    certificate = walk[index].certificate
    return _head(walk, index, certificate=replace(certificate, signatures=certificate.signatures[:count]))


def _stranger(walk: Walk) -> Walk:
    entries = list(walk[-1].certificate.signatures)
    entries[0] = replace(entries[0], author=Identity.generate().public_key)
    entries.sort(key=lambda entry: entry.author)
    return _head(walk, -1 % len(walk), certificate=replace(walk[-1].certificate, signatures=tuple(entries)))


MUTATIONS: dict[str, tuple[Callable[[Walk], Walk], str]] = {
    "a change of members is left out": (lambda w: (*w[:1], *w[2:]), "members-list|certificate-not-a-member|no-quorum"),
    "all of them are": (lambda w: w[-1:], "members-list|certificate-not-a-member|no-quorum"),
    "the target is left out": (lambda w: w[:-1], "missing-head"),
    "a head is there twice": (lambda w: (w[0], *w), "height: after height"),
    "two heads change places": (lambda w: (w[1], w[0], *w[2:]), "members-list|certificate|height|no-quorum"),
    "the tree's root is another": (lambda w: _block(w, len(w) - 1, tree_root=bytes(32)), "bad-signature"),
    "the tree is larger": (lambda w: _block(w, 0, tree_size=10_000), "bad-signature"),
    "the federation is another": (lambda w: _block(w, 0, federation=bytes(32)), "wrong-federation"),
    "the header names other members": (lambda w: _block(w, 0, members=bytes(32)), "bad-signature"),
    "too few signed": (lambda w: _signatures(w, 0, 1), "no-quorum"),
    "nobody is listed": (lambda w: _head(w, 0, members=()), "members-list"),
    "somebody else is listed": (lambda w: _head(w, 0, members=(bytes(32), *w[0].members[1:])), "members-list"),
    "one is listed twice": (lambda w: _head(w, 0, members=(w[0].members[0], *w[0].members)), "members-list"),
    "they are listed in another order": (lambda w: _head(w, 0, members=w[0].members[::-1]), "members-list"),
    "members are listed though none changed": (lambda w: _head(w, len(w) - 1, members=w[0].members), "members-list"),
    "a stranger signed": (_stranger, "certificate-not-a-member"),
    "the view is another": (
        lambda w: _head(w, 0, certificate=replace(w[0].certificate, view=w[0].certificate.view + 1)),
        "bad-signature",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_g2_a_walk_that_was_changed_is_refused_by_name(source: Source, ledger: Ledger, name: str) -> None:
    change, reason = MUTATIONS[name]
    walk = source.walk(ledger, (source.top,))
    assert walk[-1].members == (), "the last block changes nothing, the first head does"
    with pytest.raises(VerificationError, match=reason):
        heads.check(source.charter, change(walk), (source.top,))


def test_a_head_that_nothing_is_about_is_refused(source: Source, ledger: Ledger) -> None:
    walk = source.walk(ledger, (1, source.top))
    assert walk[0].members == ()
    with pytest.raises(VerificationError, match="idle-head"):
        heads.check(source.charter, walk, (source.top,))


def test_a_walk_of_two_pasts_is_refused(source: Source, ledger: Ledger) -> None:
    """What a quorum that signs twice could show: neighbours that are not linked, and trees that shrink."""
    first, second = (head.block for head in source.walk(ledger, (1, 2)))
    heads._follows(source.charter, first, second)
    for before, reason in (
        (replace(first, fold=bytes(32)), "prev"),
        (replace(first, height=0, tree_size=second.tree_size + 1), "tree-shrinks"),
        (replace(first, height=0, tree_size=second.tree_size), "tree-shrinks"),
        (second, "height"),
    ):
        with pytest.raises(RemoteProtocolError, match=reason):
            heads._follows(source.charter, before, second)


def test_what_does_not_fit_together_is_our_own_mistake(source: Source, ledger: Ledger) -> None:
    blocks = [block for height in range(1, source.top + 1) if (block := source.block(height))]
    with pytest.raises(LocalProtocolError, match="no block at height"):
        heads.collect(source.charter, ledger.roll, blocks[:-1], (source.top,))
    other = replace(ledger.roll, seats={key: replace(s, gone="") for key, s in ledger.roll.seats.items()})
    with pytest.raises(LocalProtocolError, match="roll"):
        heads.collect(source.charter, other, blocks, (source.top,))
