"""How often rounds close, as this node has seen it."""

from collections.abc import Iterable
from itertools import pairwise

from .context import Context

INTERVALS = 10  # last intervals between rounds, of which the median is the usual one


def used_up(context: Context, components: Iterable[str], left: int) -> float | None:
    """Return the time of the last of the rounds that are left, if they close as the last ones did; None if none did."""
    closes = [
        [context.store.decided(round_.height) for round_ in context.ledger.components[name].rounds[-INTERVALS - 1 :]]
        for name in components
        if name in context.ledger.components
    ]
    times = [[at for at in each if at is not None] for each in closes]
    intervals = sorted(later - before for each in times for before, later in pairwise(each))
    if not intervals:
        return None
    usual = max(intervals[len(intervals) // 2], context.charter.rules.pace / 1000)
    return max(each[-1] for each in times if each) + left * usual
