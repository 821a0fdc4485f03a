"""Tables of `bench learn`, at a terminal."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from rich.table import Table

from ...protocol.learning import RULES
from . import continual, equity, explained, honest, shards, sums, weights, writing
from .lies import LIES

TABLES: dict[str, Callable[[Mapping[str, Any]], Table]] = {
    "weights": weights.table,
    "continual": continual.table,
    "sums": sums.table,
    "shards": shards.table,
    "explain": explained.table,
    "equity": equity.table,
    "honest": honest.table,
}  # of the studies that have one of their own


def table(name: str, results: Mapping[str, Any]) -> Table:
    """Return the figures as a table."""
    if name == "attacks":
        return _by_attack(results)
    if name in TABLES:
        return TABLES[name](results)
    shown = Table(title=f"{results['title']}\n{results['metric']} on held-out data; privacy of each {results['unit']}")
    for column in (
        "mode",
        "ε",
        "rate",
        "mean",
        "least and greatest of seeds",
        "last state",
        "chrF" if name in writing.STUDIES else "macro-F1",
        "institutions",
    ):
        shown.add_column(column, justify="left" if column in {"mode", "institutions"} else "right")
    for row in results["rows"]:
        values, second = row["values"], row.get("chrf") or row["macro_f1"]
        by_institution = " ".join(f"{who} {value:.3f}" for who, value in row["institutions"].items())
        shown.add_row(
            row["mode"],
            "∞" if row["epsilon"] is None else f"{row['epsilon']}",
            "" if row["rate"] is None else f"{row['rate']:g}",
            f"{mean(values):.3f}",
            f"{min(values):.3f} {max(values):.3f}",
            f"{row['last_state']:.3f}" if row.get("last_state") else "",
            f"{mean(second):.3f}" if second else "",
            by_institution,
        )
    return shown


def _by_attack(results: Mapping[str, Any]) -> Table:
    """Return the rules as rows and the attacks as columns; of several seeds the mean."""
    shown = Table(title=f"{results['title']}\nmean {results['metric']} of the honest on held-out data", padding=0)
    shown.add_column("rule", no_wrap=True)
    for attack in ("none", *LIES):
        shown.add_column(attack, justify="right", min_width=5, overflow="fold")
    for rule in RULES:
        values = [mean(row["values"]) for row in results["rows"] if row["mode"] == rule]
        shown.add_row(rule, *(f"{value:.3f}" for value in values))
    return shown


def goals_table(goals: Sequence[Mapping[str, Any]]) -> Table:
    """Return which goals were met, with what was measured."""
    shown = Table(title="goals")
    for column in ("study", "goal", "measured", "met"):
        shown.add_column(column, justify="right" if column == "measured" else "left")
    for goal in goals:
        met = "[green]yes[/green]" if goal["met"] else "[red]no[/red]"
        shown.add_row(goal["study"], goal["goal"], f"{goal['value']:.3f}", met)
    return shown
