"""The time at which scheduled withdrawals are made: of each day, week or month."""

from datetime import datetime

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.home.config import parse
from collegium.node.home.timetable import timetable

MONDAY = datetime(2026, 9, 7, 12, 30)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("02:00", "2026-09-08 02:00"),
        ("12:31", "2026-09-07 12:31"),
        ("12:30", "2026-09-08 12:30"),
        ("Sun 02:00", "2026-09-13 02:00"),
        ("mon 12:30", "2026-09-14 12:30"),
        ("1 02:00", "2026-10-01 02:00"),
        ("28 23:59", "2026-09-28 23:59"),
    ],
)
def test_the_next_time_comes_after_now(text: str, following: str) -> None:
    fixed = timetable(text)
    assert fixed is not None
    assert str(fixed.next(MONDAY)) == f"{following}:00"


@pytest.mark.parametrize(
    "text", ["2:00", "24:00", "Sunday 02:00", "29 02:00", "0 02:00", "Sun", "02:00 Sun", "So 02:00"]
)
def test_what_is_no_such_time_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(UsageError, match="schedule") as error:
        parse(f'[unlearning]\nschedule = "{text}"', "config.toml")
    assert '"Sun 02:00"' in error.value.advice
    assert timetable("") is None
