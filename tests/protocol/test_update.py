"""The update format: what the bytes must be, and how large an update may be and must be (G5, G6, G9)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import RemoteProtocolError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.protocol import schema
from collegium.protocol.charter import Charter
from collegium.protocol.claims import (
    ALL_LINES,
    MAX_EVENTS,
    MAX_LINES,
    NO_EPSILON,
    Claim,
    DpEvents,
    effective_noise,
    lines_for,
    merge,
    reached_noise,
)
from collegium.protocol.components import MILLION, ComponentSpec, TensorSpec
from collegium.protocol.learning import Modality, PrivacyFloor, Task
from collegium.protocol.update import (
    Declared,
    Engaged,
    Integers,
    UpdateHeader,
    check_header,
    check_norm,
    least_lot,
    max_frame_size,
    norm_bounds,
    payload,
    prefix,
    raw_size,
    read_payload,
    squared_norm,
    within_norm,
)
from collegium.sims.simulator.small import small_charter

ME = Identity.from_seed(sha256(b"me"))
CHARTER = small_charter([ME], dimension=400, components=2)
SPEC = CHARTER.components[0]
BASE = sha256(b"base")
VALUES: Integers = np.arange(400, dtype=np.int16).astype("<i1")


def header(
    spec: ComponentSpec = SPEC, frame: bytes = b"", *, noise: int = 0, lot: int = 10_000, **more: object
) -> UpdateHeader:
    recipe = Engaged(spec.name, BASE, noise, MILLION, MILLION)
    value = UpdateHeader(
        federation=CHARTER.federation,
        author=ME.public_key,
        component=spec.name,
        round=3,
        generation=0,
        base=BASE,
        blob=sha256(frame),
        size=len(frame),
        steps=4,
        sample_rate=100_000,
        lot=lot,
        engaged=(recipe,),
        claims=(Claim("made-up", (), NO_EPSILON, 0),),
    )
    return replace(value, **more)  # type: ignore[arg-type]  # passed through by name


def frame_of(values: Integers = VALUES, round_: int = 3) -> bytes:
    return payload(CHARTER.federation, ME.public_key, SPEC.name, round_, values)


RAW = prefix(header()) + VALUES.tobytes()
FRAME = frame_of()


def zstd(raw: bytes, *, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=size).compress(raw)


def lying(raw: bytes, declared: int) -> bytes:
    """A frame whose header declares another size than its content has."""
    honest = zstd(raw)
    assert honest[4] >> 6 == 1, "a two-byte content size, stored less 256"
    at = 5 if honest[4] & 0x20 else 6
    assert int.from_bytes(honest[at : at + 2], "little") + 256 == len(raw)
    return honest[:at] + (declared - 256).to_bytes(2, "little") + honest[at + 2 :]


def test_round_trip() -> None:
    assert read_payload(FRAME, header(frame=FRAME), SPEC).tolist() == VALUES.tolist()
    assert zstandard.ZstdDecompressor().decompress(FRAME) == RAW
    assert len(FRAME) <= max_frame_size(SPEC)


def test_sixteen_bits() -> None:
    spec = replace(SPEC, width=16)
    values = np.linspace(-(2**15), 2**15 - 1, 400).astype("<i2")
    frame = frame_of(values)
    assert read_payload(frame, header(spec, frame), spec).tolist() == values.tolist()


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=400, max_size=400))
def test_incompressible_values_fit_the_frame_bound(raw: bytes) -> None:
    assert len(frame_of(np.frombuffer(raw, dtype="<i1"))) <= max_frame_size(SPEC)


OTHER = zstd(prefix(replace(header(), author=sha256(b"other"))) + VALUES.tobytes())
BAD_FRAMES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "blob-frame"),
    "not zstd": (b"raw bytes", "blob-frame"),
    "cut off": (FRAME[:-3], "blob-frame"),
    "cut off in its header": (FRAME[:5], "blob-frame"),
    "two frames": (FRAME + FRAME, "blob-frame"),
    "a byte after the frame": (FRAME + b"x", "blob-frame"),
    "a skippable frame before": (b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + FRAME, "blob-size"),
    "no declared size": (zstd(RAW, size=False), "blob-size"),
    "a value too few": (zstd(RAW[:-1]), "blob-size"),
    "a value too many": (zstd(RAW + b"x"), "blob-size"),
    "declares more than it holds": (lying(RAW[:-1], len(RAW)), "blob-frame"),
    "declares less than it holds": (lying(RAW + bytes(50), len(RAW)), "blob-frame"),
    "a bomb that says so": (zstd(bytes(1 << 28)), "blob-size"),
    "a bomb that does not": (zstd(bytes(1 << 28), size=False), "blob-size"),
    "another author's": (OTHER, "copied-payload"),
    "another round's": (frame_of(round_=4), "copied-payload"),
    "another component's": (payload(CHARTER.federation, ME.public_key, "head/task1", 3, VALUES), "copied-payload"),
    "another federation's": (payload(BASE, ME.public_key, SPEC.name, 3, VALUES), "copied-payload"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_frames_are_refused_by_name(name: str) -> None:
    frame, reason = BAD_FRAMES[name]
    with pytest.raises(RemoteProtocolError) as caught:
        read_payload(frame, header(frame=frame), SPEC)
    assert caught.value.reason == reason
    assert caught.value.peer == ME.public_key


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_a_changed_byte_is_another_blob(at: int, change: int) -> None:
    damaged = bytearray(FRAME)
    damaged[at] ^= change
    for head in (header(frame=FRAME), replace(header(frame=FRAME), size=len(FRAME) + 1)):
        with pytest.raises(RemoteProtocolError) as caught:
            read_payload(bytes(damaged), head, SPEC)
        assert caught.value.reason == "blob-digest"


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_a_damaged_frame_under_its_own_digest_raises_nothing_else(at: int, change: int) -> None:
    damaged = bytearray(FRAME)
    damaged[at] ^= change
    try:
        values = read_payload(bytes(damaged), header(frame=bytes(damaged)), SPEC)
    except RemoteProtocolError:
        return
    assert values.size == 400


# ---- norms


def bounds_in_floats(head: UpdateHeader, spec: ComponentSpec) -> tuple[float, float]:
    """design.md section 5, word by word."""
    recipe, tau, d, grid = head.recipe, head.steps, spec.dimension, spec.grid_step
    eta, clip, sigma = recipe.learning_rate / MILLION, recipe.clip_norm / MILLION, recipe.noise_multiplier / MILLION
    lot = head.lot / 1000
    s = eta * sigma * clip * math.sqrt(tau) / lot
    s1 = eta * sigma * clip / lot
    upper = 1.5 * tau * eta * clip + s * (math.sqrt(d) + 6)
    lower = max(0.0, s1 * (math.sqrt(d - 1) - 6))
    return (lower / grid) ** 2, (upper / grid) ** 2


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 2000),
    st.integers(1, 2**20),
    st.integers(0, 100_000_000),
    st.integers(1, 50_000_000),
    st.integers(1, 50_000_000),
    st.integers(1000, 10**7),
    st.integers(0, 20),
)
def test_norm_bounds_are_the_formulas(
    tau: int, d: int, noise: int, clip: int, eta: int, lot: int, step_log2: int
) -> None:
    """G5, G6: the integers are the formulas, never on the strict side of them by more than rounding."""
    spec = replace(SPEC, tensors=(TensorSpec("w", (d,) if d <= 2**24 else (2**12, d >> 12), 1),), step_log2=step_log2)
    spec = replace(spec, noise_multiplier=noise)
    recipe = Engaged(spec.name, BASE, noise, clip, eta)
    head = header(spec, steps=tau, lot=lot, engaged=(recipe,))
    low, high = norm_bounds(head, spec)
    low_float, high_float = bounds_in_floats(head, spec)
    assert abs(high - high_float) <= 1e-6 * high_float + 2
    assert abs(low - low_float) <= 1e-6 * low_float + 2
    assert low <= high
    assert high >= high_float * (1 - 1e-9)
    assert low <= low_float * (1 + 1e-9)


def test_what_an_author_declares_widens_the_bound_of_its_norm_only_so_far() -> None:
    """G5: a liar that declared lot 1 and 16 times the noise had room for 240 times an honest update."""
    learning = replace(CHARTER.learning, sample_rate=100_000)
    spec = replace(SPEC, tensors=(TensorSpec("w", (400,), 1),), step_log2=10, noise_multiplier=MILLION)
    least = least_lot(learning)
    assert least == 2000  # a tenth of 20 students

    def declared(times: int, lot: int) -> Declared:
        return Declared(Engaged(spec.name, BASE, times * MILLION, MILLION, MILLION), 4, lot)

    honest, widest = norm_bounds(declared(1, 30_000), spec, least), norm_bounds(declared(1, 2000), spec, least)
    assert honest[1] < widest[1]
    for times, lot in ((16, 1000), (16, 2000), (1, 1000), (16, 31_000)):
        assert norm_bounds(declared(times, lot), spec, least) == widest
    assert norm_bounds(declared(16, 32_000), spec, least)[1] == pytest.approx(widest[1])
    loud = np.full(400, 20_000, dtype="<i2")
    lying = replace(header(spec), steps=4, lot=1000, engaged=(declared(16, 1000).recipe,))
    check_norm(loud, lying, replace(spec, noise_multiplier=16 * MILLION))  # as it was
    with pytest.raises(RemoteProtocolError, match="norm-above"):
        check_norm(loud, lying, spec, least)


@pytest.mark.parametrize("times", [1, 16])
def test_who_has_more_noise_than_that_scales_down_and_is_accepted(times: int) -> None:
    spec = replace(SPEC, tensors=(TensorSpec("w", (400,), 1),), step_log2=8, noise_multiplier=MILLION)
    recipe = Engaged(spec.name, BASE, times * MILLION, MILLION, MILLION)
    noise = np.random.default_rng(1).normal(0, times * 2**8, 400)
    values = np.clip(np.rint(noise), -(2**15) + 1, 2**15 - 1).astype("<i2")
    sent = within_norm(values, Declared(recipe, 4, 2000), spec, 2000)
    check_norm(sent, replace(header(spec), steps=4, lot=2000, engaged=(recipe,)), spec, 2000)
    assert (sent is values) == (times == 1)


def test_at_and_over_the_upper_bound() -> None:
    """G5."""
    spec = replace(SPEC, tensors=(TensorSpec("w", (400,), 1),), step_log2=3)
    head = header(spec)
    _, high = norm_bounds(head, spec)
    assert high == math.ceil((1.5 * 4 * 8) ** 2) or abs(high - (1.5 * 4 * 8) ** 2) < 2
    values = np.zeros(400, dtype="<i1")
    values[:1] = 48
    check_norm(values, head, spec)
    values[1:2] = 9
    with pytest.raises(RemoteProtocolError, match="norm-above"):
        check_norm(values, head, spec)


def noised(spec: ComponentSpec, noise: float, lot: float, seed: int, signal: float = 1.0) -> Integers:
    """An honest update: τ steps of clipped sums plus noise, on the grid."""
    random = np.random.default_rng(seed)
    eta = clip = 1.0
    total = np.zeros(spec.dimension)
    for _ in range(4):
        gradient = random.normal(size=spec.dimension)
        clipped = clip * gradient / np.linalg.norm(gradient) * lot * signal
        total -= eta * (clipped + noise * clip * random.normal(size=spec.dimension)) / lot
    low, high = (-128, 127) if spec.width == 8 else (-(2**15), 2**15 - 1)
    return np.clip(np.rint(total / spec.grid_step), low, high).astype(spec.integer_type)


@pytest.mark.parametrize("width", [8, 16])
def test_honestly_noised_updates_pass(width: int) -> None:
    """G6: thirty seeds, full signal and none; d = 4000, σ = 1, L = 10."""
    spec = replace(
        SPEC,
        noise_multiplier=MILLION,
        tensors=(TensorSpec("w", (4000,), 1),),
        step_log2=6 if width == 16 else 5,
        width=width,
    )
    head = header(spec, noise=1_000_000, lot=10_000)
    for seed in range(30):
        for signal in (0.0, 1.0):
            check_norm(noised(spec, 1.0, 10.0, seed, signal), head, spec)


def test_an_update_without_the_declared_noise_is_refused() -> None:
    """G6: smaller than the noise of a single step."""
    spec = replace(SPEC, noise_multiplier=MILLION, tensors=(TensorSpec("w", (4000,), 1),), step_log2=6)
    head = header(spec, noise=1_000_000, lot=10_000)
    for values in (noised(spec, 0.0, 10.0, 1, 0.1), np.zeros(4000, dtype="<i1")):
        with pytest.raises(RemoteProtocolError, match="norm-below"):
            check_norm(values, head, spec)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2000), st.sampled_from(["<i1", "<i2"]), st.integers(0, 2**32))
def test_squared_norms_are_exact(size: int, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    values = random.integers(info.min, info.max, size, endpoint=True).astype(dtype)
    values[: size // 2] = info.min
    assert squared_norm(values) == sum(int(v) ** 2 for v in values)


def test_the_largest_squared_norm_is_exact() -> None:
    values: Integers = np.full(1 << 20, -128, dtype="<i1")
    assert squared_norm(values) == (1 << 20) * 2**14


# ---- headers

PRIVATE: Charter = replace(
    CHARTER,
    learning=replace(CHARTER.learning, floors=(PrivacyFloor("made-up", "dp", 8000, 10_000),)),
    components=tuple(replace(spec, noise_multiplier=MILLION) for spec in CHARTER.components),
)
ONE, TWO = (spec.name for spec in CHARTER.components)


def engaged(name: str = ONE, **more: int) -> Engaged:
    return replace(Engaged(name, BASE, MILLION, MILLION, MILLION), **more)  # type: ignore[arg-type]  # integers only


PAID = Claim("made-up", (DpEvents(100_000, MILLION, 4),), 8000, 10_000)


def claiming(*more: Claim, **changes: object) -> UpdateHeader:
    return replace(GOOD, claims=(replace(PAID, **changes), *more))  # type: ignore[arg-type]  # passed through by name


GOOD = header(SPEC, engaged=(engaged(),), claims=(PAID,))
BOTH = merge((DpEvents(100_000, effective_noise([MILLION, MILLION]), 4),))
BAD_HEADERS: dict[str, tuple[UpdateHeader, str]] = {
    "a component that is not in the charter": (replace(GOOD, component="head/none"), "unknown-component"),
    "engaged components out of order": (replace(GOOD, engaged=(engaged(TWO), engaged(ONE))), "engaged-order"),
    "one engaged twice": (replace(GOOD, engaged=(engaged(), engaged())), "engaged-order"),
    "an unknown one engaged": (replace(GOOD, engaged=(engaged(), engaged("zzz"))), "engaged-order"),
    "its own not engaged": (replace(GOOD, engaged=(engaged(TWO),)), "base-mismatch"),
    "another base than engaged": (replace(GOOD, base=sha256(b"other")), "base-mismatch"),
    "a step too many": (replace(GOOD, steps=5), "steps-above"),
    "a higher sampling rate": (replace(GOOD, sample_rate=100_001), "sample-rate-above"),
    "a larger blob": (replace(GOOD, size=max_frame_size(SPEC) + 1), "size-above"),
    "more ε than the floor": (claiming(epsilon=8001), "epsilon-above"),
    "no ε at all under the floor": (claiming(epsilon=NO_EPSILON), "epsilon-above"),
    "more δ than the floor": (claiming(delta=10_001), "epsilon-above"),
    "no draws in the spend statement": (claiming(events=()), "spend-missing"),
    "no δ at all": (claiming(delta=0), "spend-missing"),
    "fewer draws than steps": (claiming(events=(DpEvents(100_000, MILLION, 3),)), "spend-lacks-training"),
    "draws enough, but not of this one": (
        claiming(events=(DpEvents(100_000, MILLION, 3), DpEvents(100_000, MILLION + 1, 9))),
        "spend-lacks-training",
    ),
    "draws at a lower rate": (claiming(events=(DpEvents(99_999, MILLION, 4),)), "spend-lacks-training"),
    "two engaged with the noise of one": (replace(GOOD, engaged=(engaged(), engaged(TWO))), "spend-lacks-training"),
    "more lines than a spend statement may have": (
        claiming(events=tuple(DpEvents(100_000, MILLION - n, 4) for n in range(65))),
        "spend-lines",
    ),
    "more draws than anybody makes": (
        claiming(events=(DpEvents(100_000, MILLION, 4), DpEvents(100_000, MILLION, MAX_EVENTS))),
        "spend-events",
    ),
    "draws at a rate that the charter has not": (
        claiming(events=(PAID.events[0], DpEvents(MILLION, MILLION, 1))),
        "spend-rate",
    ),
    "draws with less noise than all components together": (
        claiming(events=(PAID.events[0], DpEvents(100_000, 100, 1))),
        "spend-noise",
    ),
    "draws with more noise than any component may have": (
        claiming(events=(PAID.events[0], DpEvents(100_000, 16 * MILLION + 1, 1))),
        "spend-noise",
    ),
    "claims out of order": (claiming(replace(PAID, modality="a")), "claims-order"),
    "a modality twice": (claiming(PAID), "claims-order"),
    "a modality that the charter has not": (claiming(modality="other"), "claims-order"),
    "less noise": (replace(GOOD, engaged=(engaged(noise_multiplier=MILLION - 1),)), "noise-below"),
    "less noise on another engaged one": (
        replace(GOOD, engaged=(engaged(), engaged(TWO, noise_multiplier=0))),
        "noise-below",
    ),
    "a noise that would allow any norm": (
        replace(GOOD, engaged=(engaged(noise_multiplier=16 * MILLION + 1),)),
        "noise-above",
    ),
    "a lot that would allow any norm": (replace(GOOD, lot=999), "lot-below"),
    "a shard that the charter has not": (replace(GOOD, shard=1), "shard-above"),
    "a higher clip": (replace(GOOD, engaged=(engaged(clip_norm=MILLION + 1),)), "clip-above"),
    "a higher learning rate": (replace(GOOD, engaged=(engaged(learning_rate=MILLION + 1),)), "learning-rate-above"),
}


def test_a_header_at_every_bound_passes() -> None:
    assert check_header(GOOD, PRIVATE).name == ONE
    two = replace(GOOD, engaged=(engaged(), engaged(TWO)), claims=(replace(PAID, events=BOTH),))
    assert check_header(two, PRIVATE).name == ONE
    assert check_header(replace(GOOD, size=max_frame_size(SPEC)), PRIVATE).name == ONE


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_every_bound_has_its_name(name: str) -> None:
    """G5, G6."""
    head, reason = BAD_HEADERS[name]
    with pytest.raises(RemoteProtocolError) as caught:
        check_header(head, PRIVATE)
    assert caught.value.reason == reason
    assert caught.value.peer == ME.public_key


def test_a_charter_with_shards_counts_the_students_of_all_of_them() -> None:
    """A lot is of one shard's students; a header of the first one says nothing of shards, as before there were any."""
    learning = replace(CHARTER.learning, sample_rate=100_000, min_students=100, shards=4)
    assert least_lot(learning) == 1000  # a fortieth of 20 students is less than one
    assert least_lot(replace(learning, sample_rate=MILLION)) == 5000
    assert learning.drawn == 0.025
    assert (learning.students(2500), learning.enough(2500), learning.enough(2499)) == (100_000, True, False)
    assert [learning.runs_of_a_student(rounds) for rounds in (0, 1, 4, 5)] == [0, 1, 1, 2]
    sharded = replace(PRIVATE, learning=replace(PRIVATE.learning, shards=4))
    assert check_header(replace(GOOD, shard=3), sharded).name == ONE
    assert b"shard" not in schema.dump(GOOD)
    assert b"shard" in schema.dump(replace(GOOD, shard=1))


def test_without_differential_privacy_no_epsilon_is_claimed() -> None:
    check_header(header(), CHARTER)
    assert raw_size(SPEC) == 104 + 400


# ---- claims, modality by modality


def wide(policies: dict[str, str]) -> Charter:
    """Encoders a, b and c (with adapters), heads ab (task of a and b) and c, a backbone: noised, but for nothing."""
    names = ("adapter/c", "backbone", "encoder/a", "encoder/b", "encoder/c", "head/ab", "head/c")
    learning = replace(
        CHARTER.learning,
        modalities=tuple(Modality(name, "tabular", 4, 1) for name in "abc"),
        tasks=(Task("ab", "binary", 2, ("a", "b")), Task("c", "binary", 2, ("c",))),
        floors=tuple(PrivacyFloor(name, policies.get(name, "dp"), 8000, 10_000) for name in "abc"),
    )
    specs = tuple(replace(SPEC, name=name, noise_multiplier=MILLION) for name in names)
    return replace(CHARTER, learning=learning, components=specs)


def drawn(names: tuple[str, ...], claims: tuple[Claim, ...]) -> UpdateHeader:
    return header(replace(SPEC, name=names[0]), engaged=tuple(engaged(name) for name in names), claims=claims)


def paid(modality: str, parts: int, count: int = 4) -> Claim:
    return Claim(modality, (DpEvents(100_000, effective_noise([MILLION] * parts), count),), 8000, 10_000)


FREE = Claim("c", (), NO_EPSILON, 0)
ALL_OF_A = ("backbone", "encoder/a", "encoder/b", "head/ab")


def test_each_modality_pays_for_what_it_reaches() -> None:
    """G6: a reaches the backbone, the head of its task, its encoder and that of b, which it is read beside."""
    check_header(drawn(ALL_OF_A, (paid("a", 4), paid("b", 4))), wide({}))
    check_header(drawn(ALL_OF_A, (paid("a", 5), paid("b", 4))), wide({}))  # an overstated line stands for it too
    every = (*ALL_OF_A[:3], "encoder/c", "head/ab", "head/c")
    check_header(drawn(every, (paid("a", 4), paid("b", 4), paid("c", 3))), wide({}))
    check_header(drawn(("adapter/c",), (FREE,)), wide({"c": "open"}))


WRONG_CLAIMS: dict[str, tuple[UpdateHeader, dict[str, str], str]] = {
    "the noise of the encoder alone": (drawn(ALL_OF_A, (paid("a", 1), paid("b", 4))), {}, "spend-lacks-training"),
    "the noise of all but the encoder beside it": (
        drawn(ALL_OF_A, (paid("a", 3), paid("b", 4))), {}, "spend-lacks-training",
    ),
    "no claim for an engaged encoder": (drawn(ALL_OF_A, (paid("a", 4),)), {}, "claim-missing"),
    "no claim for an engaged adapter": (drawn(("adapter/c", "head/ab"), (paid("a", 1),)), {}, "claim-missing"),
    "a claim for what reaches nothing": (drawn(("encoder/a",), (paid("a", 1), paid("c", 1))), {}, "claim-unreached"),
    "a modality that is never learned from": (
        drawn(("backbone",), (paid("a", 1), paid("b", 1))), {"b": "never"}, "modality-forbidden",
    ),
    "an ε that nobody asked for, without a spend statement": (
        drawn(("head/c",), (replace(FREE, epsilon=5),)), {"c": "open"}, "spend-missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_wrong_claims_are_refused_by_name(name: str) -> None:
    """G6."""
    head, policies, reason = WRONG_CLAIMS[name]
    with pytest.raises(RemoteProtocolError) as caught:
        check_header(head, wide(policies))
    assert (caught.value.reason, caught.value.peer) == (reason, ME.public_key)


NOISES = st.dictionaries(st.sampled_from([s.name for s in wide({}).components]), st.integers(1, 2**40), min_size=1)


@settings(deadline=None, max_examples=200)
@given(NOISES)
def test_what_is_restricted_has_no_less_noise_and_is_never_overstated(noises: dict[str, int]) -> None:
    """G6: σ_eff of fewer components is larger, and never above the exact one."""
    learning = wide({}).learning
    every = effective_noise(list(noises.values()))
    for modality in "abc":
        level = reached_noise(learning, modality, noises)
        reached = [noise for name, noise in noises.items() if modality in learning.upstream(name)]
        assert (level is None) is (not reached)
        if level is not None:
            assert level >= every
            assert level <= sum(float(noise) ** -2 for noise in reached) ** -0.5 * (1 + 1e-9)


DRAWS = st.builds(DpEvents, st.integers(1, 3), st.integers(0, 10**7), st.integers(0, 1000))


@settings(deadline=None, max_examples=300)
@given(st.lists(DRAWS, max_size=80), st.integers(1, MAX_LINES))
def test_merged_draws_never_cost_less(draws: list[DpEvents], lines: int) -> None:
    """G6: whatever the bound, as many draws at a rate and noise as before, or worse ones."""
    merged = merge(draws, lines)
    assert len(merged) <= lines
    assert merged == tuple(sorted(merged, key=lambda d: (d.sample_rate, d.noise_multiplier)))
    assert sum(d.count for d in merged) == sum(d.count for d in draws)
    assert set(merge(draws)) == set(merged) or len(merge(draws)) > lines
    for draw in draws:
        worse = [m for m in merged if m.sample_rate >= draw.sample_rate and m.noise_multiplier <= draw.noise_multiplier]
        bound = [d for d in draws if d.sample_rate >= draw.sample_rate and d.noise_multiplier <= draw.noise_multiplier]
        assert sum(m.count for m in worse) >= sum(d.count for d in bound)


def test_the_largest_spend_statements_fit_a_header() -> None:
    assert all(lines_for(n) * n <= ALL_LINES and 1 <= lines_for(n) <= MAX_LINES for n in range(1, 65))
    draws = tuple(DpEvents(MILLION, 2**40 - n, 2**32 - 1) for n in range(lines_for(64)))
    claims = tuple(Claim(f"modality-{n:02}", draws, 2**32 - 1, 2**32 - 1) for n in range(64))
    many = tuple(engaged(f"encoder/modality-{n:02}", noise_multiplier=2**40) for n in range(64))
    assert len(schema.dump(replace(GOOD, engaged=many, claims=claims))) <= UpdateHeader.LIMIT
