"""Whether one more draw fits into what is left of an ε (G6). The store keeps the rows; here is only the arithmetic.

A reserved event counts whether or not its training finished: it may have been published, and is never refunded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .accountant import MILLION, Event, claimed, epsilon

FORECAST_LIMIT = 1000  # rounds


@dataclass(frozen=True, slots=True)
class Budget:
    """A lifetime budget: `epsilon` in thousandths at `delta`; `recovery_share` in millionths of it is kept back.

    The share opens (`recovery_open`) for the rounds after a withdrawal.
    """

    epsilon: int
    delta: float
    recovery_share: int
    recovery_open: bool

    @property
    def limit(self) -> int:
        """The ε in force now, in thousandths, rounded down."""
        return self.epsilon if self.recovery_open else self.epsilon * (MILLION - self.recovery_share) // MILLION


@dataclass(frozen=True, slots=True)
class Decision:
    """`before`, `after`, `limit` are claims in thousandths; `rounds_left` counts the draws that fit, this one too."""

    allowed: bool
    before: int
    after: int
    limit: int
    rounds_left: int


def decide(reserved: Sequence[Event], draw: Event, budget: Budget) -> Decision:
    """Decide whether `draw` (q, σ_eff, steps of one round) may be reserved on top of what is."""
    before = claimed(epsilon(reserved, budget.delta))
    after = claimed(epsilon([*reserved, draw], budget.delta))
    return Decision(after <= budget.limit, before, after, budget.limit, rounds_left(reserved, draw, budget))


def rounds_left(reserved: Sequence[Event], draw: Event, budget: Budget) -> int:
    """Return how many rounds like `draw` still fit, at most FORECAST_LIMIT."""
    q, sigma, steps = draw

    def fits(rounds: int) -> bool:
        return claimed(epsilon([*reserved, (q, sigma, steps * rounds)], budget.delta)) <= budget.limit

    low, high = 0, 1
    while high <= FORECAST_LIMIT and fits(high):
        low, high = high, high * 2
    high = min(high, FORECAST_LIMIT + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
