"""Members: invite, withdraw an invitation, vote on a motion or an application, propose to expel."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_never

from ....crypto.errors import UsageError
from ...control.client import Client
from ...control.replies import InvitationShown, Submitted
from ...views.consequences import of_gaining, of_losing, of_withdrawing
from ...views.shapes_membership import MotionShown
from ..blocks import Code, Facts
from ..source import Source
from .steps import Fields, File, Outcome, Plan, Step, Tell

BACK = "/members"
FINAL = "A ballot is final: it cannot be taken back or changed."
SIGNED = "It is signed and on its way; this page's list of motions shows it once a block has it."
MAX_REASON = 512  # bytes, as in the ledger


def invite(source: Source, fields: Fields) -> Step:
    """Ask whether to give out an invitation."""
    name, days, hold = fields.get("name").strip(), _days(fields.get("days", "7")), fields.get("hold") == "yes"
    until = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%d")
    command = f"collegium peer invite {shlex.quote(name)} --days {days}{' --hold' if hold else ''}".replace(" '' ", " ")
    client = Client(source.home)
    status = client.status()

    def do(_tell: Tell) -> Outcome:
        given = client.invite(name, days=days, hold=hold)
        text, title = given["text"], name or given["invitation"]
        return Outcome(
            "Invitation",
            (
                f"Invitation {given['invitation']}, good until {given['expires']}. Send its text in private: by it its"
                " holder applies. It is shown on this page alone; nobody can read it again later.",
                f"It leads to {', '.join(given['addresses'])}. The institution runs: collegium join FILE-OR-TEXT",
            ),
            command,
            BACK,
            (Facts([("invitation", Code(text))]),),
            (File(f"invitation-{_file_name(title)}.txt", (text + "\n").encode(), "the invitation as a file"),),
        )

    return Plan(
        f"Invite {name}?" if name else "Invite an institution?",
        "Make an invitation?",
        (
            f"Whoever has its text may apply once, until {until}. It is a secret: send it in private.",
            "The application waits here until you approve it."
            if hold
            else "The application is proposed to all members at once, as your motion, and with your yes.",
            f"If the members admit it: {of_gaining(status)}. It gets all records of the ledger, and the updates of the"
            " components that it hosts.",
        ),
        "Make the invitation",
        command,
        do,
        BACK,
    )


def uninvite(source: Source, fields: Fields) -> Step:
    """Ask whether to withdraw an invitation."""
    which = fields.get("invitation")
    client = Client(source.home)
    shown = _invitation(client, which)
    title = shown["name"] or which
    command = f"collegium peer invite --withdraw {which}"

    def do(_tell: Tell) -> Outcome:
        client.uninvite(which)
        return Outcome(
            "Invitation withdrawn", (f"Nobody is let in by the invitation for {title} any more.",), command, BACK
        )

    said = ["Its text lets nobody apply any more."]
    if shown["state"] == "proposed":
        said.append("A motion that was made by it stays: vote on that.")
    return Plan(
        f"Withdraw the invitation for {title}?", "Withdraw this invitation?", said, "Withdraw it", command, do, BACK
    )


def vote(source: Source, fields: Fields) -> Step:
    """Ask whether to cast a ballot, or to decide on an application that is held."""
    which, yes = fields.get("motion"), fields.get("yes") == "yes"
    client = Client(source.home)
    motion = next((one for one in client.motions()["open"] if one["motion"] == which), None)
    command = f"collegium peer {'approve' if yes else 'refuse'} {which[:12]}"
    if motion is None:
        return _held(client, _invitation(client, which), command, yes=yes)
    consequences = _if_passed(client, motion) if yes else ["Without enough votes for it, it changes nothing."]
    word = "yes" if yes else "no"

    def do(_tell: Tell) -> Outcome:
        client.vote(which, yes=yes)
        return Outcome("Your ballot", (f"Your {word} to “{motion['what']}” is signed.", SIGNED), command, BACK)

    needed = f"{len(motion['yes'])} of {motion['needed']} voted yes so far."
    return Plan(
        f"Vote {word}: {motion['what']}?",
        f"Vote {word} on the motion “{motion['what']}”?",
        (needed, *consequences, FINAL),
        f"Vote {word}",
        command,
        do,
        BACK,
    )


def expel(source: Source, fields: Fields) -> Step:
    """Ask whether to propose that a member be expelled."""
    client = Client(source.home)
    who, reason = client.member(fields.get("who")), fields.get("reason").strip()
    if len(reason.encode()) > MAX_REASON:
        raise UsageError("The reason is too long", f"It has at most {MAX_REASON} bytes.")
    key, name = who["key"], who["name"]
    command = f"collegium peer expel {key[:16]}" + (f" --reason {shlex.quote(reason)}" if reason else "")

    def do(_tell: Tell) -> Outcome:
        client.propose("expel", key, reason=reason)
        return Outcome("Motion proposed", (f"The motion to expel {name} is proposed. {SIGNED}",), command, BACK)

    return Plan(
        f"Propose to expel {name}?",
        f"Propose to expel {name} (key {key[:16]})?",
        (
            "All other members are asked; your proposal is your yes, and final.",
            *_expelled(client, key),
            "The reason is shown to all members, and kept in the ledger." if reason else "You gave no reason.",
        ),
        "Propose to expel it",
        command,
        do,
        BACK,
    )


def _held(client: Client, shown: InvitationShown, command: str, *, yes: bool) -> Plan:
    """Return the plan for an application that waits for this node's operator."""
    person = shown["applicant"]
    if person is None:
        raise UsageError("There is no such open motion or application any more", "See the lists on the page.")
    who = f"{person['name']} (key {person['key'][:16]})"
    by = f"It applied by the invitation for {shown['name'] or 'anybody who has it'}, under a name that it chose itself."
    status = client.status()

    def do(_tell: Tell) -> Outcome:
        sent: Submitted = client.vote(shown["invitation"], yes=yes)
        said = f"The admission of {who} is proposed. {SIGNED}" if sent["submitted"] else f"{who} was turned down."
        return Outcome("Application", (said,), command, BACK)

    if not yes:
        said: tuple[str, ...] = (by, "Its invitation lets nobody in any more. Nothing is written into the ledger.")
        return Plan(f"Turn {person['name']} down?", f"Turn {who} down?", said, "Turn it down", command, do, BACK)
    return Plan(
        f"Propose to admit {person['name']}?",
        f"Propose to admit {who}?",
        (
            by,
            "Compare its key with the institution by telephone first.",
            f"If the members admit it: {of_gaining(status)}.",
            "All members are asked; your proposal is your yes, and final.",
        ),
        "Propose to admit it",
        command,
        do,
        BACK,
    )


def _if_passed(client: Client, motion: MotionShown) -> Sequence[str]:
    """Return what happens if a motion passes."""
    name, key = motion["subject"]["name"], motion["subject"]["key"]
    match motion["action"]:
        case "admit":
            return (
                f"If it passes: {of_gaining(client.status())}. {name} gets all records of the ledger, and the updates"
                " of the components that it hosts. Only another motion, to expel it, ends that.",
            )
        case "expel":
            return _expelled(client, key)
        case "rekey":
            new = motion.get("new_key", "")
            return (
                f"If it passes, the key {new[:16]} takes the seat of {name}, and the old key never comes back. Ask the"
                " institution by telephone whether that is its key: whoever has it acts as this member.",
            )
        case "suspend":
            return (f"If it passes, {name} stays a member, and no component counts on it as a host until it is back.",)
        case "suspend-training":
            return (f"If it passes, {name} stays a host, and no round waits for its updates until it trains again.",)
        case "withdraw" | "rewind":
            again = (
                "The rounds since then run once more, and every member that trains pays for them again."
                if motion["action"] == "rewind"
                else of_withdrawing()
            )
            return (f"If it passes, {motion.get('scope', 'what it names')} of {name} is taken out for good.", again)
        case "leave":
            return (f"If it passes, {name} is no longer a member, and its key never comes back.",)
        case "amend":
            return (
                "If it passes, the changed charter is in force for all members from the next block on; closed rounds"
                " stay as they are. Only another amendment changes it back.",
                "A quorum of all members passes it. This node's own privacy policy and budget are not changed by it.",
            )
        case _:
            assert_never(motion["action"])


def _expelled(client: Client, key: str) -> list[str]:
    losses = of_losing(client.status(), client.member(key)["active_host_of"])
    return [
        "If it passes, its closed rounds stay in the model (to take them out is another motion), and its key never"
        " comes back.",
        *(f"Then {loss}." for loss in losses),
    ]


def _invitation(client: Client, which: str) -> InvitationShown:
    for one in client.invitations()["invitations"]:
        if which and one["invitation"] == which and not one["withdrawn"]:
            return one
    raise UsageError("There is no such open motion, application or invitation any more", "See the lists on the page.")


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= 365:
        raise UsageError("An invitation is good for 1 to 365 days", "Give a number of days.")
    return int(text)


def _file_name(title: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title)[:40]
