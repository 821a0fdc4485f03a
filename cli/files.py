"""Output files of commands: readable by their owner only, in an existing folder.

Another file is replaced only if `--force` says so, whole or not at all, and never one of a node's home. The paths are
checked before anything is computed.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ..crypto.errors import UsageError


def check_new(file: Path, *, force: bool = False) -> None:
    """Check that a new file can be made there; with `force` it may replace one. Raises UsageError."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise UsageError(f"{file} is there already, and is no file to be replaced", "Name a new file.")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", "Name a new file; --force replaces that one.")
    if file.exists() and (home := _home_of(file)) is not None:
        raise UsageError(f"{file} belongs to the node in {home}", "Name a new file. A node's own files stay.")
    check_parent(file)


def _home_of(file: Path) -> Path | None:
    """Return the home whose node needs this file; None if there is none."""
    from ..node.backup.archive import belongs

    whole = file.resolve()
    homes = (folder for folder in whole.parents if (folder / "key.json").exists())
    return next((home for home in homes if belongs(whole.relative_to(home).as_posix())), None)


def check_parent(path: Path) -> None:
    """Check that the folder of this path is writable. Raises UsageError."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}", "Make it, or name another.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written into {folder}", "Name another folder, or ask whose it is.")


def check_new_folder(folder: Path) -> None:
    """Check that a folder can be made there, or is empty. Raises UsageError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder", "Name a new one; nothing is overwritten.")
    if not folder.exists():
        check_parent(folder)


def check_folder(folder: Path) -> None:
    """Check that files can be written into a folder, or that it can be made. Raises UsageError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Name a folder.")
    check_parent(folder / "a file" if folder.exists() else folder)


def check_picture(file: Path, *suffixes: str, force: bool = False) -> None:
    """Check that a picture of one of these kinds can be made there. Raises UsageError."""
    if file.suffix not in suffixes:
        raise UsageError(f"{file} is no picture", f"Name a file in {' or '.join(suffixes)}.")
    check_new(file, force=force)


def write_new(file: Path, parts: Iterable[bytes], *, force: bool = False) -> None:
    """Write a new file, or with `force` replace one, whole or not at all. Raises UsageError, DiskFullError."""
    from ..node.store.files import write_stream

    check_new(file, force=force)
    try:
        write_stream(file, parts)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "Name another place.") from error
