"""Sums: whoever adds what in whatever order, once each; what is withdrawn is gone exactly (G1, G4, G7)."""

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus.components import Entry, Round, fold_round, origin, replay
from collegium.consensus.cut import order
from collegium.consensus.fold import fold_block, next_state
from collegium.consensus.ledger import ComponentLedger, Ledger, genesis
from collegium.consensus.rounds import closable, eligible
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.blocks import Close
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.components import MILLION, state_digest
from collegium.protocol.records import (
    GENESIS,
    Ack,
    Body,
    Offer,
    Record,
    Update,
    Withdrawal,
    WithdrawalStatement,
    ack_message,
    kind_of,
)
from collegium.protocol.signing import Signed, sign
from collegium.protocol.statistics import numbers
from collegium.protocol.update import Engaged, Integers, UpdateHeader
from collegium.sims.simulator.small import small_charter

NAME, HEAD = "statistic/task0", "head/task0"


class Book:
    """A federation on paper with one statistic; `sums` has the integers behind every blob."""

    def __init__(self, count: int = 4) -> None:
        self.ids = sorted((Identity.from_seed(sha256(b"%d" % n)) for n in range(count)), key=lambda i: i.public_key)
        self.charter = small_charter(self.ids, statistics=1)
        self.spec = next(spec for spec in self.charter.components if spec.name == NAME)
        self.ledger: Ledger = genesis(self.charter)
        self.heads: dict[bytes, tuple[int, bytes]] = {}
        self.sums: dict[bytes, Integers] = {}

    @property
    def component(self) -> ComponentLedger:
        return self.ledger.components[NAME]

    def record(self, who: Identity, body: Body) -> Signed[Record]:
        seq, prev = self.heads.get(who.public_key, (0, GENESIS))
        federation = self.charter.federation
        record = sign(who, Record(federation, who.public_key, seq + 1, prev, kind_of(body), schema.dump(body)))
        self.heads[who.public_key] = (seq + 1, record.digest)
        return record

    def update(self, who: Identity, round_: int, *, generation: int = 0, salt: int = 0) -> Signed[Record]:
        blob = sha256(who.public_key + bytes([round_, salt]))
        values = np.random.default_rng(list(blob)).integers(-(2**31), 2**31, self.spec.dimension)
        self.sums[blob] = values.astype("<i4")
        header = sign(
            who,
            UpdateHeader(
                federation=self.charter.federation,
                author=who.public_key,
                component=NAME,
                round=round_,
                generation=generation,
                base=self.spec.base,
                blob=blob,
                size=100,
                steps=1,
                sample_rate=MILLION,
                lot=1000,
                engaged=(Engaged(NAME, self.spec.base, 0, self.spec.clip_norm, MILLION),),
                claims=(Claim("made-up", (), NO_EPSILON, 0),),
            ),
        )
        text = ack_message(self.charter.federation, header.digest)
        return self.record(who, Update(header.wire, tuple(Ack(h.public_key, h.sign("ack", text)) for h in self.ids)))

    def withdraw(self, who: Identity) -> Signed[Record]:
        seq = self.heads[who.public_key][0]
        statement = WithdrawalStatement(self.charter.federation, who.public_key, "all", "refold", seq)
        return self.record(who, Withdrawal(sign(who, statement).wire))

    def block(self, *records: Signed[Record], close: bool = False) -> list[str]:
        """Fold a block; return why its records are refused."""
        closes = [Close(NAME, self.component.round + 1)] if close else []
        state, block = next_state(self.ledger, order(records), closes)
        assert fold_block(self.ledger, block, records) == state
        self.ledger = state
        return [refusal.reason for refusal in state.refusals]

    def open(self, who: Iterable[Identity] | None = None) -> "Book":
        self.block(*(self.record(i, Offer((HEAD, NAME), ())) for i in (self.ids if who is None else who)))
        return self

    def counted(self) -> list[list[bytes]]:
        return [[entry.author for entry in round_.entries] for round_ in self.component.rounds]

    def folded(self) -> tuple[bytes, list[int]]:
        state, saturated = replay(origin(self.spec), self.spec, self.component.rounds, lambda e: self.sums[e.blob])
        assert saturated == 0
        return state_digest(NAME, state), numbers(state).tolist()


# ---- the component fold


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.randoms())
def test_any_order_and_any_rounds_give_the_same_state(count: int, source: random.Random) -> None:
    """G1, G7: numbers over the whole range of 32 bits, in rounds of any size, and one after the other."""
    spec = Book(1).spec
    rows = [np.array([source.randrange(-(2**31), 2**31) for _ in range(spec.dimension)], "<i4") for _ in range(count)]
    expected = [sum(int(row[index]) for row in rows) for index in range(spec.dimension)]
    order_ = source.sample(range(count), count)
    cuts = sorted(source.sample(range(count + 1), source.randint(0, count)))
    parts = [order_[a:b] for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    rounds = [
        Round(n, n, tuple(Entry(bytes([row]), b"", b"", 0, 0, 0) for row in part), 7, b"")
        for n, part in enumerate(parts, 1)
    ]
    state, saturated = replay(origin(spec), spec, rounds, lambda entry: rows[entry.update[0]])
    assert numbers(state).tolist() == expected
    assert saturated == 0
    gone = order_[0]
    without, _ = replay(
        origin(spec),
        spec,
        [Round(1, 1, tuple(Entry(bytes([row]), b"", b"", 0, 0, 0) for row in order_[1:]), 0, b"")],
        lambda entry: rows[entry.update[0]],
    )
    assert (numbers(state) - rows[gone]).tolist() == numbers(without).tolist(), "taken away is as never put in"


def test_no_rule_and_no_f_leaves_anything_out() -> None:
    spec = Book(1).spec
    rows = [np.full(spec.dimension, value, "<i4") for value in (5, 5, 5, 1000)]
    entries = tuple(Entry(bytes([n]), b"", b"", 0, 3 * n, 10**9 * n) for n in range(4))
    state, _ = fold_round(origin(spec), spec, Round(1, 1, entries, 1, b""), lambda entry: rows[entry.update[0]])
    assert set(numbers(state).tolist()) == {1015}


# ---- the ledger


def test_an_update_is_never_stale_and_counts_once() -> None:
    """A member that comes rounds later counts; nobody counts twice, nobody in flight twice."""
    book = Book().open()
    a, b, c, d = book.ids
    late = book.update(d, 1)
    assert book.block(*(book.update(i, 1) for i in (a, b)), close=True) == []
    assert book.block(book.update(c, 2), close=True) == []
    assert book.block(late) == []
    assert [e.staleness for e in eligible(book.charter, book.ledger, NAME)] == [0]
    assert book.block(book.update(d, 3, salt=1)) == ["second-header"]
    assert book.block(book.update(a, 3)) == ["counted-already"]
    book.block(close=True)
    assert book.counted() == [[a.public_key, b.public_key], [c.public_key], [d.public_key]]
    assert not closable(book.charter, book.ledger, NAME), "no more rounds where all have contributed"
    assert book.component.pending == ()


def test_who_offers_late_is_a_host_at_once() -> None:
    """A round closes only when somebody contributes: waiting for it, a late member would never be a host."""
    book = Book()
    *early, late = book.ids
    book.open(early)
    book.block(*(book.update(i, 1) for i in early), close=True)
    assert late.public_key not in book.component.hosts
    book.open([late])
    assert late.public_key in book.component.hosts
    assert late.public_key not in book.ledger.components[HEAD].hosts or book.ledger.components[HEAD].round == 0
    book.block(book.update(late, 2), close=True)
    assert book.counted()[-1] == [late.public_key]


def test_a_round_that_is_not_open_yet_waits() -> None:
    book = Book().open()
    assert book.block(book.update(book.ids[0], 2)) == ["round-ahead"]


def test_what_was_withdrawn_does_not_come_back_and_is_replaced() -> None:
    """G7: its bytes are being erased; the replacement has a number that was never in flight."""
    book = Book().open()
    a = book.ids[0]
    book.block(*(book.update(i, 1) for i in book.ids), close=True)
    _, everybody = book.folded()
    assert book.block(book.withdraw(a)) == []
    assert (book.component.generation, book.component.round) == (1, 1)
    _, rest = book.folded()
    mine = book.sums[sha256(a.public_key + bytes([1, 0]))]
    assert (np.array(everybody) - mine).tolist() == rest
    assert book.block(book.update(a, 1)) == ["withdrawn"]
    assert book.block(book.update(a, 2)) == ["withdrawn"], "it may have been in flight"
    assert book.block(book.update(a, 4)) == ["round-ahead"]
    assert book.block(book.update(a, 3), close=True) == []
    assert book.counted()[-1] == [a.public_key]
    assert book.block(book.update(a, 4)) == ["counted-already"]


def test_a_replacement_that_is_withdrawn_before_it_counts_stays_out() -> None:
    """G7: its round is ahead of the last closed one, and no later round closed."""
    book = Book().open()
    a = book.ids[0]
    book.block(*(book.update(i, 1) for i in book.ids), close=True)
    book.block(book.withdraw(a))
    assert book.block(book.update(a, 3)) == []
    assert [p.round for p in book.component.pending] == [3]
    assert book.block(book.withdraw(a)) == []
    assert book.component.pending == ()
    assert book.block(book.update(a, 3)) == ["withdrawn"], "its bytes are erased"
    assert book.block(book.update(a, 4), close=True) == []
    assert book.counted() == [[i.public_key for i in book.ids[1:]], [a.public_key]]


@pytest.mark.parametrize("seed", range(50))
def test_any_history_ends_in_the_sum_of_who_is_in(seed: int) -> None:
    """G7: contributions and withdrawals in any order, and the digest is that of the survivors alone."""
    source = random.Random(seed)
    book = Book(3).open()
    inside: dict[bytes, bytes] = {}
    for _ in range(source.randint(3, 9)):
        records = []
        for who in source.sample(book.ids, source.randint(1, 3)):
            key = who.public_key
            if key in inside:
                records.append(book.withdraw(who))
                del inside[key]
            else:
                barred = max((dict(w.rounds)[NAME] + 1 for w in book.ledger.withdrawn if w.author == key), default=0)
                round_ = max(book.component.round, barred) + 1
                records.append(book.update(who, round_, generation=book.component.generation))
                inside[key] = sha256(key + bytes([round_, 0]))
        assert book.block(*records) == []
        if closable(book.charter, book.ledger, NAME):
            book.block(close=True)
    digest, sums = book.folded()
    alone = Book(3)
    entries = tuple(Entry(b"", key, blob, 0, 0, 0) for key, blob in inside.items())
    state, _ = fold_round(origin(alone.spec), alone.spec, Round(1, 1, entries, 0, b""), lambda e: book.sums[e.blob])
    assert digest == state_digest(NAME, state)
    assert sums == numbers(state).tolist()
