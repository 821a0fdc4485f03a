"""`collegium equity show`: decisions and gaps by group over the whole federation, from what its members released."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .files import check_picture, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import emit, progress, table

if TYPE_CHECKING:
    from ..node.provenance.equity import EquityShown, GroupShown, Shown

app = typer.Typer(help="Figures by group, over the whole federation.", no_args_is_help=True)
COLUMNS = ("group", "students", "missed", "gap", "falsely flagged", "gap", "AUC", "threshold")


@app.callback()
def _noun() -> None:
    """Keep `show` a command of its own: typer would make a lone one the noun itself."""


@app.command("show")
def show(
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="Only this task's.")] = "",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw missed and falsely flagged there.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show whom the shared model misses and falsely flags, by group, with intervals: from the members' releases."""
    from ..node.provenance.equity import home_released, shown

    node_home = existing_home(home)
    if plot is not None:
        check_picture(plot, ".png", force=force)
    with progress(as_json) as step:
        equity, released = home_released(node_home, task, progress=step)
    result = [shown(equity, each) for each in released]
    if plot is not None:
        from ..node.provenance.equity_plot import png

        write_new(plot, [png(result)], force=force)

    def people(out: Any) -> None:
        for each in result:
            _print(out, each)

    emit({"tasks": result, **({} if plot is None else {"plot": str(plot)})}, as_json, people)


def _print(out: Any, result: "EquityShown") -> None:
    epsilon = "without noise" if result["epsilon"] is None else f"ε {result['epsilon']:g}, δ {result['delta']:g}"
    count, lacking = len(result["members"]), result["releases_without_bytes"]
    out.print(
        f"{result['task']}: a student is flagged whose probability is {result['flagged']} {result['threshold']:g};"
        f" held-out students of {count} {'member' if count == 1 else 'members'}, released once after round"
        f" {result['after_round']} ({epsilon} of each student)"
    )
    if lacking:
        out.print(f"{lacking} more releases are not on this disk (it joined late): these figures are of the others.")
    if not count:
        out.print("Nobody has released yet." if not lacking else "")
        return
    table(out, COLUMNS, [_row(result, group) for group in result["groups"]], empty="No groups.")
    out.print("missed: of those at risk, not flagged. falsely flagged: of the others, flagged.")
    out.print(
        "gap: how much more often than in the other groups of the attribute, within institutions; ± is a 95 % interval"
        " of the noise and of the number of students. A gap smaller than that may be none."
    )
    if not all(group["within_institutions"] for group in result["groups"]):
        out.print("No institution has 50 students of every group: some gaps are over all, and mix their differences.")
    out.print("threshold: the one by which every group of the attribute has as many missed. –: under 50 students.")


def _row(result: "EquityShown", group: "GroupShown") -> tuple[object, ...]:
    limit = result["thresholds"].get(group["attribute"], {}).get(group["level"])
    return (
        f"{group['attribute']} {group['level']}",
        group["students"],
        _percent(group["missed"]),
        _percent(group["missed_gap"], signed=True),
        _percent(group["falsely_flagged"]),
        _percent(group["falsely_flagged_gap"], signed=True),
        group["auc"],
        None if limit is None or group["missed"] is None else f"{limit:.3f}",
    )


def _percent(figure: "Shown | None", *, signed: bool = False) -> str | None:
    if figure is None:
        return None
    value, half = figure["value"], (figure["high"] - figure["low"]) / 2.0
    return f"{100 * value:{'+' if signed else ''}.1f} ± {100 * half:.1f} %"
