"""`collegium unlearn`: take contributions back, and check that they are gone."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import RefusedError, UsageError
from . import near, receipts
from .files import check_new, write_new
from .options import HomeOption, JsonOption, PassphraseOption, existing_home, key_passphrase
from .output import emit, facts, progress, say, table
from .read import answer, from_store

if TYPE_CHECKING:
    from ..node.home import Home
    from ..node.views import Context

app = typer.Typer(help="Withdraw this node's contributions; check any member's withdrawal.", no_args_is_help=True)


ComponentOption = Annotated[
    list[str] | None, typer.Option("--component", metavar="NAME", help="Only of this component; may be repeated.")
]
RoundsOption = Annotated[
    str | None, typer.Option("--rounds", metavar="A..B", help="Only what counts in these rounds of the components.")
]
UpdateOption = Annotated[
    list[str] | None,
    typer.Option("--update", metavar="DIGEST", help="Only this update: the beginning of its digest; may be repeated."),
]


def parse_scope(components: list[str] | None, rounds: str | None, updates: list[str] | None) -> dict[str, object]:
    """Return what a withdrawal covers as the control API takes it. Raises UsageError."""
    first = last = 0
    if rounds is not None:
        low, dots, high = rounds.partition("..")
        try:
            first, last = int(low), int(high if dots else low)
        except ValueError:
            first = 0
        if not 1 <= first <= last < 2**63:
            raise UsageError(f"{rounds!r} is no span of rounds", "Write A..B, or one number.")
    return {"components": components or [], "first": first, "last": last, "updates": updates or []}


def _in_words(scope: dict[str, Any]) -> str:
    if scope["updates"]:
        return f"{len(scope['updates'])} updates"
    span = f"rounds {scope['first']} to {scope['last']} of " if scope["first"] else ""
    return span + (", ".join(scope["components"]) or "everything")


@app.command("request")
def request(
    component: ComponentOption = None,
    rounds: RoundsOption = None,
    update: UpdateOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw what this node contributed, for good: all of it (then it stops contributing), or a part (it goes on)."""
    from ..node.control.client import Client  # noqa: PLC0415 - imports of commands wait until they run

    scope = parse_scope(component, rounds, update)
    place = existing_home(home)
    client = Client(place)
    if not yes:
        status = client.get("/status")  # so that nobody is asked in vain
        if as_json or not sys.stdin.isatty():
            raise UsageError("A withdrawal cannot be taken back", "Give --yes to say that it is meant.")
        name = status["federation"]["name"]
        typer.confirm(f"Withdraw {_in_words(scope)} that this node contributed to {name!r}?", abort=True, err=True)
    found = client.request_withdrawal(scope)
    if not found["signing"]:
        text = "The withdrawal waits until enough members are connected; leave the daemon running."
    elif found["recorded"]:
        text = "The withdrawal is signed and on its way; follow it by `collegium unlearn status`."
    else:
        text = "It was only on its way and nobody counts it: this node drops it, and the ledger will not have it."
    emit(found, as_json, lambda out: out.print(text))


@app.command("move")
def move(
    member: Annotated[str, typer.Argument(help="Whose contributions: a name, or the beginning of a key.")],
    mode: Annotated[
        str,
        typer.Option(
            help="refold: fold again without them. rewind: back to before the first of them; those rounds run again."
        ),
    ] = "refold",
    component: ComponentOption = None,
    rounds: RoundsOption = None,
    update: UpdateOption = None,
    reason: Annotated[str, typer.Option(help="Shown to who votes.")] = "",
    heights: Annotated[int, typer.Option(min=50, max=100_000, help="For how many heights it is open.")] = 500,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Rewind though this node's budget does not bear the rounds again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait for a block that has it.")] = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move that contributions be withdrawn; the members vote (`peer approve`). Only so can a federation rewind."""
    from ..node.control.client import Client  # noqa: PLC0415 - as above
    from .membership import confirm, follow, known_motions  # noqa: PLC0415

    scope = parse_scope(component, rounds, update)
    client = Client(existing_home(home))
    who = client.member(member)
    confirm(f"Move to {mode} {_in_words(scope)} of {who['name']} ({who['key'][:16]})?", yes)
    known = known_motions(client)
    sent = client.move_withdrawal(who["key"], mode, scope, reason=reason, heights=heights, anyway=anyway)
    for name, count in sorted(sent["rounds_again"].items()):
        say(f"{name}: {count} rounds would run again")
    follow(client, sent["action"], sent["subject"], wait, as_json, known)


@app.command("statement")
def statement(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where it goes.")],
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A key that this node had before (HOME/key.….json); else the one in use."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the withdrawal of all that this key contributed, for a member to carry: for who is no longer one."""
    from ..consensus.membership import earlier  # noqa: PLC0415 - as above
    from ..node.home import keys  # noqa: PLC0415 - as above
    from ..node.verify import read_charter  # noqa: PLC0415
    from ..protocol.records import WithdrawalStatement  # noqa: PLC0415
    from ..protocol.signing import sign  # noqa: PLC0415

    place = existing_home(home)
    check_new(out)
    charter, _ = read_charter(place.charter)
    identity = keys.load(place, key_passphrase(place, passphrase_file, key_file), key_file)

    def seen(context: "Context") -> int:
        ledger = context.ledger
        if any(identity.public_key in (key, *earlier(ledger.roll, key)) for key in ledger.members):
            raise UsageError("It is a member's key", "A member withdraws by itself: collegium unlearn request.")
        return context.ledger.heads.get(identity.public_key, (0, b""))[0]

    through = from_store(place, seen)
    value = WithdrawalStatement(charter.federation, identity.public_key, "all", "refold", through)
    write_new(out, [(sign(identity, value).wire.hex() + "\n").encode()])
    found = {"statement": str(out), "key": identity.public_key.hex(), "through": through}
    text = f"written to {out}; a member carries it: collegium unlearn carry FILE"
    emit(found, as_json, lambda console: console.print(text))


@app.command("carry")
def carry(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `unlearn statement` wrote.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Carry the withdrawal of somebody who is no longer a member into the ledger."""
    from ..node.control.client import Client  # noqa: PLC0415 - as above

    try:
        data = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the statement {file}: {error}", "Ask for the file again.") from error
    found: Any = Client(existing_home(home)).carry_withdrawal(data)
    emit(found, as_json, lambda out: out.print("on its way; follow it by `collegium unlearn status`"))


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
                w["what"],
                c["component"],
                c["epoch"],
                f"{c['attested']} of {c['needed']}" if not c["certified"] else "certified",
                c["blobs_to_erase"],
                c["updates_beyond_refold_horizon"],
            )
            for w in found["withdrawals"]
            for c in w["components"]
        ]
        columns = ("member", "height", "mode", "what", "component", "epoch", "new state", "to erase", "too old")
        table(out, columns, rows, empty="Nobody has withdrawn anything.")

    emit(found, as_json, people)


@app.command("certificate")
def certificate(
    member: Annotated[str, typer.Argument(help="Whose withdrawals: a name, or the beginning of a key.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where it goes.")],
    with_updates: Annotated[
        bool,
        typer.Option("--with-updates", help="Put the surviving updates in: the file alone can be refolded."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one file from which anybody can check, offline, that a member's withdrawn contributions are gone."""
    from ..node.verify import certificate as certificates  # noqa: PLC0415
    from ..node.verify.bytes import Disk  # noqa: PLC0415
    from ..node.verify.outsiders import source_of  # noqa: PLC0415
    from ..node.views import find_member  # noqa: PLC0415

    place = existing_home(home)
    check_new(out)
    key = from_store(place, lambda context: find_member(context, member))
    with progress(as_json) as step, source_of(place, step) as source:
        parts = certificates.make(source, key, Disk(place.blobs) if with_updates else None)
        write_new(out, parts)
    with out.open("rb") as file:
        checked = certificates.check(file, str(out), data=Disk(place.blobs))
    found = {"certificate": str(out), "bytes": out.stat().st_size, **checked.as_map()}
    emit(found, as_json, lambda console: _certificate(console, found))


def _certificate(out: Any, found: Any) -> None:
    facts(
        out,
        [
            ("federation", f"{found['name']}, {found['federation']}"),
            ("withdrawal of", found["member"]),
            ("result", "verified" if found["verified"] else "NOT verified"),
            ("what", ", ".join(f"{w['scope']} by {w['mode']}" for w in found["withdrawals"])),
            ("before", f"height {found['before']['height']}, block {found['before']['block']}"),
            ("trusted height", f"{found['height']}, block {found['block']}"),
        ],
    )
    rows = [
        (
            c["component"],
            c["epoch"],
            c["round"],
            c["removed_updates"],
            c["rewound_updates_of_others"],
            c["updates_beyond_refold_horizon"],
            c["label"],
            c["digest"] or "–",
            "refolded from the updates" if c["refolded"] else "not refolded: updates are missing",
        )
        for c in found["components"]
    ]
    columns = ("component", "epoch", "round", "removed", "of others", "too old", "state", "digest", "checked")
    table(out, columns, rows, empty="Nothing that it withdrew was counted.")
    for problem in found["problems"]:
        out.print(f"problem: {problem}")


@app.command("subject")
def subject(
    student: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The student's id in this institution's data; - reads it from a line of input."
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the student's receipt goes.")] = None,
    wait: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for the hosts' certificate.")] = 120.0,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Another id of the same student, to be forgotten too; may be repeated."),
    ] = None,
    exactly: Annotated[bool, typer.Option("--exactly", help="Ids written nearly alike are other students.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget one student: withdraw every update that saw them, train on without them, and write a receipt.

    Ids in the data that differ in case, leading zeros or form only are named, and it asks whether they are the same
    student; with --yes, --also or --exactly must say so. Of several ids each gets a receipt: FILE, FILE.2, FILE.3, ...
    The id stays on this machine. Running it again is safe: it goes on where it was, and writes a receipt of today.
    """
    from ..node.control.client import Client  # noqa: PLC0415 - as above
    from .membership import confirm  # noqa: PLC0415

    place = existing_home(home)
    name = sys.stdin.readline().rstrip("\n") if student == "-" else student
    client = Client(place)
    client.get("/status")  # so that nobody is asked in vain
    ids = near.meant(place, name, also or (), exactly=exactly, yes=yes)
    files: list[Path | None] = [None] * len(ids)
    if out is not None:
        files = [out, *(out.with_name(f"{out.name}.{number}") for number in range(2, len(ids) + 1))]
        for file in files:
            check_new(file or out)
    confirm("Withdraw every update that saw this student, and train without them from now on?", yes)
    asked = [client.forget_student(each) for each in ids]  # all are left out before the first wait
    done = [_forget(client, place, *each, wait) for each in zip(ids, asked, files, strict=True)]
    found = done[0] | ({"also": done[1:]} if len(done) > 1 else {})
    lines = [line for each in done for line in _forgotten(each)]
    emit(found, as_json, lambda console: console.print("\n".join(lines), soft_wrap=True))


def _forget(client: Any, place: "Home", name: str, sent: Any, out: Path | None, wait: float) -> dict[str, Any]:
    """Wait until an id is forgotten, as `sent` says that it was begun, and write its receipt to `out`."""
    if not sent["in_data"]:
        known = "This id is not in the data here" if sent["in_data"] is False else "No learner has read the data yet"
        say(f"{known}: check how it is written. Of an id that nobody has, all that follows is true.")
    say(f"{sent['withdrawn_updates'] + sent['remaining']} updates saw this student and are being withdrawn.")
    if sent["of_unknown_students"]:
        say(f"Of {sent['of_unknown_students']} of them it is not written down whom they saw: that may be this student.")
    if sent["beyond_refold_horizon"]:
        say(f"{sent['beyond_refold_horizon']} more are beyond the federation's refold horizon and stay in its model.")
    for key, count in sent["under_former_keys"].items():
        say(f"{count} more are in force under the former key {key[:16]}, which the key in use cannot withdraw.")
    sent = _await_refold(client, name, sent, wait)
    if sent["under_former_keys"]:
        raise _under_former(place, sent["under_former_keys"])
    found: dict[str, Any] = {**sent, "receipt": None}
    if out is not None:
        found |= {"receipt": str(out), **receipts.write(place, name, out)}
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
    from ..node.home import keys  # noqa: PLC0415 - as above

    first, *_ = (shlex.quote(str(keys.kept(place, bytes.fromhex(key)))) for key in counts)
    return RefusedError(
        f"{sum(counts.values())} updates under a former key of this node may have seen the student and are in force",
        f"For each of these keys: `collegium unlearn statement --key-file {first} --out FILE`, then `collegium unlearn"
        " carry FILE`; then run the same command again.",
    )


def _await_refold(client: Any, student: str, sent: dict[str, Any], wait: float) -> dict[str, Any]:
    """Wait until nothing withdrawn counts or may, and the hosts certified states without it; ask for what remains.

    Returns the last answer, with all updates that were withdrawn. Raises UnreachableError.
    """
    import time  # noqa: PLC0415 - as above

    from ..crypto.errors import UnreachableError  # noqa: PLC0415

    deadline = time.monotonic() + wait
    updates, count = set(sent["updates"]), sent["withdrawn_updates"]
    while not (settled := client.settled(sent["updates"])) or sent["remaining"]:
        if settled:  # a height takes only so many
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


@app.command("verify")
def verify(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|MEMBER]", help="A certificate; or who withdrew (a name, the beginning of a key); else all."
        ),
    ] = None,
    updates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a certificate: a node's directory, or its blobs, with surviving updates."),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option("--subject", metavar="ID", help="Of a receipt: the student's id; - reads it from input."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="HEX", help="Of a receipt: its key, which the student has beside the file.")
    ] = None,
    charter: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a certificate: the charter that it has to be of.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="HEIGHT:ID", help="A block id known from elsewhere; may be repeated.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a certificate offline; or, from this node's files, that states are folds without what was withdrawn."""
    if what is not None and Path(what).is_file():
        if student is not None or key is not None:
            receipts.verify(Path(what), student, key, charter, pin or [], home, as_json)
        else:
            _verify_file(Path(what), updates, charter, pin or [], as_json)
        return
    if what is not None and ("/" in what or what.endswith(".certificate")):
        raise UsageError(f"There is no file {what}", "Name a certificate, or a member.")
    if updates is not None or charter is not None or pin or student is not None or key is not None:
        raise UsageError("--updates, --subject, --key, --charter and --pin belong to a file", "Name it.")
    _verify_home(what, home, as_json)


def _verify_file(path: Path, updates: Path | None, charter: Path | None, pins: list[str], as_json: bool) -> None:
    from ..node.verify import certificate as certificates  # noqa: PLC0415 - as above
    from ..node.verify import read_charter  # noqa: PLC0415
    from ..node.verify.bytes import Disk  # noqa: PLC0415
    from .ledger import parse_pin  # noqa: PLC0415

    if updates is not None and not updates.is_dir():
        raise UsageError(f"There is no folder {updates}", "Name a node's directory, or its blobs folder.")
    blobs = None if updates is None else Disk(updates / "blobs" if (updates / "blobs").is_dir() else updates)
    known = None if charter is None else read_charter(charter)[0]
    with path.open("rb") as file:
        checked = certificates.check(file, str(path), charter=known, pins=dict(map(parse_pin, pins)), data=blobs)
    found = checked.as_map()
    emit(found, as_json, lambda out: _certificate(out, found))
    if not checked.verified:
        raise typer.Exit(6)


def _verify_home(member: str | None, home: Path | None, as_json: bool) -> None:
    from ..consensus.membership import earlier  # noqa: PLC0415 - as above
    from ..node.verify import verify_home_withdrawal  # noqa: PLC0415
    from ..node.views import Context, find_member  # noqa: PLC0415

    place = existing_home(home)

    def wanted(context: Context) -> list[tuple[bytes, str]]:
        keys = sorted({w.author for w in context.ledger.withdrawn})
        if member is not None:
            key = find_member(context, member)
            keys = [key, *(k for k in earlier(context.ledger.roll, key) if k in keys)]
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
                    c["removed_updates"] + c["rewound_updates_of_others"],
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
