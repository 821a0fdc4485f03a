"""Do something that may never end: a call to a process that is stopped, a read from a pipe or a share that hangs."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TooLongError(Exception):
    """It did not end in time; what it waits for it goes on waiting for, until this process ends."""


def within(seconds: float, job: Callable[[], T]) -> T:
    """Return what `job` returns, or raise what it raises. Raises TooLongError if it takes longer."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(job())
        except BaseException as error:  # noqa: BLE001 - it is raised below, where somebody waits for it
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)  # it keeps no process from ending
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TooLongError(f"it did not end within {seconds:g} s")
    return done[0]
