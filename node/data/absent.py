"""A file that a cell names and that is not there, though one that looks the same may be."""

import unicodedata
from functools import lru_cache
from pathlib import Path

from ...crypto.errors import CorruptError


def absent(path: Path) -> CorruptError:
    """Return the error of a file that is not there, without its name, which may be a student's.

    A name with accents can be written in two forms: one zip program keeps the one, another the other.
    """
    try:
        alike = _plain(path.name) in _names(path.parent, path.parent.stat().st_mtime_ns)
    except OSError:
        alike = False
    if alike:
        return CorruptError(
            "the file does not exist; there is one whose name differs only in case or in how its accents are written",
            "Rename that one as the cell has it, or correct the cell.",
        )
    return CorruptError("the file does not exist", "Put it there, correct the path, or empty the cell.")


@lru_cache(maxsize=4)  # one listing of a folder, however many of its files are missing
def _names(folder: Path, _changed_ns: int) -> frozenset[str]:
    return frozenset(_plain(path.name) for path in folder.iterdir())


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
