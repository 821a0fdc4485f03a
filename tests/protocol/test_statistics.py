"""Statistics: what a charter may say of them, and which updates hosts take (G5, G6)."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from collegium.crypto.errors import RemoteProtocolError, UsageError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import charter as charters
from collegium.protocol import statistics
from collegium.protocol.charter import Charter
from collegium.protocol.claims import MAX_NOISE, NO_EPSILON, Claim, DpEvents
from collegium.protocol.components import MILLION, ComponentSpec, base_digest, base_vector
from collegium.protocol.learning import PrivacyFloor
from collegium.protocol.update import (
    Engaged,
    UpdateHeader,
    check_header,
    check_norm,
    norm_bounds,
    payload,
    read_payload,
    squared_norm,
)
from collegium.sims.simulator.small import small_charter

NAME = "statistic/task0"
ME = Identity.from_seed(sha256(b"a member"))


def a_charter(noise: int = 0) -> Charter:
    made = small_charter([ME], statistics=1, noise=noise)
    if not noise:
        return made
    floors = (PrivacyFloor("made-up", "dp", 8000, 10_000),)
    return replace(made, learning=replace(made.learning, floors=floors))


def spec_of(charter: Charter) -> ComponentSpec:
    spec = charter.component(NAME)
    assert spec is not None
    return spec


def a_header(charter: Charter, **changes: object) -> UpdateHeader:
    spec = spec_of(charter)
    claim = Claim("made-up", (), NO_EPSILON, 0)
    if spec.noise_multiplier:
        claim = Claim("made-up", (DpEvents(MILLION, spec.noise_multiplier, 1),), 1000, 10_000)
    made = UpdateHeader(
        federation=charter.federation,
        author=ME.public_key,
        component=NAME,
        round=1,
        generation=0,
        base=spec.base,
        blob=sha256(b"bytes"),
        size=100,
        steps=1,
        sample_rate=MILLION,
        lot=300_000,
        engaged=(Engaged(NAME, spec.base, spec.noise_multiplier, spec.clip_norm, MILLION),),
        claims=(claim,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value.reason


# ---- the charter


def test_a_charter_takes_a_statistic_as_it_has_to_be() -> None:
    for noise in (0, 2 * MILLION):
        charters.check(a_charter(noise))
    spec = spec_of(a_charter())
    assert (spec.dimension, spec.words, spec.integer_type) == (12, 24, np.dtype("<i4"))
    assert statistics.shape(spec) == (2, 3)


def based(spec: ComponentSpec, **changes: object) -> ComponentSpec:
    made = replace(spec, **changes)  # type: ignore[arg-type]  # by name
    return replace(made, base=base_digest(base_vector(a_charter().seed, made.name, made.tensors)))


WRONG: dict[str, Callable[[ComponentSpec], ComponentSpec]] = {
    "its width is not 32": lambda s: based(s, width=16),
    "its clip_norm is not its sensitivity": lambda s: based(s, clip_norm=MILLION),
    "its learning_rate is not 1": lambda s: based(s, learning_rate=2 * MILLION),
    "its min_updates is not 1": lambda s: based(s, min_updates=2),
    "its architecture is not one of": lambda s: based(s, architecture="linear"),
    "its tensors are not its architecture's": lambda s: based(s, tensors=s.tensors[1:]),
    "its outputs are not its task's": lambda s: based(s, tensors=statistics.tensors("ridge", 3, 3)),
    "under 2 features": lambda s: based(s, tensors=statistics.tensors("ridge", 1, 2)),
    "the rule of statistics is sum": lambda s: based(s, rule="mean", width=16),
    "has no modality or task 'task9'": lambda s: based(s, name="statistic/task9"),
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_charter_refuses_another(problem: str) -> None:
    charter = a_charter()
    others = tuple(spec for spec in charter.components if spec.name != NAME)
    with pytest.raises(UsageError, match=problem):
        charters.check(replace(charter, components=(*others, WRONG[problem](spec_of(charter)))))


def test_nothing_else_has_a_ridge() -> None:
    charter = a_charter()
    other = replace(charter.components[0], ridge=5)
    with pytest.raises(UsageError, match="a ridge is of ridge statistics"):
        charters.check(replace(charter, components=(other, *charter.components[1:])))


def test_nothing_else_is_a_sum() -> None:
    charter = a_charter()
    other = based(charter.components[0], rule="sum", width=32)
    with pytest.raises(UsageError, match="and of nothing else"):
        charters.check(replace(charter, components=(other, *charter.components[1:])))
    made = statistics.tensors("prototypes", 3, 1)
    spec = based(spec_of(charter), architecture="prototypes", clip_norm=MILLION, tensors=made)
    learning = replace(charter.learning, tasks=(replace(charter.learning.tasks[0], kind="regression", classes=1),))
    with pytest.raises(UsageError, match="prototypes are of classes"):
        statistics.check(spec, learning)


# ---- headers


def test_a_header_is_one_draw_of_all_students_and_of_no_state() -> None:
    """G5, G6."""
    charter = a_charter(2 * MILLION)
    spec = spec_of(charter)
    assert check_header(a_header(charter), charter) is spec
    entry = a_header(charter).engaged[0]
    head = charter.components[0]
    beside = Engaged(head.name, bytes(32), 2 * MILLION, MILLION, MILLION)
    for reason, changes in {
        "steps-above": {"steps": 2},
        "sample-rate-below": {"sample_rate": MILLION // 10},
        "lot-below": {"lot": 999},
        "lot-above": {"lot": 1000 * statistics.most_students(spec) + 1},
        "base-mismatch": {"base": bytes(32), "engaged": (replace(entry, base=bytes(32)),)},
        "mixed-draw": {"engaged": (beside, entry)},
        "recipe-differs": {"engaged": (replace(entry, clip_norm=MILLION),)},
        "noise-below": {"engaged": (replace(entry, noise_multiplier=MILLION),)},
        "noise-above": {"engaged": (replace(entry, noise_multiplier=2 * MAX_NOISE * MILLION + 1),)},
    }.items():
        assert refused(lambda c=changes: check_header(a_header(charter, **c), charter)) == reason  # type: ignore[misc]
    shared = a_header(charter, component=head.name, base=bytes(32), engaged=(beside, entry), steps=4)
    assert refused(lambda: check_header(replace(shared, sample_rate=100_000), charter)) == "mixed-draw"


def test_a_spend_statement_has_to_list_the_release() -> None:
    """G6: draws of a tenth of the students do not stand for a draw of all of them."""
    charter = a_charter(2 * MILLION)
    claim = Claim("made-up", (DpEvents(100_000, 2 * MILLION, 1),), 1000, 10_000)
    assert refused(lambda: check_header(a_header(charter, claims=(claim,)), charter)) == "spend-lacks-training"


# ---- norms


def test_the_squared_norm_of_wide_integers_is_exact() -> None:
    for values in (
        np.full(2**12, -(2**31), dtype="<i4"),
        np.array([2**31 - 1, -(2**31), 65_535, 65_536, -65_535, 1, 0], dtype="<i4"),
        np.random.default_rng(0).integers(-(2**31), 2**31, 1000).astype("<i4"),
    ):
        assert squared_norm(values) == sum(int(value) ** 2 for value in values)


def test_honest_sums_pass_and_others_do_not() -> None:
    """G5, G6: as many students as declared with the noise that is declared; not more, and not less noise."""
    charter = a_charter(2 * MILLION)
    spec, header = spec_of(charter), a_header(charter)
    source = np.random.default_rng(1)
    unit = 1 / spec.grid_step
    one = np.zeros(spec.dimension)
    one[0] = one[-1] = unit  # a student of norm √2
    for _ in range(200):
        noise = 2 * sqrt(2) * unit * source.normal(size=spec.dimension)
        check_norm(np.rint(300 * one + noise).astype("<i4"), header, spec)
    assert refused(lambda: check_norm((320 * one).astype("<i4"), header, spec)) == "norm-above"
    low, high = norm_bounds(header, spec)
    assert 300 * sqrt(2) * unit < sqrt(high) < 320 * sqrt(2) * unit
    assert low == 0, "12 numbers: their noise may be anything"
    wide = replace(spec, tensors=statistics.tensors("ridge", 30, 2))
    low, _ = norm_bounds(header, wide)
    assert 0 < sqrt(low) < 2 * sqrt(2) * unit * sqrt(wide.dimension)
    assert refused(lambda: check_norm(np.zeros(wide.dimension, dtype="<i4"), header, wide)) == "norm-below"


def test_the_most_students_keep_within_32_bits() -> None:
    spec = spec_of(a_charter())
    most = statistics.most_students(spec)
    assert most / spec.grid_step == 2**30
    assert statistics.most_students(replace(spec, step_log2=30)) == 1


def test_a_payload_carries_32_bits() -> None:
    charter = a_charter()
    values = np.array([2**31 - 1, -(2**31) + 1, *range(10)], dtype="<i4")
    frame = payload(charter.federation, ME.public_key, NAME, 1, values)
    header = a_header(charter, blob=sha256(frame), size=len(frame))
    assert read_payload(frame, header, spec_of(charter)).tolist() == values.tolist()
    assert refused(lambda: read_payload(frame, replace(header, round=2), spec_of(charter))) == "copied-payload"


def test_states_are_words() -> None:
    values = np.array([0, 1, -1, 2**62, -(2**62), 2**32, -(2**32) - 7], dtype=np.int64)
    state = statistics.words(values)
    assert state.dtype == np.int32
    assert state.shape == (14,)
    assert statistics.numbers(state).tolist() == values.tolist()
