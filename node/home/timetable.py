"""When a house does what it does regularly: a time of the day, the week or the month. A setting says in which zone.

Written "02:00" (every day), "Sun 02:00" or "1 02:00" (the first of each month; days up to the 28th).
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from .quiet import DAYS

ALLOWED = 'a time such as "02:00", "Sun 02:00" or "1 02:00" (the first of a month), or "" for none'
LAST_DAY = 28  # of a month: every month has it
_FORM = re.compile(r"(?:(?P<name>[A-Za-z]{3}) |(?P<day>\d{1,2}) )?(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)")


@dataclass(frozen=True, slots=True)
class Timetable:
    """A time that comes again: each day, or on a `weekday` (0 is Monday), or on a `day` of the month."""

    hour: int
    minute: int
    weekday: int | None = None
    day: int | None = None

    def next(self, moment: datetime) -> datetime:
        """Return the first such time after a moment."""
        due = moment.replace(hour=self.hour, minute=self.minute, second=0, microsecond=0)
        while due <= moment or not self._is_day(due):
            due += timedelta(days=1)
        return due

    def _is_day(self, moment: datetime) -> bool:
        if self.weekday is not None:
            return moment.weekday() == self.weekday
        return self.day is None or moment.day == self.day


def timetable(text: str) -> Timetable | None:
    """Return the timetable that a text states; None for "". Raises ValueError with what is allowed."""
    if not text:
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(ALLOWED)
    weekday = None if match["name"] is None else _weekday(match["name"])
    day = None if match["day"] is None else int(match["day"])
    if day is not None and not 1 <= day <= LAST_DAY:
        raise ValueError(f"{ALLOWED}; days of the month from 1 to {LAST_DAY}")
    return Timetable(int(match["hour"]), int(match["minute"]), weekday, day)


def check(value: object) -> str:
    """Return a value of config.toml that states a timetable. Raises ValueError with what is allowed."""
    if type(value) is not str:
        raise ValueError(ALLOWED)
    timetable(value)
    return value


def check_set(value: object) -> str:
    """Return a value that states a timetable, and not none. Raises ValueError with what is allowed."""
    text = check(value)
    if not text.strip():
        raise ValueError(ALLOWED.removesuffix(', or "" for none'))
    return text


def _weekday(name: str) -> int:
    try:
        return DAYS.index(name.capitalize())
    except ValueError:
        raise ValueError(f"{ALLOWED}; days are {', '.join(DAYS)}") from None
