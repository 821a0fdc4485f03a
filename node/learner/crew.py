"""The helpers of a learner worker that trains over several processes (parallel.py). No torch.

A helper is a learner worker as well: it reads requests from its own standard input. The leader passes on each `Open`,
`Respec` and `Train`. A helper that fails in a training run ends, since the others wait for its sums; then the leader
ends, too, and the daemon starts it again. So it is with a helper that does not answer (waiting.py): it is named, and
killed. When the leader ends, its helpers' input does, and so do they; on Linux the kernel kills them, even those that
are stopped.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from .answers import HelperLostError
from .client import BUILT_IN, process
from .messages import Asks
from .waiting import Waiting

ENDED = 4  # exit status of a worker whose team lost a process
LOOK = 0.5  # seconds between two looks at the helpers


class Crew:
    """The helpers of a leader, `size` - 1 of them."""

    def __init__(self, size: int) -> None:
        from .parallel import Team, join  # noqa: PLC0415  # torch

        self._stack, self._waiting, self._late = ExitStack(), Waiting(), ""
        with TemporaryDirectory(prefix="collegium-") as folder:
            meeting = Path(folder) / "meeting"
            command = [*BUILT_IN, "--of", str(size), "--meeting", str(meeting), "--rank"]
            self._workers = [self._stack.enter_context(process([*command, str(rank)])) for rank in range(1, size)]
            try:
                self.team = join(Team(0, size, self._waiting), meeting)
            except RuntimeError as error:
                self._stack.close()
                raise HelperLostError(f"the {size - 1} helpers of the learner did not meet ({error})") from error
        self._steps = [0] * len(self._workers)  # that each has computed of a training run
        for number, worker in enumerate(self._workers):
            worker.told = self._noted(number)
        self._pool = self._stack.enter_context(ThreadPoolExecutor(size))

    def ask(self, request: Asks[Any], seconds: float) -> None:
        """Let all helpers answer a request for which the leader took `seconds`: it is no training run.

        Raises the first one's OperatorError, HelperLostError.
        """
        with self.beside(request, seconds):
            pass

    @contextmanager
    def beside(self, request: Asks[Any], seconds: float | None = None) -> Iterator[None]:
        """Let all helpers work on a request while the leader does. Raises as `ask` does."""
        self._waiting.restart(seconds)
        self._steps[:] = [0] * len(self._steps)
        answers = [self._pool.submit(worker.ask, request) for worker in self._workers]
        done = Event()
        watch = Thread(target=self._watch, args=(answers, done), daemon=True)
        watch.start()
        try:
            yield
            with self._waiting.for_others():
                for answer in answers:
                    answer.result()
        except Exception as error:
            if self._late:
                for number in range(len(self._workers)):  # the others wait for it as well
                    self._kill(number)
                raise HelperLostError(self._late) from error
            raise
        finally:
            done.set()
            watch.join()

    def _noted(self, number: int) -> Any:
        def told(step: int, _steps: int) -> None:
            self._steps[number] = step

        return told

    def _watch(self, answers: Sequence["Future[Any]"], done: Event) -> None:
        """Kill helpers that the leader waits for beyond all measure: its call then fails."""
        waiting = self._waiting
        while not done.wait(LOOK):
            since = waiting.since
            if since is None or time.monotonic() - since <= waiting.bound:
                continue
            open_ = [number for number, answer in enumerate(answers) if not answer.done()]
            behind = [number for number in open_ if self._steps[number] < waiting.step] or open_
            size = len(self._workers)
            named = ", ".join(f"helper {n + 1} of {size} (pid {self._workers[n].pid})" for n in behind)
            late = f"has not answered for {waiting.bound:.0f} s: it is killed, and the learner begins anew"
            self._late = f"{named} {late}"
            for number in behind:
                self._kill(number)
            return

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._workers[number].pid, signal.SIGKILL)
