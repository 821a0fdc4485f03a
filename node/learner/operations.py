"""The operations that need torch: open, train, evaluate, predict_scores, predict, personalise.

`worker.py` documents their fields.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from ...crypto.errors import RefusedError, UsageError
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from ...protocol.schema import from_map
from ..home.students import Excluded
from . import statistics
from .dpsgd import kinds_of, train
from .evaluate import labelled, predict, report
from .fields import field, number
from .private import apply_private, train_private
from .protocol import Message
from .quantise import Engagement, quantise
from .randomness import randomness
from .session import Part, Session, Texts, build, load_states, open_session, records_of, specs_of
from .tasks import METRICS, metrics, scores

PROGRESS_SECONDS = 0.2
LOGGED = 20  # cells that cannot be used

torch.set_num_threads(1)  # several workers share a machine; the models are small


def open_data(request: Message, progress: Callable[[int, int], None] | None = None) -> tuple[Session, Message]:
    """Load the data folder and check it against the charter. Raises UsageError, CorruptError, RemoteProtocolError."""
    seed = request.get("seed")
    if seed is not None and type(seed) is not int:
        raise UsageError("seed is neither a whole number nor nil")
    named = request.get("data")
    folders = [Path(str(name)) for name in (named if type(named) is list else [field(request, "data", str)])]
    private, cache, adapter = request.get("private"), request.get("cache"), request.get("private_adapter")
    session, sets = open_session(
        folders,
        tuple(from_map(ComponentSpec, item) for item in field(request, "components", list)),
        from_map(Learning, field(request, "learning", dict)),
        field(request, "base_seed", bytes),
        hosted=tuple(field(request, "hosted", list)),
        seed=seed,
        withheld=frozenset(request.get("withheld") or ()),
        texts=Texts(
            {name: Path(str(path)) for name, path in (request.get("models") or {}).items()},
            Path(str(cache)) if cache else None,
            read_only=bool(request.get("cache_read_only")),
        ),
        validation=float(request.get("validation") or 0.0),
        private=Path(str(private)) if private else None,
        private_adapter=None if adapter is None else _private_adapter(adapter),
        purge=bool(request.get("purge")),
        excluded=_excluded(request.get("excluded")),
        progress=progress,
    )
    answer = {
        "subjects": session.parts["train"].batch.size,
        "held_out": session.parts["held_out"].batch.size,
        "everybody": list(session.everybody),
        "left_out": sum(len(data.left_out) for data in sets),
        "problems": [problem.text for data in sets for problem in data.findings.problems[:LOGGED]],
        "modalities": {
            name: {
                "kind": found.kind,
                "width": found.width,
                "length": found.length,
                "records": int(found.steps.any(2).sum()),
            }
            for data in sets
            for name, found in data.modalities.items()
        },
        "tasks": {
            name: {
                "kind": task.kind,
                "classes": task.classes,
                "records": int((~np.isnan(task.labels).any(axis=2)).sum()),
            }
            for data in sets
            for name, task in data.tasks.items()
        },
        "components": {name: spec.dimension for name, spec in session.specs.items()},
        "cut": dict(session.cut),
        "simulated": seed is not None,
        "device": str(session.device),
    }
    return session, answer


def try_model(request: Message) -> None:
    """Load a pretrained model and embed with it. Raises UsageError where it is not whole, or tells no texts apart."""
    from .text import pretrained_encoder  # noqa: PLC0415  # only who has text needs it

    pretrained_encoder(Path(field(request, "folder", str)))


def _excluded(found: object) -> Excluded | None:
    if found is None:
        return None
    if type(found) is not dict or type(found.get("salt")) is not bytes or type(found.get("tags")) is not list:
        raise UsageError("excluded is neither nil nor a salt and its tags")
    return Excluded(found["salt"], frozenset(found["tags"]))


def respec(session: Session, request: Message) -> Session:
    """Return the session under other specs of the same tensors: a simulation's next setting, on the data it holds.

    A `seed` starts its randomness anew.
    """
    components = tuple(from_map(ComponentSpec, item) for item in field(request, "components", list))
    specs, bases = specs_of(components, field(request, "base_seed", bytes), tuple(session.specs))
    for name, spec in session.specs.items():
        if (spec.tensors, spec.architecture) != (specs[name].tensors, specs[name].architecture):
            raise UsageError(f"component {name!r} has another shape than the session's")
    learning = from_map(Learning, field(request, "learning", dict))
    if (learning.modalities, learning.tasks) != (session.learning.modalities, session.learning.tasks):
        raise UsageError("the modalities or tasks are not the session's")
    seed = request.get("seed")
    source = session.source if seed is None else randomness(field(request, "seed", int))
    return replace(
        session, specs=specs, bases=bases, learning=learning, seed=field(request, "base_seed", bytes), source=source
    )


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
    if any(session.specs[name].additive for name in engaged):
        return _release(session, request, engaged, lot) | {"seconds": monotonic() - started}
    last = started

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or monotonic() - last >= PROGRESS_SECONDS:
            last = monotonic()
            progress(done, total)

    part, drawn = _part(session, request, "train"), set[int]()
    changes = train(
        build(session, field(request, "states", dict)),
        session.modules,
        engaged,
        part.batch.without(session.withheld),
        steps=steps,
        sample_rate=rate,
        lot=lot,
        source=session.source,
        progress=tell,
        drawn=drawn,
    )
    results = {name: quantise(changes[name], session.specs[name], engaged[name], steps, lot) for name in changes}
    return {
        "updates": {name: result.values.tobytes() for name, result in results.items()},
        "saturated": {name: result.saturated for name, result in results.items()},
        "scaled": {name: result.scaled for name, result in results.items()},
        "subjects": [part.subjects[row] for row in sorted(drawn)],
        "seconds": monotonic() - started,
    }


def _release(session: Session, request: Message, engaged: dict[str, Engagement], students: float) -> Message:
    """Release statistics of all students, once."""
    for name in engaged:
        if not session.specs[name].additive:
            raise UsageError(f"{name!r} is trained, and {', '.join(sorted(engaged))} are asked for in one draw")
    if field(request, "steps", int) != 1 or number(request, "sample_rate") != 1.0:
        raise UsageError("a statistic is one draw of all students", "Send steps 1 and sample_rate 1.")
    part = _part(session, request, "train")
    batch = part.batch.without(session.withheld)
    results = statistics.release(session, engaged, batch, students, session.source)
    return {
        "updates": {name: result.values.tobytes() for name, result in results.items()},
        "saturated": {name: result.saturated for name, result in results.items()},
        "scaled": {name: result.scaled for name, result in results.items()},
        "subjects": list(part.subjects),
    }


def evaluate(session: Session, request: Message) -> Message:
    """Return the metrics of every hosted task on a split; `personal` are those with the private components.

    `statistics` are those of the heads that the statistics stand for, by the statistic's name.
    """
    states = field(request, "states", dict)
    model, part = build(session, states), _part(session, request, "held_out")
    shared = predict(model, part.batch.without(session.withheld))
    personal = apply_private(session, model, part, shared)
    answer = {"tasks": report(kinds_of(model), part, shared)}
    heads = statistics.predict(session, states, part.batch.without(session.withheld))
    if heads:
        tasks = {name: name.partition("/")[2] for name in heads}
        answer["statistics"] = report(statistics.kinds(session, heads), part, heads, tasks)
    return answer if personal is None else answer | {"personal": report(kinds_of(model), part, personal)}


def evaluate_variants(session: Session, request: Message, progress: Callable[[int, int], None]) -> Message:
    """Return the figures of every hosted task with some states replaced, for one variant after the other.

    Those of the head that a statistic stands for are there by the statistic's name; of nobody's, all scores are zero.
    """
    variants = field(request, "variants", list)
    states, part = field(request, "states", dict), _part(session, request, "held_out")
    base, model, batch = load_states(session, states), build(session, states), part.batch.without(session.withheld)
    found = []
    for done, variant in enumerate(variants, start=1):
        if type(variant) is not dict:
            raise UsageError("a variant is no map of states")
        now = {**states, **variant}
        vectors = load_states(session, now)
        changed = [name for name in vectors if name in variant]
        for name in changed:
            model.load(session.specs[name], vectors[name])
        sums = [name for name, spec in session.specs.items() if spec.additive and name in now]
        logits: dict[str, Any] = {name: statistics.nobody(session, name, batch) for name in sums}
        logits |= {**predict(model, batch), **statistics.predict(session, now, batch)}
        tasks = {}
        for name, kind in (session.kinds | statistics.kinds(session, sums)).items():
            flat, values, labels = labelled(kind, logits[name], part.batch.labels[name.rpartition("/")[2]].numpy())
            value = metrics(kind, values, labels)[METRICS[kind]]
            subjects = len(np.unique(flat // part.batch.weights.shape[1]))
            tasks[name] = {"metric": METRICS[kind], "value": value, "n": subjects}
        found.append(tasks)
        for name in changed:
            model.load(session.specs[name], base[name])
        progress(done, len(variants))
    return {"variants": found}


def predict_scores(session: Session, request: Message) -> Message:
    """Return the scores of every labelled record of a split, for metrics over several institutions.

    A statistic's head is there by the statistic's name.
    """
    states = field(request, "states", dict)
    model, part = build(session, states), _part(session, request, "held_out")
    batch = part.batch.without(session.withheld)
    heads = statistics.predict(session, states, batch)
    logits = {**predict(model, batch), **heads}
    records = int(part.batch.weights.shape[1])
    tasks = {}
    for name, kind in (session.kinds | statistics.kinds(session, heads)).items():
        flat, values, labels = labelled(kind, logits[name], part.batch.labels[name.rpartition("/")[2]].numpy())
        tasks[name] = {
            "kind": kind,
            "metric": METRICS[kind],
            "subjects": [part.subjects[row // records] for row in flat.tolist()],
            "scores": values.tolist(),
            "labels": labels.tolist(),
        }
    return {"tasks": tasks}


def predict_file(session: Session, request: Message) -> Message:
    """Return for every record of a file what the model says of every hosted task, or of the one that is asked for.

    Raises UsageError if no record has any modality that such a task is told from.
    """
    file, only = Path(field(request, "file", str)), request.get("task")
    _, part = records_of(session, file)
    there = {name for name, (_, steps) in part.batch.inputs.items() if bool(steps.any())}
    there -= frozenset() if request.get("personal") else session.withheld
    kinds = {name: kind for name, kind in session.kinds.items() if only in (None, name)}
    for task in session.learning.tasks:
        if task.name in kinds and not there & set(task.modalities):
            told = [each.name for each in session.learning.tasks if there & set(each.modalities)]
            other = f", or ask for what they can tell: --task {told[0]}" if told else ""
            advice = f"Add the columns of one of its modalities: {', '.join(task.modalities)}{other}."
            raise UsageError(f"{file}: no record has anything that task {task.name!r} is told from", advice)
    model = build(session, field(request, "states", dict))
    logits = predict(model, part.batch.without(session.withheld))
    personal = apply_private(session, model, part, logits) if request.get("personal") else logits
    if personal is None:
        advice = (
            "They are trained every personalise_every rounds, and anew where the configuration of them has changed."
        )
        raise RefusedError("there are no private components as they are configured now", advice)
    places = np.argwhere(part.batch.weights.numpy() > 0)
    tasks = {}
    for name, kind in kinds.items():
        values = scores(kind, personal[name][places[:, 0], places[:, 1]])
        low, high = session.ranges.get(name, (0.0, 0.0))
        if kind == "regression":
            values = low + (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        tasks[name] = {"kind": kind, "classes": list(session.class_names.get(name, ())), "scores": values.tolist()}
    return {
        "records": [str(part.records[s, k]) for s, k in places.tolist()],
        "modalities": {name: int(steps.any(2).sum()) for name, (_, steps) in sorted(part.batch.inputs.items())},
        "tasks": tasks,
    }


def personalise(session: Session, request: Message, progress: Callable[[int, int], None]) -> Message:
    """Train the private components on this node's own students, beside the given shared states, and keep them."""
    model = build(session, field(request, "states", dict))
    return train_private(session, model, progress)


def _part(session: Session, request: Message, default: str) -> Part:
    split = request.get("split", default)
    if split not in session.parts:
        raise UsageError(f"unknown split {split!r}", f"Write one of {', '.join(session.parts)}.")
    return session.parts[split]


def _private_adapter(item: Any) -> tuple[str, int]:
    from .adapters import PRIVATE_KINDS  # noqa: PLC0415  # only who has text needs it

    if type(item) is not dict:
        raise UsageError("private_adapter is no map")
    kind, rank = field(item, "kind", str), field(item, "rank", int)
    if kind not in PRIVATE_KINDS or rank < 1:
        raise UsageError(f"private_adapter: kind {kind!r}, rank {rank}", f"Known kinds: {', '.join(PRIVATE_KINDS)}.")
    return kind, rank


def _engagement(name: str, item: Any) -> Engagement:
    if type(item) is not dict:
        raise UsageError(f"engaged {name!r} is no map")
    rule = Engagement(number(item, "clip"), number(item, "noise"), number(item, "learning_rate"))
    if rule.clip <= 0.0 or rule.noise < 0.0 or rule.learning_rate <= 0.0:
        raise UsageError(f"engaged {name!r}: clip and learning rate are above 0, noise is not negative")
    return rule
