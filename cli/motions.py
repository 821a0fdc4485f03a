"""`collegium peer motions`, `approve`, `expel`, …: motions and ballots of members."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.errors import RefusedError, UnreachableError
from ..crypto.fingerprint import fingerprint
from ..protocol.bounds import MAX_WAIT
from .effects import of_open_motions, show_own
from .options import HomeOption, JsonOption, existing_home
from .output import confirm, emit, facts, names, say, table
from .read import answer

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.control.client import Client
    from ..node.views.shapes_membership import MotionEnded, Motions, MotionShown
    from ..protocol.membership import Action

WhoArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="A member's name, or a prefix of its key.")]
WaitOption = Annotated[float, typer.Option(min=0, max=MAX_WAIT, help="Seconds to wait for the block that has it.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
ReasonOption = Annotated[str, typer.Option(help="Shown to all members, and kept in the ledger.")]


def motions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the open motions, what an amendment does to the own students, and the outcomes of earlier ones."""
    from ..node import views

    place = existing_home(home)
    listing = answer(place, lambda client: client.motions(), views.motions)
    amends = any(m["action"] == "amend" for m in listing["open"])
    own = of_open_motions(place) if amends else {}

    def people(out: "Console") -> None:
        rows = [
            (
                m["motion"][:12],
                m["what"],
                m["by"]["name"],
                f"{len(m['yes'])} of {m['needed']}",
                names(m["no"]),
                m["your_ballot"],
                m["expires_after_height"],
                m["reason"] or "–",
            )
            for m in listing["open"]
        ]
        columns = ("motion", "what", "by", "yes", "no", "your ballot", "until height", "reason")
        table(out, columns, rows, empty=f"No open motions (height {listing['height']}).")
        for motion, exposures in own.items():
            out.print(f"amendment {motion[:12]} here (`collegium charter effect {motion[:12]}` has more):")
            show_own(out, exposures)
        ended = [
            (m["motion"][:12], m["what"], m["result"], m["why"] or "–", m["at_height"], m["reason"] or "–")
            for m in listing["ended"]
        ]
        if ended:
            out.print("ended:")
            table(out, ("motion", "what", "result", "why", "height", "reason"), ended, empty="")

    emit({**listing, "own_students": own}, as_json, people)


MotionArgument = Annotated[
    str,
    typer.Argument(metavar="MOTION", help="A prefix of its id, or the name that it is about."),
]


def approve(
    motion: MotionArgument,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even if this node's budget does not cover the rounds that run again.")
    ] = False,
    wait: WaitOption = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vote yes on a motion, or propose to admit a held application. A ballot is final."""
    _vote(motion, True, wait, home, as_json, anyway=anyway)


def refuse(
    motion: MotionArgument, wait: WaitOption = 20.0, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Vote no on a motion, or turn a held application down. A ballot is final."""
    _vote(motion, False, wait, home, as_json)


def _vote(motion: str, yes: bool, wait: float, home: Path | None, as_json: bool, *, anyway: bool = False) -> None:
    from ..node.control.client import Client

    client = Client(existing_home(home))
    motions_before = known_motions(client)
    sent = client.vote(motion, yes=yes, anyway=anyway)
    if not sent["submitted"]:
        emit(sent, as_json, lambda out: out.print(f"turned down: {sent['withdrawn']}"))
        return
    if sent["motion"] is not None:
        _follow_motion(client, sent["motion"], wait, as_json)
    elif sent["subject"] is not None:
        follow(client, "admit", sent["subject"], wait, as_json, motions_before)


def expel(
    member: WhoArgument,
    reason: ReasonOption = "",
    heights: Annotated[int, typer.Option(min=50, max=100_000, help="Heights that it stays open.")] = 500,
    yes: YesOption = False,
    wait: WaitOption = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to expel a member; the others vote. Its closed rounds stay, its key never comes back."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    who = client.member(member)
    confirm(f"Propose to expel {who['name']} ({who['key'][:16]})?", yes)
    motions_before = known_motions(client)
    client.propose("expel", who["key"], reason=reason, heights=heights)
    follow(client, "expel", who["key"], wait, as_json, motions_before)


def leave(
    reason: ReasonOption = "",
    yes: YesOption = False,
    wait: WaitOption = 60.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave the federation. Contributions stay until they are withdrawn, before or after: `unlearn request`."""
    from ..node.control.client import Client
    from ..node.views.consequences import of_losing

    client = Client(existing_home(home))
    status = client.status()
    me = status["member"]
    if me is None or not status["is_member"]:
        raise RefusedError("this node is not a member", "There is nothing to leave: `collegium node status`.")
    for warning in of_losing(status, client.member(me["key"])["active_host_of"]):
        say(f"warning: {warning}")
    confirm("Leave? This key never comes back.", yes)
    motions_before = known_motions(client)
    client.propose("leave", reason=reason)
    follow(client, "leave", me["key"], wait, as_json, motions_before)


def show(member: WhoArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one member: since when, by which motion, under which keys, and the motions about it."""
    from ..node import views

    shown = answer(
        existing_home(home),
        lambda client: client.member(member),
        lambda context: views.member(context, views.find_member(context, member)),
    )

    def people(out: "Console") -> None:
        since = "the charter" if not shown["since_height"] else f"height {shown['since_height']}"
        pairs: list[tuple[str, object]] = [
            ("name", shown["name"]),
            ("key", shown["key"]),
            ("by telephone", fingerprint(bytes.fromhex(shown["key"]))),
            ("member since", since + (f", by motion {shown['admitted_by'][:12]}" if shown["admitted_by"] else "")),
        ]
        if shown["gone"]:
            by = f", by motion {shown['ended_by'][:12]}" if shown["ended_by"] else ""
            pairs.append(("until", f"height {shown['until_height']}: {shown['gone']}{by}"))
        pairs += [("earlier key", key) for key in shown["earlier_keys"]]
        if shown["later_key"]:
            pairs.append(("later key", shown["later_key"]))
        pairs += [
            ("addresses", " ".join(shown["addresses"]) or None),
            ("active host of", ", ".join(shown["active_host_of"]) or None),
        ]
        facts(out, pairs)
        for m in shown["open_motions"]:
            out.print(f"open: {m['what']}, {len(m['yes'])} of {m['needed']} yes, {_motion(m)}")
        for ended in shown["ended_motions"]:
            out.print(f"{ended['result']} at height {ended['at_height']}: {ended['what']}, {_motion(ended)}")

    emit(shown, as_json, people)


def _motion(m: "MotionShown | MotionEnded") -> str:
    reason = f" ({m['reason']})" if m["reason"] else ""
    return f"motion {m['motion'][:12]}{reason}"


# ---- the state of a motion


def known_motions(client: "Client") -> set[str]:
    """Return the motions that ended or that this node voted on: a new motion is none of them."""
    listing = client.motions()
    return {m["motion"] for m in _every(listing) if not _to_vote(m)}


def _every(listing: "Motions") -> "list[MotionShown | MotionEnded]":
    return [*listing["open"], *listing["ended"]]


def _to_vote(motion: "MotionShown | MotionEnded") -> bool:
    return (
        "your_ballot" in motion and motion["your_ballot"] == "not cast"
    )  # proposing the same motion again would be a yes vote


def follow(
    client: "Client", action: "Action", subject: str, wait: float, as_json: bool, motions_before: Collection[str]
) -> None:
    """Wait until a block has the motion, or this node's yes to an equal one, and show its state.

    `motions_before` are the `known_motions` of just before.
    """

    def find(listing: "Motions") -> "MotionShown | MotionEnded | None":
        same = (m for m in _every(listing) if m["action"] == action and m["subject"]["key"] == subject)
        return next((m for m in same if m["motion"] not in motions_before and not _to_vote(m)), None)

    _await(client, find, wait, as_json)


def _follow_motion(client: "Client", digest: str, wait: float, as_json: bool) -> None:
    """Wait until a block has this node's ballot, and return the motion's state."""

    def find(listing: "Motions") -> "MotionShown | MotionEnded | None":
        ended = next((m for m in listing["ended"] if m["motion"] == digest), None)
        voted = next((m for m in listing["open"] if m["motion"] == digest and m["your_ballot"] in ("yes", "no")), None)
        return ended or voted

    _await(client, find, wait, as_json)


def _await(
    client: "Client", find: "Callable[[Motions], MotionShown | MotionEnded | None]", wait: float, as_json: bool
) -> None:
    deadline = time.monotonic() + wait
    while (motion := find(client.motions())) is None:
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"It is signed, and no block has it after {wait:g} s",
                "It is in the next one that the members agree on: `collegium node status`, `collegium peer motions`.",
            )
        time.sleep(0.2)

    def people(out: "Console") -> None:
        if "result" in motion:
            why = f" ({motion['why']})" if motion["why"] else ""
            out.print(f"{motion['result']} at height {motion['at_height']}: {motion['what']}{why}")
        else:
            out.print(
                f"open: {motion['what']}, {len(motion['yes'])} of {motion['needed']} yes,"
                f" motion {motion['motion'][:12]}"
            )
            out.print(f"still to vote: {names(motion['undecided'])}")

    emit(motion, as_json, people)
