"""Labels [S, K, L] of tasks, and the groups that records belong to."""

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError
from .manifest import CategoricalColumn, Manifest, TaskEntry
from .modalities import level_codes
from .records import Index, Records, allocate, rows_of, single_rows
from .tables import Table

Floats = npt.NDArray[np.float32]
OTHER = "other"


def read_task(manifest: Manifest, entry: TaskEntry, records: Records, *, lenient: bool) -> Floats:
    """Return the labels of a task, NaN where there are none. Raises UsageError or CorruptError, naming the place."""
    source = manifest.tables[entry.table]
    table = Table(source, [source.key, entry.column], lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    rows = single_rows(table, source.key, subject, record)
    labels = unlabelled(entry, records.shape)
    if entry.kind == "regression":
        found = table.numbers(entry.column)[rows, None]
        found = 2.0 * (np.clip(found, entry.low, entry.high) - entry.low) / (entry.high - entry.low) - 1.0
    else:
        texts = table.texts(entry.column)
        codes = [_label(entry, texts[row], table, row) for row in rows.tolist()]
        found = np.array(codes, dtype=np.float64).reshape(rows.size, labels.shape[2])
    labels[subject[rows], record[rows]] = found
    return labels


def unlabelled(entry: TaskEntry, shape: tuple[int, int]) -> Floats:
    """Return the labels of a task that no record has: NaN."""
    length = len(entry.classes) if entry.kind == "multilabel" else 1
    labels: Floats = allocate((*shape, length), np.nan, np.float32, f"task {entry.name!r}")
    return labels


def class_count(entry: TaskEntry) -> int:
    """Return the number of classes: 2 for binary, 1 for regression."""
    return {"binary": 2, "regression": 1}.get(entry.kind, len(entry.classes))


def class_names(entry: TaskEntry) -> tuple[str, ...]:
    """Return what the classes are called in dataset.toml; nothing for regression."""
    return (OTHER, " or ".join(entry.positive)) if entry.kind == "binary" else entry.classes


def _label(entry: TaskEntry, text: str | None, table: Table, row: int) -> list[float]:
    if text is None:
        return [np.nan] * (len(entry.classes) if entry.kind == "multilabel" else 1)
    if entry.kind == "binary":
        return [float(text in entry.positive)]
    if entry.kind == "multilabel":
        said = set() if text.strip() == entry.none else {part.strip() for part in text.split(entry.separator)}
        wrong = sorted(said - set(entry.classes))
    else:
        said, wrong = {text}, [] if text in entry.classes else [text]
    if wrong:
        advice = "Correct the value, empty the cell, or name it in classes."
        where = table.where(entry.column, row)
        raise CorruptError(f"{where}: {wrong[0]!r} is no class of {entry.name!r}", advice)
    if entry.kind == "multilabel":
        return [float(name in said) for name in entry.classes]
    return [float(entry.classes.index(text))]


def read_group(manifest: Manifest, column: CategoricalColumn, records: Records, *, lenient: bool) -> Index:
    """Return the place of each record's level in `group_levels` [S, K], -1 where it is unknown."""
    source = manifest.tables[manifest.groups_table]
    table = Table(source, [source.key, column.name], lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    rows = single_rows(table, source.key, subject, record)
    codes = ungrouped(column, records.shape)
    found = level_codes(table.texts(column.name), column.levels)
    # A level that is itself called "other" is the one that all others join.
    found = np.where(found == len(column.levels), group_levels(column).index(OTHER), found)
    codes[subject[rows], record[rows]] = found[rows]
    return codes


def ungrouped(column: CategoricalColumn, shape: tuple[int, int]) -> Index:
    """Return the codes of a group that is known of no record."""
    codes: Index = allocate(shape, -1, np.int64, f"group {column.name!r}")
    return codes


def group_levels(column: CategoricalColumn) -> tuple[str, ...]:
    """Return a group's levels: those declared and "other"."""
    return column.levels if OTHER in column.levels else (*column.levels, OTHER)
