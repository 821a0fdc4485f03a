"""The daemon's watch over its own notes: it reports to its operator what begins and what ends."""

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from ...crypto.errors import CollegiumError
from ..home.config import Alarm
from ..home.paths import Home
from ..patience import in_thread
from ..views.note import OF_THE_DATA, Note
from . import record
from .backoff import LONGEST, Backoff
from .deliver import deliver
from .due import due, message, watched
from .record import Raised

log = structlog.get_logger(__name__)

EVERY = 5.0  # seconds between two looks


class Watch:
    """Alarms of one daemon."""

    def __init__(self, home: Home, to: Alarm, node: str, federation: str):
        self._home, self._to, self._names = home, to, (node, federation)
        self._failed = ""  # why the last message did not arrive: said once in the log
        self._backoff = Backoff()

    async def run(self, look: Callable[[], Awaitable[Sequence[Note]]]) -> None:
        """Look at the notes again and again. A message that does not arrive is sent again, ever more rarely."""
        raised = await in_thread(record.load, self._home)
        while True:
            await trio.sleep(EVERY)
            try:
                notes = await look()
            except CollegiumError as error:  # a damaged peers.json, say: no reason for the daemon to end
                log.error("the notes cannot be looked at; it is tried again", error=str(error))
                continue
            raised = await self.look(raised, notes, time.time())

    async def look(self, raised: Sequence[Raised], notes: Sequence[Note], now: float) -> tuple[Raised, ...]:
        """Report what is due; return the problems that last, as they are on disk now.

        A webhook may be outside of this house: it hears nothing of the notes that tell of the students' data (G6).
        What was reported goes to disk after it: a daemon that is killed in between reports it once more.
        """
        if self._to.webhook:
            notes = [note for note in notes if note.kind not in OF_THE_DATA]
        lasting = watched(raised, notes, now)
        messages = due(lasting, notes, now, self._to.after_seconds)
        for report in messages if self._backoff.over(trio.current_time()) else ():
            try:
                await deliver(self._to, message(report.change, report.raised, *self._names))
            except CollegiumError as error:
                self._backoff = self._backoff.failed(trio.current_time())
                if str(error) != self._failed:
                    log.error(
                        "an alarm cannot be delivered; it is tried again, ever more rarely",
                        error=str(error),
                        next_in_seconds=self._backoff.wait,
                        at_most_seconds=LONGEST,
                    )
                self._failed = str(error)
                break  # the others would wait as long, and fail as well
            self._failed, self._backoff = "", Backoff()
            log.info("alarm", what=report.change.value, kind=report.raised.kind.value, found=report.raised.found)
            lasting = tuple(
                new for old in lasting if (new := report.after if old is report.raised else old) is not None
            )
            await in_thread(record.save, self._home, lasting)
        if lasting != tuple(raised):
            await in_thread(record.save, self._home, lasting)
        return lasting
