"""The home layer: what it learns of own students, for whom it is too few, and that nothing of a student remains."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.parts import head, skip
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.home import Home
from collegium.node.learner.answers import MIN_RECALIBRATED, MIN_STACKED, HomeLayer
from collegium.node.learner.home_layer import learned
from collegium.node.learner.messages import Evaluate, LeftOut, Open, Predict
from collegium.node.learner.session import build
from collegium.node.learner.stack import Own, fit, fold_of
from collegium.node.learner.worker import Worker
from collegium.node.unlearning.students import exclude
from collegium.protocol.components import MILLION
from collegium.protocol.learning import Modality, Task

from .asking import ask

KINDS = {"binary": 2, "multiclass": 4, "ordinal": 3, "multilabel": 2, "regression": 1}


def drawn(kind: str, students: int, *, seed: int = 1, told: float = 0.0, records: int = 1) -> Own:
    """Records of a task: the shared logits are ten times too large; what is read tells `told` of the label."""
    source, n, outputs = np.random.default_rng(seed), students * records, KINDS[kind]
    shared, beside = source.normal(size=(n, outputs)), source.normal(size=(n, 3))
    truth = shared + 0.5
    truth[:, : 1 if kind in {"binary", "multiclass"} else outputs] += told * beside[:, :1]
    uniform = source.uniform(size=(n, outputs))
    match kind:
        case "binary" | "multiclass":
            labels = (truth - np.log(-np.log(uniform))).argmax(1)[:, None]
        case "ordinal":
            labels = (uniform < 1 / (1 + np.exp(-np.sort(truth)[:, ::-1]))).cumprod(1).sum(1)[:, None]
        case "multilabel":
            labels = uniform < 1 / (1 + np.exp(-truth))
        case _:
            labels = truth + 0.1 * source.normal(size=(n, 1))
    rows = torch.arange(students).repeat_interleave(records)
    folds = torch.tensor([fold_of(f"s{row}") for row in rows.tolist()])
    weights = torch.full((n,), 1.0 / records).double()
    return Own(
        kind,
        10.0 * torch.from_numpy(shared),
        torch.from_numpy(beside),
        torch.tensor(labels).float(),
        weights,
        rows,
        folds,
    )


def loss(own: Own, logits: Any) -> float:
    return float(own.loss(logits)) / own.size


@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_are_too_large_are_recalibrated(kind: str) -> None:
    own, other = drawn(kind, 40), drawn(kind, 400, seed=2)
    layer = fit(own)
    assert layer.told == HomeLayer("recalibrated", 40)
    assert float(layer.scale) < 0.5
    assert loss(other, layer(other.logits, other.read)) < 0.7 * loss(other, other.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_shared_model_does_not_know_is_learned_beside_it(kind: str) -> None:
    own, other = drawn(kind, 300, told=2.0), drawn(kind, 400, seed=2, told=2.0)
    layer = fit(own)
    assert layer.told == HomeLayer("stacked", 300)
    recalibrated = replace(layer, weight=torch.zeros_like(layer.weight))
    assert loss(other, layer(other.logits, other.read)) < 0.95 * loss(other, recalibrated(other.logits, other.read))


def test_of_few_students_little_is_learned_whatever_the_number_of_their_records() -> None:
    one, two = (drawn("binary", size - 1, told=5.0, records=30) for size in (MIN_RECALIBRATED, MIN_STACKED))
    assert fit(one).told == HomeLayer("", MIN_RECALIBRATED - 1)
    assert torch.equal(fit(one)(one.logits, one.read), one.logits)
    assert fit(two).told == HomeLayer("recalibrated", MIN_STACKED - 1)
    assert not fit(two).weight.any()


@pytest.mark.parametrize("students", [200, 500])
def test_of_many_numbers_the_directions_that_vary_most_are_used(students: int) -> None:
    own = drawn("binary", students, told=3.0)
    wide = replace(own, read=own.read[:, :1] @ torch.ones(1, 300).double() + 0.1 * torch.randn(students, 300).double())
    layer = fit(wide)
    assert layer.told.form == "stacked"
    assert loss(wide, layer(wide.logits, wide.read)) < loss(own, fit(own)(own.logits, own.read)) + 0.1


MANIFEST = """
format = 1
[unit]
subject = "student"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "first"
kind = "tabular"
columns = [{ name = "a", low = -3, high = 3 }]
[[modality]]
name = "second"
kind = "tabular"
columns = [{ name = "b", low = -3, high = 3 }]
[[task]]
name = "pass"
kind = "binary"
column = "mark"
positive = ["good"]
[split]
share = 0.3
salt = "x"
"""


def write(folder: Path, *without: str) -> Path:
    """120 students; b, which no shared update may see, tells of the mark."""
    source, rows = np.random.default_rng(4), []
    for n in range(120):
        a, b, mark = source.normal(size=3)
        if f"s{n}" not in without:
            rows.append(f"r{n},s{n},{a:.3f},{b:.3f},{'good' if b + 0.5 * mark > 0 else 'bad'}")
    folder.mkdir()
    (folder / "dataset.toml").write_text(MANIFEST)
    (folder / "work.csv").write_text("\n".join(["id,student,a,b,mark", *rows]) + "\n")
    return folder


def opened(folder: Path, **more: Any) -> Worker:
    first, second = Modality("first", "tabular", 1, 1), Modality("second", "tabular", 1, 1)
    task = Task("pass", "binary", 2, ("first", "second"))
    parts = (head(task, 1), skip(task, {"first": 1}))
    recipe = Recipe((first, second), (task,), parts, 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    hosted = tuple(spec.name for spec in specs)
    worker, given = Worker(), {"withheld": ("second",), "home_layer": True} | more
    ask(worker, Open((str(folder),), specs, learning, NO_SEED, hosted, **given))  # type: ignore[arg-type]  # by name
    return worker


def layer_bytes(worker: Worker) -> bytes:
    session = worker.session("")
    layer = learned(session, build(session, {}), {})["pass"]
    assert layer.told.form == "stacked"
    return b"".join(part.numpy().tobytes() for part in (layer.scale, layer.bias, layer.weight, layer.mean))


def test_g7_of_a_student_who_is_left_out_no_bit_remains(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "node"), write(tmp_path / "all")
    home.make()
    whole = opened(folder)
    gone = whole.session("").parts["train"].subjects[:2]
    excluded = exclude(home, *gone)
    left_out = layer_bytes(opened(folder, excluded=LeftOut(excluded.salt, tuple(excluded.tags))))
    assert left_out == layer_bytes(opened(write(tmp_path / "never", *gone)))
    assert left_out != layer_bytes(whole)
    ended = asked(write(tmp_path / "ended"), dict.fromkeys(gone, "2026-07-31"))
    assert layer_bytes(opened(ended, day="2026-07-31")) == layer_bytes(whole)
    assert layer_bytes(opened(ended, day="2026-08-01")) == left_out, "so it is when their consent has ended"


def asked(folder: Path, until: dict[str, str]) -> Path:
    """All consent, and some until a day."""
    unit = '[unit]\nconsent = "agreed"\nconsent_yes = ["yes"]\nconsent_until = "until"'
    (folder / "dataset.toml").write_text(MANIFEST.replace("[unit]", unit))
    head_line, *rows = (folder / "work.csv").read_text().splitlines()
    rows = [f"{row},yes,{until.get(row.split(',')[1], '')}" for row in rows]
    (folder / "work.csv").write_text("\n".join([f"{head_line},agreed,until", *rows]) + "\n")
    return folder


def test_a_modality_under_never_serves_at_home_and_figures_are_of_others_than_it_learned_from(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    worker = opened(folder)
    answer = ask(worker, Evaluate({}, home_layer=True))
    shared, at_home = answer.tasks["pass"], answer.home_layer["pass"]
    assert shared.value is not None
    assert at_home.value is not None
    assert at_home.value > max(0.85, shared.value + 0.1)
    assert at_home.n == shared.n == worker.session("").parts["held_out"].batch.size
    with pytest.raises(UsageError, match="learned of these students"):
        ask(worker, Evaluate({}, "train", home_layer=True))
    both = [ask(worker, Predict({}, str(folder / "work.csv"), home_layer=asked)) for asked in (True, False)]
    assert [answer.home_layer for answer in both] == [
        {"pass": HomeLayer("stacked", worker.session("").parts["train"].batch.size)}, {}
    ]  # fmt: skip
    assert both[0].tasks["pass"].scores != both[1].tasks["pass"].scores
