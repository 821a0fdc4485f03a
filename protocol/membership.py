"""The signed statements that change membership: motions, ballots, applications, rekeyings and invitations.

Motions and ballots are bodies of records. An `Application` and a `Rekeying` travel inside a motion, signed by the key
that is to become a member's: nobody becomes a member without asking. An `Invitation` never enters the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from .amendment import AMENDMENT_LIMIT
from .charter import CHARTER_LIMIT, Address
from .names import visible
from .schema import U63, Between, Bytes32, Name, Size

Action: TypeAlias = Literal[
    "admit", "amend", "expel", "leave", "rekey", "rewind", "suspend", "suspend-training", "withdraw"
]
ACTIONS: Mapping[str, Action] = {action: action for action in get_args(Action)}  # by the text on the wire
STATEMENT_LIMIT = 4096  # of any but an amendment
MIN_OPEN, EXPIRY_LIMIT = 20, 100_000  # heights that a motion may stay open


@dataclass(frozen=True, slots=True)
class Motion:
    """A proposal about one key, or about the charter, which is also its author's yes vote.

    `action` may be unknown here (`ACTIONS`).

    `statement` is the signed Application (admit) or Rekeying (rekey), the terms of a WithdrawalStatement, unsigned
    (withdraw, rewind), an Amendment (amend, whose `subject` is the federation's id), else empty. It cannot pass after
    the block at height `expiry`.
    """

    action: Name
    subject: Bytes32
    statement: Annotated[bytes, Size(0, AMENDMENT_LIMIT)]
    reason: Annotated[str, Size(0, 512)]
    expiry: U63


@dataclass(frozen=True, slots=True)
class Ballot:
    """A member's vote on the motion that travels in the record with this digest. `yes` is 1 or 0, and final."""

    motion: Bytes32
    yes: Annotated[int, Between(0, 1)]


@dataclass(frozen=True, slots=True)
class Application:
    """A candidate's request to become a member under this name. `token` names its invitation."""

    DOMAIN: ClassVar[str] = "application"
    LIMIT: ClassVar[int] = STATEMENT_LIMIT

    federation: Bytes32
    author: Bytes32
    name: Name
    addresses: Annotated[tuple[Address, ...], Size(0, 8)]
    token: Bytes32


@dataclass(frozen=True, slots=True)
class Rekeying:
    """A member's new key, signed by it, and the key that it replaces."""

    DOMAIN: ClassVar[str] = "rekeying"
    LIMIT: ClassVar[int] = 512

    federation: Bytes32
    author: Bytes32
    old: Bytes32


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation, handed to a candidate outside the network. The holder of `token` can apply once until `expires`.

    `token` is the seed of the candidate's key for the handshake, which proves the token without sending it. `charter`
    is the charter file's bytes, or empty in a link; `expires` is Unix time in seconds.
    """

    DOMAIN: ClassVar[str] = "invitation"
    LIMIT: ClassVar[int] = 2 * CHARTER_LIMIT

    federation: Bytes32
    author: Bytes32
    name: Annotated[str, Size(0, 128)]
    addresses: Annotated[tuple[Address, ...], Size(1, 16)]
    token: Bytes32
    expires: U63
    charter: Annotated[bytes, Size(0, CHARTER_LIMIT + 65_536)]


def token_digest(token_key: bytes) -> bytes:
    """Return the digest by which an application names its invitation; `token_key` is the token's public key."""
    return digest("invitation-token", token_key)


def check_person(name: str, addresses: tuple[str, ...]) -> None:
    """Check a non-member's name and addresses before they are shown. Raises RemoteProtocolError("name" | "address")."""
    if name != name.strip(" ") or not visible(name) or "=" in name:
        raise RemoteProtocolError("name", "it has characters that cannot be seen, a = or space around it")
    if any(not address.isascii() or any(ord(c) <= 0x20 or ord(c) == 0x7F for c in address) for address in addresses):
        raise RemoteProtocolError("address", "it is not plain ASCII")
