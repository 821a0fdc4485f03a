"""The first sheet of an Excel workbook (.xlsx) as text, cell by cell, as its CSV would have it.

It needs openpyxl, the extra `xlsx`. Formulas are read as the values that the spreadsheet saved with them.
"""

import datetime as dt
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ...crypto.errors import CorruptError, UsageError
from ...crypto.extras import extra

SAVE = "save the sheet as CSV UTF-8 in the spreadsheet (File, Save as)"
SUFFIXES = (".xlsx", ".xlsm")
Rows = list[tuple[int, list[str | None]]]  # the number of a row, as the spreadsheet shows it, and its cells


class FullError(Exception):
    """A sheet has more rows, or unfolds to more bytes, than it may."""


def names(path: Path, most: int) -> list[str]:
    """Return the first row of the first sheet that is not empty. Raises UsageError, CorruptError, FullError."""
    with _sheet(path, most) as rows:
        for _, cells in rows:
            return [cell or "" for cell in cells]
    raise CorruptError(f"{path}: its first sheet is empty", "Put the table on the first sheet.")


def read(path: Path, max_rows: int, most: int, decimal: str) -> tuple[list[str], Rows]:
    """Return the names of the columns and the rows below, each as wide as the names; numbers with this decimal sign.

    Raises UsageError (no openpyxl), CorruptError, and FullError beyond `max_rows` or `most` bytes unpacked.
    """
    with _sheet(path, most, decimal) as rows:
        _, first = next(rows, (0, []))
        width = len(first)
        lines = [(line, [*cells[:width], *[None] * (width - len(cells))]) for line, cells in islice(rows, max_rows + 1)]
    if len(lines) > max_rows:
        raise FullError
    while lines and not any(lines[-1][1]):  # a sheet may be formatted far below its last row
        lines.pop()
    return [cell or "" for cell in first], lines


def others(path: Path) -> int:
    """Return how many sheets a workbook has that are not read, for one whose first sheet could be read."""
    with zipfile.ZipFile(path) as archive:
        return max(0, sum(member.startswith("xl/worksheets/sheet") for member in archive.namelist()) - 1)


@contextmanager
def _sheet(path: Path, most: int, decimal: str = ".") -> Iterator[Iterator[tuple[int, list[str | None]]]]:
    """Yield the rows of the first sheet, from the first on that is not empty; cells right of all others left away."""
    try:
        with extra("xlsx"):
            import openpyxl  # noqa: PLC0415  # only needed for workbooks
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", f"{error.advice}. Or {SAVE}.") from error
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > most:
                raise FullError
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            yield _rows(book.worksheets[0], decimal)
        finally:
            book.close()
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, TypeError, AttributeError, ParseError) as error:
        raise CorruptError(f"{path} cannot be read: it is no workbook, or damaged", f"Or {SAVE}.") from error


def _rows(sheet: Any, decimal: str) -> Iterator[tuple[int, list[str | None]]]:
    width = 0
    for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_text(cell, decimal) for cell in row]
        if not width:
            while cells and cells[-1] is None:
                cells.pop()
            width = len(cells)
        if width:
            yield line, cells


def _text(value: object, decimal: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).replace(".", decimal)
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return str(value)
