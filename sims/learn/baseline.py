"""The local-only baseline of one institution, and metrics over the held-out records of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...consensus.components import origin
from ...node.learner.answers import TaskScores
from ...node.learner.client import Worker
from ...node.learner.messages import Engagement, PredictScores, Train
from ...node.metrics import area_under_curve
from ...protocol.charter import Charter
from ...protocol.components import FRACTION_BITS, MILLION, ComponentSpec
from ...protocol.statistics import words
from ...protocol.update import Integers

States = dict[str, npt.NDArray[np.int32]]


def local_only(charter: Charter, learner: Worker, lot: float, rounds: int) -> States:
    """Train one institution alone, with the federation's own recipe, noise and rounds; statistics are released once.

    `lot` is L.
    """
    learning, rate = charter.learning, charter.learning.sample_rate / MILLION
    trained = [spec for spec in charter.components if not spec.is_statistic]
    sums = [spec for spec in charter.components if spec.is_statistic]
    states = {spec.name: origin(spec) for spec in charter.components}
    for _ in range(rounds):
        updates = _updates(learner, states, trained, learning.steps, rate, lot)
        for spec in trained:
            states[spec.name] = states[spec.name] + (updates[spec.name].astype(np.int32) << FRACTION_BITS)
    if sums:
        updates = _updates(learner, {}, sums, 1, 1.0, lot / rate)
        states |= {spec.name: words(updates[spec.name].astype(np.int64)) for spec in sums}
    return states


def _updates(
    learner: Worker,
    states: Mapping[str, npt.NDArray[np.int32]],
    specs: Sequence[ComponentSpec],
    steps: int,
    sample_rate: float,
    lot: float,
) -> dict[str, Integers]:
    request = Train(
        states={name: state.tobytes() for name, state in states.items()},
        engaged={s.name: Engagement.of(s.clip_norm, s.noise_multiplier, s.learning_rate) for s in specs},
        steps=steps,
        sample_rate=sample_rate,
        lot=lot,
    )
    updates = learner.ask(request).updates
    return {spec.name: np.frombuffer(updates[spec.name], dtype=spec.integer_type) for spec in specs}


def scores(learner: Worker, states: Mapping[str, npt.NDArray[np.int32]]) -> Mapping[str, TaskScores]:
    """Return each task's scores and labels on the institution's held-out records."""
    packed = {name: state.tobytes() for name, state in states.items()}
    return learner.ask(PredictScores(packed)).tasks


def quality(tasks: Sequence[Mapping[str, TaskScores]], name: str = "") -> float:
    """Return the metric of a task (the first), or of a statistic of one, over all the given institutions' held-out
    records together."""
    name = name or next(iter(tasks[0]))
    labels = np.concatenate([np.asarray(found[name].labels, dtype=np.float64) for found in tasks])[:, 0]
    values = np.concatenate([np.asarray(found[name].scores, dtype=np.float64) for found in tasks])
    return figure(tasks[0][name].metric, values, labels)


def figure(metric: str, values: npt.NDArray[np.float64], labels: npt.NDArray[Any]) -> float:
    """Return the accuracy or the AUC of scores [n, k] for labels [n]; NaN if only one label occurs."""
    if metric == "accuracy":
        return float(np.mean(values.argmax(axis=1) == labels))
    area = area_under_curve(values[:, 1], labels)
    return float("nan") if area is None else area
