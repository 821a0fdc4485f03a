"""`collegium node`: the daemon."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.errors import CollegiumError, OperatorError, UnreachableError, UsageError
from ..node.words import consents, lasting
from ..protocol.bounds import MAX_WAIT
from .alarms import alarms, to_come
from .monitor import check
from .options import HomeOption, JsonOption, PassphraseOption, existing_home, home_of, key_passphrase
from .output import emit, facts, names, say, short, size, table
from .pausing import pause, resume
from .quiet import quiet_words
from .read import answer
from .training import CANNOT_TRAIN, Started, coverage, problem, tell, trained, wait_for_learner

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.home.paths import Home
    from ..node.views.shapes import LearnerGlance, NodeStatus, NotConnected

app = typer.Typer(help="This node's daemon.", no_args_is_help=True)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("alarms")(alarms)
LAST_LINES = 5


@app.command("start")
def start(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run in this process; the log goes to stderr.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=1, max=MAX_WAIT, help="Seconds to wait for the daemon, then for its learner.")
    ] = 60.0,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start the daemon in the background; wait until it answers and its learner is ready or has failed."""
    from ..node.home.lock import running
    from ..node.views import NoteKind
    from ..node.views.notes import older, paused

    node_home = existing_home(home)
    pid = running(node_home)
    if pid is not None:
        who = f"pid {pid}" if pid else "it starts at this moment"
        raise UsageError(
            f"The daemon of {node_home.root} runs already ({who})",
            "See it: collegium node status. To start it anew: collegium node stop, then collegium node start.",
        )
    passphrase = key_passphrase(node_home, passphrase_file)
    if foreground:
        from ..node.runtime import serve

        serve(node_home, passphrase)
        return
    process, offset = spawn(node_home, passphrase)
    wait_until_up(node_home, process, offset, wait)
    now, live = wait_for_learner(node_home, wait)
    learner = live["learner"]
    started: Started = {
        "running": True,
        "pid": process.pid,
        "home": str(node_home.root),
        "log": str(node_home.log),
        "trains": learner["state"] in {"ready", "training"} and bool(now["training"]["trained"]),
        "learner": learner,
        "data": coverage(node_home),
        "training": now["training"],
        "unmatched": [
            f"{note['found']} {note['advice']}"
            for note in now["findings"]
            if note["kind"] == NoteKind.PATTERN_UNMATCHED
        ],
        "older": list(map(str, older(live["returned"], live["removals_unknown"]))),
        "paused": list(map(str, paused(now["paused"]))),
        "quiet": [
            f"{note['found']} {note['advice']}"
            for note in now["findings"]
            if note["kind"] in (NoteKind.QUIET_HOURS, NoteKind.QUIET_MISSES_ROUNDS)
        ],
        "is_member": now["is_member"],
        "gone": now["gone"],
    }
    wrong = "" if now["gone"] else problem(started)

    def people(out: "Console") -> None:
        out.print(f"running (pid {process.pid}); its log is {node_home.log}")
        if now["gone"]:
            tell_notes(out, now)
        else:
            tell(out, started)

    emit(started, as_json, people)
    if wrong:
        if not as_json:
            say(f"error: the daemon runs, and cannot train: {wrong}")
            say("  It votes and folds meanwhile, and tries again by itself. `collegium doctor` looks for more.")
        raise typer.Exit(CANNOT_TRAIN)


def spawn(home: "Home", passphrase: str | None) -> tuple[subprocess.Popen[bytes], int]:
    """Start the daemon's process; return it and the offset of its log in the file."""
    environment = dict(os.environ)
    environment.pop("COLLEGIUM_PASSPHRASE", None)
    if passphrase is not None:
        # Not as an argument: every user of the machine can read arguments.
        environment["COLLEGIUM_PASSPHRASE"] = passphrase
    log_path = home.log.absolute()
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        offset = log.tell()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "collegium.node", "--home", str(home.root.absolute()), "--log", str(log_path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # it outlives this terminal
        )
    return process, offset


def wait_until_up(home: "Home", process: subprocess.Popen[bytes], offset: int, seconds: float) -> None:
    """Wait until the daemon answers. Raises its own error if it ends first, UnreachableError if it takes too long."""
    from ..node.control.client import Client, error_of

    client = Client(home)
    deadline = time.monotonic() + seconds
    while True:
        status = process.poll()
        if status is not None:
            reason = why(home, offset) or f"it ended with status {status} and wrote nothing"
            code = status if status > 0 else 1
            raise error_of(code, f"The daemon did not start: {reason}", f"Its log is {home.log}.")
        if client.answers():
            return
        if time.monotonic() > deadline:
            last = why(home, offset) or "it has written nothing yet"
            raise UnreachableError(
                f"The daemon (pid {process.pid}) does not answer after {seconds:g} s; its last line: {last}",
                f"It goes on; follow {home.log}, or stop it: collegium node stop.",
            )
        time.sleep(0.05)


def why(home: "Home", offset: int) -> str:
    """Return the daemon's last error in the log since `offset`, or else the last lines."""
    try:
        with home.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset if offset <= end else 0, end - (64 << 10)))  # it may have been rotated
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    own = [line.removeprefix("collegium: ") for line in lines if line.startswith("collegium: ")]
    return own[-1] if own else " | ".join(lines[-LAST_LINES:])


@app.command("stop")
def stop(
    wait: Annotated[float, typer.Option(min=0, max=MAX_WAIT, help="Seconds to wait for it to end.")] = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Kill it if it does not end in time; nothing is lost.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop the daemon."""
    from ..node.control.client import Client
    from ..node.home.lock import running

    node_home = existing_home(home)
    client = Client(node_home)
    pid = running(node_home)
    try:
        client.stop()
    except UnreachableError:
        if not pid:
            raise
        # It holds the directory's lock, so the id is its own: it just does not answer on the socket.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not client.wait_for_end(wait):
        if not force or not pid:
            raise OperatorError(
                f"The daemon (pid {pid}) still runs after {wait:g} s", "Wait for it, or use --force: nothing is lost."
            )
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        client.wait_for_end(5.0)
    emit({"running": False, "pid": pid}, as_json, lambda out: out.print("stopped"))


@app.command("status")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until interrupted.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=MAX_WAIT, help="Seconds between repeats.")] = 2.0,
    monitor: Annotated[
        bool, typer.Option("--check", help="For monitors: one line, exit 0 ok, 1 warning, 2 critical.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the node at a glance; without a daemon, its last state."""
    from ..node.home.lock import running

    if monitor:
        check(home_of(home)).tell(as_json)
        return
    node_home = existing_home(home)
    if not watch:
        state = look(node_home)

        def people(out: "Console") -> None:
            show(out, state, silent=running(node_home) is not None)
            if later := to_come(node_home):
                out.print(f"note: {later}")

        emit(state, as_json, people)
        return
    if as_json:
        raise UsageError("--watch and --json do not go together", "Ask with --json as often as you need.")
    _watch(node_home, interval)


def _watch(home: "Home", interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from ..node.home.lock import running
    from .output import console

    out = console()

    def picture() -> Text:
        # Drawn on a console of its own: lines printed on the live one appear above the status.
        page = console(like=out)
        with page.capture() as capture:
            try:
                show(page, look(home), silent=running(home) is not None)
            except CollegiumError as error:  # the daemon may only be restarting
                page.print(str(error))
        lines = list(Text.from_ansi(capture.get()).split("\n"))
        if out.is_terminal and len(lines) > out.height:
            hidden = len(lines) - out.height + 1
            last = Text(f"{hidden} more lines: make the window higher, or leave --watch out", style="bold")
            lines = lines[: out.height - 1]
            lines.append(last)
        return Text("\n").join(lines)

    if not out.is_terminal:  # one status below the other
        while True:
            out.print(picture())
            sys.stdout.flush()
            time.sleep(interval)
    with Live(console=out, auto_refresh=False, screen=True) as live:
        while True:
            live.update(picture(), refresh=True)
            time.sleep(interval)


def look(home: "Home") -> "NodeStatus":
    """Return the status view."""
    from ..node import views

    return answer(home, lambda client: client.status(), views.status)


def show(out: "Console", node: "NodeStatus", *, silent: bool = False) -> None:
    """Print the status view; `silent`: a daemon holds the directory, and a view without its facts is of the disk."""
    live, federation = node["live"], node["federation"]
    state = "running" if live else "its daemon does not answer" if silent else "not running"
    pairs: list[tuple[str, object]] = [
        ("node", f"{_name_and_standing(node)}, {state}"),
        ("federation", f"{federation['name']}, {federation['id'][:16]}"),
        (
            "members",
            f"{federation['members']}, quorum {federation['quorum']}, "
            + (
                f"tolerates {federation['tolerated_losses']} lost"
                if federation["tolerated_losses"] or federation["members"] == 1
                else "none can be spared: every decision needs the votes of all"
            ),
        ),
        (
            "ledger",
            f"height {node['height']}, {node['tree_size']} records, last block {node['last_block_at'] or '–'}",
        ),
    ]
    pace = _pace(node)
    if pace:
        pairs.append(("pace", pace))
    if node["quiet_hours"]:
        pairs.append(("quiet hours", quiet_words(node["quiet_hours"])))
    if not node["gone"]:  # a former member trains nothing and has no connections
        pairs.append(("training", trained(node["training"])))
    if live and not node["gone"]:
        learner = live["learner"]
        pairs += [
            ("connected", names(live["connected"])),
            ("not connected", "; ".join(_absent(member) for member in live["not_connected"]) or "–"),
            ("learner", _learner(learner)),
            *([("consent", consents(learner["consents"]))] if learner["consents"] else []),
            ("traffic", f"received {size(live['bytes_received'])}, sent {size(live['bytes_sent'])}"),
        ]
        if live["refused"]:
            refused = ", ".join(f"{count} × {reason}" for reason, count in sorted(live["refused"].items()))
            pairs.append(("refused", refused))
    facts(out, pairs)
    rows = [
        (
            c["component"],
            c["round"],
            c["generation"],
            f"{c['trainers']} of {c['active_hosts']}",
            c["label"],
            short(c["digest"] or c["certified_digest"]),
        )
        for c in node["components"]
    ]
    table(out, ("component", "round", "generation", "trainers", "state", "digest"), rows, empty="No components.")
    tell_notes(out, node)


def tell_notes(out: "Console", node: "NodeStatus") -> None:
    """Print the notes of the status view."""
    for note in node["notes"]:
        out.print(f"note: {note}")


def _name_and_standing(node: "NodeStatus") -> str:
    """Return this node's name, and its standing if it is no member."""
    if not node["member"]:
        return "–"
    name, key = node["member"]["name"], node["member"]["key"][:16]
    if node["gone"]:
        return f"{name}, no member since height {node['gone_since_height']}"
    if node["is_member"]:
        return str(name)
    return f"key {key}, no member yet" if name == key else f"{name} (key {key}), no member yet"


def _pace(node: "NodeStatus") -> str:
    """Say how fast rounds may follow each other, and when the next one may close; "" if nothing holds them back."""
    times = sorted({c["closes_after"] for c in node["components"] if c["closes_after"]})
    times_utc = [f"{time[:16].replace('T', ' ')} UTC" for time in times]
    seconds = node["federation"]["pace_seconds"]
    parts = [f"a round of a component every {lasting(seconds)} at most"] if seconds else []
    if times_utc:
        parts.append(
            f"the next not before {times_utc[0]}" + (f" to {times_utc[-1]}" if times_utc[0] != times_utc[-1] else "")
        )
    return "; ".join(parts)


def _absent(member: "NotConnected") -> str:
    return f"{member['name']} ({member['why']})" if member["why"] else str(member["name"])


def _learner(learner: "LearnerGlance") -> str:
    from ..node.views import under_way

    far = under_way(learner)
    state = f"{learner['state']}: {far}" if far else learner["state"]
    return " ".join(filter(None, (state, learner["device"], learner["detail"])))
