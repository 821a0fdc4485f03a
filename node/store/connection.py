"""Making, opening and checking the database file; SQLite's errors become named ones."""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

from ...crypto.errors import CollegiumError, CorruptError, LocalProtocolError, RefusedError, UsageError
from ..scarce import can_open
from . import schema
from .errors import DiskFullError, disk_errors
from .files import sync_folder

BUSY_SECONDS = 5.0
ROW_LIMIT = 4 << 20  # bytes of one value; the largest is a proposal of 256 KiB

_WRITING = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
    }
)


@contextmanager
def sql_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn what sqlite3 raises into CorruptError, DiskFullError, UsageError or, if ours, LocalProtocolError."""
    try:
        yield
    except CollegiumError:
        raise
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
        raise _database_error(path, error, opening) from error


def _database_error(path: Path, error: Exception, opening: bool) -> CollegiumError:
    code = getattr(error, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return DiskFullError(path)
        case sqlite3.SQLITE_IOERR if code in _WRITING:
            return DiskFullError(path, "the disk is full, over its quota, or failing")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR:
            return CorruptError(f"The database {path} is damaged ({error})", schema.recovery(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return UsageError(f"Another process holds the database {path}", "Stop the other process.")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_NOMEM if not can_open():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path)) from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            advice = "Run as the user who owns this node's directory, and check its permissions."
            return UsageError(f"Cannot open the database {path} ({error})", advice)
        case sqlite3.SQLITE_ERROR if opening:  # no such table, unsupported file format
            return CorruptError(f"The database {path} is damaged ({error})", schema.recovery(path))
        case None if isinstance(error, sqlite3.OperationalError | UnicodeDecodeError):
            # Raised by the module itself: text that is not UTF-8, in a column or in the words of another error.
            return CorruptError(f"The database {path} is damaged ({error})", schema.recovery(path))
        case _:
            return LocalProtocolError(f"the database refuses a value: {error}")


def create(path: Path, federation: bytes) -> None:
    """Make an empty database, mode 0600. It appears under its name complete or not at all.

    So an empty or short file is damage, never a database half made: taking it for a new one would forget votes (G8).
    """
    if _file_beside(path, "-wal").exists():
        raise CorruptError(f"The database {path} is gone, but its log is still there", schema.recovery(path))
    new = _file_beside(path, ".new")
    with disk_errors(path), sql_errors(new):
        for leftover in (new, _file_beside(new, "-wal"), _file_beside(new, "-shm")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            with closing(connect(new)) as connection:
                connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {schema.VERSION}")
                connection.executescript(f"BEGIN; {schema.TABLES} COMMIT;")
                connection.execute("INSERT INTO meta VALUES (1, ?, ?)", (federation, time.time()))
            new.rename(path)
        except BaseException:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open the file as it is, without checks. Transactions are begun by hand; a commit is on disk when it returns.

    Raises as `sql_errors` does.
    """
    mode = "ro" if readonly else "rw"
    with sql_errors(path, opening=True):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # Store serialises with a lock
        )
    try:
        _set_up(connection, path, readonly=readonly)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path, *, readonly: bool) -> None:
    # Errors are named before the connection is closed, which would free the descriptors of which it had too few.
    with sql_errors(path, opening=True):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW_LIMIT)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        if readonly:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten in their pages
            (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if journal != "wal":
                advice = "Put this node's directory on a local file system; network file systems lack shared memory."
                raise RefusedError(f"The file system of {path} does not carry a write-ahead log", advice)
            connection.execute("PRAGMA synchronous = FULL")  # WAL's NORMAL may lose the last commits with the power


def verify(connection: sqlite3.Connection, path: Path, federation: bytes | None, *, thorough: bool) -> bytes:
    """Check a just opened database and return its federation; None takes any.

    `thorough` compares indexes with tables too: "never acknowledge two" is a lookup in an index. It reads the whole
    file (0.3 s for 100,000 records). Raises CorruptError or RefusedError.
    """
    with sql_errors(path, opening=True):  # named before the connection is closed, as in `connect`
        check = "integrity_check" if thorough else "quick_check"
        (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
        if verdict != "ok":
            raise CorruptError(f"The database {path} is damaged ({verdict})", schema.recovery(path))
        if _schema(connection) != _expected_schema():
            raise CorruptError(f"The tables of the database {path} are damaged", schema.recovery(path))
        rows = connection.execute("SELECT federation FROM meta").fetchall()
    if len(rows) != 1 or len(rows[0][0]) != 32:
        raise CorruptError(f"The database {path} does not say whose it is", schema.recovery(path))
    own: bytes = rows[0][0]
    if federation is not None and own != federation:
        raise RefusedError(
            f"The database {path} belongs to federation {own.hex()[:16]}, the charter is of {federation.hex()[:16]}",
            "Put back the charter of this node, or give the other federation a directory of its own.",
        )
    return own


def check_file(path: Path) -> None:
    """Check the file's first bytes before SQLite sees it. Raises CorruptError, UsageError; FileNotFoundError."""
    with disk_errors(path), path.open("rb") as file:
        schema.check_header(path, file.read(100))


def _schema(connection: sqlite3.Connection) -> bytes:
    return schema.schema_digest(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"))


@cache
def _expected_schema() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema.TABLES)
        return _schema(connection)


def _file_beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
