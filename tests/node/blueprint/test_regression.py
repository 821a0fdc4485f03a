"""A regression by the template learns: a real training on numbers made here, and on OULAD's scores where they are."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import model_toml
from collegium.node.blueprint.recipe import REGRESSION_RATE, Budget, Recipe, charter_parts
from collegium.node.data.importers.common import Options
from collegium.node.data.importers.registry import run_import
from collegium.node.learner.client import Ask
from collegium.node.learner.worker import Worker
from collegium.protocol.components import MILLION
from collegium.sims.learn.federate import Learner, Setting, evaluate, opening, train

from ...public_data import public_data
from ..learner.asking import ask

DATASET = """
[unit]
kind = "record"
[tables.rows]
path = "rows.csv"
key = "student"
[[modality]]
name = "table"
kind = "tabular"
columns = [{ name = "a", low = 0, high = 20 }, { name = "b", low = 0, high = 20 }, { name = "c", low = 0, high = 20 }]
[[task]]
name = "mark"
kind = "regression"
column = "mark"
low = 0
high = 100
[split]
share = 0.25
salt = ""
"""


def marks(folder: Path, students: int) -> Path:
    """Marks that depend on three numbers, with some noise; the mean explains nothing, all three 95 %."""
    folder.mkdir()
    source = np.random.default_rng(5)
    x = source.uniform(0, 20, (students, 3))
    y = np.clip(30 + 2.5 * x[:, 0] + x[:, 1] - x[:, 2] + source.normal(0, 4, students), 0, 100)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "a", "b", "c", "mark"])
        writer.writerows(
            [f"s{n}", *row.round(2), mark.round(1)] for n, (row, mark) in enumerate(zip(x, y, strict=True))
        )
    (folder / "dataset.toml").write_text(DATASET)
    return folder


def recipe_of(folder: Path, model: Path, task: str) -> Recipe:
    """The recipe of the file that `charter model` prints, with one of its tasks alone."""
    top, *tasks = model_toml([folder]).split("[[task]]")
    model.write_text(top + "".join(f"[[task]]{text}" for text in tasks if f'name = "{task}"' in text))
    return read_model(model).recipe


def r_squared(folder: Path, recipe: Recipe, task: str, epsilon: float | None) -> float:
    """R² of a member's held-out students after eight rounds alone."""
    budget = None if epsilon is None else Budget(epsilon, 1e-5, 8)
    specs, learning = charter_parts(recipe, budget, min_updates=1)
    worker = Worker()
    me = Learner("me", "", tuple(spec.name for spec in specs), 1.0)
    opened = ask(worker, replace(opening(me, [str(folder)], specs, learning, bytes(32)), seed=3))
    me = replace(me, lot=opened.subjects * learning.sample_rate / MILLION)
    asked: Ask = partial(ask, worker)
    _, last = train(lambda _: asked, [me], Setting({spec.name: spec for spec in specs}, learning, 8))
    return float(evaluate(asked, me, last)[task]["value"])


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_a_regression_by_the_template_learns(tmp_path: Path, epsilon: float | None) -> None:
    folder = marks(tmp_path / "data", 500)
    assert r_squared(folder, recipe_of(folder, tmp_path / "model.toml", "mark"), "mark", epsilon) > 0.8


def test_the_scores_of_oulad_are_learned_by_the_template(tmp_path: Path) -> None:
    run_import(
        "oulad", public_data("oulad"), tmp_path / "oulad", Options(by="module"), lambda _what, _done, _total: None
    )
    folder = tmp_path / "oulad" / "EEE"
    assert r_squared(folder, recipe_of(folder, tmp_path / "model.toml", "score"), "score", None) > 0.15


def test_the_rate_of_a_regression_is_its_own_and_an_explicit_one_goes_before(tmp_path: Path) -> None:
    folder, model = marks(tmp_path / "data", 40), tmp_path / "model.toml"
    text = model_toml([folder])
    assert "learning_rate = 0.1 " in text

    def rates(text: str) -> dict[str, int]:
        model.write_text(text)
        specs, _ = charter_parts(read_model(model).recipe, None, min_updates=1)
        return {spec.name: spec.learning_rate for spec in specs}

    usual = {"encoder/table": 2 * MILLION, "head/mark": REGRESSION_RATE, "skip/mark": REGRESSION_RATE}
    assert rates(text) == usual
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("learning_rate = 0.1 "))
    assert rates(bare) == usual  # a file of one's own that says nothing
    assert rates(bare.replace("learning_rate = 2.0", "learning_rate = 0.05"))["head/mark"] == 50_000
    assert rates(text.replace("learning_rate = 0.1 ", "learning_rate = 0.7 "))["skip/mark"] == 700_000
