"""G5, robust rules: byzfl's vectors, exact fractions, any order and threads, and how much lies can do."""

import json
import os
import random as random_module
import subprocess
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collegium.consensus import robust, rules
from collegium.crypto.errors import LocalProtocolError
from collegium.protocol.update import Integers

EXACT = settings(deadline=None, max_examples=120)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "byzfl" / "byzfl.json").read_text())["rules"]
RULES = sorted(robust.RULES)
NOT_IN_BYZFL: frozenset[str] = frozenset()  # rules that only ORACLES check
Column = list[Fraction]


def arrays(updates: Sequence[Sequence[int]], width: int) -> list[Integers]:
    return [np.array(update, dtype=f"<i{width // 8}") for update in updates]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in NOT_IN_BYZFL])
def test_byzfl_agrees(rule: str) -> None:
    """Within one 256th of a grid step: half of it is the one rounding, and a clip factor's 24 bits err by less than
    |q| · 2^-24 ≤ 2^-9, which is the other half; centered clipping's 32 bits by less. byzfl itself errs by 1e-12."""
    for case in VECTORS:
        updates = arrays(case["updates"], case["width"])
        got = robust.RULES[rule](updates, case["f"]) / 256
        exact = rule not in {"clip+nnm+trimmed_mean", "centered_clipping"}
        bound = (0.5 if exact else 1.0) / 256 + 1e-6
        assert np.abs(got - np.array(case["aggregates"][rule])).max() <= bound, (case["attack"], case["updates"])


def test_the_vectors_lie_up_to_each_breakdown_point_in_every_way() -> None:
    assert {case["f"] == (len(case["updates"]) - 1) // 3 for case in VECTORS} == {True}
    assert {case["attack"] for case in VECTORS} == {
        "none", "sign_flip", "inner_product", "inner_product_optimal", "alie", "alie_optimal", "mimic", "gaussian"
    }  # fmt: skip


# ---- the definitions in fractions, sharing no code with the rules


def half_even(column: Sequence[Fraction]) -> list[int]:
    return [round(256 * value) for value in column]


def rows(updates: Sequence[Integers]) -> list[Column]:
    return [[Fraction(q) for q in update.tolist()] for update in updates]


def squared(a: Column, b: Column) -> Fraction:
    return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))


def average(vectors: Sequence[Column]) -> Column:
    return [sum(column, Fraction(0)) / len(vectors) for column in zip(*vectors, strict=True)]


def trimmed(vectors: Sequence[Column], f: int) -> Column:
    return [sum(sorted(c)[f : len(c) - f], Fraction(0)) / (len(c) - 2 * f) for c in zip(*vectors, strict=True)]


def mixed(vectors: Sequence[Column], f: int) -> list[Column]:
    def near(i: int) -> list[Column]:
        order = sorted(range(len(vectors)), key=lambda j: (squared(vectors[i], vectors[j]), j))
        return [vectors[j] for j in order[: len(vectors) - f]]

    return [average(near(i)) for i in range(len(vectors))]


def krum(vectors: Sequence[Column], f: int) -> Column:
    n = len(vectors)
    scores = [sum(sorted(squared(vectors[i], vectors[j]) for j in range(n) if j != i)[: n - f - 1]) for i in range(n)]
    chosen = sorted(range(n), key=lambda i: (scores[i], i))[: n - f]
    return average([vectors[i] for i in chosen])


def clipped(vectors: Sequence[Column]) -> list[Column]:
    norms = [squared(vector, [Fraction(0)] * len(vector)) for vector in vectors]
    cap = sorted(norms)[(len(norms) - 1) // 2]
    sums = []
    for vector, norm in zip(vectors, norms, strict=True):
        factor = Fraction(isqrt(int(cap) * 2**48 // int(norm)), 2**24) if norm > cap else Fraction(1)
        sums.append([factor * q for q in vector])
    return sums


ORACLES: dict[str, Callable[[list[Column], int], Column]] = {
    "trimmed_mean": trimmed,
    "median": lambda vectors, _f: trimmed(vectors, (len(vectors) - 1) // 2),
    "multi_krum": krum,
    "nnm+trimmed_mean": lambda vectors, f: trimmed(mixed(vectors, f), f),
    "clip+nnm+trimmed_mean": lambda vectors, f: trimmed(mixed(clipped(vectors), f), f),
}


@st.composite
def batches(draw: st.DrawFn, least: int = 1) -> tuple[list[Integers], int]:
    """Updates of one width with many extremes and ties, and a number of liars that they bear."""
    bits = draw(st.sampled_from([8, 16]))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    value = st.one_of(st.sampled_from([low, low + 1, -1, 0, 1, high]), st.integers(low, high))
    n, d = draw(st.integers(least, 9)), draw(st.integers(1, 5))
    updates = [draw(st.lists(value, min_size=d, max_size=d)) for _ in range(n)]
    return arrays(updates, bits), draw(st.integers(0, (n - 1) // 2))


@EXACT
@given(batches(), st.sampled_from(sorted(ORACLES)))
def test_rules_are_exact(batch: tuple[list[Integers], int], rule: str) -> None:
    updates, f = batch
    assert robust.RULES[rule](updates, f).tolist() == half_even(ORACLES[rule](rows(updates), f))


@EXACT
@given(batches())
def test_centered_clipping_is_the_formula(batch: tuple[list[Integers], int]) -> None:
    updates, _ = batch
    n = len(updates)
    got = robust.centered_clipping(updates)
    with localcontext() as context:
        context.prec = 60
        x = [[Decimal(q) for q in update.tolist()] for update in updates]
        twice = [2 * value for value in trimmed(rows(updates), (n - 1) // 2)]
        v = [Decimal(int(value)) / 2 for value in twice]
        for _ in range(3):
            differences = [[a - b for a, b in zip(row, v, strict=True)] for row in x]
            distances = [sum(((a * a) for a in row), Decimal(0)).sqrt() for row in differences]
            radius = sorted(distances)[(n - 1) // 2]
            cut = [min(Decimal(1), radius / far) if far else Decimal(1) for far in distances]
            v = [
                b + sum((c * row[k] for c, row in zip(cut, differences, strict=True)), Decimal(0)) / n
                for k, b in enumerate(v)
            ]
        assert all(abs(int(a) - 256 * b) <= 1 for a, b in zip(got.tolist(), v, strict=True))


@EXACT
@given(batches(2), st.randoms(), st.sampled_from(RULES))
def test_order_does_not_matter(batch: tuple[list[Integers], int], random: random_module.Random, rule: str) -> None:
    """G1. Where two distances are the same, the order of authors decides: see the next test."""
    updates, f = batch
    far = [squared(a, b) for k, a in enumerate(rows(updates)) for b in rows(updates)[:k]]
    norms = [squared(row, [Fraction(0)] * len(row)) for row in rows(updates)]
    assume(rule in {"trimmed_mean", "median", "centered_clipping"} or len({*far, *norms}) == len(far) + len(norms))
    first = robust.RULES[rule](updates, f)
    shuffled = list(updates)
    random.shuffle(shuffled)
    again = robust.RULES[rule](shuffled, f)
    assert first.tobytes() == again.tobytes()


def test_a_tie_goes_to_the_smaller_key() -> None:
    """Four at the corners of a square: of two neighbours at the same distance the first counts."""
    corners = arrays([[0, 0], [0, 4], [4, 4], [4, 0]], 8)
    assert robust.nearest([5, 3, 3, 1], 2) == [3, 1]
    assert robust.multi_krum(corners, 1).tolist() == half_even(average(rows(corners[:3])))
    assert robust.nnm_trimmed_mean(corners, 1).tolist() == half_even(trimmed(mixed(rows(corners), 1), 1))
    turned = [*corners[1:], corners[0]]
    assert robust.multi_krum(turned, 1).tolist() != robust.multi_krum(corners, 1).tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("width", "extreme"), [(8, -128), (8, 127), (16, -(2**15)), (16, 2**15 - 1)])
def test_the_greatest_values_are_exact(rule: str, width: int, extreme: int) -> None:
    """The bounds of the module on every chunk's edge: where all say the same, so does the rule."""
    dtype = np.dtype("<i1" if width == 8 else "<i2")
    updates: list[Integers] = [np.full(rules.CHUNK + 3, extreme, dtype=dtype) for _ in range(40)]
    assert set(robust.RULES[rule](updates, 13).tolist()) == {256 * extreme}
    opposed: list[Integers] = [*updates[:27], *(np.full_like(u, -extreme - (extreme < 0)) for u in updates[27:])]
    got = robust.RULES[rule](opposed, 13)
    if rule in {"median", "trimmed_mean", "multi_krum", "nnm+trimmed_mean"}:
        assert set(got.tolist()) == {256 * extreme}
    assert len(set(got.tolist())) == 1
    assert 0 < got[0] / (256 * extreme) <= 1


def test_products_are_exact_in_int64() -> None:
    updates: list[Integers] = [np.full(300_000, v, dtype="<i2") for v in (-(2**15), 2**15 - 1)]
    assert robust.gram(updates) == [
        [300_000 * 2**30, -300_000 * 2**15 * (2**15 - 1)],
        [-300_000 * 2**15 * (2**15 - 1), 300_000 * (2**15 - 1) ** 2],
    ]


@EXACT
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_the_network_sorts(n: int, seed: int) -> None:
    values = np.random.Generator(np.random.PCG64(seed)).integers(-3, 4, (n, 33)).astype("<i2")
    assert np.array_equal(np.stack(rules.sorted_rows(values.copy())), np.sort(values, axis=0))


@EXACT
@given(
    st.lists(st.one_of(st.integers(-(2**50), 2**50), st.integers(-600, 600)), min_size=1, max_size=20),
    st.one_of(st.integers(1, 600), st.sampled_from([35 << 24, 2**32 - 1, 65536 << 24])),
)
def test_the_quotient_rounds_half_to_even(sums: list[int], divisor: int) -> None:
    got = robust.quotient(np.array(sums, dtype=np.int64), divisor)
    assert got.tolist() == [round(Fraction(256 * value, divisor)) for value in sums]


# ---- what liars can do: at most, and with one more


@st.composite
def lies(draw: st.DrawFn, borne: Callable[[int], int]) -> tuple[list[Integers], list[int], int]:
    """Honest updates near each other, as many arbitrary ones as the rule bears, the honest places, and f."""
    n = draw(st.integers(3, 10))
    f = borne(n)
    d = draw(st.integers(1, 6))
    honest = st.lists(st.integers(-40, 60), min_size=d, max_size=d)
    lie = st.lists(st.one_of(st.sampled_from([-(2**15), 2**15 - 1]), st.integers(-200, 200)), min_size=d, max_size=d)
    places = sorted(draw(st.permutations(range(n)))[: n - f])
    same = draw(lie)  # liars who agree are the worst against neighbours
    together = draw(st.booleans())
    updates = [draw(honest) if i in places else (same if together else draw(lie)) for i in range(n)]
    return arrays(updates, 16), places, f


def third(n: int) -> int:
    return (n - 1) // 3


def half(n: int) -> int:
    return (n - 1) // 2


def honest_of(case: tuple[list[Integers], list[int], int]) -> npt.NDArray[np.float64]:
    updates, places, _ = case
    return np.stack([updates[i] for i in places]).astype(np.float64)


def diameter(x: npt.NDArray[np.float64]) -> float:
    return float(max(np.linalg.norm(a - b) for a in x for b in x))


@EXACT
@given(lies(half), st.sampled_from(["trimmed_mean", "median"]))
def test_coordinate_rules_stay_in_the_range_of_the_honest(case: Any, rule: str) -> None:
    honest = honest_of(case)
    got = robust.RULES[rule](case[0], case[2]) / 256
    assert (honest.min(axis=0) - 0.002 <= got).all()
    assert (got <= honest.max(axis=0) + 0.002).all()


@EXACT
@given(lies(half))
def test_multi_krum_stays_near_the_honest(case: Any) -> None:
    """Who is chosen scores no more than an honest one, at most (n-f-1)·diameter², and has an honest neighbour."""
    honest, keep = honest_of(case), len(case[0]) - case[2]
    got = robust.multi_krum(case[0], case[2]) / 256
    bound = (1 + (keep - 1) ** 0.5) * diameter(honest)
    assert all(np.linalg.norm(got - row) <= bound + 0.01 for row in honest)


@EXACT
@given(lies(half))
def test_neighbours_of_the_honest_are_near(case: Any) -> None:
    """An honest one's n-f nearest are within the honest diameter: so is what is mixed, and trimming keeps it."""
    honest = honest_of(case)
    got = robust.nnm_trimmed_mean(case[0], case[2]) / 256
    reach = diameter(honest) + 0.002
    assert (honest.min(axis=0) - reach <= got).all()
    assert (got <= honest.max(axis=0) + reach).all()


@EXACT
@given(lies(half))
def test_clipping_first_bounds_the_norm_too(case: Any) -> None:
    updates, _, f = case
    honest = honest_of(case)
    norms = sorted(float(np.linalg.norm(update.astype(float))) for update in updates)
    cap = norms[(len(norms) - 1) // 2]
    assert cap <= max(np.linalg.norm(honest, axis=1)) + 1e-9  # no liar's to choose, while most are honest
    scale = np.minimum(1.0, cap / np.maximum(np.linalg.norm(honest, axis=1), 1e-12))
    capped = honest * scale[:, None]
    got = robust.clip_nnm_trimmed_mean(updates, f) / 256
    reach = diameter(capped) + 0.01
    assert (capped.min(axis=0) - reach <= got).all()
    assert (got <= capped.max(axis=0) + reach).all()
    assert np.abs(got).max() <= cap + 0.01


@EXACT
@given(lies(half))
def test_centered_clipping_moves_by_no_more_than_its_radii(case: Any) -> None:
    """A step moves the centre towards the honest, and by at most f/n of the radius beyond: D((1 + f/n)³ - 1) in all,
    where D is the diameter of the honest and the first centre, which is in their range."""
    updates, _, f = case
    honest = honest_of(case)
    start = robust.RULES["median"](updates, f) / 256
    reach = diameter(np.vstack([honest, start])) * ((1 + f / len(updates)) ** 3 - 1) + 0.01
    got = robust.centered_clipping(updates) / 256
    assert (honest.min(axis=0) - reach <= got).all()
    assert (got <= honest.max(axis=0) + reach).all()


# The number of liars that a rule given f does not bear any more, of n = 7 with f = 2.
ONE_TOO_MANY = {"trimmed_mean": 3, "multi_krum": 3, "nnm+trimmed_mean": 3, "clip+nnm+trimmed_mean": 3,
                "median": 4, "centered_clipping": 4}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_one_liar_more_breaks_it(rule: str) -> None:
    """The honest all say the same, so every bound above is their value itself: borne, f liars change nothing of it."""
    too_many = ONE_TOO_MANY[rule]
    for liars in (too_many - 1, too_many):
        honest, lie = np.full(4, 10, dtype="<i2"), np.full(4, -3000, dtype="<i2")
        updates: list[Integers] = [honest] * (7 - liars) + [lie] * liars
        got = robust.RULES[rule](updates, 2) / 256
        far = float(np.abs(got - 10).max())
        if liars < too_many:
            # Every bound above is 10 here, but for what the three steps of centered clipping leave behind.
            assert far <= (0.01 if rule != "centered_clipping" else 1e-6)
        else:
            assert far > 1


def test_one_liar_breaks_the_mean() -> None:
    updates: list[Integers] = [np.full(4, 10, dtype="<i2")] * 6 + [np.full(4, -3000, dtype="<i2")]
    assert rules.mean(updates, [9362] * 7).max() / 256 < -400


# ---- misuse, threads


def test_misuse_is_refused() -> None:
    update: Integers = np.zeros(2, dtype="<i1")
    for rule in ("trimmed_mean", "multi_krum", "nnm+trimmed_mean", "clip+nnm+trimmed_mean"):
        with pytest.raises(LocalProtocolError):
            robust.RULES[rule]([update] * 2, 1)
    many: list[Integers] = [np.zeros(1, dtype="<i2")] * 2900
    with pytest.raises(LocalProtocolError, match="too many"):
        robust.RULES["clip+nnm+trimmed_mean"](many, 0)


PROGRAM = """
import hashlib, numpy as np
from collegium.consensus import effects, robust
from collegium.protocol.components import ComponentSpec, TensorSpec
spec = ComponentSpec("head/a", "linear", (TensorSpec("w", (100_003,), 0),), 6, 8, "mean", 1, 1, 0, 1, bytes(32))
g = np.random.Generator(np.random.PCG64(3))
found = hashlib.sha256()
for bits in (1, 2):
    updates = [g.integers(-(2**(8*bits-1)), 2**(8*bits-1), 100_003).astype(f"<i{bits}") for _ in range(17)]
    for name in sorted(robust.RULES):
        found.update(robust.RULES[name](updates, 5).tobytes())
    found.update(effects.random_effects(updates, spec, [int(v) for v in g.integers(0, 2**14, 17)], [0] * 17).tobytes())
print(found.hexdigest())
"""


def test_threads_and_processors_do_not_matter() -> None:
    """G1: one thread and many, and BLAS kernels of another processor, give the same bits."""
    digests = set()
    for threads, kernels in (("1", None), ("4", None), ("2", "Prescott")):
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        env = {**os.environ, **counts, **({"OPENBLAS_CORETYPE": kernels} if kernels else {})}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1
