"""`collegium peer`: who becomes and who remains a member. The commands join those of peer.py."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import CollegiumError, RefusedError, UnreachableError, UsageError
from ..protocol.bounds import MAX_STUDENTS, MAX_WAIT
from .files import check_new, write_new
from .init import chosen_config
from .options import HomeOption, JsonOption, PassphraseOption, existing_home, home_of, key_passphrase, read_passphrase
from .output import confirm, emit, facts, names, say, short, table
from .read import answer, public_key

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..protocol.membership import Invitation

WhoArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="A member's name, or the beginning of its key.")]
WaitOption = Annotated[float, typer.Option(min=0, max=MAX_WAIT, help="Seconds to wait for the block that has it.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
ReasonOption = Annotated[str, typer.Option(help="Told to all members, and kept in the ledger.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("invite", invite),
        ("invitations", invitations),
        ("join", join),
        ("motions", motions),
        ("approve", approve),
        ("refuse", refuse),
        ("expel", expel),
        ("leave", leave),
        ("rekey", rekey),
        ("show", show),
    ):
        app.command(name)(command)


# ---- coming in


def invite(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="For whom it is, as a note to yourself.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file, with the charter.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="For how long it is good.")] = 7,
    key: Annotated[str, typer.Option(metavar="HEX", help="Good for this public key only.")] = "",
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep the application for `peer approve` instead of moving it at once.")
    ] = False,
    withdraw: Annotated[
        str | None, typer.Option(metavar="INVITATION", help="Withdraw an invitation instead: its name or id.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Invite an institution: print a text that lets it apply once. Whoever has it can apply: send it in private."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    if withdraw is not None:
        gone = client.uninvite(withdraw)
        emit(gone, as_json, lambda console: console.print(f"withdrawn: {gone['withdrawn']}"))
        return
    if out is not None:
        check_new(out)
    found: Any = client.invite(name, days=days, key=key, hold=hold, charter=out is not None)
    if out is not None:
        try:
            write_new(out, [(found.pop("text") + "\n").encode()])
        except CollegiumError:
            client.uninvite(found["invitation"])  # nobody has its text
            raise
        found["file"] = str(out)

    def people(console: Any) -> None:
        if out is not None:
            console.print(f"invitation {found['invitation']} written to {out}, good until {found['expires']}")
        else:
            console.print(found["text"], soft_wrap=True)
            say(f"invitation {found['invitation']}, good until {found['expires']}")
        say(f"it leads to {', '.join(found['addresses'])}")
        say("The institution runs: collegium peer join FILE-OR-TEXT")

    emit(found, as_json, people)


def invitations(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the invitations that this node gave out, and who applied by them."""
    from ..node.control.client import Client

    found = Client(existing_home(home)).get("/invitations")

    def people(out: Any) -> None:
        rows = [
            (
                given["invitation"],
                given["name"] or "–",
                given["state"],
                given["applicant"]["name"] if given["applicant"] else "–",
                short(given["applicant"]["key"]) if given["applicant"] else "–",
                given["expires"],
            )
            for given in found["invitations"]
        ]
        table(out, ("invitation", "for", "state", "applicant", "key", "expires"), rows, empty="No invitations.")

    emit(found, as_json, people)


def join(
    invitation: Annotated[str, typer.Argument(metavar="INVITATION", help="The file or text that a member sent.")],
    name: Annotated[str | None, typer.Option(help="How to be called; without it, the config's name.")] = None,
    listen: Annotated[
        list[str] | None, typer.Option(metavar="MULTIADDR", help="Where to listen, for a new directory.")
    ] = None,
    advertise: Annotated[
        list[str] | None, typer.Option(metavar="MULTIADDR", help="What others dial, for a new directory.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Apply although nobody can dial this node: it dials the others.")
    ] = False,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data folder, for a new directory.")] = None,
    lot_size: Annotated[float, typer.Option(min=0, max=MAX_STUDENTS, help="As for `init`, for a new directory.")] = 0.0,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="Come back under a new key, with what was spent of privacy."),
    ] = False,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply to become a member: check the charter, keep it, and hand in an application. Again: see how it stands."""
    import structlog

    from ..node.home import joining, keys
    from ..node.home.config import load as load_config
    from ..node.home.invitations import from_text
    from ..node.runtime.candidate import apply, check_charter
    from ..node.store.files import write_atomic
    from ..node.verify import read_charter

    invited = from_text(_text(invitation)).value
    if invited.expires < time.time():
        raise RefusedError("this invitation has expired", "Ask for another one.")
    place = home_of(home)
    if not place.key.exists():
        _make(place, name or invited.name or "node", listen, advertise, data, lot_size, passphrase_file)
    if place.charter.exists() and read_charter(place.charter)[0].federation != invited.federation:
        raise UsageError(
            f"{place.root} belongs to another federation", "Name another directory for this one: --home DIR."
        )
    if new_key and place.database.exists():
        _leave_old_key(place, key_passphrase(place, passphrase_file))
    config = load_config(place.config)
    identity = keys.load(place, key_passphrase(place, passphrase_file))
    title = name or config.node.name
    addresses = _told(config.node.listen, config.node.advertise, invited.addresses, anyway)
    if not as_json:
        say(f"asking {invited.author.hex()[:16]} at {invited.addresses[0]} …")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))  # stdout is for the answer
    charter_bytes, state = apply(invited, identity, title, addresses)
    charter = check_charter(charter_bytes, invited)
    write_atomic(place.charter, charter_bytes)
    joining.save(place, joining.Joining(title, invited.author, _of_member(invited)))
    found: Any = {
        "state": state,
        "name": title,
        "key": identity.public_key.hex(),
        "federation": charter.federation.hex(),
        "federation_name": charter.name,
        "home": str(place.root),
    }
    words = {
        "held": "The member keeps the application until its operator decides.",
        "waiting": "The member moves the admission as soon as enough others are connected to it.",
        "moved": "The admission is moved; the members vote.",
        "admitted": "This node is a member.",
        "refused": "The members refused it, or the motion lapsed: ask whoever invited you.",
    }

    def people(out: Any) -> None:
        facts(
            out,
            [
                ("federation", f"{charter.name}, {charter.federation.hex()[:16]} (compare it by telephone)"),
                ("name", title),
                ("key", found["key"]),
                ("directory", place.root),
                ("application", words.get(state, state)),
            ],
        )
        if state != "refused":
            out.print(
                "next: set [data] in config.toml if you have not, then `collegium node start`: it waits to be let in"
            )

    emit(found, as_json, people)
    if state == "refused":
        raise typer.Exit(5)


def _leave_old_key(place: "Home", passphrase: str | None) -> None:
    """Make a new key, unless the one in use is a member's or was never one."""
    from ..node.home import keys
    from ..node.home.lock import hold, running
    from .read import from_store

    mine = public_key(place)
    seat = from_store(place, lambda context: context.ledger.roll.seats.get(mine or b""))
    if seat is None:
        return
    if not seat.gone:
        raise UsageError("this directory's key is a member's", "To change it: collegium peer rekey.")
    pid = running(place)
    if pid is not None:
        raise UsageError(f"A daemon runs with the old key (pid {pid})", "Stop it first: collegium node stop.")
    with hold(place):
        keys.replace_gone(place, passphrase)


def _of_member(invited: "Invitation") -> tuple[str, ...]:
    return tuple(address for address in invited.addresses if "/p2p/" in address)


def _text(invitation: str) -> str:
    if invitation.startswith("collegium:"):
        return invitation
    path = Path(invitation)
    try:
        if path.stat().st_size > 8 << 20:
            raise UsageError(f"{path} is too large for an invitation", "Name the file that the member sent.")
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the invitation {path}: {error}", "Name the file, or paste the text.") from error


def _told(
    listen: "Sequence[str]", advertise: "Sequence[str]", members: "Sequence[str]", anyway: bool
) -> tuple[str, ...]:
    """Return the addresses that the members are told to dial. Raises RefusedError if none of them would lead here."""
    from ..node.home.addresses import check_advertised, is_loopback, own_problem, published

    problem, advice = own_problem(listen, advertise)
    usable = published([a for a in advertise or listen if not check_advertised(a)], members)
    if usable or anyway:
        return usable
    if not problem:
        problem = f"{', '.join(filter(is_loopback, advertise or listen))} leads others to their own machines"
        advice = "Set [node] listen and advertise in config.toml to addresses of this machine."
    raise RefusedError(problem, f"{advice} If nobody needs to dial this node: --anyway.")


def _make(
    place: "Home",
    name: str,
    listen: list[str] | None,
    advertise: list[str] | None,
    data: Path | None,
    lot_size: float,
    passphrase_file: Path | None,
) -> None:
    """Make the directory as `init` does."""
    from ..node.home import config as settings
    from ..node.home import keys

    chosen = chosen_config(name, listen, advertise, data, lot_size)
    keys.create(place, read_passphrase(passphrase_file))
    if not place.config.exists():
        settings.create(place.config, chosen)


# ---- deciding


def motions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List what is moved about members, and how earlier motions ended."""
    from ..node import views

    found: Any = answer(existing_home(home), lambda client: client.get("/motions"), views.motions)

    def people(out: Any) -> None:
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
            for m in found["open"]
        ]
        columns = ("motion", "what", "by", "yes", "no", "your ballot", "until height", "reason")
        table(out, columns, rows, empty=f"No open motions (height {found['height']}).")
        ended = [(m["motion"][:12], m["what"], m["result"], m["why"] or "–", m["at_height"]) for m in found["ended"]]
        if ended:
            out.print("ended:")
            table(out, ("motion", "what", "result", "why", "height"), ended, empty="")

    emit(found, as_json, people)


MotionArgument = Annotated[
    str,
    typer.Argument(metavar="MOTION", help="The beginning of its id, or the name that it is about."),
]


def approve(
    motion: MotionArgument,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Want rounds run again though this node's budget does not bear them all.")
    ] = False,
    wait: WaitOption = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vote yes on a motion, or move the admission of a held application. A ballot is final."""
    _vote(motion, True, wait, home, as_json, anyway=anyway)


def refuse(
    motion: MotionArgument, wait: WaitOption = 20.0, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Vote no on a motion, or turn a held application down. A ballot is final."""
    _vote(motion, False, wait, home, as_json)


def _vote(motion: str, yes: bool, wait: float, home: Path | None, as_json: bool, *, anyway: bool = False) -> None:
    from ..node.control.client import Client

    client = Client(existing_home(home))
    known = known_motions(client)
    sent: Any = client.vote(motion, yes=yes, anyway=anyway)
    if not sent["submitted"]:
        emit(sent, as_json, lambda out: out.print(f"turned down: {sent['withdrawn']}"))
        return
    if sent["motion"] is None:
        follow(client, "admit", sent["subject"], wait, as_json, known)
        return
    _follow_motion(client, sent["motion"], wait, as_json)


def expel(
    member: WhoArgument,
    reason: ReasonOption = "",
    heights: Annotated[int, typer.Option(min=50, max=100_000, help="For how many heights it is open.")] = 500,
    yes: YesOption = False,
    wait: WaitOption = 20.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move that a member be expelled; the others vote. Its closed rounds stand, its key never comes back."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    who = client.member(member)
    confirm(f"Move to expel {who['name']} ({who['key'][:16]})?", yes)
    known = known_motions(client)
    client.move("expel", who["key"], reason=reason, heights=heights)
    follow(client, "expel", who["key"], wait, as_json, known)


def leave(
    reason: ReasonOption = "",
    yes: YesOption = False,
    wait: WaitOption = 60.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave the federation. What was contributed stays, unless it is withdrawn: before or after, `unlearn request`."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    status = client.get("/status")
    if not status["is_member"]:
        raise RefusedError("this node is not a member", "There is nothing to leave: `collegium node status`.")
    for warning in _consequences(status, client.member(status["member"]["key"])["active_host_of"]):
        say(f"warning: {warning}")
    confirm("Leave? This key never comes back.", yes)
    known = known_motions(client)
    client.move("leave", reason=reason)
    follow(client, "leave", status["member"]["key"], wait, as_json, known)


def _consequences(status: Any, hosted: Collection[str]) -> list[str]:
    """Say what the federation loses with this member, an active host of the components in `hosted`."""
    from ..protocol.blocks import quorum, tolerated

    federation = status["federation"]
    left, model = federation["members"] - 1, federation["fault_model"]
    found = []
    if left < 1:
        return ["this is the last member: nobody could decide anything any more"]
    if tolerated(left, model) < federation["tolerated_losses"]:
        found.append(
            f"{left} members would remain, of whom {quorum(left, model)} have to agree: the federation would bear"
            f" {tolerated(left, model)} lost members instead of {federation['tolerated_losses']}"
        )
    least = 4 if model == "byzantine" else 2
    found += [
        f"{c['component']} would have {c['active_hosts'] - 1} hosts: its states would be uncertified"
        for c in status["components"]
        if c["component"] in hosted and c["active_hosts"] - 1 < least <= c["active_hosts"]
    ]
    return found


def show(member: WhoArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one member: since when, by which motion, under which keys, and what is or was moved about it."""
    from ..node import views

    found: Any = answer(
        existing_home(home),
        lambda client: client.member(member),
        lambda context: views.member(context, views.find_member(context, member)),
    )

    def people(out: Any) -> None:
        since = "the charter" if not found["since_height"] else f"height {found['since_height']}"
        pairs: list[tuple[str, object]] = [
            ("name", found["name"]),
            ("key", found["key"]),
            ("member since", since + (f", by motion {found['admitted_by'][:12]}" if found["admitted_by"] else "")),
        ]
        if found["gone"]:
            by = f", by motion {found['ended_by'][:12]}" if found["ended_by"] else ""
            pairs.append(("until", f"height {found['until_height']}: {found['gone']}{by}"))
        pairs += [("earlier key", key) for key in found["earlier_keys"]]
        if found["later_key"]:
            pairs.append(("later key", found["later_key"]))
        pairs += [
            ("addresses", " ".join(found["addresses"]) or None),
            ("active host of", ", ".join(found["active_host_of"]) or None),
        ]
        facts(out, pairs)
        for m in found["open_motions"]:
            out.print(f"open: {m['what']}, {len(m['yes'])} of {m['needed']} yes, motion {m['motion'][:12]}")
        for m in found["ended_motions"]:
            out.print(f"{m['result']} at height {m['at_height']}: {m['what']}, motion {m['motion'][:12]}")

    emit(found, as_json, people)


# ---- keys


def rekey(
    statement: Annotated[
        Path | None,
        typer.Argument(metavar="[STATEMENT]", help="Another member's statement: move that its lost key be replaced."),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(metavar="MEMBER", help="This directory's new key is to replace this member's lost one."),
    ] = None,
    charter: Annotated[Path | None, typer.Option(metavar="FILE", help="With --claim: the charter.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With --claim: where the statement goes.")] = None,
    yes: YesOption = False,
    wait: WaitOption = 60.0,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move this member to a new key: at once. A lost key: --claim makes a statement, which another member moves."""
    if claim is not None:
        _claim(claim, charter, out, passphrase_file, home, as_json)
    elif statement is not None:
        _move_lost(statement, yes, wait, home, as_json)
    else:
        _move_own(yes, wait, passphrase_file, home, as_json)


def _move_own(yes: bool, wait: float, passphrase_file: Path | None, home: Path | None, as_json: bool) -> None:
    from ..node.control.client import Client
    from ..node.home import keys
    from ..protocol.membership import Rekeying
    from ..protocol.signing import sign

    place = existing_home(home)
    client = Client(place)
    status = client.get("/status")
    old = bytes.fromhex(status["member"]["key"])
    confirm(f"Move from key {old.hex()[:16]} to a new one?", yes)
    new = keys.create_next(place, key_passphrase(place, passphrase_file))
    federation = bytes.fromhex(status["federation"]["id"])
    wire = sign(new, Rekeying(federation, new.public_key, old)).wire
    client.move("rekey", old.hex(), statement=wire.hex())
    deadline = time.monotonic() + wait
    while public_key(place) != new.public_key or not _runs_as(client, new.public_key):
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"The new key {new.public_key.hex()[:16]} is not in force after {wait:g} s",
                "Nothing is lost: the daemon takes it up as soon as a block has the motion (`collegium peer motions`).",
            )
        time.sleep(0.2)
    found: Any = {"old_key": old.hex(), "key": new.public_key.hex(), "kept": f"key.{old.hex()[:16]}.json"}
    emit(found, as_json, lambda out: out.print(f"moved to key {found['key']}; the old one is kept as {found['kept']}"))


def _runs_as(client: Any, key: bytes) -> bool:
    try:
        return bool(client.get("/status")["member"]["key"] == key.hex())
    except CollegiumError:
        return False  # it is beginning anew


def _claim(
    member: str, charter: Path | None, out: Path | None, passphrase_file: Path | None, home: Path | None, as_json: bool
) -> None:
    from ..node.home import joining, keys
    from ..node.home.config import load as load_config
    from ..node.store.files import write_atomic
    from ..node.verify import read_charter
    from ..protocol.charter import dump_file
    from ..protocol.membership import Rekeying
    from ..protocol.signing import sign

    place = existing_home(home)
    path = out or place.root / "rekey.statement"
    check_new(path)
    known, signed = read_charter(charter or place.charter)
    founder = next((m.key for m in known.members if m.name == member), None)
    try:
        old = founder or bytes.fromhex(member)
    except ValueError:
        old = b""
    if len(old) != 32:
        raise UsageError(
            f"{member!r} is no founding member's name and no key", "Give the lost key in full: `peer show` has it."
        )
    identity = keys.load(place, key_passphrase(place, passphrase_file))
    wire = sign(identity, Rekeying(known.federation, identity.public_key, old)).wire
    if not place.charter.exists():
        write_atomic(place.charter, dump_file(signed))
    joining.save(place, joining.Joining(load_config(place.config).node.name, replaces=old))
    write_new(path, [(wire.hex() + "\n").encode()])
    found: Any = {"statement": str(path), "old_key": old.hex(), "key": identity.public_key.hex()}

    def people(console: Any) -> None:
        console.print(f"statement written to {path}: key {found['key']} replaces {old.hex()}")
        console.print(
            "next: a member asks you by telephone, runs `collegium peer rekey STATEMENT`, and the others vote"
        )

    emit(found, as_json, people)


def _move_lost(statement: Path, yes: bool, wait: float, home: Path | None, as_json: bool) -> None:
    from ..node.control.client import Client
    from ..protocol.membership import Rekeying
    from ..protocol.signing import open_signed

    client = Client(existing_home(home))
    federation = bytes.fromhex(client.get("/status")["federation"]["id"])
    try:
        wire = bytes.fromhex(statement.read_text(encoding="ascii").strip())
        value = open_signed(Rekeying, wire, federation).value
    except (OSError, ValueError, CollegiumError) as error:
        raise UsageError(f"{statement} is no statement of a new key: {error}", "Ask for it again.") from error
    who = client.member(value.old.hex())
    confirm(f"Move that {who['name']} goes from key {value.old.hex()[:16]} to {value.author.hex()}?", yes)
    known = known_motions(client)
    client.move("rekey", value.old.hex(), statement=wire.hex())
    follow(client, "rekey", value.old.hex(), wait, as_json, known)


# ---- parts


def known_motions(client: Any) -> set[str]:
    """Return the motions that ended, or that this node has no vote left on: what is moved next is none of them."""
    found = client.get("/motions")
    return {m["motion"] for m in (*found["open"], *found["ended"]) if not _to_vote(m)}


def _to_vote(motion: Any) -> bool:
    return bool(motion.get("your_ballot") == "not cast")  # to make the same motion again would be a yes


def follow(client: Any, action: str, subject: str, wait: float, as_json: bool, known: Collection[str]) -> None:
    """Wait until a block has what was moved, or this node's yes to the same, and tell how it stands.

    `known` are the `known_motions` of just before.
    """

    def find(found: Any) -> Any:
        every = [*found["open"], *found["ended"]]
        same = (m for m in every if m["action"] == action and m["subject"]["key"] == subject)
        return next((m for m in same if m["motion"] not in known and not _to_vote(m)), None)

    _await(client, find, wait, as_json)


def _follow_motion(client: Any, digest: str, wait: float, as_json: bool) -> None:
    """Wait until a block has this node's ballot, and tell how the motion stands."""

    def find(found: Any) -> Any:
        ended = next((m for m in found["ended"] if m["motion"] == digest), None)
        voted = next((m for m in found["open"] if m["motion"] == digest and m["your_ballot"] in ("yes", "no")), None)
        return ended or voted

    _await(client, find, wait, as_json)


def _await(client: Any, find: Any, wait: float, as_json: bool) -> None:
    deadline = time.monotonic() + wait
    while (motion := find(client.get("/motions"))) is None:
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"It is signed, and no block has it after {wait:g} s",
                "It is in the next one that the members agree on: `collegium node status`, `collegium peer motions`.",
            )
        time.sleep(0.2)

    def people(out: Any) -> None:
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
