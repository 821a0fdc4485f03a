"""How long the leader of a training run waits for its helpers (crew.py, parallel.py). No torch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FLOOR = 60.0  # seconds that a helper always has for a step
OPENING = 300.0  # and to open a folder: it starts meanwhile
TIMES = 20  # or so many times as long as the leader took for the same


@dataclass(slots=True)
class Waiting:
    """What the leader observes of itself: the `step` that it is in, and since when it waits for the others in it.

    A helper has as much to do in a step as the leader. Who takes 20 times as long as the leader ever took, and a
    minute, is stopped or stuck.
    """

    step: int = 0
    longest: float = 0.0  # seconds that the leader worked on a step, at most
    floor: float = OPENING
    since: float | None = None
    _began: float | None = None

    @property
    def bound(self) -> float:
        """The seconds that a helper has from the moment at which the leader waits."""
        return max(self.floor, TIMES * self.longest)

    @contextmanager
    def for_others(self, *, step: bool = False) -> Iterator[None]:
        """Wait within; `step`: one more step has been computed here."""
        now = time.monotonic()
        if step:
            self.step += 1
            self.longest = max(self.longest, now - (now if self._began is None else self._began))
        self.since = now
        try:
            yield
        finally:
            self.since, self._began = None, time.monotonic()

    def restart(self, seconds: float | None = None) -> None:
        """Begin a training run, or another piece of work, for which the leader took `seconds`."""
        self.floor = FLOOR if seconds is None else OPENING
        self.step, self.longest, self.since, self._began = 0, seconds or 0.0, None, None
