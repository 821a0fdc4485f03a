"""Records: the signed entries of each author's feed. Members agree on nothing but records.

A record's body is nested canonical bytes, so a node can carry, chain and agree on records of unknown kinds: those are
inert.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from ..crypto.identity import verify
from . import schema
from .charter import Address
from .membership import Ballot, Motion
from .schema import MAX_HOSTS, U32, U63, Bytes32, Bytes64, Name, Size
from .signing import Signed

BODY_LIMIT = 64 << 10
PROVABLE = 31 << 10  # bytes on the wire: two records of this size fit into one Evidence
WITHDRAWAL_LIMIT = 4096
MAX_UPDATES = 64  # named by one withdrawal
Scope: TypeAlias = Literal["all", "components", "rounds", "updates"]
Mode: TypeAlias = Literal["refold", "rewind"]
SCOPES: Mapping[str, Scope] = {scope: scope for scope in get_args(Scope)}  # by the text on the wire
MODES: Mapping[str, Mode] = {mode: mode for mode in get_args(Mode)}
# The published reasons why a host does not train (ADR 18): declared or configured ones, those that the ledger shows
# anyway, and one neutral reason for all else, so that nothing about the data leaks (G6). No member gives "silent"
# itself.
SILENT = "silent"
PAUSED = "paused"
IDLE = {
    "no-data": "it has no data folder",
    "off": "its operator, or a withdrawal, has switched its training off",
    "plan-done": "the rounds that it planned to train are over",
    "budget-spent": "its privacy budget is spent, or the rest is kept for rounds after a withdrawal",
    "policy": "its privacy policy does not allow it",
    "retired": "an amendment of the charter ended its rounds",
    "too-few-students": "it declares fewer students than the charter asks for",
    PAUSED: "it holds back for now and does not say why: it may be its quiet hours, a pause, or its learner",
    SILENT: "it was suspended: it declared training, and sent nothing",
}
GENESIS = bytes(32)  # `prev` of the first record of a feed and of the first block


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a feed: sequence numbers start at 1, `prev` is the digest of the entry before."""

    DOMAIN: ClassVar[str] = "record"
    LIMIT: ClassVar[int] = BODY_LIMIT + 512

    federation: Bytes32
    author: Bytes32
    seq: U63
    prev: Bytes32
    kind: Name
    body: Annotated[bytes, Size(0, BODY_LIMIT)]


@dataclass(frozen=True, slots=True)
class Idle:
    """A component that its host does not train now, and why: one of IDLE."""

    component: Name
    why: Name


@dataclass(frozen=True, slots=True)
class Offer:
    """The components that the author hosts, and the addresses where it can be dialled. The last offer counts.

    It trains those that are not `idle`: rounds wait for its updates of these only.
    """

    components: Annotated[tuple[Name, ...], Size(0, 256)]
    addresses: Annotated[tuple[Address, ...], Size(0, 8)]
    idle: Annotated[tuple[Idle, ...], Size(0, 256)] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """A host's signature that it holds an update's bytes, fsynced, and that they pass the byte checks."""

    host: Bytes32
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class Update:
    """A signed update header with acks from a quorum of the component's active hosts."""

    header: Annotated[bytes, Size(65, 32 << 10)]
    acks: Annotated[tuple[Ack, ...], Size(0, MAX_HOSTS)]


@dataclass(frozen=True, slots=True)
class Attest:
    """The author's signed digest of a component's state after this round and generation, which it folded and holds."""

    component: Name
    round: U63
    generation: U32
    digest: Bytes32


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two statements that no honest member signs both: two records with one seq, or two votes for one step.

    `kind` is "fork" or "double-vote"; `a` and `b` are the signed statements as they travel.
    """

    kind: Name
    a: Annotated[bytes, Size(65, PROVABLE)]
    b: Annotated[bytes, Size(65, PROVABLE)]


@dataclass(frozen=True, slots=True)
class WithdrawalStatement:
    """Which of the author's contributions in feed entries up to `through` are withdrawn.

    `scope` is "all", "components" (these), "rounds" (`first` to `last` of these components) or "updates" (these header
    digests); lists are sorted; fields that the scope does not use are empty or 0. `mode` is "refold", by the owner or
    by motion, or "rewind", by motion only. Both may be unknown texts here: the fold refuses such terms
    (consensus/withdrawal.py `check_terms`). With the owner's signature any member may carry it; in a motion it is
    unsigned.
    """

    DOMAIN: ClassVar[str] = "withdrawal"
    LIMIT: ClassVar[int] = WITHDRAWAL_LIMIT

    federation: Bytes32
    author: Bytes32
    scope: Name
    mode: Name
    through: U63
    components: Annotated[tuple[Name, ...], Size(0, 256)] = ()
    first: U63 = 0
    last: U63 = 0
    updates: Annotated[tuple[Bytes32, ...], Size(0, MAX_UPDATES)] = ()


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Carries a signed WithdrawalStatement."""

    statement: Annotated[bytes, Size(65, WITHDRAWAL_LIMIT)]


Body: TypeAlias = Offer | Update | Attest | Evidence | Withdrawal | Motion | Ballot
KINDS: dict[str, type[Body]] = {
    "offer": Offer,
    "update": Update,
    "attest": Attest,
    "evidence": Evidence,
    "withdrawal": Withdrawal,
    "motion": Motion,
    "ballot": Ballot,
}


def kind_of(body: Body) -> str:
    """Return the name under which a body travels."""
    return next(name for name, cls in KINDS.items() if cls is type(body))


def body_of(record: Record) -> Body | None:
    """Decode a record's body; None for a kind that this version does not know (inert).

    Raises RemoteProtocolError if a known kind's body is malformed.
    """
    return None if record.kind not in KINDS else _decoded(record.kind, record.body)


# Every step of the core decodes the bodies of pending records again.
@lru_cache(maxsize=1024)
def _decoded(kind: str, body: bytes) -> Body:
    return schema.load(KINDS[kind], body, BODY_LIMIT)


def ack_message(federation: bytes, header: bytes) -> bytes:
    """Return the message that a host signs, in domain "ack", to acknowledge the update header with this digest."""
    return digest("ack-message", federation, header)


@lru_cache(maxsize=16384)  # an ack comes alone, in its update's record, and again in every block that holds that record
def verify_ack(federation: bytes, header: bytes, ack: Ack) -> bool:
    """Check a host's acknowledgement of the update header with this digest."""
    return verify(ack.host, "ack", ack_message(federation, header), ack.signature)


def is_fork(a: Signed[Record], b: Signed[Record]) -> bool:
    """Tell whether two well-signed records prove that their author forked its feed."""
    return a.value.author == b.value.author and a.value.seq == b.value.seq and a.digest != b.digest


def check_size(record: Signed[Record]) -> None:
    """Check that a fork of this record could be proved. Only evidence itself may be larger.

    Raises RemoteProtocolError("oversized-record").
    """
    if record.value.kind != "evidence" and len(record.wire) > PROVABLE:
        raise RemoteProtocolError("oversized-record", f"{len(record.wire)} bytes", record.value.author)


def check_chain(before: tuple[int, bytes], record: Signed[Record]) -> None:
    """Check that a record follows the feed head (seq, digest). Raises RemoteProtocolError("gap" | "fork")."""
    seq, head = before
    if record.value.seq != seq + 1:
        raise RemoteProtocolError("gap", f"seq {record.value.seq} after {seq}", record.value.author)
    if record.value.prev != head:
        raise RemoteProtocolError("fork", f"seq {record.value.seq} does not follow the known head", record.value.author)
