"""What is signed to change who is a member: motions, ballots, applications, key moves and invitations.

Motions and ballots are bodies of records. An `Application` and a `Rekeying` travel inside a motion, signed by the key
that is to become a member's: nobody is made a member who did not ask. An `Invitation` never enters the ledger.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from .charter import CHARTER_LIMIT, Address
from .names import visible
from .schema import U63, Between, Bytes32, Name, Size

ACTIONS = ("admit", "expel", "leave", "rekey", "rewind", "suspend", "suspend-training", "withdraw")
STATEMENT_LIMIT = 4096
MIN_OPEN, EXPIRY_LIMIT = 20, 100_000  # heights that a motion may stay open


@dataclass(frozen=True, slots=True)
class Motion:
    """Its author moves that something be done about one key, and votes yes by it.

    `statement` is the signed Application (admit) or Rekeying (rekey), the terms of a WithdrawalStatement, unsigned
    (withdraw, rewind), else empty. After the block at height `expiry` it
    can no longer pass.
    """

    action: Name
    subject: Bytes32
    statement: Annotated[bytes, Size(0, STATEMENT_LIMIT)]
    reason: Annotated[str, Size(0, 512)]
    expiry: U63


@dataclass(frozen=True, slots=True)
class Ballot:
    """A member's vote on the motion that travels in the record with this digest. `yes` is 1 or 0, and final."""

    motion: Bytes32
    yes: Annotated[int, Between(0, 1)]


@dataclass(frozen=True, slots=True)
class Application:
    """A candidate asks to become a member under this name. `token` names the invitation that it came by."""

    DOMAIN: ClassVar[str] = "application"
    LIMIT: ClassVar[int] = STATEMENT_LIMIT

    federation: Bytes32
    author: Bytes32
    name: Name
    addresses: Annotated[tuple[Address, ...], Size(0, 8)]
    token: Bytes32


@dataclass(frozen=True, slots=True)
class Rekeying:
    """The new key of a member says which key it takes the place of."""

    DOMAIN: ClassVar[str] = "rekeying"
    LIMIT: ClassVar[int] = 512

    federation: Bytes32
    author: Bytes32
    old: Bytes32


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a member hands to a candidate, outside of the network. Whoever has `token` can apply once until `expires`.

    `token` is the seed of the key that lets a candidate in: to shake hands with it is to show the token, which itself
    never travels. `charter` is the charter file's bytes, or empty in a link; `expires` is Unix time in seconds.
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
    """Return how an application names its invitation, from the public key of the invitation's token."""
    return digest("invitation-token", token_key)


def check_person(name: str, addresses: tuple[str, ...]) -> None:
    """Check what a stranger calls itself before anybody is shown it. Raises RemoteProtocolError("name" | "address")."""
    if name != name.strip(" ") or not visible(name) or "=" in name:
        raise RemoteProtocolError("name", "it has characters that cannot be seen, a = or space around it")
    if any(not address.isascii() or any(ord(c) <= 0x20 or ord(c) == 0x7F for c in address) for address in addresses):
        raise RemoteProtocolError("address", "it is not plain ASCII")
