"""Whole files or none: temporary file, fsync, rename, fsync of the folder."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import disk_errors

TEMPORARY = ".tmp"


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; os.write may stop early, for one when the disk fills up in the middle."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """Open a folder for as long as the block lasts: a descriptor to fsync its entries."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: files made, renamed and removed there."""
    with opened_folder(folder) as descriptor:
        os.fsync(descriptor)


def write_atomic(path: Path, *parts: bytes | memoryview, durable: bool = True, scratch: Path | None = None) -> None:
    """Replace `path` (mode 0600): after a crash it holds the old content or all of the new, never a part.

    With `durable` the new content survives a power failure from the return on. The temporary file lies in `scratch`
    (on the same file system), by default beside `path`; it is removed when something fails.
    Raises DiskFullError or UsageError (not allowed).
    """
    write_stream(path, parts, durable=durable, scratch=scratch)


def write_stream(
    path: Path, parts: Iterable[bytes | memoryview], *, durable: bool = True, scratch: Path | None = None
) -> None:
    """Do as `write_atomic` with parts that are made while they are written; if making one fails, nothing is changed."""
    temporary = (scratch or path.parent) / f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}"
    with disk_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                for part in parts:
                    write_all(descriptor, part)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def read_limited(path: Path, limit: int) -> bytes | None:
    """Return a regular file's bytes, or None if it has more than `limit`. No link is followed. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            return None
        data = file.read(limit + 1)
        return data if len(data) <= limit else None
