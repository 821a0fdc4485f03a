"""`collegium doctor`: problems of this node, and advice."""

from typing import Annotated, Any

import typer

from .options import HomeOption, JsonOption, home_of
from .output import emit, table


def doctor(
    data: Annotated[bool, typer.Option("--data/--no-data", help="Load the data folder too (may take a while).")] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine and the node's directory; every finding is ok, warn or fail, with advice."""
    from .checks import run

    checks = run(home_of(home), data=data)
    failed = any(check.verdict == "fail" for check in checks)
    found: Any = {"ok": not failed, "checks": [check.as_map() for check in checks]}

    def people(out: Any) -> None:
        rows = [(check.verdict, check.name, check.found, check.advice) for check in checks]
        table(out, ("", "check", "found", "what to do"), rows, empty="")

    emit(found, as_json, people)
    if failed:
        raise typer.Exit(1)
