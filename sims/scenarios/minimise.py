"""From a failing run to the shortest scenario that still shows the fault.

A broken promise (G1 to G9) is a fault in every scenario that `feasibility.check` lets through, so anything may go. What
an
*expectation* rests on has to stay, or the shorter scenario would fail with correct code too:

    all but idle      the charter, the pace, the time; every start and heal. The network may only grow calmer
    rounds, everybody slow links, clocks and network go all at once: one event may undo an earlier one. Nodes go only
                      when no event is left and no disk fails: fewer can spare fewer
    expelled          its lie, and the motion to expel it; a run in which it never lies breaks "scenario" (play.py)
    stopped, stale    rounds, nodes, partitions; for stale also the network and whatever slows anybody down
    notices, refused  rounds, and the actions that cause the words (CAUSES); for words without known causes: all
    counted           rounds, nodes, and the events of nodes that have to be counted
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...crypto.errors import UsageError
from ..simulator.network import Disk, NetworkConditions
from .loading import dump, parse
from .play import Outcome, play
from .scenario import Event, Expect, Scenario

MAX_RUNS = 60
MAX_STEPS = 4  # × the steps of the first failing run: what takes longer is no shorter scenario
SEEDS = 3  # tried for each simpler scenario: another number of nodes is another run altogether
SETTINGS = ("slow", "clock", "network")
CAUSES = {
    "admitted": "join",
    "budget-spent": "spend-budget",
    "double-vote": "lie",
    "fork": "lie",
    "training-failed": "break-learner",
}


def minimise(
    scenario: Scenario, failed: Outcome, step: Callable[[int, int], None] = lambda _done, _most: None
) -> tuple[Scenario, Outcome]:
    """Return the simplest scenario found in MAX_RUNS runs in which the same promise breaks, and how it broke.

    It drops events and nodes and rounds and calms the network, one after the other, until nothing more can go.
    """
    best, how, runs = scenario, failed, 0
    minimised = True
    while minimised:
        minimised = False
        for simpler in _simpler_scenarios(best, failed.promise):
            for seed in dict.fromkeys((how.seed, *range(1, SEEDS))):
                if runs >= MAX_RUNS:
                    return best, how
                runs += 1
                step(runs, MAX_RUNS)
                outcome = play(simpler, seed)
                if outcome.promise == failed.promise and outcome.steps <= MAX_STEPS * failed.steps:
                    best, how, minimised = simpler, outcome, True
                    break
            if minimised:
                break
    return best, how


def _simpler_scenarios(scenario: Scenario, promise: str) -> Iterator[Scenario]:
    """Yield what is a little simpler, can be read back and still has to hold, the greatest steps first."""
    for candidate in _candidates(scenario, promise):
        if candidate == scenario or not _sound(scenario, candidate, promise):
            continue
        try:
            yield parse(dump(candidate), "minimised")
        except UsageError:
            continue


def _candidates(scenario: Scenario, promise: str) -> Iterator[Scenario]:
    events = scenario.events
    yield replace(scenario, expect=_only_failed(scenario, promise))
    for kind in dict.fromkeys(event.do for event in events):
        yield replace(scenario, events=tuple(event for event in events if event.do != kind))
    for number in range(len(events)):
        yield replace(scenario, events=(*events[:number], *events[number + 1 :]))
    yield replace(scenario, disk=Disk())
    yield replace(scenario, network={})
    for key in scenario.network:
        yield replace(scenario, network={k: v for k, v in scenario.network.items() if k != key})
    for rounds in dict.fromkeys((1, scenario.rounds // 2, scenario.rounds - 1)):
        if 0 < rounds < scenario.rounds:
            yield _with_rounds(scenario, rounds)
    for nodes in (4, scenario.nodes - 1):
        if 1 < nodes < scenario.nodes:
            yield replace(scenario, nodes=nodes)
    for key in scenario.charter:
        yield replace(scenario, charter={k: v for k, v in scenario.charter.items() if k != key})


def _only_failed(scenario: Scenario, promise: str) -> Expect:
    """Return the expectation that failed alone, with the rounds and the time that it had."""
    whole, key = scenario.expect, promise.removeprefix("expect.")
    kept = {name: getattr(whole, name) for name in ("rounds", "within", "alarms", key) if hasattr(whole, name)}
    return Expect(**kept)


def _with_rounds(scenario: Scenario, rounds: int) -> Scenario:
    def fits(event: Event) -> bool:
        return event.after < rounds and event.until <= rounds

    expect = replace(scenario.expect, rounds=min(rounds, scenario.expect.rounds))
    kept = tuple(event for event in scenario.events if fits(event))
    return replace(scenario, rounds=rounds, expect=expect, events=kept)


# ---- what an expectation rests on


def _sound(before: Scenario, after: Scenario, promise: str) -> bool:
    """Whether correct code that meets this expectation before meets it after."""
    if not promise.startswith("expect.") or promise == "expect.idle":
        return True
    key, expect = promise.removeprefix("expect."), before.expect
    gone = [event for event in before.events if event not in after.events]
    kinds = {event.do for event in gone}
    if (
        before.charter != after.charter
        or kinds & {"start", "heal"}
        or not _is_calmer(after.conditions, before.conditions)
    ):
        return False
    fewer_nodes, fewer_rounds = after.nodes < before.nodes, after.rounds < before.rounds
    if key in ("rounds", "everybody"):
        mended = kinds & {event.do for event in after.events} & set(SETTINGS)
        stormy = "network" in kinds and before.network
        return not (mended or stormy or (fewer_nodes and (after.events or after.disk.crash)))
    if key == "expelled":
        return not any(event.do in ("lie", "expel") and set(event.node) & set(expect.expelled) for event in gone)
    if key == "counted":
        return not (fewer_nodes or fewer_rounds or any(set(event.node) & set(expect.counted) for event in gone))
    if key == "stopped":
        return not (fewer_nodes or fewer_rounds or "partition" in kinds)
    if key == "stale":
        calm = before.conditions == after.conditions and before.disk == after.disk
        return calm and not (fewer_nodes or fewer_rounds or kinds & {*SETTINGS, "partition", "crash"})
    causes = {CAUSES.get(word) for word in expect.notices} if key == "notices" else {"lie"}
    happened = None not in causes and causes <= {event.do for event in before.events}
    return not fewer_rounds and not kinds & causes and (happened or replace(before, expect=after.expect) == after)


def _is_calmer(candidate: NetworkConditions, current: NetworkConditions) -> bool:
    def troubles(network: NetworkConditions) -> tuple[float, ...]:
        late = network.late if network.reorder else (0, 0)
        return (*network.delay, network.loss, network.duplicate, network.reorder, network.spread, *late)

    return all(a <= b for a, b in zip(troubles(candidate), troubles(current), strict=True))
