"""`collegium peer invite` and `invitations`, and `collegium join`: the admission of an institution."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import CollegiumError, RefusedError, UsageError
from ..crypto.fingerprint import fingerprint
from ..protocol.bounds import MAX_STUDENTS
from . import review as reviewing
from .entering import Entering, check_home
from .files import check_new, write_new
from .founding import check_fit, lot_step
from .init import chosen_config, note_lot
from .options import (
    ForceOption,
    HomeOption,
    JsonOption,
    PassphraseOption,
    existing_home,
    home_of,
    key_passphrase,
    read_passphrase,
)
from .output import emit, facts, say, short, table
from .proposals import elsewhere
from .read import public_key

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..protocol.charter import Charter
    from ..protocol.membership import Invitation


def invite(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A note to yourself: the invited institution.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file, with the charter.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it is valid.")] = 7,
    key: Annotated[str, typer.Option(metavar="HEX", help="Valid for this public key only.")] = "",
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep the application for `peer approve` instead of proposing it at once.")
    ] = False,
    withdraw: Annotated[
        str | None, typer.Option(metavar="INVITATION", help="Withdraw an invitation instead: its name or id.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Invite an institution: print a text that lets its holder apply once. Send it in private."""
    from ..node.control.client import Client

    client = Client(existing_home(home))
    if withdraw is not None:
        gone = client.uninvite(withdraw)
        emit(gone, as_json, lambda console: console.print(f"withdrawn: {gone['withdrawn']}"))
        return
    if out is not None:
        check_new(out, force=force)
    invitation: Any = client.invite(name, days=days, key=key, hold=hold, charter=out is not None)
    if out is not None:
        try:
            write_new(out, [(invitation.pop("text") + "\n").encode()], force=force)
        except CollegiumError:
            client.uninvite(invitation["invitation"])  # its text was given to nobody
            raise
        invitation["file"] = str(out)

    def people(console: Any) -> None:
        if out is not None:
            console.print(f"invitation {invitation['invitation']} written to {out}, good until {invitation['expires']}")
        else:
            console.print(invitation["text"], soft_wrap=True)
            say(f"invitation {invitation['invitation']}, good until {invitation['expires']}")
        say(f"it leads to {', '.join(invitation['addresses'])}")
        what = "TEXT, with the text above" if out is None else out.name
        say(elsewhere(f"The institution runs: collegium join {what}"))

    emit(invitation, as_json, people)


def invitations(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the invitations that this node issued, and their applicants."""
    from ..node.control.client import Client

    issued = Client(existing_home(home)).invitations()

    def people(out: Any) -> None:
        rows = [
            (
                invitation["invitation"],
                invitation["name"] or "–",
                invitation["state"],
                invitation["applicant"]["name"] if invitation["applicant"] else "–",
                short(invitation["applicant"]["key"]) if invitation["applicant"] else "–",
                invitation["expires"],
            )
            for invitation in issued["invitations"]
        ]
        table(out, ("invitation", "for", "state", "applicant", "key", "expires"), rows, empty="No invitations.")

    emit(issued, as_json, people)


def join(
    invitation: Annotated[str, typer.Argument(metavar="INVITATION", help="The file or text that a member sent.")],
    name: Annotated[str | None, typer.Option(help="The name to apply with [the config's].")] = None,
    listen: Annotated[
        list[str] | None, typer.Option(metavar="MULTIADDR", help="Where to listen, for a new directory.")
    ] = None,
    advertise: Annotated[
        list[str] | None, typer.Option(metavar="MULTIADDR", help="What others dial, for a new directory.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on even if others cannot dial this node, or its data do not fit.")
    ] = False,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data folder, for a new directory.")] = None,
    lot_size: Annotated[float, typer.Option(min=0, max=MAX_STUDENTS, help="As for `init`, for a new directory.")] = 0.0,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="Come back with a new key; privacy spent stays spent."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Sign a founding charter without asking; its review is printed all the same.")
    ] = False,
    passphrase_file: PassphraseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join by an invitation: found a federation with others, or apply to one that there is.

    To found: hand in name, key and addresses, wait for the charter, review it, sign it, wait for the others. To apply:
    check and keep the charter, and hand in an application. The same command again goes on, or says how it stands.
    """
    import structlog

    from ..node.home import joining, keys
    from ..node.home.config import load as load_config
    from ..node.home.invitations import founds, from_text
    from ..node.runtime.candidate import apply, check_charter
    from ..node.store.files import write_atomic
    from ..node.verify import read_charter
    from ..protocol.charter import Member

    text = _text(invitation)
    if founds(text):
        if new_key:
            raise UsageError("--new-key is for coming back to a federation", "Leave it out: this one is being founded.")
        founding = from_text(text)
        place = home_of(home)
        before = check_home(place, founding)
        if not place.key.exists():
            _make(place, name or founding.value.name or "node", listen, advertise, data, lot_size, passphrase_file)
        config = load_config(place.config)
        identity = keys.load(place, key_passphrase(place, passphrase_file))
        addresses = _told(config.node.listen, config.node.advertise, founding.value.addresses, anyway)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
        me = Member(identity.public_key, name or before or config.node.name, addresses[:8])
        Entering(place, founding, identity, me, anyway, yes, as_json).run()
        return
    invited = from_text(text).value
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

    def fits(charter: "Charter") -> None:
        check_fit(reviewing.here(place, charter), anyway=anyway)

    charter_bytes, state = apply(invited, identity, title, addresses, fits)
    charter = check_charter(charter_bytes, invited)
    write_atomic(place.charter, charter_bytes)
    joining.save(place, joining.Joining(title, invited.author, _of_member(invited)))
    result: Any = {
        "state": state,
        "name": title,
        "key": identity.public_key.hex(),
        "federation": charter.federation.hex(),
        "federation_name": charter.name,
        "home": str(place.root),
    }
    words = {
        "held": "The member keeps the application until its operator decides.",
        "waiting": "The member proposes the admission as soon as enough others are connected to it.",
        "proposed": "The admission is proposed; the members vote.",
        "admitted": "This node is a member.",
        "refused": "The members refused it, or the motion lapsed: ask the member that invited you.",
    }

    def people(out: Any) -> None:
        facts(
            out,
            [
                ("federation", charter.name),
                ("charter", f"{fingerprint(charter.federation)} (compare it by telephone)"),
                ("name", title),
                ("key", f"{fingerprint(identity.public_key)} (and this one too)"),
                ("directory", place.root),
                ("application", words.get(state, state)),
            ],
        )
        if state != "refused":
            set_data = "" if config.data.path else "set [data] path in config.toml if you have data, then "
            lot = lot_step(place, charter)
            out.print(f"next: {set_data}{lot}`collegium node start`: it waits to be let in")

    emit(result, as_json, people)
    if state == "refused":
        raise typer.Exit(5)


def _leave_old_key(place: "Home", passphrase: str | None) -> None:
    """Make a new key if the one in use is a former member's."""
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
    if not invitation.strip():
        raise UsageError("the invitation is empty", "Paste the whole text that the member sent, or name its file.")
    if invitation.startswith(("collegium:", "collegium-founding:")):
        return invitation
    path = Path(invitation)
    try:
        if path.stat().st_size > 8 << 20:
            raise UsageError(f"{path} is too large for an invitation", "Name the file that the member sent.")
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise UsageError(
            f"cannot read the invitation {path}: {error.strerror}", "Name the file, or paste the text."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no invitation: it is no text", "Name the file that the member sent.") from error


def _told(
    listen: "Sequence[str]", advertise: "Sequence[str]", members: "Sequence[str]", anyway: bool
) -> tuple[str, ...]:
    """Return the addresses for the application. Raises RefusedError if other members can dial none of them."""
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
    note_lot(chosen, place.config)
