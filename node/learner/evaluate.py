"""Metrics on records: accuracy for multiclass tasks, the area under the ROC curve for binary ones."""

import numpy as np
import numpy.typing as npt
import torch

from .dpsgd import Batch
from .model import M3TModel

METRICS = {"binary": "auc", "multiclass": "accuracy"}
CHUNK = 2048  # students in one forward pass


def predict(model: M3TModel, data: Batch) -> dict[str, npt.NDArray[np.float64]]:
    """Return for each hosted task the logits, [S, K, classes] float64."""
    parts: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in model.heads}
    with torch.no_grad():
        for begin in range(0, data.size, CHUNK):
            chunk = data.take(torch.arange(begin, min(begin + CHUNK, data.size)))
            for name, logits in model(chunk.inputs).items():
                parts[name].append(logits.double().numpy())
    shape = tuple(data.weights.shape)
    return {name: np.concatenate(found) if found else np.zeros((*shape, 1)) for name, found in parts.items()}


def area_under_curve(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float | None:
    """Return the AUC of scores [n] for labels [n] in {0, 1}; None if only one label occurs.

    By ranks (Mann and Whitney 1947): `(R₁ - n₁(n₁+1)/2) / (n₀ n₁)`, R₁ the rank sum of the positives, ties averaged.
    """
    positives = int((labels == 1).sum())
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    total = float(ranks[inverse][labels == 1].sum())
    return (total - positives * (positives + 1) / 2.0) / (positives * negatives)


def accuracy(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float | None:
    """Return the share of rows of scores [n, classes] whose largest is at labels [n]; None if there are no rows."""
    return float((scores.argmax(1) == labels).mean()) if labels.size else None


def metric(kind: str, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float | None:
    """Return the metric of a task's kind on the scores that `scored` gives."""
    return area_under_curve(scores, labels) if kind == "binary" else accuracy(scores, labels)


def scored(
    kind: str, logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return (subject index [n], scores, labels [n]) of the labelled records.

    Scores are [n] for binary (the difference of the two logits), [n, classes] for multiclass.
    """
    subject, record = np.nonzero(labels >= 0)
    found = logits[subject, record]
    return subject, found[:, 1] - found[:, 0] if kind == "binary" else found, labels[subject, record]
