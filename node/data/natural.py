"""Bounds that a person would state for a column: round, and wider than the data.

They are proposed, never taken: bounds fitted to the data would reveal them, and all schools state the same.
"""

import math
from fractions import Fraction

from .sensitive import words_of

_PERCENT = frozenset({
    "percent", "percentage", "prozent", "pourcent", "pourcentage", "porcentaje", "percentuale", "procent", "szazalek",
    "attendance", "anwesenheit", "presence", "asistencia", "frequenza", "obecnosc", "aanwezigheid", "narvaro",
})  # fmt: skip
_STEPS = (1, 2, 5, 10)
Bounds = tuple[float, float]


def natural(column: str, low: float, high: float) -> Bounds:
    """Return bounds in round numbers that hold low and high.

    0 and 100 for a percentage; else from 0 to the next 1, 2 or 5 with noughts, also below 0; and for numbers far from
    0, as years are, the next such steps about them.
    """
    if low >= 0 and high <= 100 and (_PERCENT & set(words_of(column)) or "%" in column):
        return 0.0, 100.0
    if high > low and min(abs(low), abs(high)) > 10 * (high - low) and low * high > 0:
        return _natural_bounds(low, high, _next_natural(high - low))
    return (float(-_next_natural(-low)) if low < 0 else 0.0), (
        float(_next_natural(high)) if high > 0 else 0.0 if low < 0 else 1.0
    )


def rounded(low: float, high: float) -> Bounds:
    """Return the least and the largest number as a person may see them, in steps of a third of their span or more."""
    return _natural_bounds(low, high, _next_natural((high - low) / 3 if high > low else max(abs(low), 1.0) / 3))


def _next_natural(value: float) -> Fraction:
    """Return the least of 1, 2, 5, 10, 20, … (and 0.5, 0.2, …) that is not below a positive value."""
    ten = Fraction(10) ** math.floor(math.log10(value))
    return next((step * ten for step in _STEPS if step * ten >= Fraction(value)), 20 * ten)


def _natural_bounds(low: float, high: float, step: Fraction) -> Bounds:
    return float(math.floor(Fraction(low) / step) * step), float(math.ceil(Fraction(high) / step) * step)


def round_up(number: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, … that is not below a positive whole number."""
    return int(_next_natural(max(number, 1)))
