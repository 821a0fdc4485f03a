"""The sparse tree: every empty place can be shown to be empty, no taken one can, and nothing else is shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto import sparse
from collegium.crypto.hashing import sha256
from collegium.crypto.sparse import DEPTH, EMPTY, absence, root, verify_absence

PLACES = st.binary(min_size=8, max_size=8)
# Neighbours that part late, so that long paths come up.
NEAR = st.integers(0, 15).map(lambda n: (2**63 + n).to_bytes(8, "big"))
TREES = st.dictionaries(PLACES | NEAR, st.binary(min_size=32, max_size=32), max_size=12)


@settings(max_examples=60, deadline=None)
@given(TREES, PLACES | NEAR)
def test_what_is_empty_is_shown_and_what_is_not_cannot_be(tree: dict[bytes, bytes], position: bytes) -> None:
    whole = root(tree)
    tree.pop(position, None)
    proof = absence(tree, position)
    assert verify_absence(root(tree), position, proof)
    assert verify_absence(whole, position, proof) == (whole == root(tree))
    with_it = {**tree, position: sha256(b"leaf")}
    assert not verify_absence(root(with_it), position, proof)
    with pytest.raises(ValueError, match="taken"):
        absence(with_it, position)


@settings(max_examples=40, deadline=None)
@given(TREES, PLACES | NEAR, st.data())
def test_a_changed_proof_or_place_is_refused(tree: dict[bytes, bytes], position: bytes, data: st.DataObject) -> None:
    tree.pop(position, None)
    proof, whole = absence(tree, position), root(tree)
    for taken in tree:
        assert not verify_absence(whole, taken, proof), "the proof of one place passes for a taken one"
    if any(proof):
        index = data.draw(st.sampled_from([n for n, beside in enumerate(proof) if beside]))
        for other in (b"", sha256(proof[index]), proof[index][:-1]):
            assert not verify_absence(whole, position, [*proof[:index], other, *proof[index + 1 :]])
        assert not verify_absence(whole, position, proof[:-1])
    assert not verify_absence(sha256(whole), position, proof)
    assert not verify_absence(whole, position[:-1], proof)
    assert not verify_absence(whole, position, [b""] * (DEPTH + 1))


def test_the_empty_tree_and_the_shape_of_a_full_path() -> None:
    assert root({}) == EMPTY[DEPTH]
    assert absence({}, bytes(8)) == []
    assert verify_absence(EMPTY[DEPTH], bytes(8), [])
    one = {bytes(8): sha256(b"one")}
    last = bytes(7) + b"\x01"
    assert len(absence(one, last)) == DEPTH, "they part at the last bit only"
    assert len(absence(one, b"\x80" + bytes(7))) == 1


def test_a_proof_holds_no_leaf_and_no_place() -> None:
    tree = {n.to_bytes(8, "big"): sha256(bytes([n])) for n in range(1, 40)}
    shown = b"".join(absence(tree, bytes(8)))
    assert not any(leaf in shown or position in shown for position, leaf in tree.items())


def test_order_does_not_matter() -> None:
    tree = {sha256(bytes([n]))[:8]: sha256(bytes([n, 1])) for n in range(50)}
    assert root(tree) == root(dict(reversed(tree.items())))
    assert root(tree) != root({**tree, bytes(8): bytes(32)})
    assert sparse.POSITION_BYTES * 8 == DEPTH
