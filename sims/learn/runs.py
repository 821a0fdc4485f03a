"""One training of a study, and its figures: which institutions, which part of the data, which noise."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean, median
from typing import Any

from ...node.blueprint.recipe import Budget, Recipe, charter_parts, needed
from ...node.learner.messages import Predict, PrivateAdapter, Respec, Split
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from .chrf import chrf
from .federate import Learner, Setting, States, evaluate, opening, personalise, train
from .studies import DELTA, Institutions, holds
from .workers import LearnerWorker

VALIDATION = 0.25  # of the students to train on, set apart while rates are chosen
MODES = ("federated", "local", "central")


@dataclass(frozen=True, slots=True)
class Asked:
    """A file of unseen records to write for, the task, and what a person wrote for each."""

    file: Path
    task: str
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ground:
    """A study's data on this machine: institutions, how many students each trains on with and without validation."""

    name: str
    institutions: Institutions
    cache: Path
    sizes: dict[tuple[str, bool], int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # the folders of imported models
    private_adapter: PrivateAdapter | None = None  # if there is one, who learns alone trains it as well
    asked: Mapping[str, Asked] = field(default_factory=dict)  # by institution, where a task writes


@dataclass(frozen=True, slots=True)
class Run:
    """A training's parameters: `epsilon` None is without privacy. `tune` leaves out the validation part."""

    mode: str
    epsilon: float | None
    rate: float
    seed: int
    tune: bool = False
    weights: str = "designed"
    gaps_filled: bool = False
    noises: Mapping[str, float] = field(default_factory=dict)  # institution → an ε of its own, below the charter's
    rule: str = "mean"
    liars: frozenset[str] = frozenset()  # faulty members; they send `attack` and are not evaluated
    attack: str | None = None
    silent: frozenset[str] = frozenset()  # members that declare no noise, and add theirs
    private: bool = True  # whether private components are trained beside the shared ones


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parts of a charter on which a learner's session depends."""

    specs: Sequence[ComponentSpec]
    learning: Learning
    seed: bytes


def perform(
    worker: LearnerWorker, run: Run, ground: Ground, recipe_of: Any, rounds: int, least_lot: float
) -> dict[str, dict[str, Any]]:
    """Train as `run` says and return institution → task → report on its own held-out (or validation) students."""
    everybody = {name: (name, folders) for name, folders in ground.institutions.items()}
    pooled = tuple(folder for folders in ground.institutions.values() for folder in folders)
    groups: list[dict[str, tuple[str, tuple[Path, ...]]]]
    if run.mode == "federated":
        groups = [everybody]
    elif run.mode == "central":
        groups = [{"all": ("all", pooled)}]
    else:
        groups = [{name: pair} for name, pair in everybody.items()]
    seed = sha256(f"seed {run.seed}".encode()).digest()
    students = median(students_of(worker, ground, name, f, run, recipe_of, seed) for name, f in everybody.values())
    recipe: Recipe = recipe_of(run.rate, students)
    budget = None if run.epsilon is None else Budget(run.epsilon, DELTA, rounds, 0)
    specs, learning = charter_parts(recipe, budget, min_updates=1, rule=run.rule, base_seed=seed)
    drawn = Drawn(specs, learning, seed)
    by_institution: dict[str, dict[str, Any]] = {}
    for group in groups:
        learners = [
            learner_of(worker, ground, name, folders, run, drawn, least_lot * students)
            for name, folders in group.values()
        ]
        learners = [_stricter(learner, run, recipe, rounds, specs, seed) for learner in learners]
        learners = [replace(learner, claims_none=learner.name in run.silent) for learner in learners]
        used = {name for learner in learners for name in learner.hosted}
        setting = Setting(
            {spec.name: spec for spec in specs if spec.name in used}, learning, rounds, "train", run.weights,
            run.gaps_filled, run.liars, run.attack,
        )  # fmt: skip
        states, last = train(lambda _learner: worker.ask, learners, setting)
        if run.mode == "central":
            learners = [
                learner_of(worker, ground, name, folders, run, drawn, least_lot * students)
                for name, folders in everybody.values()
            ]
        honest = [learner for learner in learners if learner.name not in run.liars]
        by_institution |= _judged(worker, honest, states, last, run, ground)
    return by_institution


def _judged(
    worker: LearnerWorker, learners: Sequence[Learner], states: States, last: States, run: Run, ground: Ground
) -> dict[str, dict[str, Any]]:
    split: Split = "validation" if run.tune else "held_out"
    at_home = _at_home(run, ground)
    by_institution: dict[str, dict[str, Any]] = {}
    for learner in learners:
        if at_home and ground.private_adapter is not None:
            personalise(worker.ask, learner, states)
        by_institution[learner.name] = dict(evaluate(worker.ask, learner, states, split, home_layer=at_home))
        if learner.name in ground.asked and not run.tune:
            _compare_texts(worker, learner, states, ground.asked[learner.name], by_institution[learner.name])
        ends = {} if run.tune else evaluate(worker.ask, learner, last, split)
        for task, report in ends.items():
            by_institution[learner.name][task]["last"] = report
    return by_institution


def _compare_texts(
    worker: LearnerWorker, learner: Learner, states: States, asked: Asked, reports: Mapping[str, Any]
) -> None:
    """Add to the reports how much the texts that the model writes have in common with those of a person."""
    packed = {name: states[name].tobytes() for name in learner.hosted}
    report = reports[asked.task]
    for one, at_home in ((report, False), (report.get("home_layer"), True)):
        if one:
            request = Predict(packed, str(asked.file), at_home, asked.task, session=learner.session)
            one["metrics"]["chrf"] = chrf(worker.ask(request).tasks[asked.task].texts, asked.wanted)


def _at_home(run: Run, ground: Ground) -> bool:
    """Whether the home layer is measured too."""
    alone = run.mode == "local" and ground.private_adapter is not None
    return run.private and (run.mode == "federated" or alone) and not run.tune and not run.liars


def learner_of(
    worker: LearnerWorker,
    ground: Ground,
    name: str,
    folders: tuple[Path, ...],
    run: Run,
    drawn: Drawn,
    least: float,
) -> Learner:
    """Return a learner whose session is open; its lot is that of at least `least` students."""
    hosted = needed(drawn.learning, [spec.name for spec in drawn.specs], *holds(folders))
    kind = " without validation" if run.tune else " with home layer" if _at_home(run, ground) else ""
    session = f"{ground.name} {name}{kind}"
    learner = Learner(name, session, hosted, 1.0)
    size = _open(worker, ground, learner, folders, run, drawn)
    return replace(learner, lot=max(1.0, float(round(drawn.learning.drawn * max(size, least)))))


def students_of(
    worker: LearnerWorker, ground: Ground, name: str, folders: tuple[Path, ...], run: Run, recipe_of: Any, seed: bytes
) -> int:
    """Return how many students an institution trains on."""
    key = (name, run.tune)
    if key not in ground.sizes:
        specs, learning = charter_parts(recipe_of(run.rate, 100.0), None, min_updates=1, base_seed=seed)
        learner_of(worker, ground, name, folders, run, Drawn(specs, learning, seed), 0.0)
    return ground.sizes[key]


def _open(
    worker: LearnerWorker,
    ground: Ground,
    learner: Learner,
    folders: tuple[Path, ...],
    run: Run,
    drawn: Drawn,
) -> int:
    """Open the learner's session, or give an open one these specs; return how many students it trains on."""
    key = (learner.name, run.tune)
    # A simulation, labelled so: its sampling and noise are a function of the run.
    label = (
        f"{ground.name} {learner.name} {run.mode} {run.epsilon} {run.rate} {run.weights} {run.gaps_filled} {run.seed}"
    )
    number = int.from_bytes(sha256(label.encode()).digest()[:7])
    if learner.session in worker.opened:
        worker.ask(Respec(tuple(drawn.specs), drawn.learning, drawn.seed, number, learner.session))
    else:
        request = replace(
            opening(learner, [str(folder) for folder in folders], drawn.specs, drawn.learning, drawn.seed),
            cache=str(ground.cache),
            models=ground.models,
            validation=VALIDATION if run.tune else 0.0,
            seed=number,
            home_layer=_at_home(run, ground),
            private=None if ground.private_adapter is None else tempfile.mkdtemp(dir=worker.folder),
            private_adapter=ground.private_adapter,
        )
        worker.opened[learner.session] = True
        ground.sizes[key] = worker.ask(request).subjects
    return ground.sizes[key]


def _stricter(
    learner: Learner, run: Run, recipe: Recipe, rounds: int, specs: Sequence[ComponentSpec], seed: bytes
) -> Learner:
    """Give a learner with a stricter ε of its own the noise that it needs."""
    epsilon = run.noises.get(learner.name)
    if epsilon is None:
        return learner
    own, _ = charter_parts(recipe, Budget(epsilon, DELTA, rounds, 0), min_updates=1, base_seed=seed)
    noises = {spec.name: spec.noise_multiplier for spec in own}
    assert all(noises[spec.name] >= spec.noise_multiplier for spec in specs)
    return replace(learner, noises=noises)


def with_home_layer(by_institution: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the reports with each institution's home layer, where there is one, else of the shared model."""
    return {
        name: {task: r.get("home_layer") or r for task, r in tasks.items()} for name, tasks in by_institution.items()
    }


def with_last(by_institution: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the reports of the shared model's last state."""
    return {
        name: {task: r["last"] for task, r in tasks.items() if r.get("last")} for name, tasks in by_institution.items()
    }


def figure(
    by_institution: Mapping[str, Mapping[str, Any]], task: str, metric: str, counted: Any, *, pooled: bool
) -> float:
    """Return the mean of a task's metric over the counted institutions, or over their records."""
    pairs: list[tuple[float, int]] = [
        (report[task]["metrics"][metric], report[task]["records"])
        for name, report in by_institution.items()
        if counted(name) and task in report and report[task]["metrics"].get(metric) is not None
    ]
    if pooled:
        return sum(value * n for value, n in pairs) / max(1, sum(n for _, n in pairs))
    return mean(value for value, _ in pairs) if pairs else float("nan")
