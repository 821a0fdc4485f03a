"""`collegium doctor`: problems of this node, and advice."""

from typing import Annotated, Any

import typer

from .monitor import CRITICAL, WARNING, Verdict
from .options import HomeOption, JsonOption, home_of
from .output import emit, table
from .proposals import at_home


def doctor(
    data: Annotated[
        bool | None, typer.Option("--data/--no-data", help="Load the data folder too (may take a while).")
    ] = None,
    monitor: Annotated[
        bool,
        typer.Option("--check", help="For monitors: one line, exit 0 ok, 1 warning, 2 critical; without the data."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine and the node's directory; every finding is ok, warn or fail, with advice."""
    from .checks import run

    checks = run(home_of(home), data=not monitor if data is None else data)
    if monitor:
        verdict = Verdict(fine=f"all {len(checks)} checks")
        for check in checks:
            if check.verdict != "ok":
                verdict.add(CRITICAL if check.verdict == "fail" else WARNING, check.found, check.advice)
        verdict.tell(as_json)
        return
    failed = any(check.verdict == "fail" for check in checks)
    result: Any = {"ok": not failed, "checks": [check.as_map() for check in checks]}

    def people(out: Any) -> None:
        rows = [(check.verdict, check.name, at_home(check.found), at_home(check.advice)) for check in checks]
        table(out, ("", "check", "found", "what to do"), rows, empty="")

    emit(result, as_json, people)
    if failed:
        raise typer.Exit(1)
