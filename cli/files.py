"""Files that commands write: never over another one."""

from collections.abc import Iterable
from pathlib import Path

from ..crypto.errors import UsageError


def check_new(file: Path) -> None:
    """Check that a file can be made there. Raises UsageError."""
    if file.exists():
        raise UsageError(f"{file} is there already", "Name a new file, or remove that one first.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}", "Make it, or name another.")


def check_picture(file: Path, *suffixes: str) -> None:
    """Check that a picture of one of these kinds can be made there. Raises UsageError."""
    if file.suffix not in suffixes:
        raise UsageError(f"{file} is no picture", f"Name a file in {' or '.join(suffixes)}.")
    check_new(file)


def write_new(file: Path, parts: Iterable[bytes]) -> None:
    """Write a file that is not there yet, whole or not at all. Raises UsageError, DiskFullError."""
    from ..node.store.files import write_stream  # noqa: PLC0415 - imports of commands wait until they run

    check_new(file)
    try:
        write_stream(file, parts)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "Name another place.") from error
