"""Messages between nodes: gossip, and the request and answer of anti-entropy.

A gossip message is one kind byte and a signed statement. An anti-entropy request lists what the asker has. Its answer
has what the asker lacks: decided blocks with their records, later records, and messages in flight.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, ClassVar

from ...consensus.agreement import Message
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import sha256
from ...protocol import schema
from ...protocol.blocks import BLOCK_LIMIT, Certificate, Head, Proposal, Vote
from ...protocol.records import Ack
from ...protocol.schema import MAX_MEMBERS, U63, Bytes32, Bytes64, Size
from ...protocol.signing import open_gossip

MESSAGE_LIMIT = BLOCK_LIMIT + 4096
SYNC_LIMIT = 6 << 20
TAG_SIZE = 8
SYNC_TARGET = 3 << 20  # an answer stops growing at this size and sets `more`


class Kind(IntEnum):
    """The first byte of a gossip message."""

    RECORD = 1
    HEADER = 2
    ACK = 3
    PROPOSAL = 4
    VOTE = 5


@dataclass(frozen=True, slots=True)
class Acked:
    """A host's acknowledgement in flight to the update's author."""

    LIMIT: ClassVar[int] = 512

    federation: Bytes32
    header: Bytes32
    host: Bytes32
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The asker's height, the head of every feed it knows, agreed or not, and its messages in flight.

    `have` holds the first 8 bytes of each in-flight message's digest, end to end, so that they are not sent again.
    """

    LIMIT: ClassVar[int] = 256 << 10

    federation: Bytes32
    height: U63
    heads: Annotated[tuple[Head, ...], Size(0, MAX_MEMBERS)]
    have: Annotated[bytes, Size(0, TAG_SIZE * 16_384)]


@dataclass(frozen=True, slots=True)
class DecidedBlock:
    """A block and the certificate that decided it."""

    block: Annotated[bytes, Size(1, BLOCK_LIMIT)]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """The asker's missing data. `records` come before the blocks that need them; `more` is 1 if more is left.

    `messages` are gossip messages: update headers and acks in flight, proposals and votes of the answerer's height,
    including the asker's own, so that a restored backup learns its earlier votes.
    """

    federation: Bytes32
    height: U63
    blocks: Annotated[tuple[DecidedBlock, ...], Size(0, 4096)]
    records: Annotated[tuple[Annotated[bytes, Size(65, 70_000)], ...], Size(0, 65_536)]
    messages: Annotated[tuple[Annotated[bytes, Size(1, MESSAGE_LIMIT)], ...], Size(0, 16_384)]
    more: U63


def message(kind: Kind, wire: bytes) -> bytes:
    """Return a gossip message."""
    return bytes([kind]) + wire


def tag(data: bytes) -> bytes:
    """Return the short name of a gossip message in `SyncRequest.have`. A collision only delays: gossip brings it."""
    return sha256(data)[:TAG_SIZE]


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """An invited candidate's request: "charter", or "apply" with its signed application."""

    LIMIT: ClassVar[int] = 8192

    what: Annotated[str, Size(1, 16)]
    application: Annotated[bytes, Size(0, 4096)]


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """The charter file's bytes, or the state of the candidate's own application.

    `state` is "charter", "held" (the operator decides), "waiting" (it will be proposed), "proposed", "admitted" or
    "refused".
    """

    LIMIT: ClassVar[int] = 2 << 20

    state: Annotated[str, Size(1, 16)]
    charter: Annotated[bytes, Size(0, (1 << 20) + 65_536)]


def kind_of_message(data: bytes) -> Kind:
    """Return the kind of a gossip message that is not empty. Raises RemoteProtocolError("unknown-message")."""
    try:
        return Kind(data[0])
    except ValueError:
        raise RemoteProtocolError("unknown-message", f"kind {data[0]}") from None


@lru_cache(maxsize=8192)  # each sync request names all messages in flight
def wrap_ack(federation: bytes, header: bytes, ack: Ack) -> bytes:
    """Return the gossip message of an acknowledgement."""
    return message(Kind.ACK, schema.dump(Acked(federation, header, ack.host, ack.signature)))


def wrap(item: Message) -> bytes:
    """Return the gossip message of a proposal or vote."""
    return message(Kind.PROPOSAL if isinstance(item.value, Proposal) else Kind.VOTE, item.wire)


def open_message(cls: type[Proposal] | type[Vote], wire: bytes, federation: bytes, *, trusted: bool = False) -> Message:
    """Decode a proposal or vote, and check its signature unless it is trusted."""
    if cls is Proposal:
        return open_gossip(Proposal, wire, federation, trusted=trusted)
    return open_gossip(Vote, wire, federation, trusted=trusted)
