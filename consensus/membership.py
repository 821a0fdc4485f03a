"""Who is a member, and how members decide about it: the part of the ledger fold behind motions and ballots.

    admit     a candidate that applied becomes a member; any member moves it
    expel     a member goes; it has no vote on that itself
    leave     a member goes, by its own motion alone
    rekey     a member's new key takes the place of the old one: at once if the old key moves it, else (a key was lost)
              by the others' vote
    suspend   a host that fell silent is no host until it offers again; it has no vote on that itself
    suspend-training  a host that says that it trains and sends nothing trains nothing until it offers again; as above
    withdraw  what a member or former member contributed is withdrawn (withdrawal.py); it has no vote on that itself
    rewind    all states go back to before what it contributed; everybody has a vote, for it costs everybody's ε

A motion's author votes yes by it, and so does whoever makes the same motion again. It passes as soon as the yes votes
reach a quorum of the members that may vote; it is refused as soon as that is out of reach, lapses after its expiry, and
is void when it cannot be done any more. All of that is judged after every block, in the order in which motions were
opened, each on the members that the one before it left.

A key that went never comes back: its feed is frozen. What follows a member to its new key: its seat among the hosts,
its votes on open motions, motions against it, evidence against it, and the right to withdraw what the old key
contributed.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ..crypto.errors import RemoteProtocolError
from ..protocol import schema
from ..protocol.blocks import quorum
from ..protocol.charter import Charter
from ..protocol.membership import ACTIONS, EXPIRY_LIMIT, MIN_OPEN, Application, Ballot, Motion, Rekeying, check_person
from ..protocol.names import visible
from ..protocol.records import WITHDRAWAL_LIMIT, Offer, WithdrawalStatement
from ..protocol.schema import MAX_MEMBERS
from ..protocol.signing import Signed, open_signed

MAX_SEATS = 4096  # members of all times
MAX_KEYS = 8  # that a member moves to alone; to more by the others' vote
MAX_OUTCOMES = 1024  # motions that ended, kept for people to read: no rule asks for them
MAX_OPEN = 4  # motions of one author that may be open at a time
WITHDRAWALS = {"withdraw": "refold", "rewind": "rewind"}  # actions, and the modes that they decide on
ABOUT_OTHERS = ("expel", "suspend", "suspend-training")  # actions that nobody moves about itself
MIN_VOTED = 3  # members, from which on some can decide about another one


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
    motion: bytes = b""  # that made it
    end: bytes = b""  # the motion that ended it
    predecessor: bytes = b""
    successor: bytes = b""


@dataclass(frozen=True, slots=True)
class OpenMotion:
    """A motion in the ledger that is not decided yet. `digest` is its record's; `height` the block's that opened it."""

    digest: bytes
    author: bytes
    seq: int
    height: int
    action: str
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
    """Everybody who ever was a member, and what is or was moved."""

    seats: Mapping[bytes, Seat]
    motions: tuple[OpenMotion, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def founding(charter: Charter) -> Roll:
    """Return the roll before the first block."""
    return Roll({member.key: Seat(member.key, member.name, member.addresses) for member in charter.members})


def summary(roll: Roll) -> list[object]:
    """Return what later blocks depend on, for the ledger's digest: empty as long as nobody moved anything."""
    seats = [
        [s.key, s.name, list(s.addresses), s.since, s.until, s.gone, s.successor]
        for _, s in sorted(roll.seats.items())
        if s.since or s.gone not in ("", "evidence")
    ]
    motions = [[m.digest, m.action, m.subject, m.expiry, sorted(m.yes), sorted(m.no)] for m in roll.motions]
    return [seats, motions] if seats or motions else []


def present(roll: Roll, key: bytes) -> bytes:
    """Return the key that a member's older key has become."""
    while key in roll.seats and roll.seats[key].successor:
        key = roll.seats[key].successor
    return key


def earlier(roll: Roll, key: bytes) -> tuple[bytes, ...]:
    """Return the keys that this member had before, last first."""
    found: list[bytes] = []
    while key in roll.seats and roll.seats[key].predecessor:
        key = roll.seats[key].predecessor
        found.append(key)
    return tuple(found)


# ---- motions and ballots


@lru_cache(maxsize=1024)
def _application(wire: bytes, federation: bytes) -> Signed[Application]:
    return open_signed(Application, wire, federation)


@lru_cache(maxsize=1024)
def _rekeying(wire: bytes, federation: bytes) -> Signed[Rekeying]:
    return open_signed(Rekeying, wire, federation)


def applicant(motion: Motion | OpenMotion, federation: bytes) -> Application:
    """Return whom an admission is about. Raises RemoteProtocolError."""
    return _application(motion.statement, federation).value


def new_key(motion: Motion | OpenMotion, federation: bytes) -> bytes:
    """Return the key that a rekeying leads to. Raises RemoteProtocolError."""
    return _rekeying(motion.statement, federation).value.author


def terms(action: str, statement: bytes, federation: bytes) -> WithdrawalStatement:
    """Return what a motion to withdraw or to rewind is about. Raises RemoteProtocolError."""
    found = schema.load(WithdrawalStatement, statement, WITHDRAWAL_LIMIT)
    if found.federation != federation or found.mode != WITHDRAWALS[action]:
        raise RemoteProtocolError("unknown-withdrawal", f"{found.mode} moved as {action}", found.author)
    return found


def check_motion(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    federation: bytes,
    height: int,
    author: bytes,
    motion: Motion,
) -> None:
    """Check whether a member may move this in the block at `height`. Raises RemoteProtocolError, by name."""
    if motion.action not in ACTIONS:
        raise RemoteProtocolError("unknown-action", motion.action, author)
    # Each gets a block of its own: of one that lapsed at once, a member could make heights as fast as others vote.
    if not height + MIN_OPEN <= motion.expiry <= height + EXPIRY_LIMIT:
        raise RemoteProtocolError("expiry", f"height {motion.expiry}, moved at {height}", author)
    if not visible(motion.reason):
        raise RemoteProtocolError("reason", "it has characters that cannot be seen", author)
    if (motion.action in ("admit", "rekey", *WITHDRAWALS)) != bool(motion.statement):
        raise RemoteProtocolError("statement", f"to {motion.action}", author)
    if _same(roll, motion) is None and sum(known.author == author for known in roll.motions) >= MAX_OPEN:
        raise RemoteProtocolError("quota-motions", f"{MAX_OPEN} are open", author)
    own = motion.subject == author
    if motion.action == "rekey" and own and len(earlier(roll, author)) >= MAX_KEYS:
        raise RemoteProtocolError("too-many-keys", f"{MAX_KEYS} without the others' vote", author)
    if motion.action == "leave" and not own:
        raise RemoteProtocolError("not-the-owner", "to leave", author)
    if motion.action in ABOUT_OTHERS and own:
        raise RemoteProtocolError("self-target", f"to {motion.action}", author)
    if motion.action in (*ABOUT_OTHERS, "rekey", "withdraw") and not own and len(members) < MIN_VOTED:
        raise RemoteProtocolError("too-few-members", f"{len(members)} members cannot decide about one", author)
    why = obstacle(roll, members, offering, federation, motion)
    if why:
        raise RemoteProtocolError(why, f"to {motion.action}", author)


def obstacle(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    federation: bytes,
    motion: Motion | OpenMotion,
) -> str:
    """Return why a motion cannot be carried out as things stand, by name, or "". Raises RemoteProtocolError."""
    if motion.action == "admit":
        return _no_admission(roll, members, federation, motion)
    if motion.action in WITHDRAWALS:
        if terms(motion.action, motion.statement, federation).author != motion.subject:
            return "key-mismatch"
        return "" if motion.subject in roll.seats else "not-a-member"
    if motion.subject not in members:
        return "not-a-member"
    if motion.action in ("leave", "expel") and len(members) == 1:
        return "last-member"
    if motion.action in ("suspend", "suspend-training") and motion.subject not in offering:
        return "not-a-host"
    if motion.action == "suspend-training" and not _trains(offering[motion.subject]):
        return "not-a-trainer"
    if motion.action == "rekey":
        statement = _rekeying(motion.statement, federation).value
        if statement.old != motion.subject:
            return "key-mismatch"
        if statement.author in roll.seats:
            return "known-key"
        if len(roll.seats) >= MAX_SEATS:
            return "too-many-seats"
    return ""


def _trains(offer: Offer) -> bool:
    return len(offer.idle) < len(offer.components)


def _no_admission(roll: Roll, members: Collection[bytes], federation: bytes, motion: Motion | OpenMotion) -> str:
    found = _application(motion.statement, federation).value
    if found.author != motion.subject:
        return "key-mismatch"
    if motion.subject in members:
        return "member-already"
    if motion.subject in roll.seats:
        return "key-retired"
    check_person(found.name, found.addresses)
    if any(roll.seats[key].name == found.name for key in members):
        return "name-taken"
    if len(members) >= MAX_MEMBERS or len(roll.seats) >= MAX_SEATS:
        return "too-many-members"
    return ""


def _same(roll: Roll, motion: Motion) -> OpenMotion | None:
    key = (motion.action, motion.subject, motion.statement)
    return next((known for known in roll.motions if (known.action, known.subject, known.statement) == key), None)


def add_motion(roll: Roll, motion: Motion, author: bytes, seq: int, digest: bytes, height: int) -> Roll:
    """Open a checked motion; the same one again is its author's yes. Raises RemoteProtocolError("voted-already")."""
    known = _same(roll, motion)
    if known is not None:
        return add_ballot(roll, Ballot(known.digest, 1), author)
    opened = OpenMotion(
        digest=digest,
        author=author,
        seq=seq,
        height=height,
        action=motion.action,
        subject=motion.subject,
        statement=motion.statement,
        reason=motion.reason,
        expiry=motion.expiry,
        yes=frozenset((author,)),
    )
    return replace(roll, motions=(*roll.motions, opened))


def add_ballot(roll: Roll, ballot: Ballot, author: bytes) -> Roll:
    """Count a member's ballot. Raises RemoteProtocolError("unknown-motion" | "voted-already" | "no-vote")."""
    known = next((motion for motion in roll.motions if motion.digest == ballot.motion), None)
    if known is None:
        closed = any(outcome.motion.digest == ballot.motion for outcome in roll.outcomes)
        raise RemoteProtocolError("motion-closed" if closed else "unknown-motion", ballot.motion.hex()[:16], author)
    if author in known.yes | known.no:
        raise RemoteProtocolError("voted-already", ballot.motion.hex()[:16], author)
    if author not in voters(known, (author,)):
        raise RemoteProtocolError("no-vote", "it is about the voter itself", author)
    cast = replace(known, yes=known.yes | {author}) if ballot.yes else replace(known, no=known.no | {author})
    return replace(roll, motions=tuple(cast if motion is known else motion for motion in roll.motions))


def voters(motion: OpenMotion, members: Iterable[bytes]) -> frozenset[bytes]:
    """Return which of the members have a vote on a motion."""
    if motion.action in ("admit", "rewind"):
        return frozenset(members)
    if motion.author == motion.subject:
        return frozenset((motion.subject,)) & frozenset(members)  # one's own affair
    return frozenset(members) - {motion.subject}


def needed(motion: OpenMotion, members: Collection[bytes], fault_model: str) -> int:
    """Return how many yes votes carry a motion: a quorum of those who may vote."""
    return quorum(max(1, len(voters(motion, members))), fault_model)


# ---- decisions


def next_outcome(
    roll: Roll,
    members: Collection[bytes],
    offering: Mapping[bytes, Offer],
    federation: bytes,
    fault_model: str,
    height: int,
) -> Outcome | None:
    """Return the first open motion that is decided as things stand after the block at `height`, and how."""
    for motion in roll.motions:
        why = obstacle(roll, members, offering, federation, motion)
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
    """Take a decided motion from the open ones."""
    left = tuple(motion for motion in roll.motions if motion.digest != outcome.motion.digest)
    return replace(roll, motions=left, outcomes=(*roll.outcomes, outcome)[-MAX_OUTCOMES:])


def ended(before: Roll, after: Roll) -> list[Outcome]:
    """Return how motions ended between two rolls."""
    if after.outcomes is before.outcomes:
        return []
    known = {outcome.motion.digest for outcome in before.outcomes}
    return [outcome for outcome in after.outcomes if outcome.motion.digest not in known]


def seat(roll: Roll, person: Application, motion: OpenMotion, height: int) -> Roll:
    """Give a candidate its seat."""
    new = Seat(person.author, person.name, person.addresses, height, motion=motion.digest)
    return replace(roll, seats={**roll.seats, new.key: new})


def unseat(roll: Roll, keys: Iterable[bytes], gone: str, height: int, end: bytes = b"") -> Roll:
    """End members' seats."""
    ended = {key: replace(roll.seats[key], until=height, gone=gone, end=end) for key in keys if key in roll.seats}
    return replace(roll, seats={**roll.seats, **ended})


def rekeyed(roll: Roll, old: bytes, new: bytes, motion: OpenMotion, height: int) -> Roll:
    """Let a member's new key take its seat, its votes, and what is moved against it."""
    before = roll.seats[old]
    after = Seat(new, before.name, before.addresses, height, motion=motion.digest, predecessor=old)
    ended = replace(before, until=height, gone="rekeyed", end=motion.digest, successor=new)

    def follow(keys: frozenset[bytes]) -> frozenset[bytes]:
        return frozenset(new if key == old else key for key in keys)

    motions = tuple(
        replace(
            known,
            subject=new if known.subject == old and known.action in ABOUT_OTHERS else known.subject,
            yes=follow(known.yes),
            no=follow(known.no),
        )
        for known in roll.motions
    )
    return replace(roll, seats={**roll.seats, old: ended, new: after}, motions=motions)
