"""Groups of held-out students: exact counts through the worker, no student over the sensitivity, a budget apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from collegium.crypto.errors import RemoteProtocolError, UsageError
from collegium.node.blueprint import parts
from collegium.node.blueprint.recipe import Budget, Recipe, charter_parts
from collegium.node.core.contribution import spend_statement
from collegium.node.core.events import Noised, PutReservation
from collegium.node.data.importers.common import write_institution
from collegium.node.learner.messages import Engagement, Open, PredictScores, Train
from collegium.node.learner.worker import Worker
from collegium.protocol.claims import Claim, DpEvents, check_claims
from collegium.protocol.components import MILLION
from collegium.protocol.equity import DECIDED, HELD_OUT, SCORES, Attribute, Decision, Equity
from collegium.protocol.learning import Modality, Task

from .asking import ask

TASK, TABLE = Task("pass", "binary", 2, ("marks",)), Modality("marks", "tabular", 1, 1)
EQUITY = Equity(
    (Attribute("gender", ("F", "M")), Attribute("region", ("north", "south"))),
    (Decision("pass", 500_000, "below"),), 1, 1000, 10_000,
)  # fmt: skip
RECIPE = Recipe(
    (TABLE,), (TASK,), (parts.head(TASK, 1), parts.skip(TASK, {"marks": 1}), parts.groups(TASK, EQUITY)), 300, 4,
    100_000, MILLION, MILLION, MILLION, 16, equity=EQUITY,
)  # fmt: skip
SPECS, LEARNING = charter_parts(RECIPE, Budget(3.0, 1e-5, 10), min_updates=1)
GROUPS = next(spec for spec in SPECS if spec.is_statistic)
MODULES = [spec for spec in SPECS if not spec.is_statistic]
TOML = """format = 1
[unit]
subject = "pupil"
[tables.pupils]
path = "pupils.parquet"
key = "record"
[[modality]]
name = "marks"
kind = "tabular"
columns = [ { name = "mark", low = 0, high = 1 } ]
[[task]]
name = "pass"
kind = "binary"
column = "pass"
positive = ["yes"]
negative = ["no"]
[sensitive]
columns = [ { name = "gender", levels = ["F", "M", "X"] }, { name = "region", levels = ["north", "south"] } ]
[split]
share = 0.5
salt = "groups"
"""


@pytest.fixture(scope="module")
def pupils(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """Two records of each of 120 pupils, of whom some have a level that the charter does not name."""
    source, rows = np.random.default_rng(4), list[dict[str, object]]()
    for number in range(120):
        gender, region = ("F", "M", "X")[number % 3], ("north", "south")[number % 2]
        rows += [
            {
                "record": f"{number}-{turn}",
                "pupil": str(number),
                "mark": float(source.random()),
                "pass": "yes" if source.random() < 0.5 else "no",
                "gender": gender,
                "region": region,
            }
            for turn in range(2)
        ]
    folder = tmp_path_factory.mktemp("pupils")
    write_institution(folder, {"pupils": pa.Table.from_pylist(rows)}, TOML)
    return folder, rows


@pytest.fixture(scope="module")
def states() -> dict[str, bytes]:
    """A shared model that flags about half of them: the logit of passing is three times the mark in [-1, 1]."""
    made = {spec.name: np.zeros(spec.dimension, dtype="<i4") for spec in MODULES}
    skip = next(spec for spec in MODULES if spec.name == "skip/pass")
    made[skip.name][1] = 3 << (skip.step_log2 + 8)
    return {name: state.tobytes() for name, state in made.items()}


@pytest.fixture(scope="module")
def worker(pupils: tuple[Path, list[dict[str, object]]]) -> Worker:
    made = Worker()
    names = tuple(spec.name for spec in SPECS)
    ask(made, Open((str(pupils[0]),), SPECS, LEARNING, bytes(32), names, seed=3))
    return made


def released(worker: Worker, states: dict[str, bytes], noise: float = 0.0) -> tuple[Any, tuple[str, ...]]:
    rule = Engagement(GROUPS.clip_norm / MILLION, noise, 1.0)
    answer = ask(worker, Train(states, {GROUPS.name: rule}, 1, 1.0, 300.0))
    assert answer.subjects is not None
    return np.frombuffer(answer.updates[GROUPS.name], dtype=GROUPS.integer_type).astype(float), answer.subjects


def test_the_counts_are_those_of_held_out_students_alone(
    worker: Worker, pupils: tuple[Path, list[dict[str, object]]], states: dict[str, bytes]
) -> None:
    values, subjects = released(worker, states)
    judged = ask(worker, PredictScores(states)).tasks["pass"]
    assert set(subjects) == set(judged.subjects), "the manifest names whom it took: held-out students"
    of = {str(row["pupil"]): row for row in pupils[1]}
    decided, scores = np.zeros((4, 2, 2)), np.zeros((4, 2, 10))
    for subject, (_, chance), (label,) in zip(judged.subjects, judged.scores, judged.labels, strict=True):
        levels = of[subject]["gender"], of[subject]["region"]
        for row, (_, level) in enumerate(EQUITY.rows):
            if level in levels:
                decided[row, int(label), int(chance < 0.5)] += 0.5 * DECIDED
                scores[row, int(label), min(9, int(chance * 10))] += 0.5 * SCORES
    wanted = np.concatenate([decided.reshape(-1), scores.reshape(-1)])
    assert np.abs(values * GROUPS.grid_step - wanted).max() < 1e-3
    assert decided.any(axis=(0, 1)).all(), "some are flagged, some are not"


def test_no_student_moves_it_farther_than_the_sensitivity_and_the_noise_is_declared(
    worker: Worker, states: dict[str, bytes]
) -> None:
    """G6."""
    values, subjects = released(worker, states)
    whole = np.abs(values).sum() * GROUPS.grid_step / len(subjects)
    assert whole < 2 * (DECIDED + SCORES), "at most one cell of each tensor in each attribute"
    assert GROUPS.clip_norm == EQUITY.sensitivity == 1_414_214
    noised, _ = released(worker, states, noise=3.0)
    spread = ((noised - values) * GROUPS.grid_step).std()
    assert spread == pytest.approx(3.0 * 2**0.5, rel=4 / (2 * GROUPS.dimension) ** 0.5)


def test_they_are_not_released_beside_training(worker: Worker, states: dict[str, bytes]) -> None:
    rule = Engagement(2.0, 1.0, 1.0)
    with pytest.raises(UsageError, match="are requested in one training run"):
        ask(worker, Train(states, dict.fromkeys((GROUPS.name, "head/pass"), rule), 1, 1.0, 300.0))


def test_their_budget_is_apart_from_training() -> None:
    """G6: training pays nothing of held-out students, and their release nothing of a modality."""
    noise = GROUPS.noise_multiplier
    trained = PutReservation(
        1, tuple(Noised(m.name, 1, m.noise_multiplier) for m in MODULES), 100_000, 4, (("marks", 9),)
    )
    once = PutReservation(2, (Noised(GROUPS.name, 1, noise),), MILLION, 1, ((HELD_OUT, 750),))
    assert spend_statement([trained, once], HELD_OUT, LEARNING) == (DpEvents(MILLION, noise, 1),)
    assert spend_statement([trained, once], "marks", LEARNING) == spend_statement([trained], "marks", LEARNING)

    def check(*claims: Claim) -> None:
        check_claims(claims, LEARNING, {GROUPS.name: noise}, sample_rate=MILLION, steps=1, author=bytes(32))

    check(Claim(HELD_OUT, (DpEvents(MILLION, noise, 1),), 750, 10_000))
    for claims, reason in (
        ((), "claim-missing"),
        ((Claim(HELD_OUT, (DpEvents(MILLION, noise, 1),), 1001, 10_000),), "epsilon-above"),
    ):
        with pytest.raises(RemoteProtocolError, match=reason):
            check(*claims)
