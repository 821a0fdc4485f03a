"""`collegium round`: counted and missing members of closed rounds."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..protocol.bounds import MAX_HEIGHT
from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, names, short, size, table
from .read import answer

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.views.shapes import Measured, Missing, RoundDetail

app = typer.Typer(help="Closed rounds: counted and missing members, with reasons.", no_args_is_help=True)


@app.command("ls", hidden=True)
@app.command("list")
def show(
    component: Annotated[str | None, typer.Argument(help="Only this component.")] = None,
    since: Annotated[int, typer.Option(min=1, max=MAX_HEIGHT, help="From this round on.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the last ones.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List closed rounds."""
    from ..node import views

    rounds = answer(
        existing_home(home),
        lambda client: client.rounds(component, since=since, limit=limit),
        lambda context: views.rounds(context, component, since=since, limit=limit),
    )

    def people(out: "Console") -> None:
        withdrawn = any(r["withdrawn"] for r in rounds)
        rows = [
            (
                r["round"],
                r["component"],
                names(r["counted"]),
                missing(r["missing"]),
                *([names(r["withdrawn"])] if withdrawn else []),
                r["label"],
            )
            for r in sorted(rounds, key=lambda r: (r["round"], r["component"]))
        ]
        columns = ("round", "component", "counted", "missing", *(["withdrawn"] if withdrawn else []), "state")
        table(out, columns, rows, empty="No round is closed yet.")
        if len(rounds) == limit:
            out.print(f"These are the last {limit} at the most: more with --limit N, or of one component by its name.")

    emit(rounds, as_json, people)


def missing(members: "list[Missing] | None") -> str:
    """Return the missing members with reasons; "?" where this node did not see the round close."""
    if members is None:
        return "? (see `round show`)"
    return ", ".join(f"{m['name']} ({m['why']})" for m in members) or "nobody"


@app.command("show")
def detail(
    component: Annotated[str, typer.Argument(help="The component, as head/digit.")],
    number: Annotated[int, typer.Argument(metavar="ROUND", min=1, max=MAX_HEIGHT)],
    local: Annotated[
        bool, typer.Option("--local", help="Also this node's own evaluation, on its own held-out data.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one closed round."""
    from ..node import views

    shown = answer(
        existing_home(home),
        lambda client: client.round(component, number, local=local),
        lambda context: views.round_detail(context, component, number, local=local),
    )

    def people(out: "Console") -> None:
        facts(
            out,
            [
                ("round", f"{shown['component']} round {shown['round']}, generation {shown['generation']}"),
                ("closed", f"at height {shown['height']}, {shown['closed_at'] or '–'}{_deadline(shown)}"),
                ("state", f"{shown['label']}, digest {shown['digest'] or '–'}"),
                ("missing", missing(shown["missing"])),
                ("withdrawn since", names(shown["withdrawn"])),
                ("attested by", names(shown["attested"])),
                ("quorum", f"{shown['quorum']} hosts; tolerates {shown['tolerated_liars']} faulty updates"),
                ("bytes", f"{size(shown['bytes_of_updates'])} of updates; received {size(shown['bytes_received'])}"),
                ("block", f"{short(shown['block'])}, signed by {names(shown['deciding_members'])}"),
            ],
        )
        rows = [
            (e["name"], e["staleness"], e["weight"], size(e["bytes"]), short(e["update"])) for e in shown["counted"]
        ]
        table(out, ("counted", "stale by", "weight", "bytes", "update"), rows, empty="Nobody's update is left.")
        if local:
            _evaluation(out, shown)

    emit(shown, as_json, people)


def _deadline(shown_round: "RoundDetail") -> str:
    return ", after its deadline" if shown_round["deadline_passed"] else ""


def _evaluation(out: "Console", shown_round: "RoundDetail") -> None:
    """Print the figures and remarks on them; those from before a withdrawal separately."""
    times = sorted({(figure["in_force"], figure["generation"]) for figure in shown_round["evaluation"]}) or [(True, 0)]
    for now, generation in times:
        if len(times) > 1 or not now:
            out.print(
                f"now (generation {generation}):"
                if now
                else f"before a withdrawal, not in force (generation {generation}):"
            )
        figures = [f for f in shown_round["evaluation"] if (f["in_force"], f["generation"]) == (now, generation)]
        columns = ("task", "metric", "own held-out", "shared", "with the home layer", "count")
        table(out, columns, _figures(figures), empty="Nothing was evaluated here after this round.")
        shown = {figure["task"] for figure in figures}
        for task, unit in sorted({(figure["task"], figure["unit"]) for figure in figures if figure["unit"]}):
            out.print(f"{task}: mae is the mean absolute error in {unit}.")
        for poor in shown_round["no_better"]:
            if poor["generation"] == generation and poor["task"] in shown:
                which = ", with the home layer," if poor["home_layer"] else ""
                out.print(f"{poor['task']}{which} is no better than a constant here: {'; '.join(poor['reasons'])}.")
        for sure in shown_round["nearly_certain"]:
            if sure["generation"] == generation and sure["task"] in shown:
                out.print(f"{'with the home layer, ' if sure['home_layer'] else ''}{sure['warning']}")


def _figures(evaluation: "list[Measured]") -> list[tuple[object, ...]]:
    """Return a row for each task, metric and group, with the figures of the shared model and with the home layer."""
    from ..node.store.observations import MIN_CELL

    rows: dict[tuple[object, ...], list[Measured | None]] = {}
    for figure in evaluation:
        key = (figure["task"], figure["metric"], figure["group"] or "")
        rows.setdefault(key, [None, None])[figure["home_layer"]] = figure
    shown = []
    for (task, metric, group), (shared, at_home) in rows.items():
        count = next(figure["count"] for figure in (shared, at_home) if figure)
        values = [
            f"under {MIN_CELL}: not shown" if figure and figure["too_few"] else figure and _rounded(figure["value"])
            for figure in (shared, at_home)
        ]
        shown.append((task, metric, group or "all", *values, count))
    return shown


def _rounded(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
