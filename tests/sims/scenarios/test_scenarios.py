"""G1 to G9: every shipped scenario holds them. And what the simulator itself promises.

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
from collegium.node.core import candidates, feeds, updates
from collegium.node.core import core as core_module
from collegium.node.core import events as ev
from collegium.node.core.state import NodeState
from collegium.node.core.timers import RoundDeadline, Timer
from collegium.protocol.records import Body, Offer
from collegium.sims.scenarios import seeds as many
from collegium.sims.scenarios.actions import ACTIONS
from collegium.sims.scenarios.loading import dump, load, parse, shipped
from collegium.sims.scenarios.minimise import MAX_RUNS, _only_failed, _simpler_scenarios, minimise
from collegium.sims.scenarios.play import Outcome, Play, play
from collegium.sims.scenarios.scenario import Expect, Scenario
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.liars import LIES

from ...waiting import wait_for

CALM = """
name = "test"
about = "a test"
nodes = 4
rounds = 2
"""


def some_seeds() -> list[Any]:
    """Seed 1 of each in the gate, which is the short form."""
    more = (2, *range(100, 130))
    soak = [pytest.param(name, seed, marks=pytest.mark.soak) for name in shipped() for seed in more]
    return [*[(name, 1) for name in shipped()], *soak]


@pytest.mark.parametrize(("name", "seed"), some_seeds())
def test_a_scenario_holds(name: str, seed: int) -> None:
    outcome = play(load(name), seed)
    assert outcome.held, f"{outcome.promise}: {outcome.what}\n  collegium sim run {name} --seed {seed}"


def test_every_lie_and_every_action_has_its_scenario() -> None:
    events = [event for name in shipped() for event in load(name).events]
    assert {str(event.more["lie"]) for event in events if event.do == "lie"} == set(LIES)
    assert {event.do for event in events} >= ACTIONS.keys() - {"heal", "network"}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_file_is_named_as_its_scenario_and_is_written_as_it_is_read(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert parse(dump(scenario), name) == scenario


@pytest.mark.parametrize(
    ("added", "words"),
    {
        "an unknown key": ("colour = 3", "unknown key 'colour'"),
        "a wrong type": ("absent = 1.5", "absent cannot be 1.5"),
        "a table that is a number": ("charter = 3", "[charter]: a table of keys belongs here"),
        "an unknown rule": ('[charter]\nrule = "best"', "[charter]: rule cannot be 'best'"),
        "a certain loss of more than all": ("[network]\nloss = 2.0", "[network]: loss cannot be 2.0"),
        "a delay that ends before it begins": ("[network]\ndelay = [5, 1]", "[network]: delay cannot be"),
        "a true that is a number": ("[expect]\nidle = 1", "[expect]: idle cannot be 1"),
        "an unknown action": ('[[event]]\ndo = "explode"\nat = 1', "[[event]] 1: do cannot be 'explode'"),
        "no time": ('[[event]]\ndo = "heal"', "[[event]] 1: at or after"),
        "two times": ('[[event]]\ndo = "heal"\nat = 1\nafter = "round 1"', "[[event]] 1: at or after"),
        "no node": ('[[event]]\ndo = "crash"\nat = 1', "[[event]] 1: node is missing"),
        "a node that is not there": ('[[event]]\ndo = "crash"\nnode = 4\nat = 1', "[[event]] 1: node cannot be 4"),
        "a round that never comes": ('[[event]]\ndo = "heal"\nafter = "round 2"', "cannot be round 2"),
        "an end before its beginning": (
            '[[event]]\ndo = "crash"\nnode = 1\nafter = "round 1"\nuntil = "round 1"',
            "[[event]] 1: until cannot be round 1",
        ),
        "an action that cannot last": (
            '[[event]]\ndo = "withdraw"\nnode = 1\nat = 1\nfor = 5',
            "[[event]] 1: unknown key 'for'",
        ),
        "a lie that nobody knows": ('[[event]]\ndo = "lie"\nnode = 1\nat = 1\nlie = "x"', "1: lie cannot be"),
        "no lie": ('[[event]]\ndo = "lie"\nnode = 1\nat = 1', "[[event]] 1: lie is missing"),
        "another action's key": (
            '[[event]]\ndo = "crash"\nnode = 1\nat = 1\ntempo = 2.0',
            "unknown key 'tempo'",
        ),
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
        "nobody there": ('absent = "all"', "absent: at first 4 of 4 members lie or are out of reach, and 1 may"),
        "too few at first": (
            'absent = ["a", "b"]\n[[event]]\ndo = "start"\nnode = ["a", "b"]\nafter = "round 1"',
            "absent: at first 2 of 4 members",
        ),
        "a network that delivers nothing": ("[network]\nloss = 1.0", "[network]: loss cannot be 1.0"),
        "a network that delivers nothing, by an event": (
            '[[event]]\ndo = "network"\nat = 1\nloss = 0.95',
            "1: loss cannot be",
        ),
        "too many dead": (
            '[[event]]\ndo = "crash"\nnode = "half"\nafter = "round 1"',
            "event 1: after round 1 2 of 4 members lie or are out of reach, and 1 may",
        ),
        "too many dead one by one": (
            '[[event]]\ndo = "crash"\nnode = "a"\nat = 1\n[[event]]\ndo = "lose"\nnode = "b"\nafter = "round 1"',
            "event 1, event 2: after round 1 2 of 4",
        ),
        "a start that may come first": (
            '[[event]]\ndo = "crash"\nnode = ["a", "b"]\nat = 9\n[[event]]\ndo = "start"\nnode = ["a", "b"]\nat = 8',
            "event 1: at first 2 of 4",
        ),
        "others that start": (
            '[[event]]\ndo = "crash"\nnode = "half"\nat = 9\n[[event]]\ndo = "start"\nnode = "half"\nat = 10',
            "event 1: at first 2 of 4",
        ),
        "a liar and a dead member of four": (
            '[[event]]\ndo = "lie"\nnode = "a"\nat = 1\nlie = "forks"\n[[event]]\ndo = "crash"\nnode = "b"\nat = 1',
            "event 1, event 2: at first 2 of 4",
        ),
        "two of two": (
            '[charter]\nfault_model = "crash"\n[[event]]\ndo = "crash"\nnode = [0, 1]\nat = 1',
            "event 1: at first 2 of 4 members lie or are out of reach, and 1 may",
        ),
        "halves until a round that neither closes": (
            '[[event]]\ndo = "partition"\nnode = "half"\nat = 1\nuntil = "round 1"',
            "event 1: at first 2 of 4",
        ),
        "a partition for good": ('[[event]]\ndo = "partition"\nnode = 0\nat = 1', "event 1 cuts nodes off for good"),
        "a partition that is healed before": (
            '[[event]]\ndo = "heal"\nat = 1\n[[event]]\ndo = "partition"\nnode = 0\nat = 2',
            "event 2 cuts nodes off for good",
        ),
        "no backup": ('[[event]]\ndo = "restore"\nnode = "a"\nat = 1\nfor = 5', "event 1.node has no backup"),
        "a backup that comes later": (
            '[[event]]\ndo = "restore"\nnode = 1\nat = 1\nfor = 5\n[[event]]\ndo = "backup"\nnode = 1\nat = 2',
            "event 1.node has no backup",
        ),
        "another one's backup": (
            '[[event]]\ndo = "backup"\nnode = "any"\nat = 1\n[[event]]\ndo = "restore"\nnode = "any"\nat = 2\nfor = 5',
            "event 2.node has no backup",
        ),
        "too few who contribute": (
            '[charter]\nmin_updates = 4\n[[event]]\ndo = "leave-off"\nnode = 1\nat = 1',
            "at first 3 members contribute, and charter.min_updates is 4",
        ),
        "an expulsion by too few": (
            '[charter]\nmin_updates = 1\n[[event]]\ndo = "leave"\nnode = [0, 1]\nat = 1\n[[event]]\ndo = "expel"\n'
            'node = 2\nafter = "round 1"',
            "event 2: after round 1 1 of 2 members",
        ),
        "a member to spare that has left": (
            '[[event]]\ndo = "leave"\nnode = 0\nat = 1\n[[event]]\ndo = "crash"\nnode = 1\nafter = "round 1"',
            "event 2: after round 1 1 of 3 members",
        ),
        "all disks lost at once": (
            '[[event]]\ndo = "lose"\nnode = "all"\nafter = "round 1"\nfor = 100',
            "event 1: after round 1 4 of 4 members",
        ),
        "half of the disks set back": (
            '[[event]]\ndo = "backup"\nnode = "all"\nat = 1\n'
            '[[event]]\ndo = "restore"\nnode = [0, 1]\nafter = "round 1"\nfor = 100',
            "event 2: after round 1 2 of 4 members",
        ),
        "nobody left for the last round": (
            '[[event]]\ndo = "leave"\nnode = "all"\nafter = "round 1"',
            "after round 1 0 members contribute, and charter.min_updates is 2",
        ),
        "too few left for the last round": (
            '[[event]]\ndo = "leave"\nnode = ["a", "b", "c"]\nafter = "round 1"',
            "after round 1 1 members contribute, and charter.min_updates is 2",
        ),
        "a deadline after the end": (
            '[charter]\ndeadline = 600001\n[[event]]\ndo = "hang-learner"\nnode = "a"\nat = 10',
            "event 1: charter.deadline is 600001 ms, and expect.within is 600000",
        ),
        "training after the end": (
            "[pace]\ntraining = [1, 9]\n[expect]\nwithin = 8",
            "pace.training may be 9 ms, and expect.within is 8",
        ),
        "an event after the end": (
            '[[event]]\ndo = "heal"\nat = 9\n[expect]\nwithin = 8',
            "event 1 may end after 9 ms",
        ),
        "everybody without somebody": (
            '[[event]]\ndo = "leave-off"\nnode = 1\nat = 1\nfor = 5\n[expect]\neverybody = true',
            "expect.everybody cannot go with leave-off",
        ),
        "stale under a robust rule": (
            '[charter]\nrule = "median"\n[expect]\nstale = true',
            "expect.stale cannot be under a robust rule",
        ),
        "nothing that is stopped": ("[expect]\nstopped = true", "expect.stopped needs a partition"),
        "somebody honest expelled": (
            '[[event]]\ndo = "crash"\nnode = "a"\nat = 1\n[expect]\nexpelled = "a"',
            "expect.expelled names 'a'",
        ),
        "somebody counted that nobody knows": ('[expect]\ncounted = "a"', "expect.counted names 'a'"),
        "no TOML": ("[[[", "is not TOML"),
    }.values(),
)
def test_a_wrong_file_is_refused_by_name(added: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(CALM + added, "mine.toml")
    assert error.value.message.startswith("mine.toml")
    assert words in error.value.message
    assert error.value.advice


def test_two_under_the_crash_model_can_spare_nobody() -> None:
    dies = '[charter]\nfault_model = "crash"\n[[event]]\ndo = "crash"\nnode = "dead"\nat = 100\n'
    two = CALM.replace("nodes = 4", "nodes = 2")
    with pytest.raises(UsageError, match="event 1: at first 1 of 2 members lie or are out of reach, and 0 may"):
        parse(two + dies, "mine.toml")
    assert play(parse(two + dies + "for = 5000", "mine.toml"), 1).held
    assert play(parse(CALM.replace("nodes = 4", "nodes = 3") + dies, "mine.toml"), 1).held


@pytest.mark.parametrize(
    "added",
    {
        "somebody starts by the clock": 'absent = "all"\n[[event]]\ndo = "start"\nnode = "all"\nat = 500',
        "a partition that is healed": '[[event]]\ndo = "partition"\nnode = 0\nat = 1\n[[event]]\ndo = "heal"\nat = 900',
        "one dead after the other": (
            '[[event]]\ndo = "crash"\nnode = 0\nat = 1\nuntil = "round 1"\n'
            '[[event]]\ndo = "crash"\nnode = 1\nafter = "round 1"\ndelay = 600\nuntil = "round 2"'
        ),
        "a deadline that nothing waits for": "[charter]\ndeadline = 3600000",
        "one disk lost after the other": (
            '[[event]]\ndo = "lose"\nnode = 0\nat = 1\nfor = 5\n'
            '[[event]]\ndo = "lose"\nnode = 1\nafter = "round 1"\nfor = 5'
        ),
        "all are backed up": (
            '[[event]]\ndo = "backup"\nnode = "all"\nat = 1\n[[event]]\ndo = "restore"\nnode = "any"\nat = 2\nfor = 5'
        ),
    }.values(),
)
def test_what_is_possible_is_let_through_and_held(added: str) -> None:
    assert play(parse(CALM + added, "mine.toml"), 1).held


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
        "from collegium.sims.scenarios.play import play; from collegium.sims.scenarios.loading import load;"
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
        "import sys; from collegium.sims.scenarios.seeds import run;"
        "from collegium.sims.scenarios.loading import load;"
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
    outcomes = list(
        many.run([(calm, seed) for seed in range(9)], lambda _what, done, total: seen.append((done, total)))
    )
    assert sorted(outcome.seed for outcome in outcomes) == list(range(9))
    assert all(outcome.held for outcome in outcomes)
    assert seen[-1] == (9, 9)
    assert {outcome.seed: outcome.trace for outcome in outcomes}[3] == play(calm, 3).trace


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
    monkeypatch.setattr(feeds, "note_fork", lambda _core, _record: None)
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
    monkeypatch.undo()
    assert play(shortest, failure.shortest.seed).held


DEAD = """
[charter]
deadline = 1000
[network]
duplicate = 0.1
[[event]]
do = "crash"
node = "dead"
after = "round 1"
[[event]]
do = "slow"
node = "other"
at = 0
lag = 50
[expect]
within = 7000
idle = true
"""
UNSAID = """
[[event]]
do = "break-learner"
node = "broken"
after = "round 1"
[[event]]
do = "crash"
node = "other"
after = "round 1"
for = 300
[expect]
notices = ["training-failed"]
idle = true
"""
LEFT_OUT = """
[pace]
training = [5, 400]
[[event]]
do = "clock"
node = "fast"
at = 0
tempo = 30.0
[[event]]
do = "crash"
node = "other"
at = 100
for = 50
[expect]
everybody = true
"""


def deaf(core: NodeState, timer: Timer, real: Any = core_module._on_timer) -> None:
    if not isinstance(timer, RoundDeadline):
        real(core, timer)


def discreet(core: NodeState, event: str, level: str = "info", real: Any = NodeState.notice, **fields: object) -> None:
    if event != "training-failed":
        real(core, event, level, **fields)


@pytest.mark.parametrize(
    ("scenario", "part", "broken", "promise", "kept"),
    [
        (CALM.replace("rounds = 2", "rounds = 4") + DEAD, (core_module, "_on_timer"), deaf, "expect.rounds", ["crash"]),
        (CALM + UNSAID, (NodeState, "notice"), discreet, "expect.notices", ["break-learner"]),
        (
            CALM + LEFT_OUT,
            (candidates, "is_punctual"),
            lambda _core, _state, _name, _mine: True,
            "expect.everybody",
            [],
        ),
    ],
)
def test_what_an_expectation_rests_on_stays(
    monkeypatch: pytest.MonkeyPatch, scenario: str, part: tuple[Any, str], broken: Any, promise: str, kept: list[str]
) -> None:
    """The shortest scenario shows the fault and nothing else: with the fault mended it holds."""
    whole = parse(scenario, "whole")
    with monkeypatch.context() as patched:
        patched.setattr(*part, broken)
        failed = next(outcome for outcome in (play(whole, seed) for seed in range(1, 9)) if not outcome.held)
        assert failed.promise == promise
        shortest, how = minimise(whole, failed)
        assert [event.do for event in shortest.events] == kept
        assert play(shortest, how.seed).promise == promise
    assert shortest.charter == whole.charter
    assert not shortest.expect.idle
    for seed in (how.seed, 1, 2, 3):
        assert play(shortest, seed).held


def test_a_liar_without_time_to_lie_is_no_fault_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "note_fork", lambda _core, _record: None)
    late = NOISY.replace("at = 0\nlie", 'after = "round 2"\ndelay = 60000\nlie')
    outcome = play(parse(late, "late"), 1)
    assert outcome.promise == "scenario"
    assert "had no occasion to lie" in outcome.what


def some_expectations() -> list[Any]:
    parameters = []
    for name in shipped():
        expect = load(name).expect
        for key in ("rounds", "expelled", "refused", "notices", "counted", "everybody", "stale", "stopped"):
            if getattr(expect, key):
                marks = (
                    ()
                    if (name, key) in (("dead-member", "rounds"), ("expelled-by-motion", "expelled"))
                    else pytest.mark.soak
                )
                parameters.append(pytest.param(name, f"expect.{key}", marks=marks))
    return parameters


@pytest.mark.parametrize(("name", "promise"), some_expectations())
def test_whatever_is_simpler_holds_with_the_code_as_it_is(name: str, promise: str) -> None:
    scenario = load(name)
    simpler = list(_simpler_scenarios(replace(scenario, expect=_only_failed(scenario, promise)), promise))
    for candidate in simpler:
        outcome = play(candidate, 1)
        assert outcome.promise in ("", "scenario"), f"{outcome.promise}: {outcome.what}\n{dump(candidate)}"
    assert simpler or promise != "expect.rounds" or not scenario.events


def test_a_broken_promise_shrinks_beyond_what_expectations_rest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collegium.consensus.agreement.quorum", lambda members, _model: members // 2)
    text = CALM + DEAD + '[[event]]\ndo = "partition"\nnode = 0\nat = 50\n[[event]]\ndo = "heal"\nat = 90\n'
    whole = parse(text, "whole")
    failed = play(whole, 1)
    assert failed.promise == "G2"
    shortest, how = minimise(whole, failed)
    assert how.promise == "G2"
    assert not shortest.events
    assert not shortest.charter
    assert shortest.expect == Expect(1, within=7000)


def test_no_simpler_scenario_is_impossible() -> None:
    text = CALM + DEAD + '[[event]]\ndo = "partition"\nnode = 0\nat = 50\n[[event]]\ndo = "heal"\nat = 90\n'
    for candidate in _simpler_scenarios(parse(text, "whole"), "G2"):
        actions = [event.do for event in candidate.events]
        assert "heal" in actions or "partition" not in actions


def test_shrinking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    def never(_scenario: Scenario, seed: int) -> Outcome:
        nonlocal runs
        runs += 1
        return replace(failed, seed=seed, promise="")

    scenario = parse(NOISY, "noisy")
    failed = Outcome("noisy", 1, "G2", "two blocks", "", 0, 0, 0, 0.0)
    monkeypatch.setattr("collegium.sims.scenarios.minimise.play", never)
    assert minimise(scenario, failed) == (scenario, failed)
    assert 0 < runs <= MAX_RUNS


def test_a_core_that_falls_over_is_a_broken_promise_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(_core: NodeState) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(updates, "acknowledge", stumbles)
    outcome = play(parse(CALM, "calm"), 3)
    assert (outcome.promise, outcome.seed) == ("G9", 3)
    assert "a bug" in outcome.what


def test_a_mistake_of_the_simulator_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_cluster: Cluster, _sender: Node, *_rest: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Cluster, "broadcast", breaks)
    assert play(parse(CALM, "calm"), 3).promise == "error"


def test_a_suspended_host_fetches_nothing_that_it_is_not_asked_to_acknowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow line is for the state and the rounds that are agreed on."""
    carry_out, asked, outside = Node._carry_out, 0, 0

    def watched(node: Node, effect: ev.Effect) -> None:
        nonlocal asked, outside
        if isinstance(effect, ev.Pull) and effect.header is not None and node.core is not None:
            component = node.core.ledger.components[effect.header.component]
            asked += 1
            outside += bool(component.round) and node.core.me not in component.hosts
        carry_out(node, effect)

    monkeypatch.setattr(Node, "_carry_out", watched)
    outcome = play(load("silent-host"), 1)
    assert outcome.held, outcome
    assert asked
    assert not outside


def test_who_was_suspended_or_comes_late_offers_when_it_has_the_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an update that cannot be made yet."""
    append, offered = NodeState.append, 0

    def watched(core: NodeState, body: Body) -> None:
        nonlocal offered
        if isinstance(body, Offer) and core.me not in core.ledger.offers and core.ledger.height > 1:
            offered += 1
            assert all(core.is_current(name) for name in core.hosted)
        append(core, body)

    monkeypatch.setattr(NodeState, "append", watched)
    for name in ("silent-host", "member-joins"):
        outcome = play(load(name), 1)
        assert outcome.held, outcome
    assert offered >= 2


def path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core plays in one process")
def test_workers_end_with_who_started_them() -> None:
    code = (
        "from collegium.sims.scenarios.seeds import run; from collegium.sims.scenarios.loading import load\n"
        "if __name__ == '__main__':\n"
        "    for _ in run([(load('calm'), seed) for seed in range(10_000)]): print('one', flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=path())
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"one\n"
        workers = [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
        child.kill()
        child.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_partitions_that_overlap_do_not_heal_each_other() -> None:
    running = Play(load("partitions-in-a-storm"), 1)
    cluster = running.cluster
    one = ACTIONS["partition"].run(running, cluster.nodes[:2], {})
    other = ACTIONS["partition"].run(running, cluster.nodes[1:3], {})
    assert one is not None
    assert other is not None
    one()
    assert cluster.linked(0, 5)
    assert not cluster.linked(1, 5)
    assert not cluster.linked(0, 1)
    other()
    assert not cluster.cut_off
