"""Headers, votes, proposals and certificates: the objects of agreement, and their proof (design.md section 7)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from ..crypto.identity import verify
from . import schema
from .schema import MAX_MEMBERS, U32, U63, Between, Bytes32, Bytes64, Name, Size

PREVOTE, PRECOMMIT = 1, 2
NIL = bytes(32)  # the block id of a vote for nothing
BLOCK_LIMIT = 256 << 10


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of one author's feed that a cut contains."""

    author: Bytes32
    seq: U63
    digest: Bytes32


@dataclass(frozen=True, slots=True)
class Close:
    """A component's round that a block closes."""

    component: Name
    round: U63


@dataclass(frozen=True)
class Block:
    """The agreed header at a height. `cut` holds changed heads only, sorted by author; `close` is sorted by component.

    `tree_size` and `tree_root` are of the RFC 6962 tree over all records up to this cut; `members` names the members
    that decide the next height; `fold` is the digest of the ledger state after this block.
    """

    federation: Bytes32
    height: U63
    prev: Bytes32
    cut: Annotated[tuple[Head, ...], Size(0, MAX_MEMBERS)]
    close: Annotated[tuple[Close, ...], Size(0, 256)]
    tree_size: U63
    tree_root: Bytes32
    members: Bytes32
    fold: Bytes32

    @cached_property
    def id(self) -> bytes:
        """The block id, 32 bytes."""
        return block_id(schema.dump(self))


def block_id(payload: bytes) -> bytes:
    """Return the id of a block from its canonical bytes."""
    return digest("block", payload)


@dataclass(frozen=True, slots=True)
class Vote:
    """A prevote or precommit for a block id, or for nothing (NIL)."""

    DOMAIN: ClassVar[str] = "vote"
    LIMIT: ClassVar[int] = 512

    federation: Bytes32
    author: Bytes32
    height: U63
    view: U32
    step: Annotated[int, Between(PREVOTE, PRECOMMIT)]
    block: Bytes32


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposer's block for a view. `valid_view`: 1 + the view in which it gathered prevotes, or 0 for none."""

    DOMAIN: ClassVar[str] = "proposal"
    LIMIT: ClassVar[int] = BLOCK_LIMIT

    federation: Bytes32
    author: Bytes32
    height: U63
    view: U32
    valid_view: U32
    block: Annotated[bytes, Size(1, BLOCK_LIMIT - 1024)]


@dataclass(frozen=True, slots=True)
class VoteSignature:
    """One member's signature under a certificate."""

    author: Bytes32
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class Certificate:
    """A quorum of precommits for one block. It stands outside the block; signatures are sorted by author."""

    view: U32
    signatures: Annotated[tuple[VoteSignature, ...], Size(1, MAX_MEMBERS)]


def quorum(members: int, fault_model: str) -> int:
    """Return the quorum of n members: ⌊2n/3⌋+1 under "byzantine", ⌊n/2⌋+1 under "crash"."""
    return 2 * members // 3 + 1 if fault_model == "byzantine" else members // 2 + 1


def tolerated(members: int, fault_model: str) -> int:
    """Return the largest number of lost members that leaves a quorum."""
    return members - quorum(members, fault_model)


def verify_certificate(block: Block, certificate: Certificate, members: frozenset[bytes], fault_model: str) -> None:
    """Check that a quorum of these members decided this block.

    Raises RemoteProtocolError("certificate-order" | "certificate-not-a-member" | "bad-signature" | "no-quorum").
    """
    authors = [entry.author for entry in certificate.signatures]
    if authors != sorted(set(authors)):
        raise RemoteProtocolError("certificate-order", f"height {block.height}")
    if not members.issuperset(authors):
        raise RemoteProtocolError("certificate-not-a-member", f"height {block.height}")
    if len(authors) < quorum(len(members), fault_model):
        raise RemoteProtocolError("no-quorum", f"height {block.height}: {len(authors)} of {len(members)} members")
    identifier = block.id
    for entry in certificate.signatures:
        vote = Vote(block.federation, entry.author, block.height, certificate.view, PRECOMMIT, identifier)
        if not verify(entry.author, Vote.DOMAIN, schema.dump(vote), entry.signature):
            raise RemoteProtocolError("bad-signature", f"precommit of {entry.author.hex()[:16]} at {block.height}")
