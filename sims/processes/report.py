"""How the demo looks: live progress while it runs, the closing table, and the same as one JSON object."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ...protocol.charter import Charter
from .federation import Institution
from .observe import View, closed, round_seconds
from .result import Result

LAST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """The live table: for each round its counted and missing members and why, quality, bytes, seconds; ε below it.

    It has the newest rounds that the screen has room for, or if `whole` all of them.
    """

    views: Sequence[View]
    institutions: Sequence[Institution]
    charter: Charter
    metric: str
    started: float
    names: Mapping[bytes, str]
    whole: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it as high as the screen allows."""
        views = self.views
        rounds = sorted({r for view in views for (_, r), note in view.notes.items() if "counted" in note})
        room = (console.height if console.is_terminal else 1000) - 1  # a line is left for the cursor
        whole = options.update(height=None)
        for count in range(len(rounds) if self.whole else min(LAST_ROWS, len(rounds)), -1, -1):
            page = Group(self._table(rounds[len(rounds) - count :]), self._text_below(rounds, count))
            if self.whole or len(console.render_lines(page, whole, pad=False)) <= room:
                break
        yield page

    def _table(self, shown: Sequence[int]) -> Table:
        table = Table(title="rounds", expand=False)
        for column in ("round", "in", "missing", f"mean own {self.metric}", "kB received", "s without training"):
            table.add_column(column, justify="left" if column in ("in", "missing") else "right")
        for round_ in shown:
            values = [view.metrics[0, round_] for view in self.views if (0, round_) in view.metrics]
            seconds = round_seconds(self.views, self.charter, round_)
            counted, missing = _contributors(self.views, self.charter, round_, self.names)
            table.add_row(
                str(round_),
                f"{counted} of {len(self.views)}",
                missing or "nobody",
                f"{sum(values) / len(values):.3f}" if values else "…",
                _kilobytes(self.views, self.charter, round_),
                "…" if math.isnan(seconds) else f"{seconds:.2f}",
            )
        return table

    def _text_below(self, rounds: Sequence[int], shown: int) -> Text:
        waiting = ", ".join(
            f"{i.name}: height {v.height}, {v.draws} training runs, round {closed(v, self.charter)}"
            for i, v in zip(self.institutions, self.views, strict=True)
        )
        elapsed = f"{time.time() - self.started:.0f} s" if self.started else ""
        above = f"  (rounds before {rounds[-shown]} are not shown)" if 0 < shown < len(rounds) else ""
        epsilon = max((view.epsilon for view in self.views), default=0) / 1000
        spent = f"  ε of one student up to {epsilon:.2f}" if epsilon else ""
        return Text(f"{elapsed}  {waiting}{spent}{above}", style="dim")


def _contributors(views: Sequence[View], charter: Charter, round_: int, names: Mapping[bytes, str]) -> tuple[int, str]:
    counted: set[str] = set()
    missing: dict[str, str] = {}
    for view in views:
        for spec in charter.components:
            note = view.notes.get((spec.name, round_), {})
            keys = note.get("counted")
            if isinstance(keys, list):
                counted |= {names.get(bytes.fromhex(key), key[:8]) for key in keys}
            absent = note.get("missing")
            if isinstance(absent, dict):
                for key, why in absent.items():
                    missing[names.get(bytes.fromhex(key), key[:8])] = str(why)
    text = ", ".join(f"{name} ({why})" for name, why in sorted(missing.items()))
    return len(counted), text


def _kilobytes(views: Sequence[View], charter: Charter, round_: int) -> str:
    differences = []
    for view in views:
        a, b = (view.notes.get((charter.components[0].name, r), {}).get("received") for r in (round_ - 1, round_))
        if a is not None and b is not None and float(str(b)) >= float(str(a)):
            differences.append(float(str(b)) - float(str(a)))
    return f"{median(differences) / 1000:.1f}" if differences else "…"


def as_json(result: Result) -> str:
    """Return the one JSON object of `collegium demo --json`."""
    return json.dumps(
        {
            "ok": result.ok,
            "task": result.task,
            "metric": result.metric,
            "nodes": result.nodes,
            "rounds": result.rounds,
            "rule": result.rule,
            "liars": result.liars,
            "first_round_seconds": _number(result.first_round_seconds),
            "round_seconds_median": _number(median(result.round_seconds)) if result.round_seconds else None,
            "bytes_per_node_round": _number(result.bytes_per_node_round),
            "bytes_lower_bound": _number(result.bytes_lower_bound),
            "state_digests": result.state_digests,
            "quality": {
                "local": _numbers(result.local),
                "federated": _numbers(result.federated),
                "own": {
                    name: {"local": _number(result.own_local[name]), "federated": _number(result.own_federated[name])}
                    for name in result.own_local
                },
                "honest": {
                    "local": _number(result.honest(result.own_local)),
                    "federated": _number(result.honest(result.own_federated)),
                },
            },
            "statistic": {
                "component": result.statistic,
                "local": _numbers(result.statistic_local),
                "federated": _number(result.statistic_federated),
                "after_withdrawal": _number(result.statistic_after_withdrawal),
            },
            "epsilon": result.epsilon if result.dp else dict.fromkeys(result.epsilon),
            "crash": {"killed": result.killed, "recovered": result.recovered},
            "withdrawal": {
                "member": result.withdrawn,
                "mode": "refold",
                "digest": result.withdrawal_digest,
                "quality": _number(result.after_withdrawal),
                "verified": result.withdrawal_verified,
            },
            "verified": result.verified,
            "problems": result.problems,
        }
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def show(console: Console, result: Result, keep: Path | None) -> None:
    """Print the closing table."""
    table = Table(title=f"{result.task}: {result.metric} on held-out data after {result.rounds} rounds")
    for column in ("institution", "own: alone", "own: federated", "everybody's: alone", "everybody's: federated", "ε"):
        table.add_column(column, justify="left" if column == "institution" else "right")
    for name in result.nodes:
        table.add_row(
            f"{name} (lies)" if name in result.liars else name,
            *(
                _text(values.get(name, math.nan))
                for values in (result.own_local, result.own_federated, result.local, result.federated)
            ),
            f"{result.epsilon.get(name, math.nan):.2f}" if result.dp else "none",
        )
    if result.liars:
        means = (_text(result.honest(values)) for values in (result.own_local, result.own_federated))
        table.add_row("mean of the honest", *means, "", "", "", style="bold")
    console.print(table)
    facts = Table(show_header=False)
    for component, digests in result.state_digests.items():
        same = len(set(digests.values())) == 1
        shown = f"{next(iter(digests.values()))[:16]} at all {len(digests)} hosts" if same else _digests_apart(digests)
        facts.add_row(f"state of {component} after the withdrawal", shown)
    facts.add_row(
        f"head of {result.statistic}, released once, on everybody's data",
        f"alone {_text(_mean(result.statistic_local))} (mean), federated {_text(result.statistic_federated)},"
        f" after the withdrawal {_text(result.statistic_after_withdrawal)}",
    )
    facts.add_row("time to the first closed round", f"{result.first_round_seconds:.1f} s")
    middle = median(result.round_seconds) if result.round_seconds else math.nan
    facts.add_row("a round without its training, median", f"{middle:.2f} s")
    ratio = result.bytes_per_node_round / result.bytes_lower_bound if result.bytes_lower_bound else math.nan
    facts.add_row(
        "bytes received a node and round",
        f"{result.bytes_per_node_round:,.0f}, lower bound {result.bytes_lower_bound:,.0f} ({ratio:.2f} ×)",
    )
    facts.add_row("killed with SIGKILL", f"{result.killed}: {'recovered' if result.recovered else 'NOT recovered'}")
    verified = "verified" if result.withdrawal_verified else "NOT verified"
    facts.add_row("withdrawn by refold", f"{result.withdrawn}: {verified}")
    for line in result.verified:
        facts.add_row("[green]verified[/green]", line)
    for line in result.problems:
        facts.add_row("[red]problem[/red]", line)
    console.print(facts)
    if keep is not None:
        console.print(f"The federation lies in {keep}; try: collegium --home {keep}/{result.nodes[0]} ledger verify")
    console.print(
        "[bold green]All of it held.[/bold green]" if result.ok else "[bold red]Not all of it held.[/bold red]"
    )


def _digests_apart(digests: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {digest[:16] or 'none'}" for name, digest in digests.items())


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
