"""The requests that need torch (messages.py): open, respec, train, evaluate, predict, personalise."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...protocol.component_names import parse_name
from ...protocol.learning import GENERATE
from ...protocol.statistics import is_groups
from ..data.arrays import Dataset
from ..data.spelling import clean
from ..pretrained.folder import writes
from . import groups, statistics, writing
from .answers import (
    BadRequestError,
    Evaluated,
    EvaluatedVariants,
    Figure,
    HomeLayer,
    ModalityData,
    Opened,
    Personalised,
    Predicted,
    Scores,
    TaskData,
    TaskPrediction,
    TaskReport,
    TaskScores,
    Trained,
)
from .dpsgd import Sampling, kinds_of, train
from .drafts import write
from .evaluate import labelled, predict, report
from .home_layer import correct
from .messages import (
    Engagement,
    Evaluate,
    EvaluateVariants,
    Open,
    Personalise,
    Predict,
    PredictScores,
    Respec,
    Train,
    TryModel,
)
from .model import Inputs, M3TModel
from .private import train_private
from .quantise import Quantised, quantise
from .randomness import randomness
from .session import Session, SplitData, build, load_states, open_session, records_of, specs_of
from .tasks import METRICS, metrics, scores

PROGRESS_SECONDS = 0.2
LOGGED = 20  # cells that cannot be used

torch.set_num_threads(1)  # several workers share a machine; the models are small


def open_data(request: Open, progress: Callable[[int, int], None] | None = None) -> tuple[Session, Opened]:
    """Load the data folder and check it against the charter. Raises UsageError, CorruptError."""
    session, sets = open_session(request, progress)
    answer = Opened(
        subjects=session.parts["train"].batch.size,
        held_out=session.parts["held_out"].batch.size,
        everybody=session.everybody,
        left_out=sum(len(data.left_out) for data in sets),
        consents=_consents(sets),
        refused=tuple(sorted(session.refused)),
        unclear=tuple(sorted(subject for data in sets for subject in data.unclear)),
        problems=tuple(problem.text for data in sets for problem in data.findings.problems[:LOGGED]),
        modalities={
            name: ModalityData(array.kind, array.width, array.length, int(array.steps.any(2).sum()))
            for data in sets
            for name, array in data.modalities.items()
        },
        tasks={
            name: TaskData(task.kind, task.classes, int((~np.isnan(task.labels).any(axis=2)).sum()))
            for data in sets
            for name, task in data.tasks.items()
        },
        components={name: spec.dimension for name, spec in session.specs.items()},
        cut=dict(session.cut),
        simulated=request.seed is not None,
        device=str(session.device),
    )
    return session, answer


def _consents(sets: Sequence[Dataset]) -> dict[str, int] | None:
    """Return the numbers of consents in all folders that name a column of them."""
    counts = [data.consents for data in sets if data.consents is not None]
    return {name: sum(count[name] for count in counts) for name in counts[0]} if counts else None


def try_model(request: TryModel) -> None:
    """Load a pretrained model and embed with it. Raises UsageError if it is incomplete or embeds all texts alike."""
    folder = Path(request.folder)
    if writes(folder):
        from .writer import loaded  # noqa: PLC0415  # as below

        loaded(folder)
        return
    from .frozen import frozen_encoder  # noqa: PLC0415  # only nodes with a pretrained model need it

    frozen_encoder(folder)


def respec(session: Session, request: Respec) -> Session:
    """Return the session under other specs of the same tensors: a simulation's next setting, on the same data.

    A `seed` restarts its randomness.
    """
    hosted, folders = tuple(session.specs), session.texts.folders
    specs, bases = specs_of(request.components, request.base_seed, hosted, request.learning, folders)
    for name, spec in session.specs.items():
        if (spec.tensors, spec.architecture) != (specs[name].tensors, specs[name].architecture):
            raise BadRequestError(f"component {name!r} has another shape than the session's")
    learning = request.learning
    if (learning.modalities, learning.tasks) != (session.learning.modalities, session.learning.tasks):
        raise BadRequestError("the modalities or tasks are not the session's")
    source = session.source if request.seed is None else randomness(request.seed)
    return replace(
        session, specs=specs, bases=bases, learning=learning, seed=request.base_seed, source=source, home_layers={}
    )


def train_components(session: Session, request: Train, progress: Callable[[int, int], None]) -> Trained:
    """Train the engaged components from the given states and return their updates."""
    started = monotonic()
    engaged, steps, rate, lot = request.engaged, request.steps, request.sample_rate, request.lot
    for name, rule in engaged.items():
        if name not in session.specs:
            raise BadRequestError(f"component {name!r} is engaged but not hosted")
        if rule.clip <= 0.0 or rule.learning_rate <= 0.0:
            raise BadRequestError(f"engaged {name!r}: clip and learning rate are above 0")
    if not engaged or rate <= 0.0 or lot <= 0.0:
        raise BadRequestError(f"no training: {len(engaged)} engaged, {steps} steps, sample rate {rate}, lot {lot}")
    part = session.parts[request.split]
    if any(session.specs[name].is_statistic for name in engaged):
        released, of = _release(session, request)
        return _trained_answer(released, of.subjects, started)
    last = started

    def tell(done: int, total: int) -> None:
        nonlocal last
        if not session.team.leads or done == total or monotonic() - last >= PROGRESS_SECONDS:
            last = monotonic()
            progress(done, total)

    drawn = set[int]()
    changes = train(
        build(session, request.states),
        session.modules,
        engaged,
        part.batch.without(session.withheld),
        sampling=Sampling(steps, rate, lot),
        source=session.source,
        progress=tell,
        drawn=drawn,
        team=session.team,
        eligible=in_shard(session, part.subjects, request.shard),
    )
    if not session.team.leads:
        return _trained_answer({}, (), started)
    results = {name: quantise(changes[name], session.specs[name], engaged[name], steps, lot) for name in changes}
    return _trained_answer(results, tuple(part.subjects[row] for row in sorted(drawn)), started)


def in_shard(session: Session, subjects: Sequence[str], shard: int) -> npt.NDArray[np.bool_] | None:
    """Return which students are in a shard of the charter's, [S]: for ever, by a digest of seed and id; None: all."""
    shards = session.learning.shards
    if shard < 0 or shards == 1:
        return None
    digests = (digest("shard", session.seed, clean(subject).encode()) for subject in subjects)
    return np.array([int.from_bytes(found[:8], "big") % shards == shard for found in digests], dtype=np.bool_)


def _trained_answer(results: Mapping[str, Quantised], subjects: tuple[str, ...], started: float) -> Trained:
    return Trained(
        updates={name: result.values.tobytes() for name, result in results.items()},
        saturated={name: result.saturated for name, result in results.items()},
        scaled={name: result.scaled for name, result in results.items()},
        subjects=subjects,
        seconds=monotonic() - started,
    )


def _release(session: Session, request: Train) -> tuple[dict[str, Quantised], SplitData]:
    """Release statistics over all students, or groups over all held-out ones, once; return them, and of whom."""
    engaged: dict[str, Engagement] = request.engaged
    for name in engaged:
        if not session.specs[name].is_statistic:
            raise BadRequestError(
                f"{name!r} is trained, and {', '.join(sorted(engaged))} are requested in one training run"
            )
    if request.steps != 1 or request.sample_rate != 1.0:
        raise BadRequestError("a statistic is one run over all students", "Send steps 1 and sample_rate 1.")
    released = [is_groups(session.specs[name]) for name in engaged]
    if any(released):
        if not all(released):
            raise BadRequestError("groups of held-out students, and statistics of the others, in one training run")
        part = session.parts["held_out"]
        counts = groups.exact(session, request.states, part, engaged)
        return statistics.release(session, engaged, lambda s: counts[s.name].astype(np.float64), request.lot), part
    part = session.parts[request.split]
    batch = part.batch.without(session.withheld)
    return statistics.release(session, engaged, lambda s: statistics.exact(session, s, batch), request.lot), part


def evaluate(session: Session, request: Evaluate) -> Evaluated:
    """Return the reports of each hosted task on a split, also with the home layer, and of statistics.

    Raises BadRequestError for the students that the home layer is learned of.
    """
    states, part = request.states, session.parts[request.split]
    model = build(session, states)
    shared = predict(model, part.batch.without(session.withheld))
    at_home: dict[str, TaskReport] = {}
    if request.home_layer:
        if request.split == "train":
            raise BadRequestError("the home layer is learned of these students", 'Evaluate it on "held_out".')
        logits, told = correct(session, model, states, part, shared)
        changed = {name: kind for name, kind in kinds_of(model).items() if name in told and told[name].form}
        at_home = report(changed, part, logits)
    heads = statistics.predict(session, states, part.batch.without(session.withheld))
    return Evaluated(
        report(kinds_of(model), part, shared),
        at_home,
        report(statistics.kinds(session, heads), part, heads, _tasks(heads)) if heads else {},
    )


def evaluate_variants(
    session: Session, request: EvaluateVariants, progress: Callable[[int, int], None]
) -> EvaluatedVariants:
    """Return the figures with the states of each variant in place of `states`, one after the other, on one model.

    Statistics among the states have figures by the statistic's name.
    """
    states, variants, part = request.states, request.variants, session.parts[request.split]
    base, model, batch = load_states(session, states), build(session, states), part.batch.without(session.withheld)
    reports = []
    for done, variant in enumerate(variants, start=1):
        now = {**states, **variant}
        vectors = load_states(session, now)
        changed = [name for name in vectors if name in variant]
        for name in changed:
            model.load(session.specs[name], vectors[name])
        heads = [name for name, spec in session.specs.items() if spec.is_statistic and not is_groups(spec)]
        sums = [name for name in heads if name in now]
        logits: dict[str, Any] = {name: statistics.nobody(session, name, batch) for name in sums}
        logits |= {**predict(model, batch), **statistics.predict(session, now, batch)}
        tasks = {}
        of_sums = _tasks(sums)
        for name, kind in (session.kinds | statistics.kinds(session, sums)).items():
            flat, values, labels = labelled(kind, logits[name], part.batch.labels[of_sums.get(name, name)].numpy())
            value = metrics(kind, values, labels)[METRICS[kind]]
            subjects = len(np.unique(flat // part.batch.weights.shape[1]))
            tasks[name] = Figure(METRICS[kind], value, subjects)
        reports.append(tasks)
        for name in changed:
            model.load(session.specs[name], base[name])
        progress(done, len(variants))
    return EvaluatedVariants(tuple(reports))


def predict_scores(session: Session, request: PredictScores) -> Scores:
    """Return the scores of every labelled record of a split, for metrics over several institutions.

    A statistic's head is there by the statistic's name.
    """
    states, part = request.states, session.parts[request.split]
    model = build(session, states)
    batch = part.batch.without(session.withheld)
    heads = statistics.predict(session, states, batch)
    logits = {**predict(model, batch), **heads}
    records = int(part.batch.weights.shape[1])
    tasks, of_sums = {}, _tasks(heads)
    for name, kind in (session.kinds | statistics.kinds(session, heads)).items():
        flat, values, labels = labelled(kind, logits[name], part.batch.labels[of_sums.get(name, name)].numpy())
        subjects = tuple(part.subjects[row // records] for row in flat.tolist())
        tasks[name] = TaskScores(kind, METRICS[kind], subjects, _rows(values), _rows(labels))
    return Scores(tasks)


def _tasks(sums: Iterable[str]) -> dict[str, str]:
    """Return the task of each of these statistics, by the statistic's name."""
    return {name: parse_name(name).of for name in sums}


def predict_file(session: Session, request: Predict, progress: Callable[[int, int], None]) -> Predicted:
    """Return the predictions of every hosted task, or of one, for every record of a file.

    Raises UsageError if no record has any modality of such a task.
    """
    file, only = Path(request.file), request.task
    data, part = records_of(session, file)
    there = {name for name, (_, steps) in part.batch.inputs.items() if bool(steps.any())}
    there -= frozenset() if request.home_layer else session.withheld
    kinds = {name: kind for name, kind in session.kinds.items() if only in (None, name)}
    for task in session.learning.tasks:
        if task.name in kinds and not there & set(task.modalities):
            possible = [spec.name for spec in session.learning.tasks if there & set(spec.modalities)]
            other = f", or predict another task: --task {possible[0]}" if possible else ""
            advice = f"Add the columns of one of its modalities: {', '.join(task.modalities)}{other}."
            raise UsageError(f"{file}: no record has a modality of task {task.name!r}", advice)
    model = build(session, request.states)
    heads = any(kind != GENERATE for kind in kinds.values())
    logits = predict(model, part.batch.without(session.withheld)) if heads else {}
    told: dict[str, HomeLayer] = {}
    if request.home_layer:
        logits, told = correct(session, model, request.states, part, logits)
    places = np.argwhere(part.batch.weights.numpy() > 0)
    tasks = {}
    for name, kind in kinds.items():
        if kind == GENERATE:
            drafts = _drafts(session, model, name, part.batch.inputs, request, progress)
            texts = tuple(drafts[int(s) * part.batch.weights.shape[1] + int(k)] for s, k in places.tolist())
            tasks[name] = TaskPrediction(kind, (), (), texts)
            continue
        values = scores(kind, logits[name][places[:, 0], places[:, 1]])
        low, high = session.ranges.get(name, (0.0, 0.0))
        if kind == "regression":
            values = low + (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (high - low)
        tasks[name] = TaskPrediction(kind, tuple(session.class_names.get(name, ())), _rows(values))
    return Predicted(
        records=tuple(str(part.records[s, k]) for s, k in places.tolist()),
        tasks=tasks,
        modalities={name: int(steps.any(2).sum()) for name, (_, steps) in sorted(part.batch.inputs.items())},
        without_consent=len(data.refused),
        home_layer={name: each for name, each in told.items() if name in kinds},
    )


def _drafts(
    session: Session,
    model: M3TModel,
    task: str,
    inputs: Inputs,
    request: Predict,
    progress: Callable[[int, int], None],
) -> list[str]:
    """Write the texts of a task for every record place [S · K]; "" where there is nothing to write from."""
    name = model.writes[task]
    how, author, seed = writing.script(session, name), model.texts[name], request.sample
    if request.home_layer:
        from .private_writing import private_writer  # noqa: PLC0415  # only who writes needs it

        author = private_writer(session, model, name) or author
    prompts = [[ids for ids in row if ids >= 0] for row in inputs[name][0][:, :, 0].flatten(0, 1).tolist()]
    written = write(author, prompts, how.most, how.end, seed=seed, progress=progress)  # type: ignore[arg-type]
    return [how.text(ids) for ids in written]


def personalise(session: Session, request: Personalise, progress: Callable[[int, int], None]) -> Personalised:
    """Train the private adapters on this node's own students, beside the given shared states, and keep them."""
    model = build(session, request.states)
    loss, parameters = train_private(session, model, progress)
    return Personalised(loss, parameters)


def _rows(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())
