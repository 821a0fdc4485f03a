"""`collegium init`: a node's directory, its key and its configuration."""

import shlex
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_STUDENTS
from .options import HomeOption, JsonOption, home_of, read_passphrase
from .output import emit, facts, say

if TYPE_CHECKING:
    from ..node.home.config import Config


def init(
    home: HomeOption = None,
    name: Annotated[str, typer.Option(help="The name shown to people.")] = "node",
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="MULTIADDR", help="Where to listen, as /ip4/192.168.1.20/tcp/4001; may be repeated."),
    ] = None,
    advertise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MULTIADDR",
            help="What others dial, if it is not --listen: /dns4/node.example.org/tcp/4001; may be repeated.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder with dataset.toml.")] = None,
    lot_size: Annotated[
        float,
        typer.Option(
            min=0,
            max=MAX_STUDENTS,
            help="L: sampling rate times the expected number of students, not counted from the data.",
        ),
    ] = 0.0,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Seal the key with the first line of this file.")
    ] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Seal the key; ask for the passphrase.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a node's directory with a key and a config.toml, and print the public key."""
    from ..node.home import config as settings
    from ..node.home import keys
    from ..node.home.addresses import is_loopback, peer_id

    node_home = home_of(home)
    secret = read_passphrase(passphrase_file)
    if passphrase and secret is None:
        if not sys.stdin.isatty():
            raise UsageError("There is nobody to ask for a passphrase", "Give --passphrase-file.")
        secret = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
    # Checked before the key is made: a mistyped address must not leave half a node behind.
    chosen = chosen_config(name, listen, advertise, data, lot_size)
    identity = keys.create(node_home, secret)
    if not node_home.config.exists():
        settings.create(node_home.config, chosen)
    key = identity.public_key.hex()
    name = chosen.node.name
    addresses = chosen.node.advertise or chosen.node.listen
    member = f"{name}={key}@{','.join(addresses)}"
    result = {
        "home": str(node_home.root),
        "name": name,
        "public_key": key,
        "peer_id": peer_id(identity.public_key),
        "sealed": secret is not None,
        "config": str(node_home.config),
        "member": member,
    }
    if all(map(is_loopback, addresses)):
        say(
            f"note: {', '.join(addresses)} can be dialled from this machine only. For members on other machines set"
            f" listen and advertise in {node_home.config}."
        )
    note_lot(chosen, node_home.config)
    emit(
        result,
        as_json,
        lambda out: facts(
            out,
            [
                ("directory", node_home.root),
                ("public key", key),
                ("peer id", result["peer_id"]),
                (
                    "key file",
                    f"{node_home.key} ({'sealed' if secret is not None else 'not sealed: only its mode guards it'})",
                ),
                ("configuration", node_home.config),
                ("for the charter", f"--member {shlex.quote(member)}"),
            ],
        ),
    )


def note_lot(chosen: "Config", path: Path) -> None:
    """Say that a node with data cannot train without a lot size."""
    if chosen.data.path is not None and chosen.learning.lot_size < 1:
        say(
            f"note: without --lot-size this node cannot train. Set lot_size under [learning] in {path} to the sample"
            " rate (in the model file; `charter show` prints it) times the number of students that you expect."
        )


def chosen_config(
    name: str, listen: list[str] | None, advertise: list[str] | None, data: Path | None, lot_size: float
) -> "Config":
    """Return the configuration of a new directory, with the checks of config.toml and of the operator's input.

    Without `listen` it is a free loopback port. Raises UsageError.
    """
    from ..node.home import config as settings
    from ..node.home.addresses import free_loopback, own_problem
    from ..protocol.names import person_problem

    name = unicodedata.normalize("NFC", name)
    problem = person_problem(name)
    if problem:
        raise UsageError(f"--name {name!r} cannot be used: {problem}", "Choose another name.")
    folder = None if data is None else data.expanduser().absolute()
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"There is no folder {folder}",
            "Give the folder that holds dataset.toml. If it comes later, leave --data out and set [data] path then.",
        )
    listen = list(listen or ([] if advertise else [free_loopback()]))
    if not listen:
        raise UsageError("--advertise without --listen", "Say where this node listens, too: --listen.")
    chosen = settings.Config(
        node=settings.Node(name=name, listen=tuple(listen), advertise=tuple(advertise or ())),
        data=settings.Data(folder),
        learning=settings.Learning(lot_size=lot_size),
    )
    settings.parse(settings.default_text(chosen), "these options")
    problem, advice = own_problem(chosen.node.listen, chosen.node.advertise)
    if problem:
        raise UsageError(problem, advice)
    return chosen
