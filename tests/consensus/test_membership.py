"""Motions and ballots in the ledger fold: who decides, what follows, and what is refused by name (G1, G2, G7, G9)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import membership, trainers
from collegium.consensus.cut import check_cut, order
from collegium.consensus.fold import fold_block, next_state
from collegium.consensus.ledger import Ledger, genesis, members_digest
from collegium.consensus.summary import state_digest
from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.blocks import Block, quorum
from collegium.protocol.membership import EXPIRY_LIMIT, MIN_OPEN, Application, Ballot, Motion, Rekeying, token_digest
from collegium.protocol.records import (
    GENESIS,
    Attest,
    Body,
    Evidence,
    Idle,
    Offer,
    Record,
    Withdrawal,
    WithdrawalStatement,
    kind_of,
)
from collegium.protocol.signing import Signed, sign
from collegium.sims.simulator.small import small_charter

T = "head/task0"
NEW = Identity.from_seed(sha256(b"newcomer"))
OTHER = Identity.from_seed(sha256(b"other"))
TOKEN = token_digest(sha256(b"door"))


class Book:
    """A federation on paper."""

    def __init__(self, count: int = 4, model: str = "byzantine") -> None:
        self.ids = sorted((Identity.from_seed(sha256(b"%d" % n)) for n in range(count)), key=lambda i: i.public_key)
        self.charter = small_charter(self.ids, fault_model=model)
        self.federation = self.charter.federation
        self.ledger: Ledger = genesis(self.charter)
        self.heads: dict[bytes, tuple[int, bytes]] = {}
        self.blocks: list[tuple[Block, list[Signed[Record]]]] = []

    def record(self, who: Identity, body: Body) -> Signed[Record]:
        seq, prev = self.heads.get(who.public_key, (0, GENESIS))
        record = sign(who, Record(self.federation, who.public_key, seq + 1, prev, kind_of(body), schema.dump(body)))
        self.heads[who.public_key] = (seq + 1, record.digest)
        return record

    def block(self, *records: Signed[Record]) -> Ledger:
        ordered = order(records)
        state, block = next_state(self.ledger, ordered, [])
        assert fold_block(self.ledger, block, records) == state
        assert block.members == members_digest(state.members)
        self.ledger = state
        self.blocks.append((block, ordered))
        return state

    def say(self, *bodies: tuple[int | Identity, Body]) -> Ledger:
        """One block with these bodies."""
        return self.block(*(self.record(self.ids[who] if isinstance(who, int) else who, body) for who, body in bodies))

    def motion(self, action: str, subject: Identity, statement: bytes = b"", expiry: int = 0) -> Motion:
        return Motion(action, subject.public_key, statement, "", expiry or self.ledger.height + 50)

    def admit(self, who: Identity = NEW, name: str = "newcomer", expiry: int = 0) -> Motion:
        application = Application(self.federation, who.public_key, name, ("/ip4/192.0.2.7/tcp/4001",), TOKEN)
        return self.motion("admit", who, sign(who, application).wire, expiry)

    def rekey(self, old: Identity, new: Identity = NEW) -> Motion:
        return self.motion("rekey", old, sign(new, Rekeying(self.federation, new.public_key, old.public_key)).wire)

    def yes(self, which: int = -1) -> Ballot:
        return Ballot(self.ledger.roll.motions[which].digest, 1)

    def no(self) -> Ballot:
        return Ballot(self.ledger.roll.motions[-1].digest, 0)

    def refused(self) -> set[str]:
        return {refusal.reason for refusal in self.ledger.refusals}

    def last(self) -> membership.Outcome:
        return self.ledger.roll.outcomes[-1]

    def carry(self, motion: Motion, voters: Sequence[int | Identity]) -> Ledger:
        """Open a motion by the first voter, and let the others vote yes in the next block."""
        self.say((voters[0], motion))
        return self.say(*((who, self.yes()) for who in voters[1:]))


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_quorum_admits_and_the_new_member_decides_from_the_next_height(book: Book) -> None:
    """G2: the header that carries it names the members that follow; the old ones decided it."""
    book.say((0, book.admit()))
    (motion,) = book.ledger.roll.motions
    assert motion.yes == {book.ids[0].public_key}
    book.say((1, book.yes()))
    assert NEW.public_key not in book.ledger.members
    book.say((2, book.yes()))
    assert NEW.public_key in book.ledger.members
    assert book.ledger.members == tuple(sorted(book.ledger.members))
    assert (book.last().result, book.last().height, book.last().motion.digest) == ("passed", 3, motion.digest)
    seat = book.ledger.roll.seats[NEW.public_key]
    assert (seat.name, seat.addresses, seat.since, seat.motion) == (
        "newcomer",
        ("/ip4/192.0.2.7/tcp/4001",),
        3,
        motion.digest,
    )
    assert book.ledger.quorum == 4
    book.say((NEW, Offer((T,), ())))
    assert NEW.public_key in book.ledger.components[T].hosts  # no round was closed yet


def test_the_same_motion_again_is_a_yes(book: Book) -> None:
    motion = book.admit()
    book.say((0, motion), (1, replace(motion, expiry=motion.expiry + 1)), (2, motion))
    assert NEW.public_key in book.ledger.members
    assert len(book.ledger.roll.outcomes) == 1


def test_a_motion_is_refused_when_it_can_no_longer_pass_and_lapses_at_its_expiry(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "MIN_OPEN", 1)
    book.say((0, book.admit()))
    book.say((1, book.no()))
    assert book.ledger.roll.motions
    book.say((2, book.no()))  # three of four are needed
    assert (book.last().result, book.ledger.roll.motions) == ("refused", ())
    book.say((0, book.admit(expiry=book.ledger.height + 3)))
    book.say((1, Offer((), ())))
    assert book.ledger.roll.motions
    book.say((1, Offer((T,), ())))
    assert (book.last().result, book.ledger.roll.motions) == ("lapsed", ())
    assert NEW.public_key not in book.ledger.members


def test_a_vote_at_the_expiry_still_counts(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MIN_OPEN", 1)
    book.say((0, book.admit(expiry=2)))
    book.say((1, book.yes()), (2, book.yes()))
    assert NEW.public_key in book.ledger.members


@pytest.mark.parametrize("model", ["byzantine", "crash"])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_subject_of_an_expulsion_has_no_vote_in_it(model: str, count: int) -> None:
    book = Book(count, model)
    target = book.ids[-1]
    need = quorum(count - 1, model)  # of the others
    book.say((0, book.motion("expel", target)))
    book.say((target, book.no()))
    assert book.refused() == {"no-vote"}
    for n in range(1, need):
        assert target.public_key in book.ledger.members
        book.say((n, book.yes()))
    assert target.public_key not in book.ledger.members
    assert book.ledger.expelled == (target.public_key,)
    assert book.ledger.roll.seats[target.public_key].gone == "expelled"
    with pytest.raises(RemoteProtocolError, match="frozen-feed"):
        check_cut(book.charter, book.ledger, [book.record(target, Offer((), ()))])


def test_an_expelled_host_leaves_the_hosts(book: Book) -> None:
    book.say(*((n, Offer((T,), ())) for n in range(4)))
    book.carry(book.motion("expel", book.ids[3]), [0, 1, 2])
    assert book.ledger.components[T].hosts == tuple(i.public_key for i in book.ids[:3])
    assert book.ids[3].public_key not in book.ledger.offers


def test_a_suspended_trainer_stays_a_host_until_it_offers_again(book: Book) -> None:
    """G3: its reasons stay, nobody has a vote on itself, and only the ledger says "silent" of somebody."""
    book.say(*((n, Offer((T,), ())) for n in range(4)))
    target = book.ids[3].public_key
    book.carry(book.motion("suspend-training", book.ids[3]), [0, 1, 2])
    assert target in book.ledger.components[T].hosts
    assert trainers.trainers(book.ledger.offers, book.ledger.components[T].hosts, T) == {
        i.public_key for i in book.ids[:3]
    }
    assert trainers.idle(book.ledger.offers, target, T) == "silent"
    book.say((0, book.motion("suspend-training", book.ids[3])))
    assert book.refused() == {"not-a-trainer"}
    book.say((3, Offer((T,), (), (Idle(T, "silent"),))))
    assert book.refused() == {"unknown-reason"}
    book.say((3, Offer((T,), ())))
    assert trainers.trains(book.ledger.offers, target, T)
    assert trainers.suspensions(book.ledger, target, T) == 1
    assert all(trainers.waited_for(book.ledger, target, T, n) for n in range(1, 9))
    book.carry(book.motion("suspend-training", book.ids[3]), [0, 1, 2])
    assert [n for n in range(1, 9) if trainers.waited_for(book.ledger, target, T, n)] == [2, 4, 6, 8]


def test_two_members_cannot_expel_one_of_them() -> None:
    book = Book(2)
    book.say((0, book.motion("expel", book.ids[1])))
    assert book.refused() == {"too-few-members"}
    book.say((0, book.rekey(book.ids[1])))
    assert book.refused() == {"too-few-members"}


def test_leaving_needs_no_vote_but_somebody_stays() -> None:
    book = Book(2)
    book.say((0, book.motion("leave", book.ids[0])), (1, book.motion("leave", book.ids[1])))
    assert len(book.ledger.members) == 1
    assert [o.result for o in book.ledger.roll.outcomes] == ["passed", "void"]
    assert book.last().why == "last-member"
    stays = next(i for i in book.ids if i.public_key in book.ledger.members)
    book.say((stays, book.motion("leave", stays)))
    assert book.refused() == {"last-member"}
    gone = next(i for i in book.ids if i is not stays)
    assert book.ledger.roll.seats[gone.public_key].gone == "left"
    assert book.ledger.expelled == ()
    with pytest.raises(RemoteProtocolError, match="frozen-feed"):
        check_cut(book.charter, book.ledger, [book.record(gone, Offer((), ()))])


def test_a_member_that_goes_takes_its_votes_along(book: Book) -> None:
    book.say((0, book.admit()), (3, book.motion("leave", book.ids[3])))
    book.say((1, book.yes()), (2, book.yes()))
    assert NEW.public_key in book.ledger.members
    other = Book(7)  # five are needed of seven, and five of six
    other.say((0, other.admit()))
    other.say((1, other.yes()), (2, other.yes()), (6, other.yes()))
    other.say((6, other.motion("leave", other.ids[6])))
    other.say((3, other.yes()))
    assert NEW.public_key not in other.ledger.members, "a vote of somebody who left counts"
    other.say((4, other.yes()))
    assert NEW.public_key in other.ledger.members


def test_leaving_can_carry_a_motion(book: Book) -> None:
    """Quorum is that of the members as they are: judged again whenever they change."""
    seven = Book(7, "crash")  # four of seven, four of six, three of five
    seven.say((0, seven.admit()))
    seven.say((1, seven.yes()), (2, seven.yes()))
    seven.say((6, seven.motion("leave", seven.ids[6])))
    assert NEW.public_key not in seven.ledger.members
    seven.say((5, seven.motion("leave", seven.ids[5])))
    assert NEW.public_key in seven.ledger.members


# ---- keys


def test_a_member_moves_to_a_new_key_by_itself(book: Book) -> None:
    book.say(*((n, Offer((T,), ("/ip4/192.0.2.1/tcp/1",))) for n in range(4)))
    old = book.ids[1]
    closed = replace(book.ledger.components[T], round=1)  # hosts gather no more, but change at a close
    book.ledger = replace(book.ledger, components={T: closed})
    book.say((0, book.admit(OTHER, "somebody")))
    book.say((1, book.yes()))
    book.say((1, book.rekey(old)))
    ledger = book.ledger
    assert NEW.public_key in ledger.members
    assert old.public_key not in ledger.members
    assert NEW.public_key in ledger.components[T].hosts
    assert len(ledger.components[T].hosts) == 4
    assert NEW.public_key in ledger.offers
    seat = ledger.roll.seats[NEW.public_key]
    assert seat.name == ledger.roll.seats[old.public_key].name
    assert membership.present(ledger.roll, old.public_key) == NEW.public_key
    assert membership.earlier(ledger.roll, NEW.public_key) == (old.public_key,)
    book.say((NEW, book.yes()))
    assert book.refused() == {"voted-already"}, "its vote follows it"
    book.say((2, book.yes()))
    assert OTHER.public_key in book.ledger.members


def test_g9_a_member_moves_by_its_own_word_only_so_often(book: Book) -> None:
    """Every key takes a seat for good: without a bound one member could use them all up."""
    keys = [book.ids[0], *(Identity.from_seed(sha256(b"key %d" % n)) for n in range(membership.MAX_KEYS + 1))]
    for old, new in pairwise(keys[:-1]):
        book.say((old, book.rekey(old, new)))
        assert new.public_key in book.ledger.members
    old, new = keys[-2:]
    book.say((old, book.rekey(old, new)))
    assert book.refused() == {"too-many-keys"}
    book.carry(book.rekey(old, new), [1, 2, 3])
    assert new.public_key in book.ledger.members, "the others may move it on"


def test_g9_motions_that_ended_are_kept_for_people_and_not_for_ever(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "MAX_OUTCOMES", 3)
    monkeypatch.setattr(membership, "MIN_OPEN", 1)
    for number in range(5):
        before = book.ledger.roll
        book.say((0, book.motion("expel", book.ids[1], expiry=book.ledger.height + 2)))
        book.say((0, Attest(T, 9, 0, bytes(32))))
        assert [o.height for o in membership.ended(before, book.ledger.roll)] == [book.ledger.height], number
    assert len(book.ledger.roll.outcomes) == 3


def test_a_lost_key_moves_by_the_others_vote(book: Book) -> None:
    old = book.ids[3]
    book.say((0, book.rekey(old)))
    book.say((old, book.no()))
    assert book.refused() == {"no-vote"}, "whoever has the lost key has no vote on it"
    book.say((1, book.yes()), (2, book.yes()))
    assert NEW.public_key in book.ledger.members
    assert old.public_key not in book.ledger.members


def test_no_move_dodges_an_expulsion_or_a_proof(book: Book) -> None:
    old = book.ids[3]
    book.say((0, book.motion("expel", old)))
    book.say((old, book.rekey(old)))
    assert book.ledger.roll.motions[0].subject == NEW.public_key
    book.say((1, book.yes()), (2, book.yes()))
    assert NEW.public_key not in book.ledger.members
    other = Book()
    liar = other.ids[3]
    other.say((liar, Offer((), ())))
    a = sign(liar, Record(other.federation, liar.public_key, 7, GENESIS, "offer", schema.dump(Offer((), ()))))
    b = sign(liar, Record(other.federation, liar.public_key, 7, sha256(b"x"), "offer", schema.dump(Offer((), ()))))
    other.say((liar, other.rekey(liar)))
    assert NEW.public_key in other.ledger.members
    other.say((0, Evidence("fork", a.wire, b.wire)))
    assert other.ledger.expelled == (NEW.public_key,)
    assert other.ledger.roll.seats[NEW.public_key].gone == "evidence"


def test_g7_the_new_key_withdraws_what_the_old_one_contributed(book: Book) -> None:
    old = book.ids[1]
    book.say((old, Offer((T,), ())))
    book.say((old, book.rekey(old)))
    statement = WithdrawalStatement(book.federation, NEW.public_key, "all", "refold", 0)
    book.say((0, Withdrawal(sign(NEW, statement).wire)))
    assert {(w.author, w.through) for w in book.ledger.withdrawn} == {(NEW.public_key, 0), (old.public_key, 2)}


def test_g9_a_withdrawal_of_nothing_more_is_refused(book: Book) -> None:
    """Each gets a block at once and stays in the ledger: a member may not write them without end."""
    me = book.ids[0]

    def statement(through: int) -> Withdrawal:
        return Withdrawal(sign(me, WithdrawalStatement(book.federation, me.public_key, "all", "refold", through)).wire)

    book.say((0, statement(0)))
    assert [w.through for w in book.ledger.withdrawn] == [0]
    for through in (0, 5, 2**40):
        book.say((0, statement(through)))
        assert book.refused() == {"withdrawn-already"}, through
    assert len(book.ledger.withdrawn) == 1
    book.say((1, statement(9)))  # carried ahead of the feed: what it covers may be on its way
    assert not book.refused()
    book.say((1, statement(10)))
    assert book.refused() == {"withdrawn-already"}


def test_a_no_follows_a_member_to_its_new_key(book: Book) -> None:
    moved = Identity.from_seed(sha256(b"moved"))
    book.say((0, book.admit()))
    book.say((2, book.no()))
    book.say((2, book.rekey(book.ids[2], moved)))
    (motion,) = book.ledger.roll.motions
    assert motion.no == {moved.public_key}


def test_g7_who_left_can_still_withdraw(book: Book) -> None:
    leaver = book.ids[1]
    book.say((leaver, book.motion("leave", leaver)))
    statement = WithdrawalStatement(book.federation, leaver.public_key, "all", "refold", 1)
    book.say((0, Withdrawal(sign(leaver, statement).wire)))
    assert [w.author for w in book.ledger.withdrawn] == [leaver.public_key]
    stranger = WithdrawalStatement(book.federation, OTHER.public_key, "all", "refold", 1)
    book.say((0, Withdrawal(sign(OTHER, stranger).wire)))
    assert book.refused() == {"not-a-member"}


# ---- suspension


def test_a_suspended_host_is_none_until_it_offers_again(book: Book) -> None:
    book.say(*((n, Offer((T,), ())) for n in range(4)))
    silent = book.ids[3]
    book.carry(book.motion("suspend", silent), [0, 1, 2])
    assert silent.public_key in book.ledger.members
    assert silent.public_key not in book.ledger.components[T].hosts
    book.say((0, book.motion("suspend", silent)))
    assert book.refused() == {"not-a-host"}
    book.say((3, Offer((T,), ())))
    assert silent.public_key in book.ledger.components[T].hosts  # before the first close hosts gather


def test_g3_a_suspended_host_is_none_from_that_block_on(book: Book) -> None:
    """After the first close hosts change at a close, but this one would cost another deadline until then."""
    book.say(*((n, Offer((T,), ())) for n in range(4)))
    book.ledger = replace(book.ledger, components={T: replace(book.ledger.components[T], round=1)})
    silent = book.ids[3]
    book.carry(book.motion("suspend", silent), [0, 1, 2])
    assert set(book.ledger.components[T].hosts) == {i.public_key for i in book.ids[:3]}
    book.say((3, Offer((T,), ())))
    assert silent.public_key not in book.ledger.components[T].hosts, "it comes back at the next close"


@pytest.mark.parametrize("action", ["expel", "suspend"])
@pytest.mark.parametrize("by", ["its own statement", "the others' vote"])
def test_what_is_moved_against_a_member_follows_it_to_its_new_key(book: Book, action: str, by: str) -> None:
    book.say(*((n, Offer((T,), ())) for n in range(4)))
    old = book.ids[3]
    book.say((0, book.motion(action, old)))
    if by == "its own statement":
        book.say((3, book.rekey(old)))
    else:
        book.carry(book.rekey(old), [0, 1, 2])
    (motion,) = book.ledger.roll.motions
    assert (motion.action, motion.subject) == (action, NEW.public_key)
    book.say((NEW, book.no()))
    assert book.refused() == {"no-vote"}
    book.say((1, book.yes()), (2, book.yes()))
    assert (book.last().motion.action, book.last().result) == (action, "passed")
    assert (NEW.public_key in book.ledger.members) == (action == "suspend")
    assert NEW.public_key not in book.ledger.components[T].hosts


# ---- what is refused


def test_what_cannot_be_moved_is_refused_by_name(book: Book) -> None:
    """G9: inert, named, and nothing opens."""
    me, them = book.ids[0], book.ids[1]
    far = EXPIRY_LIMIT + 100
    application = sign(NEW, Application(book.federation, NEW.public_key, "x", (), TOKEN))
    forged = bytes(64) + application.wire[64:]
    elsewhere = sign(NEW, Application(sha256(b"elsewhere"), NEW.public_key, "x", (), TOKEN)).wire

    def named(name: str, *addresses: str) -> Motion:
        return book.motion(
            "admit", NEW, sign(NEW, Application(book.federation, NEW.public_key, name, addresses, TOKEN)).wire
        )

    wrong = {
        "unknown-action": book.motion("promote", them),
        "expiry": book.motion("expel", them, expiry=far),
        "statement": book.motion("expel", them, b"x"),
        "self-target": book.motion("expel", me),
        "not-the-owner": book.motion("leave", them),
        "not-a-member": book.motion("expel", OTHER),
        "member-already": book.admit(them, "again"),
        "key-mismatch": book.motion("admit", OTHER, application.wire),
        "bad-signature": book.motion("admit", NEW, forged),
        "wrong-federation": book.motion("admit", NEW, elsewhere),
        "malformed": book.motion("admit", NEW, b"x"),
        "name": named("a\u202eb"),
        "address": named("fine", "/ip4/\x1b[2J"),
        "name-taken": named(book.ledger.roll.seats[them.public_key].name),
        "known-key": book.rekey(me, them),
        "not-a-host": book.motion("suspend", them),
        "reason": replace(book.motion("expel", them), reason="\x1b[2J"),
    }
    for reason, motion in wrong.items():
        book.say((0, motion))
        assert book.refused() == {reason}
        assert book.ledger.roll.motions == ()
    # The block that has it is the next one: it is open for MIN_OPEN heights after that, or not at all.
    book.say((0, replace(book.motion("expel", them), expiry=book.ledger.height + MIN_OPEN)))
    assert book.refused() == {"expiry"}
    book.say((0, replace(book.motion("expel", them), expiry=book.ledger.height + 1 + MIN_OPEN)))
    assert not book.refused()
    book.say((0, book.rekey(them, OTHER)), (1, replace(book.rekey(me, OTHER), subject=them.public_key)))
    assert book.refused() == {"key-mismatch"}


def test_ballots_that_do_not_count_are_refused_by_name(book: Book) -> None:
    book.say((0, book.admit()))
    book.say((0, book.yes()))
    assert book.refused() == {"voted-already"}
    book.say((1, book.no()), (2, Ballot(sha256(b"nothing"), 1)))
    assert book.refused() == {"unknown-motion"}
    book.say((1, book.yes()))
    assert book.refused() == {"voted-already"}, "a ballot is final"
    closing = book.yes()
    book.say((2, closing), (3, closing))
    assert NEW.public_key in book.ledger.members
    book.say((NEW, closing))
    assert book.refused() == {"motion-closed"}
    with pytest.raises(RemoteProtocolError, match="not-a-member"):
        check_cut(book.charter, book.ledger, [book.record(OTHER, closing)])


def test_a_record_of_another_federation_is_no_motion_here(book: Book) -> None:
    other = Book(5)
    motion = other.record(other.ids[0], other.motion("expel", other.ids[1]))
    assert motion.value.federation != book.federation


@pytest.mark.parametrize("how", ["expel", "leave", "rekey"])
def test_a_key_that_went_never_comes_back(how: str) -> None:
    book = Book(5)
    gone = book.ids[4]
    if how == "expel":
        book.carry(book.motion("expel", gone), [0, 1, 2, 3])
    else:
        book.say((gone, book.motion("leave", gone) if how == "leave" else book.rekey(gone, OTHER)))
    assert gone.public_key not in book.ledger.members
    book.say((0, book.admit(gone, "again")))
    assert book.refused() == {"key-retired"}
    book.say((0, book.rekey(book.ids[1], gone)))
    assert book.refused() == {"known-key"}


def test_motions_of_one_author_are_bounded() -> None:
    book = Book(7)
    many = [Identity.from_seed(sha256(b"m%d" % n)) for n in range(membership.MAX_OPEN + 1)]
    book.say(*((0, book.admit(who, f"school {n}")) for n, who in enumerate(many)))
    assert book.refused() == {"quota-motions"}
    assert len(book.ledger.roll.motions) == membership.MAX_OPEN
    book.say((1, book.admit(many[-1], "school")))
    assert book.refused() == set()


def test_two_candidates_of_one_name_or_key_do_not_both_come_in(book: Book) -> None:
    book.say((0, book.admit(NEW, "same")), (1, book.admit(OTHER, "same")))
    first, second = (motion.digest for motion in book.ledger.roll.motions)
    book.say(*((n, Ballot(digest, 1)) for n in (2, 3) for digest in (first, second)), (1, Ballot(first, 1)))
    assert len(book.ledger.members) == 5
    assert [(o.result, o.why) for o in book.ledger.roll.outcomes] == [("passed", ""), ("void", "name-taken")]


# ---- one state everywhere


def test_the_digest_covers_what_later_blocks_depend_on(book: Book) -> None:
    """G1."""
    empty = state_digest(book.ledger)
    book.say((0, book.admit()))
    ledger = book.ledger
    (motion,) = ledger.roll.motions
    seat = membership.Seat(NEW.public_key, "x", (), 1)
    x = sha256(b"x")
    motions = (
        replace(motion, digest=x),
        replace(motion, action="expel"),
        replace(motion, subject=x),
        replace(motion, expiry=9),
        replace(motion, yes=frozenset()),
        replace(motion, no=frozenset((x,))),
    )
    seats = (
        seat,
        replace(seat, name="y"),
        replace(seat, addresses=("y",)),
        replace(seat, since=2),
        replace(seat, until=1),
        replace(seat, gone="left"),
        replace(seat, successor=x),
    )
    changed = [replace(ledger.roll, motions=())]
    changed += [replace(ledger.roll, motions=(other,)) for other in motions]
    changed += [replace(ledger.roll, seats={**ledger.roll.seats, NEW.public_key: other}) for other in seats]
    digests = {state_digest(replace(ledger, roll=roll)) for roll in changed} | {state_digest(ledger), empty}
    assert len(digests) == len(changed) + 2


def test_ledgers_without_motions_have_the_digests_that_they_always_had() -> None:
    book = Book()
    assert membership.summary(book.ledger.roll) == []
    a = sign(book.ids[0], Record(book.federation, book.ids[0].public_key, 1, GENESIS, "offer", b"x"))
    b = sign(book.ids[0], Record(book.federation, book.ids[0].public_key, 1, GENESIS, "offer", b"y"))
    book.say((1, Evidence("fork", a.wire, b.wire)))
    assert book.ledger.expelled
    assert membership.summary(book.ledger.roll) == []


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_order_of_a_blocks_records_gives_one_state(data: st.DataObject) -> None:
    """G1: incremental, from scratch, and in whatever order the records arrived."""
    book = Book(data.draw(st.integers(3, 6)), data.draw(st.sampled_from(["byzantine", "crash"])))
    newcomers = [Identity.from_seed(sha256(b"n%d" % n)) for n in range(3)]
    for _ in range(data.draw(st.integers(1, 6))):
        bodies: list[tuple[Identity, Body]] = []
        here = [i for i in (*book.ids, *newcomers) if i.public_key in book.ledger.members]
        for who in here:
            what = data.draw(st.sampled_from(["vote", "vote", "admit", "expel", "leave", "rekey", "offer", "nothing"]))
            other = data.draw(st.sampled_from(here))
            new = data.draw(st.sampled_from(newcomers))
            open_ = [motion.digest for motion in book.ledger.roll.motions]
            if what == "vote" and open_:
                bodies.append((who, Ballot(data.draw(st.sampled_from(open_)), data.draw(st.integers(0, 1)))))
            elif what == "admit":
                bodies.append((who, book.admit(new, f"n{newcomers.index(new)}")))
            elif what in ("expel", "leave"):
                bodies.append((who, book.motion(what, other)))
            elif what == "rekey":
                bodies.append((who, book.rekey(other, new)))
            elif what == "offer":
                bodies.append((who, Offer((T,), ())))
        if bodies:
            book.say(*bodies)
            assert book.ledger.members
            assert set(book.ledger.members) <= book.ledger.roll.seats.keys()
            assert all(not book.ledger.roll.seats[key].gone for key in book.ledger.members)
    ledger = genesis(book.charter)
    for block, records in book.blocks:
        ledger = fold_block(ledger, block, data.draw(st.permutations(records)))
    assert ledger == book.ledger
