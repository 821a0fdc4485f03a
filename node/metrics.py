"""Metrics of a classifier. No torch: the simulations use them, too."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
NEARLY, WRITTEN = 0.999, 1e-6  # a probability that is nearly certain; one so near 0 is written as 0.0, near 1 as 1.0


def nearly_certain(values: npt.ArrayLike) -> int:
    """Return how many records [n, classes] have a probability of 0.999 or more. Of many classes most are unlikely."""
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    return int((rows >= NEARLY).any(axis=1).sum()) if rows.size else 0


def area_under_curve(values: Floats, labels: npt.NDArray[Any]) -> float | None:
    """Return the AUC of values [n] for labels [n] in {0, 1}; None if only one label occurs.

    By ranks (Mann and Whitney 1947): `(R₁ - n₁(n₁+1)/2) / (n₀ n₁)`, R₁ the rank sum of the positives, ties averaged.
    """
    positives = int((labels == 1).sum())
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    total = float(ranks[inverse][labels == 1].sum())
    return (total - positives * (positives + 1) / 2.0) / (positives * negatives)


def macro_f1(guess: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur in `truth` of F1 = 2·hits / (guessed + true)."""
    scores = []
    for label in np.unique(truth):
        hits = int(((guess == label) & (truth == label)).sum())
        scores.append(2.0 * hits / (int((guess == label).sum()) + int((truth == label).sum())))
    return float(np.mean(scores))
