"""The pool of records without agreement, and anti-entropy's answers: bounded, and forks cannot part honest nodes."""

from dataclasses import replace

import pytest

from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core.messages import SYNC_LIMIT, SyncRequest, SyncResponse, tag
from collegium.node.core.pool import Pool
from collegium.node.core.progress import PATIENCE, Progress
from collegium.node.core.sync import answer
from collegium.protocol import schema
from collegium.protocol.blocks import Block, Certificate, Head, VoteSignature
from collegium.protocol.claims import DpEvents, effective_noise, merge
from collegium.protocol.records import GENESIS, Record
from collegium.protocol.signing import Signed, sign
from collegium.sims.simulator.memory import MemoryStore

ME, OTHER = Identity.from_seed(sha256(b"me")), Identity.from_seed(sha256(b"other"))
FED = sha256(b"federation")


def feed(length: int, kind: str = "x", start: Signed[Record] | None = None, size: int = 0) -> list[Signed[Record]]:
    seq, prev = (start.value.seq, start.digest) if start else (0, GENESIS)
    records = []
    for n in range(seq + 1, seq + length + 1):
        record = sign(ME, Record(FED, ME.public_key, n, prev, kind, bytes(size)))
        prev = record.digest
        records.append(record)
    return records


def head(record: Signed[Record]) -> Head:
    return Head(record.value.author, record.value.seq, record.digest)


# ---- pool


def test_chains_grow_in_any_order() -> None:
    pool, records = Pool(99), feed(5)
    for record in reversed(records):
        assert pool.add(record, {})
        assert not pool.add(record, {})
    assert pool.chain(ME.public_key, {}) == tuple(records)
    assert pool.heads({}) == {ME.public_key: (5, records[-1].digest)}


def test_two_branches_are_kept_and_a_third_only_if_a_block_needs_it() -> None:
    pool = Pool(99)
    a, b, c = (feed(1, kind)[0] for kind in "abc")
    assert pool.add(a, {})
    assert pool.add(b, {})
    assert not pool.add(c, {})
    assert set(pool.records) == {a.digest, b.digest}
    assert pool.under([head(c)], {}) is None
    assert pool.missing([head(c)], {}) == c.digest
    assert pool.add(c, {}, agreed=True)
    assert pool.under([head(c)], {}) == [c]
    assert pool.missing([head(c)], {}) is None
    assert pool.chain(ME.public_key, {}) == (a,), "the branch known first"


def test_the_pool_is_bounded_by_author() -> None:
    """G9."""
    pool, records = Pool(4), feed(6)
    for record in records[:4]:
        pool.add(record, {})
    with pytest.raises(RemoteProtocolError, match="quota-records"):
        pool.add(records[4], {})
    assert pool.add(records[4], {}, agreed=True)


def test_later_records_that_came_first_never_keep_the_next_one_out() -> None:
    """G3: the bound is on the places that follow the agreed head, whatever comes in which order."""
    pool, records = Pool(4), feed(9)
    for record in reversed(records):
        pool.add(record, {})
    assert pool.chain(ME.public_key, {}) == tuple(records[:4])
    heads = {ME.public_key: (4, records[3].digest)}
    pool.settle(heads)
    assert all(pool.add(record, heads) for record in records[4:8])
    with pytest.raises(RemoteProtocolError, match="quota-records"):
        pool.add(records[8], heads)


def test_cuts() -> None:
    pool, records = Pool(99), feed(4)
    for record in records:
        pool.add(record, {})
    heads = {ME.public_key: (2, records[1].digest)}
    assert pool.under([head(records[3])], heads) == [records[3], records[2]]
    lies = {
        "not after the agreed head": head(records[1]),
        "another seq": replace(head(records[3]), seq=3),
        "another author": replace(head(records[3]), author=OTHER.public_key),
    }
    for name, lie in lies.items():
        with pytest.raises(RemoteProtocolError) as caught:
            pool.under([lie], heads)
        assert caught.value.reason == "cut", name
    pool.settle(heads)
    assert len(pool) == 2


# ---- anti-entropy


def store_of(records: list[Signed[Record]], blocks: list[list[Signed[Record]]]) -> MemoryStore:
    store = MemoryStore()
    store.apply([ev.PutRecord(record) for record in records])
    signature = VoteSignature(ME.public_key, bytes(64))
    for height, under in enumerate(blocks, 1):
        block = Block(FED, height, GENESIS, (), (), 1, GENESIS, GENESIS, GENESIS)
        store.apply([ev.PutBlock(block, Certificate(0, (signature,)), tuple(r.digest for r in under))])
    return store


def ask(store: MemoryStore, height: int, heads: list[Head], messages: list[bytes] | None = None) -> SyncResponse:
    request = SyncRequest(FED, height, tuple(heads), b"")
    data = answer(request, FED, store, [ME.public_key, OTHER.public_key], messages or [])
    assert len(data) <= SYNC_LIMIT
    return schema.load(SyncResponse, data, SYNC_LIMIT)


def wires(records: list[Signed[Record]]) -> set[bytes]:
    return {record.wire for record in records}


def test_who_has_everything_gets_nothing() -> None:
    records = feed(4)
    store = store_of(records, [records[:2]])
    response = ask(store, 1, [head(records[-1])])
    assert (response.blocks, response.records, response.more) == ((), (), 0)


def test_a_decided_block_comes_with_the_branch_that_it_decided() -> None:
    """design.md section 4: the asker holds another branch that the answerer knows too, or has never seen."""
    common = feed(1)
    decided, lost = feed(3, "a", common[0]), feed(5, "b", common[0])
    for heads in (lost, lost[:2], []):
        store = store_of([*common, *decided, *heads], [[*common, *decided]])
        response = ask(store, 0, [head(lost[-1])])
        assert wires(decided) <= set(response.records), f"{len(heads)} of the other branch known"


def test_who_is_ahead_on_the_same_branch_is_sent_no_record_twice() -> None:
    records = feed(4)
    store = store_of(records, [records[:3]])
    response = ask(store, 0, [head(records[-1])])
    assert len(response.blocks) == 1
    assert response.records == ()


def test_another_branch_without_agreement_is_sent_from_where_they_part() -> None:
    common = feed(2)
    ours, theirs = feed(2, "a", common[-1]), feed(2, "b", common[-1])
    response = ask(store_of([*common, *ours], []), 0, [head(theirs[-1])])
    assert wires(ours) <= set(response.records)


def test_a_block_that_is_larger_than_an_answer_follows_its_records() -> None:
    """G3: a liar's full quotas must not keep a joiner out."""
    records = feed(200, size=60_000)
    store = store_of(records, [records])
    held: list[Signed[Record]] = []
    for _ in range(6):
        response = ask(store, 0, [head(held[-1])] if held else [])
        held += [record for record in records if record.wire in set(response.records)]
        if response.blocks:
            break
        assert response.more
        assert response.records
    assert response.blocks
    assert len(held) == 200


def test_messages_are_bounded_in_size_and_number() -> None:
    store = store_of([], [])
    small = [b"%d" % n for n in range(30_000)]
    assert len(ask(store, 0, [], small).messages) == 16_384
    large = [bytes([n]) * 250_000 for n in range(60)]
    response = ask(store, 0, [], large)
    assert 0 < len(response.messages) < 60
    assert response.messages[0] == large[0], "the first ones matter most"


def test_what_the_asker_has_is_not_sent_again() -> None:
    store = store_of([], [])
    request = SyncRequest(FED, 0, (), tag(b"one"))
    response = schema.load(SyncResponse, answer(request, FED, store, [], [b"one", b"two"]), SYNC_LIMIT)
    assert response.messages == (b"two",)


def test_another_federation_gets_no_answer() -> None:
    with pytest.raises(RemoteProtocolError, match="wrong-federation"):
        answer(SyncRequest(GENESIS, 0, (), b""), FED, MemoryStore(), [], [])


# ---- what a draw declares


def test_effective_noise_never_claims_too_much() -> None:
    """G6, design.md section 6: σ_eff = (Σ σ_c^-2)^(-1/2); worked case 1, 1.5, 2."""
    assert effective_noise([1_000_000]) == 1_000_000
    exact = (1 + 1 / 1.5**2 + 1 / 2**2) ** -0.5
    assert 0 <= exact * 1e6 - effective_noise([1_000_000, 1_500_000, 2_000_000]) < 2
    assert effective_noise([1_000_000, 0]) == 0
    assert effective_noise([]) == 0


def test_draws_of_one_kind_are_one_event() -> None:
    draws = [DpEvents(5, 7, 2), DpEvents(5, 9, 1), DpEvents(5, 7, 3)]
    assert merge(draws) == (DpEvents(5, 7, 5), DpEvents(5, 9, 1))


def test_g3_only_great_parts_of_history_keep_a_joiner_from_asking_others() -> None:
    """Who trickles true blocks, or sends much that is none, would keep it out for as long as it likes."""
    for heights, size, waits in ((20, 3 << 20, True), (20, 130_000, False), (3, 3 << 20, False)):
        progress = Progress()
        progress.part(1000, heights, size)
        assert progress.goes_on(1500) is waits
        assert not progress.goes_on(1000 + PATIENCE)
