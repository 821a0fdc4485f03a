"""Gaps between groups from charged releases, against the true ones, and what thresholds of groups make of them.

Three sources, each trained together at ε = 3; then every institution releases its groups once at ε = 1
(node/learner/groups.py), by the learner's own worker. The same counts without noise are the truth.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from math import sqrt
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
from rich.table import Table

from ...crypto.errors import UsageError
from ...node.blueprint.recipe import Budget, charter_parts
from ...node.equity import ERRORS, FEW, LEAST, Groups, added, auc, compared, groups_of, thresholds
from ...node.learner.messages import Engagement, Open, PredictScores, Train
from ...node.privacy.accountant import calibrate
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.equity import Equity
from .equity_sources import Source, of_chem97, of_egsingle, of_oulad
from .federate import Learner, Setting, States, train
from .studies import DELTA, Institutions
from .workers import LearnerWorker, share

TRAINED, RELEASED, ROUNDS = 3.0, 1.0, 10
RELEASES = 20  # noised releases of the same counts, by which the error is judged
Floats = npt.NDArray[np.float64]


def measure(
    oulad: Institutions, data: Path, crew: Sequence[LearnerWorker], seeds: Sequence[int], quick: bool = False
) -> dict[str, Any]:
    """Return the measurements, fit for JSON: a row by source and attributes, over all seeds."""
    with tempfile.TemporaryDirectory(prefix="collegium-equity-") as folder:
        sources = [*of_oulad(oulad), *of_chem97(data, Path(folder)), *of_egsingle(data, Path(folder))]
        jobs = [partial(_of_source, source=source, seeds=seeds, rounds=2 if quick else ROUNDS) for source in sources]
        rows = share(crew, jobs, lambda: None)
    return {
        "title": f"Gaps from releases at ε = {RELEASED:g} against the true ones",
        "metric": f"at-risk students missed, others falsely flagged; trained at ε = {TRAINED:g}",
        "unit": "student",
        "rows": rows,
        "goals": [goal for row in rows for goal in _goals(row)],
    }


def _goals(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the goals of one row: a gap's error, and the largest gap halved at a cost in accuracy of at most .005."""
    study, goals = f"equity, {row['mode']}", []
    goals.append({"study": study, "goal": "gap-error:.01", "value": row["error"], "met": row["error"] <= 0.01})
    for each in row["remedies"]:
        left = abs(each["after"]["gap"]) / max(1e-9, abs(each["before"]["gap"]))
        met = left <= 0.5 and each["before"]["accuracy"] - each["after"]["accuracy"] <= 0.005
        goals.append({"study": study, "goal": "gap-halved:.005", "value": left, "met": met})
    return goals


def _of_source(worker: LearnerWorker, *, source: Source, seeds: Sequence[int], rounds: int) -> dict[str, Any]:
    found = [_of_seed(worker, source, seed, rounds) for seed in seeds]
    flat = [item for each in found for item in each["gaps"]]
    if not flat:
        raise UsageError(f"{source.name}: no institution has {LEAST:g} held-out students in two groups")
    after = [each["remedy"] for each in found if each["remedy"] is not None]
    return {
        "mode": f"{source.name}: {', '.join(attribute.name for attribute in source.attributes)}",
        "institutions": len(source.institutions),
        "held_out": median(each["held_out"] for each in found),
        "auc": mean(each["auc"] for each in found),
        "error": sqrt(mean(item["square"] for item in flat)),
        "within": mean(item["within"] for item in flat),
        "error_after_withdrawal": sqrt(mean(item["square_without"] for item in flat)),
        "auc_error": sqrt(mean(each["auc_square"] for each in found)),
        "gaps": [
            {
                "row": key,
                "true": mean(item["true"] for item in flat if item["row"] == key),
                "error": sqrt(mean(item["square"] for item in flat if item["row"] == key)),
                "covered": mean(item["covered"] for item in flat if item["row"] == key),
            }
            for key in dict.fromkeys(item["row"] for item in flat)
        ],
        "remedies": after,
    }


def _of_seed(worker: LearnerWorker, source: Source, seed: int, rounds: int) -> dict[str, Any]:
    equity = Equity(source.attributes, (source.decision,), 1, round(RELEASED * 1000), round(DELTA * 1e9))
    base = sha256(f"seed {seed}".encode()).digest()
    sizes: list[int] = []
    recipe = source.recipe(500.0, equity)
    for again in (True, False):
        specs, learning = charter_parts(recipe, Budget(TRAINED, DELTA, rounds, 0), min_updates=1, base_seed=base)
        names = tuple(spec.name for spec in specs)
        learners, sizes = [], []
        for name, folders in source.institutions.items():
            number = int.from_bytes(sha256(f"{source.name} {name} {seed}".encode()).digest()[:7])
            asked = Open(tuple(map(str, folders)), specs, learning, base, names, seed=number, session=f"equity {name}")
            answer = worker.ask(asked)
            sizes.append(answer.subjects)
            modules = tuple(spec.name for spec in specs if not spec.is_statistic)
            learners.append(Learner(name, asked.session, modules, float(max(1, round(0.1 * answer.subjects)))))
        if again:
            recipe = source.recipe(median(sizes), equity)
    least = 0.1 * median(sizes)
    learners = [replace(learner, lot=max(learner.lot, least)) for learner in learners]
    modules_of = {spec.name: spec for spec in specs if not spec.is_statistic}
    states, _ = train(lambda _learner: worker.ask, learners, Setting(modules_of, learning, rounds))
    spec = next(spec for spec in specs if spec.is_statistic)
    return _judged(worker, source, equity, spec, learners, states, seed)


def _judged(
    worker: LearnerWorker,
    source: Source,
    equity: Equity,
    spec: ComponentSpec,
    learners: Sequence[Learner],
    states: States,
    seed: int,
) -> dict[str, Any]:
    packed = {name: state.tobytes() for name, state in states.items()}
    sigma = calibrate(RELEASED, DELTA, 1.0, 1)
    exact = []
    for learner in learners:
        rule = Engagement.of(spec.clip_norm, 0, MILLION)
        answer = worker.ask(Train(packed, {spec.name: rule}, 1, 1.0, 1e6, session=learner.session))
        exact.append(np.frombuffer(answer.updates[spec.name], dtype=spec.integer_type).astype(np.int64))
    truth = [groups_of(spec, source.decision, values, 0.0) for values in exact]
    random = np.random.default_rng(seed)
    scale = sigma / MILLION * spec.clip_norm / MILLION / spec.grid_step
    items: list[dict[str, Any]] = []
    areas: list[float] = []
    first: list[Groups] = []
    for number in range(RELEASES):
        noised = [values + np.rint(random.normal(0.0, scale, values.shape)).astype(np.int64) for values in exact]
        seen = [groups_of(spec, source.decision, values, (sigma / MILLION) ** 2) for values in noised]
        first = first or seen
        whole, whole_true = added(seen), added(truth)
        for row, (attribute, level) in enumerate(equity.rows):
            pair = auc(whole, row), auc(whole_true, row)
            if pair[0] is not None and pair[1] is not None:
                areas.append((pair[0] - pair[1]) ** 2)
            for error in ERRORS:
                real, estimate = (compared(each, equity, row, source.decision, error)[0] for each in (truth, seen))
                rest = [compared(each[1:], equity, row, source.decision, error)[0] for each in (truth, seen)]
                if real is None or estimate is None:
                    continue
                off = estimate.value - real.value
                without = off if rest[0] is None or rest[1] is None else rest[1].value - rest[0].value
                items.append(
                    {
                        "row": f"{attribute} {level}, {error}",
                        "true": real.value,
                        "square": off**2,
                        "square_without": without**2,
                        "within": abs(off) <= 0.01,
                        "covered": abs(off) <= 1.96 * estimate.noise,
                        "number": number,
                    }
                )
    scored = _scored(worker, source, learners, packed)
    return {
        "gaps": items,
        "auc": float(np.mean([_auc(chance, label) for chance, label, _ in scored])),
        "auc_square": float(np.mean(areas)) if areas else 0.0,
        "held_out": sum(len(label) for _, label, _ in scored),
        "remedy": _remedy(source, equity, first, scored),
    }


Scored = tuple[Floats, Floats, Mapping[str, npt.NDArray[np.str_]]]


def _scored(
    worker: LearnerWorker, source: Source, learners: Sequence[Learner], packed: Mapping[str, bytes]
) -> list[Scored]:
    """Return for each institution the probabilities, labels and levels of its held-out records."""
    found: list[Scored] = []
    for learner in learners:
        scores = worker.ask(PredictScores(dict(packed), session=learner.session)).tasks[source.task.name]
        (folder,) = source.institutions[learner.name]
        table = pyarrow.parquet.read_table(folder / f"{source.table}.parquet")
        subjects = [str(value) for value in table[source.subject].to_pylist()]
        levels = {}
        for attribute in source.attributes:
            of = dict(zip(subjects, map(str, table[attribute.name].to_pylist()), strict=True))
            levels[attribute.name] = np.array([of[subject] for subject in scores.subjects])
        chance = np.array([row[1] for row in scores.scores])
        found.append((chance, np.array([row[0] for row in scores.labels]), levels))
    return found


def _remedy(source: Source, equity: Equity, seen: Sequence[Groups], scored: Sequence[Scored]) -> dict[str, Any] | None:
    """Return the largest gap in missed students that is outside noise, before and after thresholds of groups.

    The thresholds are of the noised sums; what they do is counted on the held-out students, within institutions.
    """
    decision = source.decision
    outside = []
    for row, (attribute, level) in enumerate(equity.rows):
        estimate, _ = compared(seen, equity, row, decision, "missed")
        if estimate is not None and abs(estimate.value) > 1.96 * estimate.noise:
            outside.append((abs(estimate.value), attribute, level))
    if not outside:
        return None
    _, attribute, level = max(outside)
    chosen = thresholds(added(seen), equity, decision, attribute)
    common = dict.fromkeys(chosen, decision.threshold / MILLION)
    before, after = (_decided(source, scored, attribute, level, limits) for limits in (common, chosen))
    return {"group": f"{attribute} {level}", "before": before, "after": after, "thresholds": dict(chosen)}


def _decided(
    source: Source, scored: Sequence[Scored], attribute: str, level: str, limits: Mapping[str, float]
) -> dict[str, float]:
    right, students = 0.0, 0
    missed: list[tuple[npt.NDArray[np.bool_], ...]] = []
    for chance, label, levels in scored:
        group = levels[attribute]
        limit = np.array([limits.get(each, 0.5) for each in group])
        flagged = chance < limit if source.decision.flagged == "below" else chance >= limit
        at_risk = label == source.decision.at_risk
        right += float((flagged == at_risk).sum())
        students += len(label)
        own, rest = at_risk & (group == level), at_risk & (group != level)
        missed.append((flagged[own], flagged[rest]))
    enough = [pair for pair in missed if min(map(len, pair)) >= FEW]
    pairs = enough or [tuple(np.concatenate(side) for side in zip(*missed, strict=True))]
    gaps = [float(rest.mean() - own.mean()) for own, rest in pairs]
    weights = [len(own) * len(rest) / (len(own) + len(rest)) for own, rest in pairs]
    return {"gap": float(np.average(gaps, weights=weights)), "accuracy": right / students}


def _auc(chance: Floats, label: Floats) -> float:
    from ...node.metrics import area_under_curve  # noqa: PLC0415

    value = area_under_curve(chance, label)
    return 0.5 if value is None else value


def table(results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    shown = Table(title=f"{results['title']}\n{results['metric']}; privacy of each {results['unit']}")
    shown.add_column("source: released together")
    figures = ("houses", "held out", "AUC", "error of a gap", "within ±.01", "without one house", "error of AUC")
    for column in (*figures, "gap by thresholds", "accuracy"):
        shown.add_column(column, justify="right")
    for row in results["rows"]:
        after = row["remedies"]
        gaps = [mean(abs(each[side]["gap"]) for each in after) for side in ("before", "after")] if after else []
        right = [mean(each[side]["accuracy"] for each in after) for side in ("before", "after")] if after else []
        shown.add_row(
            row["mode"],
            str(row["institutions"]),
            f"{row['held_out']:,.0f}",
            f"{row['auc']:.3f}",
            f"{row['error']:.3f}",
            f"{row['within']:.0%}",
            f"{row['error_after_withdrawal']:.3f}",
            f"{row['auc_error']:.3f}",
            f"{gaps[0]:.3f} → {gaps[1]:.3f}" if gaps else "none outside noise",
            f"{right[0]:.3f} → {right[1]:.3f}" if right else "–",
        )
    return shown
