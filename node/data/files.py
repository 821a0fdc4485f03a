"""Tables (CSV, CSV.gz, Parquet, .xlsx), read within limits. CSV columns come as UTF-8, however the file is written.

A small file can unfold to any size. The limits of a table hold while it is read: `max_mib` unpacked, and
`max_rows`, which of CSV are counted once it is parsed.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from ...crypto.errors import CorruptError, UsageError
from . import workbook
from .entries import TableEntry
from .spelling import clean
from .utf8 import ONE_BYTE, Utf8Count

LINE = 1 << 20  # bytes of a CSV line that can be read for certain
RAGGED = 10_000  # rows with another number of cells; more of them, and it is no table
_BATCH = 1 << 16  # rows of Parquet at a time
_SIGNS = (
    (b"PK\x03\x04", "is an Excel or OpenDocument workbook, not CSV", "Save it as CSV UTF-8 in the spreadsheet."),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook, not CSV", "Save it as CSV UTF-8 in the spreadsheet."),
    (b"PAR1", "is a Parquet file", "Let its name end in .parquet."),
    (b"\x1f\x8b", "is packed by gzip", "Let its name end in .csv.gz."),
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
DAMAGED = "\ufffd"  # stands for bytes that are no text in the declared encoding


class Read:
    """The columns of a file: `data`, and for each row its number in a spreadsheet. `ragged` are rows left out."""

    def __init__(self, data: pa.Table, lines: npt.NDArray[np.int64], *, damaged: bool = False) -> None:
        self.data, self.lines, self.damaged = data, lines, damaged
        self.utf8 = False  # though another encoding is declared
        self.ragged: list[tuple[int, int, int]] = []  # line, cells expected, cells there
        self.empty = 0


def header(entry: TableEntry) -> list[str]:
    """Return the names of a file's columns, cleaned. Raises UsageError (no such file) or CorruptError (unreadable)."""
    return [clean(name) for name in _raw_header(entry)]


def read(entry: TableEntry, columns: Sequence[str]) -> Read:
    """Read columns by their cleaned names, which must be there once. Raises UsageError or CorruptError."""
    raw = {clean(name): name for name in _raw_header(entry)}
    wanted = [raw[name] for name in columns]
    result = _columns(entry, wanted)
    candidates = _empty_rows(result.data)
    if candidates.any():
        whole = result.data
        if len(wanted) < len(raw):  # other columns may say something in these rows
            every = list(raw.values())
            whole = _columns(entry, every).data
        empty = _empty_rows(whole)
        result.empty = int(empty.sum())
        result.data, result.lines = result.data.filter(pa.array(~empty)), result.lines[~empty]
    result.data = result.data.rename_columns([clean(name) for name in result.data.column_names])
    return result


def _columns(entry: TableEntry, names: list[str]) -> Read:
    if entry.path.suffix == ".parquet":
        return _parquet(entry, names)
    return _sheet(entry, names) if entry.path.suffix in workbook.SUFFIXES else _csv(entry, names)


def _raw_header(entry: TableEntry) -> list[str]:
    path = entry.path
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}", "Correct the path in dataset.toml, or put the file there.")
    with _errors(entry):
        if path.suffix == ".parquet":
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        if path.suffix in workbook.SUFFIXES:
            return workbook.names(path, entry.max_mib << 20)
        with _stream(entry) as stream:
            names = [str(name) for name in _parsed(entry, _native(stream, LINE), None, []).column_names]
    if any(DAMAGED in name for name in names):
        raise CorruptError(f"{path}: the line of column names is not {entry.encoding.upper()}", _recode(entry))
    return names


def _csv(entry: TableEntry, columns: list[str]) -> Read:
    ragged: list[tuple[int, int, int]] = []
    with _errors(entry), _stream(entry) as stream:
        text = _native(stream)
        data = _parsed(entry, text, columns, ragged)
        if data.num_rows > entry.max_rows:
            raise workbook.FullError
    if _is_cut(text, entry.separator):
        last = data.num_rows + len(ragged) + 1 + stream.blank
        what = f"{entry.path}: a cell of line {last} begins with a quotation mark, and none ends it"
        raise CorruptError(what, "Add the one that is missing, or remove the mark: now all that follows is one cell.")
    if len(ragged) > RAGGED:
        line, expected, there = ragged[0]
        where = f"{entry.path}: more than {RAGGED} rows, the first in line {line}, do not have {expected} cells"
        raise CorruptError(f"{where} ({there} there)", "Export the file again, as CSV.")
    left = np.ones(data.num_rows + len(ragged), dtype=np.bool_)
    left[[line - 2 for line, _, _ in ragged if line - 2 < left.size]] = False
    result = Read(data, np.flatnonzero(left)[: data.num_rows] + 2 + stream.blank, damaged=stream.damaged)
    result.utf8 = stream.count is not None and stream.count.is_utf8
    result.ragged = [(line + stream.blank, expected, there) for line, expected, there in ragged]
    return result


def _is_cut(text: pa.Buffer, separator: str) -> bool:
    """Whether the last quotation mark of a text opens a cell, which nothing ends."""
    marks = np.frombuffer(text, np.uint8) == ord('"')
    if not np.count_nonzero(marks) % 2:
        return False
    last = marks.size - 1 - int(marks[::-1].argmax())
    before, after = (text.slice(at, 1).to_pybytes().decode("latin-1") if at >= 0 else "" for at in (last - 1, last + 1))
    edges = {separator, "\n", "\r", ""}
    return before in edges and after not in edges


def _native(stream: "_Utf8", most: int = 0) -> pa.Buffer:
    """Return a file's text in memory of Arrow's own: all of it, or the whole lines in its first `most` bytes."""
    sink = pa.BufferOutputStream()
    while chunk := stream.read(most or -1):
        if most and len(chunk) == most:
            chunk = chunk[: chunk.rfind(b"\n") + 1] or chunk
        sink.write(chunk)
        if most:
            break
    return sink.getvalue()


def _parsed(
    entry: TableEntry, text: pa.Buffer, columns: list[str] | None, ragged: list[tuple[int, int, int]]
) -> pa.Table:
    """Parse text in this thread.

    Arrow reads ahead in another thread. It must hold no object of Python's: letting go of one while the interpreter
    ends aborts the process.
    """

    def unfit(row: pyarrow.csv.InvalidRow) -> str:
        if len(ragged) <= RAGGED:
            ragged.append((row.number or 0, row.expected_columns, row.actual_columns))
        return "skip"

    parse = pyarrow.csv.ParseOptions(
        delimiter=entry.separator,
        newlines_in_values=True,  # a quoted text may have paragraphs
        ignore_empty_lines=False,  # a spreadsheet counts them
        invalid_row_handler=unfit,
    )
    options = pyarrow.csv.ReadOptions(block_size=LINE, use_threads=False)  # rows have numbers in one thread alone
    # Everything as text: type inference would turn one wrong cell into a column of another type.
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns or (), pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return pyarrow.csv.read_csv(
        pa.BufferReader(text), read_options=options, parse_options=parse, convert_options=convert
    )


def _sheet(entry: TableEntry, columns: list[str]) -> Read:
    with _errors(entry):
        names, rows = workbook.read(entry.path, entry.max_rows, entry.max_mib << 20, entry.decimal)
    places = [names.index(column) for column in columns]
    cells = [pa.array([row[index] for _, row in rows], pa.string()) for index in places]
    return Read(pa.table(cells, columns), np.array([line for line, _ in rows], dtype=np.int64))


def _parquet(entry: TableEntry, columns: list[str]) -> Read:
    with _errors(entry), pyarrow.parquet.ParquetFile(entry.path) as plain:
        texts = [field.name for field in plain.schema_arrow if pa.types.is_string(field.type)]
    # A dictionary of few long texts can stand for any number of rows: it stays one.
    with _errors(entry), pyarrow.parquet.ParquetFile(entry.path, read_dictionary=texts) as file:
        batches, size, rows = [], 0, 0
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            size, rows = size + batch.nbytes, rows + batch.num_rows
            if rows > entry.max_rows or size > entry.max_mib << 20:
                raise workbook.FullError
            batches.append(batch)
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        data = pa.Table.from_batches(batches, batches[0].schema if batches else schema).select(columns)
    return Read(data, np.arange(data.num_rows, dtype=np.int64) + 1)


def _empty_rows(data: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows have nothing in any column [rows]: null, or text of white space alone."""
    empty = np.ones(data.num_rows, dtype=np.bool_)
    for column in data.columns:
        nothing = column.is_null()
        if pa.types.is_string(column.type):
            nothing = pyarrow.compute.or_kleene(
                nothing, pyarrow.compute.equal(pyarrow.compute.utf8_trim_whitespace(column), "")
            )
        empty &= np.asarray(nothing.fill_null(True).to_numpy(), dtype=np.bool_)
    return empty


def _stream(entry: TableEntry) -> "_Utf8":
    path = entry.path
    with path.open("rb") as file:
        start = file.read(8)
    packed = path.suffix == ".gz"
    if not packed or not start.startswith(b"\x1f\x8b"):
        for sign, what, advice in _SIGNS:
            if start.startswith(sign):
                raise CorruptError(f"{path} {what}", advice)
    return _Utf8(gzip.open(path) if packed else path.open("rb"), entry)


class _Utf8(io.RawIOBase):
    """A file's bytes as UTF-8, without blank lines at its begin (`blank` of them) and with a line end at its end.

    Bytes that are no text become DAMAGED, and `damaged` true. `count`: whether it is UTF-8, where an encoding of one
    byte a letter is declared. Raises workbook.FullError beyond the table's `max_mib`.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, entry: TableEntry) -> None:
        self._file, self._entry = file, entry
        self._decoder = codecs.getincrementaldecoder(entry.encoding)(errors="replace")
        self._left, self._begun, self._ended, self._read = bytearray(), False, False, 0
        self.blank, self.damaged, self._last = 0, False, ""
        self.count = Utf8Count() if entry.encoding in ONE_BYTE else None

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes; none at the end."""
        wanted = LINE if size < 0 else size
        while len(self._left) < wanted and not self._ended:
            self._read_more()
        chunk = bytes(self._left[:wanted])
        del self._left[:wanted]
        return chunk

    def _read_more(self) -> None:
        chunk = self._file.read(LINE)
        self._read += len(chunk)
        if self._read > self._entry.max_mib << 20:
            raise workbook.FullError
        if not self._begun and chunk[:2] in _UTF16 and not self._entry.encoding.startswith("utf-16"):
            where = f"{self._entry.path} is UTF-16, not {self._entry.encoding.upper()}"
            raise CorruptError(where, _recode(self._entry, "utf-16"))
        if not self._begun and chunk.startswith(codecs.BOM_UTF8) and self._entry.encoding != "utf-8":
            where = f"{self._entry.path} is UTF-8, not {self._entry.encoding.upper()}"
            raise CorruptError(where, _recode(self._entry, "utf-8"))
        if self.count is not None:
            self.count.feed(chunk)
        text = self._decoder.decode(chunk, final=not chunk)
        self.damaged = self.damaged or DAMAGED in text
        if not self._begun:
            bare = text.lstrip("\ufeff\r\n")
            self.blank += text[: len(text) - len(bare)].replace("\r\n", "\n").count("\n")
            text, self._begun = bare, bool(bare)
        self._left += text.encode()
        self._last = text[-1:] or self._last
        self._ended = not chunk
        if self._ended and self._last not in {"", "\n", "\r"}:
            self._left += b"\n"


@contextmanager
def _errors(entry: TableEntry) -> Iterator[None]:
    """Turn a failure on a file into an error that names the file, and never quotes it."""
    path = entry.path
    try:
        yield
    except workbook.FullError as error:
        what = f"{path} has more than {entry.max_rows} rows or {entry.max_mib} MiB unpacked"
        raise CorruptError(what, f"If that is meant, raise max_rows or max_mib in {_section(entry)}.") from error
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
        if "straddl" in str(error):  # Arrow's word for a line that does not fit into its blocks
            advice = f"At most {LINE} bytes fit. A quote that is not closed makes one line of all that follow."
            raise CorruptError(f"{path}: a line is too long", advice) from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is empty, damaged or cut off"
        raise CorruptError(
            f"{path} cannot be read: {reason}", "Export the file again, as CSV, CSV.gz or Parquet."
        ) from None


def _section(entry: TableEntry) -> str:
    return f"[tables.{entry.name}] of dataset.toml"


def _recode(entry: TableEntry, found: str = "") -> str:
    """Return what to do with a file in another encoding than the declared one: the one that was `found`, if any."""
    if entry.given:
        return f"Save it in {entry.encoding.upper()}, as {_section(entry)} declares, and leave dataset.toml as it is."
    if found == "utf-8":
        return f'Write encoding = "utf-8" in {_section(entry)}, or save it as declared.'
    if found:
        return f'Save it as CSV UTF-8, or write encoding = "{found}" in {_section(entry)}.'
    if entry.encoding == "utf-8":
        return f'Save it as CSV UTF-8, or write encoding = "windows-1252" in {_section(entry)} if it is.'
    return f"Save it as CSV UTF-8, or correct encoding in {_section(entry)}."


def is_utf8(entry: TableEntry) -> tuple[str, str]:
    """Return what is wrong with a file in UTF-8 that is declared otherwise, and what to do."""
    what = f"{entry.path} is UTF-8, not {entry.encoding.upper()}: letters with accents are read wrong"
    return what, _recode(entry, "utf-8")


def not_text(entry: TableEntry) -> tuple[str, str]:
    """Return what is wrong with a cell that is not in the declared encoding, and what to do."""
    return f" is not {entry.encoding.upper()}", _recode(entry)
