"""From the learner's answer to the figures that are kept: what is told of few is told of persons."""

import math

import pytest

from collegium.node.core.events import Evaluate
from collegium.node.learner.answers import Evaluated, GroupFigure, TaskReport
from collegium.node.runtime.evaluation import metric_rows
from collegium.node.store.observations import MIN_CELL, Metric

STATES = Evaluate((("backbone", 7, 1, b""), ("head/a", 5, 0, b""), ("head/b", 7, 1, b"")))


def told(value: float | None, **groups: dict[str, GroupFigure]) -> TaskReport:
    return TaskReport("auc", value, 90, 90, {"auc": value, "accuracy": 0.5}, groups)


def test_a_task_has_the_round_and_epoch_of_its_head() -> None:
    rows = metric_rows(Evaluated({"a": told(0.7), "b": told(None)}), STATES, 2.0)
    assert rows[0] == Metric(5, 0, "a", "auc", 0.7, 90, 2.0)
    assert rows[1] == Metric(5, 0, "a", "accuracy", 0.5, 90, 2.0)
    assert [(m.round, m.generation, m.task, math.isnan(m.value)) for m in rows[2:]] == [
        (7, 1, "b", True),
        (7, 1, "b", False),
    ]


def test_groups_and_figures_with_the_home_layer() -> None:
    shared, at_home = told(0.7, sex={"f": GroupFigure(0.6, MIN_CELL)}), told(0.8)
    rows = metric_rows(Evaluated({"a": shared}, {"a": at_home}), STATES, 2.0)
    assert [(m.metric, m.cell, m.value, m.home_layer) for m in rows] == [
        ("auc", "", 0.7, False),
        ("accuracy", "", 0.5, False),
        ("auc", "sex=f", 0.6, False),
        ("auc", "", 0.8, True),
        ("accuracy", "", 0.5, True),
    ]


@pytest.mark.parametrize("group", [GroupFigure(None, None), GroupFigure(0.9, None), GroupFigure(0.9, MIN_CELL - 1)])
def test_of_a_small_group_only_that_it_is_small_is_kept_whatever_the_learner_says(group: GroupFigure) -> None:
    (small,) = [m for m in metric_rows(Evaluated({"a": told(0.7, sex={"m": group})}), STATES, 2.0) if m.cell]
    assert (small.cell, small.count, math.isnan(small.value)) == ("sex=m", None, True)


def test_a_statistic_has_the_round_and_generation_of_its_own() -> None:
    evaluate = Evaluate((*STATES.states, ("statistic/a", 2, 3, b"")))
    answer = Evaluated({"a": told(0.7)}, statistics={"statistic/a": told(0.6), "statistic/b": told(0.6)})
    rows = metric_rows(answer, evaluate, 2.0)
    assert rows[0] == Metric(5, 0, "a", "auc", 0.7, 90, 2.0)
    assert rows[2] == Metric(2, 3, "statistic/a", "auc", 0.6, 90, 2.0)
    assert not [m for m in rows if m.task == "statistic/b"], "its state was not asked about"
