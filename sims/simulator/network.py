"""What the simulated network does to messages."""

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

    def draw(self, source: random.Random) -> int:
        """Return how long one message takes."""
        delay = source.randint(*self.delay)
        if self.spread:
            delay = min(60_000, round(sum(self.delay) / 2 * source.lognormvariate(0.0, self.spread)))
        if self.reorder and source.random() < self.reorder:
            delay += source.randint(*self.late)
        return delay
