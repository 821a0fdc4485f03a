"""ε by a second accountant: Opacus' PRV (Gopi, Lee and Wutschitz 2021), beside the one in use (design.md section 6)."""

from collections.abc import Sequence
from math import isinf

from ....crypto.extras import extra
from ...privacy.accountant import Event, epsilon
from ..answers import CrossChecked

with extra("audit"):
    from opacus.accountants import PRVAccountant

ERROR = 0.01  # of the PRV accountant's ε; what it returns is the upper end


def cross_check(events: Sequence[Event], delta: float) -> CrossChecked:
    """Return ε of the events by both accountants; None without noise, which the PRV one cannot take."""
    value = epsilon(events, delta)
    ran = [(q, sigma, count) for q, sigma, count in events if count and q > 0.0]
    accountant = PRVAccountant()
    accountant.history = [(sigma, q, count) for q, sigma, count in ran]
    if isinf(value):
        return CrossChecked(None, None, ERROR)
    other = float(accountant.get_epsilon(delta, eps_error=ERROR)) if ran else 0.0
    return CrossChecked(value, other, ERROR)
