"""Labels [S, K, L] of tasks, and the groups that records belong to."""

import numpy as np
import numpy.typing as npt

from .entries import CategoricalColumn, Manifest, TaskEntry
from .problems import Findings
from .records import Index, Records, allocate, rows_of, single_rows
from .spelling import clean
from .tables import Table

Labels = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Objects = npt.NDArray[np.object_]
OTHER = "other"


def read_task(manifest: Manifest, entry: TaskEntry, records: Records, findings: Findings, *, lenient: bool) -> Floats:
    """Return the labels of a task, NaN where there are none. Raises UsageError or CorruptError, naming the place."""
    source = manifest.tables[entry.table]
    table = Table(source, [source.key, entry.column], findings, lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    rows = single_rows(table, source.key, records, subject, record)
    labels, use = unlabelled(entry, records.shape), f"task {entry.name!r}"
    if entry.kind == "regression":
        numbers = table.numbers(entry.column)
        table.count_numbers(entry.column, use, numbers, (entry.low, entry.high), rows)
        values = 2.0 * (np.clip(numbers, entry.low, entry.high) - entry.low) / (entry.high - entry.low) - 1.0
        values = values[:, None]
    elif entry.kind == "multilabel":
        values = _several_classes(table, entry)
    else:
        values = _one_class(table, entry, rows, use)[:, None]
    labels[subject[rows], record[rows]] = values[rows]
    records.spoil(table, subject)
    return labels


def read_answers(
    manifest: Manifest, entry: TaskEntry, records: Records, findings: Findings, *, lenient: bool
) -> Objects:
    """Return the texts to be written [S, K], "" where there is none. Raises UsageError or CorruptError."""
    source = manifest.tables[entry.table]
    table = Table(source, [source.key, entry.column], findings, lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    rows = single_rows(table, source.key, records, subject, record)
    answers = unwritten(entry, records.shape)
    answers[subject[rows], record[rows]] = np.array(table.passages(entry.column), dtype=object)[rows]
    records.spoil(table, subject)
    return answers


def unwritten(entry: TaskEntry, shape: tuple[int, int]) -> Objects:
    """Return the texts of a task that no record has: ""."""
    answers: Objects = allocate(shape, "", np.object_, f"task {entry.name!r}")
    return answers


def unlabelled(entry: TaskEntry, shape: tuple[int, int]) -> Floats:
    """Return the labels of a task that no record has: NaN."""
    length = len(entry.classes) if entry.kind == "multilabel" else 1
    labels: Floats = allocate((*shape, length), np.nan, np.float32, f"task {entry.name!r}")
    return labels


def class_count(entry: TaskEntry) -> int:
    """Return the number of classes: 2 for binary, 1 for regression; of a text to be written its most tokens."""
    return {"binary": 2, "regression": 1, "generate": entry.tokens}.get(entry.kind, len(entry.classes))


def class_names(entry: TaskEntry) -> tuple[str, ...]:
    """Return the classes' names in dataset.toml; none for regression, nor for a text."""
    return (
        (" or ".join(entry.negative) or OTHER, " or ".join(entry.positive)) if entry.kind == "binary" else entry.classes
    )


def _one_class(table: Table, entry: TaskEntry, rows: Index, use: str) -> Labels:
    """Return the number of each row's class, NaN where there is none [rows]."""
    words = (*entry.positive, *entry.negative) if entry.kind == "binary" else entry.classes
    places = table.levels(entry.column, words, use)
    if entry.kind != "binary" or entry.negative:
        _no_class(table, entry, np.flatnonzero((places == len(words)) & ~table.bad))
    if entry.kind != "binary":
        return np.where((places < 0) | (places == len(words)), np.nan, places.astype(np.float64))
    table.count_levels(entry.column, use, places, len(words), rows)
    return np.where(places < 0, np.nan, (places < len(entry.positive)).astype(np.float64))


def _several_classes(table: Table, entry: TaskEntry) -> Labels:
    """Return which classes apply to each row, NaN for empty cells [rows, classes]."""
    cells = table.cells(entry.column)
    labels = np.full((len(cells.values) + 1, len(entry.classes)), np.nan)
    wrong = np.zeros(len(cells.values) + 1, dtype=np.bool_)
    for code, text in enumerate(cells.values):
        applying = set() if text == entry.none else {clean(part) for part in text.split(entry.separator)}
        wrong[code] = not applying <= set(entry.classes)
        labels[code] = np.nan if wrong[code] else [float(name in applying) for name in entry.classes]
    _no_class(table, entry, np.flatnonzero(wrong[cells.codes]))
    return labels[cells.codes]


def _no_class(table: Table, entry: TaskEntry, rows: Index) -> None:
    advice = f"Correct it, empty the cell, or name the word in {'negative' if entry.kind == 'binary' else 'classes'}."
    table.fail(entry.column, rows, f" is no class of {entry.name!r}", advice)


def read_group(
    manifest: Manifest, column: CategoricalColumn, records: Records, findings: Findings, *, lenient: bool
) -> Index:
    """Return the place of each record's level in `group_levels` [S, K], -1 where it is unknown."""
    source = manifest.tables[manifest.groups_table]
    table = Table(source, [source.key, column.name], findings, lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    rows = single_rows(table, source.key, records, subject, record)
    codes = ungrouped(column, records.shape)
    levels = table.levels(column.name, column.levels, "sensitive")
    table.count_levels(column.name, "sensitive", levels, len(column.levels), rows)
    # A level that is itself called "other" is the one that all others join.
    levels = np.where(levels == len(column.levels), group_levels(column).index(OTHER), levels)
    codes[subject[rows], record[rows]] = levels[rows]
    records.spoil(table, subject)
    return codes


def ungrouped(column: CategoricalColumn, shape: tuple[int, int]) -> Index:
    """Return the codes of a group that is known of no record."""
    codes: Index = allocate(shape, -1, np.int64, f"group {column.name!r}")
    return codes


def group_levels(column: CategoricalColumn) -> tuple[str, ...]:
    """Return a group's levels: those declared and "other"."""
    return column.levels if OTHER in column.levels else (*column.levels, OTHER)
