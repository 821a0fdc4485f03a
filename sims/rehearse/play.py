"""A rehearsal: a recipe's rounds with the daemon's own learner and fold, under several ε, and what came of it."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count, pairwise
from math import sqrt
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...consensus.components import Entry, Round, fold_round, origin
from ...crypto.errors import UsageError
from ...node.blueprint.recipe import needed
from ...node.data.manifest import read_manifest
from ...node.learner.answers import Opened, TaskReport
from ...node.learner.client import Ask
from ...node.learner.messages import Asks, Engagement, Evaluate, LeftOut, Open, Respec, Train
from ...node.views.worth import no_better
from ...protocol.components import FRACTION_BITS, MILLION, ComponentSpec
from ...protocol.learning import Learning
from ...protocol.statistics import numbers
from ...protocol.update import max_frame_size
from ..learn.federate import Learner, Setting, States, train
from ..learn.workers import LearnerWorker, start_workers
from .budgets import recalibrated
from .records import Size, check_size, write

HELD_OUT, MIN_HELD_OUT = 1000, 60  # simulated students, of all members and of each at the least
CONSTANTS = {"accuracy": "accuracy_constant"}
FIGURES = {"binary": ("accuracy", "auc"), "regression": ("r2",), "multilabel": ("accuracy", "auc")}
Step = Callable[[str, int, int], None]
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rehearsed: a charter's components and recipe, with its first weights.

    `typical` are the students of a typical member by the charter's author, `students` those of each simulated member;
    None: as many as `data` has. `epsilon` is that of the specs, None where they have no noise; `others` are compared
    with it. `data` is a folder of real students: all members then train on these, each with draws and noise of its own.
    """

    specs: tuple[ComponentSpec, ...]
    learning: Learning
    base_seed: bytes
    members: int
    typical: float
    students: int | None
    rounds: int
    epsilon: float | None
    others: tuple[float, ...]
    seed: int
    data: Path | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    excluded: LeftOut | None = None

    @property
    def is_noised(self) -> bool:
        """Whether any component has noise."""
        return any(spec.noise_multiplier for spec in self.specs)

    @property
    def budgets(self) -> tuple[float | None, ...]:
        """Every ε that is played, rising, and without noise at last."""
        if not self.is_noised:
            return (None,)
        own = () if self.epsilon is None else (self.epsilon,)
        return (*sorted({*self.others, *own}), None)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A task's, or a statistic's, figures on held-out students: of how many, and means over all records."""

    students: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Stage:
    """The opened sessions: of every member, or one for all of them; `size` are the students that a member trains on."""

    ask: Ask
    sessions: dict[str, Opened]
    learners: list[Learner]
    hosted: tuple[str, ...]
    size: int


def rehearse(plan: Plan, step: Step | None = None) -> dict[str, Any]:
    """Play the plan, and return what it showed, fit for JSON. Raises UsageError for a folder that does not fit."""
    begun, tell = time.monotonic(), step or (lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="collegium-rehearse-") as name, start_workers(1) as crew:
        tell("starting a learner", 0, 0)
        crew[0].worker.told = lambda done, total: tell("reading texts", done, total)
        stage = _open_sessions(plan, Path(name), _counting(crew[0], plan, tell), tell)
        crew[0].worker.told = None  # from here on each training run is a step
        figures: dict[float | None, dict[str, _Judged]] = {}
        states: States = {}
        history: list[States] = []
        played = time.monotonic()
        for epsilon in plan.budgets:  # without noise comes last: its states are kept
            specs = plan.specs if epsilon == plan.epsilon else _under_epsilon(plan, epsilon)
            history = []

            def seen(states: States, history: list[States] = history) -> None:
                history.append(dict(states))

            states = _play_rounds(plan, stage, specs, seen)
            figures[epsilon] = _evaluate(stage, states)
        a_round = (time.monotonic() - played) / (len(plan.budgets) * plan.rounds) / plan.members
    specs = tuple(spec for spec in plan.specs if spec.name in stage.hosted)
    return {
        "simulation": True,
        "seed": plan.seed,
        "data": None if plan.data is None else str(plan.data),
        "members": plan.members,
        "students": stage.size,
        "lot_size": stage.learners[0].lot,
        "rounds": plan.rounds,
        "planned_rounds": plan.learning.planned_rounds,
        "steps": plan.learning.steps,
        "sample_rate": plan.learning.sample_rate / MILLION,
        "rules": sorted({spec.rule for spec in plan.specs if not spec.is_statistic}),
        "epsilon": plan.epsilon,
        "noised": plan.is_noised,
        "components": [_component(plan, spec, stage, states, history) for spec in specs],
        "tasks": _tasks(plan, figures),
        "bytes_a_round": sum(max_frame_size(spec) for spec in specs if not spec.is_statistic),
        "bytes_once": sum(max_frame_size(spec) for spec in specs if spec.is_statistic),
        "seconds_a_round": round(a_round, 3),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _counting(worker: LearnerWorker, plan: Plan, tell: Step) -> Ask:
    """Return what asks the worker, and tells of each training run that it was asked for in a round."""
    total, done = len(plan.budgets) * plan.rounds * plan.members, count(1)

    def ask(request: Asks[A], /) -> A:
        answer = worker.ask(request)
        if isinstance(request, Train) and request.states:
            tell("training", next(done), total)
        return answer

    return ask


def _under_epsilon(plan: Plan, epsilon: float | None) -> tuple[ComponentSpec, ...]:
    return recalibrated(plan.specs, plan.learning, plan.typical, epsilon)


def _open_sessions(plan: Plan, work: Path, ask: Ask, tell: Step) -> _Stage:
    """Open a session for each member's records, or one for all on a folder of real ones."""
    if plan.learning.writers:
        written = ", ".join(task.name for task in plan.learning.writers.values())
        raise UsageError(
            f"{written} writes a text, which cannot be rehearsed: there is no constant to beat, and no text is made up",
            "Rehearse a model without it. What writing costs in ε, `charter review` says.",
        )
    folders = [plan.data] if plan.data is not None else _write_records(plan, work, tell)
    manifest = read_manifest(folders[0])
    has = {entry.name for entry in manifest.modalities}, {task.name for task in manifest.tasks}
    hosted = needed(plan.learning, [spec.name for spec in plan.specs], *has)
    if not hosted:
        reads = {name for task in plan.learning.tasks for name in task.modalities}
        raise UsageError(
            f"{folders[0]} has no task of the model with a modality that it reads: it has"
            f" {', '.join(sorted(has[0] | has[1]))}, the model {', '.join(sorted(reads))} for"
            f" {', '.join(task.name for task in plan.learning.tasks)}",
            "Name the folder that the model is for, or make a model of this one: `collegium charter model FOLDER`.",
        )
    sessions = {}
    for number, folder in enumerate(folders, 1):
        tell("reading", number - 1, len(folders))
        request = Open(
            data=(str(folder),),
            components=plan.specs,
            learning=plan.learning,
            base_seed=plan.base_seed,
            hosted=hosted,
            seed=_seed(plan, f"member-{number}"),
            session=f"member-{number}",
            models=dict(plan.models),
            excluded=plan.excluded,
        )
        sessions[request.session] = ask(request)
        tell("reading", number, len(folders))
    size = next(iter(sessions.values())).subjects
    lot = max(1.0, float(round(plan.learning.drawn * (plan.students or size))))
    names, modules = list(sessions), tuple(spec.name for spec in plan.specs if not spec.is_statistic)
    learners = [
        Learner(f"member-{n}", names[(n - 1) % len(names)], tuple(name for name in hosted if name in modules), lot)
        for n in range(1, plan.members + 1)
    ]
    return _Stage(ask, sessions, learners, hosted, size)


def _write_records(plan: Plan, work: Path, tell: Step) -> list[Path]:
    assert plan.students is not None
    size = Size(plan.students, max(MIN_HELD_OUT, HELD_OUT // plan.members))
    check_size(plan.learning, plan.members, size)
    return write(work, plan.learning, plan.members, size, plan.seed, lambda done: tell("records", done, plan.members))


def _seed(plan: Plan, session: str) -> int:
    # A simulation, labelled so: its draws and noise are a function of the seed.
    return int.from_bytes(sha256(f"rehearse {plan.seed} {session}".encode()).digest()[:7])


def _play_rounds(plan: Plan, stage: _Stage, specs: tuple[ComponentSpec, ...], seen: Callable[[States], None]) -> States:
    """Play all rounds, and the one release of each statistic; return the last states."""
    for session in stage.sessions:
        stage.ask(Respec(specs, plan.learning, plan.base_seed, _seed(plan, session), session))
    trained = {spec.name: spec for spec in specs if spec.name in stage.learners[0].hosted}
    _, last = train(lambda _: stage.ask, stage.learners, Setting(trained, plan.learning, plan.rounds), seen)
    for spec in specs:
        if spec.is_statistic and spec.name in stage.hosted:
            last[spec.name] = _release(plan, stage, spec)
    return last


def _release(plan: Plan, stage: _Stage, spec: ComponentSpec) -> np.ndarray[Any, np.dtype[np.int32]]:
    rule = Engagement.of(spec.clip_norm, spec.noise_multiplier, spec.learning_rate)
    values = {}
    for learner in stage.learners:
        lot = float(plan.students or stage.size)
        ask = Train({}, {spec.name: rule}, steps=1, sample_rate=1.0, lot=lot, session=learner.session)
        values[learner.name.encode()] = np.frombuffer(stage.ask(ask).updates[spec.name], dtype=spec.integer_type)
    entries = tuple(Entry(name, name, b"", 0, 0, 0) for name in values)
    return fold_round(origin(spec), spec, Round(1, 1, entries, 0, b""), lambda entry: values[entry.update])[0]


def _evaluate(stage: _Stage, states: States) -> dict[str, _Judged]:
    """Return the figures of each task and each statistic."""
    packed = {name: state.tobytes() for name, state in states.items()}
    reports: dict[str, list[TaskReport]] = {}
    for session in stage.sessions:
        answer = stage.ask(Evaluate(packed, session=session))
        for name, report in (answer.tasks | answer.statistics).items():
            reports.setdefault(name, []).append(report)
    judged = {}
    for name, of_members in reports.items():
        weights: dict[str, int] = {}
        sums: dict[str, float] = {}
        for report in of_members:
            for metric, value in report.metrics.items():
                if value is not None:
                    sums[metric] = sums.get(metric, 0.0) + value * report.records
                    weights[metric] = weights.get(metric, 0) + report.records
        means = {metric: value / weights[metric] for metric, value in sums.items()}
        judged[name] = _Judged(sum(report.n for report in of_members), means)
    return judged


def _component(
    plan: Plan, spec: ComponentSpec, stage: _Stage, last: States, history: Sequence[States]
) -> dict[str, Any]:
    """Return a component's clipped gradients, as measured without noise, against the noise that its ε needs.

    Both are norms of the change of the weights that the mean of all members makes, in a round and in all of them.
    """
    sigma, clip, d = spec.noise_multiplier / MILLION, spec.clip_norm / MILLION, spec.dimension
    if spec.is_statistic:
        total = numbers(last[spec.name]).astype(np.float64)
        signal = float(np.linalg.norm(total)) * 2.0**-spec.step_log2
        noise = sigma * clip * sqrt(d * plan.members)
        first = None
    else:
        scale = 2.0 ** -(spec.step_log2 + FRACTION_BITS)
        states = [np.zeros(spec.words), *(after[spec.name].astype(np.float64) * scale for after in history)]
        moved = [float(np.linalg.norm(b - a)) for a, b in pairwise(states)]
        eta, steps = spec.learning_rate / MILLION, plan.learning.steps
        once = eta * sigma * clip * sqrt(steps * d / plan.members) / stage.learners[0].lot
        signal, noise = float(np.linalg.norm(states[-1])), once * sqrt(plan.rounds)
        first = {"gradient": moved[0], "noise": once, "ratio": _ratio(once, moved[0])}
    return {
        "component": spec.name,
        "parameters": d,
        "noise_multiplier": sigma,
        "first_round": first,
        "all_rounds": {"gradient": signal, "noise": noise, "ratio": _ratio(noise, signal)},
    }


def _ratio(noise: float, signal: float) -> float | None:
    return noise / signal if signal > 0.0 else None


def _tasks(plan: Plan, figures: Mapping[float | None, dict[str, _Judged]]) -> list[dict[str, Any]]:
    tasks = []
    chosen = plan.epsilon if plan.is_noised else None
    for name, judged in figures[chosen].items():
        own = judged.metrics
        kind = next((t.kind for t in plan.learning.tasks if t.name == name.removeprefix("statistic/")), "")
        shown = FIGURES.get(kind, ("accuracy",))
        constants = [own.get(CONSTANTS.get(metric, ""), 0.5 if metric == "auc" else 0.0) for metric in shown]
        tasks.append(
            {
                "task": name,
                "kind": kind,
                "held_out": judged.students,
                "figures": [
                    {
                        "metric": metric,
                        "constant": constant,
                        "values": [
                            {"epsilon": epsilon, "value": of_tasks[name].metrics.get(metric)}
                            for epsilon, of_tasks in figures.items()
                        ],
                    }
                    for metric, constant in zip(shown, constants, strict=True)
                ],
                "verdict": _verdict(own.get(shown[0]), constants[0], judged.students),
                "reasons": no_better(own),
            }
        )
    return tasks


def _verdict(value: float | None, constant: float, students: int) -> str:
    """Say whether a figure beats the best constant."""
    if value is None or value <= constant:
        return "no better"
    return "better" if value - constant > chance(students) else "within chance"


def chance(students: int) -> float:
    """Return the largest standard deviation of an accuracy on so many students."""
    return 0.5 / sqrt(max(1, students))
