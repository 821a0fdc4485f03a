"""Figures of equity from the sums of `groups/TASK`: decisions and AUC by group, gaps within institutions, thresholds.

All of it is further computation on released numbers: it costs no ε, and whoever has the ledger finds the same.

Noise and chance are both in an interval. Of a rate p = m/n, where m and n - m are sums with noise of variance s² each,
the variance is s²(p² + (1-p)²)/n² + p(1-p)/n: the first part is the release's noise, the second that there are n
students only. A gap within institutions is the mean of the members' gaps with weights n₁n₂/(n₁+n₂) (Mantel and
Haenszel 1959), so that a difference between institutions (of subjects, of marks) is not taken for one between groups,
and a member with few students of a group adds little noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..protocol.components import MILLION, ComponentSpec
from ..protocol.equity import DECIDED, SCORES, Decision, Equity
from ..protocol.statistics import Numbers, edges

LEAST = 50.0  # students of a cell that is shown: store/observations.py, MIN_CELL
FEW = 15.0  # students of a group by whom a member takes part in a gap: four times the noise at ε = 1
NORMAL = 1.96  # standard deviations of a 95 % interval
Error = Literal["missed", "falsely flagged"]
ERRORS: tuple[Error, ...] = ("missed", "falsely flagged")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """One member's release, or the sum of several: students (with noise) by row of `equity.rows`.

    `decided` [rows, labels, 2] (last axis: not flagged, flagged), `scores` [rows, labels, bins]; `noise` is the
    standard deviation of each number of `decided`, in students.
    """

    decided: Floats
    scores: Floats
    noise: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its standard errors: by the release's noise, and by the number of students."""

    value: float
    noise: float
    chance: float

    @property
    def error(self) -> float:
        """The standard error of both."""
        return sqrt(self.noise**2 + self.chance**2)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.value - NORMAL * self.error, self.value + NORMAL * self.error

    @property
    def outside_noise(self) -> bool:
        """Whether 0 is outside the interval."""
        low, high = self.interval
        return low > 0.0 or high < 0.0


def groups_of(spec: ComponentSpec, decision: Decision, total: Numbers, variance: float) -> Groups:
    """Return what a sum [d] int64 stands for; `variance` is that of its noise in each number, in units of C²."""
    first, second = (tensor.shape for tensor in spec.tensors)
    values = total.astype(np.float64) * spec.grid_step
    cut = int(np.prod(first))
    noise = sqrt(variance) * spec.clip_norm / MILLION
    decided, scores = values[:cut].reshape(first) / DECIDED, values[cut:].reshape(second) / SCORES
    return Groups(decided, _agreeing(decided, scores, decision), noise / DECIDED)


def _agreeing(decided: Floats, scores: Floats, decision: Decision) -> Floats:
    """Return the histogram moved so that each side of the threshold adds up to `decided`, which has less noise."""
    half = scores.shape[2] // 2
    sides = np.stack([scores[:, :, :half].sum(2), scores[:, :, half:].sum(2)], axis=2)
    wanted = decided[:, :, ::-1] if decision.flagged == "below" else decided
    moved: Floats = scores + np.repeat((wanted - sides) / half, half, axis=2)
    return moved


def added(members: Sequence[Groups]) -> Groups:
    """Return the sum of some members' groups. Raises ValueError without any."""
    if not members:
        raise ValueError("nobody has released groups")
    return Groups(
        np.sum([each.decided for each in members], axis=0),
        np.sum([each.scores for each in members], axis=0),
        sqrt(sum(each.noise**2 for each in members)),
    )


def _counted(groups: Groups, rows: Sequence[int], decision: Decision, error: Error) -> tuple[float, float]:
    """Return how many of the students of some rows are decided wrongly, and of how many."""
    label, side = (decision.at_risk, 0) if error == "missed" else (1 - decision.at_risk, 1)
    return float(groups.decided[list(rows), label, side].sum()), float(groups.decided[list(rows), label].sum())


def rate(
    groups: Groups, rows: Sequence[int], decision: Decision, error: Error, *, least: float = LEAST
) -> Estimate | None:
    """Return the share of the students of some rows that are missed or falsely flagged; None under `least` of them."""
    wrong, count = _counted(groups, rows, decision, error)
    if count < least:
        return None
    share = min(1.0, max(0.0, wrong / count))
    noise = groups.noise * sqrt(len(rows)) * sqrt(share**2 + (1.0 - share) ** 2) / count
    return Estimate(share, noise, sqrt(share * (1.0 - share) / count))


def auc(groups: Groups, row: int) -> float | None:
    """Return the area under the curve of one row from its histogram; None where a label has too few students."""
    negative, positive = groups.scores[row]
    if min(negative.sum(), positive.sum()) < LEAST:
        return None
    below = np.cumsum(negative) - negative / 2.0
    return min(1.0, max(0.0, float(positive @ below / (positive.sum() * negative.sum()))))


def gap(members: Sequence[Groups], equity: Equity, row: int, decision: Decision, error: Error) -> Estimate | None:
    """Return how much larger an error is in a group than in the other groups of its attribute, within institutions.

    Members in which one of the two has under FEW students are left out; None if the others have under LEAST together.
    """
    attribute = equity.rows[row][0]
    others = [place for place, (name, _) in enumerate(equity.rows) if name == attribute and place != row]
    found, sizes = [], []
    for groups in members:
        own, rest = (rate(groups, rows, decision, error, least=FEW) for rows in ([row], others))
        if own is not None and rest is not None:
            found.append((own, rest))
            sizes.append([_counted(groups, rows, decision, error)[1] for rows in ([row], others)])
    counts = np.array(sizes)
    if not found or counts.sum(axis=0).min() < LEAST:
        return None
    weights = counts.prod(axis=1) / counts.sum(axis=1)
    weights /= weights.sum()

    def spread(part: Literal["noise", "chance"]) -> float:
        squares = [getattr(own, part) ** 2 + getattr(rest, part) ** 2 for own, rest in found]
        return sqrt(float(np.square(weights) @ np.array(squares)))

    value = float(weights @ np.array([own.value - rest.value for own, rest in found]))
    return Estimate(value, spread("noise"), spread("chance"))


def compared(
    members: Sequence[Groups], equity: Equity, row: int, decision: Decision, error: Error
) -> tuple[Estimate | None, bool]:
    """Return the gap within institutions; where none has enough students, over all of them together, and False."""
    within = gap(members, equity, row, decision, error)
    return (within, True) if within is not None else (gap([added(members)], equity, row, decision, error), False)


# ---- thresholds of groups that make an error equal (Hardt, Price and Srebro 2016)


def thresholds(
    groups: Groups, equity: Equity, decision: Decision, attribute: str, error: Error = "missed"
) -> Mapping[str, float]:
    """Return a threshold for each level of an attribute, by which the error is as frequent as it is over all of them.

    Within a bin students count as evenly spread. A level with too few students keeps the common threshold.
    """
    rows = [row for row, (name, _) in enumerate(equity.rows) if name == attribute]
    everybody, common = rate(groups, rows, decision, error), decision.threshold / MILLION
    chosen = {}
    for row in rows:
        own = rate(groups, [row], decision, error)
        level = equity.rows[row][1]
        if everybody is None or own is None:
            chosen[level] = common
            continue
        label = decision.at_risk if error == "missed" else 1 - decision.at_risk
        chosen[level] = _where(groups.scores[row, label], edges(equity, decision), decision, error, everybody.value)
    return chosen


def _where(counts: Floats, inner: Floats, decision: Decision, error: Error, wanted: float) -> float:
    """Return the threshold at which a share `wanted` of the counted students is on the wrong side."""
    limits = np.concatenate([[0.0], inner, [1.0]])
    kept = np.maximum(counts, 0.0)
    if kept.sum() <= 0.0:
        return decision.threshold / MILLION
    below = np.concatenate([[0.0], np.cumsum(kept)]) / kept.sum()
    # Missed are those at risk that are not flagged; falsely flagged the others that are.
    wrong_below = (decision.flagged == "below") == (error == "falsely flagged")
    return float(np.interp(wanted if wrong_below else 1.0 - wanted, below, limits))
