"""The importers' common part: options, reading the source, writing a data folder, distributing names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ....crypto.errors import CorruptError, UsageError
from ..manifest import MANIFEST

Row = dict[str, Any]
Made = list[tuple[str, Path]]  # institution's name, its data folder
Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True, slots=True)
class Options:
    """How to share out; `institutions` is 0 where the choice of `by` fixes it."""

    by: str = ""
    test: str = ""
    split: str = ""
    unit: str = ""
    institutions: int = 0


@dataclass(frozen=True, slots=True)
class Importer:
    """One source. `choices` are the values that an option may have, the default first; other options are refused.

    `run(source, out, options, progress)` writes a folder for each institution into `out`. `most` is the largest number
    of institutions, `least` the default; 0 if there is no choice.
    """

    summary: str
    run: Callable[[Path, Path, Options, Progress], Made]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    least: int = 0
    most: int = 0


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file: of each of `columns` its text, None where the cell is empty.

    Raises UsageError (no such file) or CorruptError (unreadable, or without one of the columns).
    """
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        with pyarrow.csv.open_csv(existing(path), parse_options=parse) as reader:
            names = reader.schema.names
        lacking = [name for name in columns if name not in names]
        if lacking:
            raise damaged(path, f"it has no column {', '.join(lacking)}")
        convert = pyarrow.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        )
        rows: list[Row] = pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, "it is damaged, or no CSV in UTF-8") from error
    return rows


def whole(value: object, where: str) -> int | None:
    """Return a cell's whole number, None where it is empty or "?". Raises CorruptError, naming `where`."""
    number = decimal(value, where)
    return None if number is None else int(number)


def decimal(value: object, where: str) -> float | None:
    """Return a cell's number, None where it is empty or "?". Raises CorruptError, naming `where`."""
    if value in (None, "", "?"):
        return None
    try:
        return float(str(value))
    except ValueError as error:
        raise CorruptError(f"{where} holds something that is no number", "Fetch the source again.") from error


def one_of(folder: Path, *names: str) -> Path:
    """Return the first of these files that the folder has. Raises UsageError, naming all, if it has none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    advice = "Name the folder that holds the source's files as they were published: docs/data.md lists them."
    raise UsageError(f"{folder}: {' or '.join(names)} does not exist", advice)


def existing(path: Path) -> Path:
    """Return a path. Raises UsageError if there is no such file."""
    return one_of(path.parent, path.name)


def damaged(path: Path, error: object) -> CorruptError:
    """Return the error for a source that cannot be read."""
    return CorruptError(f"{path} cannot be read: {error}", "Fetch the source again.")


def write_institution(folder: Path, tables: Mapping[str, Iterable[Row] | pa.Table], manifest: str) -> None:
    """Write one data folder: a Parquet file for each table, and dataset.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")


def per_record(manifest: str, subject: str) -> str:
    """Return a manifest in which every record is its own subject; a held-out subject stays held out whole."""
    comment = "# Imported with --unit record: privacy, if any is asked for, is that of a single record.\n"
    return comment + manifest.replace(f'subject = "{subject}"', 'kind = "record"')


def deal(names: Iterable[str], institutions: int) -> dict[str, int]:
    """Return the institution of each name: ordered by SHA-256, dealt out in turn, so sizes differ by one at most."""
    ordered = sorted(set(names), key=lambda name: sha256(name.encode()).digest())
    return {name: index % institutions for index, name in enumerate(ordered)}


def listed(names: Iterable[str]) -> str:
    """Return names as a TOML list."""
    return "[" + ", ".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names) + "]"
