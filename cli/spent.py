"""The output of `privacy show` for people: this node's spending and what is left."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..node.words import of_kind
from .output import facts, table

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.views.shapes_privacy import Forecast, PrivacyShown

COUNTED_APART = (
    "note: runs that came back from the ledger are known by modality alone. For one student they are added up as if"
    " each modality had had its own, so that figure is more than was spent."
)
RECALLED = "yes; recalled from its update in the ledger"


def people(out: "Console", privacy: "PrivacyShown") -> None:
    """Print the view of this node's spending."""
    planned_on = privacy["forecast"]
    facts(
        out,
        [
            ("jurisdiction", privacy["jurisdiction"]),
            (f"one {privacy['unit']}", _student(planned_on)),
            ("kept for recovery", f"{privacy['recovery_share']:.0%} of every ε, for the rounds after a withdrawal"),
            ("planned rounds", planned_on["planned_rounds"] if planned_on else privacy["planned_rounds"]),
        ],
    )
    rows = []
    for line in privacy["modalities"]:
        left = planned_on["modalities"].get(line["modality"]) if planned_on else None
        rows.append(
            (
                of_kind(line["modality"], line["sensitivity"]),
                f"{line['policy']} ({line['policy_from']})" + (", withheld" if line["withheld"] else ""),
                shown(line["epsilon_spent"]),
                None
                if line["epsilon_budget"] is None
                else f"{line['epsilon_budget']:g} ({line['epsilon_from']}), {line['epsilon_before_recovery']:g}"
                " before recovery",
                f"{line['delta']:g}",
                left and left["rounds_left"],
                span(left["last_rounds"].values()) if left else None,
                left["runs_out_at"][:10] if left and left["runs_out_at"] else None,
            )
        )
    columns = ("modality", "policy", "ε spent", "budget", "δ", "rounds left", "runs out after round", "about")
    table(out, columns, rows, empty="The charter has no modality.")
    if len(rows) > 1 and any(d["recalled"] for d in privacy["reservations"]):
        out.print(COUNTED_APART)
    for note in privacy["notes"]:
        out.print(f"note: {note}")
    reservations = [d for d in privacy["reservations"] if not d["recalled"]]
    lines = []
    for name in sorted({name for d in reservations for name in d["rounds"]}):  # each once, whatever the number of runs
        of_it = [d for d in reservations if name in d["rounds"]]
        noise = ", ".join(dict.fromkeys(f"{d['noise_multipliers'][name]:g}" for d in of_it))
        lines.append((name, span(d["run"] for d in of_it), span(d["rounds"][name] for d in of_it), noise))
    if lines:
        table(out, ("component", "runs", "rounds", "noise"), lines, empty="")
    runs = [
        (
            d["run"],
            span(d["rounds"].values()),
            "not known" if d["recalled"] else len(d["rounds"]),
            f"{d['sample_rate']:g}",
            "not known" if d["recalled"] else d["steps"],
            ", ".join(f"{name} {shown(value)}" for name, value in d["epsilon"].items()),
            RECALLED if d["recalled"] else "yes" if d["published"] else "no (spent all the same)",
        )
        for d in privacy["reservations"]
    ]
    titles = ("run", "round", "components", "sample rate", "steps", "ε with it", "published")
    table(out, titles, runs, empty="Nothing was trained on the students' data.")


def _student(forecast: "Forecast | None") -> str:
    """Return one student's cost over all modalities, in words; `forecast` is None where it was not made."""
    if forecast is None:
        return "not computed without the forecast (leave out --no-forecast)"
    if (student := forecast["student"]) is None:
        return "no bound: no modality is under dp"
    names = student["modalities"]
    alone = "; the budget of each modality bounds that modality alone" if len(names) > 1 else ""
    return f"ε {shown(student['epsilon'])} at δ {student['delta']:g}, over {', '.join(names)}{alone}"


def span(numbers: Iterable[int]) -> str | None:
    """Return whole numbers from the first to the last: "3", "2 to 9"; None where there is none."""
    ordered = sorted(numbers)
    if not ordered:
        return None
    return f"{ordered[0]}" if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def shown(epsilon: float | None) -> str:
    """Return an ε for people; None is no bound."""
    return "no bound" if epsilon is None else f"{epsilon:.4g}"
