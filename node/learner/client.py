"""The client of a learner worker, without a daemon: one request, one answer (messages.py). No torch."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol, TypeVar

from ...crypto.errors import OperatorError
from .answers import Answer, Failed, Opened, Progress
from .coding import decode_reply, encode, expect
from .frames import frame, read_frame
from .messages import Asks, Open

A = TypeVar("A")
BUILT_IN = (sys.executable, "-P", "-m", "collegium.node.learner")
AUDITING = (sys.executable, "-P", "-m", "collegium.node.learner.audit")


class Ask(Protocol):
    """A callable that answers requests."""

    def __call__(self, request: Asks[A], /) -> A:
        """Return the answer. Raises the worker's own OperatorError."""


class Worker:
    """One learner worker, made by `process`, or by `worker` on a data folder.

    `told`, if it is set, is called with a request's progress: parts done, and all.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", errors: BinaryIO | None = None) -> None:
        self._process = process
        self._errors = errors
        self._number = 0
        self.told: Callable[[int, int], None] | None = None
        self.opened = Opened({})

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, request: Asks[A], /) -> A:
        """Send a request and wait for its answer. Raises the worker's own OperatorError, BadReplyError."""
        match reply := self.pass_on(request):
            case Failed():
                raise reply.error()
            case _:  # an Answer: mypy refuses any other reply without its case
                return expect(request, reply)

    def pass_on(self, request: Asks[Any]) -> Answer | Failed:
        """Send a request and wait for its reply, or Failed. Raises OperatorError if the worker ends, BadReplyError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        try:
            self._process.stdin.write(frame(encode(self._number, request)))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._end_error() from None
        while True:
            body = read_frame(self._process.stdout)  # type: ignore[arg-type]  # a pipe opened for bytes reads bytes
            if body is None:
                raise self._end_error()
            number, reply = decode_reply(body)
            if number != self._number:
                continue
            if not isinstance(reply, Progress):
                return reply
            if self.told is not None:
                self.told(reply.done, reply.total)

    def _end_error(self) -> OperatorError:
        last = ""
        if self._errors is not None:
            self._errors.seek(0)
            last = next(iter(self._errors.read().decode(errors="replace").splitlines()[::-1]), "")
        return OperatorError("the learner worker ended" + (f": {last}" if last else ""))


@contextmanager
def process(command: Sequence[str] = ()) -> Iterator[Worker]:
    """Run a worker; `command` instead of the built-in one."""
    with TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module, or the operator's own learner
            command or BUILT_IN,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Worker(process, errors)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # the input that it did not read
                        pipe.close()


@contextmanager
def worker(request: Open, command: Sequence[str] = ()) -> Iterator[Worker]:
    """Run a worker on a data folder; its `opened` is the answer to `request` (messages.opening makes one)."""
    with process(command) as opened:
        opened.opened = opened.ask(request)
        yield opened
