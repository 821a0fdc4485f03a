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
    from ..node.home.timetable import Timetable

FARTHEST = 366  # days ahead
EARLY = "If these updates would be too old to be withdrawn by then (beyond the refold horizon), that happens earlier."
SOON = "These updates are nearly too old to be withdrawn (beyond the refold horizon): that happens in a moment."


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
    return f"{datetime.fromtimestamp(at).astimezone():%a %Y-%m-%d %H:%M %Z}"


def tell_choices(place: "Home", client: "Client", look: "StudentsLook") -> None:
    """Say what there is besides withdrawing now, to an operator who is asked to do that."""
    from ..node.home import config as settings
    from ..node.home.timetable import timetable

    fixed = timetable(settings.load(place.config).unlearning.schedule)
    name, when = ("--scheduled", f" ({_next(fixed)})") if fixed is not None else ("--at TIME", "")
    say("Other ways than to withdraw now:")
    say(
        f"  {name}: leave them out now, and withdraw then{when}. All that wait for one time open the recovery rounds"
        " once."
    )
    say("  --no-retrain, with any of them: pause this node's training with the withdrawal, until `node resume`.")
    if waiting := client.withdrawals()["scheduled"]:
        say("To come: " + "; ".join(f"{counted(b['students'], 'student')}, {b['local']}" for b in waiting) + ".")
    if look["scheduled"]:
        say(
            f"Their withdrawal is to come, {', '.join(map(words, look['scheduled']))}: what you choose now replaces it."
        )


def _next(fixed: "Timetable") -> str:
    return words(fixed.next(datetime.now()).timestamp())


def question(look: "StudentsLook", students: int, at: int) -> str:
    """Return the question to confirm."""
    who = "this student" if students == 1 else f"these {students} students"
    updates = look["would_withdraw"]
    what = f"withdraw the {counted(updates, 'update')} that saw them on {words(at)}" if updates else "no more"
    why = "" if updates else " (no update saw them)"
    return f"Train without {who} from now on, and {what}{why}?"


def put_off(
    client: "Client",
    students: list[list[str]],
    at: int,
    option: str,
    *,
    pause: bool,
    at_most: int | None,
    as_json: bool,
) -> None:
    """Leave students out now, each by all its ids, and let the daemon withdraw at that time.

    `option` named the time. Raises RefusedError, and changes nothing, if it is more than `at_most` updates.
    """
    who = "this student" if len(students) == 1 else "these students"
    try:
        sent = client.put_students_off(at, *students, pause=pause, at_most=at_most)
    except UnreachableError as error:
        raise UnreachableError(
            error.message,
            f"{error.advice} It may have left {who} out already, and noted no withdrawal yet: when the daemon answers,"
            " give the same command again, or take it back by `collegium unlearn cancel ID`.",
        ) from error
    answer: dict[str, Any] = {**sent, "at": datetime.fromtimestamp(at).astimezone().isoformat(), "pauses": pause}
    updates, with_others = sent["will_withdraw"], sent["with_others"]
    together = f", with those of {counted(with_others, 'other student')}" if with_others else ""
    lines = [
        f"Left out from now on. {counted(updates, 'update')} that saw {who} will be withdrawn on {words(at)}{together}."
        if updates
        else f"Left out from now on. No update saw {who}: none will be withdrawn."
    ]
    if pause:
        lines.append("Training is paused then, until `collegium node resume`.")
    if sent["rounds_left"] is not None:
        lines.append(EARLY if sent["rounds_left"] else SOON)
    if sent["beyond_refold_horizon"]:
        lines.append(f"{sent['beyond_refold_horizon']} more are beyond the refold horizon and stay in the model.")
    lines += [
        f"{number} more are in force under the former key {key[:16]}, which the key in use cannot withdraw."
        for key, number in sent["under_former_keys"].items()
    ]
    lines += [
        f"Before that: `collegium unlearn cancel ID` takes it back; the same command without {option} withdraws now.",
        f"After it: the same command with --out FILE in place of {option} writes the receipt.",
    ]
    emit(answer, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))


def cancel(
    students: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Students' ids; - reads a line of input, or all lines of a file.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back withdrawals that are to come (`unlearn subject --at`), before their time.

    The shared model keeps the updates that saw these students, and they are trained on again, unless they were left out
    before. One of a student's ids is enough: what --also named with it is taken back, too.
    """
    from ..node.control.client import Client
    from .student import given_ids

    client, ids = Client(existing_home(home)), given_ids(students)
    client.status()  # before the operator is asked
    which = "the withdrawal" if len(ids) == 1 else f"the withdrawals of these {len(ids)} ids"
    who = "the student, who is" if len(ids) == 1 else "the students, who are"
    confirm(f"Take back {which} that was to come? The model keeps what it learned from {who} trained on again.", yes)
    done = client.cancel_students(*ids)
    lines = [f"{counted(done['cancelled'], 'withdrawal is', 'withdrawals are')} taken back."]
    if back := done["readmitted"]:
        lines.append(f"{counted(back, 'student is', 'students are')} trained on again.")
    if stay := done["cancelled"] - done["readmitted"]:
        lines.append(f"{counted(stay, 'student was', 'students were')} left out before that already: no change.")
    if left := sum(batch["students"] for batch in client.withdrawals()["scheduled"]):
        lines.append(f"Still to come: {counted(left, 'student')} (`collegium unlearn status`).")
    emit(done, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))
