"""Institutions that come one after another and go: what the model forgets of the first ones, and what remembers them.

In each order of OULAD's modules one module trains alone for its rounds, from the state that the ones before it left.
Its figure right after its tenure less that at the end of all is what was forgotten of it; F is the mean over all but
the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from statistics import fmean, median
from typing import Any

import numpy as np
from rich.table import Table

from ...consensus.components import mean_state, origin
from ...node.blueprint.parts import statistic
from ...node.blueprint.recipe import Budget, charter_parts
from ...node.learner.messages import Open, Split
from ...protocol.components import state_digest
from ...protocol.statistics import words
from . import sums
from .federate import Learner, Setting, States, evaluate, train
from .runs import Drawn, Ground, Run, learner_of, students_of
from .studies import ASSESSMENTS, DELTA, DEMOGRAPHICS, PASS, study
from .workers import LearnerWorker, share

RATES = (0.5, 1.0, 2.0, 4.0)  # each remedy has the one that is best on the validation students, at each ε
EPSILONS: tuple[float | None, ...] = (None, 3.0)
MAX_FORGOTTEN, LEAST_FINAL = 0.007, 0.774  # the goals of tenure-mean at ε = 3
SEQUENCE, MEMORY, SUM = "in sequence", "tenure-mean", "ridge sum"

Figures = dict[str, float]


def orders(names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the orders in which modules come."""
    return {
        "AAA → GGG": sorted(names),
        "GGG → AAA": sorted(names, reverse=True),
        "large first": sorted(names, key=lambda name: -sizes[name]),
    }


def measure(ground: Ground, crew: Sequence[LearnerWorker], seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    """Return the measurements, fit for JSON: rows by order, ε and remedy."""
    rounds = 2 if quick else study("oulad").rounds
    names = sorted(ground.institutions)
    first = Run("local", None, 1.0, 0, private=False)
    sizes = {
        name: students_of(crew[0], ground, name, folders, first, study("oulad").recipe, bytes(32))
        for name, folders in ground.institutions.items()
    }
    chosen = dict(list(orders(names, sizes).items())[: 1 if quick else None])
    run = partial(_sequence, ground=ground, rounds=rounds, typical=sizes)

    def all_of(kinds: Sequence[tuple[float, float | None, str, int]], *, tune: bool) -> list[dict[str, dict[str, Any]]]:
        return share(crew, [partial(run, rate=rate, epsilon=epsilon, order=chosen[title], seed=seed, tune=tune)
                            for rate, epsilon, title, seed in kinds])  # fmt: skip

    rates: dict[tuple[str, float | None], float] = {}
    for epsilon in EPSILONS:
        tried = [(rate, epsilon, title, 0) for rate in (RATES[:1] if quick else RATES) for title in chosen]
        scores = list(zip((rate for rate, *_ in tried), all_of(tried, tune=True), strict=True))
        for mode in (SEQUENCE, MEMORY):
            by_rate: dict[float, list[float]] = {}
            for rate, found in scores:
                by_rate.setdefault(rate, []).append(fmean(found[mode]["final"].values()))
            rates[mode, epsilon] = max(by_rate, key=lambda rate: fmean(by_rate[rate]))
    wanted = list(dict.fromkeys((rate, epsilon, title, seed) for (_, epsilon), rate in rates.items()
                                for title in chosen for seed in seeds))  # fmt: skip
    trained = dict(zip(wanted, all_of(wanted, tune=False), strict=True))
    kinds = [(title, order, epsilon) for title, order in chosen.items() for epsilon in EPSILONS]
    every = list(dict.fromkeys(tuple(order) for _, order, _ in kinds))
    summed = dict(
        zip(
            EPSILONS,
            share(crew, [partial(_sums, ground=ground, orders_=every, epsilon=e, seeds=seeds) for e in EPSILONS]),
            strict=True,
        )
    )
    rows: list[dict[str, Any]] = []
    for title, order, epsilon in kinds:
        for mode in (SEQUENCE, MEMORY, SUM):
            own_rate = rates.get((mode, epsilon))
            own = [
                summed[epsilon][place][tuple(order)]
                if own_rate is None
                else trained[own_rate, epsilon, title, seed][mode]
                for place, seed in enumerate(seeds)
            ]
            rows.append(
                {
                    "order": title,
                    "mode": mode,
                    "epsilon": epsilon,
                    "rate": own_rate,
                    "values": [fmean(each["final"].values()) for each in own],
                    "forgotten": [each["forgotten"] for each in own],
                    "digests": sorted({each["digest"] for each in own}),
                }
            )
    return {
        "title": f"OULAD, one module after another, {rounds} rounds each",
        "metric": "auc",
        "unit": "student",
        "rows": rows,
        "goals": _goals(rows),
    }


def _goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    goals = []
    for row in rows:
        if row["mode"] == MEMORY and row["epsilon"] is not None:
            where = f"{row['order']}, ε = {row['epsilon']:g}, {MEMORY}"
            lost, final = fmean(row["forgotten"]), fmean(row["values"])
            goals += [(f"{where}: F ≤ {MAX_FORGOTTEN}", lost, lost <= MAX_FORGOTTEN),
                      (f"{where}: at the end ≥ {LEAST_FINAL}", final, final >= LEAST_FINAL)]  # fmt: skip
    for epsilon in EPSILONS:
        digests = {tuple(row["digests"]) for row in rows if row["mode"] == SUM and row["epsilon"] == epsilon}
        goals.append((f"ridge sums at ε = {epsilon or '∞'}: digests over all orders", len(digests), len(digests) == 1))
    return [{"study": "continual", "goal": goal, "value": value, "met": met} for goal, value, met in goals]


def _sequence(
    worker: LearnerWorker,
    *,
    ground: Ground,
    order: Sequence[str],
    epsilon: float | None,
    rate: float,
    seed: int,
    tune: bool,
    rounds: int,
    typical: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """Train one module after another; return for each remedy F, the figures at the end, and the last state's digest."""
    base, drawn_seed = study("oulad"), sha256(f"seed {seed}".encode()).digest()
    recipe = base.recipe(rate, median(typical.values()))
    budget = None if epsilon is None else Budget(epsilon, DELTA, rounds, 0)
    specs, learning = charter_parts(recipe, budget, min_updates=1, base_seed=drawn_seed)
    drawn, run = Drawn(specs, learning, drawn_seed), Run("local", epsilon, rate, seed, tune, private=False)
    least = base.least_lot * median(typical.values())
    learners = {name: learner_of(worker, ground, name, ground.institutions[name], run, drawn, least) for name in order}
    setting = Setting({spec.name: spec for spec in specs}, learning, rounds)
    state = {spec.name: origin(spec) for spec in specs}
    ends: list[States] = []
    passed: dict[str, list[tuple[str, Figures]]] = {SEQUENCE: [], MEMORY: []}
    for name in order:
        _, state = train(lambda _learner: worker.ask, [learners[name]], setting, start=state)
        ends.append(state)
        memory = {part: mean_state([each[part] for each in ends]) for part in state}
        for mode, used in ((SEQUENCE, state), (MEMORY, memory)):
            split: Split = "validation" if tune else "held_out"
            known = order[: len(ends)]
            passed[mode].append((name, {each: _auc(worker, learners[each], used, split) for each in known}))
    return {SEQUENCE: _judged(passed[SEQUENCE], state), MEMORY: _judged(passed[MEMORY], memory)}


def _auc(worker: LearnerWorker, learner: Learner, states: States, split: Split) -> float:
    return float(evaluate(worker.ask, learner, states, split)[PASS.name]["value"])


def _judged(after: Sequence[tuple[str, Figures]], states: States) -> dict[str, Any]:
    final = after[-1][1]
    lost = [figures[name] - final[name] for name, figures in after[:-1]]
    digest = sha256(b"".join(state_digest(name, states[name]) for name in sorted(states))).hexdigest()
    return {"final": final, "forgotten": fmean(lost) if lost else 0.0, "digest": digest}


def _sums(
    worker: LearnerWorker,
    *,
    ground: Ground,
    orders_: Sequence[tuple[str, ...]],
    epsilon: float | None,
    seeds: Sequence[int],
) -> list[dict[tuple[str, ...], dict[str, Any]]]:
    """Return for each seed and order what sums of releases remember; one release a module, whatever the order."""
    recipe = study("oulad").recipe(1.0, 1000.0)
    recipe = replace(recipe, parts=(*recipe.parts, statistic(PASS, (ASSESSMENTS, DEMOGRAPHICS))))
    drawn_seed = sha256(b"continual").digest()
    specs, learning = charter_parts(recipe, None, min_updates=1, base_seed=drawn_seed)
    spec = next(spec for spec in specs if spec.is_statistic)
    request = Open((), tuple(specs), learning, drawn_seed, tuple(spec.name for spec in specs))
    found = []
    for seed in seeds:
        sessions = {
            name: sums.open_sum(worker, f"continual {name} {epsilon}", folders, request, seed)
            for name, folders in ground.institutions.items()
        }
        releases = {
            name: sums.release(worker, session, spec, epsilon, students)[0]
            for name, (session, students) in sessions.items()
        }
        by_order = {}
        for order in orders_:
            total = np.zeros(spec.dimension, dtype=np.int64)
            after: list[tuple[str, Figures]] = []
            for place, name in enumerate(order):
                total = total + releases[name]
                known = order[: place + 1]
                figures = {each: sums.value_of(worker, sessions[each][0], spec, total) for each in known}
                after.append((name, figures))
            by_order[order] = _judged(after, {spec.name: words(total)})
        found.append(by_order)
    return found


def table(results: Mapping[str, Any]) -> Table:
    """Return a row for each order and ε: the mean figure at the end and F of each remedy."""
    shown = Table(title=f"{results['title']}\nmean {results['metric']} at the end on held-out data, and F")
    for column in ("order", "ε", SEQUENCE, MEMORY, SUM):
        shown.add_column(column, justify="left" if column == "order" else "right")
    for order, epsilon in dict.fromkeys((row["order"], row["epsilon"]) for row in results["rows"]):
        own = {row["mode"]: row for row in results["rows"] if (row["order"], row["epsilon"]) == (order, epsilon)}
        cells = (f"{fmean(own[mode]['values']):.3f}, {fmean(own[mode]['forgotten']):.3f}" for mode in own)
        shown.add_row(order, "∞" if epsilon is None else f"{epsilon:g}", *cells)
    return shown
