"""The update format: signed header and integer payload (design.md section 5).

The payload is one zstd frame over a prefix and d integers of the component's width, little-endian. The prefix binds it
to its federation, author, component and round, so that a copied payload is recognised.
"""

import hashlib
from dataclasses import dataclass, field
from math import isqrt
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import zstandard

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import sha256
from .bounds import MIN_STUDENTS
from .charter import Charter
from .claims import MAX_NOISE, Claim, check_claims, check_spend_statements
from .components import MILLION, ComponentSpec
from .learning import MAX_SHARDS, Learning
from .schema import LATER, U32, U63, Between, Bytes32, Name, Size
from .statistics import most_students

PREFIX_SIZE = 104
# A small lot widens the norm bound, as a declared noise does: both are limited (G5).
MIN_LOT = 1000  # L = 1
SCALE = 2**32  # fixed point of the norm bounds
Positive = Annotated[int, Between(1, 2**40)]
Integers = npt.NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class Engaged:
    """One component engaged by a training run: its base state and its recipe (millionths)."""

    component: Name
    base: Bytes32
    noise_multiplier: Annotated[int, Between(0, 2**40)]
    clip_norm: Positive
    learning_rate: Positive


@dataclass(frozen=True, slots=True)
class UpdateHeader:
    """One member's change to one component in one round. `round` r was trained from the state after round r - 1.

    `blob` and `size` name the compressed payload; `lot` is L in thousandths. `claims` has one entry for each modality
    of the author's data that this run used, by name. `manifest` is the blinded root of the drawn students: only their
    institution can tell who they are (design.md section 9); zeros if the learner names nobody.

    `shard` is the shard of the students that this run could draw, and the spend statements are of its students.

    Of a statistic, `round` only distinguishes its author's contributions, `base` is the spec's, and `lot` is the
    declared number of students N̂, in thousandths: one run over all of them, added up.
    """

    DOMAIN: ClassVar[str] = "update"
    LIMIT: ClassVar[int] = 31 << 10

    federation: Bytes32
    author: Bytes32
    component: Name
    round: Annotated[int, Between(1, 2**63 - 1)]
    generation: U32
    base: Bytes32
    blob: Bytes32
    size: U63
    steps: Annotated[int, Between(1, 2**20)]
    sample_rate: Annotated[int, Between(1, MILLION)]
    lot: Positive
    engaged: Annotated[tuple[Engaged, ...], Size(1, 64)]
    claims: Annotated[tuple[Claim, ...], Size(1, 64)]
    manifest: Bytes32 = bytes(32)
    shard: Annotated[int, Between(0, MAX_SHARDS - 1)] = field(default=0, metadata=LATER)

    @property
    def recipe(self) -> Engaged:
        """The engaged entry of this header's own component. Raises RemoteProtocolError if there is none."""
        for entry in self.engaged:
            if entry.component == self.component:
                return entry
        raise RemoteProtocolError("not-engaged", self.component, self.author)


@dataclass(frozen=True, slots=True)
class Declared:
    """The fields of an update's header that bound its norm. `lot` is in thousandths."""

    recipe: Engaged
    steps: int
    lot: int


def raw_size(spec: ComponentSpec) -> int:
    """Return the uncompressed size of a payload in bytes."""
    return PREFIX_SIZE + spec.dimension * spec.width // 8


def max_frame_size(spec: ComponentSpec) -> int:
    """Return the largest compressed size that is accepted: zstd's own bound for incompressible data."""
    raw = raw_size(spec)
    return raw + raw // 128 + 512


def prefix(header: UpdateHeader) -> bytes:
    """Return the prefix of this header's payload."""
    name = hashlib.sha256(header.component.encode()).digest()
    return header.federation + header.author + name + header.round.to_bytes(8, "big")


def payload(federation: bytes, author: bytes, component: str, round_: int, values: Integers) -> bytes:
    """Compress an update's integers, shape [d], little-endian in the spec's width, into its frame."""
    name = hashlib.sha256(component.encode()).digest()
    raw = federation + author + name + round_.to_bytes(8, "big") + values.tobytes()
    return zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=False).compress(raw)


def read_payload(frame: bytes, header: UpdateHeader, spec: ComponentSpec) -> Integers:
    """Return the integers of a frame, shape [d], after every check that needs the bytes only.

    Raises RemoteProtocolError("blob-digest" | "blob-frame" | "blob-size" | "copied-payload").
    """
    author = header.author
    if len(frame) != header.size or sha256(frame) != header.blob:
        raise RemoteProtocolError("blob-digest", f"{len(frame)} bytes do not hash to {header.blob.hex()[:16]}", author)
    expected = raw_size(spec)
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared != expected:
            raise RemoteProtocolError("blob-size", f"declares {declared} bytes where {expected} belong", author)
        raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError("blob-frame", f"not one zstd frame: {error}", author) from error
    if len(raw) != expected:
        raise RemoteProtocolError("blob-size", f"{len(raw)} bytes where {expected} belong", author)
    if raw[:PREFIX_SIZE] != prefix(header):
        raise RemoteProtocolError("copied-payload", "the payload was made for another place", author)
    return np.frombuffer(raw, dtype=spec.integer_type, offset=PREFIX_SIZE)


def payload_values(frame: bytes, spec: ComponentSpec) -> Integers:
    """Return the integers of a frame that passed read_payload before it was stored, shape [d]."""
    raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=raw_size(spec))
    return np.frombuffer(raw, dtype=spec.integer_type, offset=PREFIX_SIZE)


def divisor(header: UpdateHeader, spec: ComponentSpec) -> int:
    """Return the divisor of an update's noise, in thousandths: the lot; 1 for a statistic."""
    return 1000 if spec.is_statistic else header.lot


def least_lot(learning: Learning) -> int:
    """Return the lot, in thousandths, below which a declared lot widens an update's norm bound no further."""
    return max(MIN_LOT, learning.sample_rate * MIN_STUDENTS // (1000 * learning.shards))


def norm_bounds(header: UpdateHeader | Declared, spec: ComponentSpec, least: int = MIN_LOT) -> tuple[int, int]:
    """Return the least and greatest squared norm of the update in grid units (design.md section 5, integers only).

    Upper: `1.5·τ·η·C + s(√d + 6)` with `s = ησC√τ/L`; lower, under DP: `s₁(√(d-1) - 6)` with `s₁ = ησC/L`. Noised
    values exceed any un-noised bound, and a smaller norm shows that the update was not noised as declared. Of a
    statistic: `N̂·C + s(√d + 6)` with `s = σC`, and the same lower bound.

    An author's declaration widens the bounds only so far: s is at most that of the charter's noise over a lot of
    `least` (thousandths; least_lot). An author with more noise scales its update down, which is post-processing.
    """
    recipe, tau, d, noise = header.recipe, header.steps, spec.dimension, header.recipe.noise_multiplier
    grid = 1 << spec.step_log2
    lot, signal = header.lot, 3 * tau * recipe.learning_rate * recipe.clip_norm * grid * SCALE // (2 * MILLION**2)
    if noise * least > spec.noise_multiplier * lot:
        noise, lot = spec.noise_multiplier, least
    if spec.is_statistic:
        noise = recipe.noise_multiplier
        lot, signal = 1000, header.lot * recipe.clip_norm * grid * SCALE // (1000 * MILLION)
    unit = recipe.learning_rate * recipe.clip_norm * noise * grid * 1000  # s₁ · (10^18 · lot)
    spread = isqrt(tau * d * SCALE**2) + 6 * isqrt(tau * SCALE**2) + 7
    upper = signal + unit * spread // (MILLION**3 * lot) + 2
    root = max(0, isqrt((d - 1) * SCALE**2) - 6 * SCALE)
    lower = unit * root // (MILLION**3 * lot)
    return lower**2 // SCALE**2, -(-(upper**2) // SCALE**2)


def squared_norm(values: Integers) -> int:
    """Return the exact squared norm of an update in grid units."""
    if values.dtype.itemsize == 1:
        # Sums of at most 2^9 squares of int8 stay exact in float32; blocks of them are summed in int64.
        whole = values[: values.size // 512 * 512].astype(np.float32).reshape(-1, 512)
        rest = values[whole.size :].astype(np.int64)
        return int(np.einsum("ij,ij->i", whole, whole).astype(np.int64).sum()) + int(rest @ rest)
    wide = values.astype(np.int64)
    if values.dtype.itemsize == 4:
        # The square of an int32 takes 62 bits: two halves of 16 bits, whose products can be added up 2^31 times.
        high, low = wide >> 16, wide & 0xFFFF
        return (int(high @ high) << 32) + (int(high @ low) << 17) + int(low @ low)
    return int(wide @ wide)


def within_norm(values: Integers, header: Declared, spec: ComponentSpec, least: int) -> Integers:
    """Return an update, shape [d], scaled down to the greatest accepted norm if it exceeds that."""
    _, high = norm_bounds(header, spec, least)
    norm = squared_norm(values)
    if norm <= high or spec.is_statistic:
        return values
    scaled: Integers = np.trunc(values * (isqrt(high) / (isqrt(norm) + 1))).astype(values.dtype)
    return scaled


def check_norm(values: Integers, header: UpdateHeader, spec: ComponentSpec, least: int = MIN_LOT) -> None:
    """Check an update's norm (G5, G6). Raises RemoteProtocolError("norm-above" | "norm-below")."""
    low, high = norm_bounds(header, spec, least)
    norm = squared_norm(values)
    if norm > high:
        raise RemoteProtocolError("norm-above", f"squared norm {norm} is over {high} grid units", header.author)
    if norm < low:
        raise RemoteProtocolError("norm-below", f"squared norm {norm} is under {low}: not noised so", header.author)


def check_header(header: UpdateHeader, charter: Charter) -> ComponentSpec:
    """Check a header against the charter's integer bounds (G5, G6) and return its component's spec.

    Raises RemoteProtocolError with the name of the broken bound.
    """
    learning = charter.learning
    names = [entry.component for entry in header.engaged]
    specs = charter.specs
    spec = specs.get(header.component)
    if spec is None:
        raise RemoteProtocolError("unknown-component", header.component, header.author)
    if header.component in charter.retired:
        raise RemoteProtocolError("component-retired", header.component, header.author)
    draw = (1, MILLION) if spec.is_statistic else (learning.steps, learning.sample_rate)
    checks = (
        ("engaged-order", names == sorted(set(names)) and all(name in specs for name in names)),
        ("base-mismatch", header.component in names and header.recipe.base == header.base),
        ("mixed-draw", all(specs[name].is_statistic == spec.is_statistic for name in names if name in specs)),
        ("steps-above", header.steps <= draw[0]),
        ("sample-rate-above", header.sample_rate <= draw[1]),
        ("sample-rate-below", header.sample_rate == MILLION or not spec.is_statistic),
        ("shard-above", header.shard < learning.shards),
        ("size-above", header.size <= max_frame_size(spec)),
        ("lot-below", header.lot >= MIN_LOT),
        (
            "lot-below",
            header.lot >= 1000 * learning.min_students if spec.is_statistic else learning.enough(header.lot),
        ),
        ("lot-above", not spec.is_statistic or header.lot <= 1000 * most_students(spec)),
        ("base-mismatch", not spec.is_statistic or header.base == spec.base),
    )
    for reason, ok in checks:
        if not ok:
            raise RemoteProtocolError(reason, header.component, header.author)
    for entry in header.engaged:
        bound = specs[entry.component]
        if entry.noise_multiplier < bound.noise_multiplier:
            raise RemoteProtocolError("noise-below", entry.component, header.author)
        if entry.noise_multiplier > MAX_NOISE * bound.noise_multiplier:
            raise RemoteProtocolError("noise-above", entry.component, header.author)
        if entry.clip_norm > bound.clip_norm:
            raise RemoteProtocolError("clip-above", entry.component, header.author)
        if entry.learning_rate > bound.learning_rate:
            raise RemoteProtocolError("learning-rate-above", entry.component, header.author)
        if spec.is_statistic and (entry.clip_norm, entry.learning_rate) != (bound.clip_norm, bound.learning_rate):
            raise RemoteProtocolError("recipe-differs", entry.component, header.author)
    noises = {entry.component: entry.noise_multiplier for entry in header.engaged}
    check_spend_statements(header.claims, charter.widest_rate, charter.components, author=header.author)
    check_claims(
        header.claims,
        learning,
        noises,
        sample_rate=header.sample_rate,
        steps=header.steps,
        author=header.author,
    )
    return spec
