"""Waiting in tests: for a condition, with a limit that only a test that fails reaches, however busy the machine is."""

import inspect
import time
from collections.abc import Callable

import trio

LIMIT = 300.0  # seconds


def wait_for(done: Callable[[], object], seen: Callable[[], object] = str, seconds: float = LIMIT) -> None:
    """Wait until `done()` is true; after the limit, fail with what was awaited and what `seen()` tells of it."""
    end, pause = time.monotonic() + seconds, 0.05
    while not done():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {source(done)}\n{seen()}"
        time.sleep(pause)
        pause = min(0.5, 1.2 * pause)  # what is waited for needs the processor that a look takes


async def until(done: Callable[[], object], seen: Callable[[], object] = str, seconds: float = LIMIT) -> None:
    """Wait as `wait_for` does, under trio's clock."""
    end = trio.current_time() + seconds
    while not done():
        assert trio.current_time() < end, f"not within {seconds:.0f} s: {source(done)}\n{seen()}"
        await trio.sleep(0.01)


def source(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
