"""From the learner's evaluation to the figures that this node keeps for itself."""

from collections.abc import Iterator
from math import nan

from ..core.events import Evaluate
from ..learner.protocol import Message
from ..store.observations import MIN_CELL, Metric


def metric_rows(answer: Message, evaluate: Evaluate, now: float) -> list[Metric]:
    """Return every figure of an evaluation. Each is of the round and generation of its task's head, or of its
    statistic.

    A group of under MIN_CELL subjects is kept as that alone, whatever the learner says of it. Raises KeyError,
    TypeError, ValueError or AttributeError for an answer that is none.
    """
    rounds = {name: (round_, generation) for name, round_, generation, _ in evaluate.states}
    last = (max(round_ for round_, _ in rounds.values()), max(generation for _, generation in rounds.values()))
    found = []
    for personal, tasks in ((False, answer["tasks"]), (True, answer.get("personal") or {})):
        for task, told in tasks.items():
            place = rounds.get(f"head/{task}", last)
            found += [
                Metric(*place, task, metric, value, count, now, cell, personal)
                for metric, cell, value, count in _figures(told)
            ]
    for name, told in (answer.get("statistics") or {}).items():
        found += [
            Metric(*rounds[name], name, metric, value, count, now, cell)
            for metric, cell, value, count in _figures(told)
        ]
    return found


def _figures(told: Message) -> Iterator[tuple[str, str, float, int | None]]:
    main = str(told["metric"])
    for name, value in {main: told["value"], **(told.get("metrics") or {})}.items():
        yield str(name), "", _number(value), int(told["n"])
    for attribute, levels in (told.get("groups") or {}).items():
        for level, cell in levels.items():
            count = cell["n"]
            enough = count is not None and int(count) >= MIN_CELL
            value = _number(cell["value"]) if enough else nan
            yield main, f"{attribute}={level}", value, int(count) if enough else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else nan
