"""A learner worker from where it is asked, without a daemon: one request, one answer (protocol.py). No torch."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from ...crypto.errors import OperatorError
from ...protocol import schema
from ...protocol.charter import Charter
from .protocol import Message, encode_frame, failure, read_frame

Ask = Callable[[Message], Message]


class Worker:
    """One learner worker; made by `process`, or by `worker` on a data folder: then `opened` is the answer to `open`."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: BinaryIO | None = None) -> None:
        self._process = process
        self._errors = errors
        self._number = 0
        self.opened: Message = {}

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, message: Message) -> Message:
        """Send a request and wait for its answer. Raises the worker's own OperatorError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        try:
            self._process.stdin.write(encode_frame({"id": self._number, **message}))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        while True:
            answer = read_frame(self._process.stdout)  # type: ignore[arg-type]  # a pipe opened for bytes reads bytes
            if answer is None:
                raise self._ended()
            if answer.get("id") == self._number and "ok" in answer:
                if not answer["ok"]:
                    raise failure(answer)
                return answer

    def _ended(self) -> OperatorError:
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
            list(command) or [sys.executable, "-P", "-m", "collegium.node.learner"],
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
                    with suppress(BrokenPipeError):  # what it did not read
                        pipe.close()


@contextmanager
def worker(
    charter: Charter, data: Path, hosted: Sequence[str] | None = None, command: Sequence[str] = (), **more: object
) -> Iterator[Worker]:
    """Run a worker on a data folder; `more` are further fields of its `open` (node/learner/worker.py)."""
    with process(command) as opened:
        opened.opened = opened.ask(
            {
                "op": "open",
                "data": str(data),
                "components": [schema.to_map(spec) for spec in charter.components],
                "learning": schema.to_map(charter.learning),
                "base_seed": charter.seed,
                "hosted": [spec.name for spec in charter.components] if hosted is None else list(hosted),
                "seed": None,
                **more,
            }
        )
        yield opened
