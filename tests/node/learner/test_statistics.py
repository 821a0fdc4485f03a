"""Releases of statistics: exact sums, no student over the sensitivity, the declared noise, the head (G6, G7)."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.crypto.errors import UsageError
from collegium.node.blueprint import parts
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.blueprint.recipe import Budget, Recipe, charter_parts
from collegium.node.learner import statistics
from collegium.node.learner.answers import Figure
from collegium.node.learner.dpsgd import Batch
from collegium.node.learner.embedder import Texts
from collegium.node.learner.messages import Engagement, Evaluate, EvaluateVariants, Open, PredictScores, Train
from collegium.node.learner.randomness import randomness
from collegium.node.learner.session import Session
from collegium.node.learner.worker import Worker
from collegium.protocol.components import MILLION, ComponentSpec
from collegium.protocol.learning import Modality, Task
from collegium.protocol.statistics import CONSTANT, SENSITIVITY, Numbers, inputs_of_modality, words
from collegium.sims.learn.datasets import prepare_digits

from .asking import ask

TABLE, SERIES = Modality("table", "tabular", 5, 1), Modality("clicks", "series", 3, 4)
TASKS = {
    "binary": Task("t", "binary", 2, ("clicks", "table")),
    "multiclass": Task("t", "multiclass", 3, ("clicks", "table")),
    "ordinal": Task("t", "ordinal", 4, ("clicks", "table")),
    "multilabel": Task("t", "multilabel", 3, ("clicks", "table")),
    "regression": Task("t", "regression", 1, ("clicks", "table")),
}


def a_session(kind: str = "multiclass", architecture: str = "ridge", features: int | None = None) -> Session:
    """A session of one statistic, without data."""
    task, both = TASKS[kind], (SERIES, TABLE)
    part = parts.statistic(task, both, architecture, features)
    recipe = Recipe(both, (task,), (part,), 30, 1, MILLION, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    spec = replace(specs[0], step_log2=16)
    return Session(
        {spec.name: spec}, {}, learning, NO_SEED, {}, {}, {}, randomness(1), torch.device("cpu"), Texts(), Path(),
        frozenset(), frozenset(), False,
    )  # fmt: skip


def on_the_grid(session: Session, spec: ComponentSpec, batch: Batch) -> Numbers:
    """The sum as it is released without noise."""
    return np.rint(statistics.exact(session, spec, batch)).astype(np.int64)


def spec_of(session: Session) -> ComponentSpec:
    (spec,) = session.specs.values()
    return spec


def a_batch(kind: str, students: int, records: int, source: np.random.Generator, scale: float = 1.0) -> Batch:
    """Students with one to `records` records each, some of them without labels or without a modality."""
    task = TASKS[kind]
    have = source.integers(1, records + 1, students)
    weights = (np.arange(records) < have[:, None]) / have[:, None]
    steps = torch.from_numpy(source.random((students, records, 4)) < 0.6)
    table = torch.from_numpy(source.random((students, records, 1)) < 0.8)
    size = task.classes if kind == "multilabel" else 1
    labels = source.integers(0, 2 if kind == "multilabel" else max(2, task.classes), (students, records, size))
    values = np.where(source.random((students, records, 1)) < 0.1, np.nan, labels.astype(np.float32))
    if kind == "regression":
        values = np.clip(source.normal(size=values.shape) * 2, -3, 3)
    return Batch(
        torch.from_numpy(weights.astype(np.float32)),
        {
            "clicks": (
                torch.from_numpy(scale * source.normal(size=(students, records, 4, 3)).astype(np.float32)),
                steps,
            ),
            "table": (
                torch.from_numpy(scale * source.normal(size=(students, records, 1, 5)).astype(np.float32)),
                table,
            ),
        },
        {"t": torch.from_numpy(values.astype(np.float32))},
    )


# ---- exactness and sensitivity


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(TASKS)), st.sampled_from([None, 4, 30]))
def test_any_partition_of_the_students_adds_up_to_the_same_bits(seed: int, kind: str, features: int | None) -> None:
    """G1, G7: whatever company a record is in, and in however many updates, its part has the same bits."""
    source = np.random.default_rng(seed)
    session = a_session(kind, "ridge", features)
    spec, batch = spec_of(session), a_batch(kind, 40, 3, source)
    whole = statistics.exact(session, spec, batch)
    order = source.permutation(40)
    cuts = np.sort(source.choice(np.arange(1, 40), source.integers(1, 6), replace=False))
    groups = np.split(order, cuts)
    sums = [statistics.exact(session, spec, batch.take(torch.from_numpy(group))) for group in groups]
    assert np.array_equal(sum(sums), whole)
    assert whole.any()


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    session = a_session()
    batch = a_batch("multiclass", 50, 3, np.random.default_rng(2))
    whole = statistics.exact(session, spec_of(session), batch)
    monkeypatch.setattr(statistics, "CHUNK_NUMBERS", 7 * spec_of(session).dimension)
    assert np.array_equal(statistics.exact(session, spec_of(session), batch), whole)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("architecture", SENSITIVITY)
@pytest.mark.parametrize("scale", [0.01, 1e6])
def test_no_student_moves_it_farther_than_the_sensitivity(kind: str, architecture: str, scale: float) -> None:
    """G6: in grid units, after rounding, however many records there are and whatever is in them."""
    if architecture == "prototypes" and kind not in ("binary", "multiclass"):
        return
    for features in (None, 20):
        session = a_session(kind, architecture, features)
        spec = spec_of(session)
        batch = a_batch(kind, 20, 5, np.random.default_rng(3), scale)
        norms = []
        for student in range(20):
            part = statistics.exact(session, spec, batch.take(torch.tensor([student])))
            norms.append(float(np.linalg.norm(part)) * spec.grid_step)
        assert max(norms) <= SENSITIVITY[architecture] / MILLION
        assert max(norms) > (0.3 if kind in ("ordinal", "multilabel", "regression") else 0.6), "nothing is given away"


def test_records_lose_nothing_that_counts_to_the_grid() -> None:
    """With a part of few grid units a record, rounding each would shrink the sum by tens of percent."""
    session = a_session("multiclass", features=60)
    spec, batch = replace(spec_of(session), step_log2=6), a_batch("multiclass", 50, 1, np.random.default_rng(5))
    fine = replace(spec, step_log2=30)
    coarse, exact = (statistics.exact(session, one, batch) * one.grid_step for one in (spec, fine))
    assert np.abs(coarse - exact).max() < 50 * spec.grid_step / statistics.FINER + 1e-6


def test_weights_that_add_up_to_more_than_one_stay_under_the_sensitivity() -> None:
    """G6: three float32 thirds are more than one, and on a fine grid no rounding towards zero makes up for it."""
    session = a_session("binary", "prototypes")
    spec = replace(spec_of(session), step_log2=30)
    weights, inputs = torch.full((1, 3), 1 / 3), torch.ones(1, 3, 1, 5)
    assert float(weights.double().sum()) > 1.0
    batch = Batch(weights, {"table": (inputs, torch.ones(1, 3, 1, dtype=torch.bool))}, {"t": torch.ones(1, 3, 1)})
    norm = float(np.linalg.norm(statistics.exact(session, spec, batch))) * spec.grid_step
    assert 1.0 - 1e-5 < norm <= SENSITIVITY["prototypes"] / MILLION


def test_the_vector_has_the_norm_of_the_matrix() -> None:
    """Without √2 on the off-diagonal the triangle would be shorter, and its noise too little."""
    session = a_session("binary")
    spec, batch = spec_of(session), a_batch("binary", 1, 1, np.random.default_rng(4))
    batch = Batch(batch.weights, batch.inputs, {"t": torch.ones(1, 1, 1)})
    part = statistics.exact(session, spec, batch) * spec.grid_step
    phi = statistics.features(session, spec, statistics.inputs_of(session, TASKS["binary"], batch))[0]
    assert np.linalg.norm(phi) == pytest.approx(1.0, abs=1e-5)
    gram = part[: len(part) - 2 * len(phi)]
    assert np.linalg.norm(gram) == pytest.approx(np.linalg.norm(np.outer(phi, phi)), abs=1e-3)
    assert np.allclose(part[-len(phi) :], phi, atol=1e-4)
    assert phi[0] == CONSTANT["ridge"]


def test_who_has_nothing_or_no_label_adds_nothing() -> None:
    session = a_session()
    batch = a_batch("multiclass", 20, 2, np.random.default_rng(5))
    unknown = Batch(batch.weights, batch.inputs, {"t": torch.full_like(batch.labels["t"], torch.nan)})
    assert not statistics.exact(session, spec_of(session), unknown).any()
    assert not statistics.exact(session, spec_of(session), Batch(batch.weights, batch.inputs, {})).any()
    bare = statistics.inputs_of(session, TASKS["multiclass"], Batch(batch.weights, {}, batch.labels))
    assert bare.shape == (40, inputs_of_modality(SERIES) + inputs_of_modality(TABLE))
    assert not bare.any()


def test_what_the_charter_never_lets_be_learned_from_is_no_input() -> None:
    session = a_session()
    learning = session.learning
    floors = tuple(replace(f, policy="never") if f.modality == "clicks" else f for f in learning.floors)
    session = replace(session, learning=replace(learning, floors=floors))
    batch = a_batch("multiclass", 5, 1, np.random.default_rng(6))
    assert statistics.inputs_of(session, TASKS["multiclass"], batch).shape == (5, inputs_of_modality(TABLE))


# ---- noise


def released(session: Session, batch: Batch, noise: float, students: float, seed: int = 7) -> Any:
    spec = spec_of(session)
    rule = Engagement(SENSITIVITY[spec.architecture] / MILLION, noise, 1.0)
    noised = replace(session, source=randomness(seed))
    exact = statistics.exact(session, spec, batch)
    return statistics.release(noised, {spec.name: rule}, lambda _spec: exact, students)[spec.name]


def test_the_noise_is_what_is_declared() -> None:
    """G6: σ·√2 in every number, an own draw for each."""
    session = a_session(features=60)
    spec, batch = spec_of(session), a_batch("multiclass", 30, 2, np.random.default_rng(8))
    noised = released(session, batch, 4.0, 30)
    noise = (noised.values - statistics.exact(session, spec, batch)) * spec.grid_step
    assert (noised.scaled, noised.saturated) == (1.0, 0)
    assert noise.std() == pytest.approx(4.0 * sqrt(2.0), rel=4 / sqrt(2 * spec.dimension))
    assert abs(noise.mean()) < 4 * 4.0 * sqrt(2.0) / sqrt(spec.dimension)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.1
    assert np.array_equal(released(session, batch, 0.0, 30).values, np.rint(statistics.exact(session, spec, batch)))
    assert not np.array_equal(noised.values, released(session, batch, 4.0, 30, seed=9).values)


def test_more_students_than_declared_are_scaled_down_and_a_smaller_clip_is_refused() -> None:
    """G5, G6."""
    session = a_session()
    spec, batch = spec_of(session), a_batch("multiclass", 60, 1, np.random.default_rng(10))
    noised = released(session, batch, 0.0, 5)
    assert 0.0 < noised.scaled < 0.5
    assert np.linalg.norm(noised.values.astype(float)) * spec.grid_step <= 5 * sqrt(2.0)
    exact = statistics.exact(session, spec, batch)
    with pytest.raises(UsageError, match="a student moves it by"):
        statistics.release(session, {spec.name: Engagement(1.0, 1.0, 1.0)}, lambda _spec: exact, 60)


def test_moments_are_those_of_single_records_whatever_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    phi = np.random.default_rng(3).normal(size=(9, 21)) / 5.0
    share = np.linspace(100.0, 90_000.0, 9)
    upper = np.triu_indices(21)
    both = np.where(upper[0] == upper[1], 1.0, sqrt(2.0))
    expected = sum(
        np.trunc(p[upper[0]] * p[upper[1]] * both * w).astype(np.int64) for p, w in zip(phi, share, strict=True)
    )
    for rows, cached in ((8, 1 << 17), (1, 1), (64, 300)):
        monkeypatch.setattr(statistics, "ROWS", rows)
        monkeypatch.setattr(statistics, "CACHED", cached)
        assert (statistics._moments(phi, share) == expected).all()


# ---- the head


@pytest.mark.parametrize("share", [1_000, 500_000])
def test_the_solution_is_that_of_least_squares(share: int) -> None:
    session = a_session("multiclass")
    spec, batch = replace(spec_of(session), ridge=share), a_batch("multiclass", 400, 1, np.random.default_rng(11))
    head = statistics.solve(session, spec, on_the_grid(session, spec, batch))
    assert head is not None
    rows = (~torch.isnan(batch.labels["t"])).numpy().reshape(-1)
    phi = statistics.features(session, spec, statistics.inputs_of(session, head.task, batch))[rows]
    y = np.eye(3)[batch.labels["t"].numpy().reshape(-1)[rows].astype(int)]
    ridge = spec.ridge / 1e6 * np.trace(phi.T @ phi) / phi.shape[1]
    expected = np.linalg.solve(phi.T @ phi + ridge * np.eye(phi.shape[1]), phi.T @ y)
    assert np.allclose(head.weights, expected, atol=2e-2)


@pytest.mark.parametrize("architecture", SENSITIVITY)
@pytest.mark.parametrize("strength", [0.0, 1.0, 1e4])
def test_whatever_the_noise_the_head_is_finite(architecture: str, strength: float) -> None:
    """An indefinite G is no reason to fall over, nor are classes of which nobody is left."""
    session = a_session("multiclass", architecture)
    spec, source = spec_of(session), np.random.default_rng(12)
    batch = a_batch("multiclass", 50, 1, source)
    noise = np.rint(strength * source.normal(size=spec.dimension) / spec.grid_step).astype(np.int64)
    head = statistics.solve(session, spec, on_the_grid(session, spec, batch) + noise)
    assert head is not None
    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.offsets).all()
    if architecture == "ridge" and strength:
        m = head.weights.shape[0]
        total = (statistics.exact(session, spec, batch) + noise) * spec.grid_step
        gram, cross = np.zeros((m, m)), total[m * (m + 1) // 2 :]
        gram[np.triu_indices(m)] = total[: m * (m + 1) // 2] / sqrt(2.0)
        gram = gram + gram.T + np.diag(np.diag(gram)) * (sqrt(2.0) - 2.0)
        least = np.linalg.eigvalsh(gram)[0]
        assert least < 0.0
        assert np.linalg.norm(head.weights) <= np.linalg.norm(cross) / -least, "no eigenvalue is under |ν|"


def test_nobody_yet_is_no_head() -> None:
    session = a_session()
    spec = spec_of(session)
    assert statistics.solve(session, spec, np.zeros(spec.dimension, dtype=np.int64)) is None
    batch = a_batch("multiclass", 3, 1, np.random.default_rng(13))
    assert statistics.predict(session, {spec.name: bytes(8 * spec.dimension)}, batch) == {}
    with pytest.raises(UsageError, match="bytes, not"):
        statistics.predict(session, {spec.name: bytes(4 * spec.dimension)}, batch)


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_is_learned(kind: str) -> None:
    """Labels that follow from the table's first column come back."""
    source = np.random.default_rng(14)
    session, batch = a_session(kind), a_batch(kind, 500, 1, source)
    spec, task = spec_of(session), TASKS[kind]
    values, steps = batch.inputs["table"]
    steps[:] = True
    level = values[:, :, 0, :1].numpy()
    labels = {
        "binary": level > 0,
        "multiclass": np.digitize(level, [-0.4, 0.4]),
        "ordinal": np.digitize(level, [-0.6, 0.0, 0.6]),
        "multilabel": np.concatenate([level > 0, level > 0, level < 0], axis=2),
        "regression": np.clip(level / 2, -1, 1),
    }[kind]
    batch = Batch(batch.weights, batch.inputs, {"t": torch.from_numpy(labels.astype(np.float32))})
    state = words(on_the_grid(session, spec, batch)).tobytes()
    predicted = statistics.predict(session, {spec.name: state}, batch)[spec.name]
    assert predicted.shape == (500, 1, task.outputs)
    score = predicted[:, 0, -1] - predicted[:, 0, 0] if kind in ("binary", "multiclass") else predicted[:, 0, 0]
    assert np.corrcoef(score, np.clip(level[:, 0, 0], -1, 1))[0, 1] > 0.7


# ---- the worker


def opened(folder: Path, seed: int | None, hosted: Sequence[str] = ()) -> tuple[Worker, Any]:
    specs, learning = preset("digits", budget=Budget(8.0, 1e-5, 8), rounds=8, institutions=1, statistic=True)
    worker = Worker()
    names = tuple(hosted) or tuple(spec.name for spec in specs)
    ask(worker, Open((str(folder),), specs, learning, NO_SEED, names, seed))
    return worker, next(spec for spec in specs if spec.is_statistic)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("digits"), 1, 1.0, 1)[0]


def test_the_worker_releases_and_evaluates_it_beside_the_trained_head(digits: Path) -> None:
    worker, spec = opened(digits, 3)
    rule = Engagement.of(spec.clip_norm, spec.noise_multiplier, MILLION)
    answer = ask(worker, Train({}, {spec.name: rule}, steps=1, sample_rate=1.0, lot=1348.0))
    assert (set(answer.updates), answer.saturated) == ({spec.name}, {spec.name: 0})
    update = np.frombuffer(answer.updates[spec.name], dtype=spec.integer_type)
    states = {spec.name: words(update.astype(np.int64)).tobytes()}
    before = ask(worker, Evaluate({}))
    assert before.statistics == {}
    evaluated = ask(worker, Evaluate(states))
    report = evaluated.statistics[spec.name]
    assert report.metric == "accuracy"
    assert report.value is not None
    assert report.value > 0.75
    assert evaluated.tasks == before.tasks, "the trained head is another one"
    scores = ask(worker, PredictScores(states)).tasks
    right = np.mean(np.argmax(scores[spec.name].scores, axis=1) == np.array(scores[spec.name].labels)[:, 0])
    assert right == report.value
    variants: tuple[dict[str, bytes], ...] = (
        {},
        {spec.name: bytes(8 * spec.dimension)},
        {"head/digit": bytes(4 * 330)},
    )
    whole, nobody, other = ask(worker, EvaluateVariants(states, variants)).variants
    assert whole[spec.name] == other[spec.name] == Figure(report.metric, report.value, report.n)
    value = nobody[spec.name].value
    assert value is not None
    assert value < 0.2, "nobody's sum tells no record apart"


def test_no_seed_gives_another_release_each_time_and_what_it_is_not_is_refused(digits: Path) -> None:
    worker, spec = opened(digits, None)
    rule = Engagement(1.0, 1.0, 1.0)
    request = Train({}, {spec.name: rule}, steps=1, sample_rate=1.0, lot=1000.0)
    first, second = (ask(worker, request).updates[spec.name] for _ in range(2))
    assert first != second
    for other, reason in (
        (replace(request, steps=2), "one run over all students"),
        (replace(request, sample_rate=0.5), "one run over all students"),
        (replace(request, engaged={spec.name: rule, "head/digit": rule}), "in one training run"),
    ):
        with pytest.raises(UsageError, match=reason):
            ask(worker, other)
