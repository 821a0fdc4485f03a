"""The Merkle tree of Certificate Transparency: RFC 6962 section 2.1, with the verifiers of RFC 9162.

Leaves are hashed with prefix 0x00 and nodes with 0x01, so that a node can never be passed off as a leaf. A tree of n
leaves splits at k, the largest power of two smaller than n. Functions take leaf hashes: the caller hashes a leaf once.

A proof fixes the path that it was made for, not every size: paths of trees of 3 and of 4 leaves can have one shape.
Take size and root together from one agreed checkpoint, never the size from the proof's sender.

Builders raise `LocalProtocolError` on our own misuse. Verifiers read what peers send: they answer False, never raise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .errors import LocalProtocolError

HASH_BYTES = 32
SIZE_LIMIT = 1 << 64  # tree sizes are uint64 (RFC 6962 section 3.5)


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data): MTH of one entry (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): MTH of an inner node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """One level up; a last node without a sibling rises unchanged, which is equivalent to the split at k."""
    pairs = [_node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
    return pairs if len(level) % 2 == 0 else [*pairs, level[-1]]


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH(D[n]); of no leaves, SHA-256 of the empty string (RFC 6962 section 2.1)."""
    if not leaf_hashes:
        return sha256().digest()
    level = leaf_hashes
    while len(level) > 1:
        level = _parents(level)
    return level[0]


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree that only grows, kept as the roots of its perfect subtrees, largest first: one for each 1 bit of `size`.

    `append` and `root` cost O(log size) and the leaves need not be kept.
    """

    size: int
    nodes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise LocalProtocolError(f"a frontier of size {self.size} cannot have {len(self.nodes)} nodes")

    def append(self, leaf_hash: bytes) -> "Frontier":
        """The frontier of the tree with one more leaf."""
        return self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """The frontier of the tree with these leaves added at the right."""
        size, nodes = self.size, list(self.nodes)
        for leaf in leaf_hashes:
            node, carry = leaf, size
            while carry & 1:  # binary addition of one: equal subtrees merge as bits carry
                node, carry = _node_hash(nodes.pop(), node), carry >> 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """The same as `root` over all leaves: the subtrees joined from the right (RFC 6962 section 2.1)."""
        if not self.nodes:
            return sha256().digest()
        *rest, node = self.nodes
        for left in reversed(rest):
            node = _node_hash(left, node)
        return node


EMPTY = Frontier(0, ())


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """PATH(index, D[n]): the siblings from the leaf up (RFC 6962 section 2.1.1). `index` counts from 0."""
    if not 0 <= index < len(leaf_hashes):
        raise LocalProtocolError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    proof, level = [], leaf_hashes
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level, index = _parents(level), index >> 1
    return proof


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows `leaf_hash` at `index` of the tree (`size`, `root`) (RFC 9162 section 2.1.3.2)."""
    if not (_are_sizes(index, size) and _are_hashes((leaf_hash, root)) and _is_proof(proof)) or index >= size:
        return False
    fn, sn, node = index, size - 1, leaf_hash
    for sibling in proof:
        if sn == 0:
            return False  # more nodes than the path has
        if fn & 1 or fn == sn:
            node = _node_hash(sibling, node)
            fn, sn = _skip_lone_levels(fn, sn)
        else:
            node = _node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and node == root


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """PROOF(old_size, D[n]): that the first `old_size` leaves are a prefix of all (RFC 6962 section 2.1.2).

    Empty when `old_size` is 0 or n: the empty tree is a prefix of every tree, and a tree is one of itself.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise LocalProtocolError(f"a tree of {len(leaf_hashes)} has no earlier size {old_size}")
    return _subproof(leaf_hashes, old_size, known=True) if old_size else []


def _subproof(leaf_hashes: Sequence[bytes], old_size: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b) (RFC 6962 section 2.1.2); `known`: the verifier has this subtree's root already."""
    size = len(leaf_hashes)
    if old_size == size:
        return [] if known else [root(leaf_hashes)]
    split = 1 << ((size - 1).bit_length() - 1)
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    if old_size <= split:
        return [*_subproof(left, old_size, known=known), root(right)]
    return [*_subproof(right, old_size - split, known=False), root(left)]


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the new tree only appended to the old one (RFC 9162 section 2.1.4.2)."""
    if not (_are_sizes(old_size, new_size) and _are_hashes((old_root, new_root)) and _is_proof(proof)):
        return False
    if old_size == new_size and old_root != new_root:
        return False
    if old_size in (0, new_size):
        # Outside the RFC (0 < m < n): nothing to prove, but the root of the empty tree is known.
        return not proof and (old_size > 0 or old_root == EMPTY.root())
    if old_size > new_size or not proof:
        return False
    # The old tree is one perfect subtree of the new one: its root is where the path starts.
    first, *rest = proof if old_size & (old_size - 1) else (old_root, *proof)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_node = new_node = first
    for sibling in rest:
        if sn == 0:
            return False  # more nodes than the path has
        if fn & 1 or fn == sn:
            old_node, new_node = _node_hash(sibling, old_node), _node_hash(sibling, new_node)
            fn, sn = _skip_lone_levels(fn, sn)
        else:
            new_node = _node_hash(new_node, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old_node == old_root and new_node == new_root


def _skip_lone_levels(fn: int, sn: int) -> tuple[int, int]:
    """Rise over the levels where the last node has no sibling and is promoted as it is (RFC 9162 section 2.1.3.2)."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _are_sizes(*values: int) -> bool:
    return all(type(value) is int and 0 <= value < SIZE_LIMIT for value in values)


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(type(value) is bytes and len(value) == HASH_BYTES for value in values)


def _is_proof(proof: Sequence[bytes]) -> bool:
    return isinstance(proof, list | tuple) and _are_hashes(proof)
