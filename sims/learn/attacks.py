"""Attacks of faulty members on an aggregation, for tests and studies.

An attack maps the honest updates (float64, shape [honest, d]), all of which the liars know, to the update that every
liar sends (float64, shape [d]). The formulas are byzfl's (github.com/LPD-EPFL/byzfl); vectors made with it are in
tests/vectors/byzfl.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]
Source = np.random.Generator | np.random.RandomState
Attack = Callable[[Vectors, float], Vectors]  # of a given strength
Aggregate = Callable[[Sequence[Vectors]], Vectors]


def sign_flip(honest: Vectors, strength: float = 1.0) -> Vectors:
    """Return minus the mean of the honest, times `strength` (byzfl's SignFlipping is of strength 1)."""
    lie: Vectors = -strength * honest.mean(axis=0)
    return lie


def inner_product(honest: Vectors, strength: float = 2.0) -> Vectors:
    """Return `-strength · mean`: inner product manipulation (Xie et al. 2020), the sign flip with another default."""
    return sign_flip(honest, strength)


def little_is_enough(honest: Vectors, strength: float = 1.5) -> Vectors:
    """Return `mean + strength · deviation` by coordinate: "a little is enough", ALIE (Baruch et al. 2019)."""
    lie: Vectors = honest.mean(axis=0) + strength * honest.std(axis=0, ddof=1)
    return lie


def mimic(honest: Vectors, place: int = 0) -> Vectors:
    """Return the update of one honest member, which then counts more than once (Karimireddy et al. 2022)."""
    lie: Vectors = honest[place].copy()
    return lie


def gaussian(honest: Vectors, source: Source, sigma: float = 1.0) -> Vectors:
    """Return independent normal noise of standard deviation `sigma`."""
    lie: Vectors = np.asarray(source.normal(0.0, sigma, honest.shape[1]))
    return lie


@dataclass(frozen=True, slots=True)
class Search:
    """How `strongest` searches: from `start` by steps of `delta`, doubled while that helps, then shrunk by `ratio`."""

    evaluations: int = 20
    start: float = 0.0
    delta: float = 10.0
    ratio: float = 0.8


SEARCH = Search()


def strongest(attack: Attack, honest: Vectors, liars: int, aggregate: Aggregate, search: Search = SEARCH) -> float:
    """Return the strength at which the aggregate of honest and liars is farthest from the mean of the honest.

    The line search of byzfl's Optimal_ALittleIsEnough and Optimal_InnerProductManipulation (Shejwalkar & Houmansadr
    2021): deterministic, `search.evaluations` aggregations.
    """
    centre = honest.mean(axis=0)

    def harm(strength: float) -> float:
        lie = attack(honest, strength)
        return float(np.linalg.norm(aggregate([*honest, *[lie] * liars]) - centre))

    best, delta = search.start, search.delta
    most, growing = harm(best), True
    for _ in range(search.evaluations - 1):
        damage = harm(best + delta)
        if damage > most:
            best, most = best + delta, damage
            delta *= 2.0 if growing else search.ratio
        else:
            growing = False
            delta *= search.ratio
    return best


def within(lie: Vectors, low: int, high: int, limit: int) -> npt.NDArray[np.int64]:
    """Return a lie as an update that its receivers do not refuse: integers in ±limit of a squared norm in [low, high].

    `low` and `high` are of protocol/update.py's norm_bounds, squared grid units. A lie that is too great or too small
    is scaled; a lie of nothing becomes the same value everywhere.
    """
    squared = float(lie @ lie)
    if squared == 0.0:
        lie, squared = np.ones_like(lie), float(lie.size)
    wanted = min(max(squared, 1.02 * low), 0.999 * high)
    scale = sqrt(wanted / squared)
    while True:
        integers = np.clip(np.rint(lie * scale), -limit, limit).astype(np.int64)
        norm = int(integers @ integers)
        if norm > high:
            scale *= 0.999
        elif norm < low and int(np.abs(integers).min()) < limit:
            scale *= 1.01
        else:
            return integers
