"""Quiet hours: which minutes of the week they are, when they next change, and which rounds come due in them."""

from datetime import datetime, timedelta

import pytest
import trio
import trio.testing

from collegium.crypto.errors import UsageError
from collegium.node.core import events as ev
from collegium.node.home.config import parse
from collegium.node.home.quiet import QuietHours, check
from collegium.node.runtime.resting import keep_quiet

MONDAY = datetime(2026, 9, 7)  # 2026-09-07 is one


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute, seconds=second)


def test_a_span_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    every, friday = QuietHours(["22:00-06:00"]), QuietHours(["Fri 22:00-06:00"])
    assert [every.at(at(0, hour)) for hour in (21, 22, 0, 5, 6)] == [False, True, True, True, False]
    assert every.at(at(0, 5, 59, 59))
    assert [friday.at(moment) for moment in (at(4, 5), at(4, 23), at(5, 5), at(5, 6))] == [False, True, True, False]
    sunday = QuietHours(["Sun 22:00-06:00"])
    assert sunday.at(at(0, 3)), "the week goes round"


def test_days_are_lists_and_ranges_and_spans_add_up() -> None:
    hours = QuietHours(["Mon-Fri 07:30-18:00", "sat,Sun 00:00-24:00", "Fri-Mon 20:00-21:00"])
    assert [hours.at(at(day, 12)) for day in range(7)] == [True] * 7
    assert [hours.at(at(day, 7, 29)) for day in range(7)] == [False] * 5 + [True] * 2
    assert [hours.at(at(day, 20, 30)) for day in range(7)] == [True, False, False, False, True, True, True]


def test_the_next_change_is_to_the_minute_and_may_be_days_ahead() -> None:
    hours = QuietHours(["Mon-Fri 07:30-18:00"])
    assert hours.change(at(0, 7, 29, 59)) == at(0, 7, 30)
    assert hours.change(at(0, 7, 30)) == at(0, 18)
    assert hours.change(at(4, 18)) == at(7, 7, 30)
    assert QuietHours().change(MONDAY) is None


@pytest.mark.parametrize(
    "span", ["22-06", "7:30-18:00", "24:00-06:00", "22:60-23:00", "Mo 08:00-09:00", "25:00-26:00", ""]
)
def test_what_is_no_span_is_refused_with_what_is(span: str) -> None:
    assert check(span)
    with pytest.raises(UsageError, match="quiet_hours") as error:
        parse(f'[learning]\nquiet_hours = ["{span}"]', "config.toml")
    assert "22:00-06:00" in str(error.value.advice)


def test_the_whole_week_is_refused_with_what_to_write() -> None:
    with pytest.raises(UsageError, match="whole week") as error:
        parse('[learning]\nquiet_hours = ["00:00-12:00", "12:00-24:00"]', "config.toml")
    assert "contribute = false" in error.value.advice


def test_the_rounds_of_a_week_that_come_due_in_them_are_counted() -> None:
    hours = QuietHours(["Mon-Fri 07:30-18:00"])
    assert hours.missed(at(0, 9), 86_400.0) == (5, 7)
    assert hours.missed(at(0, 19), 86_400.0) == (0, 7)
    assert hours.missed(at(0, 9), 30 * 86_400.0) == (1, 1), "the next one, however far the others"
    assert hours.missed(at(0, 9), 1.0) == (0, 0), "rounds by the second come due at all hours"


def test_the_core_is_told_when_they_begin_and_end_by_the_clock_as_it_is_set() -> None:
    told, times = list[ev.Event](), [at(0, 21, 59, 59), at(0, 22), at(0, 23), at(0, 5)]

    async def run() -> None:
        with trio.move_on_after(1000):
            await keep_quiet(QuietHours(["22:00-06:00"]), told.append, lambda: times.pop(0) if times else at(0, 6))

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert told[:5] == [ev.SetQuiet(on) for on in (False, True, True, True, False)]
    told.clear()
    trio.run(keep_quiet, QuietHours(), told.append)
    assert not told, "without any, nothing is watched"
