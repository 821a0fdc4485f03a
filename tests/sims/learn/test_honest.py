"""The comparison with what a practitioner would do: the same students as the learner's, and rows joined over seeds."""

import numpy as np
import pytest

from collegium.node.learner import session
from collegium.sims.learn import honest


def test_a_newcomer_alone_has_the_students_that_its_learner_has() -> None:
    names = [f"s{n}" for n in range(50)]
    assert [honest._fraction(name) for name in names] == [session._fraction(name) for name in names]


def test_a_regression_at_home_is_judged_on_others_and_scored_as_the_learner_scores() -> None:
    source = np.random.default_rng(1)
    numbers = source.normal(size=(400, 3))
    labels = (numbers[:, 0] + source.normal(size=400) > 0).astype(float)
    records = honest.Records(numbers, labels, np.array([f"s{n // 2}" for n in range(400)]))
    some, rest = (np.array([f"s{n}" for n in part]) for part in (range(100), range(100, 200)))
    assert len(records.of(some).labels) == 200
    found = honest._judge(honest._ridge(records.of(some)), records.of(rest))
    assert 0.75 < found["auc"] < 0.95
    share = records.of(rest).labels.mean()
    assert found["brier"] < found["brier_constant"] == pytest.approx(2 * share * (1 - share))


def test_seeds_and_modules_are_joined_and_goals_are_of_the_home_layer() -> None:
    def row(split: str, mode: str, seed: int, name: str, auc: float) -> dict[str, object]:
        return honest._row(split, mode, 3.0, seed, {name: {"auc": auc, "brier": 0.3, "brier_constant": 0.4}})

    rows = honest._joined(
        [row(honest.OWN_SPLIT, mode, seed, name, 0.8 + 0.01 * seed)
         for mode in (honest.SHARED, honest.AT_HOME) for seed in (1, 2) for name in "ab"]
    )  # fmt: skip
    assert [(each["mode"], each["auc"]) for each in rows] == [
        (honest.SHARED, pytest.approx([0.81, 0.82])), (honest.AT_HOME, pytest.approx([0.81, 0.82])),
    ]  # fmt: skip
    assert rows[0]["institutions"]["a"]["auc"] == pytest.approx(0.815)
    goals = honest._goals(rows)
    assert [(goal["value"], goal["met"]) for goal in goals] == [
        (pytest.approx(0.815), True), (pytest.approx(-0.1), True),
    ]  # fmt: skip
    assert honest.table({"title": "", "rows": rows}).row_count == 2
