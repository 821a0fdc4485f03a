"""A stack beside given logits: what the home layer (home_layer.py) computes for one task.

With s the given logits [n, C] of n records and x what is read of them [n, F]:

    logits = t·s + b + W·(x - mean)

t > 0 and b recalibrate (a temperature and biases, for regression a slope and an intercept); W is a ridge regression,
logistic for classes, beside the given logits (Wolpert 1992). All three minimise the task's own loss over the students,
each with the same weight. Cross-validation over students chooses between the logits as they are, t and b alone, and W
under one of PENALTIES. A student's fold is a hash of the id, so that nobody's fold depends on others. The same data
give the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from .answers import MIN_RECALIBRATED, MIN_STACKED, HomeLayer
from .tasks import record_losses

FOLDS = 5
PENALTIES = (1000.0, 300.0, 100.0, 30.0)  # of W on standardised x, in students: the stronger first
PRIOR = 1.0  # of log t and b, in students: where the classes can be told apart, t has no least loss
MOST = 256  # directions of x: the others vary least, and the time grows with their number
STEPS = 40  # of L-BFGS, at most


def fold_of(subject: str) -> int:
    """Return a student's fold."""
    return sha256(b"home layer" + subject.encode()).digest()[0] % FOLDS


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """The labelled records of a task: shared logits [n, C], what is read [n, F], labels [n, L].

    `weights` [n] are those in a student's loss, `students` [n] the row of a record's student, `folds` [n] its fold.
    """

    kind: str
    logits: Tensor
    read: Tensor
    labels: Tensor
    weights: Tensor
    students: Tensor
    folds: Tensor

    def of(self, chosen: Tensor) -> "Own":
        """Return some records, by a mask [n]."""
        parts = (self.logits, self.read, self.labels, self.weights, self.students, self.folds)
        return Own(self.kind, *(part[chosen] for part in parts))

    @classmethod
    def joined(cls, parts: Sequence["Own"]) -> "Own":
        """Return the records of several."""
        columns = zip(*((p.logits, p.read, p.labels, p.weights, p.students, p.folds) for p in parts), strict=True)
        return cls(parts[0].kind, *map(torch.cat, columns))

    @property
    def size(self) -> int:
        """The number of students."""
        return len(torch.unique(self.students))

    def loss(self, logits: Tensor) -> Tensor:
        """Return the sum of the students' losses, []."""
        return (record_losses(self.kind, logits[:, None], self.labels[:, None])[:, 0] * self.weights).sum()


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What is learned for a task: t [], b [C], W [F, C] of what is read less `mean` [F]; and of how many students."""

    scale: Tensor
    bias: Tensor
    weight: Tensor
    mean: Tensor
    told: HomeLayer

    def __call__(self, logits: Tensor, read: Tensor) -> Tensor:
        """Shared logits [..., C] and what is read [..., F], float64 → corrected logits [..., C]."""
        return self.scale * logits + self.bias + (read - self.mean) @ self.weight


def fit(own: Own) -> Correction:
    """Learn the correction of one task."""
    size, outputs, width = own.size, own.logits.shape[1], own.read.shape[1]
    mean, turn = _directions(own.read) if size >= MIN_STACKED else (own.read.mean(0), torch.zeros(width, 0).double())
    turned = replace(own, read=(own.read - mean) @ turn)
    tried: list[float | None] = []
    if size >= MIN_RECALIBRATED:
        tried = [None, *(PENALTIES if size >= MIN_STACKED else ())]
    losses = np.zeros(1 + len(tried))
    for fold in range(FOLDS if tried else 0):
        rest, aside = turned.of(own.folds != fold), turned.of(own.folds == fold)
        if aside.size and rest.size:
            losses[0] += float(aside.loss(aside.logits))
            for place, found in enumerate(_solved(rest, tried), start=1):
                losses[place] += float(aside.loss(_corrected(found, aside)))
    best = int(losses.argmin())
    scale, bias, weight = _start(outputs) if best == 0 else _solved(turned, tried[:best])[-1]
    whole = turn @ weight if len(weight) else torch.zeros(width, outputs).double()
    told = HomeLayer(("" if best == 0 else "recalibrated") if best < 2 else "stacked", size)
    return Correction(scale.exp(), bias, whole, mean, told)


def _directions(read: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [F], and the map [F, r] to standardised numbers, of at most MOST directions, by variance."""
    mean, deviation = read.mean(0), read.std(0, correction=0)
    scale = torch.where(deviation > 1e-9, 1.0 / deviation.clamp(min=1e-9), 0.0)
    if read.shape[1] <= MOST:
        return mean, torch.diag(scale)
    standard = (read - mean) * scale
    if len(standard) >= read.shape[1]:
        return mean, scale[:, None] * torch.linalg.eigh(standard.T @ standard)[1][:, -MOST:]
    values, left = torch.linalg.eigh(standard @ standard.T)
    values, left = values[-MOST:], left[:, -MOST:]
    some = values > 1e-9 * values[-1]
    return mean, scale[:, None] * (standard.T @ (left[:, some] / values[some].sqrt()))


def _start(outputs: int) -> list[Tensor]:
    """Return log t, b and W that change nothing."""
    return [torch.zeros(()).double(), torch.zeros(outputs).double(), torch.zeros(0, outputs).double()]


def _corrected(found: Sequence[Tensor], own: Own) -> Tensor:
    scale, bias, weight = found
    logits = scale.exp() * own.logits + bias
    return logits + own.read @ weight if len(weight) else logits


def _solved(own: Own, penalties: Sequence[float | None]) -> list[list[Tensor]]:
    """Return log t, b and W of the least loss for each penalty, each from the one before; None: without W.

    t is above 0, so that few students cannot turn the shared model round.
    """
    found, all_found = _start(own.logits.shape[1]), []
    for penalty in penalties:
        if penalty is not None and not len(found[2]):
            found[2] = torch.zeros(own.read.shape[1], own.logits.shape[1]).double()
        found = [part.clone().requires_grad_(part.numel() > 0) for part in found]
        _minimise(own, penalty, found)
        found = [part.detach() for part in found]
        all_found.append(found)
    return all_found


def _minimise(own: Own, penalty: float | None, found: Sequence[Tensor]) -> None:
    size, parameters = own.size, [part for part in found if part.numel()]
    solver = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        kept = PRIOR * (found[0].square() + found[1].square().sum())
        kept = kept + (penalty or 0.0) * found[2].square().sum()
        value: Tensor = (own.loss(_corrected(found, own)) + kept / 2.0) / size
        value.backward()  # type: ignore[no-untyped-call]  # torch
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch
