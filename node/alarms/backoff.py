"""When a target that took no message is tried again: after a while, then after twice as long each time, up to a bound.

A webhook that is down for a night is not called thousands of times, and one that is back is used within minutes.
"""

from dataclasses import dataclass

SHORTEST, LONGEST = 5.0, 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait after the last failure, in seconds (0: it took the last one), and its end on a steady clock."""

    wait: float = 0.0
    until: float = 0.0

    def over(self, now: float) -> bool:
        """Whether the target may be tried."""
        return not self.wait or now >= self.until

    def failed(self, now: float) -> "Backoff":
        """Return the wait after one more failure."""
        wait = min(LONGEST, 2 * self.wait or SHORTEST)
        return Backoff(wait, now + wait)
