"""A home from a backup: everything is checked before anything is written."""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...crypto.errors import UsageError
from ..home.paths import Home
from ..store import schema
from ..store.errors import DiskFullError, disk_errors
from ..store.files import sync_folder, write_all
from .archive import (
    DATABASE,
    HEAD,
    HEAD_LIMIT,
    MANIFEST,
    SMALL_LIMIT,
    Entry,
    Head,
    belongs,
    damaged,
    read_head,
    read_manifest,
)

CHUNK = 1 << 20
SPARE = 64 << 20  # bytes that have to stay free on the disk

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """A backup that was checked whole: its files by name."""

    file: Path
    head: Head
    entries: dict[str, Entry]

    @property
    def size(self) -> int:
        """How many bytes the home will have."""
        return sum(entry.size for entry in self.entries.values())


def check(file: Path, progress: Progress | None = None) -> Contents:
    """Read a backup from end to end and check its format, its names and every digest.

    Raises UsageError (a newer format, a database of another version, or it cannot be read), CorruptError.
    """
    source, entries, head, listed = str(file), dict[str, Entry](), None, None
    with _opened(file) as (archive, total):
        for info in _members(archive, source):
            name = info.name
            if listed is not None or name in entries:
                raise damaged(source, f"{name[:200]!r} is in it after its end, or twice")
            if head is None:
                if name != HEAD:
                    raise damaged(source, f"it does not begin with {HEAD}")
                data = _whole(archive, info, HEAD_LIMIT, source)
                head = read_head(data, source)
                entries[name] = Entry(len(data), hashlib.sha256(data).hexdigest())
            elif name == MANIFEST:
                listed = read_manifest(_whole(archive, info, SMALL_LIMIT, source), source)
            elif belongs(name):
                entries[name] = _digest(archive, info, file)
            else:
                raise damaged(source, f"{name[:200]!r} is no file of a node's home")
            if progress is not None:
                progress("checking", archive.offset, total)
    if head is None or listed is None:
        raise damaged(source, "its end is missing")
    for name in sorted(entries.keys() | listed.keys()):
        if entries.get(name) != listed.get(name):
            raise damaged(source, f"{name} in it is damaged" if name in entries else f"{name} is missing in it")
    if "key.json" not in entries:
        raise damaged(source, "no key is in it")
    del entries[HEAD]
    return Contents(file, head, entries)


def unpack(contents: Contents, home: Home, progress: Progress | None = None) -> None:
    """Write the home of a checked backup into a new or empty directory; durable on return.

    If it fails nothing of it stays. Raises UsageError, RefusedError, DiskFullError; CorruptError if the backup has
    changed since it was checked.
    """
    _check_space(home.root, contents.size)
    if home.root.is_dir() and any(home.root.iterdir()):
        raise UsageError(f"{home.root} is not an empty folder", "Name a new one; nothing is overwritten.")
    home.make()
    try:
        _write(contents, home, progress)
    except BaseException:
        for path in home.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _write(contents: Contents, home: Home, progress: Progress | None) -> None:
    folders, done, left = set[Path](), 0, dict(contents.entries)
    with _opened(contents.file) as (archive, _):
        for info in _members(archive, str(contents.file)):
            wanted = left.pop(info.name, None)
            if wanted is None:
                continue  # the head and the manifest; all other names were checked
            path = home.root / info.name
            for folder in [home.root / part for part in reversed(Path(info.name).parents)]:  # the home itself first
                folder.mkdir(mode=0o700, exist_ok=True)
                folders.add(folder)
            with disk_errors(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                try:
                    hashed = hashlib.sha256()
                    for chunk in _chunks(archive, info, str(contents.file)):
                        hashed.update(chunk)
                        write_all(descriptor, chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress("writing", done, contents.size)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            if hashed.hexdigest() != wanted.sha256:
                raise damaged(str(contents.file), f"{info.name} in it has changed since it was checked")
    if left:
        raise damaged(str(contents.file), f"{min(left)} in it has gone since it was checked")
    for folder in sorted(folders, reverse=True):
        sync_folder(folder)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[tarfile.TarFile, int]]:
    """Open an archive; yield it and its size. Raises UsageError if it cannot be read, CorruptError if it is none."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"Cannot read {file}: {error.strerror}", "Name the file that node backup wrote.") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not file.is_file():
            raise UsageError(f"{file} is no file", "Name the file that node backup wrote.")
        try:
            with tarfile.open(fileobj=opened, mode="r:") as archive:
                yield archive, os.fstat(descriptor).st_size
        except (tarfile.TarError, EOFError) as error:
            raise damaged(str(file), f"it is no tar archive, or cut off ({error})") from error


def _members(archive: tarfile.TarFile, source: str) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an archive. Raises CorruptError for a link, a device, a folder, a file with holes."""
    for info in archive:
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
            raise damaged(source, f"{info.name[:200]!r} is no regular file")
        yield info


def _chunks(archive: tarfile.TarFile, info: tarfile.TarInfo, source: str) -> Iterator[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is a regular file
    left = info.size
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise damaged(source, "its end is missing")
        left -= len(chunk)
        yield chunk


def _whole(archive: tarfile.TarFile, info: tarfile.TarInfo, limit: int, source: str) -> bytes:
    if info.size > limit:
        raise damaged(source, f"{info.name} in it is over {limit} bytes")
    return b"".join(_chunks(archive, info, source))


def _digest(archive: tarfile.TarFile, info: tarfile.TarInfo, file: Path) -> Entry:
    hashed, start = hashlib.sha256(), b""
    for chunk in _chunks(archive, info, str(file)):
        start = start or chunk[:100]
        hashed.update(chunk)
    if info.name == DATABASE:
        schema.check_header(file / DATABASE, start)
    if info.name.startswith("blobs/") and hashed.hexdigest() != info.name.rpartition("/")[2]:
        raise damaged(str(file), f"{info.name} in it is damaged")
    return Entry(info.size, hashed.hexdigest())


def _check_space(root: Path, needed: int) -> None:
    """Raise DiskFullError where the home would not fit."""
    nearest = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(nearest).free
    if free < needed + SPARE:
        why = f"the backup needs {(needed + SPARE) / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        raise DiskFullError(root, why)
