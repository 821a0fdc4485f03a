"""`collegium peer`: members and how to reach them."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.errors import UsageError
from ..crypto.fingerprint import fingerprint
from . import joining, motions
from .options import HomeOption, JsonOption, existing_home
from .output import emit, facts, table
from .read import answer
from .rekey import rekey

if TYPE_CHECKING:
    from rich.console import Console

    from ..node.control.replies import PeerAdded, PeerRemoved
    from ..node.home.paths import Home
    from ..node.views.shapes import PeerShown

app = typer.Typer(help="Members: addresses, connections, invitations and motions.", no_args_is_help=True)
for _name, _command in (
    ("invite", joining.invite),
    ("invitations", joining.invitations),
    ("motions", motions.motions),
    ("approve", motions.approve),
    ("refuse", motions.refuse),
    ("expel", motions.expel),
    ("leave", motions.leave),
    ("rekey", rekey),
    ("show", motions.show),
):
    app.command(_name)(_command)
app.command("join", hidden=True)(joining.join)  # `collegium join`, by its earlier name


@app.command("ls", hidden=True)
@app.command("list")
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the members and whether this node is connected to them."""
    from ..node import views

    peers = answer(existing_home(home), lambda client: client.peers(), views.peers)

    def people(out: "Console") -> None:
        rows = [
            (
                peer["name"],
                peer["key"][:16],
                "this node" if peer["me"] else {True: "connected", False: "no", None: "–"}[peer["connected"]],
                peer["state"],
                peer["records"],
                ", ".join(peer["components"]) or "–",
            )
            for peer in peers["peers"]
        ]
        columns = ("name", "key", "connection", "state", "records", "offers")
        table(out, columns, rows, empty="Nobody is a member.")
        out.print()
        facts(out, [(peer["name"], _ways(peer)) for peer in peers["peers"]])
        for peer in peers["peers"]:
            if peer["why"]:
                out.print(f"not connected to {peer['name']}: {peer['why']}")
            if peer["idle"]:
                out.print(_idle(peer))
        if peers["added"]:
            out.print("added here: " + " ".join(peers["added"]))

    emit(peers, as_json, people)


def _idle(peer: "PeerShown") -> str:
    """Print the offered components that a member does not train, with its own reasons."""
    reasons: dict[str, list[str]] = {}
    for entry in peer["idle"]:
        reasons.setdefault(entry["meaning"], []).append(entry["component"])
    what = "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in reasons.items())
    return f"{peer['name']} does not train, and no round waits for it: {what}"


def _ways(peer: "PeerShown") -> str:
    digits = fingerprint(bytes.fromhex(peer["key"]))
    return " ".join([f"key by telephone {digits}, peer id {peer['peer_id']}", *peer["addresses"]])


AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="/ip4/192.0.2.7/tcp/4001/p2p/<peer id>")]


@app.command("add")
def add(
    member: Annotated[str, typer.Argument(metavar="[MEMBER]", help="A member's name or a prefix of its key.")],
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="/ip4/192.0.2.7/tcp/4001; without MEMBER with /p2p/<peer id>.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a member's address; a running daemon dials it at once."""
    address = _whole(existing_home(home), member, address) if address else member
    from ..node.control.client import Client
    from ..node.home.lock import running
    from ..node.home.peers import edit_peers

    node_home = existing_home(home)
    if running(node_home) is not None:
        result: PeerAdded = Client(node_home).add_peer(address)
    else:
        edit_peers(node_home, add=[address])
        result = {"address": address, "connected": False, "why": "no daemon runs; it is dialled at the next start"}
    if not result["connected"]:
        text = f"remembered; {result['why']}"
    elif result["tried"]:
        text = f"connected to {result['member']['name']}"
    else:
        text = f"remembered, and not tried: there is a connection to {result['member']['name']} already"
    emit(result, as_json, lambda out: out.print(text))


@app.command("rm", hidden=True)
@app.command("remove")
def remove(address: AddressArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove an added address."""
    from ..node.control.client import Client
    from ..node.home.lock import running
    from ..node.home.peers import edit_peers

    node_home = existing_home(home)
    if running(node_home) is not None:
        result: PeerRemoved = Client(node_home).remove_peer(address)
    else:
        result = {"address": address, "added": list(edit_peers(node_home, remove=[address]))}
    emit(result, as_json, lambda out: out.print(f"forgotten: {address}"))


def _whole(home: "Home", member: str, address: str) -> str:
    """Return a member's address with the peer id that follows from the member's key. Raises UsageError."""
    from ..node.home.addresses import check_advertised, with_peer
    from ..node.verify import read_charter
    from ..node.views import find_member

    problem = check_advertised(address.partition("/p2p/")[0])
    if problem:
        raise UsageError(problem, "Write it as /ip4/192.0.2.7/tcp/4001 or /dns4/node.example.org/tcp/4001.")
    if home.database.exists():
        text = answer(
            home,
            lambda client: client.member(member)["key"],
            lambda context: find_member(context, member).hex(),
        )
        key = bytes.fromhex(text)
    else:
        people = read_charter(home.charter)[0].members
        keys = [p.key for p in people if p.name == member or (len(member) >= 4 and p.key.hex().startswith(member))]
        if len(keys) != 1:
            raise UsageError(f"{member!r} names no one member", f"Members are {', '.join(p.name for p in people)}.")
        key = keys[0]
    whole = with_peer(address, key)
    if "/p2p/" in address and whole != address:
        raise UsageError(f"{address} ends with the peer id of another node than {member}", "Leave the /p2p/ part out.")
    return whole
