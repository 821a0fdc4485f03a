"""The unit table: which records there are, whose they are, who is held out; and the rows of other tables for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError, UsageError
from .manifest import Manifest
from .tables import Table, column_names

MAX_BYTES = 8 << 30  # of one array: more than this is a mistake in dataset.toml far more often than a large data set
NOWHERE = (-1, -1)
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Who and what is read. `places` maps a record to (subject, record of the subject), NOWHERE if it is not read.

    `counts` [S] is the number of each subject's records; `unread` counts those beyond `max_records`, `filtered` those
    that the unit table's filters drop.
    """

    subjects: tuple[str, ...]
    places: dict[str, tuple[int, int]]
    counts: Index
    held_out: npt.NDArray[np.bool_]
    unread: int
    filtered: int

    @property
    def shape(self) -> tuple[int, int]:
        """(S, K)."""
        return len(self.subjects), int(self.counts.max())


def read_records(manifest: Manifest, *, predict: bool) -> Records:
    """Read the unit table. To `predict`, all is held out, the subject's column may be missing and no record is cut off.

    Raises UsageError or CorruptError, naming file, column and row.
    """
    unit = manifest.tables[manifest.unit_table]
    owner_column = manifest.subject or unit.key
    if predict and owner_column not in column_names(unit.path):
        owner_column = unit.key
    split = "" if predict else manifest.split_column
    table = Table(unit, [unit.key, owner_column, *([split] if split else [])], lenient=predict)
    names, owners = table.identifiers(unit.key), table.identifiers(owner_column)
    kept = np.flatnonzero(table.kept).tolist()
    subjects = tuple(dict.fromkeys(owners[row] for row in kept))
    if not table.rows:
        advice = "Below the line of column names, each record needs a row."
        raise UsageError(f"{unit.path} has no records", advice)
    if not subjects:
        raise UsageError(f"{unit.path} has no rows that are kept", "Correct the filters in keep.")
    most = table.rows if predict else manifest.max_records
    index = {subject: number for number, subject in enumerate(subjects)}
    counts = np.zeros(len(subjects), dtype=np.int64)
    places: dict[str, tuple[int, int]] = {}
    unread = 0
    for row, (record, owner, wanted) in enumerate(zip(names, owners, table.kept.tolist(), strict=True)):
        if record in places:
            where = table.where(unit.key, row)
            raise CorruptError(f"{where}: record {record!r} is there twice", "Remove one of the rows.")
        places[record] = NOWHERE
        if wanted and counts[index[owner]] == most:
            unread += 1
        elif wanted:
            places[record] = (index[owner], int(counts[index[owner]]))
            counts[index[owner]] += 1
    if predict:
        held_out = np.ones(len(subjects), dtype=np.bool_)
    elif split:
        held_out = _by_column(table, split, owners, kept, subjects)
    else:
        sides = [in_test(manifest.split_salt, name, manifest.split_share) for name in subjects]
        held_out = np.array(sides, dtype=np.bool_)
    return Records(subjects, places, counts, held_out, unread, table.rows - len(kept))


def in_test(salt: str, subject: str, share: float) -> bool:
    """Tell whether a subject is held out: the first 8 bytes of SHA-256(salt ‖ subject), as a fraction of 1, < share."""
    return int.from_bytes(sha256(salt.encode() + subject.encode()).digest()[:8], "big") < share * 2.0**64


def _by_column(
    table: Table, column: str, owners: list[str], kept: Sequence[int], subjects: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    sides, texts = {"train": False, "test": True}, table.texts(column)
    chosen: dict[str, bool] = {}
    for row in kept:
        text, owner = texts[row], owners[row]
        if text not in sides:
            raise CorruptError(f"{table.where(column, row)}: {text!r} is no part of a split", "Write train or test.")
        if chosen.setdefault(owner, sides[text]) != sides[text]:
            advice = "All records of a subject belong to one side."
            raise CorruptError(f"{table.where(column, row)}: subject {owner!r} is in train and in test", advice)
    return np.array([chosen[name] for name in subjects], dtype=np.bool_)


def rows_of(table: Table, key: str, records: Records) -> tuple[Index, Index]:
    """Return (subject, record) of each row, shapes [rows]; -1 where the row is not read.

    Raises CorruptError for a row that is kept and whose record the unit table does not list.
    """
    names = table.identifiers(key)
    pairs = np.full((table.rows, 2), -1, dtype=np.int64)
    for row in np.flatnonzero(table.kept).tolist():
        place = records.places.get(names[row])
        if place is None:
            advice = "The unit table must list every record, or remove the row."
            raise CorruptError(f"{table.where(key, row)}: record {names[row]!r} is unknown to the unit table", advice)
        pairs[row] = place
    return pairs[:, 0], pairs[:, 1]


def single_rows(table: Table, key: str, subject: Index, record: Index) -> Index:
    """Return the rows that are read. Raises CorruptError if a record has two."""
    rows = np.flatnonzero(subject >= 0)
    seen: set[tuple[int, int]] = set()
    for row in rows.tolist():
        place = (int(subject[row]), int(record[row]))
        if place in seen:
            advice = "One row a record, or declare the modality as a series."
            raise CorruptError(f"{table.where(key, row)}: a second row for this record", advice)
        seen.add(place)
    return rows


def allocate(shape: Sequence[int], fill: Any, dtype: Any, what: str) -> npt.NDArray[Any]:
    """Return an array full of `fill`. Raises UsageError, naming `what`, if it would exceed MAX_BYTES."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size > MAX_BYTES:
        numbers = " × ".join(str(number) for number in shape)
        advice = "Lower max_records, max_len, size or frames, name fewer columns, or filter with keep."
        raise UsageError(f"{what} would need {size / 2**30:.1f} GiB ({numbers} values)", advice)
    return np.full(tuple(shape), fill, dtype=dtype)
