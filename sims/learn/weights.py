"""Ways of weighting updates where institutions' ε differ: seven settings of OULAD, each way at its own best rate."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from ...crypto.errors import LocalProtocolError
from ...node.blueprint.parts import head, skip
from ...node.blueprint.recipe import Recipe
from ...protocol.learning import Modality
from .runs import Ground, Run, figure, perform
from .studies import ASSESSMENTS, DEMOGRAPHICS, PASS, Institutions, study
from .workers import LearnerWorker, share

STRICT, LOOSE = 0.5, 8.0  # ε
RATES = (4.0, 8.0)
TUNING = (0, -1)  # seeds of the validation runs, others than those that are reported
NEAR = 0.003  # of the best way of each setting
OURS = "random effects"
WAYS = {  # rule, and weights in place of the rule's
    "mean": ("mean", "designed"),
    "1/σ²": ("mean", "inverse"),
    "1/σ², .2 to 2.5 shares": ("mean", "bounded"),
    OURS: ("random-effects", "designed"),
}
MARKS, ENTRY = replace(ASSESSMENTS, name="marks"), replace(DEMOGRAPHICS, name="entry")


@dataclass(frozen=True, slots=True)
class Setting:
    """Who has which ε, who lies about its noise, and what the strict hold that nobody else has."""

    title: str
    epsilons: Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]  # of all, of every second one
    modalities: Sequence[Modality] = (ASSESSMENTS, DEMOGRAPHICS)
    strict_names: Mapping[str, str] = field(default_factory=dict)  # of modalities: their features have own weights
    loose_names: Mapping[str, str] = field(default_factory=dict)
    liars: frozenset[str] = frozenset()


def _halves(everybody: Sequence[str], half: Sequence[str]) -> Mapping[str, float]:
    return {name: STRICT if name in half else LOOSE for name in everybody}


def _all_at(epsilon: float) -> Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]:
    return lambda everybody, _: dict.fromkeys(everybody, epsilon)


def _one(other: str, epsilon: float, rest: float) -> Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]:
    return lambda everybody, _: {name: epsilon if name == other else rest for name in everybody}


SETTINGS = (
    Setting("half strict", _halves),
    Setting("a modality only the strict have", _halves, loose_names={"demographics": "unused"}),
    Setting("a population only the strict have", _halves, (ASSESSMENTS, DEMOGRAPHICS, ENTRY, MARKS),
            strict_names={"assessments": "marks", "demographics": "entry"}),
    Setting("one loose among strict", _one("BBB", LOOSE, STRICT)),
    Setting("one strict among loose", _one("GGG", STRICT, LOOSE)),
    Setting("all at 3", _all_at(3.0)),
    Setting("all at 1", _all_at(1.0)),
    Setting("all at 8", _all_at(LOOSE)),
    Setting("a strict member claims σ = 0", _halves, liars=frozenset({"GGG"})),
)  # fmt: skip


def measure(
    oulad: Institutions, work: Path, crew: Sequence[LearnerWorker], seeds: Sequence[int], quick: bool
) -> dict[str, Any]:
    """Return the measurements, fit for JSON: rows by setting and way of weighting."""
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS[:2] if quick else SETTINGS:
        rows += _rows(setting, oulad, work, crew, seeds, quick)
    goals = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        figures = {row["mode"]: mean(row["values"]) for row in rows if row["setting"] == setting}
        behind = max(figures.values()) - figures[OURS]
        goals.append({"study": "weights", "goal": f"{setting}: at most {NEAR} behind the best", "value": behind,
                      "met": behind <= NEAR})  # fmt: skip
    return {
        "title": f"OULAD at different ε (strict {STRICT}, loose {LOOSE:g})",
        "metric": "auc",
        "unit": "student",
        "rows": rows,
        "goals": goals,
    }


def _rows(
    setting: Setting,
    oulad: Institutions,
    work: Path,
    crew: Sequence[LearnerWorker],
    seeds: Sequence[int],
    quick: bool,
) -> list[dict[str, Any]]:
    names = sorted(oulad)
    half = names[::2]
    epsilons = setting.epsilons(names, half)
    loosest = max(epsilons.values())
    noises = {name: each for name, each in epsilons.items() if each < loosest}
    strict = sorted(name for name, each in epsilons.items() if each == min(epsilons.values()))
    base, institutions = study("oulad"), _institutions(setting, oulad, half, work)
    ground = Ground(f"weights {setting.title}", institutions, work / "embeddings.db")
    rounds = 2 if quick else base.rounds

    def honest(who: Sequence[str]) -> list[str]:
        return [name for name in who if name not in setting.liars]

    def value(reports: Mapping[str, Any], who: Sequence[str]) -> float:
        return figure(reports, PASS.name, base.metric, lambda name: name in who, pooled=False)

    def perform_all(runs: Sequence[Run]) -> list[Any]:
        recipe = partial(_recipe, setting.modalities)
        return share(crew, [partial(perform, run=run, ground=ground, recipe_of=recipe, rounds=rounds,
                                    least_lot=base.least_lot) for run in runs])  # fmt: skip

    def of(way: str, rate: float, seed: int, tune: bool) -> Run:
        rule, weights = WAYS[way]
        return Run("federated", loosest, rate, seed, tune, weights, noises=noises, rule=rule, silent=setting.liars,
                   private=False)  # fmt: skip

    def tuned(way: str) -> float:
        if quick:
            return RATES[0]
        runs = [of(way, rate, seed, True) for rate in RATES for seed in TUNING]
        values = [value(reports, honest(names)) for reports in perform_all(runs)]
        scores = [mean(values[place : place + len(TUNING)]) for place in range(0, len(values), len(TUNING))]
        return max(zip(scores, RATES, strict=True))[1]

    rows = []
    for way in WAYS:
        rate = tuned(way)
        reports = perform_all([of(way, rate, seed, False) for seed in seeds])
        rows.append(
            {
                "setting": setting.title,
                "mode": way,
                "epsilon": None,
                "rate": rate,
                "values": [value(each, honest(names)) for each in reports],
                "strict": mean(value(each, honest(strict)) for each in reports),
                "institutions": {name: mean(value(each, [name]) for each in reports) for name in names},
            }
        )
    return rows


def _recipe(modalities: Sequence[Modality], rate: float, students: float) -> Recipe:
    task = replace(PASS, modalities=tuple(modality.name for modality in modalities))
    parts = (head(task, 1), skip(task, {modality.name: modality.width for modality in modalities}))
    return replace(study("oulad").recipe(rate, students), modalities=tuple(modalities), tasks=(task,), parts=parts)


def _institutions(setting: Setting, oulad: Institutions, half: Sequence[str], work: Path) -> Institutions:
    """Return the institutions' folders: where a setting asks for it, copies with another dataset.toml."""
    if not setting.strict_names and not setting.loose_names:
        return oulad
    made: Institutions = {}
    for name, (folder,) in oulad.items():
        copy = work / "weights" / setting.title.replace(" ", "-") / name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        text = (copy / "dataset.toml").read_text(encoding="utf-8")
        for old, new in (setting.strict_names if name in half else setting.loose_names).items():
            text, changed = re.subn(rf'(\[\[modality\]\][^\n]*\nname = )"{old}"', rf'\1"{new}"', text)
            if not changed:
                raise LocalProtocolError(f"{copy}: no modality {old!r} in dataset.toml")
        (copy / "dataset.toml").write_text(text, encoding="utf-8")
        made[name] = (copy,)
    return made


def table(results: Mapping[str, Any]) -> Table:
    """Return the settings as rows and the ways as columns: the mean of all, and of the strict."""
    shown = Table(title=f"{results['title']}\nmean {results['metric']} on held-out data, and that of the strict")
    shown.add_column("setting")
    for way in WAYS:
        shown.add_column(way, justify="right")
    for setting in dict.fromkeys(row["setting"] for row in results["rows"]):
        own = {row["mode"]: row for row in results["rows"] if row["setting"] == setting}
        shown.add_row(setting, *(f"{mean(own[way]['values']):.3f}, {own[way]['strict']:.3f}" for way in WAYS))
    return shown
