"""Do something that may never end: a call to a process that is stopped, a read from a pipe or a share that hangs."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TooLongError(Exception):
    """It did not end in time; it goes on waiting, until this process ends."""


class Job(Generic[T]):
    """Something that runs in a thread of its own, from now on."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._done: list[T] = []
        self._failed: list[BaseException] = []

        def run() -> None:
            try:
                self._done.append(job())
            except BaseException as error:  # noqa: BLE001 - it is raised below, where somebody waits for it
                self._failed.append(error)

        self._thread = threading.Thread(target=run, daemon=True)  # it keeps no process from ending
        self._thread.start()

    def result(self, seconds: float) -> T:
        """Return what it returns, or raise what it raises. Raises TooLongError if it takes longer; ask again then."""
        self._thread.join(seconds)
        if self._failed:
            raise self._failed[0]
        if not self._done:
            raise TooLongError(f"it did not end within {seconds:g} s")
        return self._done[0]


def within(seconds: float, job: Callable[[], T]) -> T:
    """Return what `job` returns, or raise what it raises. Raises TooLongError if it takes longer."""
    return Job(job).result(seconds)
