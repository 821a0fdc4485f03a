"""Do explanations name what matters? Deletion curves of trained federations (node/learner/audit/deletion.py).

Digits with an image encoder and OULAD with two encoders, trained together by their presets' recipes; then each
institution deletes the features of its own held-out records.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from ...node.blueprint.presets import RECIPES
from ...node.blueprint.recipe import Budget, charter_parts
from ...node.learner.answers import DeletionCurves
from ...node.learner.client import AUDITING, Worker, process
from ...node.learner.messages import DeleteFeatures
from ...protocol.components import MILLION
from .datasets import prepare_digits
from .federate import Learner, Setting, opening, train
from .studies import DELTA, Institutions

ROUNDS, RECORDS, ORDERS = 8, 25, 10  # records of each institution
SCHOOLS, ALPHA = 4, 0.3  # of the digits, as in the demo
GOAL = 0.2


def measure(oulad: Institutions, seeds: Sequence[int], epsilons: Sequence[float | None], quick: bool) -> dict[str, Any]:
    """Return the measurements, fit for JSON: rows by source and ε, with the gain over random orders."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="collegium-explained-") as folder, process(AUDITING) as worker:
        digits: Institutions = {path.name: (path,) for path in prepare_digits(Path(folder), SCHOOLS, ALPHA, seed=0)}
        for source, found in (("digits", digits), ("oulad", oulad)):
            for epsilon in epsilons:
                curves = [_curves(worker, source, found, epsilon, seed, quick) for seed in seeds]
                rows.append(_row(source, epsilon, curves))
    goals = [
        {
            "study": "explain",
            "goal": f"{row['source']}, ε = {'∞' if row['epsilon'] is None else row['epsilon']}: over random ≥ {GOAL}",
            "value": row["gain"],
            "met": row["gain"] >= GOAL,
        }
        for row in rows
    ]
    return {"title": "Deletion curves: what the result's probability loses", "rows": rows, "goals": goals}


def _curves(
    worker: Worker, source: str, institutions: Institutions, epsilon: float | None, seed: int, quick: bool
) -> list[DeletionCurves]:
    recipe = replace(RECIPES[source], students=RECIPES[source].students / len(institutions))
    base, rounds = sha256(f"explained {seed}".encode()).digest(), 2 if quick else ROUNDS
    budget = None if epsilon is None else Budget(epsilon, DELTA, rounds, 0)
    specs, learning = charter_parts(recipe, budget, min_updates=1, base_seed=base)
    hosted = tuple(spec.name for spec in specs)
    learners = []
    for name, folders in institutions.items():
        learner = Learner(name, f"{source} {name}", hosted, 1.0)
        request = opening(learner, [str(folder) for folder in folders], specs, learning, base)
        number = int.from_bytes(sha256(f"{source} {name} {seed}".encode()).digest()[:7])
        opened = worker.ask(replace(request, seed=number))
        learners.append(replace(learner, lot=max(1.0, round(learning.sample_rate / MILLION * opened.subjects))))
    setting = Setting({spec.name: spec for spec in specs}, learning, rounds)
    states, _ = train(lambda _learner: worker.ask, learners, setting)
    packed = {name: state.tobytes() for name, state in states.items()}
    (task,) = recipe.tasks
    records = 5 if quick else RECORDS
    return [
        worker.ask(DeleteFeatures(packed, task.name, records, ORDERS, seed, learner.session)) for learner in learners
    ]


def _row(source: str, epsilon: float | None, seeds: Sequence[Sequence[DeletionCurves]]) -> dict[str, Any]:
    """Return a row: means over seeds and institutions, and the gain of the effects' order over a random one."""
    every = [curve for curves in seeds for curve in curves]
    effect, random = mean(one.by_effect for one in every), mean(one.at_random for one in every)
    gains = [mean(c.by_effect for c in curves) / mean(c.at_random for c in curves) - 1.0 for curves in seeds]
    return {
        "source": source,
        "epsilon": epsilon,
        "by_effect": effect,
        "at_random": random,
        "best_random": mean(one.best for one in every),
        "gain": effect / random - 1.0,
        "gains": gains,
        "records": sum(one.records for one in every),
        "features": mean(one.features for one in every),
        "institutions": [asdict(one) for one in every],
    }


def table(results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    shown = Table(title=results["title"])
    columns = ("data", "ε", "records", "features", "by effect", "at random", "best random order", "gain", "by seed")
    for column in columns:
        shown.add_column(column, justify="left" if column == "data" else "right")
    for row in results["rows"]:
        shown.add_row(
            row["source"],
            "∞" if row["epsilon"] is None else f"{row['epsilon']:g}",
            str(row["records"]),
            f"{row['features']:.0f}",
            f"{row['by_effect']:.3f}",
            f"{row['at_random']:.3f}",
            f"{row['best_random']:.3f}",
            f"{row['gain']:+.0%}",
            " ".join(f"{gain:+.0%}" for gain in row["gains"]),
        )
    return shown
