"""The node's database: records, blocks, votes, acknowledged headers, privacy reservations (G6, G8).

Guarantees:

- `apply` is one transaction. When it returns, everything in it survives kill -9 and loss of power; when it raises,
  nothing of it is stored. A failed `apply` never loses
  what was stored before, a full disk included.
- A restart checks every value against checksums when it reads it: damage is a CorruptError, not another value.
- Methods may be called from any thread. Reads do not wait for a write in progress; they see what it commits from the
  moment that `apply` returns.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from ...crypto.errors import LocalProtocolError, UsageError
from ...protocol.records import Record
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..core.events import (
    Put,
    PutReservation,
    Snapshot,
    StoredBlock,
)
from . import connection as db
from .observations import MIN_CELL, Metric, RoundNote, dump_note
from .puts import put_into
from .rows import Reader, Row

READ_LIMIT = 10_000  # rows that one read returns at most


class Store:
    """One federation's database file. Made by `open` or `open_readonly`; close it, or use it as a context manager."""

    def __init__(
        self, path: Path, federation: bytes, read: sqlite3.Connection, write: sqlite3.Connection | None
    ) -> None:
        self.path, self.federation = path, federation
        self._rows = Reader(path, federation)
        self._read, self._write = read, write
        self._read_lock = threading.RLock()
        self._write_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, federation: bytes) -> "Store":
        """Open the database for the daemon; make it (mode 0600) if there is none.

        The caller holds the daemon's lock (node/home/lock.py). Checks the whole file. Raises CorruptError (damaged or
        truncated), RefusedError (another federation's), UsageError (written by a later release, held by another
        process, or not allowed) or DiskFullError, each naming the file and what to do.
        """
        if len(federation) != 32:
            raise LocalProtocolError(f"a federation id has 32 bytes, not {len(federation)}")
        if not path.exists():
            db.create(path, federation)
        db.check_file(path)
        write = db.connect(path)
        try:
            db.verify(write, path, federation, thorough=True)
            read = db.connect(path, readonly=True)
        except BaseException:
            write.close()
            raise
        return cls(path, federation, read, write)

    @classmethod
    def open_readonly(cls, path: Path) -> "Store":
        """Open the database of any node for reading, whether or not a daemon runs; it sees committed rows.

        Raises as `open` does; UsageError if there is none.
        """
        try:
            db.check_file(path)
        except FileNotFoundError:
            advice = "Start the daemon once (`collegium node start`), or name the node's directory."
            raise UsageError(f"There is no database {path}", advice) from None
        read = db.connect(path, readonly=True)
        try:
            federation = db.verify(read, path, None, thorough=False)
        except BaseException:
            read.close()
            raise
        return cls(path, federation, read, None)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it. Doing it twice is no error."""
        with self._write_lock, self._read_lock:
            self._read.close()
            if self._write is not None:
                with suppress(sqlite3.Error):  # committed rows are safe in the log; the next start merges it
                    self._write.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- writing

    def apply(self, puts: Sequence[Put]) -> None:
        """Store all of `puts`, in order, in one durable transaction, or none of them.

        Storing the same thing again changes nothing. Raises LocalProtocolError for contradictions: a second header
        for one (author, component, round), a second block at a height or one that does not follow, a training run that
        differs from its reservation, a statement of another federation, a block of records that are not stored.
        Raises DiskFullError when it cannot be written; the store can still be read, and written once there is space.
        """
        if not puts:
            return
        with self._transaction() as connection:
            now = time.time()
            for put in puts:
                put_into(connection, self.federation, put, now)

    def put_metrics(self, rows: Sequence[Metric]) -> None:
        """Store metrics; a figure replaces the one before for its round, generation, task, metric, cell and kind of
        model.

        Raises LocalProtocolError for a figure of a group that has under MIN_CELL subjects.
        """
        groups = [m for m in rows if m.cell]
        if any(m.count < MIN_CELL if m.count is not None else not math.isnan(m.value) for m in groups):
            raise LocalProtocolError(f"a figure of a group of under {MIN_CELL} subjects is not kept")
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO metrics (round, generation, task, metric, cell, personal, value, count, recorded)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " value = excluded.value, count = excluded.count, recorded = excluded.recorded",
                [
                    # SQLite has no NaN: it becomes NULL, and comes back as NaN.
                    (
                        *(m.round, m.generation, m.task, m.metric, m.cell, int(m.home_layer)),
                        *(None if math.isnan(m.value) else m.value, m.count, m.recorded),
                    )
                    for m in rows
                ],
            )

    def put_round_notes(self, notes: Iterable[tuple[str, int, int, Mapping[str, object]]]) -> None:
        """Store (component, round, height, data) of closed rounds durably; a later note replaces an earlier one."""
        rows = [(round_, component, height, dump_note(data), time.time()) for component, round_, height, data in notes]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO notes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " height = excluded.height, data = excluded.data, recorded = excluded.recorded",
                rows,
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._write
        if connection is None:
            raise LocalProtocolError(f"{self.path} was opened for reading only")
        with self._write_lock, db.sql_errors(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some errors SQLite has rolled back by itself; whatever ROLLBACK says, the first error counts.
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    # ---- reading

    def snapshot(self) -> Snapshot:
        """Return all that a node needs to start, as of one moment. Raises CorruptError naming the damaged table."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                (top,) = connection.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()
                blocks = [block for height in range(1, top + 1) if (block := self._block(connection, height))]
                if len(blocks) != top:
                    raise self._rows.damaged("blocks", "a height is missing")
                loose = connection.execute(
                    "SELECT digest, author, seq, wire, checksum FROM records"
                    " WHERE id NOT IN (SELECT record FROM block_records) ORDER BY id"
                )
                messages = connection.execute("SELECT height, checksum, data FROM messages ORDER BY id")
                published = connection.execute("SELECT run, checksum FROM published")
                received, now = connection.execute("SELECT height, received FROM blocks").fetchall(), time.time()
                return Snapshot(
                    blocks=tuple(blocks),
                    records=tuple([self._rows.record(row) for row in loose]),
                    messages=tuple([self._rows.message(row) for row in messages]),
                    headers=self.headers(),
                    reservations=tuple(self._reservations(connection)),
                    published=frozenset([self._rows.published(row) for row in published]),
                    flags=self._flags(connection),
                    clock=round(1000 * now),
                    ages={height: round(1000 * max(0.0, now - float(since))) for height, since in received},
                )
            finally:
                connection.execute("COMMIT")

    def headers(self) -> tuple[Signed[UpdateHeader], ...]:
        """Return the update headers that this node signed or acknowledged, in that order."""
        rows = self._all("SELECT author, component, round, wire, checksum FROM headers ORDER BY id")
        return tuple([self._rows.header(row) for row in rows])

    def height(self) -> int:
        """Return the height of the last block; 0 before the first."""
        return int(self._all("SELECT coalesce(max(height), 0) FROM blocks")[0][0])

    def block(self, height: int) -> StoredBlock | None:
        """Return the block decided at a height."""
        with self._reading() as connection:
            return self._block(connection, height)

    def blocks(self, after: int, limit: int) -> Iterator[StoredBlock]:
        """Yield up to `limit` blocks above height `after`, each read when it is asked for: stop at any size."""
        for height in range(after + 1, after + 1 + min(limit, READ_LIMIT)):
            block = self.block(height)
            if block is None:
                return
            yield block

    def record(self, digest: bytes) -> Signed[Record] | None:
        """Return the record with this digest."""
        rows = self._all("SELECT digest, author, seq, wire, checksum FROM records WHERE digest = ?", digest)
        return self._rows.record(rows[0]) if rows else None

    def record_at(self, author: bytes, seq: int) -> list[Signed[Record]]:
        """Return the records stored for one place in a feed, in the order of receipt: two or more are a fork."""
        rows = self._all(
            "SELECT digest, author, seq, wire, checksum FROM records WHERE author = ? AND seq = ? ORDER BY id LIMIT ?",
            author,
            seq,
            READ_LIMIT,
        )
        return [self._rows.record(row) for row in rows]

    def feed(self, author: bytes, after_seq: int, limit: int) -> list[Signed[Record]]:
        """Return up to `limit` records of an author with seq > `after_seq`, by seq, then receipt; forks included."""
        rows = self._all(
            "SELECT digest, author, seq, wire, checksum FROM records WHERE author = ? AND seq > ?"
            " ORDER BY seq, id LIMIT ?",
            author,
            after_seq,
            min(limit, READ_LIMIT),
        )
        return [self._rows.record(row) for row in rows]

    def received(self, digest: bytes) -> float | None:
        """Return when a record was stored here (Unix time), for display: by this node's clock, not agreed."""
        rows = self._all("SELECT received FROM records WHERE digest = ?", digest)
        return float(rows[0][0]) if rows else None

    def decided(self, height: int) -> float | None:
        """Return when a block was stored here (Unix time), for display."""
        rows = self._all("SELECT received FROM blocks WHERE height = ?", height)
        return float(rows[0][0]) if rows else None

    def reservations(self) -> list[PutReservation]:
        """Return every privacy reservation, by run."""
        with self._reading() as connection:
            return self._reservations(connection)

    def flags(self) -> dict[str, int]:
        """Return all flags."""
        with self._reading() as connection:
            return self._flags(connection)

    def metrics(
        self,
        *,
        task: str | None = None,
        metric: str | None = None,
        round_: int | None = None,
        since: int = 0,
        limit: int = READ_LIMIT,
    ) -> list[Metric]:
        """Return metrics by round, generation, task, metric, cell, shared before the home layer: the last `limit`."""
        rows = self._all(
            "SELECT round, generation, task, metric, value, count, recorded, cell, personal FROM metrics WHERE round"
            " >= ?1 AND (?2 IS NULL OR task = ?2) AND (?3 IS NULL OR metric = ?3) AND (?4 IS NULL OR round = ?4)"
            " ORDER BY round DESC, generation DESC, task DESC, metric DESC, cell DESC, personal DESC LIMIT ?5",
            since,
            task,
            metric,
            round_,
            min(limit, READ_LIMIT),
        )
        return [self._rows.metric(row) for row in reversed(rows)]

    def notes(self, *, component: str | None = None, since: int = 0, limit: int = READ_LIMIT) -> list[RoundNote]:
        """Return notes by round, then component: the last `limit` from round `since` on."""
        rows = self._all(
            "SELECT round, component, height, data, recorded FROM notes WHERE round >= ?1"
            " AND (?2 IS NULL OR component = ?2) ORDER BY round DESC, component DESC LIMIT ?3",
            since,
            component,
            min(limit, READ_LIMIT),
        )
        return [self._rows.note(row) for row in reversed(rows)]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, db.sql_errors(self.path):
            yield self._read

    def _all(self, sql: str, *values: object) -> list[Row]:
        with self._reading() as connection:
            return connection.execute(sql, values).fetchall()

    def _block(self, connection: sqlite3.Connection, height: int) -> StoredBlock | None:
        block = connection.execute(
            "SELECT height, block, certificate, checksum FROM blocks WHERE height = ?", (height,)
        ).fetchone()
        if block is None:
            return None
        records = connection.execute(
            "SELECT digest, author, seq, wire, checksum FROM block_records JOIN records ON id = record"
            " WHERE height = ? ORDER BY position",
            (height,),
        )
        return self._rows.block(block, records.fetchall())

    def _reservations(self, connection: sqlite3.Connection) -> list[PutReservation]:
        rows = connection.execute("SELECT run, reservation, checksum FROM reservations ORDER BY run")
        return [self._rows.reservation(row) for row in rows]

    def _flags(self, connection: sqlite3.Connection) -> dict[str, int]:
        return dict([self._rows.flag(row) for row in connection.execute("SELECT name, value, checksum FROM flags")])
