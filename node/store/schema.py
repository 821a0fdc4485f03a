"""The database's tables and the checks of its first bytes.

Every row that a restart believes has a checksum: SQLite notices damaged pages, not damaged values inside them.
Records and headers keep their wire form; the columns beside it are for look-ups, and are checked against
it when they are read.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from ...crypto.errors import CorruptError, UsageError
from ...crypto.hashing import digest

APPLICATION_ID = 0x436F6C6C  # "Coll", in the header where `file` and SQLite look for it
VERSION = 4

TABLES = """
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  federation BLOB NOT NULL,
  created REAL NOT NULL
) STRICT;
CREATE TABLE records (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  author BLOB NOT NULL,
  seq INTEGER NOT NULL,
  wire BLOB NOT NULL,
  checksum BLOB NOT NULL,
  received REAL NOT NULL
) STRICT;
CREATE INDEX records_by_feed ON records (author, seq);
CREATE TABLE blocks (
  height INTEGER PRIMARY KEY,
  block BLOB NOT NULL,
  certificate BLOB NOT NULL,
  checksum BLOB NOT NULL,
  received REAL NOT NULL
) STRICT;
CREATE TABLE block_records (
  height INTEGER NOT NULL REFERENCES blocks (height),
  position INTEGER NOT NULL,
  record INTEGER NOT NULL UNIQUE REFERENCES records (id),
  PRIMARY KEY (height, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE messages (
  id INTEGER PRIMARY KEY,
  height INTEGER NOT NULL,
  checksum BLOB NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (height, checksum)
) STRICT;
CREATE TABLE headers (
  id INTEGER PRIMARY KEY,
  author BLOB NOT NULL,
  component TEXT NOT NULL,
  round INTEGER NOT NULL,
  wire BLOB NOT NULL,
  checksum BLOB NOT NULL,
  received REAL NOT NULL,
  UNIQUE (author, component, round)
) STRICT;
CREATE TABLE reservations (
  run INTEGER PRIMARY KEY,
  reservation BLOB NOT NULL,
  checksum BLOB NOT NULL,
  reserved REAL NOT NULL
) STRICT;
CREATE TABLE published (
  run INTEGER PRIMARY KEY REFERENCES reservations (run),
  checksum BLOB NOT NULL,
  signed REAL NOT NULL
) STRICT;
CREATE TABLE flags (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL,
  checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE metrics (
  round INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  task TEXT NOT NULL,
  metric TEXT NOT NULL,
  cell TEXT NOT NULL,
  personal INTEGER NOT NULL,
  value REAL,
  count INTEGER,
  recorded REAL NOT NULL,
  PRIMARY KEY (round, generation, task, metric, cell, personal)
) STRICT, WITHOUT ROWID;
CREATE TABLE notes (
  round INTEGER NOT NULL,
  component TEXT NOT NULL,
  height INTEGER NOT NULL,
  data TEXT NOT NULL,
  recorded REAL NOT NULL,
  PRIMARY KEY (round, component)
) STRICT, WITHOUT ROWID;
"""

_HEADER = struct.Struct(">16sHBBBBBB")
_PAGE_SIZES = frozenset([1] + [1 << power for power in range(9, 16)])  # 1 stands for 65536


def checksum(table: str, *parts: bytes | int) -> bytes:
    """Return the checksum of a row; integers count as 8 bytes, signed."""
    return digest(
        "row", table.encode(), *(p if isinstance(p, bytes) else p.to_bytes(8, "big", signed=True) for p in parts)
    )


def schema_digest(rows: Iterable[tuple[object, ...]]) -> bytes:
    """Return a digest of what sqlite_schema holds: damage there could drop a UNIQUE and go unnoticed."""
    return digest("schema", *(repr(row).encode() for row in rows))


def recovery(path: Path) -> str:
    """Advice on a damaged database. It must not say "delete it": the privacy budget is in it."""
    return (
        f"Stop the daemon, keep a copy of {path}, and restore the latest backup of this node's directory. Without one, "
        "move it away and start again: records and blocks come back from the other members, but what was reserved of "
        "the privacy budget and never published is known to this file only."
    )


def check_header(path: Path, data: bytes) -> None:
    """Check the database's first 100 bytes (https://www.sqlite.org/fileformat2.html, section 1.3).

    SQLite takes some damage here for another kind of file: one flipped bit makes a database read-only. Raises
    CorruptError, and UsageError for a database of another version.
    """
    if len(data) < 100:
        raise CorruptError(f"The database {path} ends after {len(data)} bytes", recovery(path))
    magic, page, write, read, reserved, *fractions = _HEADER.unpack_from(data)
    expected = (2, 2, 0, 64, 32, 32)  # a write-ahead log, no reserved space, and three constants
    if magic != b"SQLite format 3\0" or page not in _PAGE_SIZES or (write, read, reserved, *fractions) != expected:
        raise CorruptError(f"The database {path} is damaged, or is not a database", recovery(path))
    application, version = int.from_bytes(data[68:72], "big"), int.from_bytes(data[60:64], "big")
    if application != APPLICATION_ID:
        raise CorruptError(f"The database {path} is damaged, or is another program's", recovery(path))
    if version > VERSION:
        raise UsageError(
            f"The database {path} has version {version}; this release of Collegium reads up to {VERSION}",
            "Install the release that wrote it, or a later one.",
        )
    if version < 1:
        raise CorruptError(f"The database {path} has no version", recovery(path))
    if version < VERSION:
        raise UsageError(
            f"The database {path} has version {version}, from before the first release; this one reads {VERSION}",
            "Found the federation again, or install what wrote it.",
        )
