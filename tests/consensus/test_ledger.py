"""The ledger fold: same records, same state; inert records, withdrawals, evidence, certificates (G1, G4, G5, G7)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import fold
from collegium.consensus.components import Entry, Round, chained
from collegium.consensus.cut import check_cut, check_record, order
from collegium.consensus.fold import fold_block, next_state
from collegium.consensus.ledger import Certified, ComponentLedger, Erasure, Ledger, Pending, Refusal, Withdrawn, genesis
from collegium.consensus.rounds import closable, eligible, possible_authors
from collegium.consensus.summary import state_digest
from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.blocks import NIL, PREVOTE, Block, Close, Vote
from collegium.protocol.charter import Charter
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.records import (
    GENESIS,
    Ack,
    Attest,
    Body,
    Evidence,
    Idle,
    Offer,
    Record,
    Update,
    Withdrawal,
    WithdrawalStatement,
    ack_message,
    kind_of,
)
from collegium.protocol.signing import Signed, sign
from collegium.protocol.update import Engaged, UpdateHeader
from collegium.sims.simulator.small import CharterOptions, small_charter

T = "head/task0"
STRANGER = Identity.from_seed(sha256(b"stranger"))


class Book:
    """A federation on paper: feeds, blocks, one ledger."""

    def __init__(self, count: int = 4, **charter: Unpack[CharterOptions]) -> None:
        self.ids = sorted((Identity.from_seed(sha256(b"%d" % n)) for n in range(count)), key=lambda i: i.public_key)
        self.charter: Charter = small_charter(self.ids, **charter)
        self.federation = self.charter.federation
        self.ledger: Ledger = genesis(self.charter)
        self.heads: dict[bytes, tuple[int, bytes]] = {}
        self.blocks: list[tuple[Block, list[Signed[Record]]]] = []

    @property
    def component(self) -> ComponentLedger:
        return self.ledger.components[T]

    def record(self, who: Identity, body: Body | None = None, *, kind: str = "", raw: bytes = b"") -> Signed[Record]:
        seq, prev = self.heads.get(who.public_key, (0, GENESIS))
        kind, data = (kind, raw) if body is None else (kind_of(body), schema.dump(body))
        record = sign(who, Record(self.federation, who.public_key, seq + 1, prev, kind, data))
        self.heads[who.public_key] = (seq + 1, record.digest)
        return record

    def header(
        self, who: Identity, round_: int, *, generation: int = 0, salt: int = 0, name: str = T
    ) -> Signed[UpdateHeader]:
        base = sha256(b"base")
        return sign(
            who,
            UpdateHeader(
                federation=self.federation,
                author=who.public_key,
                component=name,
                round=round_,
                generation=generation,
                base=base,
                blob=sha256(who.public_key + bytes([round_, salt])),
                size=100,
                steps=4,
                sample_rate=100_000,
                lot=1000,
                engaged=(Engaged(name, base, 0, 1_000_000, 1_000_000),),
                claims=(Claim("made-up", (), NO_EPSILON, 0),),
            ),
        )

    def acks(self, header: Signed[UpdateHeader], hosts: Iterable[Identity]) -> tuple[Ack, ...]:
        text = ack_message(self.federation, header.digest)
        return tuple(Ack(h.public_key, h.sign("ack", text)) for h in sorted(hosts, key=lambda h: h.public_key))

    def update(
        self, who: Identity, round_: int, hosts: Iterable[Identity] | None = None, *, generation: int = 0, salt: int = 0
    ) -> Signed[Record]:
        header = self.header(who, round_, generation=generation, salt=salt)
        return self.record(who, Update(header.wire, self.acks(header, self.ids if hosts is None else hosts)))

    def block(self, *records: Signed[Record], close: Sequence[int] = ()) -> Ledger:
        ordered = order(records)
        state, block = next_state(self.ledger, ordered, [Close(T, n) for n in close])
        assert fold_block(self.ledger, block, records) == state
        self.ledger = state
        self.blocks.append((block, ordered))
        return state

    def offers(self) -> list[Signed[Record]]:
        return [self.record(who, Offer((T,), ())) for who in self.ids]

    def open(self) -> None:
        self.block(*self.offers())

    def round(self, number: int, who: Iterable[Identity] | None = None) -> None:
        self.block(*(self.update(i, number) for i in (self.ids if who is None else who)), close=[number])

    def withdraw(self, owner: Identity, through: int | None = None, carrier: Identity | None = None) -> Signed[Record]:
        seq = self.heads.get(owner.public_key, (0, GENESIS))[0] if through is None else through
        statement = WithdrawalStatement(self.federation, owner.public_key, "all", "refold", seq)
        return self.record(carrier or owner, Withdrawal(sign(owner, statement).wire))

    def attest(
        self, who: Identity, digest: bytes, *, round_: int | None = None, generation: int | None = None
    ) -> Signed[Record]:
        c = self.component
        return self.record(
            who,
            Attest(
                T, c.round if round_ is None else round_, c.generation if generation is None else generation, digest
            ),
        )

    def reasons(self) -> list[str]:
        return [refusal.reason for refusal in self.ledger.refusals]

    def counted(self) -> list[list[bytes]]:
        return [[entry.author for entry in round_.entries] for round_ in self.component.rounds]


@pytest.fixture
def book() -> Book:
    made = Book()
    made.open()
    return made


def refuses(reason: str, call: object, *args: object, **kwargs: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert caught.value.reason == reason


# ---- same records, same state


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_order_of_arrival_gives_the_same_state(data: st.DataObject) -> None:
    """G1: within a block, and whether folded as it came, from the start, or trusted after a restart."""
    book = Book()
    book.open()
    for number in range(1, data.draw(st.integers(1, 3)) + 1):
        records = [book.update(i, number) for i in book.ids]
        if data.draw(st.booleans()):
            records.append(book.record(book.ids[0], kind="unknown-kind", raw=b"\xa0"))
        if data.draw(st.booleans()):
            records.append(book.withdraw(book.ids[data.draw(st.integers(0, 3))]))
        if data.draw(st.booleans()):
            records += [book.attest(i, sha256(b"state")) for i in book.ids]
        before = book.ledger
        shuffled = data.draw(st.permutations(records))
        states = set()
        for arrival in (records, shuffled):
            closes = [Close(T, number)] if closable(book.charter, fold.apply_records(before, order(arrival)), T) else []
            state, block = next_state(before, order(arrival), closes)
            states.add((state_digest(state), block.id))
        assert len(states) == 1
        book.block(*shuffled, close=[number] if closes else [])
        if not closes:
            break
    for trusted in (False, True):
        ledger = genesis(book.charter)
        for block, other_block in book.blocks:
            ledger = fold_block(ledger, block, data.draw(st.permutations(other_block)), trusted=trusted)
        assert ledger == book.ledger
        assert ledger.tree == book.ledger.tree


def test_the_digest_covers_every_part_of_the_state(book: Book) -> None:
    """G1: whatever later blocks depend on."""
    book.round(1)
    book.block(book.update(book.ids[0], 2), book.attest(book.ids[0], sha256(b"x")))
    ledger, c = book.ledger, book.component
    (pending,) = c.pending
    parts = {
        "height": replace(ledger, height=9),
        "members": replace(ledger, members=ledger.members[1:]),
        "heads": replace(ledger, heads={**ledger.heads, book.ids[0].public_key: (9, NIL)}),
        "offers": replace(ledger, offers={**ledger.offers, book.ids[0].public_key: Offer((), ())}),
        "withdrawn": replace(ledger, withdrawn=(Withdrawn(NIL, 1, "refold", 1, NIL),)),
        "expelled": replace(ledger, expelled=(NIL,)),
    }
    components = {
        "round": replace(c, round=5),
        "generation": replace(c, generation=5),
        "hosts": replace(c, hosts=c.hosts[1:]),
        "rounds": replace(c, rounds=chained([replace(c.rounds[0], entries=c.rounds[0].entries[1:])], GENESIS)),
        "faults": replace(c, rounds=chained([replace(c.rounds[0], faults=0)], GENESIS)),
        "pending": replace(c, pending=()),
        "pending seq": replace(c, pending=(replace(pending, seq=77),)),
        "pending acks": replace(c, pending=(replace(pending, acks=frozenset()),)),
        "attests": replace(c, attests=()),
        "certified": replace(c, certified=Certified(1, 0, NIL)),
        "erasures": replace(c, erasures=(Erasure(1, (NIL,)),)),
    }
    parts |= {name: replace(ledger, components={T: changed}) for name, changed in components.items()}
    digests = {name: state_digest(changed) for name, changed in parts.items()}
    digests["unchanged"] = state_digest(ledger)
    assert len(set(digests.values())) == len(digests), digests


@pytest.mark.parametrize("part", ["staleness", "variance", "author", "blob", "update", "seq", "size"])
def test_the_chain_covers_every_part_of_an_entry(part: str) -> None:
    entry = Entry(NIL, NIL, NIL, 1, 0, 1, 1)
    value: object = sha256(b"other") if isinstance(getattr(entry, part), bytes) else 9
    one, two = (
        chained([Round(1, 1, (e,), 0, b"")], GENESIS)[0].chain
        for e in (entry, replace(entry, **{part: value}))  # type: ignore[arg-type]  # each part in turn
    )
    assert one != two


# ---- cuts


def test_cuts_name_what_is_wrong(book: Book) -> None:
    """design.md section 7 valid(header): chains extend the last cut, unfrozen, within the quotas."""
    a, b = book.ids[:2]
    first, second = book.record(a, kind="x"), book.record(a, kind="x")
    stranger = sign(STRANGER, Record(book.federation, STRANGER.public_key, 1, GENESIS, "x", b""))
    other = sign(a, Record(book.federation, a.public_key, first.value.seq, sha256(b"other"), "x", b""))
    many = [book.record(b, kind="x") for _ in range(65)]
    cuts = {
        "gap": [second],
        "not-a-member": [stranger],
        "fork": [other],
        "quota-records": many,
        "quota-bytes": [],
    }
    c = book.ids[2]
    cuts["quota-bytes"] = [book.record(c, kind="x", raw=bytes(30_000)) for _ in range(36)]
    cuts["oversized-record"] = [book.record(book.ids[3], kind="x", raw=bytes(32_000))]  # its fork could not be proved
    for reason, records in cuts.items():
        refuses(reason, check_cut, book.charter, book.ledger, records)
    refuses("empty", next_state, book.ledger, [], [])
    check_cut(book.charter, book.ledger, [first, second, *many[:64]])
    frozen = replace(book.ledger, expelled=(a.public_key,))
    refuses("frozen-feed", check_cut, book.charter, frozen, [first])


def test_a_header_that_differs_from_its_records_is_refused(book: Book) -> None:
    """G2, G4."""
    record = book.record(book.ids[0], kind="x")
    _, block = next_state(book.ledger, [record], [])
    assert fold_block(book.ledger, block, [record]).block == block.id
    wrong = {
        "fold": replace(block, fold=NIL),
        "tree_size": replace(block, tree_size=9),
        "tree_root": replace(block, tree_root=NIL),
        "members": replace(block, members=NIL),
        "cut": replace(block, cut=()),
        "federation": replace(block, federation=NIL),
    }
    for name, lie in wrong.items():
        refuses("header-differs", fold_block, book.ledger, lie, [record])
        assert lie != block, name
    refuses("height", fold_block, book.ledger, replace(block, height=9), [record])
    refuses("prev", fold_block, book.ledger, replace(block, prev=sha256(b"x")), [record])
    lie = replace(block, close=(Close(T, 1),))
    refuses("not-closable", fold_block, book.ledger, lie, [record])


# ---- inert records


def test_inert_records_are_named_and_change_nothing_else(book: Book) -> None:
    """G9, G5: each in its own block, against the state that an unknown kind would leave."""
    book.round(1)
    a, b, c, d = book.ids
    good = book.header(a, 2)
    forged = replace(book.acks(good, book.ids)[0], signature=bytes(64))
    unsigned = good.wire[:10] + bytes([good.wire[10] ^ 1]) + good.wire[11:]
    bad_scope = WithdrawalStatement(book.federation, a.public_key, "some", "refold", 1)
    stranger = WithdrawalStatement(book.federation, STRANGER.public_key, "all", "refold", 1)
    counted = book.header(a, 1)
    twice = book.acks(good, [a])
    wrong: dict[str, tuple[str, Body | tuple[str, bytes]]] = {
        "body is not MessagePack": ("malformed", ("offer", b"\xc1")),
        "body has a field too many": ("invalid", ("offer", b"\x80")),
        "header of another member": ("not-the-author", Update(book.header(b, 2).wire, ())),
        "header with a false signature": ("bad-signature", Update(unsigned, ())),
        "forged acknowledgement": ("false-ack", Update(good.wire, (forged,))),
        "one acknowledgement twice": ("false-ack", Update(good.wire, twice * 2)),
        "counted already": ("counted-already", Update(counted.wire, book.acks(counted, book.ids))),
        "a round far ahead": ("round-ahead", Update(book.header(a, 3).wire, ())),
        "a generation ahead": ("generation-ahead", Update(book.header(a, 2, generation=1).wire, ())),
        "attest of an open round": ("attest-ahead", Attest(T, 2, 0, NIL)),
        "attest of an unknown component": ("unknown-component", Attest("head/none", 1, 0, NIL)),
        "scope unknown": ("unknown-withdrawal", Withdrawal(sign(a, bad_scope).wire)),
        "withdrawal of a stranger": ("not-a-member", Withdrawal(sign(STRANGER, stranger).wire)),
        "evidence of nothing": ("false-evidence", Evidence("fork", good.wire[:70] + bytes(40), good.wire)),
    }
    for name, (reason, body) in wrong.items():
        trial, before = Book(), book.ledger
        trial.ledger, trial.heads = before, dict(book.heads)
        trial.charter, trial.federation, trial.ids = book.charter, book.federation, book.ids
        made = trial.record(a, kind=body[0], raw=body[1]) if isinstance(body, tuple) else trial.record(a, body)
        trial.block(made)
        if name == "evidence of nothing":
            assert trial.reasons()[0] in ("malformed", "not-canonical", "invalid"), name
        else:
            assert trial.reasons() == [reason], name
        assert trial.component == before.components[T], name
        assert trial.ledger.members == before.members, name
        assert trial.ledger.withdrawn == (), name
    assert c is not d


def test_a_restart_folds_a_false_ack_as_it_was_decided(book: Book) -> None:
    """G8: `trusted` skips signatures; a block with an inert record must give the same state all the same."""
    a = book.ids[0]
    header = book.header(a, 1)
    forged = replace(book.acks(header, book.ids)[1], signature=bytes(64))
    book.block(book.record(a, Update(header.wire, (forged,))))
    assert book.reasons() == ["false-ack"]
    ledger = genesis(book.charter)
    for block, records in book.blocks:
        ledger = fold_block(ledger, block, records, trusted=True)
    assert ledger == book.ledger


# ---- eligibility and closing


def test_acks_from_a_quorum_of_the_active_hosts(book: Book) -> None:
    """design.md section 7: three of four; strangers' and non-hosts' acknowledgements do not help."""
    a, b, c, d = book.ids
    book.block(book.update(a, 1, [a, b]), book.update(b, 1, [a, b, STRANGER]), book.update(c, 1, [a, b, c]))
    assert [e.author for e in eligible(book.charter, book.ledger, T)] == [c.public_key]
    refuses("not-closable", next_state, book.ledger, [book.record(d, kind="x")], [Close(T, 1)])


def test_later_acks_add_to_earlier_ones(book: Book) -> None:
    a, b, c, _ = book.ids
    book.block(book.update(a, 1, [a, b]))
    book.block(book.update(a, 1, [c]))
    assert [e.author for e in eligible(book.charter, book.ledger, T)] == [a.public_key]


def test_hosts_are_frozen_at_the_previous_close() -> None:
    """design.md section 7: who offers in round 2 hosts, and is counted, from round 3 on."""
    book = Book(5, fault_model="crash")
    late = book.ids[4]
    book.block(*(book.record(who, Offer((T,), ())) for who in book.ids[:4]))
    book.round(1, book.ids[:4])
    assert late.public_key not in book.component.hosts
    book.block(book.record(late, Offer((T,), ())), book.update(late, 2))
    assert late.public_key not in book.component.hosts
    assert eligible(book.charter, book.ledger, T) == ()
    book.round(2, book.ids[:4])
    assert late.public_key in book.component.hosts
    assert late.public_key not in book.counted()[1]
    assert [(e.author, e.staleness) for e in eligible(book.charter, book.ledger, T)] == [(late.public_key, 1)]


def test_the_freshest_update_of_an_author_counts_and_stale_ones_fade(book: Book) -> None:
    """design.md section 7: s = r - ρ ≤ S, one update an author."""
    a, b, c, d = book.ids
    book.round(1, [a, b])
    book.block(book.update(c, 1), book.update(c, 2), book.update(d, 1))
    staleness = {e.author: e.staleness for e in eligible(book.charter, book.ledger, T)}
    assert staleness == {c.public_key: 0, d.public_key: 1}
    book.block(book.update(a, 2), close=[2])
    assert [(e.author, e.staleness) for e in book.component.rounds[1].entries] == sorted(
        [(a.public_key, 0), (c.public_key, 0), (d.public_key, 1)]
    )
    assert book.component.pending == ()
    book.round(3, [a, b])
    book.block(book.update(d, 2))
    assert book.reasons() == ["stale"]


def test_robust_rules_take_no_stale_update() -> None:
    book = Book(rule="trimmed_mean")
    book.open()
    a, b, c, _ = book.ids
    book.round(1, [a, b])
    book.block(book.update(c, 1))
    assert eligible(book.charter, book.ledger, T) == ()


def test_rounds_close_in_their_order_with_enough_updates(book: Book) -> None:
    a, b, *_ = book.ids
    book.block(book.update(a, 1))
    spare = [book.record(b, kind="x")]
    for close in ([Close(T, 1)], [Close(T, 2)], [Close("head/none", 1)]):
        refuses("not-closable", next_state, book.ledger, spare, close)
    book.heads[b.public_key] = book.ledger.heads[b.public_key]
    book.block(book.update(b, 1), close=[1])
    refuses("close-order", next_state, book.ledger, [book.record(a, kind="x")], [Close(T, 2), Close(T, 2)])


def test_a_round_closes_without_a_record_in_its_block(book: Book) -> None:
    """G3: the updates were agreed on before the deadline passed; nobody has anything to add."""
    book.block(*(book.update(who, 1) for who in book.ids[:3]))
    book.block(close=[1])
    assert len(book.counted()[0]) == 3


def test_a_second_header_needs_its_own_quorum(book: Book) -> None:
    """design.md section 7: an honest host acks one header a place, so at most one of two gathers a quorum."""
    a, b, c, d = book.ids
    book.block(book.update(a, 1, [a, b, c], salt=1), book.update(a, 1, [a, d], salt=2))
    assert [e.blob for e in eligible(book.charter, book.ledger, T)] == [book.header(a, 1, salt=1).value.blob]


# ---- certification


def test_a_quorum_of_hosts_certifies(book: Book) -> None:
    """design.md section 7: three of four equal digests; others and other digests do not help."""
    book.round(1)
    good, bad = sha256(b"good"), sha256(b"bad")
    book.block(book.attest(book.ids[0], good), book.attest(book.ids[1], good), book.attest(book.ids[2], bad))
    assert book.component.certified is None
    book.block(book.attest(book.ids[2], good))
    assert book.reasons() == ["attested-already"]
    book.block(book.attest(book.ids[3], good))
    assert book.component.certified == Certified(1, 0, good)


def test_an_expelled_hosts_word_no_longer_certifies(book: Book) -> None:
    """G5: three of four attested, one of them is expelled in the same block; two of the three left are no quorum."""
    a, b, c, d = book.ids
    book.round(1)
    book.block(*(book.attest(who, sha256(b"state")) for who in (a, b, c)), book.record(d, evidence_of_fork(book, a)))
    assert book.component.certified is None
    book.block(book.attest(d, sha256(b"state")))
    assert book.component.certified is not None


def test_attests_of_the_generation_before_a_withdrawal_certify_nothing(book: Book) -> None:
    """G7: in blocks before it and in its own, they are of a state that holds withdrawn updates."""
    a, b, c, d = book.ids
    old = sha256(b"old")
    book.round(1)
    book.block(book.attest(a, old), book.attest(b, old))
    book.block(book.attest(c, old), book.attest(d, old), book.withdraw(a))
    assert not book.component.attests
    assert (book.component.generation, book.component.certified) == (1, None)
    book.block(*(book.attest(who, old, generation=0) for who in book.ids))
    assert not book.component.attests
    assert book.component.certified is None
    book.block(*(book.attest(who, sha256(b"new")) for who in book.ids))
    assert book.component.certified == Certified(1, 1, sha256(b"new"))


def test_late_words_count_for_eight_rounds_and_are_then_let_go(book: Book) -> None:
    """Hosts far behind still certify; the ledger does not grow by what nobody needs."""
    a, b, c, _ = book.ids
    good = sha256(b"good")
    book.round(1)
    book.block(book.attest(a, good), book.attest(b, good))
    waiting = book.component.attests
    for number in range(2, 9):
        book.round(number)
    assert (book.component.attests, book.component.certified) == (waiting, None)
    before = book.ledger
    book.block(book.attest(c, good, round_=1))
    assert book.component.certified == Certified(1, 0, good)
    book.ledger = before
    book.heads = dict(before.heads)
    book.round(9)
    late = book.block(book.attest(c, good, round_=1))
    assert (late.components[T].attests, late.components[T].certified, late.refusals) == ((), None, ())


def test_who_does_not_host_certifies_nothing() -> None:
    book = Book(4)
    book.block(*(book.record(who, Offer((T,) if who is not book.ids[3] else (), ())) for who in book.ids))
    book.round(1, book.ids[:3])
    book.block(book.attest(book.ids[3], NIL))
    assert book.reasons() == ["not-a-host"]


# ---- withdrawal


def test_withdrawal_drops_entries_and_grows_the_generation_once(book: Book) -> None:
    """G7: two withdrawals in one block are one refold."""
    a, b, c, d = book.ids
    book.round(1)
    book.round(2)
    chain = book.component.chain
    book.block(book.withdraw(a), book.withdraw(b))
    assert book.component.generation == 1
    assert book.counted() == [[c.public_key, d.public_key]] * 2
    assert book.component.chain != chain
    blobs = {blob for erasure in book.component.erasures for blob in erasure.blobs}
    assert blobs == {book.header(who, n).value.blob for who in (a, b) for n in (1, 2)}
    # Exactly the lists that would have been frozen without them, but for f.
    other = Book()
    other.block(*(other.record(who, Offer((T,), ())) for who in other.ids))
    other.round(1, [c, d])
    other.round(2, [c, d])
    strip = [[(e.update, e.staleness, e.variance) for e in r.entries] for r in other.component.rounds]
    assert [[(e.update, e.staleness, e.variance) for e in r.entries] for r in book.component.rounds] == strip


def test_erasure_waits_for_the_new_generations_certificate(book: Book) -> None:
    """G7, design.md section 9: only after it is certified are the bytes deleted."""
    book.round(1)
    old = [book.attest(who, sha256(b"old")) for who in book.ids]
    book.block(*old)
    assert book.component.certified is not None
    book.block(book.withdraw(book.ids[0]))
    assert book.component.erasures != ()
    book.block(*(book.attest(who, sha256(b"new")) for who in book.ids[1:3]))
    assert book.component.erasures != (), "two of four are no quorum"
    book.block(book.attest(book.ids[3], sha256(b"new")))
    assert book.component.certified == Certified(1, 1, sha256(b"new"))
    assert book.component.erasures == ()


def test_late_words_for_the_generation_before_let_no_bytes_go(book: Book) -> None:
    """G7: they are of the state that contained them."""
    book.round(1)
    book.block(book.withdraw(book.ids[0]))
    waiting = book.component.erasures
    book.block(*(book.attest(who, sha256(b"old"), generation=0) for who in book.ids))
    assert (book.component.certified, book.component.erasures) == (None, waiting)
    book.block(*(book.update(who, 2, generation=1) for who in book.ids[1:]), close=[2])
    book.block(book.withdraw(book.ids[1]))
    assert [erasure.generation for erasure in book.component.erasures] == [1, 2]
    book.block(*(book.attest(who, sha256(b"between"), generation=1) for who in book.ids))
    assert [erasure.generation for erasure in book.component.erasures] == [1, 2], (
        "a state of generation 1 contains the second's"
    )
    book.block(*(book.attest(who, sha256(b"new")) for who in book.ids[1:]))
    assert book.component.erasures == ()


def test_the_bound_of_a_withdrawal(book: Book) -> None:
    """G7: `through` covers feed entries up to it; what was contributed later stays."""
    a = book.ids[0]
    book.round(1)
    through = book.heads[a.public_key][0]
    book.round(2)
    book.block(book.withdraw(a, through, carrier=book.ids[1]))
    assert [a.public_key in authors for authors in book.counted()] == [False, True]


def test_withdrawn_updates_do_not_come_back(book: Book) -> None:
    """G7: not in the same block, not later, not in flight, not by a new header for a covered round."""
    a, b, c, d = book.ids
    book.round(1)
    book.block(book.update(a, 2))
    book.block(book.withdraw(a), book.update(a, 2), book.update(b, 2))
    assert [p.author for p in book.component.pending] == [b.public_key]
    book.block(book.update(a, 2))
    assert book.reasons() == ["withdrawn"]
    book.block(book.update(a, 2, salt=3, generation=1))
    assert book.reasons() == ["withdrawn"]
    book.block(book.update(c, 2), book.update(d, 2), close=[2])
    book.round(3)
    assert a.public_key in book.counted()[2], "it may contribute again from the second round on"
    assert book.component.generation == 1


def test_a_withdrawal_is_believed_once_and_from_its_owner_only(book: Book) -> None:
    a, b, *_ = book.ids
    book.round(1)
    statement = WithdrawalStatement(book.federation, a.public_key, "all", "refold", 9)
    forged = sign(b, replace(statement, author=b.public_key)).wire[:64] + schema.dump(statement)
    book.block(book.record(b, Withdrawal(forged)))
    assert book.reasons() == ["bad-signature"]
    assert book.component.generation == 0
    wire = sign(a, statement).wire
    book.block(book.record(b, Withdrawal(wire)))
    book.block(book.record(b, Withdrawal(wire)))
    assert book.component.generation == 1
    assert len(book.ledger.withdrawn) == 1


def test_an_expelled_author_can_still_withdraw(book: Book) -> None:
    """design.md section 4: any member carries the statement."""
    a, b, *_ = book.ids
    book.round(1)
    book.block(book.record(b, evidence_of_fork(book, a)))
    assert a.public_key not in book.ledger.members
    book.block(book.withdraw(a, carrier=b))
    assert all(a.public_key not in authors for authors in book.counted())


def test_the_refold_horizon() -> None:
    """design.md section 9: older contributions stay in what is folded."""
    book = Book(horizon=1)
    book.open()
    book.round(1)
    book.round(2)
    book.block(book.withdraw(book.ids[0]))
    assert [book.ids[0].public_key in authors for authors in book.counted()] == [True, False]


def test_others_updates_in_flight_stay_eligible_after_a_refold(book: Book) -> None:
    a, b, *_ = book.ids
    book.round(1)
    book.block(book.update(b, 2, generation=0), book.withdraw(a))
    assert book.component.generation == 1
    assert [e.author for e in eligible(book.charter, book.ledger, T)] == [b.public_key]


# ---- evidence


def evidence_of_fork(book: Book, who: Identity) -> Evidence:
    one, two = (sign(who, Record(book.federation, who.public_key, 99, GENESIS, kind, b"")) for kind in "xy")
    return Evidence("fork", one.wire, two.wire)


def test_evidence_expels(book: Book) -> None:
    """design.md section 4: closed rounds stand, pending updates drop, the feed freezes."""
    a, b, c, _ = book.ids
    book.round(1)
    book.block(book.update(a, 2), book.update(b, 2))
    book.block(book.record(c, evidence_of_fork(book, a)))
    assert book.ledger.expelled == (a.public_key,)
    assert a.public_key not in book.ledger.members
    assert a.public_key not in book.component.hosts
    assert [p.author for p in book.component.pending] == [b.public_key]
    assert a.public_key in book.counted()[0]
    refuses("frozen-feed", next_state, book.ledger, [book.record(a, kind="x")], [])


def test_double_votes_expel(book: Book) -> None:
    a, b, *_ = book.ids
    x, y = (sign(a, Vote(book.federation, a.public_key, 3, 0, PREVOTE, block)) for block in (NIL, sha256(b"b")))
    book.block(book.record(b, Evidence("double-vote", x.wire, y.wire)))
    assert book.ledger.expelled == (a.public_key,)


def test_g9_nobody_is_convicted_twice(book: Book) -> None:
    """True evidence gets a block at once: said again and again, it would be heights without end."""
    a, b, c, _ = book.ids
    first, second = evidence_of_fork(book, a), evidence_of_fork(book, a)
    book.block(book.record(b, first), book.record(c, second))
    assert book.ledger.refusals == (), "two who found it at once"
    book.block(book.record(b, first), book.record(c, second))
    refusals: tuple[Refusal, ...] = book.ledger.refusals
    assert [refusal.reason for refusal in refusals] == ["convicted-already"] * 2


def test_false_evidence_is_inert(book: Book) -> None:
    """Nobody is expelled for what honest members sign."""
    a, b, *_ = book.ids
    one, two = (sign(a, Record(book.federation, a.public_key, seq, GENESIS, "x", b"")) for seq in (98, 99))
    other = sign(b, Record(book.federation, b.public_key, 99, GENESIS, "y", b""))
    votes = [
        sign(a, Vote(book.federation, a.public_key, 3, view, step, block))
        for view, step, block in ((0, 1, NIL), (1, 1, sha256(b"b")), (0, 2, sha256(b"b")))
    ]
    forged = one.wire[:64] + sign(a, replace(one.value, kind="z")).payload
    for name, evidence in {
        "two places": Evidence("fork", one.wire, two.wire),
        "two authors": Evidence("fork", two.wire, other.wire),
        "the same twice": Evidence("fork", one.wire, one.wire),
        "not signed": Evidence("fork", one.wire, forged),
        "two views": Evidence("double-vote", votes[0].wire, votes[1].wire),
        "two steps": Evidence("double-vote", votes[0].wire, votes[2].wire),
        "the same vote": Evidence("double-vote", votes[0].wire, votes[0].wire),
        "unknown kind": Evidence("gossip", one.wire, two.wire),
    }.items():
        book.block(book.record(book.ids[3], evidence))
        assert book.reasons() in (["false-evidence"], ["bad-signature"]), name
    assert book.ledger.expelled == ()


def test_an_update_that_covers_everything_keeps_its_numbers(book: Book) -> None:
    """G4: what is frozen names the signed header, its bytes and its place in the feed."""
    book.round(1)
    for entry in book.component.rounds[0].entries:
        who = next(i for i in book.ids if i.public_key == entry.author)
        header = book.header(who, 1)
        assert (entry.update, entry.blob, entry.size, entry.seq) == (header.digest, header.value.blob, 100, 2)
    assert isinstance(book.component.pending, tuple)
    assert Pending is not None


def test_g9_evidence_that_proves_nothing_is_no_larger_than_other_records() -> None:
    """Two of them could not be told in one proof, so their author would fork its feed and stay."""
    liar = Identity.from_seed(sha256(b"liar"))
    federation = sha256(b"somewhere")
    for kind, body in (("evidence", bytes(40_000)), ("noise", bytes(40_000))):
        record = sign(liar, Record(federation, liar.public_key, 1, GENESIS, kind, body))
        with pytest.raises(RemoteProtocolError):
            check_record(record, federation)
        check_record(sign(liar, Record(federation, liar.public_key, 1, GENESIS, kind, bytes(10_000))), federation)
    branches = [
        sign(liar, Record(federation, liar.public_key, 1, GENESIS, "noise", bytes([n]) * 30_000)) for n in (1, 2)
    ]
    proof = schema.dump(Evidence("fork", branches[0].wire, branches[1].wire))
    teller = Identity.from_seed(sha256(b"teller"))
    check_record(sign(teller, Record(federation, teller.public_key, 1, GENESIS, "evidence", proof)), federation)


def test_g6_a_rounds_possible_authors_are_its_trainers_and_those_whose_update_is_there() -> None:
    """By statements in the ledger only: too few of them, and a training run would be for nothing."""
    book = Book()
    zero, one, two, _ = book.ids
    keys = [who.public_key for who in book.ids]

    def able() -> set[int]:
        return {keys.index(key) for key in possible_authors(book.charter, book.ledger, T)}

    assert able() == set(), "nobody has offered anything yet"
    idle = (Idle(T, "budget-spent"),)
    offers = [Offer((T,), ()), Offer((T,), (), idle), Offer((T,), (), idle), Offer((), ())]
    book.block(*(book.record(who, offer) for who, offer in zip(book.ids, offers, strict=True)))
    assert able() == {0}, "one trains, two do not, one is no host"
    book.block(book.update(one, 1, (zero, one, two)))
    assert able() == {0, 1}, "its update counts, whatever it offers"
    book.block(book.update(two, 1, (zero, two)))
    assert able() == {0, 1}, "acknowledged by too few"


def test_g6_whose_update_a_withdrawal_bars_from_the_open_round_is_not_waited_for() -> None:
    book = Book()
    book.open()
    book.round(1)
    book.block(book.withdraw(book.ids[0]))
    barred = book.ids[0].public_key
    assert possible_authors(book.charter, book.ledger, T) == set(book.ledger.members) - {barred}
    book.round(2, book.ids[1:])
    assert possible_authors(book.charter, book.ledger, T) == set(book.ledger.members), "it may come back"
