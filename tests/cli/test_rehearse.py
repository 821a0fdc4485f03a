"""`collegium rehearse`: from a model file alone, on the pupils of a spreadsheet, and on a charter."""

import csv
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli import rehearse
from collegium.node.blueprint.recipe import Budget, charter_parts
from collegium.node.home import Home
from collegium.node.learner import client
from collegium.node.unlearning.students import exclude
from collegium.sims.learn import workers
from collegium.sims.rehearse.budgets import implied_students, recalibrated

if TYPE_CHECKING:
    from .conftest import Run

PUPILS = 120
SMALL = ("--members", 2, "--students", 60, "--rounds", 2)
MODEL = """
[model]
hidden = 4
[training]
students = {students}
{training}
[[modality]]
name = "background"
kind = "tabular"
width = 3
encoder = "none"
[[task]]
name = "result"
kind = "binary"
skip = true
"""
EVERY = """
[training]
students = 40
[[modality]]
name = "numbers"
kind = "tabular"
width = 3
[[modality]]
name = "clicks"
kind = "series"
width = 2
length = 4
[[modality]]
name = "picture"
kind = "image"
width = 16
encoder = "linear-tanh"
[[modality]]
name = "voice"
kind = "audio"
width = 8
length = 6
encoder = "attention-pool"
[[modality]]
name = "words"
kind = "text"
length = 2
[[task]]
name = "two"
kind = "binary"
statistic = "ridge"
modalities = ["numbers", "clicks"]
[[task]]
name = "three"
kind = "multiclass"
classes = 3
[[task]]
name = "order"
kind = "ordinal"
classes = 3
modalities = ["picture"]
[[task]]
name = "value"
kind = "regression"
modalities = ["numbers"]
skip = true
[[task]]
name = "several"
kind = "multilabel"
classes = 2
modalities = ["voice", "words"]
"""


@pytest.fixture(autouse=True)
def warm(learner: client.Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rehearsals use one learner process, whose start takes seconds; a run begins in an empty folder."""

    @contextmanager
    def shared() -> Iterator[client.Worker]:
        yield learner

    monkeypatch.setattr(workers, "process", shared)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.toml"
    file.write_text(MODEL.format(students=60, training=""))
    return file


@pytest.fixture
def pupils(tmp_path: Path) -> Path:
    """A folder of 120 pupils, as a spreadsheet saves it; attendance says much of the result."""
    folder, chance = tmp_path / "pupils", random.Random(1)
    folder.mkdir()
    with (folder / "pupils.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["Pupil", "Age", "Attendance", "Result"])
        for number in range(PUPILS):
            there = chance.uniform(50, 100)
            passed = there + chance.gauss(0, 8) > 75
            out.writerow([f"S-{number:04d}", chance.randint(11, 18), f"{there:.1f}", "pass" if passed else "fail"])
    (folder / "dataset.toml").write_text(
        """format = 1
[unit]
subject = "Pupil"
table = "pupils"
[tables.pupils]
path = "pupils.csv"
key = "Pupil"
[[modality]]
name = "background"
kind = "tabular"
columns = [{ name = "Age", low = 10, high = 25 }, { name = "Attendance", low = 50, high = 100, missing = true }]
[[task]]
name = "result"
kind = "binary"
column = "Result"
positive = ["pass"]
negative = ["fail"]
[split]
share = 0.25
salt = "2026"
"""
    )
    return folder


def figure(found: Any, task: str, metric: str, epsilon: float | None) -> float:
    (entry,) = [entry for entry in found["tasks"] if entry["task"] == task]
    (figures,) = [each for each in entry["figures"] if each["metric"] == metric]
    (value,) = [each["value"] for each in figures["values"] if each["epsilon"] == epsilon]
    return float(value)


def test_a_model_file_alone_is_rehearsed(
    run: "Run", model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.rglob("*"))
    steps: list[tuple[str, int, int]] = []
    monkeypatch.setattr(rehearse, "progress", lambda _: nullcontext(lambda *step: steps.append(step)))
    answer = run("rehearse", model, *SMALL, "--epsilon", 0.02, "--json")
    assert answer.code == 0, answer.err
    found = answer.value
    assert (found["simulation"], found["data"], found["members"], found["students"]) == (True, None, 2, 60)
    assert "synthetic" in found["about"]
    assert "no forecast" in found["about"]
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
    # Without noise the signal that was put in is found; under the noise of ε = 0.02 nothing is, and it says so.
    (task,) = found["tasks"]
    assert [each["epsilon"] for each in task["figures"][0]["values"]] == [0.02, 1.0, 3.0, 8.0, None]
    assert figure(found, "result", "auc", None) > 0.7
    assert figure(found, "result", "auc", 8.0) > figure(found, "result", "auc", 0.02)
    assert task["verdict"] in {"no better", "better", "within chance"}
    skip = next(one for one in found["components"] if one["component"] == "skip/result")
    assert skip["all_rounds"]["ratio"] > 10
    assert skip["all_rounds"]["noise"] == pytest.approx(skip["first_round"]["noise"] * 2**0.5)
    assert "skip/result: over 2 rounds the noise adds up to a norm of" in answer.err
    assert found["bytes_a_round"] > 0
    # Five ε, two rounds, two members: every training run is told of as it ends.
    assert steps[0][0] == "starting a learner"
    assert [step for step in steps if step[0] == "training"] == [("training", n, 20) for n in range(1, 21)]


def test_ones_own_pupils_are_rehearsed_on_only_when_asked_and_with_a_warning(
    run: "Run", pupils: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.toml"
    text = run("charter", "model", pupils).out.replace("students = 300", "students = 90")
    model.write_text(text)
    before = sorted(pupils.rglob("*"))
    answer = run("rehearse", model, "--data", pupils, "--members", 3, "--rounds", 3, "--json")
    assert answer.code == 0, answer.err
    found = answer.value
    for told in (answer.err, found["about"]):
        assert "no ε is booked for it" in told
        assert "outside of what the accountant counts" in told
    assert "synthetic" not in found["about"]
    assert found["data"] == str(pupils)
    assert figure(found, "result", "auc", None) > 0.7
    assert found["tasks"][0]["held_out"] + found["students"] == PUPILS
    assert sorted(pupils.rglob("*")) == before

    # Who was removed at a home stays out here too.
    home = tmp_path / "home"
    assert run("--home", home, "init", "--name", "a", "--listen", "/ip4/127.0.0.1/tcp/4001").code == 0
    exclude(Home(home), "S-0001")
    exclude(Home(home), "S-0002")
    again = run("--home", home, "rehearse", model, "--data", pupils, "--members", 1, "--rounds", 1, "--json")
    assert again.code == 0, again.err
    assert again.value["tasks"][0]["held_out"] + again.value["students"] == PUPILS - 2


def test_a_charter_is_rehearsed_as_it_is(run: "Run", model: Path, tmp_path: Path) -> None:
    members = []
    for number in (1, 2):
        words = ("init", "--name", f"school-{number}", "--listen", f"/ip4/127.0.0.1/tcp/{4000 + number}", "--json")
        members += ["--member", run("--home", tmp_path / f"home-{number}", *words).value["member"]]
    charter = tmp_path / "charter.bin"
    made = run("charter", "create", "--name", "d", "--model", model, "--rounds", 3, "--out", charter, *members)
    assert made.code == 0, made.err
    shown = run("charter", "show", charter, "--json").value
    answer = run("rehearse", charter, "--rounds", 1, "--json")
    assert answer.code == 0, answer.err
    found = answer.value
    assert (found["members"], found["rounds"], found["planned_rounds"], found["epsilon"]) == (2, 1, 3, 8.0)
    noises = {one["component"]: one["noise_multiplier"] for one in found["components"]}
    specs = shown["charter"]["components"]
    assert noises == {spec["name"]: spec["noise_multiplier"] / 1e6 for spec in specs}
    assert 40 <= found["students"] <= 90, "the grid tells of 60 students, about"

    # The same seed gives the same figures, here in words for people.
    people = run("rehearse", charter, "--rounds", 1)
    assert people.code == 0, people.err
    assert people.out.startswith("A REHEARSAL: no ε is spent, and nothing is sent.")
    assert "The records are synthetic" in people.out
    assert f"{figure(found, 'result', 'auc', None):.3f}" in people.out
    assert f"{figure(found, 'result', 'auc', 8.0):.3f}" in people.out
    assert max(map(len, people.out.splitlines())) <= 80
    more = run("rehearse", charter, "--rounds", 4)
    assert (more.code, "plans 3 rounds" in more.err) == (2, True), more.err


def test_records_of_every_kind_fit_their_declaration(run: "Run", tmp_path: Path) -> None:
    model = tmp_path / "every.toml"
    model.write_text(EVERY)
    answer = run("rehearse", model, "--members", 1, "--rounds", 1, "--json")
    assert answer.code == 0, answer.err
    found = answer.value
    assert {task["task"] for task in found["tasks"]} == {"two", "three", "order", "value", "several", "statistic/two"}
    assert figure(found, "statistic/two", "auc", None) > 0.7
    (sum_,) = [one for one in found["components"] if one["component"] == "statistic/two"]
    assert sum_["first_round"] is None
    assert 0 < sum_["all_rounds"]["noise"] < sum_["all_rounds"]["gradient"]


@pytest.mark.parametrize(
    ("words", "training", "text"),
    [
        (("--rounds", 0), "", "'--rounds'"),
        (("--members", 0), "", "'--members'"),
        (("--students", 0), "", "'--students'"),
        (("--students", 5), "", "fewer than 20 does not train"),
        (("--members", 1), 'rule = "median"', "median with 1 member"),
        (("--data", "nowhere"), "", "there is no such folder"),
        (("--epsilon", 0), "", "--epsilon"),
    ],
)
def test_nonsense_is_refused_with_advice(
    run: "Run", tmp_path: Path, words: tuple[object, ...], training: str, text: str
) -> None:
    file = tmp_path / "model.toml"
    file.write_text(MODEL.format(students=60, training=training))
    answer = run("rehearse", file, *words)
    assert (answer.code, text in answer.err) == (2, True), answer.err


def test_a_file_or_folder_that_does_not_fit_is_named(run: "Run", model: Path, pupils: Path, tmp_path: Path) -> None:
    missing = run("rehearse", tmp_path / "none.toml")
    assert (missing.code, "There is no file" in missing.err) == (2, True), missing.err
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    damaged = run("rehearse", tmp_path / "noise")
    assert (damaged.code, "is not a charter file" in damaged.err) == (3, True), damaged.err
    model.write_text(model.read_text().replace("width = 3", "width = 5"))
    wide = run("rehearse", model, "--data", pupils)
    assert (wide.code, "the charter tabular of 5" in wide.err) == (2, True), wide.err
    model.write_text(model.read_text().replace('"background"', '"voice"').replace('"result"', '"grade"'))
    other = run("rehearse", model, "--data", pupils)
    assert (other.code, "has no task of the model" in other.err) == (2, True), other.err


def test_another_epsilon_gives_the_components_that_a_charter_would_have_under_it(tmp_path: Path) -> None:
    from collegium.node.blueprint.declare import read_model

    file = tmp_path / "every.toml"
    file.write_text(EVERY)
    recipe = read_model(file).recipe
    wanted, learning = charter_parts(recipe, Budget(3.0, 1e-5, 20), min_updates=2)
    given, _ = charter_parts(recipe, Budget(8.0, 1e-5, 20), min_updates=2)
    assert given != wanted
    assert recalibrated(given, learning, recipe.students, 3.0) == wanted
    assert all(spec.noise_multiplier == 0 for spec in recalibrated(given, learning, recipe.students, None))
    assert recipe.students / 2 <= implied_students(given, learning) <= recipe.students * 2
