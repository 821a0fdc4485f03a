"""`collegium sim`: exit codes, JSON, and a failure that is told with what replays it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.sims.play import play
from collegium.sims.scenario import load, shipped

if TYPE_CHECKING:
    from .conftest import Run

MINE = """
name = "test"
about = "a test"
nodes = 4
rounds = 2
[expect]
told = ["never-said"]
"""


def test_sim_run_and_list(run: "Run", tmp_path: Path) -> None:
    answer = run("sim", "run", "calm", "--seed", "4", "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found["held"]
    assert found["outcomes"][0]["trace"] == play(load("calm"), 4).trace
    assert run("sim", "run", "calm", "--nodes", "5").code == 0
    names = {each["name"] for each in json.loads(run("sim", "list", "--json").out)}
    assert names == set(shipped())
    mine = tmp_path / "mine.toml"
    mine.write_text(MINE)
    answer = run("sim", "run", str(mine), "--seeds", "2..3", "--out", str(tmp_path / "out"), "--json")
    assert answer.code == 1
    failures = json.loads(answer.out)["failures"]
    assert [(each["seed"], each["promise"]) for each in failures] == [(2, "expect.told"), (3, "expect.told")]
    for failure in failures:
        words = failure["command"].split()[1:]
        assert run(*words).code == 1
    people = run("sim", "run", str(mine), "--seed", "2")
    assert people.code == 1
    assert "expect.told breaks in test with seed 2" in people.out
    assert "rounds = 1" in people.out


@pytest.mark.parametrize(
    "words",
    [("nowhere",), ("calm", "--seeds", "9..1"), ("calm", "--seeds", "x"), ("calm", "--seed", "1", "--seeds", "1..2")],
)
def test_sim_run_with_wrong_words(run: "Run", words: tuple[str, ...]) -> None:
    assert run("sim", "run", *words).code == 2
