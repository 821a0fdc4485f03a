"""Membership: the part of the ledger fold that handles motions and ballots.

    admit     a candidate that applied becomes a member; any member may propose it
    expel     a member goes; it has no vote on that itself
    leave     a member goes, by its own motion alone
    rekey     a member's new key replaces the old one: at once if the old key proposes it, else (a key was lost) by the
              others' vote
    suspend   a silent host is no host until it offers again; it has no vote on that itself
    suspend-training  a host that declares training and sends nothing is no trainer until it offers again; as above
    amend     the charter changes from the next block on (protocol/amendment.py); all members vote
    withdraw  contributions of a member or former member are withdrawn (withdrawal.py); it has no vote on that itself
    rewind    all states go back to before its contributions; all members vote, because it costs all of them ε

A motion is its author's yes vote; proposing the same motion again is a yes vote too. It passes as soon as the yes votes
reach a quorum of the members that may vote. It is refused as soon as that is out of reach, lapses after its expiry, and
is void when it cannot be carried out any more. Motions are judged after every block, in the order of opening, each on
the members that result from the one before.

A key that went never comes back: its feed is frozen. A member's new key takes over its seat among the hosts, its votes
on open motions, motions and evidence against it, and the right to withdraw contributions of the old key.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import assert_never

from ..crypto.errors import RemoteProtocolError
from ..protocol import amendment, schema
from ..protocol.blocks import quorum
from ..protocol.charter import Charter
from ..protocol.membership import (
    ACTIONS,
    EXPIRY_LIMIT,
    MIN_OPEN,
    STATEMENT_LIMIT,
    Action,
    Application,
    Ballot,
    Motion,
    Rekeying,
    check_person,
)
from ..protocol.names import visible
from ..protocol.records import WITHDRAWAL_LIMIT, Mode, Offer, WithdrawalStatement
from ..protocol.schema import MAX_MEMBERS
from ..protocol.signing import Signed, open_signed

MAX_SEATS = 4096  # members of all times
MAX_KEYS = 8  # keys of one member that it may change to without a vote
MAX_OUTCOMES = 1024  # ended motions that are kept for display: no rule uses them
MAX_OPEN = 4  # motions of one author that may be open at a time
WITHDRAWALS: Mapping[Action, Mode] = {"withdraw": "refold", "rewind": "rewind"}  # with the mode of each
ABOUT_OTHERS: tuple[Action, ...] = ("expel", "suspend", "suspend-training")  # nobody may propose these about itself
MIN_VOTED = 3  # the least number of members for a vote about one of them


@dataclass(frozen=True, slots=True)
class Seat:
    """One key that is or was a member's. Heights are those of the blocks that changed it; 0: the charter, or not yet.

    `gone` is empty, "evidence" (a proof of a lie), "expelled", "left" or "rekeyed" (to the key `successor`).
    """

    key: bytes
    name: str
    addresses: tuple[str, ...] = ()
    since: int = 0
    until: int = 0
    gone: str = ""
    motion: bytes = b""  # the motion that made it
    end: bytes = b""  # the motion that ended it
    predecessor: bytes = b""
    successor: bytes = b""


@dataclass(frozen=True, slots=True)
class OpenMotion:
    """An undecided motion in the ledger. `digest` is its record's; `height` that of the block that opened it."""

    digest: bytes
    author: bytes
    seq: int
    height: int
    action: Action
    subject: bytes
    statement: bytes
    reason: str
    expiry: int
    yes: frozenset[bytes]
    no: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a motion ended, by the block at `height`: "passed", "refused", "lapsed" or "void", and then `why`."""

    motion: OpenMotion
    height: int
    result: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Roll:
    """All present and former members, and open and ended motions."""

    seats: Mapping[bytes, Seat]
    motions: tuple[OpenMotion, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def founding(charter: Charter) -> Roll:
    """Return the roll before the first block."""
    return Roll({member.key: Seat(member.key, member.name, member.addresses) for member in charter.members})


def summary(roll: Roll) -> list[object]:
    """Return the fields that later blocks depend on, for the ledger's digest: empty before the first motion."""
    seats = [
        [s.key, s.name, list(s.addresses), s.since, s.until, s.gone, s.successor]
        for _, s in sorted(roll.seats.items())
        if s.since or s.gone not in ("", "evidence")
    ]
    motions = [[m.digest, m.action, m.subject, m.expiry, sorted(m.yes), sorted(m.no)] for m in roll.motions]
    return [seats, motions] if seats or motions else []


def present(roll: Roll, key: bytes) -> bytes:
    """Return the present key of a member, from an older one."""
    while key in roll.seats and roll.seats[key].successor:
        key = roll.seats[key].successor
    return key


def earlier(roll: Roll, key: bytes) -> tuple[bytes, ...]:
    """Return the member's earlier keys, last first."""
    keys: list[bytes] = []
    while key in roll.seats and roll.seats[key].predecessor:
        key = roll.seats[key].predecessor
        keys.append(key)
    return tuple(keys)


# ---- motions and ballots


@lru_cache(maxsize=1024)
def _application(wire: bytes, federation: bytes) -> Signed[Application]:
    return open_signed(Application, wire, federation)


@lru_cache(maxsize=1024)
def _rekeying(wire: bytes, federation: bytes) -> Signed[Rekeying]:
    return open_signed(Rekeying, wire, federation)


def applicant(motion: Motion | OpenMotion, federation: bytes) -> Application:
    """Return an admission's application. Raises RemoteProtocolError."""
    return _application(motion.statement, federation).value


def new_key(motion: Motion | OpenMotion, federation: bytes) -> bytes:
    """Return the new key of a rekeying. Raises RemoteProtocolError."""
    return _rekeying(motion.statement, federation).value.author


def action_of(mode: Mode) -> Action:
    """Return the action of a motion for a withdrawal by this mode."""
    match mode:
        case "refold":
            return "withdraw"
        case "rewind":
            return "rewind"
        case _:
            assert_never(mode)


def terms(action: Action, statement: bytes, federation: bytes) -> WithdrawalStatement:
    """Return the terms of a motion to withdraw or to rewind. Raises RemoteProtocolError."""
    opened = schema.load(WithdrawalStatement, statement, WITHDRAWAL_LIMIT)
    if opened.federation != federation or opened.mode != WITHDRAWALS[action]:
        raise RemoteProtocolError("unknown-withdrawal", f"{opened.mode} proposed as {action}", opened.author)
    return opened


def check_motion(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    charter: Charter,
    height: int,
    author: bytes,
    motion: Motion,
) -> None:
    """Check whether a member may propose this motion in the block at `height`. Raises RemoteProtocolError, by name."""
    action = ACTIONS.get(motion.action)
    if action is None:
        raise RemoteProtocolError("unknown-action", motion.action, author)
    # Each gets a block of its own: with motions that lapse at once, a member could make heights as fast as others vote.
    if not height + MIN_OPEN <= motion.expiry <= height + EXPIRY_LIMIT:
        raise RemoteProtocolError("expiry", f"height {motion.expiry}, proposed at {height}", author)
    if not visible(motion.reason):
        raise RemoteProtocolError("reason", "it has characters that cannot be seen", author)
    if (action in ("admit", "amend", "rekey", *WITHDRAWALS)) != bool(motion.statement):
        raise RemoteProtocolError("statement", f"to {action}", author)
    if _same_motion(roll, motion) is None and sum(opened.author == author for opened in roll.motions) >= MAX_OPEN:
        raise RemoteProtocolError("quota-motions", f"{MAX_OPEN} are open", author)
    if action == "amend":
        amendment.amended(charter, motion.statement)  # raises with the detail, which `obstacle` does not have
    elif len(motion.statement) > STATEMENT_LIMIT:
        raise RemoteProtocolError("statement", f"{len(motion.statement)} bytes to {action}", author)
    own = motion.subject == author
    if action == "rekey" and own and len(earlier(roll, author)) >= MAX_KEYS:
        raise RemoteProtocolError("too-many-keys", f"{MAX_KEYS} without the others' vote", author)
    if action == "leave" and not own:
        raise RemoteProtocolError("not-the-owner", "to leave", author)
    if action in ABOUT_OTHERS and own:
        raise RemoteProtocolError("self-target", f"to {action}", author)
    if action in (*ABOUT_OTHERS, "rekey", "withdraw") and not own and len(members) < MIN_VOTED:
        raise RemoteProtocolError("too-few-members", f"{len(members)} members cannot decide about one", author)
    why = obstacle(roll, members, offering, charter, action, motion)
    if why:
        raise RemoteProtocolError(why, f"to {action}", author)


def obstacle(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    charter: Charter,
    action: Action,
    motion: Motion | OpenMotion,
) -> str:
    """Return the reason why a motion, to this action, cannot be carried out now, by name, or "".

    Raises RemoteProtocolError.
    """
    subject, federation = motion.subject, charter.federation
    match action:
        case "admit":
            return _no_admission(roll, members, federation, motion)
        case "amend":
            return _no_amendment(charter, motion)
        case "withdraw" | "rewind":
            if terms(action, motion.statement, federation).author != subject:
                return "key-mismatch"
            return "" if subject in roll.seats else "not-a-member"
        case "leave" | "expel":
            return "not-a-member" if subject not in members else "last-member" if len(members) == 1 else ""
        case "suspend":
            return "not-a-member" if subject not in members else "" if subject in offering else "not-a-host"
        case "suspend-training":
            if subject not in members or subject not in offering:
                return "not-a-host" if subject in members else "not-a-member"
            return "" if _offers_training(offering[subject]) else "not-a-trainer"
        case "rekey":
            return "not-a-member" if subject not in members else _no_rekeying(roll, federation, motion)
        case _:
            assert_never(action)


def _no_rekeying(roll: Roll, federation: bytes, motion: Motion | OpenMotion) -> str:
    statement = _rekeying(motion.statement, federation).value
    if statement.old != motion.subject:
        return "key-mismatch"
    if statement.author in roll.seats:
        return "known-key"
    return "too-many-seats" if len(roll.seats) >= MAX_SEATS else ""


def _no_amendment(charter: Charter, motion: Motion | OpenMotion) -> str:
    if motion.subject != charter.federation:
        return "key-mismatch"
    try:
        amendment.amended(charter, motion.statement)
    except RemoteProtocolError as error:
        return error.reason
    return ""


def _offers_training(offer: Offer) -> bool:
    return len(offer.idle) < len(offer.components)


def _no_admission(roll: Roll, members: Collection[bytes], federation: bytes, motion: Motion | OpenMotion) -> str:
    application = _application(motion.statement, federation).value
    if application.author != motion.subject:
        return "key-mismatch"
    if motion.subject in members:
        return "member-already"
    if motion.subject in roll.seats:
        return "key-retired"
    check_person(application.name, application.addresses)
    if any(roll.seats[key].name == application.name for key in members):
        return "name-taken"
    if len(members) >= MAX_MEMBERS or len(roll.seats) >= MAX_SEATS:
        return "too-many-members"
    return ""


def _same_motion(roll: Roll, motion: Motion) -> OpenMotion | None:
    key = (motion.action, motion.subject, motion.statement)
    return next((m for m in roll.motions if (m.action, m.subject, m.statement) == key), None)


def add_motion(roll: Roll, motion: Motion, author: bytes, seq: int, digest: bytes, height: int) -> Roll:
    """Open a checked motion; the same one again is a yes vote. Raises RemoteProtocolError("voted-already")."""
    same = _same_motion(roll, motion)
    if same is not None:
        return add_ballot(roll, Ballot(same.digest, 1), author)
    opened = OpenMotion(
        digest=digest,
        author=author,
        seq=seq,
        height=height,
        action=ACTIONS[motion.action],
        subject=motion.subject,
        statement=motion.statement,
        reason=motion.reason,
        expiry=motion.expiry,
        yes=frozenset((author,)),
    )
    return replace(roll, motions=(*roll.motions, opened))


def add_ballot(roll: Roll, ballot: Ballot, author: bytes) -> Roll:
    """Count a member's ballot. Raises RemoteProtocolError("unknown-motion" | "voted-already" | "no-vote")."""
    opened = next((motion for motion in roll.motions if motion.digest == ballot.motion), None)
    if opened is None:
        closed = any(outcome.motion.digest == ballot.motion for outcome in roll.outcomes)
        raise RemoteProtocolError("motion-closed" if closed else "unknown-motion", ballot.motion.hex()[:16], author)
    if author in opened.yes | opened.no:
        raise RemoteProtocolError("voted-already", ballot.motion.hex()[:16], author)
    if author not in voters(opened, (author,)):
        raise RemoteProtocolError("no-vote", "it is about the voter itself", author)
    cast = replace(opened, yes=opened.yes | {author}) if ballot.yes else replace(opened, no=opened.no | {author})
    return replace(roll, motions=tuple(cast if motion is opened else motion for motion in roll.motions))


def voters(motion: OpenMotion, members: Iterable[bytes]) -> frozenset[bytes]:
    """Return which of the members have a vote on a motion."""
    match motion.action:
        case "admit" | "amend" | "rewind":
            return frozenset(members)
        case "expel" | "leave" | "rekey" | "suspend" | "suspend-training" | "withdraw":
            if motion.author == motion.subject:
                return frozenset((motion.subject,)) & frozenset(members)  # one's own affair
            return frozenset(members) - {motion.subject}
        case _:
            assert_never(motion.action)


def needed(motion: OpenMotion, members: Collection[bytes], fault_model: str) -> int:
    """Return the number of yes votes that carries a motion: a quorum of its voters."""
    return quorum(max(1, len(voters(motion, members))), fault_model)


# ---- decisions


def next_outcome(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    charter: Charter,
    height: int,
) -> Outcome | None:
    """Return the outcome of the first open motion that is decided after the block at `height`; None without one.

    `charter` is the one that will be in force: an amendment that passed in this block voids the others of its number.
    """
    fault_model = charter.rules.fault_model
    for motion in roll.motions:
        why = obstacle(roll, members, offering, charter, motion.action, motion)
        if why:
            return Outcome(motion, height, "void", why)
        may, need = voters(motion, members), needed(motion, members, fault_model)
        if len(motion.yes & may) >= need:
            return Outcome(motion, height, "passed")
        if len(may - motion.no) < need:
            return Outcome(motion, height, "refused")
        if height >= motion.expiry:
            return Outcome(motion, height, "lapsed")
    return None


def close(roll: Roll, outcome: Outcome) -> Roll:
    """Move a decided motion from the open ones to the outcomes."""
    left = tuple(motion for motion in roll.motions if motion.digest != outcome.motion.digest)
    return replace(roll, motions=left, outcomes=(*roll.outcomes, outcome)[-MAX_OUTCOMES:])


def ended(before: Roll, after: Roll) -> list[Outcome]:
    """Return the outcomes of motions between two rolls."""
    if after.outcomes is before.outcomes:
        return []
    ended_before = {outcome.motion.digest for outcome in before.outcomes}
    return [outcome for outcome in after.outcomes if outcome.motion.digest not in ended_before]


def seat(roll: Roll, person: Application, motion: OpenMotion, height: int) -> Roll:
    """Give a candidate its seat."""
    new = Seat(person.author, person.name, person.addresses, height, motion=motion.digest)
    return replace(roll, seats={**roll.seats, new.key: new})


def unseat(roll: Roll, keys: Iterable[bytes], gone: str, height: int, end: bytes = b"") -> Roll:
    """End members' seats."""
    ended = {key: replace(roll.seats[key], until=height, gone=gone, end=end) for key in keys if key in roll.seats}
    return replace(roll, seats={**roll.seats, **ended})


def rekeyed(roll: Roll, old: bytes, new: bytes, motion: OpenMotion, height: int) -> Roll:
    """Give a member's seat, its votes and motions against it to its new key."""
    before = roll.seats[old]
    after = Seat(new, before.name, before.addresses, height, motion=motion.digest, predecessor=old)
    ended = replace(before, until=height, gone="rekeyed", end=motion.digest, successor=new)

    def follow(keys: frozenset[bytes]) -> frozenset[bytes]:
        return frozenset(new if key == old else key for key in keys)

    motions = tuple(
        replace(
            opened,
            subject=new if opened.subject == old and opened.action in ABOUT_OTHERS else opened.subject,
            yes=follow(opened.yes),
            no=follow(opened.no),
        )
        for opened in roll.motions
    )
    return replace(roll, seats={**roll.seats, old: ended, new: after}, motions=motions)
