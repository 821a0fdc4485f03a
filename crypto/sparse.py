"""A sparse Merkle tree over 64-bit positions: shows that a position is empty without showing which others are not.

A proof of absence holds the roots of the non-empty subtrees beside the path. Blind the leaves: otherwise the content of
a subtree can be guessed from its root. After Dahlberg, Pulls and Peeters, "Efficient sparse Merkle trees" (NordSec
2016), without their caches.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

DEPTH = 64
POSITION_BYTES = DEPTH // 8


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _empties() -> tuple[bytes, ...]:
    digests = [sha256(b"\x02").digest()]
    for _ in range(DEPTH):
        digests.append(_node(digests[-1], digests[-1]))
    return tuple(digests)


EMPTY = _empties()  # by height: the root of a subtree with nothing in it


def root(leaves: Mapping[bytes, bytes]) -> bytes:
    """Return the root of a tree with these leaf digests at their positions (8 bytes each)."""
    return _root(sorted((int.from_bytes(position, "big"), leaf) for position, leaf in leaves.items()), DEPTH)


def _root(leaves: Sequence[tuple[int, bytes]], height: int) -> bytes:
    """`leaves` are those of this subtree, in order."""
    if not leaves:
        return EMPTY[height]
    if height == 0:
        return sha256(b"\x00" + leaves[0][1]).digest()
    if len(leaves) == 1:  # a single leaf: hash up its path without recursion
        position, leaf = leaves[0]
        node = sha256(b"\x00" + leaf).digest()
        for level in range(height):
            node = _node(EMPTY[level], node) if position >> level & 1 else _node(node, EMPTY[level])
        return node
    split = _split(leaves, height)
    return _node(_root(leaves[:split], height - 1), _root(leaves[split:], height - 1))


def _split(leaves: Sequence[tuple[int, bytes]], height: int) -> int:
    return next((n for n, (position, _) in enumerate(leaves) if position >> (height - 1) & 1), len(leaves))


def absence(leaves: Mapping[bytes, bytes], position: bytes) -> list[bytes]:
    """Return the roots of the subtrees beside the path to an empty position, from the top; b"" for an empty subtree.

    It ends where everything below is empty. Raises ValueError if the position is taken.
    """
    if position in leaves:
        raise ValueError("the position is taken")
    rest = sorted((int.from_bytes(key, "big"), leaf) for key, leaf in leaves.items())
    number, proof = int.from_bytes(position, "big"), []
    for height in range(DEPTH, 0, -1):
        if not rest:
            break
        split = _split(rest, height)
        left, right = rest[:split], rest[split:]
        rest, beside = (right, left) if number >> (height - 1) & 1 else (left, right)
        proof.append(_root(beside, height - 1) if beside else b"")
    return proof


def verify_absence(tree: bytes, position: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that nothing is at `position` of the tree with this root. Never raises."""
    if len(position) != POSITION_BYTES or len(proof) > DEPTH:
        return False
    number = int.from_bytes(position, "big")
    height = DEPTH - len(proof)
    node = EMPTY[height]
    for beside in reversed(proof):
        if len(beside) not in (0, 32):
            return False
        sibling = beside or EMPTY[height]
        node = _node(sibling, node) if number >> height & 1 else _node(node, sibling)
        height += 1
    return node == tree
