"""What the simulated network does to messages, and the simulated disks to writes."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkConditions:
    """What the network does. Milliseconds and probabilities."""

    delay: tuple[int, int] = (1, 40)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # of the messages: they take `late` milliseconds more
    late: tuple[int, int] = (100, 2000)
    spread: float = 0.0  # above 0: delays are log-normal around the middle of `delay`, with this σ
    grain: int = 1  # a node looks at its inbox this often

    def draw(self, source: random.Random) -> int:
        """Return how long one message takes."""
        delay = source.randint(*self.delay)
        if self.spread:
            delay = min(60_000, round(sum(self.delay) / 2 * source.lognormvariate(0.0, self.spread)))
        if self.reorder and source.random() < self.reorder:
            delay += source.randint(*self.late)
        return delay


@dataclass(frozen=True, slots=True)
class Disk:
    """At each write a node is killed with probability `crash`, before or after it; of these, `torn` in its middle."""

    crash: float = 0.0
    torn: float = 0.0
    down: tuple[int, int] = (200, 3000)  # ms until a killed node starts again
