"""`collegium node alarms`: the problems that are reported to this node's operator, and whether that works."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from .options import HomeOption, JsonOption, existing_home
from .output import emit

if TYPE_CHECKING:
    from ..node.home.config import Alarm
    from ..node.home.paths import Home


def alarms(
    test: Annotated[bool, typer.Option("--test", help="Send a message now, marked as a test.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the problems that last, and whether they were reported as [alarm] of config.toml says; --test tries it."""
    from ..node.alarms import record
    from ..node.home import config as settings

    node_home = existing_home(home)
    config = settings.load(node_home.config)
    to = config.alarm
    if test:
        _try(node_home, to, config.node.name)
    result: dict[str, Any] = {
        "command": list(to.command),
        "webhook": to.webhook,
        "after_seconds": to.after_seconds,
        "tested": test,
        "problems": [
            {
                "kind": one.kind.value,
                "level": one.kind.level.value,
                "found": one.found,
                "advice": one.advice,
                "since": datetime.fromtimestamp(one.since, UTC).isoformat(timespec="seconds"),
                "reported": one.reported,
            }
            for one in record.load(node_home)
        ],
    }

    def people(out: Any) -> None:
        if test:
            out.print("the test message was taken")
        if later := to_come(node_home):
            out.print(f"note: {later}", soft_wrap=True)
        if not (to.command or to.webhook):
            out.print("no alarms: [alarm] in config.toml names no command and no webhook")
            return
        target = f"the command {to.command[0]}" if to.command else to.webhook
        out.print(f"reports go to {target}: of problems that last {to.after_seconds} s")
        for problem in result["problems"]:
            state = "reported" if problem["reported"] else "not reported yet"
            out.print(
                f"{problem['level']}, since {problem['since']}, {state}: {problem['found']} {problem['advice']}",
                soft_wrap=True,
            )
        if not result["problems"]:
            out.print("no problem lasts")

    emit(result, as_json, people)


def to_come(home: "Home") -> str:
    """Say that config.toml was written after the daemon that runs had started; "" if it was not."""
    from ..node.home.lock import held_since

    since = held_since(home)
    try:
        if since is None or home.config.stat().st_mtime_ns <= since:
            return ""
    except OSError:
        return ""  # `doctor` says what is wrong
    return "config.toml was written after the daemon had started: what changed in it counts from the next start."


def _try(home: "Home", to: "Alarm", node: str) -> None:
    import trio

    from ..node.alarms.deliver import deliver
    from ..node.alarms.due import trial
    from ..node.verify import read_charter

    if not (to.command or to.webhook):
        raise UsageError("There is nobody to tell", "Set command or webhook in [alarm] of config.toml.")
    federation = read_charter(home.charter)[0].name if home.charter.exists() else ""
    trio.run(deliver, to, trial(node, federation, time.time()))
