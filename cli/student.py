"""`collegium unlearn subject`: forget one student."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import RefusedError, UsageError
from . import deletion_receipts, near
from .files import check_new
from .options import HomeOption, JsonOption, existing_home
from .output import confirm, emit, recovery_price, say

if TYPE_CHECKING:
    from ..node.control.client import Client
    from ..node.control.replies import StudentForgotten, StudentLook
    from ..node.home import Home

    class Known(StudentLook):
        """What is known of a student, and why no update would be withdrawn."""

        why_none: str | None


def subject(
    student: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The student's id in this institution's data; - reads it from a line of input."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file for the student's deletion receipt.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for the hosts' certificate.")] = 120.0,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Another id of the same student, to be forgotten too; may be repeated."),
    ] = None,
    exactly: Annotated[bool, typer.Option("--exactly", help="Similar ids are other students.")] = False,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Even if neither the data nor any training run has this id; the receipt says so."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget one student: withdraw every update that saw them, train on without them, and write a receipt.

    An id that neither the data now nor any training run of the past has is refused, unless --anyway is given.
    Ids in the data that differ in case, leading zeros or form only are named, and it asks whether they are the same
    student; with --yes, --also or --exactly must say so. Of several ids each gets a receipt: FILE, FILE.2, FILE.3, ...
    The id stays on this machine. Running it again is safe: it goes on where it was, and writes a receipt of today.
    """
    from ..node.control.client import Client

    place = existing_home(home)
    name = sys.stdin.readline().rstrip("\n") if student == "-" else student
    client = Client(place)
    client.status()  # before the operator is asked
    ids = near.meant(place, name, also or (), exactly=exactly, yes=yes)
    looks = {each: _look(client, place, each) for each in ids}
    ids = _known(looks, anyway)
    files: list[Path | None] = [None] * len(ids)
    if out is not None:
        files = [out, *(out.with_name(f"{out.name}.{number}") for number in range(2, len(ids) + 1))]
        for file in files:
            check_new(file or out)
    confirm(_price([looks[each] for each in ids]), yes)
    asked = [client.forget_student(each) for each in ids]  # all are left out before the first wait
    done = [
        _forget(client, place, each, looks[each], sent, file, wait)
        for each, sent, file in zip(ids, asked, files, strict=True)
    ]
    found = done[0] | ({"also": done[1:]} if len(done) > 1 else {})
    lines = [line for each in done for line in _forgotten(each)]
    emit(found, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))


def _look(client: "Client", place: "Home", name: str) -> "Known":
    """Return this node's knowledge of a student, before any change."""
    look = client.look_for_student(name)
    if not look["in_data"] and (ids := near.in_data(place)) is not None:
        look["in_data"] = name in ids  # the learner may have opened the data before, or not at all
    return {**look, "why_none": None if look["would_withdraw"] else _why_none(place, name, look)}


def _known(looks: "dict[str, Known]", anyway: bool) -> list[str]:
    """Return the ids that the data or training runs here have. Raises UsageError without any.

    Some of a student's ids may be spellings that occur nowhere: they need no action.
    """
    if anyway:
        return list(looks)
    known = [name for name, look in looks.items() if look["in_data"] or look["drawn"] or look["left_out"]]
    if known:
        if len(known) < len(looks):
            say(f"{len(looks) - len(known)} of the {len(looks)} ids are spellings that nobody here has: nothing to do.")
        return known
    these = "this id" if len(looks) == 1 else "any of these ids"
    if any(look["in_data"] is None for look in looks.values()):
        what = f"No training run of the past has {these}, and whether the data have it cannot be looked up now"
    else:
        what = f"Nobody has {these}: neither the data now nor any recorded training run of this node"
    advice = "Check how it is written. Nothing was done. --anyway leaves it out all the same; its receipt says so."
    raise UsageError(what, advice)


def _why_none(place: "Home", name: str, look: "StudentLook") -> str:
    """Return the reason why no update that counts, or may count, saw this student."""
    from ..node.verify import read_charter
    from ..protocol.components import MILLION

    if look["left_out"]:
        return "they are left out already, and the updates that saw them were withdrawn before"
    if not look["own_updates"]:
        return "no update of this node counts or is in flight"
    if not (look["in_data"] or look["drawn"]):
        return "nobody here has this id"
    if near.is_held_out(place, name):
        return "they are held out for evaluation, and nothing is trained on them"
    rate = read_charter(place.charter)[0].learning.sample_rate / MILLION
    return (
        f"they were not drawn in the {look['own_rounds']} rounds in which this node counts. A step draws a student with"
        f" probability {rate:g}; a student new in the data was in no earlier one"
    )


def _price(looks: "list[Known]") -> str:
    """Return the question to confirm, with the cost."""
    count = sum(look["would_withdraw"] for look in looks)
    who = "this student" if len(looks) == 1 else f"these {len(looks)} ids"
    what = f"Withdraw the {count} updates that saw {who}" if count else f"No update saw {who}, none is withdrawn;"
    unknown = sum(look["of_unknown_students"] for look in looks)
    may = f" (the students of {unknown} of them are not recorded)" if unknown else ""
    cost = f" {recovery_price()}" if count else ""
    return f"{what}{may}{' and' if count else ''} train without them from now on?{cost}"


def _forget(
    client: "Client", place: "Home", name: str, look: "Known", sent: "StudentForgotten", out: Path | None, wait: float
) -> dict[str, Any]:
    """Wait until an id is forgotten, from the answer `sent` of its request, and write its receipt to `out`."""
    known = bool(look["in_data"] or look["drawn"])
    if look["left_out"]:
        pass  # it is known: the next message says so
    elif look["in_data"] is None:
        say("No learner has read the data yet: whether they have this id is not known.")
    elif not look["in_data"]:
        say("This id is not in the data here" + (", but in a training run of the past." if look["drawn"] else "."))
    if not known and not look["left_out"]:
        say("No recorded training run of this node has it. The following also holds for an id that does not exist.")
    count = sent["withdrawn_updates"] + sent["remaining"]
    if count:
        say(f"{count} updates saw this student and are being withdrawn.")
    else:
        say(f"0 updates saw this student: {look['why_none'] or 'those that saw them were withdrawn before'}.")
    if sent["of_unknown_students"]:
        say(f"The students of {sent['of_unknown_students']} of them are not recorded: this student may be one.")
    if sent["beyond_refold_horizon"]:
        say(f"{sent['beyond_refold_horizon']} more are beyond the federation's refold horizon and stay in its model.")
    for key, count in sent["under_former_keys"].items():
        say(f"{count} more are in force under the former key {key[:16]}, which the key in use cannot withdraw.")
    sent = _await_refold(client, name, sent, wait)
    if sent["under_former_keys"]:
        raise _under_former(place, sent["under_former_keys"])
    facts = {"in_data": look["in_data"], "id_known": known, "why_none": None if count else look["why_none"]}
    found: dict[str, Any] = {**sent, **facts, "receipt": None}
    if out is not None:
        found |= {"receipt": str(out), **deletion_receipts.write(place, name, out, id_known=known)}
    return found


def _forgotten(found: dict[str, Any]) -> list[str]:
    if found["receipt"] is None:
        return ["left out from now on"]
    lines = [f"left out from now on; the receipt is in {found['receipt']}"]
    lines.append(f"its key, for the student alone, shown this once: {found['key']}")
    if not found["verified"]:
        lines.append(
            "no update of this institution is in force now, so it shows nothing of this student yet: run the same"
            " command again after the next round"
        )
    return lines


def _under_former(place: "Home", counts: dict[str, int]) -> RefusedError:
    from ..node.home import keys

    first, *_ = (shlex.quote(str(keys.kept(place, bytes.fromhex(key)))) for key in counts)
    return RefusedError(
        f"{sum(counts.values())} updates under a former key of this node may have seen the student and are in force",
        f"For each of these keys: `collegium unlearn statement --key-file {first} --out FILE`, then `collegium unlearn"
        " carry FILE`; then run the same command again.",
    )


def _await_refold(client: "Client", student: str, sent: "StudentForgotten", wait: float) -> "StudentForgotten":
    """Wait until no withdrawn update counts and the hosts certified states without them; request the rest.

    Returns the last answer, with all updates that were withdrawn. Raises UnreachableError.
    """
    import time

    from ..crypto.errors import UnreachableError

    deadline = time.monotonic() + wait
    updates, count = set(sent["updates"]), sent["withdrawn_updates"]
    while not (settled := client.settled(sent["updates"])) or sent["remaining"]:
        if settled:  # a height has a limit
            sent = client.forget_student(student)
            updates, count = updates | set(sent["updates"]), count + sent["withdrawn_updates"]
        if time.monotonic() > deadline:
            more = f"; {sent['remaining']} updates more are withdrawn only then" if sent["remaining"] else ""
            raise UnreachableError(
                f"The hosts have not certified the refold after {wait:g} s",
                "The student is left out, and it goes on by itself: `collegium unlearn status`. Run the same command"
                f" again for the receipt{more}.",
            )
        time.sleep(0.3)
    return {**sent, "updates": sorted(updates), "withdrawn_updates": count}
