"""Membership inference with few shadow models, and canaries against their references."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log, log2

import numpy as np
import numpy.typing as npt

from ...node.metrics import area_under_curve

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
RESAMPLES = 1000
FALSE_POSITIVES = 0.01
MIN_SPREAD = 1e-3  # of the logits over shadows: less is numerical


@dataclass(frozen=True, slots=True)
class Guess:
    """How well scores separate members from non-members: AUC with a 95 % bootstrap interval, and TPR at 1 % FPR.

    `allowed` is how many non-members may be taken for members at that rate: of fewer than a hundred, none.
    """

    auc: float
    low: float
    high: float
    tpr: float
    allowed: int

    def as_map(self) -> dict[str, float]:
        """Return it as JSON."""
        return {"auc": self.auc, "low": self.low, "high": self.high, "tpr_at_1_percent": self.tpr,
                "false_positives_allowed": self.allowed}  # fmt: skip


def lira(logits: Floats, shadows: Floats, inside: Bools) -> Floats:
    """Return LiRA's score of each candidate, [n] (Carlini et al. 2022, online; one variance for all, for few shadows).

    `logits` [n] are log(p/(1-p)) of the true label in the attacked model, `shadows` [k, n] in the shadow models, of
    which `inside` [k, n] says whether the candidate was trained on. Every candidate is in some and not in others.
    """
    means, spreads = [], []
    for mask in (inside, ~inside):
        mean = np.where(mask, shadows, 0.0).sum(axis=0) / mask.sum(axis=0)
        left = np.where(mask, shadows - mean, 0.0)
        # Each mean took a degree of freedom.
        freedom = max(1, int(mask.sum()) - mask.shape[1])
        means.append(mean)
        spreads.append(max(MIN_SPREAD, float(np.sqrt((left**2).sum() / freedom))))
    within, without = ((logits - mean) / spread for mean, spread in zip(means, spreads, strict=True))
    scores: Floats = 0.5 * (without**2 - within**2) + log(spreads[1] / spreads[0])
    return scores


def rmia(logits: Floats, shadows: Floats, inside: Bools) -> Floats:
    """Return RMIA's ratio p(x|θ)/p(x) of each candidate, [n] (Zarifzadeh, Liu and Shokri 2024), as a logarithm.

    p(x) is the mean over shadows, in and out counted half each. RMIA ranks this ratio among those of a population; that
    is monotone in it, and changes no AUC.
    """
    p = 1.0 / (1.0 + np.exp(-shadows))
    halves = [np.where(mask, p, 0.0).sum(axis=0) / mask.sum(axis=0) for mask in (inside, ~inside)]
    scores: Floats = -np.log1p(np.exp(-logits)) - np.log((halves[0] + halves[1]) / 2.0)
    return scores


def judge(scores: Floats, members: Bools, source: np.random.Generator) -> Guess:
    """Judge scores [n] against membership, [n]."""
    inside, outside = scores[members], scores[~members]
    allowed = floor(FALSE_POSITIVES * len(outside))
    threshold = np.sort(outside)[::-1][allowed]
    drawn = [_auc(source.choice(inside, len(inside)), source.choice(outside, len(outside))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Guess(_auc(inside, outside), float(low), float(high), float((inside > threshold).mean()), allowed)


def _auc(inside: Floats, outside: Floats) -> float:
    labels = np.concatenate([np.ones(len(inside), dtype=np.int64), np.zeros(len(outside), dtype=np.int64)])
    area = area_under_curve(np.concatenate([inside, outside]), labels)
    assert area is not None  # some were trained on, and some not
    return area


def exposure(planted: Floats, references: Floats) -> float:
    """Return the mean exposure of planted canaries in bits, `log2((n+1)/rank)` (Carlini et al. 2019).

    The rank is that of a canary's score among the n references'. `chance_exposure` is that of one that stands out in
    nothing: about 1.4 bits.
    """
    ranks = 1 + (references[None, :] > planted[:, None]).sum(axis=1)
    return float(np.mean(np.log2((len(references) + 1) / ranks)))


def chance_exposure(references: int) -> float:
    """Return the mean exposure of a canary whose rank is uniform."""
    return sum(log2((references + 1) / rank) for rank in range(1, references + 2)) / (references + 1)


def halves(candidates: int, shadows: int, source: np.random.Generator) -> Bools:
    """Return which candidates each shadow trains on, [shadows, candidates]: each in half of them, at random."""
    inside = np.zeros((shadows, candidates), dtype=np.bool_)
    for candidate in range(candidates):
        inside[source.choice(shadows, shadows // 2, replace=False), candidate] = True
    return inside


def losses(logits: Sequence[float] | Floats) -> float:
    """Return the mean cross entropy of labels with these logits."""
    return float(np.mean(np.log1p(np.exp(-np.asarray(logits)))))
