"""From tables to arrays [S, K, T, width]: S subjects, K records each, T steps each (1 but for series), with masks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError, UsageError
from .manifest import CategoricalColumn, Column, Manifest, ModalityEntry, NumericColumn, TaskEntry, read_manifest
from .tables import Table, column_names

Floats = npt.NDArray[np.float32]
Places = dict[str, tuple[int, int]]  # record -> (subject, record of the subject); records beyond max_records: (-1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityArray:
    """One modality: `values` [S, K, T, width] float32, zero where there is nothing; `steps` [S, K, T] bool."""

    name: str
    kind: str
    values: Floats
    steps: npt.NDArray[np.bool_]

    @property
    def width(self) -> int:
        """The number of features of a step."""
        return int(self.values.shape[3])

    @property
    def length(self) -> int:
        """The number of steps T."""
        return int(self.values.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class TaskArray:
    """One task: `labels` [S, K] int64, -1 where a record has none; `classes` is 2 for "binary"."""

    name: str
    kind: str
    classes: int
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What an institution trains on. `weights` [S, K] float32 is 1/K_s for each of a subject's K_s records, else 0.

    `held_out` [S] bool marks the test subjects. Subjects are in the order of their first record.
    """

    subjects: tuple[str, ...]
    weights: Floats
    held_out: npt.NDArray[np.bool_]
    modalities: dict[str, ModalityArray]
    tasks: dict[str, TaskArray]


def load(folder: Path) -> Dataset:
    """Load an institution's data folder. Raises UsageError or CorruptError, naming file, column and row."""
    manifest = read_manifest(folder)
    unit = manifest.tables[manifest.unit_table]
    subject_column = manifest.subject or unit.key
    wanted = [unit.key, subject_column, *([manifest.split_column] if manifest.split_column else [])]
    table = Table(unit.path, wanted)
    records, owners = table.identifiers(unit.key), table.identifiers(subject_column)
    subjects = tuple(dict.fromkeys(owners))
    if not subjects:
        raise UsageError(f"{unit.path} has no rows", "An institution needs at least one subject.")
    places, counts = _places(table, unit.key, list(zip(records, owners, strict=True)), subjects, manifest.max_records)
    shape = (len(subjects), int(counts.max()))
    weights = np.where(np.arange(shape[1]) < counts[:, None], 1.0 / counts[:, None], 0.0).astype(np.float32)
    return Dataset(
        subjects,
        weights,
        _held_out(manifest, table, owners, subjects),
        {entry.name: _modality(manifest, entry, places, shape) for entry in manifest.modalities},
        {entry.name: _task(manifest, entry, places, shape) for entry in manifest.tasks},
    )


def in_test(salt: str, subject: str, share: float) -> bool:
    """Tell whether a subject is held out: the first 8 bytes of SHA-256(salt ‖ subject), as a fraction of 1, < share."""
    return int.from_bytes(sha256(salt.encode() + subject.encode()).digest()[:8], "big") < share * 2.0**64


def _places(
    table: Table, key: str, pairs: Sequence[tuple[str, str]], subjects: tuple[str, ...], max_records: int
) -> tuple[Places, npt.NDArray[np.int64]]:
    index = {subject: number for number, subject in enumerate(subjects)}
    counts = np.zeros(len(subjects), dtype=np.int64)
    places: Places = {}
    for row, (record, owner) in enumerate(pairs):
        if record in places:
            raise CorruptError(f"{table.where(key, row)}: record {record!r} is there twice", "Remove one of the rows.")
        subject = index[owner]
        if counts[subject] == max_records:
            places[record] = (-1, -1)
            continue
        places[record] = (subject, int(counts[subject]))
        counts[subject] += 1
    return places, counts


def _held_out(manifest: Manifest, table: Table, owners: list[str], subjects: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    if not manifest.split_column:
        return np.array([in_test(manifest.split_salt, name, manifest.split_share) for name in subjects], dtype=np.bool_)
    column, sides = manifest.split_column, {"train": False, "test": True}
    chosen: dict[str, bool] = {}
    for row, (owner, text) in enumerate(zip(owners, table.texts(column), strict=True)):
        if text not in sides:
            raise CorruptError(f"{table.where(column, row)}: {text!r} is no part of a split", "Write train or test.")
        if chosen.setdefault(owner, sides[text]) != sides[text]:
            advice = "All records of a subject belong to one side."
            raise CorruptError(f"{table.where(column, row)}: subject {owner!r} is in train and in test", advice)
    return np.array([chosen[name] for name in subjects], dtype=np.bool_)


def _rows(table: Table, key: str, places: Places) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (subject, record) of each row, shapes [rows]; -1 where the record is not read."""
    keys = table.identifiers(key)
    for row, record in enumerate(keys):
        if record not in places:
            advice = "The unit table must list every record, or remove the row."
            raise CorruptError(f"{table.where(key, row)}: record {record!r} is unknown to the unit table", advice)
    pairs = np.array([places[record] for record in keys], dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _modality(manifest: Manifest, entry: ModalityEntry, places: Places, shape: tuple[int, int]) -> ModalityArray:
    source = manifest.tables[entry.table]
    columns = entry.columns or _by_prefix(entry, source.path)
    time = [entry.time] if entry.time else []
    table = Table(source.path, [source.key, *time, *(column.name for column in columns)])
    subject, record = _rows(table, source.key, places)
    features, present = _features(table, columns, subject >= 0)
    width = features.shape[1]
    values = np.zeros((*shape, entry.max_len, width), dtype=np.float32)
    steps = np.zeros((*shape, entry.max_len), dtype=np.bool_)
    if entry.kind == "series":
        rows, step = _series_steps(table, entry, subject, record)
    else:
        rows, step = np.flatnonzero(subject >= 0), np.zeros(int((subject >= 0).sum()), dtype=np.int64)
        _no_repeats(table, source.key, rows, subject, record)
    keep = present[rows]
    rows, step = rows[keep], step[keep]
    values[subject[rows], record[rows], step] = features[rows]
    steps[subject[rows], record[rows], step] = True
    return ModalityArray(entry.name, entry.kind, values, steps)


def _by_prefix(entry: ModalityEntry, path: Path) -> tuple[Column, ...]:
    found = [(int(match[1]), match[0]) for name in column_names(path)
             if (match := re.fullmatch(re.escape(entry.prefix) + r"(\d+)", name))]  # fmt: skip
    if not found:
        raise UsageError(f"{path}: no column {entry.prefix}0, {entry.prefix}1, ...", "Correct the prefix.")
    return tuple(NumericColumn(name, entry.low, entry.high, missing=False) for _, name in sorted(found))


def _features(
    table: Table, columns: tuple[Column, ...], wanted: npt.NDArray[np.bool_]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return features [rows, width] and whether a row says anything at all [rows]."""
    parts: list[Floats] = []
    present = np.zeros(table.rows, dtype=np.bool_)
    gaps: list[tuple[str, npt.NDArray[np.bool_]]] = []
    for column in columns:
        if isinstance(column, CategoricalColumn):
            part, known = _one_hot(table.texts(column.name), column)
        else:
            raw = table.numbers(column.name)
            known = ~np.isnan(raw)
            scaled = 2.0 * (np.clip(raw, column.low, column.high) - column.low) / (column.high - column.low) - 1.0
            part = np.where(known, scaled, 0.0).astype(np.float32)[:, None]
            if column.missing:
                part = np.concatenate([part, (~known).astype(np.float32)[:, None]], axis=1)
            else:
                gaps.append((column.name, ~known))
        present |= known
        parts.append(part)
    # A row without any value is a missing modality, which the mask says; a gap in a row needs its own feature.
    for name, gap in gaps:
        rows = np.flatnonzero(gap & present & wanted)
        if rows.size:
            advice = "Fill the cell, or write missing = true for this column."
            raise CorruptError(f"{table.where(name, int(rows[0]))} is empty", advice)
    return np.concatenate(parts, axis=1), present


def _one_hot(texts: list[str | None], column: CategoricalColumn) -> tuple[Floats, npt.NDArray[np.bool_]]:
    index = {level: number for number, level in enumerate(column.levels)}
    codes = np.array([-1 if text is None else index.get(text, len(index)) for text in texts], dtype=np.int64)
    known = codes >= 0
    part = np.zeros((len(texts), column.width), dtype=np.float32)
    part[np.flatnonzero(known), codes[known]] = 1.0
    return part, known


def _series_steps(
    table: Table, entry: ModalityEntry, subject: npt.NDArray[np.int64], record: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows to keep, ordered by record and time, and the step of each within its record."""
    time = table.numbers(entry.time)
    nameless = np.flatnonzero(np.isnan(time))
    if nameless.size:
        raise CorruptError(
            f"{table.where(entry.time, int(nameless[0]))} is empty", "Every row of a series needs a time."
        )
    rows = np.flatnonzero((subject >= 0) & (time <= entry.until))
    rows = rows[np.lexsort((time[rows], record[rows], subject[rows]))]
    place = subject[rows] * (int(record.max(initial=0)) + 1) + record[rows]
    _, first, count = np.unique(place, return_index=True, return_counts=True)
    step = np.arange(rows.size) - np.repeat(first, count)
    step -= np.repeat(np.maximum(count - entry.max_len, 0), count)  # the last max_len steps are kept
    return rows[step >= 0], step[step >= 0]


def _no_repeats(
    table: Table, key: str, rows: npt.NDArray[np.int64], subject: npt.NDArray[np.int64], record: npt.NDArray[np.int64]
) -> None:
    seen: set[tuple[int, int]] = set()
    for row in rows.tolist():
        place = (int(subject[row]), int(record[row]))
        if place in seen:
            advice = "One row a record, or declare the modality as a series."
            raise CorruptError(f"{table.where(key, row)}: a second row for this record", advice)
        seen.add(place)


def _task(manifest: Manifest, entry: TaskEntry, places: Places, shape: tuple[int, int]) -> TaskArray:
    source = manifest.tables[entry.table]
    table = Table(source.path, [source.key, entry.column])
    subject, record = _rows(table, source.key, places)
    _no_repeats(table, source.key, np.flatnonzero(subject >= 0), subject, record)
    labels = np.full(shape, -1, dtype=np.int64)
    index = {name: number for number, name in enumerate(entry.classes)}
    for row, text in enumerate(table.texts(entry.column)):
        if text is None or subject[row] < 0:
            continue
        if entry.kind == "binary":
            label = int(text in entry.positive)
        elif text in index:
            label = index[text]
        else:
            advice = "Correct the value, empty the cell, or name it in classes."
            raise CorruptError(f"{table.where(entry.column, row)}: {text!r} is no class of {entry.name!r}", advice)
        labels[subject[row], record[row]] = label
    return TaskArray(entry.name, entry.kind, 2 if entry.kind == "binary" else len(entry.classes), labels)
