"""From the learner's evaluation to the figures that stay at this node."""

from collections.abc import Iterator, Mapping
from math import nan
from types import MappingProxyType

from ...protocol.component_names import ComponentKind
from ..core.events import Evaluate
from ..learner.answers import Evaluated, TaskReport
from ..store.observations import MIN_CELL, Metric


def metric_rows(
    answer: Evaluated, evaluate: Evaluate, now: float, carriers: Mapping[str, str] = MappingProxyType({})
) -> list[Metric]:
    """Return every figure of an evaluation, with the round and generation of its task's head, or of its statistic.

    `carriers` names the component of a task that has no head (protocol/learning.py).
    Of a group of under MIN_CELL subjects only that fact is kept. Figures of a statistic that was not requested are
    dropped.
    """
    rounds = {name: (round_, generation) for name, round_, generation, _ in evaluate.states}
    last = (max(round_ for round_, _ in rounds.values()), max(generation for _, generation in rounds.values()))
    metrics = []
    for home_layer, tasks in ((False, answer.tasks), (True, answer.home_layer)):
        for task, report in tasks.items():
            at = rounds.get(carriers.get(task, ComponentKind.HEAD.named(task)), last)
            metrics += [
                Metric(*at, task, metric, value, count, now, cell, home_layer)
                for metric, cell, value, count in _figures(report)
            ]
    for name, report in answer.statistics.items():
        if name in rounds:
            metrics += [
                Metric(*rounds[name], name, metric, value, count, now, cell)
                for metric, cell, value, count in _figures(report)
            ]
    return metrics


def _figures(report: TaskReport) -> Iterator[tuple[str, str, float, int | None]]:
    for name, value in {report.metric: report.value, **report.metrics}.items():
        yield name, "", _number(value), report.n
    for attribute, levels in report.groups.items():
        for level, group in levels.items():
            enough = group.n is not None and group.n >= MIN_CELL
            yield (
                report.metric,
                f"{attribute}={level}",
                _number(group.value) if enough else nan,
                group.n if enough else None,
            )


def _number(value: float | None) -> float:
    return nan if value is None else value
