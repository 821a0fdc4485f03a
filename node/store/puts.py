"""The core's durable writes to their tables: one statement each; contradictions are refused."""

import sqlite3
from typing import assert_never

from ...crypto.errors import LocalProtocolError
from ...protocol import schema
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..core.events import Put, PutBlock, PutFlag, PutHeader, PutMessage, PutPublished, PutRecord, PutReservation
from .rows import dump_reservation
from .schema import checksum


def put_into(connection: sqlite3.Connection, federation: bytes, put: Put, now: float) -> None:
    """Store one thing of a federation within a transaction. Raises LocalProtocolError for a contradiction."""
    match put:
        case PutRecord(record):
            _check_federation(federation, record.value.federation)
            connection.execute(
                "INSERT INTO records (digest, author, seq, wire, checksum, received) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO NOTHING",
                (
                    record.digest,
                    record.value.author,
                    record.value.seq,
                    record.wire,
                    checksum("records", record.wire),
                    now,
                ),
            )
        case PutBlock():
            _block(connection, federation, put, now)
        case PutMessage(height, data):
            connection.execute(
                "INSERT INTO messages (height, checksum, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (height, checksum("messages", height, data), data),
            )
        case PutHeader(header):
            _header(connection, federation, header, now)
        case PutReservation(run):
            reservation = dump_reservation(put)
            check = checksum("reservations", run, reservation)
            row = connection.execute("SELECT checksum FROM reservations WHERE run = ?", (run,)).fetchone()
            if row is None:
                connection.execute("INSERT INTO reservations VALUES (?, ?, ?, ?)", (run, reservation, check, now))
            elif row[0] != check:
                raise LocalProtocolError(f"training run {run} is reserved already, and otherwise")
        case PutPublished(run):
            if connection.execute("SELECT 1 FROM reservations WHERE run = ?", (run,)).fetchone() is None:
                raise LocalProtocolError(f"training run {run} was never reserved")
            connection.execute(
                "INSERT INTO published VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (run, checksum("published", run), now),
            )
        case PutFlag(name, value):
            connection.execute(
                "INSERT INTO flags VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " value = excluded.value, checksum = excluded.checksum",
                (name, value, checksum("flags", name.encode(), value)),
            )
        case _:
            assert_never(put)


def _block(connection: sqlite3.Connection, federation: bytes, put: PutBlock, now: float) -> None:
    block = put.block
    _check_federation(federation, block.federation)
    payload, certificate = schema.dump(block), schema.dump(put.certificate)
    row = connection.execute("SELECT block FROM blocks WHERE height = ?", (block.height,)).fetchone()
    if row is not None:
        if row[0] != payload:
            raise LocalProtocolError(f"another block is decided at height {block.height}")
        return
    (top,) = connection.execute("SELECT coalesce(max(height), 0) FROM blocks").fetchone()
    if block.height != top + 1:
        raise LocalProtocolError(f"a block at height {block.height} does not follow height {top}")
    check = checksum("blocks", payload, certificate, *put.records)
    connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (block.height, payload, certificate, check, now))
    for position, digest in enumerate(put.records):
        cursor = connection.execute(
            "INSERT INTO block_records SELECT ?, ?, id FROM records WHERE digest = ?",
            (block.height, position, digest),
        )
        if cursor.rowcount != 1:
            raise LocalProtocolError(f"record {digest.hex()[:16]} of block {block.height} is not stored")
    connection.execute("DELETE FROM messages WHERE height < ?", (block.height,))


def _header(connection: sqlite3.Connection, federation: bytes, header: Signed[UpdateHeader], now: float) -> None:
    value = header.value
    _check_federation(federation, value.federation)
    key = (value.author, value.component, value.round)
    row = connection.execute(
        "SELECT wire FROM headers WHERE author = ? AND component = ? AND round = ?", key
    ).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO headers (author, component, round, wire, checksum, received) VALUES (?, ?, ?, ?, ?, ?)",
            (*key, header.wire, checksum("headers", header.wire), now),
        )
    elif row[0][64:] != header.payload:
        raise LocalProtocolError(
            f"another header of {value.author.hex()[:16]} is stored for {value.component} round {value.round}"
        )


def _check_federation(mine: bytes, federation: bytes) -> None:
    if federation != mine:
        raise LocalProtocolError(f"a statement of federation {federation.hex()[:16]} is not stored here")
