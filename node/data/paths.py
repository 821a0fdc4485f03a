"""Paths that data name: they stay inside the data folder."""

from pathlib import Path, PurePosixPath

from ...crypto.errors import UsageError


def inside(folder: Path, text: str, where: str) -> Path:
    """Return `folder/text`. Raises UsageError, naming `where`, for an absolute path or one that climbs out by `..`.

    A name in a table must not make the node open just any file of its machine.
    """
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in text or "\\" in text:
        raise UsageError(f"{where}: the path {text!r} leads out of the data folder", "Name a file inside it.")
    return folder / path
