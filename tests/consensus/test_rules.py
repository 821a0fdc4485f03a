"""Aggregation rules against exact fractions: every bit, at any extreme, order and number of threads (G1)."""

import json
import os
import random as random_module
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import rules
from collegium.crypto.errors import LocalProtocolError
from collegium.protocol.update import Integers

EXACT = settings(deadline=None, max_examples=150)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rules" / "rules.json").read_text())


def half_even(value: Fraction) -> int:
    """Python's own rounding of fractions: half to even."""
    return round(value)


def oracle_mean(updates: Sequence[Integers], weights: Sequence[int]) -> list[int]:
    columns = zip(*(update.tolist() for update in updates), strict=True)
    return [
        half_even(Fraction(256 * sum(a * q for a, q in zip(weights, column, strict=True)), sum(weights)))
        for column in columns
    ]


def oracle_trimmed(updates: Sequence[Integers], trim: int) -> list[int]:
    columns = (sorted(column) for column in zip(*(update.tolist() for update in updates), strict=True))
    n = len(updates)
    return [half_even(Fraction(256 * sum(column[trim : n - trim]), n - 2 * trim)) for column in columns]


def oracle_weights(variances: Sequence[int], staleness: Sequence[int]) -> list[int]:
    """design.md section 8, word by word."""
    n = len(variances)
    v0 = max(1, sorted(variances)[(n - 1) // 2])
    w = [2**16 * v0 // (v0 + v) for v in variances]
    a = [2**15 * w_i // sum(w) + 2**15 // n for w_i in w]
    return [max(1, a_i // 2**s) for a_i, s in zip(a, staleness, strict=True)]


@st.composite
def batches(draw: st.DrawFn) -> list[Integers]:
    """Int8 or int16 updates with many extremes and repeated values (ties)."""
    bits = draw(st.sampled_from([8, 16]))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    value = st.one_of(st.sampled_from([low, low + 1, -1, 0, 1, high]), st.integers(low, high))
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    dtype = np.dtype("<i1" if bits == 8 else "<i2")
    return [np.array(draw(st.lists(value, min_size=d, max_size=d)), dtype=dtype) for _ in range(n)]


@EXACT
@given(batches(), st.data())
def test_mean_is_exact(updates: list[Integers], data: st.DataObject) -> None:
    cap = 2**16 // len(updates)
    weights = data.draw(st.lists(st.integers(1, cap), min_size=len(updates), max_size=len(updates)))
    assert rules.mean(updates, weights).tolist() == oracle_mean(updates, weights)


@EXACT
@given(batches(), st.data())
def test_trimmed_mean_is_exact(updates: list[Integers], data: st.DataObject) -> None:
    trim = data.draw(st.integers(0, (len(updates) - 1) // 2))
    assert rules.trimmed_mean(updates, trim).tolist() == oracle_trimmed(updates, trim)


@EXACT
@given(batches(), st.randoms())
def test_order_does_not_matter(updates: list[Integers], random: random_module.Random) -> None:
    pairs = [(update, 100 + 7 * index) for index, update in enumerate(updates)]
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one = rules.mean([u for u, _ in pairs], [a for _, a in pairs])
    two = rules.mean([u for u, _ in shuffled], [a for _, a in shuffled])
    assert one.tobytes() == two.tobytes()
    trim = rules.faults(len(updates))
    assert (
        rules.trimmed_mean(updates, trim).tobytes()
        == rules.trimmed_mean([update for update, _ in shuffled], trim).tobytes()
    )


@pytest.mark.parametrize(("width", "extreme"), [(8, -128), (8, 127), (16, -(2**15)), (16, 2**15 - 1)])
def test_the_largest_sums_are_exact(width: int, extreme: int) -> None:
    """The float bound of the module: weights that add up to 2^16 on the greatest values, over a chunk's edge."""
    dtype = np.dtype("<i1" if width == 8 else "<i2")
    updates: list[Integers] = [np.full(rules.CHUNK + 3, extreme, dtype=dtype) for _ in range(4)]
    updates[0][-1] = 1
    weights = [2**14] * 3 + [2**14 - 1]
    got = rules.mean(updates, weights)
    want = oracle_mean([update[-2:] for update in updates], weights)
    assert got[-2:].tolist() == want
    assert set(got[:-1].tolist()) == {want[0]}


def test_ties_round_to_even() -> None:
    ones = [np.array([q], dtype="<i1") for q in (1, 0)]
    for weights, expected in (([1, 511], 0), ([3, 509], 2), ([5, 507], 2), ([7, 505], 4)):
        assert rules.mean(ones, weights).tolist() == [expected]  # 256·a/512 = a/2
    assert rules.mean([-ones[0], ones[1]], [3, 509]).tolist() == [-2]


@EXACT
@given(st.lists(st.one_of(st.sampled_from([0, 1, 2**80]), st.integers(0, 2**90)), min_size=1, max_size=40), st.data())
def test_weights_formula_and_least_shares(variances: list[int], data: st.DataObject) -> None:
    """G5, design.md section 8: at least half an equal share for everybody, at most 2.5 shares for a false σ = 0."""
    n = len(variances)
    staleness = data.draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    assert rules.mean_weights(variances, staleness) == oracle_weights(variances, staleness)
    fresh = rules.mean_weights(variances, [0] * n)
    assert sum(fresh) <= 2**16
    for share in fresh:
        assert share >= 2**15 // n
        assert Fraction(share, sum(fresh)) >= Fraction(1, 2 * n) - Fraction(1, 2**15)
    liar = rules.mean_weights([0, *[max(1, v) for v in variances]], [0] * (n + 1))
    if n + 1 >= 3:
        assert Fraction(liar[0], sum(liar)) <= Fraction(5, 2 * (n + 1)) + Fraction(1, 100)


@EXACT
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=10))
def test_each_round_of_staleness_halves_a_weight(variances: list[int]) -> None:
    n = len(variances)
    fresh, stale = rules.mean_weights(variances, [0] * n), rules.mean_weights(variances, [1] * n)
    assert all(b == max(1, a // 2) for a, b in zip(fresh, stale, strict=True))


def test_misuse_is_refused() -> None:
    update: Integers = np.zeros(2, dtype="<i1")
    with pytest.raises(LocalProtocolError):
        rules.mean([], [])
    with pytest.raises(LocalProtocolError):
        rules.mean([update], [2**16 + 1])
    with pytest.raises(LocalProtocolError):
        rules.trimmed_mean([update] * 2, 1)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: str(case["name"]))
def test_vectors(case: dict[str, object]) -> None:
    """What another implementation has to reproduce; see tests/vectors/rules/README.md."""
    updates: list[Integers] = [np.array(q, dtype=f"<i{case['width'] // 8}") for q in case["updates"]]  # type: ignore[operator, attr-defined]
    got: npt.NDArray[np.int64]
    if case["rule"] == "mean":
        weights = rules.mean_weights(case["variances"], case["staleness"])  # type: ignore[arg-type]
        assert weights == case["weights"]
        got = rules.mean(updates, weights)
    else:
        got = rules.trimmed_mean(updates, case["trim"])  # type: ignore[arg-type]
    assert got.tolist() == case["increment"]


PROGRAM = """
import hashlib, numpy as np
from collegium.consensus import rules
g = np.random.Generator(np.random.PCG64(3))
found = hashlib.sha256()
for bits in (1, 2):
    updates = [g.integers(-(2**(8*bits-1)), 2**(8*bits-1), 200_003).astype(f"<i{bits}") for _ in range(17)]
    weights = rules.mean_weights([int(v) for v in g.integers(0, 2**40, 17)], [0] * 17)
    found.update(rules.mean(updates, weights).tobytes())
    found.update(rules.trimmed_mean(updates, 5).tobytes())
print(found.hexdigest())
"""


def test_threads_do_not_matter() -> None:
    """G1: one thread and many give the same bits."""
    digests = set()
    for threads in ("1", "4"):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1
