"""RFC 6962 trees: the published vectors, an independent recursive implementation, and hostile proofs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import LocalProtocolError
from collegium.crypto.merkle import (
    EMPTY,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

UNTIMED = settings(deadline=None)  # the time of one example says more about the machine than about the code
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ct" / "reference_tree.json").read_text())
REFERENCE = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(value) for value in VECTORS["roots"]]
# Distinct leaves: where two subtrees are equal, one proof is rightly valid at both places.
LEAVES = [leaf_hash(i.to_bytes(4, "big")) for i in range(70)]


def unhex(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


# The definitions of RFC 6962 section 2.1 as they stand there, on leaf hashes, sharing no code with the module.


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_root(d: list[bytes]) -> bytes:
    if not d:
        return hashlib.sha256(b"").digest()
    if len(d) == 1:
        return d[0]
    k = split(len(d))
    return node(naive_root(d[:k]), naive_root(d[k:]))


def naive_path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*naive_path(m, d[:k]), naive_root(d[k:])]
    return [*naive_path(m - k, d[k:]), naive_root(d[:k])]


def naive_subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    n = len(d)
    if m == n:
        return [] if b else [naive_root(d)]
    k = split(n)
    if m <= k:
        return [*naive_subproof(m, d[:k], b), naive_root(d[k:])]
    return [*naive_subproof(m - k, d[k:], False), naive_root(d[:k])]


def naive_verify_inclusion(leaf: bytes, m: int, n: int, proof: list[bytes], expected: bytes) -> bool:
    """Follow PATH's recursion, taking siblings from the proof where PATH would emit them."""

    def rebuild(m: int, n: int, rest: list[bytes]) -> bytes:
        if n == 1:
            return leaf
        k = split(n)
        if m < k:
            below = rebuild(m, k, rest)
            return node(below, rest.pop(0))
        below = rebuild(m - k, n - k, rest)
        return node(rest.pop(0), below)

    rest = list(proof)
    try:
        return 0 <= m < n and rebuild(m, n, rest) == expected and not rest
    except IndexError:
        return False


def naive_verify_consistency(m: int, n: int, old: bytes, new: bytes, proof: list[bytes]) -> bool:
    """Follow SUBPROOF's recursion, rebuilding both roots from what SUBPROOF would emit."""

    def rebuild(m: int, n: int, b: bool, rest: list[bytes]) -> tuple[bytes, bytes]:
        if m == n:
            both = old if b else rest.pop(0)
            return both, both
        k = split(n)
        if m <= k:
            below_old, below_new = rebuild(m, k, b, rest)
            return below_old, node(below_new, rest.pop(0))
        below_old, below_new = rebuild(m - k, n - k, False, rest)
        left = rest.pop(0)
        return node(left, below_old), node(left, below_new)

    if m == 0:
        return old == hashlib.sha256(b"").digest() and not proof and (n > 0 or new == old)
    rest = list(proof)
    try:
        return m <= n and rebuild(m, n, True, rest) == (old, new) and not rest
    except IndexError:
        return False


def corruptions(proof: list[bytes], *others: bytes) -> list[list[bytes]]:
    """Proofs with one element flipped, dropped, doubled, swapped with its neighbour, malformed, or one added."""
    bad: list[list[bytes]] = []
    for i, element in enumerate(proof):
        before, after = proof[:i], proof[i + 1 :]
        bad += [[*before, element[:j] + bytes([element[j] ^ 8]) + element[j + 1 :], *after] for j in range(32)]
        bad += [[*before, *after], [*before, element, element, *after]]
        bad += [[*before, junk, *after] for junk in (b"", element[:31], element + b"\0")]
        if after:
            bad.append([*before, after[0], element, *after[1:]])
    for extra in (b"", bytes(32), *others):
        bad += [[*proof, extra], [extra, *proof]]
    return bad


# The published vectors


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert root(REFERENCE[:size]) == ROOTS[size]
    assert EMPTY.extend(REFERENCE[:size]).root() == ROOTS[size]
    assert naive_root(REFERENCE[:size]) == ROOTS[size]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=str)
def test_published_inclusion_proofs(vector: dict[str, Any]) -> None:
    index, size, proof = vector["index"], vector["size"], unhex(vector["proof"])
    assert inclusion_proof(REFERENCE[:size], index) == proof
    assert verify_inclusion(REFERENCE[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=str)
def test_published_consistency_proofs(vector: dict[str, Any]) -> None:
    old, new, proof = vector["old_size"], vector["new_size"], unhex(vector["proof"])
    assert consistency_proof(REFERENCE[:new], old) == proof
    assert verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


def test_the_vectors_are_all_there() -> None:
    assert (len(VECTORS["leaves"]), len(VECTORS["roots"])) == (8, 9)
    assert (len(VECTORS["inclusion"]), len(VECTORS["consistency"])) == (5, 5)


def test_a_leaf_is_prefixed_with_zero() -> None:
    assert leaf_hash(b"ab") == hashlib.sha256(b"\x00ab").digest()


# Every tree up to 70 leaves, against the definitions


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_roots_and_frontiers_are_the_definition(size: int) -> None:
    frontier = EMPTY
    for leaf in LEAVES[:size]:
        frontier = frontier.append(leaf)
    assert frontier.size == size
    assert frontier.root() == root(LEAVES[:size]) == naive_root(LEAVES[:size])
    assert frontier == EMPTY.extend(LEAVES[: size // 3]).extend(LEAVES[size // 3 : size])


@pytest.mark.parametrize("size", range(1, len(LEAVES) + 1))
def test_proofs_are_the_definition_and_verify(size: int) -> None:
    leaves, tree = LEAVES[:size], root(LEAVES[:size])
    for index in range(size):
        path = inclusion_proof(leaves, index)
        assert path == naive_path(index, leaves)
        assert verify_inclusion(leaves[index], index, size, path, tree)
    for old in range(size + 1):
        proof = consistency_proof(leaves, old)
        assert proof == (naive_subproof(old, leaves, True) if old else [])
        assert verify_consistency(old, size, root(leaves[:old]), tree, proof)


# Hostile proofs

sizes = st.integers(1, len(LEAVES))


@UNTIMED
@given(sizes, st.data())
def test_an_inclusion_proof_fits_one_leaf_one_index_and_one_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, tree, proof = LEAVES[index], root(LEAVES[:size]), inclusion_proof(LEAVES[:size], index)
    for bad in corruptions(proof, leaf, tree):
        assert not verify_inclusion(leaf, index, size, bad, tree)
    for i in range(32):
        assert not verify_inclusion(leaf[:i] + bytes([leaf[i] ^ 1]) + leaf[i + 1 :], index, size, proof, tree)
        assert not verify_inclusion(leaf, index, size, proof, tree[:i] + bytes([tree[i] ^ 1]) + tree[i + 1 :])
    for other in {*range(-2, size + 2), index ^ 2, index + 64} - {index}:
        assert not verify_inclusion(leaf, other, size, proof, tree)
    for other in (0, -size, size // 2, size * 2):
        assert not verify_inclusion(leaf, index, other, proof, tree)


@UNTIMED
@given(sizes, sizes, st.data())
def test_a_consistency_proof_fits_one_old_size_and_its_roots(old: int, new: int, data: st.DataObject) -> None:
    old, new = min(old, new), max(old, new)
    before, after = root(LEAVES[:old]), root(LEAVES[:new])
    proof = consistency_proof(LEAVES[:new], old)
    for bad in corruptions(proof, before, after):
        assert not verify_consistency(old, new, before, after, bad)
    for i in range(32):
        assert not verify_consistency(old, new, before[:i] + bytes([before[i] ^ 1]) + before[i + 1 :], after, proof)
        assert not verify_consistency(old, new, before, after[:i] + bytes([after[i] ^ 1]) + after[i + 1 :], proof)
    if old != new:
        assert not verify_consistency(old, new, after, before, proof)
        assert not verify_consistency(new, old, after, before, proof)
        for other in {0, old - 1, old + 1, old ^ 2, new} - {old}:
            assert not verify_consistency(other, new, before, after, proof)
        for other in (0, new // 2, new * 2):
            assert not verify_consistency(old, other, before, after, proof)


@UNTIMED
@given(sizes, st.data())
def test_a_rewritten_history_is_not_consistent(size: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, size - 1))
    rewritten = [*LEAVES[:changed], leaf_hash(b"rewritten"), *LEAVES[changed + 1 :]]
    new = data.draw(st.integers(size, len(LEAVES)))
    proof = consistency_proof(rewritten[:new], size)
    assert not verify_consistency(size, new, root(LEAVES[:size]), root(rewritten[:new]), proof)


@UNTIMED
@given(sizes, st.data())
def test_other_sizes_are_judged_as_the_definition_judges_them(size: int, data: st.DataObject) -> None:
    """A path's shape may be shared by several sizes (module docstring): exactly those, and no others, are accepted."""
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    leaf, tree, before = LEAVES[index], root(LEAVES[:size]), root(LEAVES[:old])
    path, proof = inclusion_proof(LEAVES[:size], index), consistency_proof(LEAVES[:size], old)
    for n in range(80):
        assert verify_inclusion(leaf, index, n, path, tree) == naive_verify_inclusion(leaf, index, n, path, tree)
        assert verify_consistency(old, n, before, tree, proof) == naive_verify_consistency(old, n, before, tree, proof)
        assert verify_consistency(n, size, before, tree, proof) == naive_verify_consistency(
            n, size, before, tree, proof
        )


def test_a_proof_alone_does_not_fix_the_size() -> None:
    """Not a fault of ours but of no use to hide: leaf 0 has paths of one shape in trees of 3 and of 4 leaves."""
    path = inclusion_proof(LEAVES[:3], 0)
    assert verify_inclusion(LEAVES[0], 0, 4, path, root(LEAVES[:3]))
    assert not verify_inclusion(LEAVES[0], 0, 4, path, root(LEAVES[:4]))


def test_a_node_is_not_a_leaf() -> None:
    """The second-preimage attack that the two prefixes forbid."""
    forged = leaf_hash(LEAVES[0] + LEAVES[1])
    assert root([forged, root(LEAVES[2:4])]) != root(LEAVES[:4])
    assert not verify_inclusion(forged, 0, 2, [root(LEAVES[2:4])], root(LEAVES[:4]))


uint64s = st.integers(-1, 100) | st.integers(2**63, 2**64 + 1)
hashes = st.sampled_from([*REFERENCE[:3], *ROOTS[:3], b"", b"short", bytes(33)])


@UNTIMED
@given(uint64s, uint64s, hashes, hashes, st.lists(hashes, max_size=6) | st.lists(st.just(ROOTS[1]), max_size=70))
def test_arbitrary_arguments_are_judged_without_raising(m: int, n: int, a: bytes, b: bytes, proof: list[bytes]) -> None:
    well_formed = all(len(value) == 32 for value in (a, b, *proof)) and 0 <= m < 2**64 and 0 <= n < 2**64
    assert verify_inclusion(a, m, n, proof, b) == (well_formed and naive_verify_inclusion(a, m, n, proof, b))
    assert verify_consistency(m, n, a, b, proof) == (well_formed and naive_verify_consistency(m, n, a, b, proof))


HOSTILE: dict[str, Any] = {
    "huge size": 1 << 100_000,
    "boolean": True,
    "float": 1.0,
    "text": "1",
    "nothing": None,
    "list": [bytes(32)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_argument_of_another_type_is_false(name: str) -> None:
    value = HOSTILE[name]
    leaf, other = LEAVES[:2]
    tree = root(LEAVES[:2])
    assert verify_inclusion(leaf, 0, 2, [other], tree)
    assert verify_consistency(1, 2, leaf, tree, [other])
    assert not verify_inclusion(leaf, value, 2, [other], tree)
    assert not verify_inclusion(leaf, 0, value, [other], tree)
    assert not verify_inclusion(value, 0, 2, [other], tree)
    assert not verify_inclusion(leaf, 0, 2, [other], value)
    assert not verify_inclusion(leaf, 0, 2, [value], tree)
    assert not verify_consistency(value, 2, leaf, tree, [other])
    assert not verify_consistency(1, value, leaf, tree, [other])
    assert not verify_consistency(1, 2, value, tree, [other])
    assert not verify_consistency(1, 2, leaf, value, [other])
    assert not verify_consistency(1, 2, leaf, tree, [value])
    assert not verify_consistency(1, 2, leaf, tree, value)
    assert not verify_inclusion(leaf, 0, 2, value, tree)


def test_a_proof_that_goes_on_above_the_root_is_false() -> None:
    """The hashes add up to the given root, but of a tree higher than its size allows."""
    assert not verify_inclusion(LEAVES[1], 0, 1, [LEAVES[0]], root(LEAVES[:2]))
    before, after = root(LEAVES[:3]), root(LEAVES[:4])
    proof, above = consistency_proof(LEAVES[:4], 3), LEAVES[9]
    assert verify_consistency(3, 4, before, after, proof)
    assert not verify_consistency(3, 4, node(above, before), node(above, after), [*proof, above])


def test_the_longest_possible_proofs_are_not_cut_off() -> None:
    """In a tree of 2**64 - 1 leaves the path of leaf 0 has 64 nodes and the consistency proof from 3 has 65."""
    size = 2**64 - 1
    path = LEAVES[1:65]
    tree = LEAVES[0]
    for sibling in path:
        tree = node(tree, sibling)
    assert verify_inclusion(LEAVES[0], 0, size, path, tree)
    assert not verify_inclusion(LEAVES[0], 0, size + 1, path, tree)  # the same path, but sizes are uint64
    pair, third, fourth, *rights = LEAVES[:65]
    before, after = node(pair, third), node(pair, node(third, fourth))
    for right in rights:
        after = node(after, right)
    proof = [third, fourth, pair, *rights]
    assert len(proof) == 65
    assert verify_consistency(3, size, before, after, proof)


# Our own misuse


@pytest.mark.parametrize(("size", "index"), [(0, 0), (1, 1), (3, -1), (8, 9)])
def test_no_path_to_a_leaf_that_is_not_there(size: int, index: int) -> None:
    with pytest.raises(LocalProtocolError, match="no leaf"):
        inclusion_proof(LEAVES[:size], index)


@pytest.mark.parametrize(("size", "old"), [(0, 1), (3, 4), (3, -1)])
def test_no_proof_from_a_size_that_never_was(size: int, old: int) -> None:
    with pytest.raises(LocalProtocolError, match="no earlier size"):
        consistency_proof(LEAVES[:size], old)


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 0), (3, 1), (4, 2), (-1, 1)])
def test_a_frontier_has_one_node_for_each_bit_of_its_size(size: int, count: int) -> None:
    with pytest.raises(LocalProtocolError, match="frontier"):
        Frontier(size, tuple(LEAVES[:count]))
