"""Async work in a thread of its own: Ctrl-C meets the command, and never the network in the middle of something."""

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import trio

from ..runtime.serve import first_error

T = TypeVar("T")
PATIENCE = 5.0  # seconds for the network to close


class Apart(Generic[T]):
    """An async function that runs apart, until it returns or is stopped."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._results: list[T] = []
        self._failure: BaseException | None = None
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="founding", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            trio.run(self._in_scope)
        except BaseException as error:  # noqa: BLE001 - raised in the command's thread
            self._failure = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        finally:
            self.over.set()

    async def _in_scope(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            self._results.append(await self._function())

    def check(self) -> None:
        """Raise its error, if it ended by one."""
        if self._failure is not None:
            raise self._failure

    def result(self) -> T:
        """Wait for what it returns. Raises its error; Ctrl-C stops it."""
        try:
            self.over.wait()
        except BaseException:
            self.stop()
            raise
        self.check()
        return self._results[0]

    def stop(self) -> None:
        """Cancel it, and wait a while for its end."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(PATIENCE)
