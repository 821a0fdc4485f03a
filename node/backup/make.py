"""Making a backup of a home, beside a running daemon or without one.

The order makes it consistent. The keys are read before the database: if the key is replaced in between, the next
start finishes that. All else is read after it: the files of an update are on disk before the database refers to it. An
excluded student or bytes that the database lacks are possible after a crash too.
"""

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...crypto.errors import CorruptError, UsageError
from ...crypto.keyfile import is_sealed
from ..home.paths import Home
from ..store.copy import copy_database
from ..store.database import Store
from ..store.errors import disk_errors
from ..store.files import read_limited
from .archive import DATABASE, HEAD, MANIFEST, SMALL, SMALL_LIMIT, Entry, Head, belongs, dump_manifest, head

CHUNK = 1 << 20

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Backup:
    """A backup on its way. After `parts`: how many files and bytes went in, and which were left out as damaged."""

    home: Home
    head: Head
    database: Path | None
    keys: dict[str, bytes]
    progress: Progress | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    done: int = 0

    @property
    def files(self) -> dict[str, Entry]:
        """The files of the home in it, without the archive's own head: those that a restore writes."""
        return {name: entry for name, entry in self.entries.items() if name != HEAD}

    def parts(self) -> Iterator[bytes]:
        """Yield the archive's bytes. Files deleted meanwhile, because of a withdrawal, are not in it."""
        yield from self._whole(HEAD, self.head.dump())
        large = [] if self.database is None else [(DATABASE, self.database)]
        large += list(_files_of(self.home))
        total = sum(_size(path) for _, path in large)
        for name, path in large:
            yield from self._file(name, path, total)
        for name in (*SMALL, *sorted(path.name for path in self.home.root.glob("*.toml"))):
            if name not in self.entries and (data := _read(self.home.root / name)) is not None:
                yield from self._whole(name, data)
        for name, data in self.keys.items():
            yield from self._whole(name, data)
        data = dump_manifest(self.entries)
        yield from (_header(MANIFEST, len(data)), data, _padding(len(data)), bytes(2 * tarfile.BLOCKSIZE))

    def _whole(self, name: str, data: bytes) -> Iterator[bytes]:
        self.entries[name] = Entry(len(data), hashlib.sha256(data).hexdigest())
        yield from (_header(name, len(data)), data, _padding(len(data)))

    def _file(self, name: str, path: Path, total: int) -> Iterator[bytes]:
        with disk_errors(path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return
        with os.fdopen(descriptor, "rb") as file:  # deleted from now on, it can still be read
            size = os.fstat(descriptor).st_size
            if name.startswith("blobs/"):
                if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                    self.damaged.append(name)  # a restored home fetches it again
                    return
                file.seek(0)
            yield _header(name, size)
            hashed, left = hashlib.sha256(), size
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise CorruptError(f"{path} became shorter while it was read", "Make the backup again.")
                hashed.update(chunk)
                left -= len(chunk)
                self.done += len(chunk)
                if self.progress is not None:
                    self.progress("copying", min(self.done, total), total)
                yield chunk
            yield _padding(size)
        self.entries[name] = Entry(size, hashed.hexdigest())


@contextmanager
def opened(home: Home, scratch: Path, progress: Progress | None = None) -> Iterator[Backup]:
    """Begin a backup: the keys are read, and the database is copied into a folder below `scratch` until this ends.

    Raises UsageError if there is no key or the folder cannot be used; CorruptError if the database is damaged.
    """
    keys = _keys(home)
    own = keys.get(home.key.name)
    if own is None:
        raise UsageError(
            f"There is no key in {home.root}", "Run `collegium init` there first, or name the node's home."
        )
    with disk_errors(scratch), tempfile.TemporaryDirectory(prefix=".collegium-backup-", dir=scratch) as folder:
        database, federation, height = None, b"", 0
        if home.database.exists():
            database = Path(folder) / DATABASE
            tell = None if progress is None else (lambda done, total: progress("reading the database", done, total))
            copy_database(home.database, database, tell)
            with Store.open_readonly(database) as store:
                federation, height = store.federation, store.height()
        made = head(federation=federation, height=height, public_key=_public(own, home.key), sealed=is_sealed(own))
        yield Backup(home, made, database, keys, progress)


def _keys(home: Home) -> dict[str, bytes]:
    """Return the key files, the one in use last. The next one is read first: it becomes the one in use (keys.py)."""
    keys = {path.name: data for path in (home.next_key, home.key) if (data := _read(path)) is not None}
    for path in sorted(home.root.glob("key.*.json")):
        if path.name not in keys and (data := _read(path)) is not None:
            keys[path.name] = data
    if home.key.name in keys:
        keys[home.key.name] = keys.pop(home.key.name)
    return keys


def _files_of(home: Home) -> Iterator[tuple[str, Path]]:
    """Yield all files of the home's folders that belong into a backup."""
    for folder, pattern in (
        (home.blobs, "[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"),
        (home.states, "*/*"),
        (home.root / "manifests", "*"),
        (home.private, "*"),
    ):
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(home.root).as_posix()
            if belongs(name) and path.is_file() and not path.is_symlink():
                yield name, path


def _read(path: Path) -> bytes | None:
    """Return a small file; None if there is none, or if it is no file."""
    if not belongs(path.name) or path.is_symlink() or not path.is_file():
        return None
    with disk_errors(path):
        try:
            data = read_limited(path, SMALL_LIMIT)
        except FileNotFoundError:
            return None
    if data is None:
        raise CorruptError(f"{path} is over {SMALL_LIMIT} bytes", "Nothing of that size belongs there.")
    return data


def _public(data: bytes, path: Path) -> bytes:
    try:
        return bytes.fromhex(json.loads(data)["public_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is damaged", "Restore the key file from a backup.") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
