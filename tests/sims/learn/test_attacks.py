"""Attacks: byzfl's vectors, and that what liars send stays inside what the protocol lets through."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.sims.learn import attacks
from collegium.sims.learn.attacks import Vectors

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "byzfl" / "byzfl.json").read_text())["attacks"]


def mixed_and_trimmed(updates: Sequence[Vectors], f: int) -> Vectors:
    """Nearest-neighbour mixing and the trimmed mean in floats."""
    x = np.stack(updates)
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    y = np.stack([x[np.argsort(row, kind="stable")[: len(x) - f]].mean(axis=0) for row in squared])
    trimmed: Vectors = np.sort(y, axis=0)[f : len(x) - f].mean(axis=0)
    return trimmed


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['attack']} {case['f']} of {case['n']}")
def test_attacks_are_byzfl_s(case: dict[str, Any]) -> None:
    honest, f = np.array(case["honest"], dtype=np.float64), int(case["f"])

    def best(attack: attacks.Attack) -> Vectors:
        strength = attacks.strongest(attack, honest, f, lambda updates: mixed_and_trimmed(updates, f))
        return attack(honest, strength)

    lie = {
        "sign_flip": lambda: attacks.sign_flip(honest),
        "inner_product": lambda: attacks.inner_product(honest, 2.0),
        "inner_product_optimal": lambda: best(attacks.inner_product),
        "alie": lambda: attacks.little_is_enough(honest, 1.5),
        "alie_optimal": lambda: best(attacks.little_is_enough),
        "mimic": lambda: attacks.mimic(honest, 1),
        "gaussian": lambda: attacks.gaussian(honest, np.random.RandomState(7), 20.0),
    }[str(case["attack"])]()
    assert lie == pytest.approx(np.array(case["lie"]), rel=1e-9, abs=1e-9)


def test_the_strongest_lie_does_more_harm_than_a_weak_one() -> None:
    honest = np.random.Generator(np.random.PCG64(1)).normal(1.0, 2.0, (5, 20))

    def harm(strength: float) -> float:
        updates = [*honest, *[attacks.little_is_enough(honest, strength)] * 2]
        return float(np.linalg.norm(mixed_and_trimmed(updates, 2) - honest.mean(axis=0)))

    best = attacks.strongest(attacks.little_is_enough, honest, 2, lambda updates: mixed_and_trimmed(updates, 2))
    assert harm(best) > max(harm(0.0), harm(10.0), harm(100.0))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=40), st.integers(0, 10**4), st.integers(1, 10**4))
def test_what_is_sent_is_within_the_norm_bounds(lie: list[float], low: int, more: int) -> None:
    """G5: a lie out of the bounds would be refused, and would attack nothing."""
    low, high = low * len(lie) // 2, (low + more) * len(lie)
    sent = attacks.within(np.array(lie), low, high + 4 * len(lie) + 4, 2**15 - 1)
    assert low <= int(sent @ sent) <= high + 4 * len(lie) + 4
    assert np.abs(sent).max() <= 2**15 - 1
