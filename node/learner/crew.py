"""The helpers of a learner worker that trains over several processes (parallel.py). No torch.

A helper is a learner worker as well: it reads requests from its own standard input. The leader passes on each `Open`,
`Respec` and `Train`. A helper that fails in a training run ends, since the others wait for its sums; then the leader
ends, too, and the daemon starts it again. When the leader ends, its helpers' input does, and so do they; on Linux the
kernel kills them, even those that are stopped.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .client import BUILT_IN, process
from .messages import Asks

ENDED = 4  # exit status of a worker whose team lost a process


class Crew:
    """The helpers of a leader, `size` - 1 of them."""

    def __init__(self, size: int) -> None:
        from .parallel import Team, join  # noqa: PLC0415  # torch

        self._stack = ExitStack()
        with TemporaryDirectory(prefix="collegium-") as folder:
            meeting = Path(folder) / "meeting"
            command = [*BUILT_IN, "--of", str(size), "--meeting", str(meeting), "--rank"]
            self._workers = [self._stack.enter_context(process([*command, str(rank)])) for rank in range(1, size)]
            self.team = join(Team(0, size), meeting)
        self._pool = self._stack.enter_context(ThreadPoolExecutor(size))

    def ask(self, request: Asks[Any]) -> None:
        """Let all helpers answer a request. Raises the first one's OperatorError."""
        with self.beside(request):
            pass

    @contextmanager
    def beside(self, request: Asks[Any]) -> Iterator[None]:
        """Let all helpers work on a request while the leader does. Raises the first one's OperatorError."""
        answers = [self._pool.submit(worker.ask, request) for worker in self._workers]
        yield
        for answer in answers:
            answer.result()
