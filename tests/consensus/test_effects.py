"""The rule `random-effects` (design.md section 8, ADR 34): what it estimates, and what a lie buys (G1, G5)."""

import random as random_module
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import effects
from collegium.consensus.components import Entry, Round, fold_round, origin
from collegium.consensus.shares import effects_shares
from collegium.protocol.components import ComponentSpec, TensorSpec
from collegium.protocol.update import Integers
from collegium.sims.simulator.promises import averages

TENSORS = (TensorSpec("weight", (4, 5), 0), TensorSpec("bias", (2,), 0))
SPEC = ComponentSpec("head/a", "linear", TENSORS, 6, 16, "random-effects", 1, 10**6, 0, 10**6, bytes(32))
STRICT, LOOSE = 160_000, 100


@st.composite
def rounds(draw: st.DrawFn, least: int = 1) -> tuple[list[Integers], list[int], list[int]]:
    """Up to nine updates, some far louder, with any declared variances and staleness."""
    n = draw(st.integers(least, 9))
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    loud: list[Integers] = [
        source.integers(-50, 51, SPEC.dimension).astype(np.int16) * np.int16(draw(st.integers(1, 300)))
        for _ in range(n)
    ]
    variances = draw(st.lists(st.sampled_from([0, 7, 10**5, 10**7, 10**8, 10**9, 2**70]), min_size=n, max_size=n))
    return loud, variances, draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))


def updates(source: np.random.Generator, noises: list[int], differ: float, wide: int = 2000) -> list[Integers]:
    """Return updates whose institutions differ by a standard deviation, each with its own noise variance."""
    return [np.rint(source.normal(0, differ, wide) + source.normal(0, v**0.5, wide)).astype(np.int16) for v in noises]


@settings(deadline=None, max_examples=100)
@given(rounds())
def test_the_weights_are_those_of_the_definition(case: tuple[list[Integers], list[int], list[int]]) -> None:
    """Against the textbook's weighted sum of squares around the weighted mean, in fractions."""
    given_, variances, late = case
    rows = [update.tolist() for update in given_]
    for block, (start, stop) in zip(effects.blocks(given_, SPEC, variances, late), averages.tensors(SPEC), strict=True):
        declared = list(zip(variances, late, strict=True))
        assert list(block.weights) == averages.random_effects([row[start:stop] for row in rows], declared)


@settings(deadline=None, max_examples=50)
@given(rounds(), st.randoms())
def test_order_does_not_matter(case: tuple[list[Integers], list[int], list[int]], random: random_module.Random) -> None:
    """G1. That threads do not is in test_robust.py, for all rules that compare updates."""
    given_, variances, late = case
    first = effects.random_effects(given_, SPEC, variances, late)
    shuffled = list(zip(given_, variances, late, strict=True))
    random.shuffle(shuffled)
    theirs, declared, later = zip(*shuffled, strict=True)
    assert effects.random_effects(theirs, SPEC, declared, later).tobytes() == first.tobytes()


@settings(deadline=None, max_examples=100)
@given(rounds(2), st.integers(0, 8))
def test_a_false_sigma_of_zero_buys_two_and_a_half_shares_at_most(
    case: tuple[list[Integers], list[int], list[int]], liar: int
) -> None:
    """G5: whatever a member declares and sends; and nobody falls under a fifth of a share."""
    given_, variances, _ = case
    n = len(given_)
    variances[liar % n] = 0
    for block in effects.blocks(given_, SPEC, variances, [0] * n):
        assert max(block.shares) <= min(2.5, n - 0.2 * (n - 1)) / n + n / 2**16
        assert min(block.weights) >= effects.WHOLE // (5 * n)


def test_a_false_sigma_of_zero_buys_nothing_where_updates_show_the_noise() -> None:
    """A strict member claims to add none: its distance from the others becomes τ², and all weigh alike."""
    given_ = updates(np.random.default_rng(1), [LOOSE] * 3 + [STRICT] * 4, 3.0)
    shares = [effects.blocks(given_, wide(), declared, [0] * 7)[0].shares for declared in (
        [LOOSE] * 3 + [STRICT] * 4, [LOOSE] * 3 + [STRICT] * 3 + [0])]  # fmt: skip
    assert shares[0][0] > 1.5 / 7
    assert shares[0][6] < 0.5 / 7
    assert max(shares[1]) < 1.15 / 7


def wide(d: int = 2000) -> ComponentSpec:
    return replace(SPEC, tensors=(TensorSpec("weight", (d,), 0),))


@pytest.mark.parametrize("differ", [0.0, 5.0, 40.0])
def test_tau_is_the_variance_between_institutions(differ: float) -> None:
    noises = [LOOSE] * 4 + [900] * 3
    (block,) = effects.blocks(updates(np.random.default_rng(2), noises, differ), wide(), noises, [0] * 7)
    assert float(block.variance) == pytest.approx(differ**2, rel=0.1, abs=4.0)


def test_who_is_alike_is_weighted_by_noise_and_who_differs_alike() -> None:
    """By tensor: of two with the same noise one holds differences and the other one none."""
    source, noises = np.random.default_rng(3), [LOOSE] * 4 + [STRICT] * 3
    alike, unlike = updates(source, noises, 0.0), updates(source, noises, 300.0)
    spec = replace(SPEC, tensors=(TensorSpec("alike", (2000,), 0), TensorSpec("unlike", (2000,), 0)))
    both: list[Integers] = [np.concatenate(pair) for pair in zip(alike, unlike, strict=True)]
    by_noise, equal = effects.blocks(both, spec, noises, [0] * 7)
    assert min(by_noise.shares[:4]) > 6 * max(by_noise.shares[4:])
    assert max(equal.shares) < 1.1 * min(equal.shares)
    halves = [(a + b) / 2 for a, b in zip(by_noise.shares, equal.shares, strict=True)]
    assert effects_shares([by_noise, equal]) == pytest.approx(halves)


def test_one_update_is_taken_whole_and_without_noise_all_weigh_alike() -> None:
    given_ = updates(np.random.default_rng(4), [0] * 5, 20.0)
    assert effects.blocks(given_[:1], wide(), [0], [0])[0].variance == Fraction(0)
    assert effects.random_effects(given_[:1], wide(), [0], [0]).tolist() == (given_[0].astype(int) * 256).tolist()
    assert len(set(effects.blocks(given_, wide(), [0] * 5, [0] * 5)[0].weights)) == 1


def test_a_late_update_counts_half_a_round() -> None:
    given_ = updates(np.random.default_rng(5), [LOOSE] * 4, 0.0)
    fresh, late = (effects.blocks(given_, wide(), [LOOSE] * 4, s)[0].weights for s in ([0] * 4, [0, 0, 0, 1]))
    assert (fresh[:3], fresh[3] // 2) == (late[:3], late[3])


def test_the_fold_takes_the_weights_by_tensor() -> None:
    given_ = updates(np.random.default_rng(6), [LOOSE, STRICT, STRICT], 0.0, SPEC.dimension)
    entries = tuple(Entry(bytes([n]), bytes([n]), b"", 0, 0, v) for n, v in enumerate([LOOSE, STRICT, STRICT]))
    state, _ = fold_round(origin(SPEC), SPEC, Round(1, 1, entries, 0, b""), lambda entry: given_[entry.update[0]])
    for block in effects.blocks(given_, SPEC, [LOOSE, STRICT, STRICT], [0] * 3):
        expected = sum(
            share * update[block.start : block.stop].astype(float)
            for share, update in zip(block.shares, given_, strict=True)
        )
        assert np.abs(state[block.start : block.stop] / 256 - expected).max() <= 1 / 512
