"""Update bytes on disk by their SHA-256.

    ab/cd/<digest>        whole blobs: fsynced, then renamed to here, so a file with its name has its content
    partial/<digest>      pulls that were cut, resumed from where they stopped
    quarantine/<digest>   files that no longer hash to their name: evidence of a failing disk, never served

Guarantees: once `put` or `commit` returns, its bytes survive loss of power (an ack signs that, design.md section 7).
Once `delete` returns, its bytes do not come back. `get` returns bytes only if they hash to their name. Methods may be
called from any thread, and `put` from another process.
"""

import hashlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import structlog

from ...crypto.errors import CorruptError, LocalProtocolError, RemoteProtocolError
from ...crypto.hashing import sha256
from ..scarce import is_scarce
from .errors import disk_errors
from .files import opened_folder, read_limited, sync_folder, write_all, write_atomic

log = structlog.get_logger(__name__)

# The largest payload that a charter allows (2^26 parameters of 16 bits) as an incompressible zstd frame, rounded up.
BLOB_LIMIT = 130 << 20
_CHUNK = 1 << 20


class Blobs:
    """A folder of blobs, made if it is missing (mode 0700)."""

    def __init__(self, folder: Path, limit: int = BLOB_LIMIT) -> None:
        self.folder = folder
        self._limit = limit
        self._partial = folder / "partial"
        self._quarantine = folder / "quarantine"
        self._durable: set[Path] = set()  # folders whose own names were fsynced in this run
        self._open: set[bytes] = set()  # digests with a writer
        self._lock = threading.Lock()
        with disk_errors(folder):
            for needed in (folder, self._partial, self._quarantine):
                needed.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: bytes) -> Path:
        """Return where a blob lies or would lie."""
        if len(digest) != 32:
            raise LocalProtocolError(f"a blob's digest has 32 bytes, not {len(digest)}")
        name = digest.hex()
        return self.folder.joinpath(name[:2], name[2:4], name)

    def has(self, digest: bytes) -> bool:
        """Whether the blob is stored. Its content is checked by `get`."""
        return self.path(digest).is_file()

    def size(self, digest: bytes) -> int | None:
        """Return a stored blob's size in bytes."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, data: bytes) -> bytes:
        """Store bytes durably and return their digest; a damaged file of that name is replaced.

        Raises LocalProtocolError over the size limit, DiskFullError.
        """
        if len(data) > self._limit:
            raise LocalProtocolError(f"a blob of {len(data)} bytes is over the limit of {self._limit}")
        digest = sha256(data)
        path = self.path(digest)
        with disk_errors(path):
            self._make_folder(path.parent)
            if not path.is_file() or read_limited(path, len(data)) != data:
                write_atomic(path, data, scratch=self._partial)
        return digest

    def get(self, digest: bytes) -> bytes:
        """Return a blob's bytes. Raises KeyError if it is not stored.

        Raises CorruptError if the file does not hash to its name; the file then goes to quarantine/, so that the blob
        counts as missing from then on and is fetched again.
        """
        path = self.path(digest)
        with disk_errors(path):
            try:
                data = read_limited(path, self._limit)
            except FileNotFoundError:
                raise KeyError(f"blob {digest.hex()} is not stored") from None
            except OSError as error:
                if is_scarce(error):
                    raise  # it says nothing about the file
                log.error("blob cannot be read", path=str(path), error=str(error))
                data = None
            if data is not None and sha256(data) == digest:
                return data
            kept = self._quarantine / path.name
            with suppress(FileNotFoundError):  # two readers may find out at once
                path.replace(kept)
        raise CorruptError(
            f"The blob {path} was damaged on disk; it was moved to {kept} and will be fetched again",
            "If this happens again, check the disk.",
        )

    @contextmanager
    def writer(self, digest: bytes, size: int) -> Iterator["BlobWriter"]:
        """Write a blob of `size` bytes as it arrives, from `offset` on where an earlier attempt stopped.

        Left without `commit`, the written bytes stay in partial/ for the next attempt. One writer a digest at a time.
        Raises RemoteProtocolError("blob-size") before anything is written if `size` is over the limit, DiskFullError.
        """
        path = self.path(digest)
        if not 0 <= size <= self._limit:
            raise RemoteProtocolError("blob-size", f"{size} bytes; at most {self._limit} are taken")
        with self._lock:
            if digest in self._open:
                raise LocalProtocolError(f"blob {digest.hex()[:16]} has a writer already")
            self._open.add(digest)
        try:
            with disk_errors(path):
                self._make_folder(path.parent)
                writer = BlobWriter(digest, size, self._partial / path.name, path)
            with writer:
                yield writer
        finally:
            with self._lock:
                self._open.discard(digest)

    def delete(self, digests: Iterable[bytes]) -> int:
        """Delete blobs, whole, partial or quarantined; return how many whole ones there were. Durable on return."""
        count = 0
        for digest in digests:
            path = self.path(digest)
            for copy in (path, self._partial / path.name, self._quarantine / path.name):
                with disk_errors(copy), suppress(FileNotFoundError), opened_folder(copy.parent) as folder:
                    copy.unlink()  # the folder was opened first: without a descriptor for it nothing is done yet
                    os.fsync(folder)
                    count += copy == path
        return count

    def digests(self) -> frozenset[bytes]:
        """Return the digests of all stored blobs, going by their names."""
        digests = set()
        for path in self.folder.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            with suppress(ValueError):
                digest = bytes.fromhex(path.name)
                if len(digest) == 32 and self.path(digest) == path:
                    digests.add(digest)
        return frozenset(digests)

    def sweep(self, keep: Collection[bytes]) -> int:
        """Delete every blob that is not in `keep`, all cut pulls but theirs, and what crashes left.

        Returns how many whole blobs were deleted. For the start, before anything writes: a new one would be deleted
        too.
        """
        kept = frozenset(keep)
        names = {digest.hex() for digest in kept}
        count = self.delete(self.digests() - kept)
        with disk_errors(self._partial):
            for path in [*self._partial.iterdir(), *self._quarantine.iterdir()]:
                if path.name not in names:
                    path.unlink(missing_ok=True)
            sync_folder(self._partial)
            sync_folder(self._quarantine)
        return count

    def _make_folder(self, folder: Path) -> None:
        """Make ab/cd and its name durable: after a crash between mkdir and fsync it exists, but maybe not for long."""
        if folder in self._durable and folder.is_dir():
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)
        self._durable.add(folder)


class BlobWriter:
    """A blob on its way in; made by `Blobs.writer`. `resumed`: it began with bytes of an earlier attempt.

    A wrong digest of a resumed blob is no proof against the peer: the first bytes may be another's.
    """

    def __init__(self, digest: bytes, size: int, partial: Path, final: Path) -> None:
        self._digest = digest
        self._size = size
        self._partial = partial
        self._final = final
        self._hash = hashlib.sha256()
        self.offset = 0  # the next byte wanted; where to resume
        self._descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, 0)
            while chunk := os.read(self._descriptor, _CHUNK):
                self._hash.update(chunk)
                self.offset += len(chunk)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._done = False

    def write(self, chunk: bytes) -> None:
        """Append what arrived.

        Raises RemoteProtocolError("blob-size") past the declared size and DiskFullError; both remove the partial file.
        """
        if self._done:
            raise LocalProtocolError("this blob's writer is finished")
        if self.offset + len(chunk) > self._size:
            self._discard()
            raise RemoteProtocolError("blob-size", f"more than the {self._size} bytes of {self._digest.hex()[:16]}")
        try:
            with disk_errors(self._final):
                write_all(self._descriptor, chunk)
        except BaseException:
            self._discard()  # a full disk needs the space, and a short write left the offset unknown
            raise
        self._hash.update(chunk)
        self.offset += len(chunk)

    def commit(self) -> None:
        """Check length and SHA-256, make the blob durable and give it its name.

        Raises RemoteProtocolError("blob-digest") if the digest differs, DiskFullError; both remove the
        partial file. RemoteProtocolError("blob-erased"): it was deleted while it was on its way.
        Committing before all bytes are there is LocalProtocolError, and they are kept.
        """
        if self._done:
            raise LocalProtocolError("this blob's writer is finished")
        if self.offset < self._size:
            raise LocalProtocolError(f"{self.offset} of {self._size} bytes of {self._digest.hex()[:16]} are there")
        if self._hash.digest() != self._digest:
            self._discard()
            raise RemoteProtocolError("blob-digest", f"{self._size} bytes do not hash to {self._digest.hex()[:16]}")
        try:
            with disk_errors(self._final):
                os.fsync(self._descriptor)
                with opened_folder(self._final.parent) as folder:  # before the name is there: it may be refused now
                    self._partial.replace(self._final)
                    os.fsync(folder)
        except FileNotFoundError:
            self._done = True
            raise RemoteProtocolError("blob-erased", f"{self._digest.hex()[:16]} is wanted no more") from None
        except BaseException as error:
            if not is_scarce(error):
                self._discard()
            raise
        self._done = True

    def _discard(self) -> None:
        self._done = True
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> "BlobWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
