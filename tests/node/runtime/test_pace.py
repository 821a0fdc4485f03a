"""When an update leaves does not tell how long its training took, and so not whose records were drawn (G6)."""

from math import nan
from typing import Any

import pytest
import trio
import trio.testing

from collegium.node.core import events as ev
from collegium.node.learner.answers import Trained
from collegium.node.runtime.pace import QUANTUM, SHARE, Pace

# A student with 16 records among 300 shows like this, seconds: with and without them.
TIMES = [0.0195, 0.023, 0.032, 0.0211, 0.019, 0.0301]


def test_g6_trainings_of_different_lengths_seem_alike() -> None:
    pace = Pace(15.0)
    assert {pace.leaves(time + 0.004, time) for time in TIMES} == {2 * QUANTUM}


def test_g6_a_longer_training_shows_once_and_not_again() -> None:
    pace = Pace(15.0)
    lasts = [pace.leaves(seconds, seconds) for seconds in (0.05, 0.35, 0.02, 0.39, 0.3, 0.05)]
    assert lasts == [QUANTUM, *[4 * QUANTUM] * 5]


def test_what_the_learner_did_before_is_rounded_up_and_changes_no_level() -> None:
    pace = Pace(15.0)
    assert pace.leaves(3.031, 0.02) == pytest.approx(3.1 + QUANTUM)
    assert pace.leaves(0.02, 0.02) == QUANTUM


def test_nobody_waits_for_more_than_a_part_of_the_rounds_deadline() -> None:
    pace = Pace(2.0)
    assert pace.leaves(9.0, 9.0) == 9.0
    assert pace.leaves(0.01, 0.01) == pace.most == 2.0 / SHARE
    assert Pace(0.1).leaves(0.0001, 0.0001) < 0.01


@pytest.mark.parametrize("seconds", [nan, -1.0, 1e9])
def test_a_learner_that_tells_no_time_is_taken_to_have_trained_all_the_while(seconds: float) -> None:
    pace = Pace(15.0)

    async def left() -> float:
        asked = trio.current_time()
        await trio.sleep(0.15)
        await pace.wait(asked, seconds)
        return trio.current_time() - asked

    assert trio.run(left, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(2 * QUANTUM)


def test_g6_the_daemon_hands_an_update_on_at_a_time_that_its_students_do_not_change(runtime: Any) -> None:
    handed: list[float] = []
    durations = iter(TIMES)

    async def request(_: object) -> Trained:
        seconds = next(durations)
        await trio.sleep(seconds + 0.003)  # messages take time as well
        return Trained({}, seconds)

    async def nothing(*_: object, **__: object) -> dict[str, bytes]:
        return {}

    async def rounds() -> None:
        for number in range(1, len(TIMES) + 1):
            begun = trio.current_time()
            runtime.jobs.submit = lambda _event, begun=begun: handed.append(trio.current_time() - begun)
            await runtime.jobs.train(ev.Train(number, (), 1, 1, 1000))

    runtime.learner.request = request
    runtime.jobs._states = runtime.notes.add = runtime.jobs._personalise = nothing
    runtime.jobs._pack = lambda *_: {}
    trio.run(rounds, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(handed) == len(TIMES)
    assert max(handed) - min(handed) < 1e-6
