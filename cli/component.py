"""`collegium component`: the parts of the model."""

from typing import TYPE_CHECKING

import typer

from .options import HomeOption, JsonOption, existing_home
from .output import emit, names, short, table
from .read import answer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="The parts of the model that are trained together.", no_args_is_help=True)


@app.command("ls", hidden=True)
@app.command("list")
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the components: rounds, hosts, certified states, and the members that the open round waits for."""
    from ..node import views

    components = answer(existing_home(home), lambda client: client.components(), views.components)

    def people(out: "Console") -> None:
        rows = [
            (
                c["component"],
                c["parameters"],
                c["rule"],
                c["round"],
                c["generation"],
                c["label"],
                short(c["digest"] or c["certified_digest"]),
                "hosted" if c["hosted_here"] else "followed" if c["followed_here"] else None,
                names(c["hosts"]),
                ", ".join(f"{m['name']} ({m['why']})" for m in c["not_training"]) or None,
                names(c["open_round"]["waiting_for"]),
            )
            for c in components
        ]
        columns = (
            "component",
            "parameters",
            "rule",
            "round",
            "generation",
            "state",
            "digest",
            "here",
            "hosts",
            "not training",
            "waiting for",
        )
        table(out, columns, rows, empty="The charter names no component.")

    emit(components, as_json, people)
