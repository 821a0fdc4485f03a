"""`collegium unlearn`: take contributions back, and check that they are gone."""

import sys
from typing import Annotated, Any

import typer

from ..crypto.errors import UsageError
from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, progress, table
from .read import answer, from_store

app = typer.Typer(help="Withdraw this node's contributions; check any member's withdrawal.", no_args_is_help=True)


@app.command("request")
def request(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw all that this node contributed, for good; it stops contributing."""
    from ..node.control.client import Client  # noqa: PLC0415 - imports of commands wait until they run

    place = existing_home(home)
    client = Client(place)
    if not yes:
        status = client.get("/status")  # so that nobody is asked in vain
        if as_json or not sys.stdin.isatty():
            raise UsageError("A withdrawal cannot be taken back", "Give --yes to say that it is meant.")
        name = status["federation"]["name"]
        typer.confirm(f"Withdraw all contributions of this node from {name!r}, for good?", abort=True, err=True)
    found = client.request_withdrawal()
    text = (
        "The withdrawal is signed and on its way; follow it by `collegium unlearn status`."
        if found["signing"]
        else "The withdrawal waits until enough members are connected; leave the daemon running."
    )
    emit(found, as_json, lambda out: out.print(text))


@app.command("status")
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show every withdrawal and how far it got."""
    from ..node import views  # noqa: PLC0415 - as above

    found: Any = answer(existing_home(home), lambda client: client.get("/unlearn"), views.unlearn)

    def people(out: Any) -> None:
        if found["waiting_to_sign"]:
            out.print("This node's withdrawal waits until enough members are connected.")
        rows = [
            (
                w["member"]["name"],
                w["height"],
                w["mode"],
                c["component"],
                c["epoch"],
                f"{c['attested']} of {c['needed']}" if not c["certified"] else "certified",
                c["blobs_to_erase"],
                c["updates_beyond_refold_horizon"],
            )
            for w in found["withdrawals"]
            for c in w["components"]
        ]
        columns = ("member", "height", "mode", "component", "epoch", "new state", "to erase", "too old to refold")
        table(out, columns, rows, empty="Nobody has withdrawn anything.")

    emit(found, as_json, people)


@app.command("verify")
def verify(
    member: Annotated[
        str | None, typer.Argument(help="A name, or the beginning of a key; all who withdrew, if none is named.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check from this node's files alone that the states are the fold without the withdrawn updates."""
    from ..node.verify import verify_home_withdrawal  # noqa: PLC0415 - as above
    from ..node.views import Context, find_member  # noqa: PLC0415

    place = existing_home(home)

    def wanted(context: Context) -> list[tuple[bytes, str]]:
        keys = sorted({w.author for w in context.ledger.withdrawn})
        if member is not None:
            keys = [find_member(context, member)]
        return [(key, str(context.member(key)["name"])) for key in keys]

    asked = from_store(place, wanted)
    with progress(as_json) as step:
        reports: list[Any] = [
            {"name": name, **verify_home_withdrawal(place, key, progress=step, strict=False)} for key, name in asked
        ]
    verified = all(report["verified"] for report in reports)
    found = {"verified": verified, "withdrawals": reports}

    def people(out: Any) -> None:
        if not reports:
            out.print("Nobody has withdrawn anything.")
        for report in reports:
            facts(
                out,
                [
                    ("withdrawal of", f"{report['name']}, agreed at height {report['height']}"),
                    ("result", "verified" if report["verified"] else "NOT verified"),
                    ("erased here", f"{report['erased_blobs']} blobs"),
                ],
            )
            rows = [
                (
                    c["component"],
                    c["epoch"],
                    c["round"],
                    c["removed_updates"],
                    c["updates_beyond_refold_horizon"],
                    f"{c['label']} by {c['attested']} (needs {c['needed']})",
                    c["digest"] or "not hosted here",
                )
                for c in report["components"]
            ]
            columns = ("component", "epoch", "round", "removed", "too old", "state", "digest without it")
            table(out, columns, rows, empty="")
            for problem in report["problems"]:
                out.print(f"problem: {problem}")

    emit(found, as_json, people)
    if not verified:
        raise typer.Exit(6)
