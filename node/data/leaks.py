"""Features that teach nothing: those that are the same in every record, and those that give a label away.

Some columns exist only once the label does: the points of a mark, a date of leaving. A model with one looks perfect,
and predicts nothing for a new student. The search runs on this machine, and its result stays here.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..metrics import area_under_curve
from .arrays import Dataset, ModalityArray, TaskArray
from .entries import CategoricalColumn, Column, ModalityEntry

LEAST = 20  # labelled records, at least, for a warning that a column gives a label away
FEW = 5  # records of a class or level, at least
AUC = 0.99  # between neighbouring classes
SURE = 0.99  # share of the labels that a level of the column determines
MINOR = 0.9  # of those that are not of the commonest class
SAME = 0.999  # correlation, and share of the variance, with a number to predict
Values = npt.NDArray[np.float64]


def teach_nothing(data: Dataset, entries: Sequence[ModalityEntry]) -> list[str]:
    """Return a warning for each such column of the tabular modalities that `entries` declare."""
    remarks = []
    for entry in entries:
        if entry.kind != "tabular" or entry.name not in data.modalities:
            continue
        array = data.modalities[entry.name]
        there = array.steps[:, :, 0]
        if there.sum() < LEAST:
            continue
        for column, values in columns_of(array, entry.columns):
            what = f"column {column.name!r} (modality {entry.name!r})"
            here = values[there]
            if len(np.unique(here)) == 1 and not np.isnan(here).any():  # where all are NaN another warning says so
                remarks.append(f"{what} is the same in every record: nothing can be learnt from it here")
                continue
            categorical = isinstance(column, CategoricalColumn)
            remarks += [
                f"{what} gives away task {task.name!r} {how}: if it exists only once the label does, leave it out"
                for task in data.tasks.values()
                if task.texts is None and (how := _leak(here, categorical, task, there))
            ]
    return remarks


def columns_of(array: ModalityArray, columns: Sequence[Column]) -> Iterator[tuple[Column, Values]]:
    """Yield each column with its values [S, K]: numbers or numbers of levels, NaN where a record has none."""
    at = 0
    for column in columns:
        part = array.values[:, :, 0, at : at + column.width].astype(np.float64)
        at += column.width
        if isinstance(column, CategoricalColumn):
            values = np.where(part.any(axis=2), part.argmax(axis=2), np.nan)
        else:
            values = np.where(part[:, :, 1] > 0, np.nan, part[:, :, 0]) if column.missing else part[:, :, 0]
        yield column, np.where(array.steps[:, :, 0], values, np.nan)


def _leak(values: Values, categorical: bool, task: TaskArray, there: npt.NDArray[np.bool_]) -> str:
    """Say how a column gives the labels of a task away, "" if it does not."""
    for number in range(task.labels.shape[2]):
        labels = task.labels[:, :, number][there].astype(np.float64)
        labelled = ~np.isnan(labels)
        column, label = values[labelled], labels[labelled]
        if label.size < LEAST:
            continue
        sets = [(column, categorical)] if categorical else [(column, False), (np.isnan(column) * 1.0, True)]
        for numbers, levels in sets:
            if task.kind == "regression":
                how = _explains(numbers, label) if levels else _follows(numbers, label)
            else:
                how = _determines(numbers, label) if levels else _separates(numbers, label)
            if how:
                return how if levels == categorical else "by whether it is empty"
    return ""


def _separates(numbers: Values, classes: Values) -> str:
    """Say whether the classes, in the order of their means, are apart from one another in these numbers."""
    present = ~np.isnan(numbers)
    parts = [numbers[present & (classes == label)] for label in np.unique(classes)]
    parts = sorted((part for part in parts if part.size >= FEW), key=lambda part: float(part.mean()))
    if len(parts) < 2 or sum(part.size for part in parts) < LEAST:
        return ""
    aucs = [
        area_under_curve(np.concatenate([low, high]), np.repeat([0, 1], [low.size, high.size]))
        for low, high in pairwise(parts)
    ]
    least = min(auc for auc in aucs if auc is not None)
    return f"almost by itself (AUC {least:.3f})" if least >= AUC else ""


def _determines(levels: Values, classes: Values) -> str:
    """Return how nearly always the level of a record determines its class."""
    right, total, names = 0, 0, np.unique(classes)
    kept = np.zeros(len(levels), dtype=np.bool_)
    for level in np.unique(levels):  # NaN among them: a missing value can determine the class, too
        here = np.isnan(levels) if np.isnan(level) else levels == level
        if here.sum() >= FEW:
            kept |= here
            right += max(int((classes[here] == name).sum()) for name in names)
            total += int(here.sum())
    if total < LEAST:
        return ""
    minor = total - max(int((classes[kept] == name).sum()) for name in names)
    wrong = total - right
    sure = minor >= FEW and right >= SURE * total and wrong <= (1.0 - MINOR) * minor
    return f"almost by itself ({right / total:.0%} by its level)" if sure else ""


def _follows(numbers: Values, labels: Values) -> str:
    present = ~np.isnan(numbers)
    a, b = numbers[present], labels[present]
    if a.size < LEAST or a.std() == 0.0 or b.std() == 0.0:
        return ""
    correlation = abs(float(np.corrcoef(a, b)[0, 1]))
    return f"almost by itself (correlation {correlation:.4f})" if correlation >= SAME else ""


def _explains(levels: Values, labels: Values) -> str:
    """Say whether the records of a level all have nearly the same number to predict."""
    within, kept = 0.0, np.zeros(len(levels), dtype=np.bool_)
    for level in np.unique(levels):
        here = np.isnan(levels) if np.isnan(level) else levels == level
        if here.sum() >= FEW:
            kept |= here
            within += float(labels[here].var()) * int(here.sum())
    if kept.sum() < LEAST or (whole := float(labels[kept].var()) * int(kept.sum())) == 0.0:
        return ""
    return "almost by itself (by its level)" if within <= (1.0 - SAME) * whole else ""
