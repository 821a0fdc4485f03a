"""Heads that are sums (protocol/statistics.py): alone, together and without noise, in one release each.

Each row spends the whole ε in its one release; the trained heads beside which it is to be read (`--only oulad`, the
demo) spend it in their rounds. A statistic has no learning rate, so nothing is tuned.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from rich.table import Table

from ...node.blueprint import parts
from ...node.blueprint.presets import RECIPES
from ...node.blueprint.recipe import Recipe, charter_parts
from ...node.learner.messages import Engagement, Evaluate, Open, Train
from ...node.privacy.accountant import calibrate
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.statistics import words
from .datasets import prepare_digits
from .studies import DELTA, EPSILONS, Institutions
from .workers import LearnerWorker, share

ARCHITECTURES = ("ridge", "prototypes")
SCHOOLS, ALPHA = 4, 0.3  # of the digits, as in the demo


def measure(
    oulad: Institutions,
    crew: Sequence[LearnerWorker],
    seeds: Sequence[int],
    epsilons: Sequence[float | None] = EPSILONS,
) -> dict[str, Any]:
    """Return the measurements, fit for JSON: rows by source, architecture, mode and ε."""
    with tempfile.TemporaryDirectory(prefix="collegium-sums-") as folder:
        made = prepare_digits(Path(folder), SCHOOLS, ALPHA, seed=0)
        digits: Institutions = {path.name: (path,) for path in made}
        sources = {"oulad": oulad, "digits": digits}
        jobs = [
            partial(_rows, source=source, institutions=found, architecture=architecture, seeds=seeds, epsilons=epsilons)
            for source, found in sources.items()
            for architecture in ARCHITECTURES
        ]
        rows = [row for found in share(crew, jobs, lambda: None) for row in found]
    return {
        "title": "Heads that are sums, released once at the whole ε",
        "metric": "mean over institutions of AUC (oulad), accuracy (digits)",
        "unit": "student (digits: image)",
        "rows": rows,
        "goals": [],
    }


def _rows(
    worker: LearnerWorker,
    *,
    source: str,
    institutions: Institutions,
    architecture: str,
    seeds: Sequence[int],
    epsilons: Sequence[float | None],
) -> list[dict[str, Any]]:
    recipe: Recipe = RECIPES[source]
    recipe = replace(recipe, students=recipe.students / len(institutions))
    part = parts.statistic(recipe.tasks[0], recipe.modalities, architecture)
    return released(worker, source, institutions, recipe, part, seeds, epsilons)


def released(
    worker: LearnerWorker,
    source: str,
    institutions: Institutions,
    recipe: Recipe,
    part: parts.Part,
    seeds: Sequence[int],
    epsilons: Sequence[float | None],
    cache: Path | None = None,
    models: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of a statistic beside a recipe's parts: federated and alone, at each ε."""
    recipe = replace(recipe, parts=(*recipe.parts, part))
    seed = sha256(f"sums {source}".encode()).digest()
    specs, learning = charter_parts(recipe, None, min_updates=1, base_seed=seed)
    spec = next(spec for spec in specs if spec.is_statistic)
    opening = Open(
        data=(),
        components=tuple(specs),
        learning=learning,
        base_seed=seed,
        hosted=tuple(spec.name for spec in specs),
        cache=str(cache) if cache is not None else None,
        models=dict(models or {}),
    )
    values: dict[tuple[str, float | None], list[dict[str, float]]] = {}
    seconds: list[float] = []
    for number in seeds:
        noisy = [epsilon for epsilon in epsilons if epsilon is not None or number == seeds[0]]
        if not noisy:
            break  # without noise all seeds are alike
        sessions = {
            name: open_sum(worker, f"{source} {name} {part.architecture}", folders, opening, number)
            for name, folders in institutions.items()
        }
        for epsilon in noisy:
            releases = {}
            for name, (session, students) in sessions.items():
                update, took = release(worker, session, spec, epsilon, students)
                releases[name] = update
                seconds.append(took)
            whole = np.sum(list(releases.values()), axis=0)
            together = {name: value_of(worker, session, spec, whole) for name, (session, _) in sessions.items()}
            alone = {name: value_of(worker, sessions[name][0], spec, releases[name]) for name in releases}
            values.setdefault(("federated", epsilon), []).append(together)
            values.setdefault(("alone", epsilon), []).append(alone)
    return [
        {
            "mode": f"{source}, {part.architecture}: {mode}",
            "epsilon": epsilon,
            "values": [mean(found.values()) for found in each],
            "institutions": {name: mean(found[name] for found in each) for name in each[0]},
            "parameters": spec.dimension,
            "release_seconds": round(median(seconds), 3),
        }
        for (mode, epsilon), each in values.items()
    ]


def open_sum(
    worker: LearnerWorker, session: str, folders: Sequence[Path], opening: Open, seed: int
) -> tuple[str, float]:
    """Open a session whose noise is a function of `seed`; return its name and how many students it has."""
    number = int.from_bytes(sha256(f"{session} {seed}".encode()).digest()[:7])
    answer = worker.ask(replace(opening, data=tuple(str(folder) for folder in folders), seed=number, session=session))
    return session, float(answer.subjects)


def release(
    worker: LearnerWorker, session: str, spec: ComponentSpec, epsilon: float | None, students: float
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
    """Return one noised release of a statistic, [d], and the seconds that it took."""
    noise = 0 if epsilon is None else calibrate(epsilon, DELTA, 1.0, 1)
    rule = Engagement.of(spec.clip_norm, noise, MILLION)
    answer = worker.ask(Train({}, {spec.name: rule}, steps=1, sample_rate=1.0, lot=students, session=session))
    return np.frombuffer(answer.updates[spec.name], dtype=spec.integer_type).astype(np.int64), answer.seconds


def value_of(
    worker: LearnerWorker, session: str, spec: ComponentSpec, total: np.ndarray[Any, np.dtype[np.int64]]
) -> float:
    """Return the metric of the head that is solved from a sum, on a session's held-out students."""
    states = {spec.name: words(total).tobytes()}
    value = worker.ask(Evaluate(states, session=session)).statistics[spec.name].value
    return math.nan if value is None else value


def table(results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    shown = Table(title=f"{results['title']}\n{results['metric']} on held-out data; privacy of each {results['unit']}")
    for column in ("head", "ε", "mean", "least and greatest of seeds", "numbers", "seconds of a release"):
        shown.add_column(column, justify="left" if column == "head" else "right")
    for row in results["rows"]:
        values = row["values"]
        shown.add_row(
            row["mode"],
            "∞" if row["epsilon"] is None else f"{row['epsilon']:g}",
            f"{mean(values):.3f}",
            f"{min(values):.3f} {max(values):.3f}",
            f"{row['parameters']:,}",
            f"{row['release_seconds']:.2f}",
        )
    return shown
