"""The unit table: the records, their subjects, the held-out subjects; and the rows of other tables for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError, UsageError
from .consent import Consents, read_consents, today
from .entries import Manifest
from .problems import Findings
from .spelling import near
from .tables import Table, column_names

MAX_BYTES = 8 << 30  # of one array: more than this is a mistake in dataset.toml far more often than a large data set
NOWHERE = (-1, -1)
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The records that are read. `places` maps a record to (subject, record of the subject), NOWHERE if it is not read.

    `counts` [S] is the number of each subject's records; `unread` counts those beyond `max_records`, `filtered` those
    that the unit table's filters drop. `spoiled` [S] marks subjects with a cell that cannot be used: they are left out.
    `unit` is the name of the unit table. `consents` are the subjects', None where dataset.toml says nothing of them.
    """

    subjects: tuple[str, ...]
    places: dict[str, tuple[int, int]]
    counts: Index
    held_out: npt.NDArray[np.bool_]
    unread: int
    filtered: int
    spoiled: npt.NDArray[np.bool_]
    unit: str
    consents: Consents | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(S, K)."""
        return len(self.subjects), int(self.counts.max())

    def spoil(self, table: Table, subject: Index) -> None:
        """Mark the subjects of the rows of a table that cannot be used; `subject` [rows] is -1 for no subject."""
        owners = subject[table.bad]
        self.spoiled[owners[owners >= 0]] = True


def read_records(manifest: Manifest, findings: Findings, *, predict: bool, day: date | None = None) -> Records:
    """Read the unit table. To `predict`, all is held out, the subject's column may be missing and no record is cut off.

    Consents are judged on a `day`, by default today; a file to predict may lack their columns. Raises UsageError or
    CorruptError, naming file, column and line.
    """
    unit = manifest.tables[manifest.unit_table]
    owner_column = manifest.subject or unit.key
    if predict and owner_column not in column_names(unit):
        owner_column = unit.key
    split = "" if predict else manifest.split_column
    consent = manifest.consent
    if predict and consent is not None and consent.column not in column_names(unit):
        consent = None
    elif predict and consent is not None and consent.until not in column_names(unit):
        consent = replace(consent, until="")
    wanted = [unit.key, owner_column, *([split] if split else []), *(consent.columns if consent else ())]
    table = Table(unit, wanted, findings, lenient=predict)
    if not table.rows:
        advice = "Below the line of column names, each record needs a row."
        raise UsageError(f"{unit.path} has no records", advice)
    dropped = ~table.kept
    owners = table.identifiers(owner_column)
    table.kept &= table.cells(owner_column).codes >= 0
    names = table.identifiers(unit.key)
    kept = np.flatnonzero(table.kept).tolist()
    subjects = tuple(dict.fromkeys(str(owners[row]) for row in kept))
    if not subjects:
        if findings.problems:
            raise CorruptError(findings.problems[0].text, findings.problems[0].advice)
        raise UsageError(f"{unit.path} has no rows that are kept", "Correct the filters in keep.")
    most = table.rows if predict else manifest.max_records
    index = {subject: number for number, subject in enumerate(subjects)}
    subject = np.array([index.get(owner or "", -1) for owner in owners], dtype=np.int64)
    subject[~table.kept] = -1
    counts = np.zeros(len(subjects), dtype=np.int64)
    places: dict[str, tuple[int, int]] = {}
    first: dict[str, int] = {}
    unread = 0
    for row in kept:
        record, owner = names[row], int(subject[row])
        if record is None:
            continue
        if record in first:
            what = f": this record is there twice, first in line {table.line(first[record])}"
            table.bad[first[record]] = True
            table.fail(unit.key, [row], what, "Remove one of the rows, or give each a name of its own.")
            continue
        first[record] = row
        if counts[owner] == most:
            places[record] = NOWHERE
            unread += 1
        else:
            places[record] = (owner, int(counts[owner]))
            counts[owner] += 1
    for row in np.flatnonzero(~table.kept).tolist():
        record = names[row]
        if record in first:  # rows of other tables for the one would be taken for the other's
            what = f": this record is there twice, in line {table.line(row)} too"
            table.fail(unit.key, [first[record]], what, "Give each a name of its own, or remove the row.")
        elif record is not None:
            places[record] = NOWHERE
    if predict:
        held_out = np.ones(len(subjects), dtype=np.bool_)
    elif split:
        held_out = _by_column(table, manifest, subject, len(subjects))
    else:
        sides = [in_test(manifest.split_salt, name, manifest.split_share) for name in subjects]
        held_out = np.array(sides, dtype=np.bool_)
    counts = np.maximum(counts, 1)
    spoiled = np.zeros(len(subjects), dtype=np.bool_)
    consents = None if consent is None else read_consents(table, consent, subject, len(subjects), day or today())
    records = Records(subjects, places, counts, held_out, unread, int(dropped.sum()), spoiled, unit.name, consents)
    records.spoil(table, subject)
    return records


def in_test(salt: str, subject: str, share: float) -> bool:
    """Return whether a subject is held out: the first 8 bytes of SHA-256(salt ‖ subject), as a fraction, < share."""
    return int.from_bytes(sha256(salt.encode() + subject.encode()).digest()[:8], "big") < share * 2.0**64


def _by_column(table: Table, manifest: Manifest, subject: Index, count: int) -> npt.NDArray[np.bool_]:
    """Return which subjects are held out, by the words of the split's column [S]."""
    column, words = manifest.split_column, [*manifest.split_train, *manifest.split_test]
    places = table.levels(column, words, "split")
    wrong = np.flatnonzero((places < 0) | (places == len(words)))
    advice = f"Write {' or '.join(words)}, or name the file's own words: train = [...] and test = [...] under [split]."
    table.fail(column, wrong, " is no part of the split", advice)
    test = places >= len(manifest.split_train)
    rows = np.flatnonzero((subject >= 0) & (places >= 0) & (places < len(words)))
    owners, first = np.unique(subject[rows], return_index=True)
    held_out = np.zeros(count, dtype=np.bool_)
    held_out[owners] = test[rows[first]]
    both = rows[test[rows] != held_out[subject[rows]]]
    _, once = np.unique(subject[both], return_index=True)
    advice = "All records of a subject belong to one side."
    table.fail(column, both[np.sort(once)], ": this subject is in train and in test", advice)
    return held_out


def rows_of(table: Table, key: str, records: Records) -> tuple[Index, Index]:
    """Return (subject, record) of each row, shapes [rows]; -1 where the row is not read.

    A row that is kept and whose record the unit table does not list is noted as a problem. Rows that are not read are
    no longer kept.
    """
    table.identifiers(key)
    cells = table.cells(key)
    pairs = np.array([*(records.places.get(name, (-2, -2)) for name in cells.values), NOWHERE], dtype=np.int64)
    indices = pairs[cells.codes]
    unknown = np.flatnonzero((indices[:, 0] == -2) & table.kept)
    if unknown.size:
        names = {near(name) for name in records.places}
        close = any(near(cells.values[cells.codes[row]]) in names for row in unknown[:1000].tolist())
        advice = "The unit table must list every record, or remove the row."
        if close:
            advice += " It lists one that differs in case, leading zeros or form only: write both in one way."
        table.fail(key, unknown, ": this record is unknown to the unit table", advice)
    indices = np.where((table.kept & (indices[:, 0] >= 0))[:, None], indices, -1)
    table.kept &= indices[:, 0] >= 0
    return indices[:, 0], indices[:, 1]


def single_rows(table: Table, key: str, records: Records, subject: Index, record: Index) -> Index:
    """Return the rows that are read; that a record has two is noted as a problem, of the unit table once before."""
    rows = np.flatnonzero(subject >= 0)
    _, first = np.unique(subject[rows] * (int(record.max(initial=0)) + 1) + record[rows], return_index=True)
    if first.size < rows.size and table.name != records.unit:
        advice = "One row a record; or declare the modality as a series, or an order and a number of texts."
        table.fail(key, np.delete(rows, first), ": a second row for this record", advice)
    kept: Index = rows[np.sort(first)]
    return kept


def subject_ids(manifest: Manifest) -> list[str]:
    """Return every subject's id in the unit table, cleaned, each once; rows that `keep` drops are among them."""
    unit = manifest.tables[manifest.unit_table]
    column = manifest.subject or unit.key
    return list(Table(unit, [column], Findings(strict=False)).cells(column).values)


def held_out_subject(manifest: Manifest, subject: str) -> bool:
    """Whether the split sets this student apart for evaluation."""
    if not manifest.split_column:
        return in_test(manifest.split_salt, subject, manifest.split_share)
    unit = manifest.tables[manifest.unit_table]
    owner = manifest.subject or unit.key
    table = Table(unit, [owner, manifest.split_column], Findings(strict=False))
    owners, sides = table.cells(owner), table.cells(manifest.split_column)
    if subject not in owners.values:
        return False
    rows = owners.codes == list(owners.values).index(subject)
    test = [code for code, word in enumerate(sides.values) if word in manifest.split_test]
    return bool(np.isin(sides.codes[rows], test).any())


def allocate(shape: Sequence[int], fill: Any, dtype: Any, what: str) -> npt.NDArray[Any]:
    """Return an array full of `fill`. Raises UsageError, naming `what`, if it would exceed MAX_BYTES."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size > MAX_BYTES:
        numbers = " × ".join(str(number) for number in shape)
        advice = "Lower max_records, max_len, size or frames, name fewer columns, or filter with keep."
        raise UsageError(f"{what} would need {size / 2**30:.1f} GiB ({numbers} values)", advice)
    return np.full(tuple(shape), fill, dtype=dtype)
