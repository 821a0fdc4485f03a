"""`collegium node backup`, `restore`: a copy of a home in one file, and a home made from one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import UsageError
from .files import check_new, check_new_folder, write_new
from .options import ForceOption, HomeOption, JsonOption, existing_home
from .output import emit, facts, progress, say, size
from .proposals import at_home

if TYPE_CHECKING:
    from ..node.home.paths import Home

OPEN_KEY = "It holds this node's private key, not sealed: whoever reads the file is this member. Keep it under lock."
SEALED_KEY = "It holds this node's key, sealed by its passphrase. The passphrase is not in it: keep it elsewhere."
WITHDRAWN = (
    "What is withdrawn later stays in it: where that has to be gone, delete the backups that are older. The data folder"
    " is not in it."
)
REMOVALS = (
    "The list of removed students is in it, and on no other machine. If this disk and the key are both lost, and the"
    " member comes back with a new key and without a backup, its node trains on them again as long as the data have"
    " them: take them out of the data folder, and make a backup after each removal."
)
ONE = (
    "Start it only if the home that it is a copy of runs nowhere any more, and never will: two daemons with one key"
    " contradict each other, and that expels the member."
)
FOLLOWS = (
    "What it lacks comes back from the others after `collegium node start`. Until they have told it what they know it"
    " signs nothing; it votes on nothing twice, and counts what its updates have spent since. If updates were withdrawn"
    " since, it trains nothing until `collegium unlearn resume` (`collegium node status` says so)."
)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make.")],
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy this home into one file, whether or not its daemon runs. The copy holds the private key."""
    from ..node.backup import opened

    node_home = existing_home(home)
    check_new(file, force=force)
    if file.absolute().is_relative_to(node_home.root.absolute()):
        raise UsageError(f"{file} would lie in the home itself", "Name a file elsewhere, best on another disk.")
    with progress(as_json) as step, opened(node_home, file.absolute().parent, step) as made:
        write_new(file, made.parts(), force=force)
    for name in made.damaged:
        say(f"warning: {node_home.root / name} is damaged on disk and was left out; a restored home fetches it again")
    result: Any = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "files": len(made.files),
        "bytes_of_home": sum(entry.size for entry in made.files.values()),
        "federation": made.head.federation,
        "height": made.head.height,
        "public_key": made.head.public_key,
        "created": made.head.created,
        "sealed": made.head.sealed,
        "damaged": made.damaged,
    }

    def people(out: Any) -> None:
        facts(
            out,
            [
                ("backup", f"{file}, {size(result['bytes'])}"),
                ("holds", f"{result['files']} files, {size(result['bytes_of_home'])}, as of {_moment(result)}"),
                ("key", SEALED_KEY if result["sealed"] else OPEN_KEY),
                ("keep in mind", WITHDRAWN),
                ("removed students", REMOVALS),
            ],
        )

    emit(result, as_json, people)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `collegium node backup` wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The node's directory to make; a new or empty one.")],
    as_json: JsonOption = False,
) -> None:
    """Make a home from a backup, after checking all of it. Nothing is started."""
    from ..node.backup import check, unpack
    from ..node.home.paths import Home

    check_new_folder(folder)
    node_home = Home(folder)
    with progress(as_json) as step:
        contents = check(file, step)
        unpack(contents, node_home, step)
    head, data = contents.head, _data(node_home)
    result: Any = {
        "home": str(folder),
        "file": str(file),
        "bytes": contents.size,
        "files": len(contents.entries),
        "federation": head.federation,
        "height": head.height,
        "public_key": head.public_key,
        "created": head.created,
        "release": head.release,
        "sealed": head.sealed,
        "data": None if data is None else str(data),
        "data_there": data is not None and data.is_dir(),
    }

    def people(out: Any) -> None:
        where = "is there" if result["data_there"] else "is not there: mend [data] path in config.toml"
        there = f"{data} {where}" if data is not None else "none is named"
        facts(
            out,
            [
                ("directory", folder),
                ("holds", f"{len(contents.entries)} files, {size(contents.size)}, as of {_moment(result)}"),
                ("member's key", result["public_key"][:16]),
                ("data folder", f"not in the backup; {there}"),
                ("only one", ONE),
                ("next", at_home(FOLLOWS, folder)),
            ],
        )

    emit(result, as_json, people)


def _moment(head: Any) -> str:
    where = f"height {head['height']}" if head["federation"] else "before it ever ran"
    return f"{head['created']}, {where}"


def _data(home: "Home") -> Path | None:
    """Return the data folder that config.toml names, as it is found from the new directory."""
    from ..node.home import config

    try:
        return config.load(home.config).data.path
    except UsageError as error:  # an operator's slip is copied as it is
        say(f"warning: {error.message}")
        return None
