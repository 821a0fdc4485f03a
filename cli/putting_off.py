"""`unlearn subject --at` and `--scheduled`: students are left out now, and their updates withdrawn at a time."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UnreachableError, UsageError
from ..node.words import counted
from .options import HomeOption, JsonOption, existing_home
from .output import confirm, emit, say

if TYPE_CHECKING:
    from ..node.control.client import Client
    from ..node.control.replies import StudentsLook
    from ..node.home import Home

FARTHEST = 366  # days ahead
EARLY = (
    "If no more than {rounds} rounds are left before these updates leave the federation's refold horizon, they are"
    " withdrawn then, before that time."
)


def time_of(place: "Home", at: str | None, scheduled: bool) -> int | None:
    """Return the Unix time that --at or --scheduled name; None without either. Raises UsageError."""
    from ..node.home import config as settings
    from ..node.home.timetable import timetable

    if at is not None and scheduled:
        raise UsageError("--at and --scheduled do not go together", "Give one of them.")
    if scheduled:
        fixed = timetable(settings.load(place.config).unlearning.schedule)
        if fixed is None:
            what = f"{place.config} has no time at which scheduled withdrawals are made"
            raise UsageError(what, 'Write [unlearning] schedule = "Sun 02:00", or give --at TIME.')
        return int(fixed.next(datetime.now()).timestamp())
    return None if at is None else _told(at)


def _told(text: str) -> int:
    advice = "Write it as 2026-09-07T02:00, by local time, or with an offset: 2026-09-07T02:00+00:00."
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:  # the last two: a year that this machine cannot count
        raise UsageError(f"--at {text!r} is no time", advice) from error
    ahead = moment - time.time()
    if not 0 < ahead <= FARTHEST * 86_400:
        where = "over" if ahead <= 0 else f"more than {FARTHEST} days ahead"
        raise UsageError(f"--at {text}: that is {where}", "To withdraw now, leave it out.")
    return int(moment)


def words(at: float) -> str:
    """Return a Unix time in this machine's zone."""
    return f"{datetime.fromtimestamp(at).astimezone():%a %Y-%m-%d %H:%M:%S %Z}"


def tell_choices(place: "Home", client: "Client", look: "StudentsLook") -> None:
    """Say what there is besides withdrawing now, to an operator who is asked."""
    from ..node.home import config as settings
    from ..node.home.timetable import timetable

    fixed = timetable(settings.load(place.config).unlearning.schedule)
    later = f" ({words(fixed.next(datetime.now()).timestamp())})" if fixed is not None else ""
    waiting = client.withdrawals()["scheduled"]
    say("What there is:")
    say("  now: withdraw and fold again at once. The others see that updates were withdrawn, and when.")
    say(
        f"  {'--scheduled' if fixed is not None else '--at TIME'}{later}: leave the student out now, and withdraw then,"
        " with all others that wait for that time: one batch opens no more recovery rounds than one student does."
        f" {_waiting(waiting)}"
    )
    say("  --no-retrain, with any of them: pause this node's training with the withdrawal, until `node resume`.")
    if look["scheduled"]:
        say(f"A withdrawal is to come at {', '.join(map(words, look['scheduled']))}: what you choose now replaces it.")


def _waiting(waiting: Any) -> str:
    if not waiting:
        return "Nothing waits so far."
    return "To come: " + "; ".join(f"{counted(b['students'], 'student')} at {b['local']}" for b in waiting) + "."


def question(look: "StudentsLook", count: int, at: int) -> str:
    """Return the question to confirm."""
    who = "this student" if count == 1 else f"these {count} students"
    updates = look["would_withdraw"]
    what = (
        f"withdraw the {counted(updates, 'update')} that saw them"
        if updates
        else "do nothing more (no update saw them)"
    )
    return f"Train without {who} from now on, and {what} at {words(at)}?"


def put_off(client: "Client", ids: list[str], at: int, *, pause: bool, as_json: bool) -> None:
    """Leave students out now, and let the daemon withdraw at that time."""
    try:
        sent = client.put_students_off(at, pause, *ids)
    except UnreachableError as error:
        raise UnreachableError(
            error.message,
            f"{error.advice} It may have left {'this student' if len(ids) == 1 else 'these students'} out already, and"
            " noted no withdrawal yet: give the same command again when the daemon answers.",
        ) from error
    answer: dict[str, Any] = {**sent, "at": datetime.fromtimestamp(at).astimezone().isoformat(), "pauses": pause}
    lines = [
        f"left out from now on; {counted(sent['will_withdraw'], 'update')} will be withdrawn at {words(at)}"
        + (f", with {counted(sent['with_others'], 'other request')}" if sent["with_others"] else "")
    ]
    if pause:
        lines.append("Training is paused then, until `collegium node resume`.")
    if sent["rounds_left"] is not None:
        lines.append(EARLY.format(rounds=sent["rounds_left"]) if sent["rounds_left"] else _soon())
    if sent["beyond_refold_horizon"]:
        lines.append(f"{sent['beyond_refold_horizon']} more are beyond the refold horizon and stay in the model.")
    lines += [
        f"{number} more are in force under the former key {key[:16]}, which the key in use cannot withdraw."
        for key, number in sent["under_former_keys"].items()
    ]
    lines.append(
        "Until then: `collegium unlearn cancel ID` takes it back; the same command without --at does it now. After it:"
        " the same command with --out writes the receipt."
    )
    emit(answer, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))


def _soon() -> str:
    return "These updates are about to leave the federation's refold horizon: they are withdrawn in a moment."


def cancel(
    students: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Students' ids; - reads a line of input, or all lines of a file.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back withdrawals that were put off (`unlearn subject --at`), before their time.

    Their updates stay in the shared model, and who was left out by the request alone is trained on again.
    """
    from ..node.control.client import Client
    from .student import given_ids

    client, ids = Client(existing_home(home)), given_ids(students)
    client.status()  # before the operator is asked
    who = "this student" if len(ids) == 1 else f"these {len(ids)} students"
    confirm(f"Keep the updates that saw {who}, and train on them again?", yes)
    done = client.cancel_students(*ids)
    lines = [
        f"{counted(done['cancelled'], 'request')} taken back; {counted(done['readmitted'], 'student')} trained on again"
    ]
    if stay := done["cancelled"] - done["readmitted"]:
        lines.append(f"{counted(stay, 'student')} had been left out before the request, and stays so.")
    if left := sum(batch["students"] for batch in client.withdrawals()["scheduled"]):
        lines.append(f"Still to come, other spellings (--also) counted: {counted(left, 'student')} (`unlearn status`).")
    emit(done, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))
