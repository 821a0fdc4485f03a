"""`collegium peer rekey`: replace a key that is in use, or lost."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import CollegiumError, UnreachableError, UsageError
from .files import check_new, write_new
from .motions import WaitOption, YesOption, follow, known_motions
from .options import ForceOption, HomeOption, JsonOption, PassphraseOption, existing_home, key_passphrase
from .output import confirm, emit, say
from .proposals import elsewhere
from .read import public_key

if TYPE_CHECKING:
    from ..node.control.client import Client

NO_REMOVALS = (
    "warning: this directory knows of no student that was removed under the old key, and the others do not tell it:"
    " before it trains, take such students out of the data folder, or remove them again (`collegium unlearn subject`)."
)


def rekey(
    statement: Annotated[
        Path | None,
        typer.Argument(metavar="[STATEMENT]", help="Another member's statement: propose to replace its lost key."),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(metavar="MEMBER", help="Replace this member's lost key by this directory's new one."),
    ] = None,
    charter: Annotated[Path | None, typer.Option(metavar="FILE", help="With --claim: the charter.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With --claim: the statement's file.")] = None,
    yes: YesOption = False,
    wait: WaitOption = 60.0,
    passphrase_file: PassphraseOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give this member a new key at once. For a lost key --claim makes a statement for another member to propose."""
    if claim is not None:
        _claim(claim, charter, out, passphrase_file, home, as_json, force=force)
    elif statement is not None:
        _move_lost(statement, yes, wait, home, as_json)
    else:
        _propose_own(yes, wait, passphrase_file, home, as_json)


def _propose_own(yes: bool, wait: float, passphrase_file: Path | None, home: Path | None, as_json: bool) -> None:
    from ..node.control.client import Client
    from ..node.home import keys
    from ..protocol.membership import Rekeying
    from ..protocol.signing import sign

    node_home = existing_home(home)
    client = Client(node_home)
    status = client.status()
    me = status["member"]
    assert me is not None  # a daemon knows its key
    old = bytes.fromhex(me["key"])
    confirm(f"Change from key {old.hex()[:16]} to a new one?", yes)
    new = keys.create_next(node_home, key_passphrase(node_home, passphrase_file))
    federation = bytes.fromhex(status["federation"]["id"])
    wire = sign(new, Rekeying(federation, new.public_key, old)).wire
    client.propose("rekey", old.hex(), statement=wire.hex())
    deadline = time.monotonic() + wait
    while public_key(node_home) != new.public_key or not _runs_as(client, new.public_key):
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"The new key {new.public_key.hex()[:16]} is not in force after {wait:g} s",
                "Nothing is lost: the daemon takes it up as soon as a block has the motion (`collegium peer motions`).",
            )
        time.sleep(0.2)
    result: Any = {"old_key": old.hex(), "key": new.public_key.hex(), "kept": f"key.{old.hex()[:16]}.json"}
    emit(
        result,
        as_json,
        lambda out: out.print(f"changed to key {result['key']}; the old one is kept as {result['kept']}"),
    )


def _runs_as(client: "Client", key: bytes) -> bool:
    try:
        me = client.status()["member"]
    except CollegiumError:
        return False  # it is restarting
    return me is not None and me["key"] == key.hex()


def _claim(
    member: str,
    charter: Path | None,
    out: Path | None,
    passphrase_file: Path | None,
    home: Path | None,
    as_json: bool,
    *,
    force: bool,
) -> None:
    from ..node.home import joining, keys
    from ..node.home.config import load as load_config
    from ..node.store.files import write_atomic
    from ..node.unlearning.students import load_excluded
    from ..node.verify import read_charter
    from ..protocol.charter import dump_file
    from ..protocol.membership import Rekeying
    from ..protocol.signing import sign

    node_home = existing_home(home)
    path = out or node_home.root / "rekey.statement"
    check_new(path, force=force)
    federation, signed = read_charter(charter or node_home.charter)
    founder = next((m.key for m in federation.members if m.name == member), None)
    try:
        old = founder or bytes.fromhex(member)
    except ValueError:
        old = b""
    if len(old) != 32:
        raise UsageError(
            f"{member!r} is no founding member's name and no key", "Give the lost key in full: `peer show` has it."
        )
    identity = keys.load(node_home, key_passphrase(node_home, passphrase_file))
    wire = sign(identity, Rekeying(federation.federation, identity.public_key, old)).wire
    if not node_home.charter.exists():
        write_atomic(node_home.charter, dump_file(signed))
    joining.save(node_home, joining.Joining(load_config(node_home.config).node.name, replaces=old))
    write_new(path, [(wire.hex() + "\n").encode()], force=force)
    if not load_excluded(node_home).tags:
        say(NO_REMOVALS)
    result: Any = {"statement": str(path), "old_key": old.hex(), "key": identity.public_key.hex()}

    def people(console: Any) -> None:
        console.print(f"statement written to {path}: key {result['key']} replaces {old.hex()}")
        console.print(
            elsewhere("next: a member asks you by telephone, runs `collegium peer rekey STATEMENT`; the others vote")
        )

    emit(result, as_json, people)


def _move_lost(statement: Path, yes: bool, wait: float, home: Path | None, as_json: bool) -> None:
    from ..node.control.client import Client
    from ..protocol.membership import Rekeying
    from ..protocol.signing import open_signed

    client = Client(existing_home(home))
    federation = bytes.fromhex(client.status()["federation"]["id"])
    try:
        wire = bytes.fromhex(statement.read_text(encoding="ascii").strip())
        value = open_signed(Rekeying, wire, federation).value
    except (OSError, ValueError, CollegiumError) as error:
        raise UsageError(f"{statement} is no statement of a new key: {error}", "Ask for it again.") from error
    who = client.member(value.old.hex())
    confirm(f"Propose that {who['name']} changes its key from {value.old.hex()[:16]} to {value.author.hex()}?", yes)
    motions_before = known_motions(client)
    client.propose("rekey", value.old.hex(), statement=wire.hex())
    follow(client, "rekey", value.old.hex(), wait, as_json, motions_before)
