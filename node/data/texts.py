"""Texts of a table: one row a record, or several in a declared order, of which a declared number is read."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .entries import ModalityEntry
from .records import Index
from .tables import Table

Objects = npt.NDArray[np.object_]


def text_steps(table: Table, entry: ModalityEntry, subject: Index, record: Index) -> tuple[Index, Index]:
    """Return the rows to read, ordered by record and `entry.order`, and the place of each among its record's texts.

    The last `entry.texts` rows of a record are read, the newest in the last place: a record with fewer has its first
    places empty. Rows without any text do not count. What is not read is counted (Findings.unread_texts), and
    rows of a record that are equal in all that is read are noted (Findings.repeated).
    """
    written = np.zeros(table.rows, dtype=np.bool_)
    columns = [table.passages(segment) for segment in entry.segments]
    for passages in columns:
        written |= np.array([passage != "" for passage in passages], dtype=np.bool_)
    moment = table.moments(entry.order, written)
    rows = np.flatnonzero((subject >= 0) & ~np.isnan(moment) & written)
    rows = rows[np.lexsort((moment[rows], record[rows], subject[rows]))]  # of equal ones, as the file has them
    owner = subject[rows] * (int(record.max(initial=0)) + 1) + record[rows]
    _note_repeats(table, entry.name, zip(rows.tolist(), owner.tolist(), moment[rows].tolist(), strict=True), columns)
    _, first, count = np.unique(owner, return_index=True, return_counts=True)
    after = np.repeat(first + count, count) - np.arange(rows.size) - 1  # rows of the record that follow
    more = np.maximum(count - entry.texts, 0)
    if more.any():
        table.findings.unread_texts[entry.name] = (int((more > 0).sum()), int(more.sum()))
    kept = after < entry.texts
    places: Index = entry.texts - 1 - after[kept]
    return rows[kept], places


def _note_repeats(
    table: Table, name: str, placed: Iterable[tuple[int, int, float]], columns: Sequence[Sequence[str]]
) -> None:
    """Note rows of one record with the same place in the order and the same passages: one may be a copy by mistake."""
    first: dict[tuple[int, float, tuple[str, ...]], int] = {}
    pairs = []
    for row, owner, moment in placed:
        before = first.setdefault((owner, moment, tuple(passages[row] for passages in columns)), row)
        if before != row:
            pairs.append((table.line(row), table.line(before)))
    if pairs:
        table.findings.repeated[name] = (table.path.name, sorted(pairs))


def fill_texts(table: Table, entry: ModalityEntry, placed: tuple[Index, Index, Index, Index], texts: Objects) -> None:
    """Put passages into `texts` [S, K, T]. `placed` are the rows, subject and record of every row, and their places.

    With a separator the passages of a record are one, in order; else each has a place of its own.
    """
    rows, subject, record, place = placed
    for number, segment in enumerate(entry.segments):
        passages = np.array(table.passages(segment), dtype=object)[rows]
        if not entry.separator:
            texts[subject[rows], record[rows], place * len(entry.segments) + number] = passages
            continue
        for row, passage in zip(rows.tolist(), passages.tolist(), strict=True):
            if passage:
                index = (int(subject[row]), int(record[row]), number)
                texts[index] = f"{texts[index]}{entry.separator}{passage}" if texts[index] else passage
