"""From a modality's table, and the files that it names, to arrays [S, K, T, width] with masks."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError, UsageError
from ..words import counted
from . import wav
from .audio import OtherRateError, log_mel, read_wav, resample
from .entries import CategoricalColumn, Column, Manifest, ModalityEntry, NumericColumn
from .images import read_image
from .media import MediaFile
from .paths import inside
from .problems import Findings
from .records import Index, Records, allocate, rows_of, single_rows
from .tables import Table, column_names
from .texts import fill_texts, text_steps

LISTED = 5  # lines of a table in a message
INSTANT = 0.001  # seconds of a clip that are read where only its rate is asked for
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
Arrays = tuple[Floats, Mask, Objects | None, Objects | None]  # values, steps, texts, files


def read_modality(
    manifest: Manifest, entry: ModalityEntry, records: Records, findings: Findings, *, lenient: bool, keep: bool
) -> Arrays:
    """Return values [S, K, T, width], steps [S, K, T] and, for text, texts [S, K, T]; `keep`: files, and no values.

    `lenient` leaves out filters whose column is not there. Raises UsageError or CorruptError, naming the place.
    """
    source = manifest.tables[entry.table]
    columns = declared_columns(manifest, entry)
    names = [source.key, *needed(entry), *(column.name for column in columns)]
    table = Table(source, names, findings, lenient=lenient)
    subject, record = rows_of(table, source.key, records)
    if entry.kind == "series":
        rows, step = _series_steps(table, entry, subject, record)
    elif entry.order:
        rows, step = text_steps(table, entry, subject, record)
    else:
        rows = single_rows(table, source.key, records, subject, record)
        step = np.zeros(rows.size, dtype=np.int64)
    values, steps, texts, files = blank(manifest, entry, records.shape, keep=keep)
    if texts is not None:
        fill_texts(table, entry, (rows, subject, record, step), texts)
        steps |= texts != ""
    elif entry.file:
        _files(manifest.folder, table, entry, rows, (subject, record), values, steps, files)
    else:
        features, present = _features(table, columns, f"modality {entry.name!r}")
        filled = present[rows]
        rows, step = rows[filled], step[filled]
        values[subject[rows], record[rows], step] = features[rows]
        steps[subject[rows], record[rows], step] = True
    records.spoil(table, subject)
    return values, steps, texts, files


def blank(manifest: Manifest, entry: ModalityEntry, shape: tuple[int, int], *, keep: bool) -> Arrays:
    """Return the arrays of a modality that every record lacks."""
    what = f"modality {entry.name!r}"
    keep = keep and bool(entry.file)
    if entry.kind == "text" or keep:
        width = 0
    elif entry.audio is not None:
        width = entry.audio.bands
    elif entry.file:
        width = entry.size * entry.size
    else:
        width = sum(column.width for column in declared_columns(manifest, entry))
    length = 1 if keep else entry.max_len
    values = allocate((*shape, length, width), 0.0, np.float32, what)
    steps = allocate((*shape, length), False, np.bool_, what)
    texts = allocate((*shape, length), "", np.object_, what) if entry.kind == "text" else None
    return values, steps, texts, allocate((*shape, length), None, np.object_, what) if keep else None


def needed(entry: ModalityEntry) -> list[str]:
    """Return the columns without which a file lacks the modality; those of a prefix are not known beforehand."""
    time = [name for name in (entry.time, entry.slot) if name]
    file = [entry.file] if entry.file else []
    order = [entry.order] if entry.order else []
    return [*time, *order, *file, *entry.segments, *(column.name for column in entry.columns)]


def declared_columns(manifest: Manifest, entry: ModalityEntry) -> tuple[Column, ...]:
    """Return the columns of features; a prefix is looked up in the table. Raises UsageError if it fits none."""
    if not entry.prefix:
        return entry.columns
    table = manifest.tables[entry.table]
    matches = [(int(match[1]), match[0]) for name in column_names(table)
             if (match := re.fullmatch(re.escape(entry.prefix) + r"(\d+)", name))]  # fmt: skip
    if not matches:
        raise UsageError(f"{table.path}: no column {entry.prefix}0, {entry.prefix}1, ...", "Correct the prefix.")
    return tuple(NumericColumn(name, entry.low, entry.high, missing=False) for _, name in sorted(matches))


def _files(
    folder: Path,
    table: Table,
    entry: ModalityEntry,
    rows: Index,
    places: tuple[Index, Index],
    values: Floats,
    steps: Mask,
    files: Objects | None,
) -> None:
    paths = table.texts(entry.file)
    of_rates = ""
    for row in rows.tolist():
        text = paths[row]
        if text is None:
            continue
        index = (int(places[0][row]), int(places[1][row]))
        try:
            path = inside(folder, text, "")
            if entry.audio is not None:
                samples, longer = read_wav(path, entry.audio)
                if files is None:
                    values[index], filled = log_mel(samples, entry.audio)
                    steps[index][:filled] = True
                table.findings.cut[entry.name] += longer
            else:
                grey, squeezed = read_image(path, entry.size)
                table.findings.squeezed[entry.name] += squeezed
                if files is None:
                    scaled = 2.0 * (np.clip(grey, entry.low, entry.high) - entry.low) / (entry.high - entry.low) - 1.0
                    values[index][0] = -scaled if entry.invert else scaled
                    steps[index][0] = True
            if files is not None:
                files[index][0] = MediaFile.of(path, entry.audio)
                steps[index][0] = True
        except OtherRateError as error:
            assert entry.audio is not None
            of_rates = of_rates or _rates(folder, table, rows, paths, entry.audio.rate)
            table.fail(entry.file, [row], f": {error.message}", of_rates)
        except (CorruptError, UsageError) as error:
            table.fail(entry.file, [row], f": {error.message.removeprefix(': ')}", error.advice)


def _rates(folder: Path, table: Table, rows: Index, paths: list[str | None], declared: int) -> str:
    """Return which sampling rates the files have, all at once, and what to do about it."""
    lines: dict[int, list[int]] = {}
    for row in rows.tolist():
        text = paths[row]
        if text is not None:
            with suppress(CorruptError, UsageError):
                lines.setdefault(wav.read(inside(folder, text, ""), INSTANT).rate, []).append(table.line(row))
    parts = [
        f"{counted(len(numbers), 'file has', 'files have')} {rate} ({'line' if len(numbers) == 1 else 'lines'}"
        f" {', '.join(map(str, numbers[:LISTED]))}{', …' * (len(numbers) > LISTED)})"
        for rate, numbers in sorted(lines.items())
    ]
    right = len(lines.get(declared, ())) > sum(map(len, lines.values())) / 2  # the few are wrong, not the declaration
    todo = resample({rate: f"the files with {rate}" for rate in lines}, declared, declared if right else 0)
    return f"Of the files of this column {', '.join(parts)} samples a second, declared are {declared}. {todo}"


def _features(table: Table, columns: tuple[Column, ...], use: str) -> tuple[Floats, Mask]:
    """Return features [rows, width] and whether a row has any value [rows]."""
    parts: list[Floats] = []
    present = np.zeros(table.rows, dtype=np.bool_)
    gaps: list[tuple[str, Mask]] = []
    rows = np.flatnonzero(table.kept)
    for column in columns:
        if isinstance(column, CategoricalColumn):
            codes = table.levels(column.name, column.levels, use)
            table.count_levels(column.name, use, codes, len(column.levels), rows)
            part, filled = _one_hot(codes, column)
        else:
            raw = table.numbers(column.name)
            table.count_numbers(column.name, use, raw, (column.low, column.high), rows)
            filled = ~np.isnan(raw)
            scaled = 2.0 * (np.clip(raw, column.low, column.high) - column.low) / (column.high - column.low) - 1.0
            part = np.where(filled, scaled, 0.0).astype(np.float32)[:, None]
            if column.missing:
                part = np.concatenate([part, (~filled).astype(np.float32)[:, None]], axis=1)
            else:
                gaps.append((column.name, ~filled))
        present |= filled
        parts.append(part)
    # A row without any value is a missing modality, which the mask says; a gap in a row needs its own feature.
    for name, gap in gaps:
        empty = np.flatnonzero(gap & present & ~table.bad)
        table.fail(name, empty, " is empty", "Fill the cell, or write missing = true for this column.")
    return np.concatenate(parts, axis=1), present


def _one_hot(codes: Index, column: CategoricalColumn) -> tuple[Floats, Mask]:
    filled = codes >= 0
    part = np.zeros((codes.size, column.width), dtype=np.float32)
    part[np.flatnonzero(filled), codes[filled]] = 1.0
    return part, filled


def _series_steps(table: Table, entry: ModalityEntry, subject: Index, record: Index) -> tuple[Index, Index]:
    """Return the rows to keep, ordered by record and time, and the step of each within its record."""
    time = table.numbers(entry.time)
    timeless = np.flatnonzero(np.isnan(time) & ~table.bad)
    table.fail(entry.time, timeless, " is empty", "Every row of a series needs a time.")
    rows = np.flatnonzero((subject >= 0) & (time <= entry.until))
    rows = rows[np.lexsort((time[rows], record[rows], subject[rows]))]
    if entry.slot:  # of two rows of a slot the later one is written last
        slot = table.levels(entry.slot, entry.slots, f"modality {entry.name!r}")[rows]
        return rows[(slot >= 0) & (slot < len(entry.slots))], slot[(slot >= 0) & (slot < len(entry.slots))]
    series = subject[rows] * (int(record.max(initial=0)) + 1) + record[rows]
    _, first, count = np.unique(series, return_index=True, return_counts=True)
    step = np.arange(rows.size) - np.repeat(first, count)
    if entry.resample:
        for begin, length in zip(first.tolist(), count.tolist(), strict=True):
            if length > entry.max_len:
                chosen = np.rint(np.linspace(0, length - 1, entry.max_len)).astype(np.int64)
                step[begin : begin + length] = -1
                step[begin + chosen] = np.arange(entry.max_len)
    else:
        step -= np.repeat(np.maximum(count - entry.max_len, 0), count)  # the last max_len steps are kept
    return rows[step >= 0], step[step >= 0]
