"""`collegium sim run`: a scenario under many seeds on all cores, and what to do about a failure."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from shlex import quote

from ...crypto.errors import UsageError
from .loading import dump, load, shipped
from .minimise import minimise
from .play import Outcome, play
from .scenario import Scenario

Step = Callable[[str, int, int], None]
ALL = "all"
MAX_SEEDS, MAX_DIGITS = 1_000_000, 18  # each is a job that is kept in a list


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that broke a promise, the shortest scenario that still does, and the command that replays it."""

    outcome: Outcome
    shortest: Outcome
    text: str
    file: str
    command: str


def chosen(reference: str) -> list[str]:
    """Resolve a reference: a file, the name of a shipped scenario, or all of these."""
    return list(shipped()) if reference == ALL else [reference]


def read_seeds(text: str) -> range:
    """Read "A..B". Raises UsageError."""
    first, dots, last = text.partition("..")
    numbers = [int(part) for part in (first, last) if part.isdecimal() and len(part) <= MAX_DIGITS]
    if not dots or len(numbers) < 2 or not 0 <= numbers[1] - numbers[0] < MAX_SEEDS:
        advice = f"Write the first and the last one, {MAX_SEEDS:,} at most: --seeds 0..99."
        raise UsageError(f"--seeds {text[:40]} is no range of seeds", advice)
    return range(numbers[0], numbers[1] + 1)


def run(jobs: Sequence[tuple[Scenario, int]], step: Step | None = None) -> Iterator[Outcome]:
    """Play every (scenario, seed), in order if there is one core, else as they come. Ctrl-C stops at once."""
    workers = min(os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        for done, (scenario, seed) in enumerate(jobs, 1):
            yield play(scenario, seed)
            _tell(step, done, len(jobs))
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
    try:
        waiting: set[Future[Outcome]] = set()
        todo, done = iter(jobs), 0
        while True:
            # A few at a time: a hundred thousand futures would take their memory before the first run is over.
            while len(waiting) < 4 * workers and (job := next(todo, None)) is not None:
                # Workers start here, and from the first instruction leave Ctrl-C to this process.
                unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                waiting.add(pool.submit(play, *job))
                signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                done += 1
                yield future.result()
                _tell(step, done, len(jobs))
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def end_with_parent() -> None:
    """End this worker when its parent has ended in any way: it would wait for work for ever."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell(step: Step | None, done: int, total: int) -> None:
    if step is not None:
        step("seeds", done, total)


def replay(reference: str, nodes: int | None, seed: int) -> str:
    """Return the command that plays a scenario again as it was."""
    return f"collegium sim run {quote(reference)}{f' --nodes {nodes}' if nodes is not None else ''} --seed {seed}"


def explain(scenario: Scenario, outcome: Outcome, folder: Path | None, step: Step | None = None) -> Failure:
    """Shrink a failure; write the shortest scenario into `folder`, if there is one. Raises UsageError."""
    shortest, how = minimise(scenario, outcome, (lambda done, most: step("minimising", done, most)) if step else _quiet)
    text = dump(shortest)
    name = f"{scenario.name}-{outcome.seed}-{outcome.promise.replace('expect.', '')}.toml"
    path = (folder or Path()) / name
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"Cannot write {path}: {error.strerror}", "Name a folder that can be written.") from error
    return Failure(outcome, how, text, str(path) if folder is not None else "", replay(str(path), None, how.seed))


def _quiet(_done: int, _most: int) -> None:
    pass


def catalogue() -> list[Scenario]:
    """Return every shipped scenario."""
    return [load(name) for name in shipped()]
