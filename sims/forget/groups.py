"""Decisions by group under a model that was audited: withdrawing a member may help one group and harm another."""

import numpy as np
import numpy.typing as npt

from ...node.equity import LEAST
from ...node.metrics import area_under_curve
from .inference import Floats


def by_group(
    scores: Floats, truth: npt.NDArray[np.int64], levels: npt.NDArray[np.str_]
) -> dict[str, dict[str, float | None]]:
    """Return by level AUC, and the shares missed and falsely flagged where a probability under .5 flags.

    `scores` [n, 2] are of the labels; those at risk have label 0. Levels with under LEAST students of a label are left
    out.
    """
    found = {}
    for level in sorted(set(levels.tolist()) - {""}):
        chance, label = scores[levels == level, 1], truth[levels == level]
        at_risk, flagged = label == 0, chance < 0.5
        if min(at_risk.sum(), (~at_risk).sum()) >= LEAST:
            found[level] = {
                "auc": area_under_curve(chance, label.astype(np.float64)),
                "missed": float((~flagged)[at_risk].mean()),
                "falsely_flagged": float(flagged[~at_risk].mean()),
            }
    return found
