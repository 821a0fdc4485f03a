"""The recipes keep what they claim: the ε, the grid, and a federation that beats its members alone."""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.presets import GRID_SHARE, NO_SEED, preset
from collegium.node.blueprint.recipe import Budget
from collegium.node.data.arrays import load
from collegium.node.learner.messages import Engagement, Evaluate, Open, Train
from collegium.node.learner.worker import Worker
from collegium.node.privacy.accountant import MILLION, effective_noise, epsilon
from collegium.protocol.components import ComponentSpec, base_digest, base_vector
from collegium.protocol.learning import Learning
from collegium.protocol.schema import dump
from collegium.sims.learn.datasets import prepare_digits

from ..learner.asking import ask

ROUNDS = 8
States = dict[str, npt.NDArray[np.int32]]


@pytest.mark.parametrize("name", ["digits", "oulad"])
def test_planned_rounds_cost_no_more_than_what_is_not_kept_for_recovery(name: str) -> None:
    specs, learning = preset(name, budget=Budget(8.0, 1e-5, ROUNDS), rounds=ROUNDS, institutions=4)
    sigma = effective_noise([spec.noise_multiplier / MILLION for spec in specs])
    spent = epsilon([(learning.sample_rate / MILLION, sigma, learning.steps * ROUNDS)], 1e-5)
    assert 5.9 < spent <= 6.0
    assert {floor.policy for floor in learning.floors} == {"dp"}
    assert all((floor.epsilon, floor.delta) == (8000, 10_000) for floor in learning.floors)
    assert learning.recovery_share == 250_000
    for part in (*specs, learning):
        dump(part)  # keeps its schema


@pytest.mark.parametrize(("name", "students"), [("digits", 1348), ("oulad", 12_550)])
def test_the_grid_is_an_eighth_of_the_noise_or_finer(name: str, students: int) -> None:
    specs, learning = preset(name, budget=Budget(8.0, 1e-5, ROUNDS), rounds=ROUNDS, institutions=4)
    lot = learning.sample_rate / MILLION * students / 4
    for spec in specs:
        noise = spec.noise_multiplier / MILLION * spec.clip_norm / MILLION * spec.learning_rate / MILLION
        deviation = noise * sqrt(learning.steps) / lot
        assert deviation / GRID_SHARE / 2 < spec.grid_step <= deviation / GRID_SHARE


def test_bases_follow_the_seed() -> None:
    specs, _ = preset("digits", budget=None, rounds=1, institutions=2, base_seed=b"x" * 32)
    assert all(spec.base == base_digest(base_vector(b"x" * 32, spec.name, spec.tensors)) for spec in specs)
    assert all(spec.noise_multiplier == 0 for spec in specs)


def test_unknown_names_and_budgets_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown preset"):
        preset("letters", budget=None, rounds=1, institutions=2)
    with pytest.raises(UsageError, match="is not between"):
        preset("digits", budget=Budget(0.0, 1e-5, 1), rounds=1, institutions=2)


def train(worker: Worker, specs: Sequence[ComponentSpec], learning: Learning, states: States, lot: float) -> States:
    packed = {name: state.tobytes() for name, state in states.items()}
    engaged = {s.name: Engagement.of(s.clip_norm, s.noise_multiplier, s.learning_rate) for s in specs}
    answer = ask(worker, Train(packed, engaged, learning.steps, learning.sample_rate / MILLION, lot))
    assert not any(answer.saturated.values())
    assert set(answer.scaled.values()) == {1.0}
    return {spec.name: np.frombuffer(answer.updates[spec.name], spec.integer_type).astype(np.int32) for spec in specs}


def accuracy(workers: Sequence[Worker], states: States) -> float:
    """On everybody's held-out images together."""
    right = total = 0.0
    for worker in workers:
        raw = {name: state.tobytes() for name, state in states.items()}
        report = ask(worker, Evaluate(raw)).tasks["digit"]
        assert report.value is not None
        right += report.value * report.n
        total += report.n
    return right / total


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_private_digits_federated_beat_every_institution_alone(tmp_path: Path) -> None:
    specs, learning = preset("digits", budget=Budget(8.0, 1e-5, ROUNDS), rounds=ROUNDS, institutions=4)
    workers, lots = [], []
    for seed, folder in enumerate(prepare_digits(tmp_path, 4, 0.5, seed=1)):
        worker = Worker()
        ask(worker, Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), seed))
        workers.append(worker)
        lots.append(learning.sample_rate / MILLION * int((~load(folder).held_out).sum()))
    zero = {spec.name: np.zeros(spec.dimension, np.int32) for spec in specs}
    shared, alone = zero, [zero] * 4
    for _ in range(ROUNDS):
        updates = [train(worker, specs, learning, shared, lot) for worker, lot in zip(workers, lots, strict=True)]
        mean = {name: np.rint(256 * sum(update[name] for update in updates) / 4).astype(np.int32) for name in zero}
        shared = {name: shared[name] + mean[name] for name in zero}
        own = [train(worker, specs, learning, alone[n], lots[n]) for n, worker in enumerate(workers)]
        alone = [{name: alone[n][name] + 256 * own[n][name] for name in zero} for n in range(4)]
    together = accuracy(workers, shared)
    best_alone = max(accuracy(workers, states) for states in alone)
    print(f"federated {together:.3f}, best alone {best_alone:.3f}")
    assert together > 0.78
    assert together > best_alone + 0.15
