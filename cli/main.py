"""The `collegium` command: one module for each noun; commands import slow packages when they run."""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..crypto.errors import CollegiumError, OperatorError, UsageError
from ..protocol.names import shown
from . import (
    backups,
    blame,
    charter,
    component,
    dashboard,
    data,
    doctor,
    equity,
    explain,
    forget,
    found,
    init,
    joining,
    ledger,
    manual,
    model,
    node,
    peer,
    predict,
    privacy,
    rehearse,
    rounds,
    sim,
    sims,
    unit,
    unlearn,
)
from .options import SETTINGS, HomeOption, home_path
from .output import fitted, json_text
from .proposals import at_home
from .streams import NobodyReads, give_up, guarded

EXIT_CODES = {
    0: "ok",
    1: "internal error, or a check found something wrong",
    2: "wrong command, option or configuration",
    3: "a stored file is damaged",
    4: "the daemon or a peer cannot be reached",
    5: "refused by a rule (budget spent, not a member, …)",
    6: "verification failed",
    7: "checked, but it shows nothing",
    8: "the daemon runs, and cannot train",
    130: "interrupted",
    141: "the reader of the output has closed it",
}
EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="collegium",
    help="Institutions train one modular model together: no server, no record leaves the house.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.add_typer(charter.app, name="charter")
charter.app.command("found")(found.found)
app.command("join")(joining.join)
app.add_typer(node.app, name="node")
node.app.command("backup")(backups.backup)
node.app.command("restore")(backups.restore)
node.app.command("unit")(unit.unit)
app.add_typer(peer.app, name="peer")
app.add_typer(component.app, name="component")
app.add_typer(data.app, name="data")
app.add_typer(rounds.app, name="round")
app.add_typer(ledger.app, name="ledger")
ledger.app.command("blame")(blame.blame)
ledger.app.command("influence")(blame.influence)
app.add_typer(privacy.app, name="privacy")
app.add_typer(equity.app, name="equity")
app.add_typer(unlearn.app, name="unlearn")
unlearn.app.command("audit")(forget.audit)
app.add_typer(model.app, name="model")
app.command("dashboard")(dashboard.dashboard)
app.command("predict")(predict.predict)
app.add_typer(explain.app, name="explain")
app.command("doctor")(doctor.doctor)
app.add_typer(sim.app, name="sim")
app.command("rehearse")(rehearse.rehearse)
app.command("demo")(sims.demo)
app.command("bench")(sims.bench)
app.command("man")(manual.man)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"collegium {version('collegium')}\n")
        raise typer.Exit


@app.callback()
def _root(
    home: HomeOption = None,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    SETTINGS.home = SETTINGS.named = home


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `EXIT_CODES` lists them."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    SETTINGS.home = SETTINGS.named = None
    as_json = "--json" in words
    with guarded():
        try:
            code = _run(words, as_json)
            sys.stdout.flush()
        except NobodyReads:
            give_up()
            return 141
        except OperatorError as error:  # about the output itself: stderr is the only place left
            give_up()
            return _report_failure(error, as_json=False)
        return code


def _run(words: Sequence[str], as_json: bool) -> int:
    try:
        result = app(args=list(words), prog_name="collegium", standalone_mode=False)
    except NobodyReads:
        raise
    except CollegiumError as error:
        return _report_failure(error, as_json)
    except typer.TyperException as error:
        if as_json:
            return _say_json(error.format_message(), "See --help.", error.exit_code)
        show = getattr(error, "show", None)  # prints the usage line too; not part of typer's public base class
        if show is not None:
            show()
        else:
            sys.stderr.write(f"error: {error.format_message()}\n")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return 130
    except OSError as error:
        if error.filename is None:
            return _internal(error, as_json)
        # A path from the command line, or below the home: unreadable, a folder, a name too long, a full disk.
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return _report_failure(
            UsageError(f"{named}: {error.strerror}", "Look at this path and who may use it."), as_json
        )
    except Exception as error:  # noqa: BLE001 - an operator is told where the traceback is, not shown it
        return _internal(error, as_json)
    return result if isinstance(result, int) else 0


def _internal(error: Exception, as_json: bool) -> int:
    where = _log_traceback()
    message = f"internal error: {type(error).__name__}: {error}"
    return _report_failure(
        OperatorError(message, f"This is a bug. The traceback is in {where}: please report it."), as_json
    )


def _report_failure(error: CollegiumError, as_json: bool) -> int:
    message = at_home(error.message if isinstance(error, OperatorError) else str(error))
    advice = at_home(error.advice) if isinstance(error, OperatorError) else ""
    if as_json:
        return _say_json(message, advice, error.exit_code)
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    sys.stderr.write(f"{red}{fitted(f'error: {shown(message, breaks=True)}')}{plain}\n")
    if advice:
        sys.stderr.write(fitted(f"  {shown(advice, breaks=True)}") + "\n")
    return error.exit_code


def _say_json(message: str, advice: str, exit_code: int) -> int:
    value = {"error": message, "advice": advice, "exit_code": exit_code}
    sys.stdout.write(json_text(value))
    return exit_code


def _log_traceback() -> str:
    """Append the traceback to a file of the node's directory or, failing that, of the temporary one; return which."""
    text = f"--- {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {' '.join(sys.argv)}\n{traceback.format_exc()}"
    try:
        root = home_path()
        if root.is_dir():
            path = root / "cli.log"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
                file.write(text)
            return str(path)
        descriptor, name = tempfile.mkstemp(prefix="collegium-", suffix=".log")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except (OSError, OperatorError):
        sys.stderr.write(shown(text, breaks=True))  # nowhere to write: show it on the screen
        return "the lines above"
    return str(Path(name))


if __name__ == "__main__":
    sys.exit(main())
