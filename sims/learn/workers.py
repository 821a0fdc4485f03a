"""Learner workers that take jobs: each holds the sessions it was asked for, and opens one when a job needs it."""

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ...node.learner.client import Worker, process
from ...node.learner.messages import Asks

A = TypeVar("A")
T = TypeVar("T")


@dataclass(slots=True)
class LearnerWorker:
    """One worker process; `opened` has the contents of its sessions, so that a job need not open them again."""

    worker: Worker
    folder: Path
    opened: dict[str, object] = field(default_factory=dict)

    def ask(self, request: Asks[A], /) -> A:
        """Send a request and wait. Raises OperatorError with the worker's reason."""
        return self.worker.ask(request)


@contextmanager
def start_workers(count: int) -> Iterator[list[LearnerWorker]]:
    """Run `count` worker processes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-learn-")))
        yield [LearnerWorker(stack.enter_context(process()), folder) for _ in range(count)]


def share(
    workers: Sequence[LearnerWorker],
    jobs: Sequence[Callable[[LearnerWorker], T]],
    done: Callable[[], None] = lambda: None,
) -> list[T]:
    """Run the jobs on whichever worker is free; return their results in order. The first error ends it."""
    waiting: queue.Queue[tuple[int, Callable[[LearnerWorker], T]]] = queue.Queue()
    for item in enumerate(jobs):
        waiting.put(item)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def work(worker: LearnerWorker) -> None:
        while not errors:
            try:
                number, job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[number] = job(worker)
                done()
            except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(jobs))]
