"""The tables of a folder that has no `dataset.toml` yet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...crypto.errors import OperatorError, UsageError
from ..words import counted
from .dataset_toml import name_of
from .dialect import recognise
from .look import Look, look
from .workbook import SAVE, SUFFIXES, others

MAX_MIB, MAX_TABLES = 1024, 50
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", *SUFFIXES)
WORKBOOKS = (".xls", ".ods")


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The tables that can be read, and by file's name why others are not."""

    looks: tuple[Look, ...]
    left: dict[str, str]


def survey(folder: Path, step: Callable[[str, int, int], None]) -> Survey:
    """Read every table of a folder, not of folders in it. Raises UsageError or CorruptError if none can be read."""
    if not folder.is_dir():
        what = f"{folder} is a file" if folder.exists() else f"{folder}: there is no such folder"
        raise UsageError(what, "Give the folder that holds your tables.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "~$")))
    tables = [path for path in files if path.name.lower().endswith(TABLES)]
    left = {path.name: f"a workbook: {SAVE}" for path in files if path.name.lower().endswith(WORKBOOKS)}
    if not tables:
        if left:
            raise UsageError(f"{folder} holds no table but {', '.join(left)}", f"{SAVE[0].upper()}{SAVE[1:]}.")
        advice = "Put your tables there, as CSV (how a spreadsheet saves it) or Parquet."
        raise UsageError(f"{folder} holds no table", advice)
    if len(tables) > MAX_TABLES:
        raise UsageError(f"{folder} holds {len(tables)} tables", f"At most {MAX_TABLES} are read: put those together.")
    looks: list[Look] = []
    first: OperatorError | None = None
    for number, path in enumerate(tables):
        step("reading tables", number, len(tables))
        try:
            name = name_of(path.name.split(".")[0], [other.entry.name for other in looks], "table")
            seen = look(folder, recognise(name, path, MAX_MIB))
        except OperatorError as error:
            first, left[path.name] = first or error, f"{error.message}. {error.advice}"
            continue
        if seen.table.rows:
            looks.append(seen)
            if path.suffix in SUFFIXES and (more := others(path)):
                left[f"{counted(more, 'more sheet')} of {path.name}"] = f"the first sheet alone is read: {SAVE}"
        else:
            left[path.name] = "it has no rows below the line of column names"
    step("reading tables", len(tables), len(tables))
    if not looks:
        if first is not None:
            raise first
        raise UsageError(f"{folder}: no table has rows", "Below the line of column names, each record needs a row.")
    return Survey(tuple(looks), left)
