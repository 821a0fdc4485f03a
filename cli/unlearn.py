"""`collegium unlearn`: withdraw contributions, and verify withdrawals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from ..node.words import counted
from . import deletion_receipts, putting_off, removal, student, withdrawn
from .files import check_new, write_new
from .options import ForceOption, HomeOption, JsonOption, PassphraseOption, existing_home, key_passphrase
from .output import confirm, emit, facts, progress, recovery_price, say, table
from .proposals import elsewhere
from .read import answer, from_store

if TYPE_CHECKING:
    from ..node.views import Context

app = typer.Typer(help="Withdraw this node's contributions; check any member's withdrawal.", no_args_is_help=True)
app.command("subject")(student.subject)
app.command("cancel")(putting_off.cancel)

ComponentOption = Annotated[
    list[str] | None, typer.Option("--component", metavar="NAME", help="Only of this component; may be repeated.")
]
RoundsOption = Annotated[
    str | None, typer.Option("--rounds", metavar="A..B", help="Only updates counted in these rounds of the components.")
]
UpdateOption = Annotated[
    list[str] | None,
    typer.Option("--update", metavar="DIGEST", help="Only this update: a prefix of its digest; may be repeated."),
]


def parse_scope(components: list[str] | None, rounds: str | None, updates: list[str] | None) -> dict[str, object]:
    """Return a withdrawal's scope for the control API. Raises UsageError."""
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
        return counted(len(scope["updates"]), "update")
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
    """Withdraw this node's contributions for good: all (then it stops contributing), or some (it continues)."""
    from ..node.control.client import Client

    scope = parse_scope(component, rounds, update)
    node_home = existing_home(home)
    client = Client(node_home)
    name = client.status()["federation"]["name"]  # so that nobody is asked in vain
    stops = "" if any(scope.values()) else " This node then contributes no more."
    what = f"Withdraw {_in_words(scope)} that this node contributed to {name!r}? It cannot be taken back.{stops}"
    if not yes:
        removal.show_others(removal.of_request(node_home, scope))
    confirm(f"{what} {recovery_price()}", yes)
    sent = client.request_withdrawal(scope)
    if not sent["signing"]:
        text = "The withdrawal waits until enough members are connected; leave the daemon running."
    elif sent["recorded"]:
        text = "The withdrawal is signed and on its way; follow it by `collegium unlearn status`."
    else:
        text = "It was only in flight, and no other node counts it: this node drops it, and it is not in the ledger."
    emit(sent, as_json, lambda out: out.print(text))


@app.command("resume")
def resume(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train again after an old copy of the home was put back that lacked removed students."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    live = client.status()["live"]
    held = live is not None and live["removals_unknown"]
    if held:
        confirm(
            "Is everybody who was removed since this copy was made removed again (`collegium unlearn subject`), or"
            " out of the data folder? Any other is trained on from now on.",
            yes,
        )
        client.resume_training()
    text = "This node trains again." if held else "Nothing to resume: this node has forgotten nobody."
    emit({"resumed": held}, as_json, lambda out: out.print(text))


@app.command("propose")
def propose(
    member: Annotated[str, typer.Argument(help="The contributor: a name, or a prefix of a key.")],
    mode: Annotated[
        str,
        typer.Option(
            help="refold: fold again without them. rewind: back to before the first of them; those rounds run again."
        ),
    ] = "refold",
    component: ComponentOption = None,
    rounds: RoundsOption = None,
    update: UpdateOption = None,
    reason: Annotated[str, typer.Option(help="Shown to the voters.")] = "",
    heights: Annotated[int, typer.Option(min=50, max=100_000, help="Heights that it stays open.")] = 500,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Rewind even if this node's budget does not cover the rounds again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait for a block that has it.")] = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to withdraw a member's contributions; the members vote (`peer approve`). The only way to rewind."""
    from ..node.control.client import Client
    from ..protocol.records import MODES
    from .motions import follow, known_motions

    scope = parse_scope(component, rounds, update)
    by = MODES.get(mode)
    if by is None:
        raise UsageError(f"there is no mode {mode!r}", f"It is {' or '.join(MODES)}.")
    client = Client(existing_home(home))
    who = client.member(member)
    again = " All members train the rounds since then once more, and pay for them again." if by == "rewind" else ""
    confirm(f"Propose to {by} {_in_words(scope)} of {who['name']} ({who['key'][:16]})?{again}", yes)
    motions_before = known_motions(client)
    sent = client.propose_withdrawal(who["key"], by, scope, reason=reason, heights=heights, anyway=anyway)
    for name, count in sorted(sent["rounds_again"].items()):
        say(f"{name}: {counted(count, 'round')} would run again")
    follow(client, sent["action"], sent["subject"], wait, as_json, motions_before)


@app.command("statement")
def statement(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where it goes.")],
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A key that this node had before (HOME/key.….json); else the one in use."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the withdrawal of all contributions of a former member's key, for a member to carry."""
    from ..consensus.membership import earlier
    from ..node.home import keys
    from ..node.verify import read_charter
    from ..protocol.records import WithdrawalStatement
    from ..protocol.signing import sign

    node_home = existing_home(home)
    check_new(out, force=force)
    charter, _ = read_charter(node_home.charter)
    identity = keys.load(node_home, key_passphrase(node_home, passphrase_file, key_file), key_file)

    def seen(context: "Context") -> int:
        ledger = context.ledger
        if any(identity.public_key in (key, *earlier(ledger.roll, key)) for key in ledger.members):
            raise UsageError("It is a member's key", "A member withdraws by itself: collegium unlearn request.")
        return context.ledger.heads.get(identity.public_key, (0, b""))[0]

    through = from_store(node_home, seen)
    value = WithdrawalStatement(charter.federation, identity.public_key, "all", "refold", through)
    write_new(out, [(sign(identity, value).wire.hex() + "\n").encode()], force=force)
    result = {"statement": str(out), "key": identity.public_key.hex(), "through": through}
    text = elsewhere(f"written to {out}; a member carries it: collegium unlearn carry {out.name}")
    emit(result, as_json, lambda console: console.print(text))


@app.command("carry")
def carry(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `unlearn statement`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Carry a former member's withdrawal into the ledger."""
    from ..node.control.client import Client

    try:
        data = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the statement {file}: {error}", "Ask for the file again.") from error
    result = Client(existing_home(home)).carry_withdrawal(data)
    emit(result, as_json, lambda out: out.print("on its way; follow it by `collegium unlearn status`"))


@app.command("status")
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show every withdrawal and its progress."""
    from ..node import views

    withdrawals = answer(existing_home(home), lambda client: client.withdrawals(), views.unlearn)

    def people(out: Any) -> None:
        if withdrawals["waiting_to_sign"]:
            out.print("This node's withdrawal waits until enough members are connected.")
        if withdrawals["scheduled"]:
            batches = [
                (b["local"], b["students"], b["lapsed"], b["updates"], b["pauses"]) for b in withdrawals["scheduled"]
            ]
            table(out, ("to come", "students", "of them lapsed", "updates", "then paused"), batches, empty="")
            out.print()
        rows = [
            (
                w["member"]["name"],
                w["height"],
                w["mode"],
                w["what"],
                c["component"],
                c["generation"],
                c["label"],
                c["blobs_to_erase"],
                c["updates_beyond_refold_horizon"],
            )
            for w in withdrawals["withdrawals"]
            for c in w["components"]
        ]
        columns = ("member", "height", "mode", "what", "component", "generation", "new state", "to erase", "too old")
        table(out, columns, rows, empty="Nobody has withdrawn anything.")

    emit(withdrawals, as_json, people)


@app.command("certificate")
def certificate(
    member: Annotated[str, typer.Argument(help="The withdrawing member: a name, or a prefix of a key.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where it goes.")],
    with_updates: Annotated[
        bool,
        typer.Option("--with-updates", help="Put the surviving updates in: the file alone can be refolded."),
    ] = False,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a file that proves to anybody, offline, that a member's withdrawn contributions are gone."""
    from ..node.verify import certificate as certificates
    from ..node.verify.bytes import Disk
    from ..node.verify.outsiders import source_of
    from ..node.views import find_member

    node_home = existing_home(home)
    check_new(out, force=force)
    key = from_store(node_home, lambda context: find_member(context, member))
    with progress(as_json) as step, source_of(node_home, step) as source:
        parts = certificates.make(source, key, Disk(node_home.blobs) if with_updates else None)
        write_new(out, parts, force=force)
    with out.open("rb") as file:
        checked = certificates.check(file, str(out), data=Disk(node_home.blobs))
    result = {"certificate": str(out), "bytes": out.stat().st_size, **checked.as_map()}
    emit(result, as_json, lambda console: _certificate(console, result))


def _certificate(out: Any, result: Any) -> None:
    facts(
        out,
        [
            ("federation", f"{result['name']}, {result['federation']}"),
            ("withdrawal of", result["member"]),
            ("result", "verified" if result["verified"] else "NOT verified"),
            ("certified", withdrawn.certified(result["components"]) if result["components"] else None),
            ("not shown", withdrawn.NOT_SHOWN),
            ("what", ", ".join(f"{w['scope']} by {w['mode']}" for w in result["withdrawals"])),
            ("before", f"height {result['before']['height']}, block {result['before']['block']}"),
            ("trusted height", f"{result['height']}, block {result['block']}"),
        ],
    )
    rows = [
        (
            c["component"],
            c["generation"],
            c["round"],
            c["removed_updates"],
            c["rewound_updates_of_others"],
            c["updates_beyond_refold_horizon"],
            c["label"],
            c["digest"] or "–",
            "refolded from the updates" if c["refolded"] else "not refolded: updates are missing",
        )
        for c in result["components"]
    ]
    columns = ("component", "generation", "round", "removed", "of others", "too old", "state", "digest", "checked")
    table(out, columns, rows, empty="Nothing that it withdrew was counted.")
    for problem in result["problems"]:
        out.print(f"problem: {problem}")


@app.command("verify")
def verify(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|MEMBER]", help="A certificate; or a member that withdrew (a name, a prefix of a key) [all]."
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
        Path | None, typer.Option(metavar="FILE", help="Of a certificate: the charter that it must be of.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="HEIGHT:ID", help="A block id known from elsewhere; may be repeated.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a certificate offline; or, from this node's files, that states are folds without withdrawn updates."""
    if what is not None and Path(what).is_file():
        if student is not None or key is not None:
            deletion_receipts.verify(Path(what), student, key, charter, pin or [], home, as_json)
        else:
            _verify_file(Path(what), updates, charter, pin or [], as_json)
        return
    if what is not None and ("/" in what or what.endswith(".certificate")):
        raise UsageError(f"There is no file {what}", "Name a certificate, or a member.")
    if updates is not None or charter is not None or pin or student is not None or key is not None:
        raise UsageError("--updates, --subject, --key, --charter and --pin belong to a file", "Name it.")
    _verify_home(what, home, as_json)


def _verify_file(path: Path, updates: Path | None, charter: Path | None, pins: list[str], as_json: bool) -> None:
    from ..node.verify import certificate as certificates
    from ..node.verify import read_charter
    from ..node.verify.bytes import Disk
    from .ledger import parse_pin

    if updates is not None and not updates.is_dir():
        raise UsageError(f"There is no folder {updates}", "Name a node's directory, or its blobs folder.")
    blobs = None if updates is None else Disk(updates / "blobs" if (updates / "blobs").is_dir() else updates)
    federation = None if charter is None else read_charter(charter)[0]
    with path.open("rb") as file:
        checked = certificates.check(file, str(path), charter=federation, pins=dict(map(parse_pin, pins)), data=blobs)
    result = checked.as_map()
    emit(result, as_json, lambda out: _certificate(out, result))
    if not checked.verified:
        raise typer.Exit(6)


def _verify_home(member: str | None, home: Path | None, as_json: bool) -> None:
    from ..consensus.membership import earlier
    from ..node.verify import verify_home_withdrawal
    from ..node.views import Context, find_member

    node_home = existing_home(home)

    def wanted(context: Context) -> list[tuple[bytes, str]]:
        keys = sorted({w.author for w in context.ledger.withdrawn})
        if member is not None:
            key = find_member(context, member)
            keys = [key, *(k for k in earlier(context.ledger.roll, key) if k in keys)]
        return [(key, str(context.member(key)["name"])) for key in keys]

    asked = from_store(node_home, wanted)
    with progress(as_json) as step:
        reports: list[Any] = [
            {"name": name, **verify_home_withdrawal(node_home, key, progress=step, strict=False)} for key, name in asked
        ]
    verified = all(report["verified"] for report in reports)
    result = {"verified": verified, "withdrawals": reports}

    def people(out: Any) -> None:
        if not reports:
            out.print("Nobody has withdrawn anything.")
        for report in reports:
            withdrawn.tell(out, report)

    emit(result, as_json, people)
    if not verified:
        raise typer.Exit(6 if any(report["problems"] for report in reports) else 4)
