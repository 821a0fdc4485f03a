"""The shares that `blame` tells are the weights with which the rules really add up updates."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import robust, rules
from collegium.consensus.components import Entry
from collegium.consensus.shares import coefficients, kept, mean_shares, robust_shares
from collegium.protocol.update import Integers


@st.composite
def updates(draw: st.DrawFn) -> list[Integers]:
    """Up to seven updates with many equal values, one of them far louder."""
    n, d = draw(st.integers(1, 7)), draw(st.sampled_from([1, 3, 40]))
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([np.int8, np.int16]))
    vectors: list[Integers] = [source.integers(-3, 4, d).astype(kind) for _ in range(n)]
    vectors[0] = (vectors[0] * draw(st.integers(1, 30))).astype(kind)
    return vectors


@settings(deadline=None, max_examples=100)
@given(updates(), st.sampled_from(sorted(robust.RULES)))
def test_the_weighted_sum_is_the_rules_increment(given_: list[Integers], rule: str) -> None:
    """ADR 7: `256·Σ c q` is what the rule gives, up to its one rounding (half a unit of 1/256)."""
    faults = rules.faults(len(given_))
    weights = np.concatenate(list(coefficients(rule, given_, faults)), axis=1)
    assert weights.min() >= 0.0
    exact = 256.0 * (weights * np.stack(given_).astype(np.float64)).sum(axis=0)
    assert np.abs(exact - robust.RULES[rule](given_, faults)).max() <= 0.5 + 1e-6
    assert sum(robust_shares(rule, given_, faults)) == pytest.approx(1.0)


def test_a_trimmed_mean_keeps_what_a_count_by_hand_keeps() -> None:
    source = np.random.default_rng(3)
    given_: list[Integers] = [source.permutation(60)[:20].astype(np.int8) for _ in range(7)]
    shares = [0.0] * 7
    for column in range(20):
        order = sorted((int(update[column]), number) for number, update in enumerate(given_))
        values = [value for value, _ in order]
        for index, update in enumerate(given_):
            value = int(update[column])
            same = values.count(value)
            shares[index] += sum(each == value for each in values[2:5]) / same / 3 / 20
    assert robust_shares("trimmed_mean", given_, 2) == pytest.approx(shares)
    assert max(shares) > 1.2 * min(shares)


def test_equal_values_share_what_is_kept() -> None:
    rows = np.array([[1], [1], [1], [5], [9]])
    assert kept(rows, 1).ravel().tolist() == pytest.approx([2 / 9, 2 / 9, 2 / 9, 1 / 3, 0.0])
    assert kept(np.full((4, 2), 7), 1).tolist() == pytest.approx(np.full((4, 2), 0.25))


def test_whom_multi_krum_leaves_out_has_no_share() -> None:
    near: list[Integers] = [np.full(4, value, dtype=np.int8) for value in (1, 2, 1)]
    assert robust_shares("multi_krum", [*near, np.full(4, 100, dtype=np.int8)], 1) == pytest.approx(
        [1 / 3, 1 / 3, 1 / 3, 0.0]
    )


def test_the_mean_shares_are_its_integer_weights() -> None:
    """By the formula: v₀ = 4; the strict member keeps over half an equal share, the stale one half of its own."""
    entries = [Entry(b"", bytes([n]), b"", 0, s, v) for n, (v, s) in enumerate([(4, 0), (4, 1), (10**6, 0)])]
    w = [(4 << 16) // (4 + v) for v in (4, 4, 10**6)]
    a = [(weight << 15) // sum(w) + (1 << 15) // 3 for weight in w]
    a[1] >>= 1
    assert mean_shares(entries) == [Fraction(share, sum(a)) for share in a]
