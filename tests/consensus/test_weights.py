"""The noise that an update declares, from its header to its weight in the fold (design.md section 8)."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from collegium.consensus import rules
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.components import ComponentSpec, TensorSpec
from collegium.protocol.update import Engaged, UpdateHeader
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

M = 1_000_000
ID = bytes(32)
SPEC = ComponentSpec("head/a", "linear", (TensorSpec("weight", (4,), 0),), 6, 8, "mean", 1, M, 0, M, ID)


def header(*, steps: int, noise: int, clip: int, rate: int, lot: int) -> UpdateHeader:
    # The entry of another component stands first: its noise is not this one's.
    engaged = (Engaged("backbone", ID, 99 * M, 1, 1), Engaged("head/a", ID, noise, clip, rate))
    claims = (Claim("made-up", (), NO_EPSILON, 0),)
    return UpdateHeader(ID, ID, "head/a", 1, 0, ID, ID, 100, steps, M, lot, engaged, claims)


NUMBERS = st.integers(1, 10 * M)


@given(st.integers(1, 100), st.integers(0, 10 * M), NUMBERS, NUMBERS, st.integers(1000, 10**8), st.integers(0, 20))
def test_the_declared_variance_is_that_of_the_formula(
    steps: int, noise: int, clip: int, rate: int, lot: int, step_log2: int
) -> None:
    """v = τ(ησC/(LΔ))², rounded up."""
    spec = replace(SPEC, step_log2=step_log2)
    one_step = Fraction(rate, M) * Fraction(noise, M) * Fraction(clip, M) / Fraction(lot, 1000) * 2**step_log2
    variance = rules.noise_variance(header(steps=steps, noise=noise, clip=clip, rate=rate, lot=lot), spec)
    assert variance == ceil(steps * one_step**2)


def test_more_noise_weighs_less_and_a_larger_lot_more() -> None:
    facts = {"steps": 8, "noise": M, "clip": M, "rate": 2 * M, "lot": 10_000}
    kinds = [facts, facts | {"noise": 4 * M}, facts | {"lot": 40_000}]
    variances = [rules.noise_variance(header(**kind), replace(SPEC, step_log2=16)) for kind in kinds]
    plain, noisy, large = rules.mean_weights(variances, [0, 0, 0])
    assert noisy < plain < large


def test_a_ledger_freezes_what_the_headers_declare() -> None:
    """End to end: the member whose lot is four times the others' has a sixteenth of their variance."""
    cluster = Cluster(4, 2, Invariants, rounds=2, noise=M)
    large = cluster.nodes[1]
    large.options = replace(large.options, plan=replace(large.options.plan, lot=4000))
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    core = cluster.nodes[0].core
    assert core is not None
    spec = core.specs["head/task0"]
    assert spec.noise_multiplier == M
    for round_ in core.ledger.components["head/task0"].rounds:
        variances = {entry.author: entry.variance for entry in round_.entries}
        mine = variances.pop(large.identity.public_key)
        assert set(variances.values()) == {4 * 2 ** (2 * spec.step_log2)}
        assert mine * 16 == min(variances.values())
