"""The accountant against Opacus' PRV accountant, the worked case of design.md section 6, and its own promises."""

import subprocess
import sys
from math import inf, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant

from collegium.node.privacy import accountant
from collegium.node.privacy.accountant import (
    MILLION,
    UNBOUNDED,
    Event,
    calibrate,
    claimed,
    effective_noise,
    epsilon,
    split_noise,
)

DELTA = 1e-5


def prv_epsilon(events: list[Event], delta: float) -> tuple[float, float]:
    """Lower and upper ε by Opacus (Gopi, Lee, Wutschitz 2021)."""
    accountant = PRVAccountant()
    accountant.history = [(sigma, q, count) for q, sigma, count in events]
    prv = accountant._get_dprv(eps_error=0.01, delta_error=delta / 1000)
    lower, _, upper = prv.compute_epsilon(delta, delta / 1000, 0.01)
    return float(lower), float(upper)


@pytest.mark.parametrize(
    "events",
    [
        [(0.05, 0.7682212795973759, 400)],
        [(0.1, 0.89, 80)],
        [(0.25, 1.9, 80)],
        [(0.1, 1.2, 40), (0.1, 0.9, 40)],
    ],
)
def test_epsilon_lies_where_the_prv_accountant_says(events: list[Event]) -> None:
    lower, upper = prv_epsilon(events, DELTA)
    assert lower <= epsilon(events, DELTA) <= upper


def test_worked_case_one_draw_over_three_components() -> None:
    together = epsilon([(0.05, effective_noise([1.0, 1.5, 2.0]), 400)], DELTA)
    apart = epsilon([(0.05, sigma, 400) for sigma in (1.0, 1.5, 2.0)], DELTA)
    assert round(together, 2) == 11.78
    assert round(apart, 2) == 8.13  # what independent draws would claim: too little


def test_epsilon_without_noise_is_infinite_and_without_events_zero() -> None:
    assert epsilon([(0.1, 0.0, 1)], DELTA) == inf
    assert epsilon([(0.1, 1.0, 5), (0.1, effective_noise([1.0, 0.0]), 1)], DELTA) == inf
    assert epsilon([], DELTA) == 0.0
    assert epsilon([(0.1, 0.0, 0), (0.0, 0.0, 9)], DELTA) == 0.0


def test_events_add_up_whatever_their_order_and_grouping() -> None:
    whole = epsilon([(0.1, 1.0, 20), (0.2, 1.5, 10)], DELTA)
    parts = epsilon([(0.2, 1.5, 10), (0.1, 1.0, 5), (0.1, 1.0, 15)], DELTA)
    assert whole == parts > epsilon([(0.1, 1.0, 20)], DELTA)


@pytest.mark.parametrize(
    "event", [(1.1, 1.0, 1), (-0.1, 1.0, 1), (0.1, -1.0, 1), (0.1, 1.0, -1), (float("nan"), 1.0, 1)]
)
def test_what_is_no_event_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match="no event"):
        epsilon([event], DELTA)
    with pytest.raises(ValueError, match="delta"):
        epsilon([], 0.0)


@given(st.floats(0, 1e6))
def test_claims_are_rounded_up(value: float) -> None:
    assert value <= claimed(value) / 1000 < value + 0.0011


def test_claims_at_the_edges() -> None:
    assert claimed(0.0) == 0
    assert claimed(1.0000001) == 1001
    assert claimed(inf) == UNBOUNDED
    with pytest.raises(ValueError, match="no ε"):
        claimed(float("nan"))


@pytest.mark.parametrize(("target", "q", "steps"), [(6.0, 0.25, 80), (0.75, 0.1, 80), (20.0, 0.1, 10)])
def test_calibrated_noise_is_enough_and_hardly_more(target: float, q: float, steps: int) -> None:
    noise = calibrate(target, DELTA, q, steps)
    assert epsilon([(q, noise / MILLION, steps)], DELTA) <= target
    assert epsilon([(q, noise * 0.999 / MILLION, steps)], DELTA) > target


@settings(max_examples=50)
@given(st.integers(1, 10**8), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_split_noise_never_adds_up_to_less(noise: int, shares: list[float]) -> None:
    parts = split_noise(noise, shares)
    assert effective_noise([part / MILLION for part in parts]) >= noise / MILLION * (1 - 1e-12)
    assert effective_noise([part / MILLION for part in parts]) <= noise / MILLION + 1.01e-6


def test_a_larger_share_gets_less_noise() -> None:
    small, large = split_noise(MILLION, [1.0, 4.0])
    assert small == 2 * large


def test_importing_privacy_imports_neither_dp_accounting_nor_torch() -> None:
    code = (
        "import sys, collegium.node.privacy.budget, collegium.node.learner.coding, collegium.node.data.arrays;"
        "sys.exit(any(name in sys.modules for name in ('dp_accounting', 'torch', 'opacus', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_noise_is_looked_for_from_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """At too little noise the distribution of so many steps takes gigabytes, and minutes."""
    asked = []

    def costs(events: list[tuple[float, float, int]], delta: float) -> float:
        asked.append(events[0][1])
        (q, sigma, steps), *_ = events
        return 5.0 * q * sqrt(steps) / sigma  # as a Gaussian mechanism of many small steps, roughly

    monkeypatch.setattr(accountant, "epsilon", costs)
    for target, q, steps in ((6.0, 0.1, 100_000), (100.0, 0.5, 100_000), (1.0, 1.0, 100_000)):
        asked.clear()
        noise = calibrate(target, 1.1e-5, q, steps) / MILLION
        assert min(asked) > noise / 4


HOSTILE: list[list[Event]] = [
    [(0.1, 1e-6, 1)],
    [(1.0, 0.0999, 1)],
    [(1.0, 0.1, 2**24)],
    [(0.1, 0.5, 2**32 - 1)],
    [(0.1, 0.1 + n / 1e6, 80) for n in range(64)],
]


@pytest.mark.parametrize("events", HOSTILE)
def test_g9_what_would_take_too_much_is_infinite_before_anything_is_computed(
    events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object) -> None:
        raise AssertionError("a distribution was asked for")

    monkeypatch.setattr(accountant, "_kept_single", computed)
    monkeypatch.setattr(accountant, "_single", computed)
    assert epsilon(events, DELTA) == inf


@pytest.mark.parametrize(("q", "sigma", "count"), [(1.0, 0.1, 1), (0.1, 0.1, 30), (1.0, 0.7, 40), (0.1, 1.0, 2000)])
def test_g9_a_distribution_is_no_larger_than_is_said_before(q: float, sigma: float, count: int) -> None:
    for loss in accountant._repeated(q, sigma, count)._pmf_remove, accountant._repeated(q, sigma, count)._pmf_add:
        assert loss.size <= accountant.numbers((q, sigma, count))


def test_g9_large_distributions_are_not_kept() -> None:
    for kept in (accountant._kept_single, accountant._kept_repeated):
        kept.cache_clear()
    assert epsilon([(1.0, 0.12, 2)], DELTA) > 50.0
    assert accountant._kept_single.cache_info().currsize == accountant._kept_repeated.cache_info().currsize == 0
    for n in range(140):
        accountant._kept_single(0.1, 8.0 + n)
    assert accountant._kept_single.cache_info().currsize <= 128


def test_what_institutions_plan_is_far_below_the_bounds() -> None:
    # A thousand rounds of eight steps; as many lines as a spend statement may have.
    assert epsilon([(0.1, 1.0, 8000)], DELTA) < 200.0
    assert accountant.numbers(*((0.1, 0.5 + n / 1000, 80) for n in range(64))) < accountant.MAX_NUMBERS
