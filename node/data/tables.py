"""Columns of CSV, CSV.gz and Parquet files through pyarrow, with errors that name file, column and row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...crypto.errors import CorruptError, UsageError
from .manifest import TableEntry

Texts = list[str | None]
_MISSING = ["", "NA", "NaN", "nan", "null", "NULL"]
_PARSE = pyarrow.csv.ParseOptions(newlines_in_values=True)  # a quoted text may have paragraphs
LINE = 1 << 20  # bytes of a CSV line that can be read for certain
_BLOCKS = pyarrow.csv.ReadOptions(block_size=LINE)


class Table:
    """Some columns of one file, as text or as numbers. Rows count from 1, without a header."""

    def __init__(self, entry: TableEntry, columns: Sequence[str], *, lenient: bool = False) -> None:
        """Read `columns` of the file; `kept` [rows] bool marks the rows that pass the table's filters.

        `lenient` leaves out filters whose column is not there. Raises UsageError (no file, no column) or CorruptError
        (unreadable).
        """
        self.path, self.name = entry.path, entry.name
        self.names = column_names(entry.path)
        filters = [item for item in entry.keep if not lenient or item.column in self.names]
        wanted = sorted({*columns, *(item.column for item in filters)})
        for column in wanted:
            if column not in self.names:
                known = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
                raise UsageError(f"{self.path}: no column {column!r}", f"The columns are {known}.")
            if self.names.count(column) > 1:
                raise CorruptError(f"{self.path}: column {column!r} is there twice", "Remove one, or rename it.")
        self._data = _read(self.path, wanted)
        self.rows: int = self._data.num_rows
        self.kept: npt.NDArray[np.bool_] = np.ones(self.rows, dtype=np.bool_)
        for item in filters:
            if item.values:
                self.kept &= np.array([text in item.values for text in self.texts(item.column)], dtype=np.bool_)
            else:
                numbers = self.numbers(item.column)  # NaN passes no bound
                self.kept &= (numbers >= item.low) & (numbers <= item.high)

    def where(self, column: str, row: int) -> str:
        """Name a cell for an error; `row` counts from 0."""
        return f"{self.path}: column {column!r}, row {row + 1}"

    def texts(self, column: str) -> Texts:
        """Return a column as text, None where it is missing."""
        return [None if value is None or value in _MISSING else value for value in self._strings(column)]

    def passages(self, column: str) -> list[str]:
        """Return a column as it is written, "" where it is empty: in a sentence, NA is a word."""
        return ["" if value is None or not value.strip() else value for value in self._strings(column)]

    def identifiers(self, column: str) -> list[str]:
        """Return a column as text. Raises CorruptError naming the first row that has none."""
        values = self.texts(column)
        for row, value in enumerate(values):
            if value is None:
                raise CorruptError(f"{self.where(column, row)} is empty", "Every row needs an identifier here.")
        return [value for value in values if value is not None]

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Return a column as float64, shape [rows], NaN where missing. Raises CorruptError naming a row with text."""
        data = self._data.column(column)
        if pa.types.is_string(data.type) or pa.types.is_large_string(data.type):
            return self._parsed(column)
        try:
            values = data.cast(pa.float64()).to_numpy()
        except pa.ArrowException as error:
            raise self._unfit(column, "numbers", "Export it as whole or decimal numbers.") from error
        return self._finite(column, np.asarray(values, dtype=np.float64))

    def _strings(self, column: str) -> Texts:
        try:
            values: Texts = self._data.column(column).cast(pa.string()).to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._unfit(column, "text in UTF-8, or numbers,", "Export the column as text.") from error
        return values

    def _unfit(self, column: str, expected: str, advice: str) -> CorruptError:
        kind = self._data.column(column).type
        where = f"{self.path} (table {self.name!r}): column {column!r}"
        return CorruptError(f"{where} holds {kind}; {expected} were expected", advice)

    def _parsed(self, column: str) -> npt.NDArray[np.float64]:
        values = np.full(self.rows, np.nan)
        for row, text in enumerate(self.texts(column)):
            if text is None:
                continue
            try:
                values[row] = float(text)
            except ValueError as error:
                advice = "Correct the value, or leave the cell empty if it is unknown."
                raise CorruptError(f"{self.where(column, row)}: {text!r} is not a number", advice) from error
        return self._finite(column, values)

    def _finite(self, column: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        infinite = np.flatnonzero(np.isinf(values))
        if infinite.size:
            raise CorruptError(f"{self.where(column, int(infinite[0]))} is infinite", "Correct or empty the cell.")
        return values


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns. Raises UsageError (no such file) or CorruptError (unreadable)."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "Correct the path in dataset.toml, or put the file there.")
    try:
        if path.suffix == ".parquet":
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        with pyarrow.csv.open_csv(path, read_options=_BLOCKS, parse_options=_PARSE) as reader:
            return [str(name) for name in reader.schema.names]
    except UnicodeDecodeError as error:
        raise CorruptError(f"{path}: the line of column names is not UTF-8", "Export the file as UTF-8.") from error
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path, columns=columns, use_threads=False)
        # Everything as text: type inference would turn one wrong cell into a column of another type.
        convert = pyarrow.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        )
        return pyarrow.csv.read_csv(path, read_options=_BLOCKS, parse_options=_PARSE, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptError:
    if "straddl" in str(error):  # Arrow's word for a line that does not fit into its blocks
        advice = f"At most {LINE} bytes fit. Look for a quote that is not closed: it makes one line of all that follow."
        return CorruptError(f"{path}: a line is too long", advice)
    return CorruptError(f"{path} cannot be read: {error}", "Export the file again, as CSV, CSV.gz or Parquet.")
