"""Quiet hours by this machine's clock: the core is told when they begin and when they end."""

from collections.abc import Callable
from datetime import datetime

import trio

from ..core import events as ev
from ..home.quiet import QuietHours

LOOK_EVERY = 30.0  # seconds at most between two looks: the clock may be set, and the machine may have slept


async def keep_quiet(
    hours: QuietHours, submit: Callable[[ev.Event], None], clock: Callable[[], datetime] = datetime.now
) -> None:
    """Tell the core of each beginning and end, until cancelled; nothing where there are no quiet hours."""
    while hours:
        now = clock()
        submit(ev.SetQuiet(hours.at(now)))  # the same again changes nothing
        change = hours.change(now)
        left = LOOK_EVERY if change is None else (change - now).total_seconds()
        await trio.sleep(min(LOOK_EVERY, max(left, 0.0) + 0.01))
