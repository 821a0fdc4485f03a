"""Evaluation of the model: by task, and by sensitive group if the group is large enough to report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..store.observations import MIN_CELL
from .answers import GroupFigure, TaskReport
from .dpsgd import Batch, students_at_once
from .model import M3TModel
from .session import SplitData
from .tasks import METRICS, metrics, scores

Floats = npt.NDArray[np.float64]


def predict(model: M3TModel, data: Batch) -> dict[str, Floats]:
    """Return for each hosted task the logits, [S, K, outputs] float64."""
    device = next(model.parameters()).device
    shape = tuple(data.weights.shape)
    kinds = {task.name: task.outputs for task in model.learning.tasks}
    predictions = {name: np.zeros((*shape, kinds[name])) for name in model.judged}
    at_once = students_at_once(model, data)
    with torch.no_grad():
        for begin in range(0, data.size, at_once):
            chunk = data.take(torch.arange(begin, min(begin + at_once, data.size))).to(device)
            for name, logits in model(chunk.inputs).items():
                part = logits.double().cpu().numpy()
                predictions[name][begin : begin + part.shape[0], : part.shape[1]] = part
    return predictions


def labelled(kind: str, logits: Floats, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return (flat record index [n] into S × K, scores [n, ...], labels [n, L]) of the labelled records."""
    flat = np.flatnonzero(~np.isnan(labels).any(axis=2).reshape(-1))
    values = logits.reshape(-1, logits.shape[2])[flat]
    return flat, scores(kind, values), labels.reshape(-1, labels.shape[2])[flat].astype(np.float64)


def report(
    kinds: Mapping[str, str], part: SplitData, logits: Mapping[str, Floats], labels: Mapping[str, str] | None = None
) -> dict[str, TaskReport]:
    """Return for each name in `kinds` its metric, value, n (subjects), records, all metrics, and by sensitive group.

    A name is a task's, or has its task in `labels`.

    A group of fewer than MIN_CELL subjects has value None and n None, because its figures would describe persons. If it
    is the only such group of its attribute, so has the smallest other group: the figures would follow by subtraction.
    """
    reports = {}
    for name, kind in kinds.items():
        task_labels = part.batch.labels[(labels or {}).get(name, name)].numpy()
        flat, values, truth = labelled(kind, logits[name], task_labels)
        every = metrics(kind, values, truth)
        groups: dict[str, dict[str, GroupFigure]] = {}
        for attribute, (levels, codes) in part.groups.items():
            code = codes.reshape(-1)[flat]
            sizes = {
                level: _subjects(flat[code == index], codes.shape[1])
                for index, level in enumerate(levels)
                if (code == index).any()
            }
            hidden = [level for level, size in sizes.items() if size < MIN_CELL]
            if len(hidden) == 1 and len(sizes) > 1:
                hidden.append(min(sizes.keys() - set(hidden), key=lambda level: (sizes[level], level)))
            groups[attribute] = {}
            for level, size in sizes.items():
                rows = code == levels.index(level)
                value = None if level in hidden else metrics(kind, values[rows], truth[rows])[METRICS[kind]]
                groups[attribute][level] = GroupFigure(value, None if level in hidden else size)
        subjects = _subjects(flat, part.batch.weights.shape[1])
        reports[name] = TaskReport(METRICS[kind], every[METRICS[kind]], subjects, len(truth), every, groups)
    return reports


def _subjects(flat: npt.NDArray[np.int64], records: int) -> int:
    """Return the number of subjects of these records; `flat` indexes into S × `records`."""
    return len(np.unique(flat // records))
