"""From the learner's evaluation to the figures that stay at this node."""

from collections.abc import Iterator
from math import nan

from ...protocol.component_names import ComponentKind
from ..core.events import Evaluate
from ..learner.answers import Evaluated, TaskReport
from ..store.observations import MIN_CELL, Metric


def metric_rows(answer: Evaluated, evaluate: Evaluate, now: float) -> list[Metric]:
    """Return every figure of an evaluation, with the round and generation of its task's head, or of its statistic.

    Of a group of under MIN_CELL subjects only that fact is kept. Figures of a statistic that was not requested are
    dropped.
    """
    rounds = {name: (round_, generation) for name, round_, generation, _ in evaluate.states}
    last = (max(round_ for round_, _ in rounds.values()), max(generation for _, generation in rounds.values()))
    found = []
    for personal, tasks in ((False, answer.tasks), (True, answer.personal or {})):
        for task, told in tasks.items():
            place = rounds.get(ComponentKind.HEAD.named(task), last)
            found += [
                Metric(*place, task, metric, value, count, now, cell, personal)
                for metric, cell, value, count in _figures(told)
            ]
    for name, told in answer.statistics.items():
        if name in rounds:
            found += [
                Metric(*rounds[name], name, metric, value, count, now, cell)
                for metric, cell, value, count in _figures(told)
            ]
    return found


def _figures(told: TaskReport) -> Iterator[tuple[str, str, float, int | None]]:
    for name, value in {told.metric: told.value, **told.metrics}.items():
        yield name, "", _number(value), told.n
    for attribute, levels in told.groups.items():
        for level, group in levels.items():
            enough = group.n is not None and group.n >= MIN_CELL
            yield (
                told.metric,
                f"{attribute}={level}",
                _number(group.value) if enough else nan,
                group.n if enough else None,
            )


def _number(value: float | None) -> float:
    return nan if value is None else value
