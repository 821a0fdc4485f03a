"""Columns of one file as text or numbers. A wrong cell is noted with file, column and line, never its value.

Cells of keys, levels, labels and numbers are cleaned (spelling.py) before they are compared; passages of text are not.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...crypto.errors import CorruptError, UsageError
from . import files
from .entries import TableEntry
from .problems import ColumnCount, Findings, commonest, outside
from .spelling import MISSING, alike, clean, whole
from .utf8 import ONE_BYTE, misread

Texts = list[str | None]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_COMMA = re.compile(r"[+-]?\d*,\d+")
_POINT = re.compile(r"[+-]?\d*\.\d+")
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})([T ]\d{2}:\d{2}(?::\d{2})?)?")
CLOSE = 6  # letters of a column name from which another one may be called a slip of it
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A column of text: `values`, each once, and which of them a row has [rows], -1 for an empty cell.

    `words` says how often each word occurs that counts as an empty cell.
    """

    values: list[str]
    codes: Index
    words: Index
    missing: list[str]


class Table:
    """Some columns of one file, as text or as numbers. `kept` [rows] marks the rows that are read, `bad` those with a
    cell that cannot be used."""

    def __init__(
        self, entry: TableEntry, columns: Sequence[str], findings: Findings | None = None, *, lenient: bool = False
    ) -> None:
        """Read `columns` of the file; rows that do not pass the table's filters are not kept.

        `lenient` leaves out filters whose column is not there. Raises UsageError (no file, no column) or CorruptError
        (unreadable; with strict findings, any cell that cannot be used).
        """
        self.entry, self.path, self.name = entry, entry.path, entry.name
        self.findings = findings or Findings()
        self.names = files.header(entry)
        filters = [item for item in entry.keep if not lenient or item.column in self.names]
        wanted = sorted({*columns, *(item.column for item in filters)})
        for column in wanted:
            if column not in self.names:
                raise UsageError(f"{self.path}: no column {column!r}", self._advice(column, wanted))
            if self.names.count(column) > 1:
                raise CorruptError(f"{self.path}: column {column!r} is there twice", "Remove one, or rename it.")
        result = files.read(entry, wanted)
        self._data, self._lines, self._damaged = result.data, result.lines, result.damaged
        self._cells: dict[str, Cells] = {}
        self.rows: int = self._data.num_rows
        self.kept: Mask = np.ones(self.rows, dtype=np.bool_)
        self.bad: Mask = np.zeros(self.rows, dtype=np.bool_)
        self._unread: dict[str, Mask] = {}  # of columns of numbers: cells that hold something else [rows]
        if result.empty:
            self.findings.empty_rows[self.name] = result.empty
        if result.utf8:
            # Of one student's name alone it may follow: training goes on with what it reads (problems.py).
            what, advice = files.is_utf8(entry)
            if self.findings.strict:
                raise CorruptError(what, advice)
            self.findings.clash(what, advice)
        for line, expected, there in result.ragged:
            advice = "A cell that holds a separator needs quotes. The row is left out."
            self.findings.add(f"{self.path}: line {line}", f" has {there} cells, not {expected}", advice)
        for item in filters:
            if item.values:
                passes = self._one_of(item.column, item.values)
            else:
                numbers = self.numbers(item.column)  # NaN passes no bound
                passes = (numbers >= item.low) & (numbers <= item.high)
            self.kept &= passes | self.bad  # whose row cannot be judged is left out as a person

    def where(self, column: str, row: int) -> str:
        """Name a cell for an error, with the line as a spreadsheet shows it; `row` counts from 0."""
        what = "row" if self.path.suffix == ".parquet" else "line"
        return f"{self.path}: column {column!r}, {what} {self._lines[row]}"

    def line(self, row: int) -> int:
        """Return the number of a row as a spreadsheet shows it."""
        return int(self._lines[row])

    def fail(self, column: str, rows: Iterable[int] | Index, what: str, advice: str) -> None:
        """Note that the cells of these rows cannot be used, if the rows are kept. Raises CorruptError if strict."""
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        chosen = chosen[self.kept[chosen]]
        self.bad[chosen] = True
        for row in chosen.tolist():
            self.findings.add(self.where(column, row), what, advice)

    def cells(self, column: str) -> Cells:
        """Return a column of text."""
        if column not in self._cells:
            self._cells[column] = self._read(column)
        return self._cells[column]

    def texts(self, column: str) -> Texts:
        """Return a column as text, None where it is missing."""
        cells = self.cells(column)
        return [None if code < 0 else cells.values[code] for code in cells.codes.tolist()]

    def passages(self, column: str) -> list[str]:
        """Return a column as it is written, "" where it is empty: in a sentence, NA is a word."""
        values, codes = self._encoded(column)
        self._check_encoding(column, values, codes)
        shown = [value if clean(value) else "" for value in values]
        return ["" if code < 0 else shown[code] for code in codes.tolist()]

    def identifiers(self, column: str) -> Texts:
        """Return a column as text; a row that is kept and has none is noted as a problem."""
        empty = np.flatnonzero(self.cells(column).codes < 0)
        self.fail(column, empty, " is empty", "Every row needs an identifier here.")
        return self.texts(column)

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Return a column as float64, shape [rows], NaN where it is missing or, as noted, no number."""
        data = self._data.column(column)
        if not _is_text(data.type):
            try:
                numbers = np.array(data.cast(pa.float64()).to_numpy(), dtype=np.float64)
            except pa.ArrowException as error:
                raise self._unfit(column, "numbers", "Export it as whole or decimal numbers.") from error
            for word in self.entry.missing_values:
                numbers[numbers == number_of(word, ".")] = np.nan
            wrong = np.zeros(self.rows, dtype=np.bool_)
        else:
            cells = self.cells(column)
            parsed = np.array([*(number_of(value, self.entry.decimal) for value in cells.values), np.nan])
            wrong = np.append(np.isnan(parsed[:-1]), False)[cells.codes]
            if wrong.any():
                self.fail(column, np.flatnonzero(wrong), " is not a number", self._no_number(cells.values))
            numbers = parsed[cells.codes]
        infinite = np.flatnonzero(np.isinf(numbers))
        if infinite.size:
            self.fail(column, infinite, " is infinite", "Correct or empty the cell.")
            numbers[infinite] = np.nan
            wrong[infinite] = True
        self._unread[column] = wrong
        return numbers

    def moments(self, column: str, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return a column by which rows are ordered [rows]: numbers as they are, dates and times in days.

        Of the rows that are kept and `wanted` [rows], one that has neither is noted as a problem, and a number where
        most are dates, or the other way round; they are NaN here.
        """
        cells = self.cells(column)
        parsed = np.array([*(moment_of(value, self.entry.decimal) for value in cells.values), np.nan])
        number = np.array([*(not np.isnan(number_of(value, self.entry.decimal)) for value in cells.values), False])
        empty, wrong = cells.codes < 0, np.append(np.isnan(parsed[:-1]), False)[cells.codes]
        self.fail(column, np.flatnonzero(empty & wanted), " is empty", "Every row needs a place in the order.")
        advice = "Write a number, a date as 2026-03-01 or 1.3.2026, or either with a time: 2026-03-01 10:30."
        self.fail(column, np.flatnonzero(wrong & wanted), " is neither a number nor a date", advice)
        moments: npt.NDArray[np.float64] = parsed[cells.codes]
        good = wanted & self.kept & ~np.isnan(moments)
        numbers, dates = (np.flatnonzero(good & (number[cells.codes] == kind)) for kind in (True, False))
        if numbers.size and dates.size:
            fewer, what = (numbers, "number") if numbers.size <= dates.size else (dates, "date")
            most = "dates" if what == "number" else "numbers"
            self.fail(column, fewer, f" is a {what}, and most of this column are {most}", f"Write {most} alone.")
            moments[fewer] = np.nan
        return moments

    def levels(self, column: str, declared: Sequence[str], use: str) -> Index:
        """Return the place of each cell in `declared` [rows]: -1 for an empty one, len(declared) for another value.

        A value that differs from a declared one in case, in space or in a ".0" alone is noted as a problem.
        """
        cells, index = self.cells(column), {word: number for number, word in enumerate(declared)}
        forms, numbers = {alike(word): word for word in declared}, {whole(word): word for word in declared}
        seen: dict[str, int] = {}
        places = np.full(len(cells.values) + 1, len(declared), dtype=np.int64)
        places[-1] = -1
        for code, value in enumerate(cells.values):
            if value in index:
                places[code] = index[value]
                continue
            form = alike(value)
            if form in forms:
                what = f" is written otherwise than the declared {forms[form]!r}: case or space differs"
                self.fail(column, np.flatnonzero(cells.codes == code), what, "Write it in one way, here and there.")
            elif whole(value) in numbers:
                what = f" is the declared {numbers[whole(value)]!r} in another number format"
                advice = "Format the column in the spreadsheet as declared (3, not 3,0 or 3.0), and export it again."
                self.fail(column, np.flatnonzero(cells.codes == code), what, advice)
            elif form in seen and (rows := self._rows_of_both(cells, seen[form], code)):
                self.findings.clash(
                    f"{self.path}: column {column!r}, lines {rows[0]} and {rows[1]}: two values differ in case or space"
                    f" alone ({use})",
                    "Write both in one way.",
                )
            else:
                seen[form] = code
        return places[cells.codes]

    def count_levels(self, column: str, use: str, places: Index, declared: int, rows: Index) -> None:
        """Count the values of a column of levels or classes in the `rows` that are read."""
        cells = self.cells(column)
        other = rows[places[rows] == declared]
        codes, counts = np.unique(cells.codes[other], return_counts=True)
        words = commonest([cells.values[code] for code in codes.tolist()], counts.tolist())
        self.findings.count(self._count_column(column, use, rows, places[rows] < 0, other=int(other.size), words=words))

    def count_numbers(
        self, column: str, use: str, numbers: npt.NDArray[np.float64], bounds: tuple[float, float], rows: Index
    ) -> None:
        """Count the values of a column of numbers in the `rows` that are read."""
        values, unread = numbers[rows], self._unread[column][rows]
        counts = outside(values, *bounds)
        self.findings.count(
            self._count_column(column, use, rows, np.isnan(values) & ~unread, unreadable=int(unread.sum()), **counts)
        )

    def _count_column(
        self, column: str, use: str, rows: Index, missing: Mask, unreadable: int = 0, **more: object
    ) -> ColumnCount:
        words: tuple[tuple[str, int], ...] = ()
        if _is_text(self._data.column(column).type):
            cells = self.cells(column)
            codes, counts = np.unique(cells.words[rows], return_counts=True)
            words = tuple((cells.missing[code], int(n)) for code, n in zip(codes, counts, strict=True) if code >= 0)
        values = int((~missing).sum()) - unreadable
        return ColumnCount(self.name, column, use, values, int(missing.sum()), words, unreadable, **more)  # type: ignore[arg-type]

    def _rows_of_both(self, cells: Cells, first: int, second: int) -> tuple[int, int] | None:
        rows = [np.flatnonzero((cells.codes == code) & self.kept) for code in (first, second)]
        return (self.line(rows[0][0]), self.line(rows[1][0])) if rows[0].size and rows[1].size else None

    def _one_of(self, column: str, values: Sequence[str]) -> Mask:
        places = self.levels(column, values, "keep")
        return np.asarray((places >= 0) & (places < len(values)), dtype=np.bool_)

    def _read(self, column: str) -> Cells:
        raw, codes = self._encoded(column)
        self._check_encoding(column, raw, codes)
        absent = MISSING | self.entry.missing_values
        index: dict[str, int] = {}
        gone: dict[str, int] = {}
        places, words = np.full(len(raw) + 1, -1), np.full(len(raw) + 1, -1)
        for number, text in enumerate(raw):
            cell = clean(text)
            if cell not in absent:
                places[number] = index.setdefault(cell, len(index))
            elif cell:
                words[number] = gone.setdefault(cell, len(gone))
        return Cells(list(index), places[codes], words[codes], list(gone))

    def _encoded(self, column: str) -> tuple[list[str], Index]:
        """Return the distinct texts of a column and which of them each row has [rows], -1 for none."""
        data = self._data.column(column)
        try:
            if pa.types.is_binary(data.type) or pa.types.is_large_binary(data.type):
                raise pa.ArrowInvalid("bytes")
            if not pa.types.is_dictionary(data.type):
                data = data.cast(pa.string()).dictionary_encode()
            joined = data.combine_chunks()
            parts = joined.chunks if isinstance(joined, pa.ChunkedArray) else [joined]
            parts = pa.chunked_array(parts, type=data.type).unify_dictionaries().chunks
            values = [str(value) for value in parts[0].dictionary.cast(pa.string()).to_pylist()] if parts else []
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._unfit(column, "text in UTF-8, or numbers,", "Export the column as text.") from error
        codes = [part.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) for part in parts]
        return values, np.concatenate(codes) if codes else np.zeros(0, dtype=np.int64)

    def _check_encoding(self, column: str, values: list[str], codes: Index) -> None:
        if self._damaged and (wrong := np.array([files.DAMAGED in value for value in values], dtype=np.bool_)).any():
            self.fail(column, np.flatnonzero(np.append(wrong, False)[codes]), *files.not_text(self.entry))

    def _unfit(self, column: str, expected: str, advice: str) -> CorruptError:
        kind = self._data.column(column).type
        where = f"{self.path} (table {self.name!r}): column {column!r}"
        return CorruptError(f"{where} holds {kind}; {expected} were expected", advice)

    def _no_number(self, values: Sequence[str]) -> str:
        section = f"[tables.{self.name}]"
        wrong = [value for value in values if np.isnan(number_of(value, self.entry.decimal))]
        if self.entry.decimal == "." and any(map(_COMMA.fullmatch, wrong)):
            return f'If the file writes numbers as 0,5, write decimal = "," in {section}.'
        if self.entry.decimal == "," and any(map(_POINT.fullmatch, wrong)):
            return f'Declared is decimal = ",". If the file writes numbers as 0.5, write decimal = "." in {section}.'
        if any(map(_GROUPED.fullmatch, wrong)):
            return "Export numbers without a separator between thousands."
        return f"Correct it, leave the cell empty if it is unknown, or name the word in missing_values in {section}."

    def _advice(self, column: str, wanted: Sequence[str]) -> str:
        names, other = self.names, ""
        misspelt = clean(misread(column, self.entry.encoding)) if self.entry.encoding in ONE_BYTE else column
        if misspelt != column and any(misspelt in name for name in names):
            return "The file is UTF-8. " + files.is_utf8(self.entry)[1]
        for sign, name in ((";", ";"), ("\t", "\\t"), ("|", "|"), (",", ",")):
            if len(self.names) == 1 and sign in self.names[0] and self.entry.separator != sign:
                names = [clean(word) for word in self.names[0].split(sign)]
                other = (
                    f'If cells are divided so, write separator = "{name}" in [tables.{self.name}], or save the file'
                    f" with {self.entry.separator!r} between them."
                )
                break
        if not {*names} & {*wanted, self.entry.key}:
            # Most likely the first line is a student's row, and no cell of one is quoted.
            problem = "The first line of the file names no column that dataset.toml names: put the column names there."
            return f"{problem} {other}".rstrip()
        slips = [name for name in names if alike(name) == alike(column)]
        if not slips and len(column) >= CLOSE:
            slips = get_close_matches(column, names, 1, 0.8)
        if slips and not other:
            return f"There is a column {slips[0]!r}: write the name in one way, in the file and in dataset.toml."
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        return f"{other} It has: {shown}." if other else f"The columns are {shown}."


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def number_of(text: str, decimal: str) -> float:
    """Return the number that a cell holds, NaN for a text that is none."""
    if decimal == ",":
        text = "" if "." in text else text.replace(",", ".")
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan


def moment_of(text: str, decimal: str) -> float:
    """Return the number that a cell holds, or its date and time in days (UTC, if it names an offset), or else NaN."""
    number = number_of(text, decimal)
    if not np.isnan(number):
        return number if np.isfinite(number) else np.nan
    match = _DAY_FIRST.fullmatch(text)
    try:
        moment = datetime.fromisoformat(f"{match[3]}-{match[2]:0>2}-{match[1]:0>2}{match[4] or ''}" if match else text)
    except ValueError:
        return np.nan
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return moment.toordinal() + (moment - midnight).total_seconds() / 86_400


def column_names(entry: TableEntry) -> list[str]:
    """Return the names of a file's columns. Raises UsageError (no such file) or CorruptError (unreadable)."""
    return files.header(entry)
