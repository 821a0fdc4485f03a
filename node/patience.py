"""Disk work in threads, tried again while the system has no descriptor for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, TypeVarTuple

import structlog
import trio

from .scarce import is_scarce

log = structlog.get_logger(__name__)

PAUSE = 0.5  # seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a function in a thread; again, as long as it fails for want of descriptors. So calling it twice must be safe.

    Raises whatever else it raises.
    """
    while True:
        try:
            return await trio.to_thread.run_sync(function, *args)
        except Exception as error:
            if not is_scarce(error):
                raise
            log.warning("no descriptor for a file; it is tried again", reason=repr(error))
        await trio.sleep(PAUSE)


@contextmanager
def unless_scarce() -> Iterator[None]:
    """Leave the block where there is no descriptor for a file: what it does is done again soon anyway."""
    try:
        yield
    except OSError as error:
        if not is_scarce(error):
            raise
        log.warning("no descriptor for a file; it is tried again", reason=repr(error))
