"""Quiet hours: spans of the week, by the local time of this machine, in which a node does not train.

A span is written "22:00-06:00" (every day), "Mon-Fri 07:30-18:00" or "Sat,Sun 00:00-24:00". One that ends at or before
the time at which it begins ends on the next day. The days are those on which it begins.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY, WEEK = 24 * 60, 7 * 24 * 60  # minutes
SAMPLE = timedelta(days=7)  # over which rounds are looked at
MIN_PACE = 900.0  # seconds; rounds that follow faster come due at all hours
_SPAN = re.compile(r"(?:(?P<days>[A-Za-z,\-]+) )?(?P<from>\d\d):(?P<from_minute>\d\d)-(?P<to>\d\d):(?P<to_minute>\d\d)")
ALLOWED = 'spans such as "22:00-06:00", "Mon-Fri 07:30-18:00" or "Sat,Sun 00:00-24:00"'


def check(value: object) -> str:
    """Return what is wrong with one span, or ""."""
    try:
        _minutes(value if type(value) is str else "")
    except ValueError:
        return f"{value!r} is none (days are {', '.join(DAYS)})"
    return ""


class QuietHours:
    """The quiet hours of a week. Times are local, without a zone. Raises ValueError for a span that cannot be read."""

    def __init__(self, spans: Sequence[str] = ()) -> None:
        self.spans = tuple(spans)
        self._minutes = frozenset(minute for span in spans for minute in _minutes(span))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._minutes)

    @property
    def never_end(self) -> bool:
        """Whether they are the whole week."""
        return len(self._minutes) == WEEK

    def at(self, moment: datetime) -> bool:
        """Whether a moment is in them."""
        return _minute(moment) in self._minutes

    def change(self, moment: datetime) -> datetime | None:
        """Return when they next begin or end after a moment; None if they never do."""
        now, start = self.at(moment), _minute(moment)
        for ahead in range(1, WEEK + 1):
            if ((start + ahead) % WEEK in self._minutes) != now:
                return moment.replace(second=0, microsecond=0) + timedelta(minutes=ahead)
        return None

    def missed(self, first: datetime, pace: float) -> tuple[int, int]:
        """Return how many rounds come due in them, of those due within a week, if a round is due every `pace` seconds.

        At least `first`, the next one, is looked at. (0, 0) for a pace under a quarter of an hour, or none.
        """
        if pace < MIN_PACE:
            return 0, 0
        due, rounds = first, list[datetime]()
        while due < first + SAMPLE:
            rounds.append(due)
            due += timedelta(seconds=pace)
        return sum(map(self.at, rounds)), len(rounds)


def _minute(moment: datetime) -> int:
    return moment.weekday() * DAY + moment.hour * 60 + moment.minute


def _minutes(span: str) -> set[int]:
    """Return the minutes of the week that a span covers. Raises ValueError."""
    match = _SPAN.fullmatch(span.strip())
    if match is None:
        raise ValueError(span)
    begin, end = _time(match["from"], match["from_minute"]), _time(match["to"], match["to_minute"])
    if begin == DAY:
        raise ValueError(span)
    length = end - begin if end > begin else end - begin + DAY
    days = range(7) if match["days"] is None else _days(match["days"])
    return {(day * DAY + begin + minute) % WEEK for day in days for minute in range(length)}


def _time(hour: str, minute: str) -> int:
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > DAY:
        raise ValueError(hour)
    return minutes


def _days(text: str) -> set[int]:
    days = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = DAYS.index(first.capitalize())
        length = (DAYS.index(last.capitalize()) - begin) % 7 if dash else 0
        days |= {(begin + day) % 7 for day in range(length + 1)}
    return days
