"""Records: the signed entries of each author's feed; everything that is agreed on is a record.

A record's body is nested canonical bytes, so a node can carry, chain and agree on records of kinds that it does not
know: those are inert.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, TypeAlias

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
MAX_UPDATES = 64  # that one withdrawal names
SCOPES = ("all", "components", "rounds", "updates")
# Why a host does not train, as others are told (ADR 18): what is declared or configured, what the ledger shows anyway,
# and one neutral word for all else, so that nothing is told of the data (G6). "silent" is never a member's own word.
SILENT = "silent"
PAUSED = "paused"
IDLE = {
    "no-data": "it has no data folder",
    "off": "its operator, or a withdrawal, has switched its training off",
    "plan-done": "the rounds that it planned to train are over",
    "budget-spent": "its privacy budget is spent, or what is left is kept for rounds after a withdrawal",
    "policy": "its privacy policy does not allow it",
    "too-few-students": "it declares fewer students than the charter asks for",
    PAUSED: "it cannot at the moment, and does not say why",
    SILENT: "it was suspended: it said that it trains, and sent nothing",
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
    """The author hosts these components and can be reached at these addresses. The last one counts.

    It trains those that are not `idle`: rounds wait for its updates of them, and of no others.
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
    """The author folded this component up to this round and generation and holds the state with this digest."""

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
    """What is withdrawn of what the author contributed in feed entries up to `through`.

    `scope` is "all", "components" (these), "rounds" (`first` to `last` of these components) or "updates" (these header
    digests); lists are sorted, and empty or 0 where the scope does not ask for them. `mode` is "refold", by the owner
    or by motion, or "rewind", by motion alone. The owner's signature makes it a statement that any member may carry;
    in a motion it stands unsigned.
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


# Every step of the core looks at the bodies that wait for agreement again.
@lru_cache(maxsize=1024)
def _decoded(kind: str, body: bytes) -> Body:
    return schema.load(KINDS[kind], body, BODY_LIMIT)


def ack_message(federation: bytes, header: bytes) -> bytes:
    """Return what a host signs, in domain "ack", to acknowledge the update header with this digest."""
    return digest("ack-message", federation, header)


@lru_cache(maxsize=16384)  # it comes alone, in its update's record, and again in every block that holds that
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
