"""A lower bound of ε, proved by guesses about canaries in one run (Steinke, Nasr and Jagielski 2023). No torch.

Each of m canaries is in the data or not by a fair coin of its own. From the released numbers an attacker guesses for r
of them, chosen as he likes, whether they were in; v guesses are right. If the mechanism is (ε, δ)-DP, then with W ~
Binomial(r, e^ε/(1 + e^ε)) (Theorem 5.2 and Corollary 5.4 there, arXiv:2305.08846)

    P[at least v right] ≤ P[W ≥ v] + 2mδ·max_i P[v > W ≥ v - i] / i.

An ε for which this is below 5 % is refuted with 95 % confidence. r is fixed before the run, so nothing is corrected for
having chosen the best of several.
"""

from functools import lru_cache
from math import inf, lgamma, log1p

import numpy as np
import numpy.typing as npt

HIGHEST = 64.0  # no number of guesses that fits in memory refutes a larger ε
PRECISION = 1e-6

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@lru_cache(maxsize=64)
def _log_choose(r: int) -> Floats:
    """Return log of the binomial coefficients (r over 0), …, (r over r)."""
    logs = np.array([lgamma(i + 1.0) for i in range(r + 1)])
    log_choose: Floats = logs[r] - logs - logs[::-1]
    return log_choose


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the most that the chance of `correct` or more right guesses can be if the mechanism is (ε, δ)-DP.

    Raises ValueError unless 0 <= correct <= guesses <= canaries, ε >= 0 and 0 <= δ <= 1.
    """
    if not (0 <= correct <= guesses <= canaries and epsilon >= 0.0 and 0.0 <= delta <= 1.0):
        raise ValueError(f"no audit: {correct} of {guesses} guesses on {canaries} canaries, ε {epsilon}, δ {delta}")
    wrong = np.arange(guesses, -1, -1)
    # log p = -log(1 + e^-ε) and log(1 - p) = log p - ε: no cancellation for a large ε.
    mass = np.exp(_log_choose(guesses) - guesses * log1p(np.exp(-epsilon)) - wrong * epsilon)
    tail = float(mass[correct:].sum())
    if delta == 0.0 or correct == 0:
        return min(1.0, tail)
    below = np.cumsum(mass[correct - 1 :: -1])  # P[v > W >= v - i] for i = 1, …, v
    worst = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2.0 * canaries * delta * worst)


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """Return an ε that the mechanism exceeds at `delta`, with the given confidence: 0 if the guesses prove nothing.

    The p-value grows with ε, so bisection finds where it reaches 1 - confidence; the lower end is returned.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not in (0, 1)")
    level = 1.0 - confidence
    low, high = 0.0, HIGHEST
    if p_value(canaries, guesses, correct, low, delta) >= level:
        return 0.0
    while high - low > PRECISION:
        middle = (low + high) / 2.0
        if p_value(canaries, guesses, correct, middle, delta) < level:
            low = middle
        else:
            high = middle
    return low


def most_provable(canaries: int, guesses: int, delta: float, confidence: float = 0.95) -> float:
    """Return the bound when every guess is right: a larger ε cannot be refuted by so many guesses."""
    return epsilon_lower_bound(canaries, guesses, guesses, delta, confidence)


def correct_guesses(scores: Floats, included: Bools, guessed_in: int, guessed_out: int) -> int:
    """Return how many guesses are right: "in" for the highest `scores` [m], "out" for the lowest.

    Scores that are not finite are the lowest. Raises ValueError if there are more guesses than canaries.
    """
    if guessed_in < 0 or guessed_out < 0 or guessed_in + guessed_out > scores.size or scores.shape != included.shape:
        raise ValueError(f"{guessed_in} and {guessed_out} guesses on {scores.size} canaries")
    order = np.argsort(np.where(np.isfinite(scores), scores, -inf), kind="stable")
    right_out = np.count_nonzero(~included[order[:guessed_out]])
    right_in = np.count_nonzero(included[order[scores.size - guessed_in :]])
    return int(right_in + right_out)
