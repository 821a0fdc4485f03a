"""The operations that need torch: open, train, evaluate, predict_scores. `worker.py` documents their fields."""

import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...crypto.errors import UsageError
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from ...protocol.schema import from_map
from .dpsgd import train
from .evaluate import METRICS, metric, predict, scored
from .fields import field, number
from .protocol import Message
from .quantise import Engagement, quantise
from .session import Session, build, open_session

PROGRESS_SECONDS = 0.2

torch.set_num_threads(1)  # several workers share a machine; the models are small
# The first layer's inputs are data, which need no gradient.
warnings.filterwarnings("ignore", message="Full backward hook is firing")

# task -> kind, subjects [n], scores [n] or [n, classes], labels [n]
Scores = dict[str, tuple[str, list[str], npt.NDArray[np.float64], npt.NDArray[np.int64]]]


def open_data(request: Message) -> tuple[Session, Message]:
    """Load the data folder and check it against the charter. Raises UsageError, CorruptError, RemoteProtocolError."""
    seed = request.get("seed")
    if seed is not None and type(seed) is not int:
        raise UsageError("seed is neither a whole number nor nil")
    components = tuple(from_map(ComponentSpec, item) for item in field(request, "components", list))
    session, data = open_session(
        Path(field(request, "data", str)),
        components,
        from_map(Learning, field(request, "learning", dict)),
        field(request, "base_seed", bytes),
        hosted=tuple(field(request, "hosted", list)),
        seed=seed,
    )
    answer = {
        "subjects": session.splits["train"].size,
        "held_out": session.splits["held_out"].size,
        "modalities": {
            name: {
                "kind": found.kind,
                "width": found.width,
                "length": found.length,
                "records": int(found.steps.any(2).sum()),
            }
            for name, found in data.modalities.items()
        },
        "tasks": {
            name: {"kind": task.kind, "classes": task.classes, "records": int((task.labels >= 0).sum())}
            for name, task in data.tasks.items()
        },
        "components": {name: spec.dimension for name, spec in session.specs.items()},
        "simulated": seed is not None,
    }
    return session, answer


def train_components(session: Session, request: Message, progress: Callable[[int, int], None]) -> Message:
    """Train the engaged components from the given states and return their updates."""
    started = monotonic()
    engaged = {name: _engagement(name, item) for name, item in field(request, "engaged", dict).items()}
    for name in engaged:
        if name not in session.specs:
            raise UsageError(f"component {name!r} is engaged but not hosted")
    steps, rate, lot = field(request, "steps", int), number(request, "sample_rate"), number(request, "lot")
    if not engaged or steps < 1 or not 0.0 < rate <= 1.0 or lot <= 0.0:
        raise UsageError(f"no training: {len(engaged)} engaged, {steps} steps, sample rate {rate}, lot {lot}")
    last = started

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or monotonic() - last >= PROGRESS_SECONDS:
            last = monotonic()
            progress(done, total)

    model = build(session, field(request, "states", dict))
    data = session.splits["train"]
    changes = train(
        model,
        session.specs,
        engaged,
        data,
        steps=steps,
        sample_rate=rate,
        lot=lot,
        source=session.source,
        progress=report,
    )
    results = {name: quantise(changes[name], session.specs[name], engaged[name], steps, lot) for name in changes}
    return {
        "updates": {name: result.values.tobytes() for name, result in results.items()},
        "saturated": {name: result.saturated for name, result in results.items()},
        "scaled": {name: result.scaled for name, result in results.items()},
        "seconds": monotonic() - started,
    }


def evaluate(session: Session, request: Message) -> Message:
    """Return the metric of every hosted task on a split."""
    tasks = {}
    for name, (kind, _subjects, scores, labels) in _scores(session, request).items():
        tasks[name] = {"metric": METRICS[kind], "value": metric(kind, scores, labels), "n": int(labels.size)}
    return {"tasks": tasks}


def predict_scores(session: Session, request: Message) -> Message:
    """Return the scores of every labelled record of a split, for metrics over several institutions."""
    tasks = {}
    for name, (kind, subjects, scores, labels) in _scores(session, request).items():
        found = {"subjects": subjects, "scores": scores.tolist(), "labels": labels.tolist()}
        tasks[name] = {"metric": METRICS[kind], **found}
    return {"tasks": tasks}


def _scores(session: Session, request: Message) -> Scores:
    split = request.get("split", "held_out")
    if split not in session.splits:
        raise UsageError(f"unknown split {split!r}", 'Write "held_out" or "train".')
    data = session.splits[split]
    logits = predict(build(session, field(request, "states", dict)), data)
    found: Scores = {}
    for name, kind in session.kinds.items():
        subject, scores, labels = scored(kind, logits[name], data.labels[name].numpy().astype(np.int64))
        found[name] = (kind, [session.subjects[split][row] for row in subject.tolist()], scores, labels)
    return found


def _engagement(name: str, item: Any) -> Engagement:
    if type(item) is not dict:
        raise UsageError(f"engaged {name!r} is no map")
    rule = Engagement(number(item, "clip"), number(item, "noise"), number(item, "learning_rate"))
    if rule.clip <= 0.0 or rule.noise < 0.0 or rule.learning_rate <= 0.0:
        raise UsageError(f"engaged {name!r}: clip and learning rate are above 0, noise is not negative")
    return rule
