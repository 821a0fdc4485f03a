"""The dialect of a CSV file, recognised from its bytes: encoding, separator, decimal sign."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from ...crypto.errors import CorruptError
from .entries import TableEntry
from .files import LINE
from .utf8 import Utf8Count
from .workbook import SUFFIXES

HEAD = 4 << 20  # bytes from which separator and decimal sign are recognised
ROWS = 200  # rows whose cells are counted
SEPARATORS = (",", ";", "\t", "|")
_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")
_POINT = re.compile(r"\s*[+-]?\d*\.\d+\s*")
_LETTER = re.compile(rb"[\xc0-\xff]")
_CYRILLIC = re.compile(rb"[\xc0-\xff]{3,}")  # elsewhere no three letters with accents stand together
# Letters of Polish, Czech and their neighbours in windows-1250; in windows-1252 no letters, so never inside a word.
_CENTRAL = re.compile(rb"[A-Za-z][\xb3\xb9\xbe\xbf\x9d]|[\xa3\xa5\xaf\xbc][a-z]")


def recognise(name: str, path: Path, max_mib: int) -> TableEntry:
    """Return how a file is written, as the entry of a table without a key. Raises CorruptError if it cannot be read."""
    if path.suffix in {".parquet", *SUFFIXES}:
        return TableEntry(name, path, "")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            chunks = iter(lambda: file.read(LINE), b"")
            head, utf8 = _read(chunks, max_mib << 20)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or cut off"
        raise CorruptError(f"{path} cannot be read: {reason}", "Export the file again, as CSV.") from None
    encoding = _encoding(head, utf8)
    text = head.decode(encoding, errors="replace").lstrip("\ufeff\r\n")
    separator = max(SEPARATORS, key=lambda sign: _fit(text, sign))
    return TableEntry(name, path, "", separator=separator, decimal=_decimal(text, separator), encoding=encoding)


def _read(chunks: Iterable[bytes], most: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether all of it (to `most` bytes) is UTF-8."""
    decoder, head, utf8, size = codecs.getincrementaldecoder("utf-8")(), bytearray(), True, 0
    for chunk in chunks:
        size += len(chunk)
        if len(head) < HEAD:
            head += chunk
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError:
            utf8 = False
        if size > most or (not utf8 and len(head) >= HEAD):
            break
    return bytes(head), utf8


def _encoding(head: bytes, utf8: bool) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    count = Utf8Count()
    count.feed(head)
    if utf8 or head.startswith(codecs.BOM_UTF8) or count.is_utf8:  # the last: some cells are damaged
        return "utf-8"
    if 3 * sum(map(len, _CYRILLIC.findall(head))) > len(_LETTER.findall(head)):
        return "windows-1251"
    return "windows-1250" if _CENTRAL.search(head) else "windows-1252"


def _rows(text: str, separator: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if row:
                rows.append(row)
            if len(rows) > ROWS:
                break
    except csv.Error:
        return rows
    return rows


def _fit(text: str, separator: str) -> tuple[float, int]:
    """Return in how large a share of the rows this separator makes as many cells as in the first, and how many."""
    rows = _rows(text, separator)
    if not rows or len(rows[0]) < 2:
        return 0.0, 0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows), len(rows[0])


def _decimal(text: str, separator: str) -> str:
    cells = [cell for row in _rows(text, separator)[1:] for cell in row]
    commas, points = (sum(bool(form.fullmatch(cell)) for cell in cells) for form in (_COMMA, _POINT))
    return "," if commas > points else "."
