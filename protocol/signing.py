"""Signed statements: canonical payload, author, signature. The digest excludes the signature (design.md section 4).

On the wire a signed statement is its 64-byte signature followed by its payload. Every signable dataclass names its
signature domain in `DOMAIN` and its signer in `author`, and binds itself to one federation by a `federation` field.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from ..crypto.identity import Identity, verify
from . import schema

SIGNATURE_SIZE = 64
MAX_KEPT = 16 << 10  # bytes: up to this size a repeated statement is not decoded and checked again


class Signable(Protocol):
    """A statement signed by one member."""

    DOMAIN: ClassVar[str]
    LIMIT: ClassVar[int]

    @property
    def author(self) -> bytes:
        """The signer's public key."""
        ...

    @property
    def federation(self) -> bytes:
        """The federation that the statement belongs to."""
        ...


S_co = TypeVar("S_co", bound=Signable, covariant=True)
S = TypeVar("S", bound=Signable)


@dataclass(frozen=True, slots=True)
class Signed(Generic[S_co]):
    """A statement whose signature was checked or made here. `wire` are the bytes that are sent and stored."""

    value: S_co
    wire: bytes
    digest: bytes

    @property
    def signature(self) -> bytes:
        """The 64-byte Ed25519 signature."""
        return self.wire[:SIGNATURE_SIZE]

    @property
    def payload(self) -> bytes:
        """The canonical bytes that were signed."""
        return self.wire[SIGNATURE_SIZE:]


def sign(identity: Identity, value: S) -> Signed[S]:
    """Sign a statement as its author. Raises LocalProtocolError if it breaks its own schema."""
    payload = schema.dump(value)
    signature = identity.sign(value.DOMAIN, payload)
    return Signed(value, signature + payload, digest(value.DOMAIN, payload))


def open_signed(cls: type[S], wire: bytes, federation: bytes, *, trusted: bool = False) -> Signed[S]:
    """Decode a signed statement and check its signature (skipped if `trusted`: bytes that this node stored itself).

    Raises RemoteProtocolError("oversized" | "malformed" | "not-canonical" | "invalid" | "wrong-federation" |
    "bad-signature").
    """
    if len(wire) <= SIGNATURE_SIZE:
        raise RemoteProtocolError("malformed", f"{cls.__name__} of {len(wire)} bytes")
    payload = wire[SIGNATURE_SIZE:]
    value = schema.load(cls, payload, cls.LIMIT)
    if value.federation != federation:
        raise RemoteProtocolError("wrong-federation", f"{cls.__name__} of federation {value.federation.hex()[:16]}")
    if not trusted:
        _check_signature(cls, value, wire)
    return Signed(value, wire, digest(cls.DOMAIN, payload))


def open_gossip(cls: type[S], wire: bytes, federation: bytes, *, trusted: bool = False) -> Signed[S]:
    """As `open_signed`, cached: statements come again from other neighbours, in answers, in blocks and as evidence.

    With `trusted` also for a first look before the signature is checked: decoding costs a tenth of that check.
    """
    if len(wire) > MAX_KEPT:
        return open_signed(cls, wire, federation, trusted=trusted)
    signed: Signed[Any] = _decoded(cls, wire, federation) if trusted else _opened(cls, wire, federation)
    return cast("Signed[S]", signed)


@lru_cache(maxsize=2048)
def _decoded(cls: type[Any], wire: bytes, federation: bytes) -> Signed[Any]:
    return open_signed(cls, wire, federation, trusted=True)


@lru_cache(maxsize=2048)
def _opened(cls: type[Any], wire: bytes, federation: bytes) -> Signed[Any]:
    signed = open_gossip(cls, wire, federation, trusted=True)
    _check_signature(cls, signed.value, wire)
    return signed


def _check_signature(cls: type[Signable], value: Signable, wire: bytes) -> None:
    if not verify(value.author, cls.DOMAIN, wire[SIGNATURE_SIZE:], wire[:SIGNATURE_SIZE]):
        raise RemoteProtocolError("bad-signature", f"{cls.__name__} by {value.author.hex()[:16]}")
