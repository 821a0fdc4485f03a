"""`dataset.toml`: what is in an institution's data folder (DESIGN.md section 10).

```toml
format = 1
[unit]                      # whom privacy protects
subject = "id_student"      # a column of the unit table; or: kind = "record" (every record is its own subject)
table = "students"          # lists every record once; may be left out if there is one table
max_records = 4             # a subject's records beyond these are not read
[tables.students]
path = "students.parquet"   # CSV, CSV.gz or Parquet, relative to the folder
key = "record"              # the column that names a record, in every table
[[modality]]
name = "demographics"
kind = "tabular"            # tabular, series (with time, until, max_len) or image
table = "students"
columns = [{ name = "age", low = 0, high = 100, missing = true }, { name = "region", levels = ["North", "South"] }]
[[modality]]
name = "image"
kind = "image"
table = "images"
prefix = "pixel"            # every column pixel0, pixel1, ... ; or columns = ["a", "b"]
low = 0
high = 16
[[task]]
name = "pass"
kind = "binary"             # with positive = ["Pass"]; or "multiclass" with classes = [...]
table = "students"          # may be left out: the unit table
column = "final_result"
[split]
share = 0.25                # and salt; or: column = "split" with the values train and test
salt = "2026"
```

Bounds and levels are declared, never fitted: a fitted scaler would leak outside the accountant (DESIGN.md section 6).
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...crypto.errors import CorruptError, UsageError

MANIFEST = "dataset.toml"
FORMAT = 1
MODALITY_KINDS = ("tabular", "series", "image")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """A number clamped to [low, high] and scaled to [-1, 1]; `missing` adds a feature that is 1 where there is none."""

    name: str
    low: float
    high: float
    missing: bool

    @property
    def width(self) -> int:
        """The number of features."""
        return 2 if self.missing else 1


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """A level as one-hot, one more feature for any other level; all zeros where there is none."""

    name: str
    levels: tuple[str, ...]

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.levels) + 1


Column = NumericColumn | CategoricalColumn


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One file and the column that names its records."""

    name: str
    path: Path
    key: str


@dataclass(frozen=True, slots=True)
class ModalityEntry:
    """One modality. Series keep the last `max_len` rows whose `time` is at most `until`; `prefix` is for images."""

    name: str
    kind: str
    table: str
    columns: tuple[Column, ...]
    prefix: str
    low: float
    high: float
    time: str
    until: float
    max_len: int


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task: `classes` in order for "multiclass"; for "binary" the values that count as 1 are in `positive`."""

    name: str
    kind: str
    table: str
    column: str
    classes: tuple[str, ...]
    positive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked `dataset.toml`. `subject` is "" where every record is its own subject."""

    folder: Path
    subject: str
    unit_table: str
    max_records: int
    tables: dict[str, TableEntry]
    modalities: tuple[ModalityEntry, ...]
    tasks: tuple[TaskEntry, ...]
    split_column: str
    split_share: float
    split_salt: str


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/dataset.toml`.

    Raises UsageError (missing, or says something wrong: which key and what to write) or CorruptError (not TOML).
    """
    path = folder / MANIFEST
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", f"Put a {MANIFEST} into the data folder.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{path} is not TOML: {error}", "Mend the line named here.") from error
    return _manifest(_Section(raw, str(path)), folder)


class _Section:
    """One table of the file: typed access with errors that name it, and no key left over."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise UsageError(f"{where}: a table belongs here, not {type(raw).__name__}")
        self.raw = dict(raw)
        self.where = where

    def fail(self, what: str, advice: str = "") -> UsageError:
        return UsageError(f"{self.where}: {what}", advice)

    def take(self, key: str, kinds: tuple[type, ...], default: Any = None) -> Any:
        value = self.raw.pop(key, default)
        if value is None:
            raise self.fail(f"{key} is missing")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.fail(f"{key} = {value!r} is of the wrong type", f"Write a {kinds[0].__name__}.")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return str(self.take(key, (str,), default))

    def number(self, key: str, default: float | None = None) -> float:
        return float(self.take(key, (int, float), default))

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        value = int(self.take(key, (int,), default))
        if not low <= value <= high:
            raise self.fail(f"{key} = {value} is not between {low} and {high}")
        return value

    def sections(self, key: str) -> list["_Section"]:
        items = self.take(key, (list,), [])
        named = [item.get("name", number) if isinstance(item, dict) else number for number, item in enumerate(items, 1)]
        return [_Section(item, f"{self.where} [[{key}]] {name}") for item, name in zip(items, named, strict=True)]

    def texts(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        items = self.take(key, (list,), default)
        if not all(type(item) in (str, int) for item in items):
            raise self.fail(f"{key} holds something that is neither text nor a whole number")
        if len({str(item) for item in items}) != len(items):
            raise self.fail(f"{key} names something twice")
        return tuple(str(item) for item in items)

    def done(self) -> None:
        if self.raw:
            raise self.fail(f"unknown key {sorted(self.raw)[0]!r}", "Remove it, or look for a spelling mistake.")


def _manifest(top: _Section, folder: Path) -> Manifest:
    if top.whole("format", FORMAT, 1, 2**31) != FORMAT:
        raise top.fail("this format is not known", f"Write format = {FORMAT}, or use a newer Collegium.")
    tables = {}
    for name, raw in top.take("tables", (dict,)).items():
        section = _Section(raw, f"{top.where} [tables.{name}]")
        tables[name] = TableEntry(name, folder / section.text("path"), section.text("key"))
        section.done()
    if not tables:
        raise top.fail("no [tables.NAME]", "Name at least one table.")
    unit = _Section(top.take("unit", (dict,)), f"{top.where} [unit]")
    kind = unit.text("kind", "subject")
    if kind not in {"subject", "record"}:
        raise unit.fail(f'kind = "{kind}" is unknown', 'Write kind = "record", or subject = a column.')
    subject = unit.text("subject") if kind == "subject" else ""
    unit_table = _known(unit, "table", tables, next(iter(tables)) if len(tables) == 1 else None)
    max_records = unit.whole("max_records", 16, 1, 2**16)
    unit.done()
    split = _Section(top.take("split", (dict,)), f"{top.where} [split]")
    column, share, salt = split.text("column", ""), 0.0, ""
    if not column:
        share, salt = split.number("share"), split.text("salt")
        if not 0.0 <= share < 1.0:
            raise split.fail(f"share = {share} is not in [0, 1)")
    split.done()
    modalities = tuple(_modality(section, tables, unit_table) for section in top.sections("modality"))
    tasks = tuple(_task(section, tables, unit_table) for section in top.sections("task"))
    top.done()
    if not modalities or not tasks:
        raise top.fail("at least one [[modality]] and one [[task]] are needed")
    _once(top, "modality", modalities, lambda entry: entry.name)
    _once(top, "task", tasks, lambda entry: entry.name)
    return Manifest(folder, subject, unit_table, max_records, tables, modalities, tasks, column, share, salt)


def _once(top: _Section, what: str, entries: tuple[T, ...], name: Callable[[T], str]) -> None:
    names = [name(entry) for entry in entries]
    for repeated in {item for item in names if names.count(item) > 1}:
        raise top.fail(f"{what} {repeated!r} is there twice", "Give each its own name.")


def _known(section: _Section, key: str, tables: dict[str, TableEntry], default: str | None) -> str:
    name = section.text(key, default)
    if name not in tables:
        raise section.fail(f"table {name!r} is unknown", f"The tables are {', '.join(tables)}.")
    return name


def _bounds(section: _Section) -> tuple[float, float]:
    low, high = section.number("low"), section.number("high")
    if not -1e300 < low < high < 1e300:
        raise section.fail(f"low = {low} and high = {high} are no bounds", "Write finite numbers, low below high.")
    return low, high


def _modality(section: _Section, tables: dict[str, TableEntry], unit_table: str) -> ModalityEntry:
    name, kind = section.text("name"), section.text("kind")
    if kind not in MODALITY_KINDS:
        raise section.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join(MODALITY_KINDS)}.")
    table = _known(section, "table", tables, unit_table)
    prefix, low, high = "", 0.0, 0.0
    columns: tuple[Column, ...]
    if kind == "image":
        low, high = _bounds(section)
        prefix = section.text("prefix", "")
        columns = tuple(NumericColumn(column, low, high, missing=False) for column in section.texts("columns", []))
        if bool(prefix) == bool(columns):
            raise section.fail("an image needs either prefix or columns")
    else:
        columns = tuple(_column(item, tables[table]) for item in section.sections("columns"))
        if not columns:
            raise section.fail("columns is missing or empty", "List columns with bounds or levels.")
        _once(section, "column", columns, lambda column: column.name)
    time, until, max_len = "", 0.0, 1
    if kind == "series":
        time, until = section.text("time"), section.number("until", float("inf"))
        max_len = section.whole("max_len", None, 1, 2**16)
    section.done()
    return ModalityEntry(name, kind, table, columns, prefix, low, high, time, until, max_len)


def _column(section: _Section, table: TableEntry) -> Column:
    name = section.text("name")
    if name == table.key:
        raise section.fail("the key of a table is no feature", "An identifier would be memorised: remove it.")
    if "levels" in section.raw:
        levels = section.texts("levels")
        section.done()
        return CategoricalColumn(name, levels)
    if not {"low", "high"} <= set(section.raw):
        raise section.fail("no bounds and no levels", "Write low and high (known beforehand, not fitted), or levels.")
    low, high = _bounds(section)
    missing = bool(section.take("missing", (bool,), False))
    section.done()
    return NumericColumn(name, low, high, missing)


def _task(section: _Section, tables: dict[str, TableEntry], unit_table: str) -> TaskEntry:
    name, kind = section.text("name"), section.text("kind")
    table, column = _known(section, "table", tables, unit_table), section.text("column")
    classes: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    if kind == "binary":
        if isinstance(section.raw.get("positive"), str | int):
            section.raw["positive"] = [section.raw["positive"]]
        positive = section.texts("positive")
    elif kind == "multiclass":
        classes = section.texts("classes")
    else:
        raise section.fail(f"kind = {kind!r} is unknown", "Write binary or multiclass.")
    if not positive and len(classes) < 2:
        raise section.fail("too few values", "Binary needs positive, multiclass at least two classes.")
    section.done()
    return TaskEntry(name, kind, table, column, classes, positive)
