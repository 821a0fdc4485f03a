"""`collegium bench`: figures as ratios, taken side by side in one run. A figure is never a test."""

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rich.console import Console
from rich.table import Table

from ...crypto.errors import UsageError
from ...node.runtime import logs
from . import MODULES
from .rows import Row


def run(name: str, as_json: bool = False, quick: bool = False) -> int:
    """Run one benchmark, or all of them; print a table or JSON. Returns 0: missing a goal is no error."""
    if name != "all" and name not in MODULES:
        raise UsageError(f"there is no benchmark {name!r}", f"Choose one of {', '.join(MODULES)}, or all.")
    console = Console(stderr=True)
    logs.configure("console", "warning")  # to stderr: standard output is for the figures
    results = []
    for module in MODULES if name == "all" else (name,):
        console.print(f"measuring {module} …", style="dim")
        rows = _benchmark(module)(quick)
        results.append({"bench": module, "rows": [row.as_map() for row in rows]})
        if not as_json:
            Console().print(_table(module, rows))
    if as_json:
        sys.stdout.write(json.dumps(results if name == "all" else results[0]) + "\n")
    return 0


def _benchmark(name: str) -> Callable[[bool], Sequence[Row]]:
    module, function = MODULES[name]
    benchmark: Callable[[bool], Sequence[Row]] = getattr(import_module(f".{module}", __package__), function)
    return benchmark


def _table(name: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"bench {name}")
    for column in ("figure", "ours", "reference", "ratio", "goal", "met"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        met = "" if row.met is None else ("[green]yes[/green]" if row.met else "[red]no[/red]")
        table.add_row(row.figure, _text(row.ours), _text(row.reference), _text(row.ratio), row.goal, met)
    return table


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
