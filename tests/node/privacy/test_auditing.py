"""What guesses prove: against the paper, against exact fractions, and never more than is true."""

from fractions import Fraction
from math import comb, exp, inf, log, nan

import numpy as np
import pytest

from collegium.node.privacy.accountant import epsilon
from collegium.node.privacy.auditing import (
    correct_guesses,
    epsilon_lower_bound,
    most_provable,
    p_value,
)


@pytest.mark.parametrize(
    ("case", "printed"),
    [((1000, 100, 75, 1e-4), 0.673), ((100_000, 1510, 1439, 1e-5), 2.675)],  # appendix D; section 7, figure 11
)
def test_the_bounds_that_the_paper_prints(case: tuple[int, int, int, float], printed: float) -> None:
    assert epsilon_lower_bound(*case, confidence=0.95) == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize(("m", "r", "v"), [(1, 1, 1), (5, 3, 0), (30, 20, 13), (30, 30, 30), (40, 25, 1)])
@pytest.mark.parametrize("delta", [0, Fraction(1, 1000)])
@pytest.mark.parametrize("odds", [1, 3, 50])
def test_the_p_value_in_exact_fractions(m: int, r: int, v: int, delta: Fraction, odds: int) -> None:
    p = Fraction(odds, odds + 1)  # e^ε = odds
    mass = [comb(r, w) * p**w * (1 - p) ** (r - w) for w in range(r + 1)]
    worst = max((sum(mass[v - i : v], Fraction(0)) / i for i in range(1, v + 1)), default=Fraction(0))
    expected = min(Fraction(1), sum(mass[v:], Fraction(0)) + 2 * m * delta * worst)
    assert p_value(m, r, v, log(odds), float(delta)) == pytest.approx(float(expected), rel=1e-9)


def test_all_right_has_a_closed_form() -> None:
    for guesses in (10, 80, 400):
        p = 0.05 ** (1.0 / guesses)
        assert most_provable(1000, guesses, 0.0) == pytest.approx(log(p / (1.0 - p)), abs=1e-5)
    assert most_provable(1000, 400, 0.0) > most_provable(1000, 400, 1e-5) > most_provable(1000, 400, 1e-4)


def test_more_right_guesses_prove_more_and_doubt_proves_less() -> None:
    bounds = [epsilon_lower_bound(1000, 200, correct, 1e-5) for correct in range(90, 201)]
    assert bounds == sorted(bounds)
    assert bounds[10] == 0.0  # half of them right
    assert bounds[-1] > 3.0
    one = epsilon_lower_bound(1000, 200, 180, 1e-5)
    assert epsilon_lower_bound(1000, 200, 180, 1e-5, confidence=0.99) < one
    assert epsilon_lower_bound(1000, 200, 180, 1e-3) < one
    assert epsilon_lower_bound(4000, 200, 180, 1e-5) < one
    assert epsilon_lower_bound(1000, 200, 180, 0.0) > one
    values = [p_value(1000, 200, 180, number / 10, 1e-5) for number in range(60)]
    assert values == sorted(values)


def test_the_bound_is_refuted_and_a_little_more_is_not() -> None:
    bound = epsilon_lower_bound(500, 100, 88, 1e-5)
    assert p_value(500, 100, 88, bound, 1e-5) < 0.05 <= p_value(500, 100, 88, bound + 1e-5, 1e-5)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0, 4.0])
def test_randomised_response_is_refuted_at_its_own_epsilon_in_at_most_one_of_twenty_audits(true: float) -> None:
    """Exactly, not by simulation; and often enough to show that the bound is tight here."""
    r, p = 200, 1.0 / (1.0 + exp(-true))
    chance = sum(
        comb(r, v) * p**v * (1.0 - p) ** (r - v) for v in range(r + 1) if epsilon_lower_bound(r, r, v, 0.0) > true
    )
    assert 0.01 < chance <= 0.05


def test_a_mechanism_that_sometimes_reveals_everything_is_not_refuted_more_often() -> None:
    """(ε, δ): each canary is told outright with probability δ, else by randomised response."""
    source, m, true, delta, over = np.random.default_rng(3), 200, 1.0, 0.02, 0
    for _ in range(1000):
        included = source.random(m) < 0.5
        revealed, right = source.random(m) < delta, source.random(m) < 1.0 / (1.0 + exp(-true))
        scores = np.where(revealed, 9.0, 1.0) * np.where((revealed | right) == included, 1.0, -1.0)
        over += epsilon_lower_bound(m, m, correct_guesses(scores, included, m // 2, m // 2), delta) > true
    assert over <= 50


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_the_gaussian_mechanism_is_hardly_ever_refuted(sigma: float) -> None:
    source, m, delta = np.random.default_rng(11), 500, 1e-5
    true = epsilon([(1.0, sigma, 1)], delta)
    bounds = []
    for _ in range(200):
        included = source.random(m) < 0.5
        scores = included / sigma + source.normal(size=m)
        bounds.append(epsilon_lower_bound(m, 100, correct_guesses(scores, included, 50, 50), delta))
    assert sum(bound > true for bound in bounds) <= 10
    assert float(np.mean(bounds)) > 0.05 * true  # and it proves something


def test_guesses_are_of_the_extremes() -> None:
    scores = np.array([3.0, -1.0, 2.0, 0.5, nan, -inf])
    included = np.array([True, False, False, True, False, True])
    assert correct_guesses(scores, included, 1, 0) == 1
    assert correct_guesses(scores, included, 2, 0) == 1
    assert correct_guesses(scores, included, 0, 2) == 1
    assert correct_guesses(np.array([nan, 1.0]), np.array([True, False]), 1, 0) == 0  # no number is no high score
    assert correct_guesses(scores, included, 3, 3) == 4
    assert correct_guesses(scores, included, 0, 0) == 0
    for guesses in ((4, 3), (-1, 2), (2, -1)):
        with pytest.raises(ValueError, match="guesses"):
            correct_guesses(scores, included, *guesses)
    with pytest.raises(ValueError, match="guesses"):
        correct_guesses(scores, included[:3], 1, 1)


@pytest.mark.parametrize(
    "case",
    [(10, 5, 6, 1.0, 0.0), (4, 5, 3, 1.0, 0.0), (10, 5, -1, 1.0, 0.0), (10, 5, 3, -0.1, 0.0), (10, 5, 3, 1.0, 1.5)],
)
def test_what_is_no_audit(case: tuple[int, int, int, float, float]) -> None:
    with pytest.raises(ValueError, match="no audit"):
        p_value(*case)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_what_is_no_confidence(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        epsilon_lower_bound(10, 5, 3, 0.0, confidence)
