"""Shards: what a student's erasure takes, against ε and quality.

With k shards a student is in one of k training runs. Two ways to choose the rest are compared at one ε: the same lot
(k times the sample rate, within a shard), and the same sample rate (a lot of 1/k, and less noise).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

from rich.table import Table

from ...node.blueprint.recipe import Budget, Recipe, charter_parts
from ...protocol.claims import effective_noise
from ...protocol.components import MILLION
from .runs import Ground, Run, perform
from .studies import DELTA, EPSILONS, Study
from .workers import LearnerWorker, share

SHARDS = (1, 4, 8)
ROUNDS = 24  # every shard has as many
RATES = (1.0, 2.0, 4.0)


def measure(
    study: Study,
    ground: Ground,
    crew: Sequence[LearnerWorker],
    seeds: Sequence[int],
    epsilons: Sequence[float | None] = EPSILONS,
) -> dict[str, Any]:
    """Return the measurements, fit for JSON: a row for each number of shards, way and ε; rates by validation."""
    kinds = [(shards, way, epsilon) for shards in SHARDS for way in _ways(shards) for epsilon in epsilons]
    tuned = share(crew, [partial(_validated, ground=ground, study=study, kind=kind) for kind in kinds], lambda: None)
    jobs = [
        partial(_value, ground=ground, study=study, kind=kind, run=Run("federated", kind[2], rate, seed))
        for kind, rate in zip(kinds, tuned, strict=True)
        for seed in seeds
    ]
    values = share(crew, jobs, lambda: None)
    rows = []
    for place, (kind, rate) in enumerate(zip(kinds, tuned, strict=True)):
        own = values[place * len(seeds) : (place + 1) * len(seeds)]
        shards, way, epsilon = kind
        recipe = _recipe(study, kind, rate, 500.0)
        budget = None if epsilon is None else Budget(epsilon, DELTA, ROUNDS, 0)
        specs, learning = charter_parts(recipe, budget, min_updates=1)
        q = learning.sample_rate / MILLION
        rows.append(
            {
                "shards": shards,
                "way": way,
                "epsilon": epsilon,
                "rate": rate,
                "value": mean(own),
                "values": own,
                "sample_rate": q,
                "noise": effective_noise([spec.noise_multiplier for spec in specs]) / MILLION,
                "updates_that_saw_a_student": (1 - (1 - q) ** learning.steps) / shards,
            }
        )
    return {
        "title": f"Shards of the students: {ROUNDS} rounds of {study.name}",
        "metric": f"{study.metric}, mean over institutions",
        "unit": study.unit,
        "rows": rows,
        "goals": [],
    }


def table(results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    shown = Table(title=f"{results['title']} ({results['metric']})")
    for column in ("ε", "shards", "q in a shard", "noise σ", "updates that saw a student", "value"):
        shown.add_column(column, justify="right")
    for row in sorted(results["rows"], key=lambda row: (-(row["epsilon"] or 99), row["shards"], row["way"])):
        shown.add_row(
            "∞" if row["epsilon"] is None else f"{row['epsilon']:g}",
            str(row["shards"]),
            f"{row['sample_rate']:g}",
            f"{row['noise']:.3g}",
            f"{row['updates_that_saw_a_student']:.2f}",
            f"{row['value']:.3f}",
        )
    return shown


Kind = tuple[int, str, float | None]


def _ways(shards: int) -> tuple[str, ...]:
    return ("same lot",) if shards == 1 else ("same lot", "same sample rate")


def _recipe(study: Study, kind: Kind, rate: float, students: float) -> Recipe:
    shards, way, _ = kind
    recipe = study.recipe(rate, students)
    times = shards if way == "same lot" else 1
    return replace(recipe, shards=shards, sample_rate=min(MILLION, recipe.sample_rate * times))


def _value(worker: LearnerWorker, ground: Ground, study: Study, kind: Kind, run: Run) -> float:
    reports = perform(worker, run, ground, partial(_recipe, study, kind), ROUNDS, 0.0)
    return mean([float(tasks[study.task]["value"]) for tasks in reports.values()])


def _validated(worker: LearnerWorker, ground: Ground, study: Study, kind: Kind) -> float:
    """Return the rate that is best on the validation part, by another seed."""
    runs = [Run("federated", kind[2], rate, 1001, tune=True) for rate in RATES]
    return max(runs, key=lambda run: _value(worker, ground, study, kind, run)).rate
