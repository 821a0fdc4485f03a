"""The daemon's process: reading its home, locking it, and the final error."""

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
import trio

from ...crypto.errors import CollegiumError, RefusedError, UsageError
from ...crypto.identity import Identity
from ...protocol.charter import Charter, SignedCharter, load_file, unsigned_members
from ..home import keys, lock
from ..home.config import Config
from ..home.config import load as load_config
from ..home.paths import Home
from ..scarce import raise_limit
from ..store.database import Store
from . import logs
from .runtime import Runtime

log = structlog.get_logger(__name__)

FEW_DESCRIPTORS = 512


def load(home: Home, passphrase: str | None) -> tuple[Config, Charter, SignedCharter, Identity]:
    """Read the daemon's files from its home, with a clear error for each that is not in order."""
    config = load_config(home.config)
    identity = keys.load(home, passphrase)
    if not home.charter.exists():
        raise UsageError(
            f"there is no charter {home.charter}", "Create one (`collegium charter create`), or copy it there."
        )
    charter, signed = load_file(home.charter.read_bytes(), str(home.charter))
    missing = unsigned_members(charter, signed)
    if missing:
        names = ", ".join(sorted(member.name for member in missing))
        raise RefusedError(f"the charter {home.charter} is not signed by {names}", "Let them run `charter sign`.")
    if charter.member(identity.public_key) is None and not home.joining.exists() and not home.database.exists():
        raise RefusedError(
            f"this node's key {identity.public_key.hex()[:16]} is not a member of federation {charter.name!r}",
            "Use the key that the charter names, or join by an invitation (`collegium join`).",
        )
    if config.learning.contribute and config.data.path and config.learning.lot_size < 1:
        raise UsageError(
            f"{home.config} declares no lot_size of at least 1 under [learning]",
            f"Set it to {charter.learning.sample_rate / 1_000_000:g} (the charter's sample rate) times the number of"
            " students that you expect, rounded; not a count of the data.",
        )
    return config, charter, signed, identity


def serve(
    home: Home, passphrase: str | None, started: Callable[[], None] = lambda: None, log: Path | None = None
) -> None:
    """Run a node's daemon in this process until it is stopped; its log goes to stderr, or to a file that is rotated.

    Raises CollegiumError with advice.
    """
    while _serve(home, passphrase, started, log):
        started = _do_nothing  # once is enough


def _serve(home: Home, passphrase: str | None, started: Callable[[], None], log_file: Path | None) -> bool:
    """Run the daemon; return whether it has to restart, with a new key or with data that came."""
    config, charter, signed, identity = load(home, passphrase)
    logs.configure(config.log.format, config.log.level, log_file)
    descriptors = raise_limit()
    if descriptors < FEW_DESCRIPTORS:
        log.warning("few open files are allowed", limit=descriptors, advice=f"Allow {FEW_DESCRIPTORS}: ulimit -n.")
    with ExitStack() as stack:
        stack.enter_context(lock.hold(home))
        store = stack.enter_context(Store.open(home.database, charter.federation))
        runtime = Runtime(home, config, charter, signed, identity, store)
        try:
            trio.run(runtime.run, started)
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        return runtime.begins_anew


def _do_nothing() -> None:
    pass


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error for the operator: the first with advice, else the first."""
    errors: list[BaseException] = []
    queue: deque[BaseException] = deque([group])
    while queue:
        error = queue.popleft()
        if isinstance(error, BaseExceptionGroup):
            queue.extend(error.exceptions)
        else:
            errors.append(error)
    return next((error for error in errors if isinstance(error, CollegiumError)), errors[0])
