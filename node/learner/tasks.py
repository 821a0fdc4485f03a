"""The kinds of tasks: outputs, loss, the meaning of logits, and metrics.

| kind | outputs | loss of a record | first metric |
|---|---|---|---|
| `binary` | 2 | cross-entropy | `auc` |
| `multiclass` | classes | cross-entropy | `accuracy` |
| `ordinal` | classes - 1 | mean binary cross-entropy of "above k" (Frank and Hall 2001) | `accuracy` |
| `regression` | 1 | half the squared error, in units of [-1, 1] | `r2` |
| `multilabel` | labels | mean binary cross-entropy | `auc` (mean over labels) |
| `generate` | 1: the loss | cross-entropy a token of the text | `loss_a_token` (mean over records; less is better) |

Accuracy comes with `accuracy_constant`, that of always predicting the commonest class, and with `brier`, the mean
squared error of the probabilities, and `brier_constant`, that of the base rates. R² includes its constant.
`nearly_certain` is the share of records of which the model is nearly certain, rightly or wrongly.

Labels are [S, K, L] float32, NaN where unknown; L is 1 but for `multilabel`. That of `generate` is its number of
tokens.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from ..metrics import area_under_curve, macro_f1, nearly_certain

METRICS = {
    "binary": "auc",
    "multiclass": "accuracy",
    "ordinal": "accuracy",
    "regression": "r2",
    "multilabel": "auc",
    "generate": "loss_a_token",
}
Floats = npt.NDArray[np.float64]


def record_losses(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each record, [S, K]; zero where the label is unknown.

    Masks multiply; nothing is indexed by them, so that every student keeps a row in every gradient.
    """
    labelled = ~labels.isnan()
    if kind == "generate":  # the model has the loss already
        return (logits * labelled).squeeze(2)
    clean = torch.nan_to_num(labels, nan=0.0)
    if kind in {"binary", "multiclass"}:
        picked = log_softmax(logits, dim=2).gather(2, clean.long())
        return -(picked * labelled).squeeze(2)
    if kind == "regression":
        return (0.5 * (logits - clean).square() * labelled).squeeze(2)
    if kind == "ordinal":
        clean = (clean > torch.arange(logits.shape[2], device=logits.device)).to(logits.dtype)
        labelled = labelled.expand_as(logits)
    return (binary_cross_entropy_with_logits(logits, clean, reduction="none") * labelled).mean(2)


def scores(kind: str, logits: Floats) -> Floats:
    """Return the scores that users see, from logits [n, outputs] float64.

    Probabilities of the classes [n, classes] (of the labels for `multilabel`); the value in [-1, 1] for `regression`
    [n, 1]; the loss a token for `generate` [n, 1].
    """
    if kind in {"regression", "generate"}:
        return logits
    if kind == "multilabel":
        return _sigmoid(logits)
    if kind == "ordinal":
        above = np.minimum.accumulate(_sigmoid(logits), axis=1)  # thresholds that cross would be negative probabilities
        edges = np.concatenate([np.ones((len(above), 1)), above, np.zeros((len(above), 1))], axis=1)
        between: Floats = edges[:, :-1] - edges[:, 1:]
        return between
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalised: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised


def metrics(kind: str, values: Floats, labels: Floats) -> dict[str, float | None]:
    """Return the metrics of `scores` [n, ...] for labels [n, L], the kind's first one first; None: not defined here."""
    if not len(labels):
        return {METRICS[kind]: None}
    if kind == "regression":
        error = values[:, 0] - labels[:, 0]
        spread = float(np.square(labels[:, 0] - labels[:, 0].mean()).sum())
        r2 = 1.0 - float(np.square(error).sum()) / spread if spread > 0.0 else None
        return {"r2": r2, "mae": float(np.abs(error).mean())}
    if kind == "generate":
        tokens = labels[:, 0]
        return {
            "loss_a_token": float(values[:, 0].mean()),
            "loss_all_tokens": float((values[:, 0] * tokens).sum() / tokens.sum()),
        }
    if kind == "multilabel":
        areas = [area_under_curve(values[:, i], labels[:, i]) for i in range(labels.shape[1])]
        defined = [value for value in areas if value is not None]
        exact = float(((values > 0.5) == (labels > 0.5)).mean())
        rates = labels.mean(0)
        common = float(np.maximum(rates, 1.0 - rates).mean())
        rest = {"accuracy": exact, "accuracy_constant": common, **_brier(values, labels, labels.shape[1])}
        rest |= {"nearly_certain": nearly_certain(values) / len(values)}
        return {"auc": float(np.mean(defined)) if defined else None, **rest}
    truth, guess = labels[:, 0].astype(np.int64), values.argmax(1)
    right = float((guess == truth).mean())
    one_hot = np.eye(values.shape[1])[truth]
    constant = {"accuracy_constant": float(one_hot.mean(0).max()), **_brier(values, one_hot, 1)}
    constant |= {"nearly_certain": nearly_certain(values) / len(values)}
    if kind == "binary":
        return {"auc": area_under_curve(values[:, 1], labels[:, 0]), "accuracy": right, **constant}
    more: dict[str, float | None] = {"accuracy": right, "macro_f1": macro_f1(guess, truth), **constant}
    return more | ({"mae": float(np.abs(guess - truth).mean())} if kind == "ordinal" else {})


def _brier(values: Floats, labels: Floats, per: int) -> dict[str, float]:
    """Return the Brier score of probabilities [n, k] for labels [n, k], and the base rates'; the sum over k / `per`."""
    scores = {"brier": values, "brier_constant": labels.mean(0)}
    return {name: float(np.square(predicted - labels).sum(1).mean() / per) for name, predicted in scores.items()}


def _sigmoid(logits: Floats) -> Floats:
    values: Floats = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return values
