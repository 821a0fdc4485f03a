"""Waiting for a missing data folder: a share that is not mounted, an export that is being written.

The daemon runs meanwhile, since votes and folds need no data, and restarts by itself when dataset.toml is there: the
components of a node depend on it.
"""

from collections.abc import Callable

import structlog
import trio

from ...crypto.errors import CollegiumError
from ...protocol.charter import Charter
from ..home.away import missing_data
from ..home.config import Config
from ..home.policies import wanted_components
from ..patience import in_thread

log = structlog.get_logger(__name__)

MIN_BACKOFF, MAX_BACKOFF = 1.0, 60.0


class DataFolder:
    """The node's data folder: whether it was there at the start, and is there now."""

    def __init__(self, config: Config, charter: Callable[[], Charter]) -> None:
        self._config, self._charter = config, charter
        self.missing = missing_data(config)  # at the start: the reason
        self.gone = ""  # the reason why data that were there at the start cannot be read now

    async def look(self) -> None:
        """Check whether the folder has gone since the start, or is back."""
        if self.missing:
            return
        reason = await in_thread(missing_data, self._config)
        if reason and reason != self.gone:
            log.warning("the data folder is not there any more", reason=reason)
        elif self.gone and not reason:
            log.info("the data folder is back", folder=str(self._config.data.path))
        self.gone = reason

    async def wait(self) -> None:
        """Wait, with backoff, until dataset.toml is there and a daemon can start with it."""
        backoff, logged = MIN_BACKOFF, ""
        while True:
            await trio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF)
            reason = await in_thread(missing_data, self._config)
            if not reason:
                try:
                    await in_thread(wanted_components, self._config, self._charter())
                except CollegiumError as error:  # half written, say
                    reason = str(error)
                else:
                    return
            if reason != logged:
                log.warning("no data yet; they are looked for again", reason=reason)
            logged = reason
