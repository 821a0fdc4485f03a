"""Rounding, saturation and the norm bound of an update."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.node.learner.messages import Engagement
from collegium.node.learner.quantise import noise_std, norm_bound, quantise
from collegium.protocol.components import ComponentSpec, TensorSpec


def spec(dimension: int, step_log2: int, width: int) -> ComponentSpec:
    tensors = (TensorSpec("linear.bias", (dimension,), 0),)
    return ComponentSpec("head/x", "linear", tensors, step_log2, width, "mean", 1, 1, 1, 1, bytes(32))


RULE = Engagement(clip=1.0, noise=1.0, learning_rate=1.0)


def test_rounds_half_to_even_and_saturates_symmetrically() -> None:
    change = np.array([0.5, 1.5, -0.5, -2.5, 1e9, -1e9, 126.6]) / 4
    quantised = quantise(change, spec(7, 2, 8), Engagement(1.0, 0.0, 1000.0), 1, 1.0)
    assert quantised.values.tolist() == [0, 2, 0, -2, 127, -127, 127]
    assert quantised.values.dtype == np.dtype("<i1")
    assert (quantised.saturated, quantised.scaled) == (2, 1.0)
    assert quantise(change, spec(7, 2, 16), Engagement(1.0, 0.0, 1e5), 1, 1.0).values.dtype == np.dtype("<i2")


def test_formulas_of_the_design() -> None:
    rule = Engagement(clip=0.5, noise=2.0, learning_rate=3.0)
    assert noise_std(rule, 16, 10.0) == pytest.approx(3.0 * 2.0 * 0.5 * 4 / 10)
    assert norm_bound(rule, 16, 10.0, 100) == pytest.approx(1.5 * 16 * 3.0 * 0.5 + 1.2 * 16)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    dimension=st.integers(1, 300),
    step_log2=st.integers(0, 16),
    width=st.sampled_from([8, 16]),
    size=st.floats(1e-6, 1e4),
    noise=st.sampled_from([0.0, 1e-4, 1.0]),
    rate=st.floats(1e-6, 10.0),
)
def test_never_above_the_norm_bound(
    seed: int, dimension: int, step_log2: int, width: int, size: float, noise: float, rate: float
) -> None:
    change = np.random.default_rng(seed).normal(size=dimension) * size
    rule = Engagement(1.0, noise, rate)
    quantised = quantise(change, spec(dimension, step_log2, width), rule, 4, 20.0)
    norm = sqrt(sum(int(value) ** 2 for value in quantised.values)) * 2.0**-step_log2
    assert norm <= 0.999 * norm_bound(rule, 4, 20.0, dimension) * (1 + 1e-12)
    assert 0.0 <= quantised.scaled <= 1.0


def test_what_is_within_the_bound_is_not_scaled() -> None:
    noise = np.random.default_rng(1).normal(size=2000) * noise_std(RULE, 4, 20.0)
    assert quantise(noise, spec(2000, 7, 8), RULE, 4, 20.0).scaled == 1.0
    assert quantise(noise * 40, spec(2000, 7, 16), RULE, 4, 20.0).scaled < 1.0
