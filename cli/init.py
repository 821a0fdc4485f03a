"""`collegium init`: a node's directory, its key and its configuration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..crypto.errors import UsageError
from ..protocol.bounds import MAX_STUDENTS
from .options import HomeOption, JsonOption, home_of, read_passphrase
from .output import emit, facts


def init(
    home: HomeOption = None,
    name: Annotated[str, typer.Option(help="The name shown to people.")] = "node",
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="MULTIADDR", help="Where to listen, as /ip4/192.168.1.20/tcp/4001; may be repeated."),
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
    from ..node.home import config as settings  # noqa: PLC0415 - imports of commands wait until they run
    from ..node.home import keys  # noqa: PLC0415

    place = home_of(home)
    secret = read_passphrase(passphrase_file)
    if passphrase and secret is None:
        if not sys.stdin.isatty():
            raise UsageError("There is nobody to ask for a passphrase", "Give --passphrase-file.")
        secret = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
    chosen = settings.Config(
        node=settings.Node(name=name, listen=tuple(listen or settings.Node().listen)),
        data=settings.Data(None if data is None else data.expanduser().absolute()),
        learning=settings.Learning(lot_size=lot_size),
    )
    # Checked before the key is made: a mistyped address must not leave half a node behind.
    settings.parse(settings.default_text(chosen), "these options")
    identity = keys.create(place, secret)
    if not place.config.exists():
        settings.create(place.config, chosen)
    key = identity.public_key.hex()
    member = f"{name}={key}@{','.join(chosen.node.advertise or chosen.node.listen)}"
    found = {
        "home": str(place.root),
        "name": name,
        "public_key": key,
        "sealed": secret is not None,
        "config": str(place.config),
        "member": member,
    }
    emit(
        found,
        as_json,
        lambda out: facts(
            out,
            [
                ("directory", place.root),
                ("public key", key),
                (
                    "key file",
                    f"{place.key} ({'sealed' if secret is not None else 'not sealed: only its mode guards it'})",
                ),
                ("configuration", place.config),
                ("for the charter", f"--member {member}"),
            ],
        ),
    )
