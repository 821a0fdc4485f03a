"""One figure of a benchmark, and how to take it."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is ours / reference. `goal` in words; `met` None where there is none (report only)."""

    figure: str
    ours: float
    reference: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None

    def as_map(self) -> dict[str, object]:
        """Return the row as JSON wants it."""
        return asdict(self)


def at_least(figure: str, ours: float, reference: float, goal: float) -> Row:
    """A figure that should be at least `goal` times the reference (throughput)."""
    return Row(figure, ours, reference, ours / reference, f"≥ {goal:g} ×", ours / reference >= goal)


def at_most(figure: str, ours: float, reference: float, goal: float) -> Row:
    """A figure that should be at most `goal` times the reference (time, memory, bytes)."""
    return Row(figure, ours, reference, ours / reference, f"≤ {goal:g} ×", ours / reference <= goal)


def limit(figure: str, ours: float, goal: float) -> Row:
    """A figure with an absolute limit."""
    return Row(figure, ours, goal=f"≤ {goal:g}", met=ours <= goal)


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each job; they take turns, so that a noisy machine disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm
    for _ in range(repeats):
        for name, job in jobs.items():
            before = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - before)
    return {name: median(seconds) for name, seconds in times.items()}
