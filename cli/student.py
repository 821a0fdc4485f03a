"""`collegium unlearn subject`: forget students."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ..crypto.errors import RefusedError, UsageError
from ..node.words import counted
from . import deletion_receipts, near, putting_off, removal
from .files import check_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import confirm, emit, recovery_price, say
from .read import charter_in_force

if TYPE_CHECKING:
    from ..node.control.client import Client
    from ..node.control.replies import StudentsForgotten, StudentsLook
    from ..node.home import Home

    class Known(StudentsLook):
        """What is known of students, and why no update would be withdrawn."""

        why_none: str | None


T = TypeVar("T")


def subject(
    students: Annotated[
        list[str],
        typer.Argument(
            metavar="ID…",
            help="Students' ids in this institution's data; - reads a line of input, or all lines of a file.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file for the deletion receipt; of several FILE, FILE.2, …")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for the hosts' certificate.")] = 120.0,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Another spelling of a student's id, to be forgotten too; may be repeated."),
    ] = None,
    exactly: Annotated[bool, typer.Option("--exactly", help="Similar ids are other students.")] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Even if neither the data nor any training run has an id; its receipt says so."),
    ] = False,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave out now, withdraw then: 2026-09-07T02:00, local time.")
    ] = None,
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="As --at, at the next time of [unlearning] schedule in config.toml.")
    ] = False,
    no_retrain: Annotated[
        bool, typer.Option("--no-retrain", help="Pause this node's training with the withdrawal.")
    ] = False,
    measure: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Measure the cost to the shared model first [if it asks]."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget students: withdraw every update that saw any of them, train on without them, and write receipts.

    All ids are checked first. If neither the data now nor any training run of the past has one of them, nothing is
    done, unless --anyway is given. It says what the removal costs, and asks. Ids in the data that differ in case,
    leading zeros or form only are named, and it asks whether they are the same student; with --yes, --also or
    --exactly must say so. The ids stay on this machine. Running it again is safe: it goes on where it was, and writes
    receipts of today. With --at or --scheduled the daemon withdraws at that time, with all others that wait for it.
    """
    from ..node.control.client import Client

    place = existing_home(home)
    ids_given, when = given_ids(students), putting_off.time_of(place, at, scheduled)
    if when is not None and out is not None:
        raise UsageError(
            "--out: there is a receipt only after the withdrawal", "Run this again then, with --out alone."
        )
    client = Client(place)
    client.status()  # before the operator is asked
    names = near.meant(place, ids_given[0], [*ids_given[1:], *(also or ())], exactly=exactly, yes=yes)
    looks = {name: look_for(client, place, name) for name in names}
    ids = known_ids(looks, ids_given, anyway)
    files: list[Path | None] = [None] * len(ids)
    if out is not None:
        files = [out, *(out.with_name(f"{out.name}.{number}") for number in range(2, len(ids) + 1))]
        for file in files:
            check_new(file or out, force=force)
    each = by_student(ids, ids_given, exactly=exactly)
    cost: removal.Price | None = None
    asked_at_terminal = not yes and sys.stdin.isatty()

    def ask() -> int:
        """Say the price, and ask; return the number of updates that it was about."""
        nonlocal cost
        together = look_for(client, place, *ids)
        if together["would_withdraw"] and (measure or (measure is None and asked_at_terminal)):
            cost = removal.price(place, set(map(bytes.fromhex, together["updates"])), quiet=as_json)
            removal.show(cost)
        for number, name in enumerate(ids if len(ids) > 1 else (), 1):
            say(f"id {number} of {len(ids)}: {seen_by(looks[name])}")
        if together["would_withdraw"] and when is None and asked_at_terminal:
            putting_off.tell_choices(place, client, together)
        confirm(question(together, len(ids)) if when is None else putting_off.question(together, len(each), when), yes)
        return together["would_withdraw"]

    if when is not None:
        option = "--scheduled" if scheduled else "--at"
        at_the_price(
            client,
            ids,
            ask,
            lambda at_most: putting_off.put_off(
                client, each, when, option, pause=no_retrain, at_most=at_most, as_json=as_json
            ),
            yes=yes,
        )
        return
    sent = at_the_price(
        client,
        ids,
        ask,
        lambda at_most: forget(client, place, ids, looks, wait, pause=no_retrain, at_most=at_most),
        yes=yes,
    )
    done = [
        _with_receipt(place, name, looks[name], sent, file, force=force) | {"price": cost}
        for name, file in zip(ids, files, strict=True)
    ]
    answer = done[0] | ({"also": done[1:]} if len(done) > 1 else {})
    lines: list[str] = []
    for number, (name, forgotten) in enumerate(zip(ids, done, strict=True), 1):
        lines += [f"id {number} of {len(done)}, {name!r}:"] if len(done) > 1 else []  # whose receipt and key these are
        lines += _result_lines(forgotten)
    emit(answer, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))


def at_the_price(
    client: "Client", ids: list[str], ask: Callable[[], int], do: Callable[[int | None], T], *, yes: bool
) -> T:
    """Ask, then do it for no more updates than were asked about; if there are more by then, ask once again.

    The federation goes on while the question stands. The second question says so, and its answer holds for what comes
    meanwhile: rounds may close faster than anybody reads. With `yes` nothing was asked, and nothing is compared.
    """
    asked = ask()
    try:
        return do(None if yes else asked)
    except RefusedError:
        now = client.look_for_students(*ids)["would_withdraw"]
        if yes or now <= asked:
            raise
    say(
        f"Nothing was done: while you were asked, the price rose from {counted(asked, 'update')} to {now}. It may rise"
        " with every round. If you agree this time, all that saw them by then are withdrawn."
    )
    ask()
    return do(None)


def by_student(ids: list[str], ids_given: list[str], *, exactly: bool) -> list[list[str]]:
    """Return the ids of each student: beside one given id all are of one student, else those that are spelt alike."""
    from ..node.data.spelling import near as form

    if len(ids_given) == 1:
        return [ids]
    students: dict[str, list[str]] = {}
    for name in ids:
        students.setdefault(name if exactly else form(name), []).append(name)
    return list(students.values())


def given_ids(students: list[str]) -> list[str]:
    """Return the ids, cleaned, each once: "-" stands for a line of input, or for all lines of what is no terminal."""
    from ..node.data.spelling import clean

    ids: list[str] = []
    for student in students:
        if student != "-":
            ids.append(student)
        elif sys.stdin.isatty():
            ids.append(sys.stdin.readline())
        else:
            ids += [line for line in sys.stdin if line.strip()] or [""]
    return list(dict.fromkeys(map(clean, ids)))


def look_for(client: "Client", place: "Home", *names: str) -> "Known":
    """Return this node's knowledge of students together, before any change."""
    look = client.look_for_students(*names)
    if not look["in_data"] and (ids := near.in_data(place)) is not None:
        look["in_data"] = set(names) <= set(ids)  # the learner may have opened the data before, or not at all
    return {**look, "why_none": None if look["would_withdraw"] else _why_none(place, names[0], look)}


def known_ids(looks: "dict[str, Known]", ids_given: list[str], anyway: bool) -> list[str]:
    """Return the ids that the data or training runs here have. Raises RefusedError if a given student has none.

    Some of a student's ids may be spellings that occur nowhere: they need no action.
    """
    from ..node.data.spelling import near as form

    if anyway:
        return list(looks)
    ids = [name for name, look in looks.items() if look["in_data"] or look["drawn"] or look["left_out"]]
    forms = {form(name) for name in ids}
    missing = [number for number, name in enumerate(ids_given, 1) if form(name) not in forms]
    if len(ids_given) == 1 and ids:  # --also names another id of the same student
        missing = []
    if not missing:
        if len(ids) < len(looks):
            say(f"{len(looks) - len(ids)} of the {len(looks)} ids are spellings that nobody here has: nothing to do.")
        return ids
    numbers = ", ".join(map(str, missing))
    these = "this id" if len(ids_given) == 1 else f"number {numbers} of these {len(ids_given)} ids"
    if any(looks[ids_given[number - 1]]["in_data"] is None for number in missing):
        what = f"No training run of the past has {these}, and whether the data have it cannot be looked up now"
    else:
        what = f"Nobody has {these}: neither the data now nor any recorded training run of this node"
    advice = "Check how it is written. Nothing was done. --anyway leaves it out all the same; its receipt says so."
    raise RefusedError(what, advice)


def _why_none(place: "Home", name: str, look: "StudentsLook") -> str:
    """Return the reason why no update that counts, or may count, saw this student."""

    if look["left_out"]:
        return "they are left out already, and no update that saw them counts now"
    if not look["own_updates"]:
        return "no update of this node counts or is in flight"
    if not (look["in_data"] or look["drawn"]):
        return "nobody here has this id"
    if near.is_held_out(place, name):
        return "they are held out for evaluation, and nothing is trained on them"
    rate = charter_in_force(place).learning.drawn
    return (
        f"they were not drawn in the {counted(look['own_rounds'], 'round')} in which this node counts. A step draws a"
        f" student with probability {rate:g}; a student new in the data was in no earlier one"
    )


def seen_by(look: "Known") -> str:
    """Say of one id how many updates its removal takes, or why none."""
    count = look["would_withdraw"]
    return f"{counted(count, 'update')} saw this student" if count else f"no update ({look['why_none']})"


def question(look: "Known", count: int) -> str:
    """Return the question to confirm, with the cost for all members."""
    updates, all_updates = look["would_withdraw"], look["own_updates"]
    who = "this student" if count == 1 else f"any of these {count} ids"
    unknown = look["of_unknown_students"]
    may = f" (the students of {unknown} of them are not recorded)" if unknown else ""
    if not updates:
        why = f" ({look['why_none']})" if count == 1 and look["why_none"] else ""
        return f"No update saw {who}{why}, none is withdrawn; train without them from now on?"
    what = f"Withdraw the {counted(updates, 'update')} that saw {who}{may}, of {all_updates} of this node,"
    return f"{what} and train without them from now on? {recovery_price()}"


def forget(
    client: "Client",
    place: "Home",
    ids: list[str],
    looks: "dict[str, Known]",
    wait: float,
    say: Callable[[str], None] = say,
    *,
    pause: bool = False,
    at_most: int | None = None,
) -> "StudentsForgotten":
    """Leave all out, withdraw what saw any of them in one go, and wait until hosts certified states without it.

    `say` is called with its progress, in sentences without an id. `pause`: pause training with it. Raises RefusedError,
    and changes nothing, if it is more than `at_most` updates.
    """
    for name in ids:
        _tell_unknown(looks[name], say)
    sent = client.forget_students(*ids, pause=pause, at_most=at_most)
    if pause:
        say("Training is paused until `collegium node resume`.")
    who = "this student" if len(ids) == 1 else f"any of these {len(ids)} ids"
    if count := sent["withdrawn_updates"] + sent["remaining"]:
        say(f"{counted(count, 'update')} saw {who} and {'is' if count == 1 else 'are'} being withdrawn.")
    else:
        why = looks[ids[0]]["why_none"] if len(ids) == 1 else None
        say(f"0 updates saw {who}: {why or 'none that did counts now'}.")
    if sent["of_unknown_students"]:
        say(f"The students of {sent['of_unknown_students']} of them are not recorded: {who} may be one.")
    if sent["beyond_refold_horizon"]:
        say(f"{sent['beyond_refold_horizon']} more are beyond the federation's refold horizon and stay in its model.")
    for key, number in sent["under_former_keys"].items():
        say(f"{number} more are in force under the former key {key[:16]}, which the key in use cannot withdraw.")
    sent = _await_refold(client, ids, sent, wait)
    if sent["under_former_keys"]:
        raise _under_former(place, sent["under_former_keys"])
    return sent


def _tell_unknown(look: "Known", say: Callable[[str], None]) -> None:
    """Say what is not known of an id."""
    if look["left_out"]:
        return  # it is known: the next message says so
    if look["in_data"] is None:
        say("No learner has read the data yet: whether they have this id is not known.")
    elif not look["in_data"]:
        say("This id is not in the data here" + (", but in a training run of the past." if look["drawn"] else "."))
    if not (look["in_data"] or look["drawn"]):
        say("No recorded training run of this node has it. The following also holds for an id that does not exist.")


def _with_receipt(
    place: "Home", name: str, look: "Known", sent: "StudentsForgotten", out: Path | None, *, force: bool
) -> dict[str, Any]:
    """Return the answer on one id, with the receipt that is written to `out`."""
    id_known = bool(look["in_data"] or look["drawn"])
    none = not (sent["withdrawn_updates"] + sent["remaining"])
    facts = {"in_data": look["in_data"], "id_known": id_known, "why_none": look["why_none"] if none else None}
    answer: dict[str, Any] = {**sent, **facts, "receipt": None}
    if out is not None:
        answer |= {"receipt": str(out), **deletion_receipts.write(place, name, out, id_known=id_known, force=force)}
    return answer


def _result_lines(answer: dict[str, Any]) -> list[str]:
    if answer["receipt"] is None:
        return ["left out from now on"]
    lines = [f"left out from now on; the receipt is in {answer['receipt']}"]
    lines.append(f"its key, for the student alone, shown this once: {answer['key']}")
    if not answer["verified"]:
        lines.append(
            "no update of this institution is in force now, so it shows nothing of this student yet. Run the same"
            " command again with another --out when a round has counted this node again (`collegium round list`). The"
            " learner starts anew after a removal, so that the first rounds may close without this node."
        )
    return lines


def _under_former(place: "Home", counts: dict[str, int]) -> RefusedError:
    from ..node.home import keys

    first, *_ = (shlex.quote(str(keys.kept(place, bytes.fromhex(key)))) for key in counts)
    return RefusedError(
        f"In force still: {counted(sum(counts.values()), 'update')} under a former key of this node, which may have"
        " seen the student",
        f"For each of these keys: `collegium unlearn statement --key-file {first} --out FILE`, then `collegium unlearn"
        " carry FILE`; then run the same command again.",
    )


def _await_refold(client: "Client", ids: list[str], sent: "StudentsForgotten", wait: float) -> "StudentsForgotten":
    """Wait until no withdrawn update counts and the hosts certified states without them; request the rest.

    Returns the last answer, with all updates that were withdrawn. Raises UnreachableError.
    """
    import time

    from ..crypto.errors import UnreachableError

    deadline = time.monotonic() + wait
    updates, count = set(sent["updates"]), sent["withdrawn_updates"]
    while not (settled := client.settled(sent["updates"])) or sent["remaining"]:
        if settled:  # a height has a limit
            sent = client.forget_students(*ids)
            updates, count = updates | set(sent["updates"]), count + sent["withdrawn_updates"]
        if time.monotonic() > deadline:
            more = f"; {sent['remaining']} updates more are withdrawn only then" if sent["remaining"] else ""
            raise UnreachableError(
                f"The hosts have not certified the refold after {wait:g} s",
                "They are left out, and it goes on by itself: `collegium unlearn status`. Run the same command"
                f" again for the receipt{more}.",
            )
        time.sleep(0.3)
    return {**sent, "updates": sorted(updates), "withdrawn_updates": count}
