"""Rows and goals of `bench learn`: what was measured, over institutions, tasks and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal of the project, the figure that was measured, and whether it holds."""

    study: str
    goal: str
    value: float
    met: bool


def row(mode: str, epsilon: float | None, rate: float, all_reports: Sequence[Reports]) -> dict[str, Any]:
    """Return a row of the study of everything: the mean of each institution's tasks."""
    own = [own_values(reports) for reports in all_reports]
    return {
        "mode": mode,
        "epsilon": epsilon,
        "rate": rate,
        "values": [mean(values.values()) for values in own],
        "macro_f1": None,
        "institutions": {key: mean(values[key] for values in own) for key in own[0]},
        "tasks": _tasks(all_reports),
    }


def own_values(reports: Reports) -> dict[str, float]:
    """Return for each institution the mean of its tasks' metrics."""
    own = {}
    for name, tasks in reports.items():
        values = [report["value"] for report in tasks.values() if report["value"] is not None and report["n"]]
        if values:
            own[name] = mean(values)
    return own


def _tasks(all_reports: Sequence[Reports]) -> dict[str, float]:
    """Return each task's metric, over the institutions that have it and over seeds."""
    values: dict[str, list[float]] = {}
    for reports in all_reports:
        for tasks in reports.values():
            for name, report in tasks.items():
                if report["value"] is not None and report["n"]:
                    values.setdefault(name, []).append(report["value"])
    return {name: mean(each) for name, each in sorted(values.items())}
