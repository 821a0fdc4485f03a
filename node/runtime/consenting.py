"""A daily look at the students' consents, by the clock in UTC: the data are read anew, whoever's consent has ended.

Others may see that the learner reads. So it does at the same time on each day, whether a consent has ended or not, and
reads for all the time until the next look: who lapses before that is out from the start (ADR 35).
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import structlog
import trio

from ...crypto.errors import CollegiumError
from ..data.manifest import read_manifest
from ..home.config import Config
from ..home.timetable import Timetable, timetable

LOOK_EVERY = 30.0  # seconds at most between two looks at the clock: it may be set, and the machine may have slept
Clock = Callable[[], datetime]

log = structlog.get_logger(__name__)


def utc() -> datetime:
    """Return the time it is."""
    return datetime.now(UTC)


def look_of(config: Config) -> Timetable:
    """Return when a node looks."""
    look = timetable(config.unlearning.consent_look)
    assert look is not None, "config.toml names a time"
    return look


def last_day(look: Timetable, moment: datetime) -> date:
    """Return the last day on which data that are read at a moment are used: a consent has to hold on it."""
    return (look.next(moment) - timedelta(microseconds=1)).date()


def asks(config: Config) -> bool:
    """Whether the node's dataset.toml names a column of consents; False where it cannot be read."""
    if config.data.path is None:
        return False
    try:
        return read_manifest(config.data.path).consent is not None
    except CollegiumError:
        return False


async def keep_consents(
    look: Timetable, wanted: Callable[[], bool], reopen: Callable[[], Awaitable[None]], clock: Clock = utc
) -> None:
    """Read the data anew at each look where consents are `wanted`, until cancelled."""
    due = look.next(clock())
    while True:
        await trio.sleep(min(LOOK_EVERY, max((due - clock()).total_seconds(), 0.0) + 0.01))
        if clock() < due:
            continue
        due = look.next(clock())
        if wanted():
            log.info("the data are read again, to look at the consents", again_at=due.isoformat())
            await reopen()
