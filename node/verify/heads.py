"""Walk the cosigned tree heads from the charter to a height: what trust needs, and no record (design.md section 7).

A header holds a tree head (`tree_size`, `tree_root`) and names the members that decide the next height; its certificate
is their quorum under both. A walk has, by height, the headers after which other members decide, each with the list of
keys that it names, and the headers that a proof is about. Each is checked against the members that the one before it
names, the first against the charter's. The headers between are not needed: a header's own certificate suffices. Any
quorum has an honest member, and honest members sign one header a height, which extends all before it (G2).

A quorum of *former* members' keys can sign another past. Against that a block id can be pinned.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from ...consensus.ledger import members_digest
from ...consensus.membership import Roll
from ...crypto.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from ...protocol.blocks import Block, Certificate, verify_certificate
from ...protocol.charter import Charter
from ...protocol.records import GENESIS
from ...protocol.schema import MAX_MEMBERS, Bytes32, Size
from ..core.events import StoredBlock

MAX_HEADS = 8192  # a federation has at most 4096 seats of all times (consensus/membership.py)
ADVICE = "Its author was deceived, or changed it: ask for another one, and compare the federation's id."


@dataclass(frozen=True, slots=True)
class CosignedHead:
    """A header and its certificate; `members` holds the keys, sorted, that decide from then on if they are others."""

    block: Block
    certificate: Certificate
    members: Annotated[tuple[Bytes32, ...], Size(0, MAX_MEMBERS)]


Heads = Annotated[tuple[CosignedHead, ...], Size(0, MAX_HEADS)]  # a field of this type holds a walk


@dataclass(frozen=True, slots=True)
class Deciders:
    """Who decides the next height."""

    members: frozenset[bytes]
    digest: bytes

    @classmethod
    def of(cls, members: Iterable[bytes]) -> "Deciders":
        """Return these keys as deciders."""
        keys = frozenset(members)
        return cls(keys, members_digest(keys))

    def after(self, block: Block, listed: Sequence[bytes]) -> "Deciders":
        """Return the deciding members after this block: the same, or those listed where its header names others.

        Raises RemoteProtocolError("members-list").
        """
        if block.members == self.digest:
            if listed:
                raise RemoteProtocolError("members-list", "members are listed though they did not change")
            return self
        deciders = Deciders.of(listed)
        if list(listed) != sorted(deciders.members) or deciders.digest != block.members:
            raise RemoteProtocolError("members-list", "the listed members are not those that the header names")
        return deciders


@dataclass(frozen=True, slots=True)
class Walk:
    """A checked walk: the requested headers by height, the heights that changed the members, the members after it."""

    blocks: Mapping[int, Block]
    changes: tuple[int, ...]
    members: frozenset[bytes]
    signatures: int


def members_after(roll: Roll, height: int) -> tuple[bytes, ...]:
    """Return the deciding members after the block at a height, sorted, from the roll of that or of a later height."""
    seats = roll.seats.values()
    return tuple(sorted(s.key for s in seats if s.since <= height and (not s.gone or s.until > height)))


def needed(roll: Roll, at: Collection[int]) -> list[int]:
    """Return which heights `collect` asks for, ascending."""
    top = max(at, default=0)
    moved = {height for seat in roll.seats.values() for height in (seat.since, seat.until) if 0 < height <= top}
    return sorted(moved | set(at))


def collect(
    charter: Charter, roll: Roll, blocks: Iterable[StoredBlock], at: Collection[int]
) -> tuple[CosignedHead, ...]:
    """Return the walk to the heights `at`. `roll` is of the last of them or later; `blocks` holds those `needed`.

    Raises LocalProtocolError if a block is missing or the roll is not of its ledger.
    """
    heights = needed(roll, at)
    wanted = set(heights)
    by_height = {stored.block.height: stored for stored in blocks if stored.block.height in wanted}
    if missing := wanted - set(by_height):
        raise LocalProtocolError(f"no block at height {min(missing)} for the walk of heads")
    deciders = Deciders.of(member.key for member in charter.members)
    walk = []
    for height in heights:
        stored = by_height[height]
        changed = stored.block.members != deciders.digest
        if changed or height in at:
            listed = members_after(roll, height) if changed else ()
            walk.append(CosignedHead(stored.block, stored.certificate, listed))
            try:
                deciders = deciders.after(stored.block, listed)
            except RemoteProtocolError as error:
                raise LocalProtocolError(f"the roll is not that of the blocks at height {height}") from error
    return tuple(walk)


def check(
    charter: Charter,
    heads: Iterable[CosignedHead],
    at: Collection[int],
    *,
    pins: Mapping[int, bytes] | None = None,
) -> Walk:
    """Check a walk from the charter as it comes; it must hold the heights `at` and the pinned ones, and none idle.

    Raises VerificationError naming the height and, stably, the reason.
    """
    deciders = Deciders.of(member.key for member in charter.members)
    wanted, pins = set(at), dict(pins or {})
    by_height: dict[int, Block] = {}
    changes: list[int] = []
    seen: list[int] = []
    before: Block | None = None
    signatures = 0
    for head in heads:
        block = head.block
        try:
            _follows(charter, before, block)
            verify_certificate(block, head.certificate, deciders.members, charter.rules.fault_model)
            after = deciders.after(block, head.members)
            if after is deciders and block.height not in wanted:
                raise RemoteProtocolError("idle-head", "no proof is about it, and the members stay the same")
            if pins.pop(block.height, block.id) != block.id:
                raise RemoteProtocolError("pinned-block", f"it is {block.id.hex()}, the pin says otherwise")
        except RemoteProtocolError as error:
            raise VerificationError(f"height {block.height}: {error.reason}: {error.detail}", ADVICE) from error
        if after is not deciders:
            changes.append(block.height)
        if block.height in wanted:
            by_height[block.height] = block
        seen.append(block.height)
        deciders, before = after, block
        signatures += len(head.certificate.signatures)
    if missing := wanted - set(by_height):
        raise VerificationError(f"height {min(missing)}: missing-head: the walk does not reach it", ADVICE)
    if pins:
        there = ", ".join(map(str, seen)) or "no height"
        raise VerificationError(
            f"height {min(pins)}: pinned-block: it holds the headers at {there} only",
            "Ask for one that is made at the pinned height.",
        )
    return Walk(by_height, tuple(changes), deciders.members, signatures)


def _follows(charter: Charter, before: Block | None, block: Block) -> None:
    """Raises RemoteProtocolError("wrong-federation" | "height" | "prev" | "tree-shrinks")."""
    height, identifier, size, root = (
        (0, GENESIS, 0, b"") if before is None else (before.height, before.id, before.tree_size, before.tree_root)
    )
    if block.federation != charter.federation:
        raise RemoteProtocolError("wrong-federation", f"of federation {block.federation.hex()[:16]}")
    if block.height <= height:
        raise RemoteProtocolError("height", f"after height {height}")
    if block.height == height + 1 and block.prev != identifier:
        raise RemoteProtocolError("prev", "it does not follow the block before it")
    if block.tree_size < size or (block.tree_size == size and root not in (b"", block.tree_root)):
        raise RemoteProtocolError("tree-shrinks", f"{block.tree_size} records after {size}, or others")
