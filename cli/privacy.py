"""`collegium privacy`: what was spent, and what is left."""

from typing import Annotated, Any

import typer

from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, table
from .read import from_store

app = typer.Typer(help="The privacy budget of this node's students.", no_args_is_help=True)


@app.command("show")
def show(
    forecast: Annotated[
        bool, typer.Option("--forecast/--no-forecast", help="Reckon how many rounds still fit (some seconds).")
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every draw, ε spent, the budget in force, and how many rounds still fit."""
    from ..node import views  # noqa: PLC0415 - imports of commands wait until they run
    from ..node.home import config as settings  # noqa: PLC0415

    place = existing_home(home)
    own = settings.load(place.config).privacy
    policy = views.PrivacyPolicy(own.policy, own.epsilon, own.delta)

    def read(context: views.Context) -> Any:
        found = views.privacy(context, policy)
        # Here and not in the daemon: the accountant takes seconds and memory.
        return found | {"forecast": views.forecast(context, policy) if forecast else None}

    found = from_store(place, read)

    def people(out: Any) -> None:
        budget = found["epsilon_budget"]
        before = found["epsilon_before_recovery"]
        left = found["forecast"]
        facts(
            out,
            [
                ("policy", f"{found['policy']}, for each {found['unit']}"),
                ("ε spent", f"{found['epsilon_spent']:g} at δ = {found['delta']:g}"),
                ("budget", "none is asked for" if budget is None else f"ε ≤ {budget:g}"),
                ("before recovery", None if before is None else f"ε ≤ {before:g}; the rest is for after a withdrawal"),
                (
                    "rounds left",
                    None
                    if left is None
                    else f"{left['rounds_left']} like draw {left['like_draw']}"
                    f" ({left['rounds_left_in_recovery']} with the recovery share)",
                ),
            ],
        )
        for note in found["notes"]:
            out.print(f"note: {note}")
        rows = [
            (
                d["draw"],
                ", ".join(f"{name} {round_}" for name, round_ in d["rounds"].items()),
                f"{d['sample_rate']:g}",
                f"{d['noise_multiplier']:g}",
                d["steps"],
                f"{d['epsilon']:g}",
                "yes" if d["published"] else "no (spent all the same)",
            )
            for d in found["draws"]
        ]
        columns = ("draw", "rounds", "sample rate", "noise", "steps", "ε with it", "published")
        table(out, columns, rows, empty="Nothing was drawn from the students' data.")

    emit(found, as_json, people)
