"""The component fold: refolding survivors is folding only survivors, and nothing overflows unsaid (G1, G7)."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.consensus import robust
from collegium.consensus.components import Entry, Round, fold_round, mean_state, origin, replay, tenure_ends
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol.components import STATE_LIMIT, ComponentSpec
from collegium.protocol.learning import AVERAGES, RULES
from collegium.protocol.update import Integers
from collegium.sims.simulator.small import small_charter

D = 5


def spec_of(rule: str, width: int = 8) -> ComponentSpec:
    return small_charter([Identity.from_seed(bytes(32))], dimension=D, rule=rule, width=width).components[0]


def values(spec: ComponentSpec) -> Callable[[Entry], Integers]:
    def of(entry: Entry) -> Integers:
        generator = np.random.Generator(np.random.PCG64(list(entry.blob)))
        low, high = -(2 ** (spec.width - 1)), 2 ** (spec.width - 1)
        return generator.integers(low, high, D).astype(spec.integer_type)

    return of


def entry(author: int, round_: int, staleness: int = 0, variance: int = 4) -> Entry:
    key = sha256(bytes([author]))
    return Entry(sha256(key + bytes([round_])), key, sha256(b"blob" + key + bytes([round_])), 9, staleness, variance)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Round], int]:
    """Rounds of up to seven members, some stale, and one who withdraws."""
    rounds = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        authors = sorted(draw(st.sets(st.integers(0, 6), max_size=7)), key=lambda a: sha256(bytes([a])))
        entries = tuple(
            entry(a, number, draw(st.integers(0, 1)), draw(st.sampled_from([0, 4, 900, 2**70]))) for a in authors
        )
        rounds.append(Round(number, number, entries, max(0, (len(entries) - 1) // 3), b""))
    return rounds, draw(st.integers(0, 6))


@settings(deadline=None, max_examples=150)
@given(histories(), st.sampled_from(RULES), st.sampled_from([8, 16]))
def test_refolding_survivors_is_folding_only_survivors(history: tuple[list[Round], int], rule: str, width: int) -> None:
    """G7: the state after a withdrawal does not depend on what was there before it."""
    rounds, gone = history
    spec = spec_of(rule, width)
    dropped = [replace(r, entries=tuple(e for e in r.entries if e.author != sha256(bytes([gone])))) for r in rounds]
    from_start, _ = replay(origin(spec), spec, dropped, values(spec))
    state = origin(spec)
    for round_ in dropped:
        state, _ = fold_round(state, spec, round_, values(spec))
    assert state.tobytes() == from_start.tobytes()
    # With f frozen at the close, f' = min(f, ⌊(n'-1)/3⌋): as if the round had never seen the withdrawn update.
    fresh = [replace(r, faults=max(0, (len(r.entries) - 1) // 3)) for r in dropped]
    again, _ = replay(origin(spec), spec, fresh, values(spec))
    assert again.tobytes() == from_start.tobytes()
    alone = {e.author for r in dropped for e in r.entries}
    assert sha256(bytes([gone])) not in alone


@settings(deadline=None, max_examples=50)
@given(histories())
def test_the_mean_of_tenure_ends_follows_a_withdrawal(history: tuple[list[Round], int]) -> None:
    """G7: it is that of a federation that never had the member, and its quotients are rounded half to even, once."""
    rounds, gone = history
    spec, key = spec_of("mean"), sha256(bytes([gone]))
    dropped = [replace(r, entries=tuple(e for e in r.entries if e.author != key)) for r in rounds]
    ends = tenure_ends(spec, dropped, lambda author: author)
    assert ends == {e.author: r.number for r in dropped for e in r.entries}
    if not ends:
        return
    states = [replay(origin(spec), spec, dropped[:number], values(spec))[0] for number in ends.values()]
    exact = [round(Fraction(sum(int(state[index]) for state in states), len(states))) for index in range(D)]
    assert mean_state(states).tolist() == exact == mean_state(states[::-1]).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_round_is_the_identity(rule: str) -> None:
    spec = spec_of(rule)
    state = np.arange(D, dtype=np.int32)
    after, saturated = fold_round(state, spec, Round(1, 1, (), 2, b""), values(spec))
    assert after.tobytes() == state.tobytes()
    assert saturated == 0


@pytest.mark.parametrize("rule", sorted(robust.RULES))
def test_a_robust_round_of_stale_updates_only_is_the_identity(rule: str) -> None:
    """design.md section 7: robust rules take s = 0 only."""
    spec = spec_of(rule)
    state = np.arange(D, dtype=np.int32)
    after, _ = fold_round(state, spec, Round(1, 1, tuple(entry(n, 1, 1) for n in range(4)), 1, b""), values(spec))
    assert after.tobytes() == state.tobytes()


@pytest.mark.parametrize(("left", "faults", "trimmed"), [(4, 1, 1), (3, 1, 0), (2, 1, 0), (7, 2, 2), (6, 2, 1)])
def test_the_trim_shrinks_with_the_survivors(left: int, faults: int, trimmed: int) -> None:
    """design.md section 9: f' = min(f, ⌊(n'-1)/3⌋)."""
    spec = spec_of("trimmed_mean")
    entries = tuple(sorted((entry(n, 1) for n in range(left)), key=lambda e: e.author))
    after, _ = fold_round(origin(spec), spec, Round(1, 1, entries, faults, b""), values(spec))
    rows = np.sort(np.stack([values(spec)(e).astype(int) for e in entries]), axis=0)[trimmed : left - trimmed]
    assert np.abs(after - 256 * rows.mean(axis=0)).max() <= 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_saturation_is_symmetric_and_counted(sign: int) -> None:
    spec = spec_of("mean")
    state = np.zeros(D, dtype=np.int32)
    state[0] = sign * (STATE_LIMIT - 10)

    def push(_entry: Entry) -> Integers:
        return np.full(D, sign * 127, dtype=np.int8)

    after, saturated = fold_round(state, spec, Round(1, 1, (entry(0, 1),), 0, b""), push)
    assert after[0] == sign * STATE_LIMIT
    assert saturated == 1
    assert after[1] == sign * 127 * 256


def test_the_fraction_bits_keep_what_the_grid_would_erase() -> None:
    """design.md section 5: one grid step from one of four members is 64/256, not zero."""
    spec = spec_of("mean")
    entries = tuple(sorted((entry(n, 1) for n in range(4)), key=lambda e: e.author))

    def one(e: Entry) -> Integers:
        return np.full(D, int(e.author == entries[0].author), dtype=np.int8)

    after, _ = fold_round(origin(spec), spec, Round(1, 1, entries, 1, b""), one)
    assert after.tolist() == [64] * D


@pytest.mark.parametrize("rule", sorted(robust.RULES))
def test_the_charter_s_rule_is_the_one_that_folds(rule: str) -> None:
    spec = spec_of(rule)
    entries = tuple(sorted((entry(n, 1) for n in range(7)), key=lambda e: e.author))
    after, _ = fold_round(origin(spec), spec, Round(1, 1, entries, 2, b""), values(spec))
    assert after.tolist() == robust.RULES[rule]([values(spec)(e) for e in entries], 2).tolist()
    others = [other for other in robust.RULES if other != rule]
    assert any(robust.RULES[o]([values(spec)(e) for e in entries], 2).tolist() != after.tolist() for o in others)


def test_every_rule_of_a_charter_can_be_folded() -> None:
    assert set(RULES) == {*AVERAGES, *robust.RULES}
