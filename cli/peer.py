"""`collegium peer`: members and how to reach them."""

from typing import Annotated, Any

import typer

from . import membership
from .options import HomeOption, JsonOption, existing_home
from .output import emit, table
from .read import answer

app = typer.Typer(help="Members: who they are, how they are reached, who comes and goes.", no_args_is_help=True)
membership.register(app)


@app.command("ls", hidden=True)
@app.command("list")
def show(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the members and whether this node is connected to them."""
    from ..node import views  # noqa: PLC0415 - imports of commands wait until they run

    found: Any = answer(
        existing_home(home),
        lambda client: client.get("/peers"),
        lambda context: {"peers": views.peers(context), "added": list(context.added)},
    )

    def people(out: Any) -> None:
        rows = [
            (
                peer["name"],
                peer["key"][:16],
                "this node" if peer["me"] else {True: "connected", False: "no", None: "–"}[peer["connected"]],
                peer["state"],
                peer["records"],
                ", ".join(peer["components"]) or "–",
                " ".join(peer["addresses"]) or "–",
            )
            for peer in found["peers"]
        ]
        columns = ("name", "key", "connection", "state", "records", "offers", "addresses")
        table(out, columns, rows, empty="Nobody is a member.")
        if found["added"]:
            out.print("added here: " + " ".join(found["added"]))

    emit(found, as_json, people)


AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="/ip4/192.0.2.7/tcp/4001/p2p/<peer id>")]


@app.command("add")
def add(address: AddressArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remember a member's address; a running daemon dials it at once."""
    from ..node.control.client import Client  # noqa: PLC0415 - as above
    from ..node.home.lock import running  # noqa: PLC0415
    from ..node.home.peers import edit_peers  # noqa: PLC0415

    place = existing_home(home)
    if running(place) is not None:
        found = Client(place).add_peer(address)
    else:
        edit_peers(place, add=[address])
        found = {"address": address, "connected": False, "why": "no daemon runs; it is dialled at the next start"}
    text = f"connected to {found['member']['name']}" if found["connected"] else f"remembered; {found['why']}"
    emit(found, as_json, lambda out: out.print(text))


@app.command("rm", hidden=True)
@app.command("remove")
def remove(address: AddressArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Forget an address that was added."""
    from ..node.control.client import Client  # noqa: PLC0415 - as above
    from ..node.home.lock import running  # noqa: PLC0415
    from ..node.home.peers import edit_peers  # noqa: PLC0415

    place = existing_home(home)
    if running(place) is not None:
        found = Client(place).remove_peer(address)
    else:
        found = {"address": address, "added": list(edit_peers(place, remove=[address]))}
    emit(found, as_json, lambda out: out.print(f"forgotten: {address}"))
