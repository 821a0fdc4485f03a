"""Waiting for a missing data folder: a share that is not mounted, an export that is being written.

The daemon runs meanwhile, since votes and folds need no data, and restarts by itself when dataset.toml is there: the
components of a node depend on it.
"""

from contextlib import suppress
from itertools import chain

import structlog
import trio

from ...crypto.errors import CollegiumError, RemoteProtocolError
from ...protocol.charter import Charter
from ...protocol.records import Body, Offer, Record, body_of
from ..core.events import Snapshot
from ..data.manifest import MANIFEST
from ..home.config import Config
from ..home.policies import wanted_components
from ..patience import in_thread

log = structlog.get_logger(__name__)

MIN_BACKOFF, MAX_BACKOFF = 1.0, 60.0


def missing_data(config: Config) -> str:
    """Return the reason why the configured data folder's dataset.toml cannot be read, or "".

    A node without a data folder, or with a learner of its own, waits for none.
    """
    folder = config.data.path
    if folder is None or config.learning.learner:
        return ""
    try:
        with (folder / MANIFEST).open("rb"):
            return ""
    except OSError as error:
        return f"{folder / MANIFEST}: {error.strerror}"


def held_before(config: Config, charter: Charter, snapshot: Snapshot, me: bytes) -> tuple[str, ...]:
    """Return the components to host without the data: those of the last offer, else all that this node engages."""
    components = {spec.name for spec in charter.components}
    records = chain(reversed(snapshot.records), (r for b in reversed(snapshot.blocks) for r in reversed(b.records)))
    own = (record.value for record in records if record.value.author == me and record.value.kind == "offer")
    names = next((body.components for body in map(_body, own) if isinstance(body, Offer)), components)
    return tuple(sorted(name for name in names if name in components and config.learning.engages(name)))


def _body(record: Record) -> Body | None:
    with suppress(RemoteProtocolError):  # malformed: the ledger refuses it by name
        return body_of(record)
    return None


class DataFolder:
    """The node's data folder: whether it was there at the start, and is there now."""

    def __init__(self, config: Config, charter: Charter) -> None:
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
                    await in_thread(wanted_components, self._config, self._charter)
                except CollegiumError as error:  # half written, say
                    reason = str(error)
                else:
                    return
            if reason != logged:
                log.warning("no data yet; they are looked for again", reason=reason)
            logged = reason
