"""Every shipped scenario, and what the simulator itself promises.

Strict files, equal runs, and a short way from a failure to the scenario that shows it.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.core.core import Core
from collegium.sims import seeds as many
from collegium.sims.cluster import Cluster, Node
from collegium.sims.deeds import DEEDS
from collegium.sims.liars import LIES
from collegium.sims.play import Outcome, play
from collegium.sims.scenario import Scenario, dump, load, parse, shipped
from collegium.sims.shrink import MOST_RUNS, shrink

CALM = """
name = "test"
about = "a test"
nodes = 4
rounds = 2
"""


def some_seeds() -> list[Any]:
    soak = [pytest.param(name, seed, marks=pytest.mark.soak) for name in shipped() for seed in range(100, 130)]
    return [*[(name, 1) for name in shipped()], *soak]


@pytest.mark.parametrize(("name", "seed"), some_seeds())
def test_a_scenario_holds(name: str, seed: int) -> None:
    outcome = play(load(name), seed)
    assert outcome.held, f"{outcome.promise}: {outcome.what}\n  collegium sim run {name} --seed {seed}"


def test_every_lie_and_every_deed_has_its_scenario() -> None:
    events = [event for name in shipped() for event in load(name).events]
    assert {str(event.more["lie"]) for event in events if event.do == "lie"} == set(LIES)
    assert {event.do for event in events} >= DEEDS.keys() - {"heal", "weather"}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_file_is_named_as_its_scenario_and_is_written_as_it_is_read(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert parse(dump(scenario), name) == scenario


@pytest.mark.parametrize(
    ("added", "words"),
    {
        "an unknown key": ("colour = 3", "colour is not known"),
        "a wrong type": ("absent = 1.5", "absent cannot be 1.5"),
        "a table that is a number": ("charter = 3", "charter must be a table"),
        "an unknown rule": ('[charter]\nrule = "best"', "charter.rule cannot be 'best'"),
        "a certain loss of more than all": ("[network]\nloss = 2.0", "network.loss cannot be 2.0"),
        "a delay that ends before it begins": ("[network]\ndelay = [5, 1]", "network.delay cannot be"),
        "a true that is a number": ("[expect]\nidle = 1", "expect.idle cannot be 1"),
        "an unknown deed": ('[[event]]\ndo = "explode"\nat = 1', "event 1.do cannot be 'explode'"),
        "no time": ('[[event]]\ndo = "heal"', "event 1.at or after"),
        "two times": ('[[event]]\ndo = "heal"\nat = 1\nafter = "round 1"', "event 1.at or after"),
        "no node": ('[[event]]\ndo = "crash"\nat = 1', "event 1.node is missing"),
        "a node that is not there": ('[[event]]\ndo = "crash"\nnode = 4\nat = 1', "event 1.node cannot be 4"),
        "a round that never comes": ('[[event]]\ndo = "heal"\nafter = "round 2"', "cannot be round 2"),
        "an end before its beginning": (
            '[[event]]\ndo = "crash"\nnode = 1\nafter = "round 1"\nuntil = "round 1"',
            "event 1.until cannot be round 1",
        ),
        "a deed that cannot last": (
            '[[event]]\ndo = "withdraw"\nnode = 1\nat = 1\nfor = 5',
            "event 1.for is not known",
        ),
        "a lie that nobody knows": ('[[event]]\ndo = "lie"\nnode = 1\nat = 1\nlie = "x"', "event 1.lie cannot be"),
        "no lie": ('[[event]]\ndo = "lie"\nnode = 1\nat = 1', "event 1.lie is missing"),
        "another deed's key": ('[[event]]\ndo = "crash"\nnode = 1\nat = 1\ntempo = 2.0', "event 1.tempo is not known"),
        "more roles than nodes": (
            '[[event]]\ndo = "crash"\nnode = ["a", "b", "c", "d", "e"]\nat = 1',
            "5 nodes are named",
        ),
        "somebody expelled for nothing": ('[expect]\nexpelled = "liar"', "expect.expelled names 'liar'"),
        "more updates than nodes": ("[charter]\nmin_updates = 9", "charter.min_updates is 9"),
        "more liars than may be": (
            '[[event]]\ndo = "lie"\nnode = [1, 2]\nat = 1\nlie = "forks"',
            "2 of 4 nodes lie, and 1 may",
        ),
        "a liar where nobody lies": (
            '[charter]\nfault_model = "crash"\n[[event]]\ndo = "lie"\nnode = 1\nat = 1\nlie = "forks"',
            "1 of 4 nodes lie, and 0 may",
        ),
        "no TOML": ("[[[", "is not TOML"),
    }.values(),
)
def test_a_wrong_file_is_refused_by_name(added: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(CALM + added, "mine.toml")
    assert error.value.message.startswith("mine.toml")
    assert words in error.value.message
    assert error.value.advice


def test_a_name_is_no_path() -> None:
    """A failure's shortest scenario is written under its name."""
    for name in ("../../evil", "a b; rm x", "", "Upper"):
        with pytest.raises(UsageError, match="name cannot be"):
            parse(CALM.replace('"test"', f'"{name}"'), "mine.toml")


def test_a_scenario_that_is_not_there_is_told() -> None:
    for reference in ("nothing-like-it", "nothing/like-it.toml"):
        with pytest.raises(UsageError, match="nothing"):
            load(reference)


@pytest.mark.parametrize("name", ["crashes", "restored-backup", "liar-garbage"])
def test_a_run_is_a_function_of_scenario_and_seed(name: str) -> None:
    """Also in another process, whose dicts and sets hash otherwise."""
    outcome = play(load(name), 7)
    code = (
        "from collegium.sims.play import play; from collegium.sims.scenario import load;"
        f"print(play(load({name!r}), 7).trace)"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.strip() == outcome.trace
    assert play(load(name), 8).trace != outcome.trace


def test_a_scenario_imports_neither_torch_nor_libp2p() -> None:
    code = (
        "import sys; from collegium.sims.seeds import run; from collegium.sims.scenario import load;"
        "assert all(outcome.held for outcome in run([(load('calm'), 1)]));"
        "print([n for n in ('torch', 'libp2p', 'transformers', 'trio', 'sklearn') if n in sys.modules])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"


def test_seeds_run_in_several_processes_and_all_come_back() -> None:
    calm = parse(CALM, "calm")
    seen: list[tuple[int, int]] = []
    found = list(many.run([(calm, seed) for seed in range(9)], lambda _what, done, total: seen.append((done, total))))
    assert sorted(outcome.seed for outcome in found) == list(range(9))
    assert all(outcome.held for outcome in found)
    assert seen[-1] == (9, 9)
    assert {outcome.seed: outcome.trace for outcome in found}[3] == play(calm, 3).trace


# ---- a broken promise


NOISY = """
name = "noisy"
about = "much happens, and one event of it matters"
nodes = 5
rounds = 3
[charter]
deadline = 1000
[network]
delay = [1, 80]
duplicate = 0.1
[[event]]
do = "lie"
node = "liar"
at = 0
lie = "forks"
[[event]]
do = "crash"
node = "other"
after = "round 1"
for = 500
[[event]]
do = "slow"
node = "third"
at = 0
lag = 50
[expect]
expelled = "liar"
"""


def test_a_failure_shrinks_to_what_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Core, "_note_fork", lambda _core, _record: None)
    noisy = parse(NOISY, "noisy")
    failed = play(noisy, 5)
    assert failed.promise == "expect.expelled"
    failure = many.explain(noisy, failed, tmp_path / "found")
    shortest = load(failure.file)
    assert [event.do for event in shortest.events] == ["lie"]
    assert shortest.nodes == 4, "no fewer: then more would lie than the promises are made for"
    assert shortest.rounds < 3
    assert not shortest.network
    assert play(shortest, failure.shortest.seed).promise == "expect.expelled"
    assert failure.command == f"collegium sim run {failure.file} --seed {failure.shortest.seed}"


def test_shrinking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    def never(_scenario: Scenario, seed: int) -> Outcome:
        nonlocal runs
        runs += 1
        return replace(failed, seed=seed, promise="")

    scenario = parse(NOISY, "noisy")
    failed = Outcome("noisy", 1, "G2", "two blocks", "", 0, 0, 0, 0.0)
    monkeypatch.setattr("collegium.sims.shrink.play", never)
    assert shrink(scenario, failed) == (scenario, failed)
    assert 0 < runs <= MOST_RUNS


def test_a_core_that_falls_over_is_a_broken_promise_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(_core: Core) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Core, "_acknowledge", stumbles)
    outcome = play(parse(CALM, "calm"), 3)
    assert (outcome.promise, outcome.seed) == ("G9", 3)
    assert "a bug" in outcome.what


def test_a_mistake_of_the_simulator_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_cluster: Cluster, _sender: Node, *_rest: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Cluster, "broadcast", breaks)
    assert play(parse(CALM, "calm"), 3).promise == "error"
