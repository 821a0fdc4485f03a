"""From a failing run to the shortest scenario that still breaks the same promise."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..crypto.errors import UsageError
from .play import Outcome, play
from .scenario import Disk, Event, Scenario, dump, parse

MOST_RUNS = 60
MOST_STEPS = 4  # × the steps of the first failing run: what takes longer is no shorter scenario
SEEDS = 3  # tried for each simpler scenario: another number of nodes is another run altogether


def shrink(
    scenario: Scenario, failed: Outcome, step: Callable[[int, int], None] = lambda _done, _most: None
) -> tuple[Scenario, Outcome]:
    """Return the simplest scenario found in MOST_RUNS runs in which the same promise breaks, and how it broke.

    It drops events and nodes and rounds and calms the network, one after the other, until nothing more can go.
    """
    best, how, runs = scenario, failed, 0
    shrunk = True
    while shrunk:
        shrunk = False
        for simpler in _simpler(best):
            for seed in dict.fromkeys((how.seed, *range(1, SEEDS))):
                if runs >= MOST_RUNS:
                    return best, how
                runs += 1
                step(runs, MOST_RUNS)
                outcome = play(simpler, seed)
                if outcome.promise == failed.promise and outcome.steps <= MOST_STEPS * failed.steps:
                    best, how, shrunk = simpler, outcome, True
                    break
            if shrunk:
                break
    return best, how


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Yield what is a little simpler and can be read back, the greatest steps first."""
    for candidate in _candidates(scenario):
        if candidate == scenario:
            continue
        try:
            yield parse(dump(candidate), "shrunk")
        except UsageError:
            continue


def _candidates(scenario: Scenario) -> Iterator[Scenario]:
    events = scenario.events
    for number, event in enumerate(events):
        if event.do not in ("heal", "start", "backup"):  # without these another scenario would fail in their place
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


def _with_rounds(scenario: Scenario, rounds: int) -> Scenario:
    def fits(event: Event) -> bool:
        return event.after < rounds and event.until <= rounds

    expect = replace(scenario.expect, rounds=min(rounds, scenario.expect.rounds))
    kept = tuple(event for event in scenario.events if fits(event))
    return replace(scenario, rounds=rounds, expect=expect, events=kept)
