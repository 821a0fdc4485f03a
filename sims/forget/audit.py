"""One audit: train, withdraw in every way there is, train without, and look for the member in each of the models."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from ...node.blueprint.presets import preset
from ...node.blueprint.recipe import Budget, needed
from ...node.learner.answers import TaskScores
from ...node.learner.messages import PredictScores, Split
from ...protocol.components import FRACTION_BITS, MILLION
from ..learn.baseline import figure
from ..learn.federate import Learner, Setting, States, opening
from ..learn.studies import DELTA, holds
from ..learn.workers import LearnerWorker, share, start_workers
from .ground import Ground, prepare
from .groups import by_group
from .history import History, begin, follow
from .inference import Bools, Floats, chance_exposure, exposure, halves, judge, lira, losses, rmia

BEFORE, REFOLD, REWIND, RETRAINED, AGAIN = "before", "refold", "rewind", "retrained", "retrained, other seed"
FAULTS = ("no-refold",)  # to see that the audit would detect it
CLIP = 1e-6  # of a probability
MIN_SHADOWS = 4
TARGET = "member"  # the session of the member's own data

REMAINS = {
    BEFORE: "everything: the member's contribution is in the state",
    REFOLD: (
        "what the others learned while the member was in: their updates, which stay, were computed from states that"
        " held its contribution. For a student that is bounded by the composition of all that the member released;"
        " without noise, and for the institution as a whole, by nothing"
    ),
    "recovery": (
        "the same. Further rounds train over it and bound nothing; they cost the others' ε, of which the charter keeps"
        " a share for them"
    ),
    REWIND: (
        "nothing in the shared state. Not covered: private adapters, exported models and older states elsewhere, and"
        " published figures and predictions; running the rounds again costs every member their ε once more"
    ),
    RETRAINED: "nothing: the member was never there",
    AGAIN: "nothing: the same with other samples: the distance between two models that never saw the member",
}

Progress = Callable[[str, int, int], None]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Request:
    """The parameters of an audit. `epsilon` inf is without noise; the member takes part from round `joined` on.

    Without `shadows` no membership is guessed: canaries and distances are left.
    """

    dataset: str = "digits"
    member: str | None = None
    rounds: int = 12
    joined: int | None = None
    recovery: int = 5
    shadows: int = 8
    epsilon: float = inf
    seed: int = 1
    fault: str | None = None

    def check(self) -> None:
        """Raise UsageError for numbers that make no audit."""
        if self.rounds < 2 or not 1 <= self.first <= self.rounds or self.recovery < 0:
            raise UsageError(
                f"{self.rounds} rounds, the member from round {self.first} on, {self.recovery} after: no audit",
                "Ask for 2 rounds or more, and let the member join in one of them.",
            )
        if self.shadows and (self.shadows < MIN_SHADOWS or self.shadows % 2):
            advice = f"Ask for an even number from {MIN_SHADOWS} on, or 0: canaries and distances alone."
            raise UsageError(f"{self.shadows} shadow federations are too few, or odd", advice)
        if not self.epsilon > 0.0:
            raise UsageError(f"ε = {self.epsilon} is none", "Ask for inf, 8, 3 or another number above 0.")
        if self.fault not in (None, *FAULTS):
            raise UsageError(f"unknown fault {self.fault!r}", f"Known: {', '.join(FAULTS)}.")

    @property
    def first(self) -> int:
        """The member's first round; by default a third of the rounds are over."""
        return self.rounds // 3 + 1 if self.joined is None else self.joined


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A model's answers: each of the member's subjects' logit of its label, quality, probabilities on the test set."""

    logits: Mapping[str, float]
    own_trained: float
    own_held_out: float
    others: float
    probabilities: Scores
    groups: Mapping[str, Mapping[str, float | None]]  # of everybody else's held-out students, by level


@dataclass(slots=True)
class _Audit:
    request: Request
    ground: Ground
    setting: Setting
    base_seed: bytes
    folders: Mapping[str, Path]  # by session
    progress: Progress | None
    total: int = 0
    done: int = 0
    results: dict[str, Any] = field(default_factory=dict)

    def tick(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress("rounds", self.done, self.total)

    def learner(self, worker: LearnerWorker, session: str) -> Learner:
        """Return a learner of a worker, its session opened when it is first asked for."""
        opened = worker.opened.get(session)
        if isinstance(opened, Learner):
            return opened
        folder, setting = self.folders[session], self.setting
        name = session if session in self.ground.others else self.ground.member
        hosted = needed(setting.learning, list(setting.specs), *holds((folder,)))
        bare = Learner(name, session, hosted, 1.0)
        request = opening(bare, [str(folder)], list(setting.specs.values()), setting.learning, self.base_seed)
        size = worker.ask(replace(request, seed=0)).subjects
        rate = setting.learning.sample_rate / MILLION
        learner = worker.opened[session] = Learner(name, session, hosted, max(1.0, round(rate * size)))
        return learner

    def train(
        self, worker: LearnerWorker, seed: str, session: str | None, start: History | None = None, rounds: int = 0
    ) -> History:
        """Train the federation with the member's data of a session, or without it; from the beginning, or on."""
        others = [self.learner(worker, name) for name in self.ground.others]
        member = [] if session is None else [self.learner(worker, session)]

        def present(number: int) -> Sequence[Learner]:
            return [*others, *member] if number >= self.request.first else others

        history = begin(self.setting, self.base_seed) if start is None else start
        return follow(history, worker.ask, present, rounds or self.request.rounds, seed, self.tick)

    def look(self, worker: LearnerWorker, states: States) -> Seen:
        """Evaluate a model on all of the member's subjects and the test set."""
        task, metric = self.ground.source.task, self.ground.source.metric
        member = self.learner(worker, TARGET)
        logits: dict[str, list[float]] = {}
        own: dict[Split, tuple[list[tuple[float, ...]], list[int]]] = {"train": ([], []), "held_out": ([], [])}
        canaries = self.ground.planted | self.ground.references
        probabilities = []
        for split, (rows, truth) in own.items():
            scored = self._scores(worker, member, states, split)[task]
            for subject, scores, label in zip(scored.subjects, scored.scores, scored.labels, strict=True):
                p = min(1.0 - CLIP, max(CLIP, scores[int(label[0])]))
                logits.setdefault(subject, []).append(float(np.log(p / (1.0 - p))))
                if subject not in canaries:
                    rows.append(scores)
                    truth.append(int(label[0]))
                if split == "held_out":
                    probabilities.append(scores)
        rows, truth = [], []
        levels: list[str] = []
        for name in self.ground.others:
            scored = self._scores(worker, self.learner(worker, name), states, "held_out")[task]
            rows += scored.scores
            truth += [int(label[0]) for label in scored.labels]
            levels += [self.ground.levels.get(subject, "") for subject in scored.subjects]
        return Seen(
            {subject: float(np.mean(values)) for subject, values in logits.items()},
            figure(metric, *map(np.array, own["train"])),
            figure(metric, *map(np.array, own["held_out"])),
            figure(metric, np.array(rows), np.array(truth)),
            np.array([*probabilities, *rows]),
            by_group(np.array(rows), np.array(truth), np.array(levels)) if self.ground.levels else {},
        )

    def _scores(self, worker: LearnerWorker, learner: Learner, states: States, split: Split) -> dict[str, TaskScores]:
        packed = {name: states[name].tobytes() for name in learner.hosted}
        return worker.ask(PredictScores(packed, split, learner.session)).tasks

    def shadow(self, number: int) -> Callable[[LearnerWorker], dict[str, Mapping[str, float]]]:
        """Return the job of one shadow federation: the logits of its model before and after each way to unlearn."""

        def job(worker: LearnerWorker) -> dict[str, Mapping[str, float]]:
            seed = f"shadow {number} {self.request.seed}"
            history = self.train(worker, seed, f"shadow {number}")
            states = {BEFORE: history.last, REFOLD: history.refold(self.ground.member)}
            if self.request.recovery:
                again = history.after(states[REFOLD])
                states["recovery"] = self.train(worker, seed, None, again, self.request.recovery).last
            return {name: self.look(worker, state).logits for name, state in states.items()}

        return job


def audit(request: Request, *, workers: int = 2, progress: Progress | None = None) -> dict[str, Any]:
    """Run an audit and return its figures, fit for JSON. Raises UsageError; a simulation, a function of its seed.

    A shadow federation is a whole one: all other institutions with their own data, and the member with a random half of
    its candidates, from the same round on, under seeds of its own. A refolded model is attacked with refolded shadows
    (and a recovered one with recovered ones), as an informed attacker would; the models that never saw
    the member are attacked with the shadows as they were.
    """
    request.check()
    with tempfile.TemporaryDirectory(prefix="collegium-forget-") as folder:
        work = Path(folder)
        ground = prepare(request.dataset, work, request.member, request.seed)
        source = np.random.default_rng(request.seed)
        inside = halves(len(ground.candidates), request.shadows, source)
        folders = dict(ground.others)
        folders[TARGET] = ground.write(work / TARGET, ground.chosen)
        for number in range(request.shadows):
            chosen = [name for name, is_in in zip(ground.candidates, inside[number], strict=True) if is_in]
            folders[f"shadow {number}"] = ground.write(work / f"shadow-{number}", chosen)
        base_seed = sha256(f"audit {request.seed}".encode()).digest()
        is_dp = request.epsilon != inf
        specs, learning = preset(
            request.dataset,
            budget=Budget(request.epsilon, DELTA, request.rounds) if is_dp else None,
            rounds=request.rounds,
            institutions=len(ground.others) + 1,
            base_seed=base_seed,
        )
        setting = Setting({spec.name: spec for spec in specs}, learning, request.rounds)
        run = _Audit(request, ground, setting, base_seed, folders, progress)
        again = request.rounds + 1 - request.first
        run.total = 3 * request.rounds + again + request.recovery
        run.total += request.shadows * (request.rounds + request.recovery)
        with start_workers(workers) as crew:
            models = _models(run, crew[0])
            seen = {name: run.look(crew[0], states) for name, (states, _) in models.items()}
            shadows = share(crew, [run.shadow(number) for number in range(request.shadows)])
        return _report(run, models, seen, shadows, inside)


def _models(run: _Audit, worker: LearnerWorker) -> dict[str, tuple[States, float]]:
    """Return the states and wall time of every model; nothing else runs meanwhile."""
    request, member, seed = run.request, run.ground.member, f"audit {run.request.seed}"
    for session in (*run.ground.others, TARGET):
        run.learner(worker, session)
    models: dict[str, tuple[States, float]] = {}

    def timed(name: str, make: Callable[[], States]) -> None:
        started = time.monotonic()
        states = make()
        models[name] = (states, time.monotonic() - started)

    history = begin(run.setting, run.base_seed)
    timed(BEFORE, lambda: run.train(worker, seed, TARGET, history).last)
    timed(REFOLD, lambda: history.last if request.fault == "no-refold" else history.refold(member))
    if request.recovery:
        went_on = history.after(models[REFOLD][0])
        timed(_recovered(request), lambda: run.train(worker, seed, None, went_on, request.recovery).last)
    first = history.first_of(member)
    timed(REWIND, lambda: run.train(worker, seed, None, history.until(first - 1), request.rounds + 1 - first).last)
    timed(RETRAINED, lambda: run.train(worker, seed, None).last)
    timed(AGAIN, lambda: run.train(worker, f"{seed} again", None).last)
    return models


def _recovered(request: Request) -> str:
    return f"refold + {request.recovery} rounds"


def _report(
    run: _Audit,
    models: Mapping[str, tuple[States, float]],
    seen: Mapping[str, Seen],
    shadows: Sequence[Mapping[str, Mapping[str, float]]],
    inside: Bools,
) -> dict[str, Any]:
    request, ground = run.request, run.ground
    members = np.array([name in ground.chosen for name in ground.candidates])
    planted, references = sorted(ground.planted), sorted(ground.references)
    base = {spec.name: 2.0 ** -(spec.step_log2 + FRACTION_BITS) for spec in run.setting.specs.values()}
    rows = []
    for name, (states, seconds) in models.items():
        kind = {REFOLD: REFOLD, _recovered(request): "recovery"}.get(name, BEFORE)
        logits = _row(seen[name].logits, ground.candidates)
        logits_of = np.array([_row(shadow[kind], ground.candidates) for shadow in shadows])
        guesses: dict[str, dict[str, float] | None] = {"rmia": None, "lira": None}
        for attack, score in (("rmia", rmia), ("lira", lira)) if shadows else ():
            guesses[attack] = judge(
                score(logits, logits_of, inside), members, np.random.default_rng(request.seed)
            ).as_map()
        # How hard a label is to believe differs more than memory does: what counts is how much likelier it is than in
        # a model that never saw the member.
        never = seen[AGAIN if name != AGAIN else RETRAINED].logits
        canary, reference = (_row(seen[name].logits, names) - _row(never, names) for names in (planted, references))
        both = np.concatenate([canary, reference])
        which = np.arange(len(both)) < len(canary)
        rows.append(
            {
                "model": name,
                "seconds": seconds,
                "own_trained": seen[name].own_trained,
                "own_held_out": seen[name].own_held_out,
                "others": seen[name].others,
                "groups": {f"{ground.source.group} {level}": found for level, found in seen[name].groups.items()},
                "shadows": "as they were" if kind == BEFORE else "unlearned alike",
                **guesses,
                "canaries": {
                    **judge(both, which, np.random.default_rng(request.seed)).as_map(),
                    "loss": losses(_row(seen[name].logits, planted)),
                    "reference_loss": losses(_row(seen[name].logits, references)),
                    "exposure": exposure(canary, reference),
                },
                "weights_apart": _distance(states, models[RETRAINED][0], base),
                "probabilities_apart": float(np.abs(seen[name].probabilities - seen[RETRAINED].probabilities).max()),
                "remains": REMAINS.get(name, REMAINS["recovery"]),
            }
        )
    return {
        "simulation": True,
        "dataset": request.dataset,
        "unit": ground.source.unit,
        "metric": ground.source.metric,
        "member": ground.member,
        "institutions": len(ground.others) + 1,
        "rounds": request.rounds,
        "joined": request.first,
        "recovery": request.recovery,
        "epsilon": None if request.epsilon == inf else request.epsilon,
        "delta": None if request.epsilon == inf else DELTA,
        "seed": request.seed,
        "fault": request.fault,
        "shadows": len(shadows),
        "trained": ground.trained,
        "members": int(members.sum()),
        "non_members": int((~members).sum()),
        "planted": len(planted),
        "references": len(references),
        "chance_exposure": chance_exposure(len(references)),
        "models": rows,
    }


def _row(values: Mapping[str, float], names: Sequence[str]) -> Floats:
    return np.array([values[name] for name in names])


def _distance(a: States, b: States, steps: Mapping[str, float]) -> float:
    """Return the L2 distance of two models' weights."""
    squares = [float(np.square((a[name].astype(np.float64) - b[name]) * step).sum()) for name, step in steps.items()]
    return float(np.sqrt(sum(squares)))
