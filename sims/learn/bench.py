"""`collegium bench learn`: alone, together and centrally at each ε, in one run, with a table, a plot and JSON."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...crypto.errors import UsageError
from ...node.blueprint.recipe import Recipe
from ...protocol.learning import RULES
from . import continual, equity, explained, honest, shards, sums, weights, writing
from .lies import LIES
from .plot import draw
from .rows import Goal, Reports, own_values, row
from .runs import MODES, Ground, Run, figure, perform, with_home_layer, with_last
from .studies import STUDIES, Institutions, Study, all_institutions, everything, study, work_folder
from .tables import TABLES, goals_table, table
from .workers import LearnerWorker, share, start_workers

NOT_DRAWN = (*TABLES, "attacks")  # a table says more than so many bars
OTHERS = ("m3t", *NOT_DRAWN)  # of several studies, or of OULAD
NAMES = (*STUDIES, *OTHERS, *writing.STUDIES)
LIARS = frozenset({"BBB", "FFF"})  # of the seven modules of OULAD; two of them are the third that design.md tolerates
ATTACKED = "clip+nnm+trimmed_mean"  # the rule that the goals of the attacks are of
ATTACKED_EPSILON = 8.0
AT_HOME, SUM = "federated + home layer", "sum: federated"
EXCLUSIVE = ("school-1", "school-2")  # no other institution has handwriting or speech
MAX_RATES_MORE = 3  # doublings or halvings beyond a study's own rates
TOLERANCE = 0.005  # of two figures on some hundred students that count as no worse


def data_folder() -> Path:
    """Return where the education data lie. Raises UsageError."""
    place = Path(os.environ.get("COLLEGIUM_DATA") or "../shared/data")
    if not place.is_dir():
        advice = "Set COLLEGIUM_DATA to the folder with oulad/, sra/ and the others."
        raise UsageError(f"there is no folder {place.absolute()}", advice)
    return place


def run(
    *,
    only: str | None = None,
    seeds: int = 3,
    epsilon: float | None = None,
    out: Path | None = None,
    as_json: bool = False,
    quick: bool = False,
    workers: int = 2,
) -> int:
    """Run the studies; print tables or JSON, write `learn.json` and plots into `out`. `epsilon` inf is without noise.

    `quick` trains two rounds with one rate: to see that it runs. Returns 0: missing a goal is no error.
    """
    if only is not None and only not in NAMES:
        raise UsageError(f"there is no study {only!r}", f"Choose one of {', '.join(NAMES)}.")
    data, console, started = data_folder(), Console(stderr=True), time.time()
    work = work_folder()
    chosen = NAMES if only is None else (only,)
    results: dict[str, Any] = {}
    with start_workers(workers) as crew:
        for name in chosen:
            before = time.time()
            if name in writing.STUDIES:
                only_at = None if epsilon is None else (None if epsilon == inf else epsilon,)
                found = writing.measure(name, data, work, crew, list(range(1, seeds + 1)), only_at, quick)
            else:
                found = _Bench(name, data, work, crew, seeds, epsilon, quick, console).measure()
            results[name] = found | {"seconds": round(time.time() - before, 1)}
            if not as_json:
                Console().print(table(name, results[name]))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / "learn.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
                if name not in NOT_DRAWN:
                    draw(name, results[name], out / f"{name}.png")
    goals = [goal for found in results.values() for goal in found["goals"]]
    if as_json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    else:
        Console().print(goals_table(goals))
        console.print(f"{time.time() - started:.0f} s", style="dim")
    return 0


class _Bench:
    """One study: choose rates on the validation part, then train and judge with every seed."""

    def __init__(
        self,
        name: str,
        data: Path,
        work: Path,
        crew: Sequence[LearnerWorker],
        seeds: int,
        epsilon: float | None,
        quick: bool,
        console: Console,
    ) -> None:
        self.name, self.data, self.work, self.crew, self.console, self.quick = name, data, work, crew, console, quick
        self.seeds = range(1, seeds + 1)
        base = study("oulad") if name in OTHERS else study(name)
        self.study: Study = base
        institutions: Institutions = (all_institutions if name == "m3t" else base.institutions)(data, work)
        folders = {model: str(folder) for model, folder in base.models().items()}
        self.ground = Ground(name, institutions, work / "embeddings.db", models=folders)
        self.rounds = 2 if quick else (20 if name == "m3t" else base.rounds)
        self.rates = base.rates[:1] if quick else base.rates
        self.epsilons = base.epsilons if epsilon is None else (None if epsilon == inf else epsilon,)
        if base.epsilons == (None,):
            self.epsilons = (None,)  # open data have no ε to choose

    def measure(self) -> dict[str, Any]:
        """Return the measurements, fit for JSON."""
        if self.name == "m3t":
            return self._m3t()
        if self.name == "weights":
            return weights.measure(self.ground.institutions, self.work, self.crew, list(self.seeds), self.quick)
        if self.name == "continual":
            return continual.measure(self.ground, self.crew, list(self.seeds), self.quick)
        if self.name == "attacks":
            return self._attacks()
        if self.name == "explain":
            return explained.measure(self.ground.institutions, list(self.seeds), self.epsilons, self.quick)
        if self.name == "sums":
            return sums.measure(self.ground.institutions, self.crew, list(self.seeds), self.epsilons)
        if self.name == "honest":
            return honest.measure(
                self.study, self.data, self.work, self.crew, list(self.seeds), self.epsilons, self.quick
            )
        if self.name == "shards":
            return shards.measure(self.study, self.ground, self.crew, list(self.seeds), self.epsilons)
        if self.name == "equity":
            return equity.measure(self.ground.institutions, self.data, self.crew, list(self.seeds), self.quick)
        if not self.rates:
            return self._found(self._sums())
        variants = [(mode, epsilon) for epsilon in self.epsilons for mode in MODES]
        rates = self._tuned([Run(mode, epsilon, 0.0, 0) for mode, epsilon in variants], self._value)
        runs = [
            Run(mode, epsilon, rates[index], seed)
            for index, (mode, epsilon) in enumerate(variants)
            for seed in self.seeds
        ]
        all_reports = self._perform(runs)
        rows: list[dict[str, Any]] = []
        for index, (mode, epsilon) in enumerate(variants):
            own = [
                reports
                for run, reports in zip(runs, all_reports, strict=True)
                if (run.mode, run.epsilon) == variants[index]
            ]
            rows.append(
                {
                    "mode": mode,
                    "epsilon": epsilon,
                    "rate": rates[index],
                    "values": [self._value(reports) for reports in own],
                    "last_state": mean(self._value(with_last(reports)) for reports in own),
                    "macro_f1": [self._value(reports, "macro_f1") for reports in own] if self._classes() else None,
                    "institutions": self._each(own),
                }
            )
            if mode == "federated":
                personal = [with_home_layer(reports) for reports in own]
                rows.append(
                    rows[-1]
                    | {
                        "mode": AT_HOME,
                        "last_state": None,
                        "values": [self._value(reports) for reports in personal],
                        "macro_f1": [self._value(r, "macro_f1") for r in personal] if self._classes() else None,
                        "institutions": self._each(personal),
                    }
                )
        return self._found(rows + self._sums())

    def _found(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"title": self.study.title, "metric": self.study.metric, "unit": self.study.unit, "rows": list(rows),
                "goals": [asdict(goal) for goal in self._goals(rows)]}  # fmt: skip

    def _sums(self) -> list[dict[str, Any]]:
        """Return the rows of the study's statistic, if it has one: each member releases once, at the whole ε."""
        if self.study.statistic is None:
            return []
        found = sums.released(
            self.crew[0], self.name, self.ground.institutions, self.study.recipe(1.0, 1000.0), self.study.statistic(),
            self.seeds, self.epsilons, self.ground.cache, self.ground.models,
        )  # fmt: skip
        nothing = {"rate": None, "last_state": None, "macro_f1": None}
        return [row | nothing | {"mode": f"sum: {row['mode'].rpartition(' ')[2]}"} for row in found]

    def _classes(self) -> bool:
        return self.study.metric == "accuracy"

    def _value(self, reports: Reports, metric: str | None = None) -> float:
        s = self.study
        return figure(reports, s.task, metric or s.metric, s.counted, pooled=s.pooled)

    def _each(self, all_reports: Sequence[Reports]) -> dict[str, float]:
        task, metric = self.study.task, self.study.metric
        names = [name for name in all_reports[0] if task in all_reports[0][name]]
        values = {name: [reports[name][task]["metrics"].get(metric) for reports in all_reports] for name in names}
        return {name: mean(v) for name, v in values.items() if all(value is not None for value in v)}

    def _tuned(self, kinds: Sequence[Run], value: Any) -> list[float]:
        """Return for each kind of run the rate that did best on the validation part, in the mean over as many seeds.

        Noise changes one run by about as much as neighbouring rates differ by: one seed would choose at random.
        """
        if len(self.rates) == 1:
            return [self.rates[0]] * len(kinds)
        # Others than those that are reported. The study of everything is a mean of twelve institutions already.
        seeds = [0] if self.name == "m3t" else [1 - seed for seed in self.seeds]
        scores: list[dict[float, float]] = [{} for _ in kinds]
        wanted = [(index, rate) for index in range(len(kinds)) for rate in self.rates]
        for _ in range(1 + MAX_RATES_MORE):
            runs = [replace(kinds[i], rate=rate, seed=seed, tune=True) for i, rate in wanted for seed in seeds]
            values = [value(reports) for reports in self._perform(runs, "choosing rates")]
            for place, (index, rate) in enumerate(wanted):
                scores[index][rate] = mean(values[place * len(seeds) : (place + 1) * len(seeds)])
            # While the best rate is the least or the greatest that was tried, the next one is tried too.
            best = [max(sorted(found), key=lambda rate: found[rate]) for found in scores]
            wanted = [
                (index, rate * 2 if rate == max(found) else rate / 2)
                for index, (rate, found) in enumerate(zip(best, scores, strict=True))
                if rate in (max(found), min(found))
            ]
            if not wanted:
                break
        return best

    def _compared(
        self, kinds: Mapping[str, Run], value: Callable[[Reports], float]
    ) -> list[tuple[str, float, list[Reports]]]:
        """Return each kind's name, its tuned rate, and its reports of all seeds."""
        rates = self._tuned(list(kinds.values()), value)
        pairs = zip(kinds.values(), rates, strict=True)
        reports = iter(
            self._perform([replace(kind, rate=rate, seed=seed) for kind, rate in pairs for seed in self.seeds])
        )
        return [(name, rate, list(islice(reports, len(self.seeds)))) for name, rate in zip(kinds, rates, strict=True)]

    def _recipe(self, rate: float, students: float) -> Recipe:
        return (everything if self.name == "m3t" else self.study.recipe)(rate, students)

    def _perform(self, runs: Sequence[Run], what: str = "training") -> list[dict[str, dict[str, Any]]]:
        least = 1.0 if self.name == "m3t" else self.study.least_lot
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # The first run opens the sessions: one worker embeds the texts, the other one finds them in the cache.
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(f"{self.name}: {what}", total=len(runs))

            def job(run: Run) -> Any:
                return lambda worker: perform(worker, run, self.ground, self._recipe, self.rounds, least)

            first = share(self.crew[:1], [job(runs[0])], lambda: progress.advance(task))
            return first + share(self.crew, [job(run) for run in runs[1:]], lambda: progress.advance(task))

    # ---- all of it at once

    def _m3t(self) -> dict[str, Any]:
        epsilon = self.epsilons[0] if len(self.epsilons) == 1 else 3.0
        self.rates = self.rates[:1] if self.quick else (1.0, 2.0)
        kinds = {
            "component-wise": Run("federated", epsilon, 0.0, 0),
            "the same, equal weights": Run("federated", epsilon, 0.0, 0, weights="uniform"),
            "gaps filled": Run("federated", epsilon, 0.0, 0, gaps_filled=True),
            "local": Run("local", epsilon, 0.0, 0),
        }
        compared = self._compared(kinds, lambda reports: mean(own_values(reports).values()))
        rows = [row(name, epsilon, rate, own) for name, rate, own in compared]
        _, rate, own = compared[0]
        rows.append(row("component-wise + home layer", epsilon, rate, [with_home_layer(reports) for reports in own]))
        whole, equal, filled, alone, personal = (row["institutions"] for row in rows)

        def gain(ours: Mapping[str, float]) -> float:
            return float(mean(ours[name] for name in EXCLUSIVE) / mean(filled[name] for name in EXCLUSIVE) - 1.0)

        better, weighed = gain(whole), gain(equal)
        no_worse = sum(whole[name] >= alone[name] - TOLERANCE for name in whole)
        ours = sum(personal[name] >= alone[name] - TOLERANCE for name in whole)
        strictly = sum(whole[name] >= alone[name] for name in whole)
        goals = [
            Goal("m3t", "component-wise over gaps filled, exclusive modalities: ≥ 15 % better", better, better >= 0.15),
            Goal("m3t", "the same, both with equal weights: ≥ 15 % better", weighed, weighed >= 0.15),
            Goal("m3t", f"no worse than alone (by {TOLERANCE}): all {len(whole)}", no_worse, no_worse == len(whole)),
            Goal("m3t", "institutions no worse than alone, exactly", strictly, strictly == len(whole)),
            Goal("m3t", f"with the home layer (no DP), no worse by {TOLERANCE}", ours, ours == len(whole)),
        ]  # fmt: skip
        return {
            "title": "Twelve institutions, five modalities, five tasks; handwriting and speech are OPEN",
            "metric": "mean of each institution's tasks (AUC, accuracy)",
            "unit": "student (answer for SciEntsBank); none for the schools",
            "rows": rows,
            "goals": [asdict(goal) for goal in goals],
        }

    # ---- lies

    def _attacks(self) -> dict[str, Any]:
        """Every attack against every rule, at one ε and one rate; the figure is the mean AUC of the honest."""
        epsilon = self.epsilons[0] if len(self.epsilons) == 1 else ATTACKED_EPSILON
        rate = 2.0  # the preset's
        lies: list[str | None] = [None, *LIES]
        runs = [
            Run("federated", epsilon, rate, seed, rule=rule, liars=LIARS, attack=attack)
            for attack in lies
            for rule in RULES
            for seed in self.seeds
        ]
        all_reports = iter(self._perform(runs))
        rows: list[dict[str, Any]] = []
        for attack in lies:
            for rule in RULES:
                own = [next(all_reports) for _ in self.seeds]
                rows.append(
                    {
                        "mode": rule,
                        "attack": attack or "none",
                        "epsilon": epsilon,
                        "rate": rate,
                        "values": [self._value(reports) for reports in own],
                        "macro_f1": None,
                        "institutions": self._each(own),
                    }
                )
        figures = {(row["attack"], row["mode"]): mean(row["values"]) for row in rows}
        honest = figures["none", ATTACKED]
        worst = min(figures[attack, ATTACKED] for attack in LIES)
        gain, flipped = honest - figures["none", "mean"], honest - figures["sign flip × 3", ATTACKED]
        goals = [
            Goal("attacks", f"no faulty member: {ATTACKED} minus mean ≥ -.005", gain, gain >= -0.005),
            Goal("attacks", f"sign flip × 3 costs {ATTACKED} ≤ .01", flipped, flipped <= 0.01),
            Goal("attacks", f"the worst attack costs {ATTACKED} ≤ .02", honest - worst, honest - worst <= 0.02),
        ]
        return {
            "title": f"OULAD at ε = {epsilon or inf:g}, {' and '.join(sorted(LIARS))} of 7 modules lie",
            "metric": "auc",
            "unit": "student",
            "rows": rows,
            "goals": [asdict(goal) for goal in goals],
        }

    # ---- goals and tables

    def _goals(self, rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
        goals = []
        by_key = {(row["mode"], row["epsilon"]): row for row in rows}
        for text in self.study.goals:
            what, *rest = text.split(":")
            epsilon = float(rest[-2])
            key, bound = None if epsilon == inf else epsilon, float(rest[-1])
            at = f"ε = {'∞' if key is None else f'{key:g}'}"
            if what == "sum-floor" and (SUM, key) in by_key:
                value = mean(by_key[SUM, key]["values"])
                goals.append(Goal(self.name, f"{at}: {SUM} ≥ {bound:g}", value, value >= bound))
            if ("federated", key) not in by_key:
                continue
            federated, local, central = (mean(by_key[mode, key]["values"]) for mode in MODES)
            if what == "federated-floor":
                goals.append(Goal(self.name, f"{at}: federated ≥ {bound:g}", federated, federated >= bound))
            elif what == "over-local":
                gain = federated - local
                goals.append(Goal(self.name, f"{at}: federated minus local ≥ {bound:g}", gain, gain >= bound))
            elif what == "central-gap":
                gap = central - federated
                goals.append(Goal(self.name, f"{at}: central minus federated ≤ {bound:g}", gap, gap <= bound))
            elif what == "institution-over-local":
                gain = by_key["federated", key]["institutions"][rest[0]] - by_key["local", key]["institutions"][rest[0]]
                goals.append(
                    Goal(self.name, f"{at}: at {rest[0]} federated minus local ≥ {bound:g}", gain, gain >= bound)
                )
            else:
                value = by_key["federated", key]["institutions"][rest[0]]
                goals.append(Goal(self.name, f"{at}: federated at {rest[0]} ≥ {bound:g}", value, value >= bound))
        return goals
