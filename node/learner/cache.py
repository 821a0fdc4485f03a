"""A cache of computed embeddings, in an SQLite file beside the data.

    meta   salt: 32 random bytes
    rows   model, record, subject → value: float32, little-endian; check: a digest over key and value

`record` and `subject` are hashes under the salt, so that the file holds neither texts nor ids. With the file one can
still test guesses of them, and an embedding reveals its text in part: it is as secret as the data, and its mode is
0600.

Guarantees: when `forget` or `keep_only` returns, the deleted rows are gone from the file, overwritten with zeros and
truncated, and in no file beside it: the journal is kept in memory. The price is the safety of transactions: a file that
is damaged, by a loss of power say, is removed and made anew. It is only a cache.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from ...crypto.errors import LocalProtocolError, UsageError
from ...crypto.hashing import digest
from ..data.media import MediaFile

log = structlog.get_logger(__name__)

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
FORMAT = 1
CHUNK = 256  # texts that are embedded, then stored together; a killed worker loses these
_SETUP = """
PRAGMA secure_delete = ON;
PRAGMA journal_mode = MEMORY;
PRAGMA temp_store = MEMORY;
PRAGMA synchronous = FULL;
"""
_SCHEMA = f"""
CREATE TABLE meta (salt BLOB NOT NULL);
CREATE TABLE rows (
    model BLOB NOT NULL, record BLOB NOT NULL, subject BLOB NOT NULL, value BLOB NOT NULL, mark BLOB NOT NULL,
    PRIMARY KEY (model, record)
);
CREATE INDEX by_subject ON rows (subject);
PRAGMA user_version = {FORMAT};
"""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT})


class EmbeddingCache:
    """One file of embeddings, made if it or its folder (mode 0700) is missing. A context manager for one writer.

    Raises UsageError where the file cannot be opened or written; a damaged file is replaced by an empty one, and
    logged. `read_only`: nothing is stored, made or mended; a file that cannot be read counts as empty.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path, self._read_only = path, read_only
        self._connection, self._salt = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def get_many(self, model: bytes, records: Sequence[bytes]) -> list[Floats | None]:
        """Return the embedding of each record under a model, or None; a row that fails its check counts as none."""

        def read() -> list[Floats | None]:
            vectors = []
            for record in map(self._hidden, records):
                row = self._connection.execute(
                    "SELECT value, mark FROM rows WHERE model = ? AND record = ?", (model, record)
                ).fetchone()
                if row is not None and row[1] != _mark(model, record, row[0]):
                    log.warning("a cached embedding fails its check", path=str(self._path))
                    row = None
                vectors.append(None if row is None else np.frombuffer(row[0], dtype="<f4").astype(np.float32))
            return vectors

        return self._attempt(read)

    def put_many(self, model: bytes, rows: Iterable[tuple[bytes, str, Floats]]) -> None:
        """Store embeddings, each a record, its subject and a vector: all or none of them.

        A read-only cache stores nothing.
        """
        if self._read_only:
            return
        entries = list(rows)

        def write() -> None:
            values = []
            for record, subject, vector in entries:
                hidden, value = self._hidden(record), vector.astype("<f4").tobytes()
                values.append((model, hidden, self._tag(subject), value, _mark(model, hidden, value)))
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)", values)

        self._attempt(write)

    def forget(self, subjects: Collection[str]) -> int:
        """Delete all rows of these subjects, bytes included, and return their number."""
        return self._attempt(lambda: self._delete({self._tag(subject) for subject in subjects}))

    def keep_only(self, subjects: Collection[str]) -> int:
        """Delete the rows of all other subjects, as `forget` does: those that are no longer in the data."""

        def prune() -> int:
            kept = {self._tag(subject) for subject in subjects}
            stored = {tag for (tag,) in self._connection.execute("SELECT DISTINCT subject FROM rows")}
            return self._delete(stored - kept)

        return self._attempt(prune)

    def _delete(self, tags: Collection[bytes]) -> int:
        if self._read_only:
            raise LocalProtocolError("a cache that is read only forgets nobody")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            before = self._connection.total_changes
            self._connection.executemany("DELETE FROM rows WHERE subject = ?", [(tag,) for tag in sorted(tags)])
            deleted = self._connection.total_changes - before
        # This also frees zeroed pages of an earlier call that was interrupted here.
        if deleted or self._connection.execute("PRAGMA freelist_count").fetchone()[0]:
            self._connection.execute("VACUUM")
        return deleted

    def _hidden(self, record: bytes) -> bytes:
        return blake2b(record, key=self._salt, digest_size=32, person=b"record").digest()

    def _tag(self, subject: str) -> bytes:
        return blake2b(subject.encode("utf-8", "surrogatepass"), key=self._salt, person=b"subject").digest()[:16]

    def _attempt(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except sqlite3.Error as error:
            if self._read_only:
                log.warning("the cache of embeddings cannot be read", path=str(self._path), error=str(error))
            elif _code(error) not in _DAMAGE:
                raise self._cache_error(error) from error
            else:
                log.warning(
                    "the cache of embeddings is damaged and starts anew", path=str(self._path), error=str(error)
                )
        self.close()
        if self._read_only:
            self._connection, self._salt = _empty_cache()
        else:
            self._remove()
            self._connection, self._salt = self._opened()
        try:
            return action()
        except sqlite3.Error as error:
            raise self._cache_error(error) from error

    def _opened(self) -> tuple[sqlite3.Connection, bytes]:
        if self._read_only:
            return _opened_to_read(self._path)
        for attempt in range(2):
            connection = None
            try:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                # The mode is set before a byte is written; SQLite uses it for its files beside this one.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
                self._path.chmod(0o600)
                connection = sqlite3.connect(self._path, isolation_level=None)
                return connection, _prepared(connection)
            except OSError as error:
                raise self._cache_error(error) from error
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                if attempt or _code(error) not in _DAMAGE:
                    raise self._cache_error(error) from error
                log.warning(
                    "the cache of embeddings is damaged and starts anew", path=str(self._path), error=str(error)
                )
                self._remove()
        raise AssertionError("the second attempt returns or raises")

    def _remove(self) -> None:
        # Removed, not put aside: no one would ever delete a subject from a file put aside.
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()

    def _cache_error(self, error: Exception) -> UsageError:
        return UsageError(
            f"cannot use the cache of embeddings {self._path} ({error})",
            "Check its permissions, the space on the disk, and that no other process holds it.",
        )


class Frozen(Protocol):
    """A frozen encoder: of records of one kind, the same vectors whenever it is asked."""

    width: int
    max_tokens: int

    @property
    def adapted(self) -> bool:
        """Whether it is not frozen after all."""

    def embed(self, records: Any, progress: Callable[[int, int], None] | None = None) -> Floats:
        """Return [n, width]."""


def embed_cached(
    encoder: Frozen,
    weights_digest: bytes,
    records: Sequence[Any],
    subjects: Sequence[str],
    cache: EmbeddingCache,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Return the embeddings of records, [n, width] float32, computing only those that the cache lacks; None is zero.

    A record is a text, a file of a picture or of sound, or the pixels of a picture. `subjects` [n] are the records'
    subjects. The encoder is the frozen model of `weights_digest`, without an adapter or
    prompt.
    """
    if encoder.adapted:
        raise LocalProtocolError("an encoder with adapters or a prompt has no embeddings that last")
    model = digest("embedding", weights_digest, encoder.max_tokens.to_bytes(4, "big"))
    rows = [row for row, record in enumerate(records) if record is not None]
    contents = {row: _content(records[row]) for row in rows}
    # The subject is part of the key: equal texts of two students are stored twice, and deleted separately.
    keys = [digest(contents[row][0], _bytes(subjects[row]), contents[row][1]) for row in rows]
    embedded = np.zeros((len(records), encoder.width), dtype=np.float32)
    missing = []
    for row, key, value in zip(rows, keys, cache.get_many(model, keys), strict=True):
        if value is None or value.shape != (encoder.width,):
            missing.append((row, key))
        else:
            embedded[row] = value
    if missing and progress is not None:
        progress(0, len(missing))
    missing.sort(key=lambda item: len(contents[item[0]][1]))  # batches of like length: the least padding
    for begin in range(0, len(missing), CHUNK):
        chunk = missing[begin : begin + CHUNK]
        # One prompt question precedes many answers.
        distinct = {contents[row]: records[row] for row, _ in chunk}
        places = {content: number for number, content in enumerate(distinct)}
        tell = None if progress is None else _within(progress, begin, len(chunk), len(missing))
        vectors = encoder.embed(list(distinct.values()), tell)[[places[contents[row]] for row, _ in chunk]]
        cache.put_many(model, ((key, subjects[row], vector) for (row, key), vector in zip(chunk, vectors, strict=True)))
        embedded[[row for row, _ in chunk]] = vectors
        if progress is not None:
            progress(begin + len(chunk), len(missing))
    return embedded


def _within(progress: Callable[[int, int], None], begin: int, size: int, total: int) -> Callable[[int, int], None]:
    """Return what tells of a part of `size` records from `begin` on as progress in all `total`."""
    return lambda done, of: progress(begin + size * done // of, total)


def _content(record: Any) -> tuple[str, bytes]:
    """Return the kind of a record, and the bytes that decide its embedding."""
    if isinstance(record, MediaFile):
        return "file", record.digest + repr(record.audio).encode()
    if isinstance(record, np.ndarray):
        return "pixels", record.astype("<f4").tobytes()
    return "text", _bytes(record)


def _opened_to_read(path: Path) -> tuple[sqlite3.Connection, bytes]:
    connection = None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        return connection, _prepared(connection)
    except sqlite3.Error:
        if connection is not None:
            connection.close()
        return _empty_cache()


def _empty_cache() -> tuple[sqlite3.Connection, bytes]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    return connection, _prepared(connection)


def _prepared(connection: sqlite3.Connection) -> bytes:
    connection.executescript(_SETUP)
    if connection.execute("PRAGMA schema_version").fetchone()[0] == 0:  # an empty file
        connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}")
        connection.execute("INSERT INTO meta VALUES (?)", (token_bytes(32),))
        connection.execute("COMMIT")
    salts = connection.execute("SELECT salt FROM meta").fetchall()
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if version != FORMAT or sound != "ok" or len(salts) != 1 or len(salts[0][0]) != 32:
        raise _damage(f"format {version}, check {sound}")
    return bytes(salts[0][0])


def _damage(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _mark(model: bytes, record: bytes, value: bytes) -> bytes:
    return digest("cached-embedding", model, record, value)


def _bytes(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "surrogatepass")
