"""Paths that data name: they stay inside the data folder."""

from pathlib import Path, PurePosixPath

from ...crypto.errors import UsageError


class OutsideError(UsageError):
    """A path leads out of the data folder."""


def inside(folder: Path, text: str, where: str) -> Path:
    """Return `folder/text`; a backslash, as Windows writes it, is read as a slash.

    Raises OutsideError, naming `where` and not the path, for an absolute path, one that climbs out by `..`, or one that
    a symbolic link leads out of the folder: a name in a table must not make the node open just any file of its machine.
    """
    path = PurePosixPath(text.replace("\\", "/"))
    drive = text[1:2] == ":"
    if not path.parts or path.is_absolute() or drive or ".." in path.parts or "\0" in text:
        raise OutsideError(f"{where}: the path leads out of the data folder", "Name a file inside it.")
    target = folder / path
    try:
        if not target.resolve().is_relative_to(folder.resolve()):
            raise OutsideError(f"{where}: a symbolic link leads out of the data folder", "Copy the file into it.")
    except (OSError, RuntimeError) as error:  # a circle of links
        raise OutsideError(f"{where}: the path cannot be followed", "Copy the file into the data folder.") from error
    return target
