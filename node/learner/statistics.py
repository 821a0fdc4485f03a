"""Statistics of an institution's students: one noised release, and the head that is solved from their sum (ADR 16).

φ of a record is computed from its own values and constants of the charter, in integers: a record's part has the same
bits in any batch. Parts are rounded towards zero, so that no norm grows, to 1/FINER of a grid unit, and added up
exactly: the sums of two groups of students add up to the sum of all. Only what is released is rounded to the grid,
after the noise. With thousands of features a record's part has some grid units in each number: if each record were
rounded to the grid, more would be lost than a ridge adds.

    x   for each modality of the task: the mean of its valid steps (text: pair features), in 1/1024, and the share of
        steps that are valid; zero where it is missing or kept out
    z   x, or relu(P x) with P of ±1 from the charter's seed where the charter asks for another number of features
    φ   (β, √(1-β²) · z/‖z‖)

A student's part is the mean over their records (weights 1/K), of norm ≤ the sensitivity (protocol/statistics.py).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import torch

from ...crypto.hashing import digest
from ...protocol.component_names import parse_name
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Task
from ...protocol.statistics import CONSTANT, Numbers, inputs_of_modality, is_groups, sensitivity_of, shape
from .answers import BadRequestError
from .dpsgd import Batch
from .messages import Engagement
from .pairs import pair_features
from .quantise import MARGIN, Quantised
from .randomness import gaussian
from .session import Session

SCALE = 1024  # of inputs: integers, whose sums do not depend on the order
FINER = 1 << 16  # parts of a grid unit; sums stay under 2^53
SLACK = 1.0 - 2.0**-20  # for the rounding of weights and of φ itself: norms stay under their bounds
CHUNK_NUMBERS = 1 << 22  # numbers in memory at once
ROWS, CACHED = 8, 1 << 17  # of moments at once: numbers that stay in a processor's cache
SHARPNESS = 4.0  # of scores: least squares gives no logits
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A solved statistic: `weights` [m, outputs] and `offsets` [outputs] from features to the estimate of targets."""

    task: Task
    weights: Floats
    offsets: Floats


def named(session: Session, spec: ComponentSpec) -> Task:
    """Return the task of a statistic."""
    return next(task for task in session.learning.tasks if task.name == parse_name(spec.name).task)


def release(
    session: Session,
    engaged: Mapping[str, Engagement],
    sums: Callable[[ComponentSpec], Floats],
    students: float,
) -> dict[str, Quantised]:
    """Return each engaged statistic noised: std σ·C in each number, [d] int32. `sums` has the exact ones, [d].

    `students` is the declared N̂: a sum longer than so many students can make is scaled down. Raises UsageError.
    """
    released = {}
    for name, rule in engaged.items():
        spec = session.specs[name]
        sensitivity = sensitivity_of(spec, session.learning) / MILLION
        if rule.clip < sensitivity:
            raise BadRequestError(f"engaged {name!r}: a student moves it by {sensitivity}, and clip is {rule.clip}")
        deviation = rule.noise * rule.clip / spec.grid_step
        values = sums(spec)
        if rule.noise > 0.0:
            values = values + deviation * gaussian(session.source, spec.dimension)
        bound = students * rule.clip / spec.grid_step + deviation * (sqrt(spec.dimension) + 6.0)
        released[name] = _bounded(values, MARGIN * bound)
    return released


def _bounded(values: Floats, bound: float) -> Quantised:
    limit = 2.0**31 - 1
    factor = min(1.0, bound / max(1.0, float(np.linalg.norm(values))))
    rounded = np.trunc(values * factor) if factor < 1.0 else np.rint(values)
    saturated = int(np.count_nonzero(np.abs(rounded) > limit))
    return Quantised(np.clip(rounded, -limit, limit).astype("<i4"), saturated, factor)


def exact(session: Session, spec: ComponentSpec, batch: Batch) -> Floats:
    """Return the exact sum over a batch's students in grid units, without noise, [d] float64, in any order the same."""
    task = named(session, spec)
    outputs, width = shape(spec)
    weights = batch.weights.numpy().reshape(-1).astype(np.float64)
    labels = batch.labels[task.name].numpy() if task.name in batch.labels else None
    total = np.zeros(spec.dimension)
    if labels is None:
        return total
    labels = labels.reshape(len(weights), -1).astype(np.float64)
    rows = np.flatnonzero((weights > 0.0) & ~np.isnan(labels).any(axis=1))
    inputs = inputs_of(session, task, batch)
    at_once = max(1, CHUNK_NUMBERS // (outputs * width))
    grams = width * (width + 1) // 2 if spec.architecture == "ridge" else 0
    for begin in range(0, len(rows), at_once):
        chunk = rows[begin : begin + at_once]
        phi = features(session, spec, inputs[chunk])
        share = weights[chunk] * (SLACK * FINER / spec.grid_step)
        if grams:
            total[:grams] += _moments(phi, share)
        y = targets(task, labels[chunk])
        crossed = (y[:, :, None] * phi[:, None, :]).reshape(len(chunk), outputs * width) * share[:, None]
        total[grams:] += np.trunc(crossed).sum(axis=0)
    return total / FINER


def _moments(phi: Floats, share: Floats) -> Floats:
    """Return the upper triangle of Σ φφᵀ, its off-diagonal × √2, each record's part rounded towards zero."""
    count, width = phi.shape
    total = np.zeros((width, width))  # of whole numbers under 2^53: exact
    for top in range(0, width, ROWS):
        rows = min(ROWS, width - top)
        both = np.full((rows, width - top), sqrt(2.0))
        both[np.arange(rows), np.arange(rows)] = 1.0
        at_once = max(1, CACHED // both.size)
        for begin in range(0, count, at_once):
            some = phi[begin : begin + at_once, top:]
            parts = some[:, :rows, None] * some[:, None, :]
            parts *= both
            parts *= share[begin : begin + at_once, None, None]
            np.trunc(parts, out=parts)
            total[top : top + rows, top:] += parts.sum(axis=0)
    return total[np.triu_indices(width)]


def inputs_of(session: Session, task: Task, batch: Batch) -> Numbers:
    """Return x of every record, [S·K, Σ inputs_of_modality] int64 in 1/SCALE, zero for missing modalities."""
    records = int(batch.weights.numel())
    inputs = []
    for name in task.modalities:
        if session.learning.floor(name).policy == "never":
            continue
        modality = next(entry for entry in session.learning.modalities if entry.name == name)
        width = inputs_of_modality(modality)
        pair = batch.inputs.get(name)
        if pair is None:
            inputs.append(np.zeros((records, width), dtype=np.int64))
            continue
        values, steps = pair
        length = int(steps.shape[2])
        valid = steps.numpy().reshape(records, length)
        part = np.zeros((records, width), dtype=np.int64)
        part[:, -1] = valid.sum(axis=1) * SCALE // max(length, modality.length)
        if modality.kind == "text":
            if width > 1 and values.is_floating_point() and length == modality.length:
                part[:, :-1] = _whole(pair_features(values, steps).reshape(records, -1)[:, : width - 1])
        else:
            whole = _whole(values).reshape(records, length, width - 1) * valid[:, :, None]
            part[:, :-1] = whole.sum(axis=1) // np.maximum(valid.sum(axis=1), 1)[:, None]
        inputs.append(part)
    return np.concatenate(inputs, axis=1)


def _whole(values: torch.Tensor) -> Numbers:
    scaled: Floats = values.numpy().astype(np.float64) * SCALE
    return np.rint(np.clip(np.nan_to_num(scaled), -SCALE, SCALE)).astype(np.int64)


def features(session: Session, spec: ComponentSpec, inputs: Numbers) -> Floats:
    """Return φ of records from x [n, w] int64: [n, m] float64, each of norm at most 1."""
    width, constant = shape(spec)[1] - 1, CONSTANT[spec.architecture]
    z = inputs
    if width != inputs.shape[1]:
        # Integers under 2^53 throughout: exact in float64 with any BLAS.
        signs = signs_of(session.seed, spec.name, width, inputs.shape[1])
        z = np.maximum(inputs.astype(np.float64) @ signs.T, 0.0).astype(np.int64)
        z >>= max(0, (SCALE * inputs.shape[1]).bit_length() - 25)  # at most 2^12 squares of them add up in int64
    norm = np.sqrt((z * z).sum(axis=1).astype(np.float64))
    scale = sqrt(1.0 - constant**2) / np.maximum(norm, 1.0)
    return np.concatenate([np.full((len(z), 1), constant), z * scale[:, None]], axis=1)


def signs_of(seed: bytes, name: str, rows: int, columns: int) -> Floats:
    """Return P, [rows, columns] of ±1, expanded from the charter's seed."""
    count = rows * columns
    stream = hashlib.shake_256(digest("statistic-signs", seed, name.encode())).digest((count + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[:count]
    return (1.0 - 2.0 * bits.astype(np.float64)).reshape(rows, columns)


def targets(task: Task, labels: Floats) -> Floats:
    """Return y [n, outputs] of norm at most 1 from labels [n, L] without NaN."""
    if task.kind in {"binary", "multiclass"}:
        return np.eye(task.classes)[labels[:, 0].astype(np.int64)]
    if task.kind == "ordinal":
        return (labels > np.arange(task.outputs)).astype(np.float64) / sqrt(task.outputs)
    if task.kind == "multilabel":
        return (labels > 0.5).astype(np.float64) / sqrt(task.outputs)
    return np.clip(labels, -1.0, 1.0)


def solve(session: Session, spec: ComponentSpec, total: Numbers) -> Head | None:
    """Return the head solved from a statistic's state [d]; None if nobody has contributed.

    Ridge: `(G + λI)⁻¹ Cᵀ`. Noise may have made G indefinite; ν is its least eigenvalue. With `λ = ρ·tr(G)/m +
    2·max(0, -ν)`, ρ the spec's `ridge`, no eigenvalue is under |ν|, and directions within the noise count little.
    Prototypes: the nearest class mean, `μ_c·φ - ‖μ_c‖²/2`, the counts from the constant feature.
    """
    if not total.any():
        return None
    outputs, width = shape(spec)
    values = total.astype(np.float64) * spec.grid_step
    cross = values[-outputs * width :].reshape(outputs, width)
    if spec.architecture == "prototypes":
        counts = np.maximum(cross[:, :1] / CONSTANT[spec.architecture], 1.0)
        means = cross / counts
        means[:, 0] = 0.0
        return Head(named(session, spec), means.T, (-0.5 * np.square(means).sum(axis=1)).astype(np.float64))
    gram = np.zeros((width, width))
    upper = np.triu_indices(width)
    gram[upper] = values[: width * (width + 1) // 2] / np.where(upper[0] == upper[1], 1.0, sqrt(2.0))
    gram = gram + np.triu(gram, 1).T
    least = _least(gram)
    ridge = spec.ridge / MILLION * max(0.0, float(np.trace(gram))) / width + 2.0 * max(0.0, -least) + 1e-9
    weights = np.asarray(np.linalg.solve(gram + ridge * np.eye(width), cross.T), dtype=np.float64)
    return Head(named(session, spec), weights, np.zeros(outputs))


def _least(gram: Floats) -> float:
    """Return the least eigenvalue, or 0 where none is under 0 by more than rounding: the usual case without noise."""
    slack = 1e-9 * max(0.0, float(np.trace(gram))) / len(gram)
    try:
        np.linalg.cholesky(gram + slack * np.eye(len(gram)))  # a tenth of the time
    except np.linalg.LinAlgError:
        return float(np.linalg.eigvalsh(gram)[0])
    return 0.0


def predict(session: Session, states: Mapping[str, bytes], batch: Batch) -> dict[str, Floats]:
    """Return the task's logits, [S, K, outputs], of each statistic in `states` (int64 little-endian bytes)."""
    predictions = {}
    for name, spec in session.specs.items():
        if not spec.is_statistic or is_groups(spec) or name not in states:
            continue
        if len(states[name]) != 8 * spec.dimension:
            raise BadRequestError(f"the state of {name!r} has {len(states[name])} bytes, not {8 * spec.dimension}")
        head = solve(session, spec, np.frombuffer(states[name], dtype="<i8").astype(np.int64))
        if head is None:
            continue
        inputs = inputs_of(session, head.task, batch)
        at_once = max(1, CHUNK_NUMBERS // shape(spec)[1])
        chunks = [inputs[begin : begin + at_once] for begin in range(0, len(inputs), at_once)]
        estimates = [features(session, spec, chunk) @ head.weights + head.offsets for chunk in chunks]
        whole = np.concatenate(estimates) if estimates else np.zeros((0, head.task.outputs))
        predictions[name] = logits(head.task, whole).reshape(*batch.weights.shape, head.task.outputs)
    return predictions


def nobody(session: Session, name: str, batch: Batch) -> Floats:
    """Return the logits, [S, K, outputs], of a statistic to which nobody has contributed: equal for all records."""
    return np.zeros((*batch.weights.shape, named(session, session.specs[name]).outputs))


def logits(task: Task, estimate: Floats) -> Floats:
    """Turn estimates of targets [n, outputs] into inputs of tasks.scores. Probabilities from them are rough."""
    if task.kind in {"binary", "multiclass"}:
        return SHARPNESS * estimate
    if task.kind in {"ordinal", "multilabel"}:
        return SHARPNESS * (2.0 * sqrt(task.outputs) * estimate - 1.0)
    return estimate


def kinds(session: Session, names: Iterable[str]) -> dict[str, str]:
    """Return the kind of each statistic's task, by the statistic's name."""
    return {name: named(session, session.specs[name]).kind for name in names}
