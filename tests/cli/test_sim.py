"""`collegium sim`: exit codes, JSON, and a failure that is told with what replays it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.sims.scenarios.loading import load, shipped
from collegium.sims.scenarios.play import play

from ..waiting import LIMIT, wait_for

if TYPE_CHECKING:
    from .conftest import Run

MINE = """
name = "test"
about = "a test"
nodes = 4
rounds = 2
[expect]
notices = ["never-said"]
idle = true
"""


def test_sim_run_and_list(run: "Run", tmp_path: Path) -> None:
    answer = run("sim", "run", "calm", "--seed", "4", "--json")
    assert answer.code == 0
    result = json.loads(answer.out)
    assert result["held"]
    assert result["outcomes"][0]["trace"] == play(load("calm"), 4).trace
    assert run("sim", "run", "calm", "--nodes", "5").code == 0
    names = {scenario["name"] for scenario in json.loads(run("sim", "list", "--json").out)}
    assert names == set(shipped())
    mine = tmp_path / "mine.toml"
    mine.write_text(MINE)
    answer = run("sim", "run", str(mine), "--seeds", "2..3", "--out", str(tmp_path / "out"), "--json")
    assert answer.code == 1
    failures = json.loads(answer.out)["failures"]
    assert [(failed["seed"], failed["promise"]) for failed in failures] == [
        (2, "expect.notices"),
        (3, "expect.notices"),
    ]
    for failure in failures:
        words = failure["command"].split()[1:]
        assert run(*words).code == 1
    people = run("sim", "run", str(mine), "--seed", "2")
    assert people.code == 1
    assert "expect.notices breaks in test with seed 2" in people.out
    assert "never-said" in people.out
    assert "idle" not in people.out, "the shortest scenario is the one that is printed"


@pytest.mark.parametrize(
    "words",
    [("nowhere",), ("calm", "--seeds", "9..1"), ("calm", "--seeds", "x"), ("calm", "--seed", "1", "--seeds", "1..2")],
)
def test_sim_run_with_wrong_words(run: "Run", words: tuple[str, ...]) -> None:
    assert run("sim", "run", *words).code == 2


# Its own process, as a terminal runs it; it writes down how far it is.
CHILD = """
import signal, sys, time
from pathlib import Path
from collegium.cli.main import main
from collegium.sims.scenarios import seeds
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that started the tests in the background ignores it
marker, slow = Path(sys.argv[1]), sys.argv[2] == "minimising"
played, minimised = seeds.run, seeds.minimise

def run(jobs, step=None):
    for outcome in played(jobs, step):
        yield outcome
        marker.write_text("seeds")

def minimise(*rest):
    marker.write_text("minimising")
    time.sleep(600 if slow else 0)
    return minimised(*rest)

seeds.run, seeds.minimise = run, minimise
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("stage", "last", "as_json"), [("seeds", 99_999, True), ("seeds", 99_999, False), ("minimising", 1, True)]
)
def test_ctrl_c_tells_what_was_found_until_then(tmp_path: Path, stage: str, last: int, as_json: bool) -> None:
    mine, marker = tmp_path / "mine.toml", tmp_path / "marker"
    mine.write_text(MINE)
    words = ["sim", "run", str(mine), "--seeds", f"0..{last}", *(["--json"] if as_json else [])]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(marker), stage, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        start_new_session=True,
    )
    try:
        wait_for(lambda: child.poll() is not None or (marker.exists() and marker.read_text() == stage))
        assert child.poll() is None, child.communicate()
        os.killpg(child.pid, signal.SIGINT)  # all of them, as a terminal does
        out, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in err
    if not as_json:
        assert "interrupted after " in out
        assert f"sim run {mine} --seed " in out
        return
    result = json.loads(out)
    assert result["interrupted"]
    assert not result["held"]
    assert 1 <= result["runs"] == len(result["failures"]) <= result["asked"] == last + 1
    for failure in result["failures"]:
        assert failure["promise"] == "expect.notices"
        assert failure["shortest"] is None
        assert failure["command"] == f"collegium sim run {mine} --seed {failure['seed']}"
