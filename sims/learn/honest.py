"""OULAD against what a practitioner would do: a regression at home without noise, boosted trees of all data pooled.

Two splits: students held out of the same presentations, and students of each module's last presentation, which nobody
trained on. And the newcomer: a module that is not in the federation brings n own students.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from ...node.blueprint.recipe import Budget, charter_parts
from ...node.data.arrays import load
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning
from .federate import Learner, Setting, States, evaluate, opening, train
from .studies import DELTA, Institutions, Study, by_slots, later_presentation
from .workers import LearnerWorker, share

RATE = 0.5  # of 0.25, 0.5, 1, 2 and 4, on the held-out students: with slots the higher ones lose .002 to .005
OWN = (0, 50, 100, 200, 400, 800, None)  # students that a newcomer brings; None: all
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # C of scikit-learn
FOLDS = 5
OWN_SPLIT, LATER = "own split", "later presentation"
SHARED, AT_HOME = "shared", "with the home layer"
ALONE, PLACES = "alone: ridge, no noise", "alone: ridge, a place for each step"
BOOSTED = "pooled: boosted trees"
Floats = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float]]  # institution → metric → value


@dataclass(frozen=True, slots=True)
class Records:
    """The labelled records of one side of an institution: numbers [n, F], labels [n], each one's student."""

    numbers: Floats
    labels: Floats
    students: npt.NDArray[np.str_]

    def of(self, students: npt.NDArray[np.str_]) -> "Records":
        """Return the records of some students."""
        rows = np.isin(self.students, students)
        return Records(self.numbers[rows], self.labels[rows], self.students[rows])


def measure(
    study: Study, data: Path, work: Path, crew: Sequence[LearnerWorker], seeds: Sequence[int],
    epsilons: Sequence[float | None], quick: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return the measurements, fit for JSON."""
    study = replace(study, recipe=by_slots)
    splits = {OWN_SPLIT: study.institutions(data, work), LATER: later_presentation(data, work)}
    jobs: list[Callable[[LearnerWorker], list[dict[str, Any]]]] = []
    for split, institutions in splits.items():
        jobs.append(lambda _, split=split, own=institutions: _baselines(study, split, own))  # type: ignore[misc]
        for epsilon in epsilons:
            jobs += [
                lambda worker, split=split, own=institutions, at=epsilon, seed=seed: _federated(  # type: ignore[misc]
                    worker, study, split, own, at, seed
                )
                for seed in seeds
            ]
    for name in list(splits[OWN_SPLIT])[: 1 if quick else None]:
        jobs += [
            lambda worker, name=name, at=at, seed=seed: _newcomer(  # type: ignore[misc]
                worker, study, splits[OWN_SPLIT], name, at, seed
            )
            for at in epsilons
            for seed in seeds
        ]
    rows = _joined([row for found in share(crew, jobs) for row in found])
    return {"title": "OULAD against what a practitioner would do", "metric": study.metric, "unit": study.unit,
            "rows": rows, "goals": _goals(rows)}  # fmt: skip


def _joined(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the seeds, and the newcomers of one number: their values beside each other."""
    joined: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["split"], row["own"], row["mode"], row["epsilon"])
        whole = joined.setdefault(key, {**{k: row[k] for k in ("split", "own", "mode", "epsilon")}, "seeds": {}})
        whole["seeds"].setdefault(row["seed"], {}).update(row["institutions"])
    for whole in joined.values():
        seeds = list(whole.pop("seeds").values())
        for metric in ("auc", "brier", "brier_constant"):
            whole[metric] = [mean(figures[metric] for figures in each.values()) for each in seeds]
        whole["values"] = whole["auc"]
        whole["institutions"] = {
            name: {metric: mean(each[name][metric] for each in seeds) for metric in seeds[0][name]} for name in seeds[0]
        }
    return list(joined.values())


def _row(split: str, mode: str, epsilon: float | None, seed: int, figures: Figures, own: object = "") -> dict[str, Any]:
    return {"split": split, "mode": mode, "epsilon": epsilon, "seed": seed, "own": own, "institutions": figures}


# ---- federated


def _federated(
    worker: LearnerWorker, study: Study, split: str, institutions: Institutions, epsilon: float | None, seed: int
) -> list[dict[str, Any]]:
    ground = _Ground(worker, study, institutions, epsilon, seed)
    states = ground.train(institutions)
    found: dict[str, Figures] = {SHARED: {}, AT_HOME: {}}
    for name in institutions:
        report = evaluate(worker.ask, ground.opened(name), states, home_layer=True)[study.task]
        if report["n"]:
            found[SHARED][name] = report["metrics"]
            found[AT_HOME][name] = (report["home_layer"] or report)["metrics"]
    return [_row(split, mode, epsilon, seed, figures) for mode, figures in found.items()]


def _newcomer(
    worker: LearnerWorker, study: Study, institutions: Institutions, name: str, epsilon: float | None, seed: int
) -> list[dict[str, Any]]:
    """Let the others train, and one come with n own students: of the shared state, of its home layer, and alone."""
    ground = _Ground(worker, study, institutions, epsilon, seed)
    states = ground.train([other for other in institutions if other != name])
    trained, judged = _sides(study, institutions[name])
    order = sorted(set(trained.students), key=lambda one: _fraction(str(one)))
    rows = []
    for own in OWN:
        count = len(order) if own is None else own
        if count > len(order):
            continue
        learner = ground.opened(name, 1.0 - count / len(order) if count else 0.0)
        report = evaluate(worker.ask, learner, states, home_layer=True)[study.task]
        met = [(SHARED, report), (AT_HOME, report["home_layer"] or report if count else report)]
        rows += [_row("newcomer", mode, epsilon, seed, {name: one["metrics"]}, count if own is not None else "all")
                 for mode, one in met]  # fmt: skip
        if count:
            few = trained.of(np.array(order[len(order) - count :]))
            figures = {name: _judge(_ridge(few), judged)}
            rows.append(_row("newcomer", PLACES, None, 0, figures, count if own is not None else "all"))
    return rows


class _Ground:
    """A federation's recipe, and the sessions of its members on one worker."""

    def __init__(
        self, worker: LearnerWorker, study: Study, institutions: Institutions, epsilon: float | None, seed: int
    ) -> None:
        self.worker, self.study, self.institutions, self.epsilon, self.number = (
            worker, study, institutions, epsilon, seed
        )  # fmt: skip
        self.seed = sha256(f"seed {seed}".encode()).digest()
        self.specs, self.learning = self._parts(100.0, None)
        self.sizes = {name: self._open(self._learner(name), 0.0) for name in institutions}
        budget = None if epsilon is None else Budget(epsilon, DELTA, study.rounds, 0)
        self.specs, self.learning = self._parts(median(self.sizes.values()), budget)

    def _parts(self, students: float, budget: Budget | None) -> tuple[Sequence[ComponentSpec], Learning]:
        return charter_parts(self.study.recipe(RATE, students), budget, min_updates=1, base_seed=self.seed)

    def _learner(self, name: str) -> Learner:
        return Learner(name, f"honest {name}", tuple(spec.name for spec in self.specs), 1.0)

    def _open(self, learner: Learner, validation: float) -> int:
        number = int.from_bytes(sha256(f"{learner.name} {self.epsilon} {self.number}".encode()).digest()[:7])
        folders = [str(folder) for folder in self.institutions[learner.name]]
        request = opening(learner, folders, self.specs, self.learning, self.seed)
        return self.worker.ask(replace(request, seed=number, validation=validation, home_layer=True)).subjects

    def opened(self, name: str, validation: float = 0.0) -> Learner:
        """Open a member's session, with a share of its training students set apart; its lot is the federation's."""
        learner = self._learner(name)
        self._open(learner, validation)
        least = max(self.sizes[name], median(self.sizes.values()))
        return replace(learner, lot=float(round(self.learning.sample_rate / MILLION * least)))

    def train(self, names: Sequence[str] | Institutions) -> States:
        """Return the mean state of the last half of the rounds."""
        setting = Setting({spec.name: spec for spec in self.specs}, self.learning, self.study.rounds)
        return train(lambda _: self.worker.ask, [self.opened(name) for name in names], setting)[0]


# ---- what a practitioner would do


def _baselines(study: Study, split: str, institutions: Institutions) -> list[dict[str, Any]]:
    sides = {name: _sides(study, folders) for name, folders in institutions.items()}
    means = {name: _sides(study, folders, places=False) for name, folders in institutions.items()}
    judged = [name for name, (_, test) in sides.items() if len(test.labels)]
    boosted = _boosted([(number, train) for number, (train, _) in enumerate(sides.values())])
    models = {name: partial(boosted, number) for number, name in enumerate(sides)}
    found = {
        ALONE: {name: _judge(_ridge(means[name][0]), means[name][1]) for name in judged},
        PLACES: {name: _judge(_ridge(sides[name][0]), sides[name][1]) for name in judged},
        BOOSTED: {name: _judge(models[name], sides[name][1]) for name in judged},
    }
    return [_row(split, mode, None, 0, figures) for mode, figures in found.items()]


def _sides(study: Study, folders: Sequence[Path], *, places: bool = True) -> tuple[Records, Records]:
    """Return the labelled records to train on, and those held out.

    The numbers are those of the study's modalities: the mean of a series, and with `places` each of its steps.
    """
    (folder,) = folders
    recipe = study.recipe(RATE, 100.0)
    data = load(folder, only_modalities={modality.name for modality in recipe.modalities}, tolerant=True)
    labels, parts = data.tasks[study.task].labels[:, :, 0].astype(np.float64), []
    for array in data.modalities.values():
        steps = array.steps[..., None]
        parts += [(array.values * steps).sum(2) / np.maximum(steps.sum(2), 1), steps.any(2)]
        if places and array.length > 1:
            parts += [(array.values * steps).reshape(*labels.shape, -1), array.steps]
    numbers = np.concatenate([part.astype(np.float64) for part in parts], axis=2)
    names = np.repeat(np.array(data.subjects)[:, None], labels.shape[1], axis=1)
    some = ~np.isnan(labels)
    train, test = (some & (data.held_out == side)[:, None] for side in (False, True))
    return Records(numbers[train], labels[train], names[train]), Records(numbers[test], labels[test], names[test])


def _ridge(records: Records) -> Callable[[Floats], Floats]:
    """Return a logistic regression with ridge, its penalty by cross-validation over students."""
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415  # an extra
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    folds = list(GroupKFold(FOLDS).split(records.numbers, records.labels, records.students))
    model = LogisticRegressionCV(
        Cs=PENALTIES, cv=folds, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0.0,), use_legacy_attributes=False
    )
    made = make_pipeline(StandardScaler(), model).fit(records.numbers, records.labels)
    return lambda numbers: np.asarray(made.predict_proba(numbers)[:, 1], dtype=np.float64)


def _boosted(all_records: Sequence[tuple[int, Records]]) -> Callable[[int, Floats], Floats]:
    """Return boosted trees of all institutions' records, which know the institution."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415  # an extra

    def with_number(number: int, numbers: Floats) -> Floats:
        return np.column_stack([np.full(len(numbers), float(number)), numbers])

    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=150, max_leaf_nodes=15, categorical_features=[0], random_state=0
    )
    model.fit(
        np.concatenate([with_number(number, records.numbers) for number, records in all_records]),
        np.concatenate([records.labels for _, records in all_records]),
    )
    return lambda number, numbers: np.asarray(model.predict_proba(with_number(number, numbers))[:, 1], np.float64)


def _judge(model: Callable[[Floats], Floats], held_out: Records) -> dict[str, float]:
    """Return AUC and Brier score, the latter as node/learner/tasks.py has it: summed over both classes."""
    from ...node.metrics import area_under_curve  # noqa: PLC0415

    predicted, truth = model(held_out.numbers), held_out.labels
    area = area_under_curve(predicted, truth)
    assert area is not None
    brier, constant = (2.0 * float(np.square(guess - truth).mean()) for guess in (predicted, truth.mean()))
    return {"auc": area, "brier": brier, "brier_constant": constant}


def _fraction(subject: str) -> float:
    """The order in which a session's `validation` sets students apart (node/learner/session.py)."""
    return int.from_bytes(sha256(b"validation" + subject.encode()).digest()[:8], "big") / 2.0**64


# ---- goals and the table


def _goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    goals = []
    for split, bound in ((OWN_SPLIT, 0.8), (LATER, 0.784)):
        for row in rows:
            if (row["split"], row["mode"], row["epsilon"]) == (split, AT_HOME, 3.0):
                value = mean(row["auc"])
                goals.append((f"ε = 3, {split}: with the home layer ≥ {bound:g}", value, value >= bound))
                worst = max(one["brier"] - one["brier_constant"] for one in row["institutions"].values())
                goals.append((f"ε = 3, {split}: Brier minus the constant's, the worst < 0", worst, worst < 0.0))
    return [{"study": "honest", "goal": goal, "value": value, "met": met} for goal, value, met in goals]


def table(results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    shown = Table(title=f"{results['title']}\nmean over modules of AUC and of the Brier score (less is better)")
    for column in ("split", "own students", "model", "ε", "AUC", "Brier", "constant", "AUC by module"):
        shown.add_column(column, justify="left" if column in {"split", "model", "AUC by module"} else "right")
    for row in results["rows"]:
        noised = row["mode"] in {SHARED, AT_HOME}
        shown.add_row(
            row["split"], str(row["own"]), row["mode"],
            "" if not noised else "∞" if row["epsilon"] is None else f"{row['epsilon']:g}",
            *(f"{mean(row[metric]):.3f}" for metric in ("auc", "brier", "brier_constant")),
            " ".join(f"{name} {one['auc']:.3f}" for name, one in row["institutions"].items()),
        )  # fmt: skip
    return shown
