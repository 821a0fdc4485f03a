"""G6: a spent budget stops contributions, and nothing is refunded."""

import pytest

from collegium.node.privacy.accountant import Event, claimed, epsilon
from collegium.node.privacy.budget import FORECAST_LIMIT, Budget, decide, rounds_left

DRAW: Event = (0.1, 1.2, 8)
CLOSED = Budget(epsilon=4000, delta=1e-5, recovery_share=250_000, recovery_open=False)
OPEN = Budget(epsilon=4000, delta=1e-5, recovery_share=250_000, recovery_open=True)


def test_g6_draws_are_allowed_until_the_limit_and_never_above() -> None:
    reserved: list[Event] = []
    forecast = rounds_left(reserved, DRAW, CLOSED)
    while decide(reserved, DRAW, CLOSED).allowed:
        reserved.append(DRAW)
        assert claimed(epsilon(reserved, 1e-5)) <= CLOSED.limit
    assert len(reserved) == forecast > 1
    assert claimed(epsilon([*reserved, DRAW], 1e-5)) > CLOSED.limit
    decision = decide(reserved, DRAW, CLOSED)
    assert decision.rounds_left == 0
    assert decision.before <= decision.limit < decision.after


def test_the_recovery_share_opens_only_after_a_withdrawal() -> None:
    assert CLOSED.limit == 3000
    assert OPEN.limit == 4000
    spent: list[Event] = [(0.1, 1.2, 8 * rounds_left([], DRAW, CLOSED))]
    assert not decide(spent, DRAW, CLOSED).allowed
    assert decide(spent, DRAW, OPEN).allowed


def test_the_limit_rounds_down() -> None:
    assert Budget(epsilon=1001, delta=1e-5, recovery_share=250_000, recovery_open=False).limit == 750


def test_a_draw_without_noise_never_fits() -> None:
    decision = decide([], (0.1, 0.0, 1), OPEN)
    assert not decision.allowed
    assert decision.rounds_left == 0


def test_a_reserved_draw_counts_for_ever() -> None:
    assert rounds_left([DRAW], DRAW, CLOSED) == rounds_left([], DRAW, CLOSED) - 1


def test_the_forecast_is_bounded() -> None:
    assert rounds_left([], (0.001, 100.0, 1), OPEN) == FORECAST_LIMIT


@pytest.mark.parametrize("rounds", [1, 7])
def test_a_forecast_equals_a_count(rounds: int) -> None:
    limit = claimed(epsilon([(0.1, 1.2, 8 * rounds)], 1e-5))
    exact = Budget(epsilon=limit, delta=1e-5, recovery_share=0, recovery_open=False)
    short = Budget(epsilon=limit - 1, delta=1e-5, recovery_share=0, recovery_open=False)
    assert rounds_left([], DRAW, exact) == rounds
    assert rounds_left([], DRAW, short) == rounds - 1
