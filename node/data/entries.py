"""The declarations of `dataset.toml`, as values: columns, tables, modalities, tasks and the manifest of all of them."""

from dataclasses import dataclass
from pathlib import Path

from .audio import AudioSpec


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """A number clamped to [low, high] and scaled to [-1, 1]; `missing` adds a feature that is 1 where there is none.

    `immutable`: a trait that no explanation suggests to change, as of every column.
    """

    name: str
    low: float
    high: float
    missing: bool
    immutable: bool = False

    @property
    def width(self) -> int:
        """The number of features."""
        return 2 if self.missing else 1


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """A level as one-hot, one more feature for any other level; all zeros where there is none."""

    name: str
    levels: tuple[str, ...]
    immutable: bool = False

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.levels) + 1


Column = NumericColumn | CategoricalColumn


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows to keep: those whose `column` holds one of `values` or, if there are none, a number in [low, high]."""

    column: str
    values: tuple[str, ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One file, the column that names its records, which of its rows are read, and how it is written.

    `missing_values` are cells that count as empty, beside the usual words. `max_rows` and `max_mib` (unpacked) bound
    what is read. `given`: a file for `predict`, beside the declared one, which stays as dataset.toml says.
    """

    name: str
    path: Path
    key: str
    keep: tuple[Filter, ...] = ()
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    missing_values: frozenset[str] = frozenset()
    max_rows: int = 10_000_000
    max_mib: int = 1024
    given: bool = False


@dataclass(frozen=True, slots=True)
class ModalityEntry:
    """One modality; what its kind has no use for is "", 0 or empty.

    `columns` are those of tabular, series and image; `prefix` names an image's instead. `segments` are the columns of a
    text, `file` the column with the paths of images (made `size` × `size`) or of clips (`audio`). Series keep the last
    `max_len` rows whose `time` is at most `until` or, with `resample`, as many evenly spaced ones. With `slots` a row
    has the place of its word in the column `slot`, whatever rows there are beside it. Where a text has an
    `order`, a record may have several rows: the last `texts` are read, each on its own or, with a `separator`, as one.
    `sensitivity` is one of SENSITIVITIES (protocol/learning.py), or "".
    """

    name: str
    kind: str
    table: str
    columns: tuple[Column, ...] = ()
    segments: tuple[str, ...] = ()
    prefix: str = ""
    file: str = ""
    low: float = 0.0
    high: float = 0.0
    size: int = 0
    invert: bool = False
    audio: AudioSpec | None = None
    time: str = ""
    until: float = 0.0
    max_len: int = 1
    resample: bool = False
    slot: str = ""
    slots: tuple[str, ...] = ()
    order: str = ""
    texts: int = 1
    separator: str = ""
    sensitivity: str = ""


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task; `low` and `high` bound a "regression".

    `tokens` are those that a "generate" writes at most, with the sign of the end.
    `positive` are the values that count as 1 in "binary". `negative` are those that count as 0: all others if there
    are none here.
    """

    name: str
    kind: str
    table: str
    column: str
    classes: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    separator: str = ""
    none: str = ""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ConsentColumns:
    """The columns of the unit table that say who consents: words that mean yes, and the last day ("": no end)."""

    column: str
    yes: tuple[str, ...]
    until: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return (self.column, self.until) if self.until else (self.column,)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked `dataset.toml`. `subject` is "" where every record is its own subject.

    The split is by `split_column`, whose cells are of `split_train` or `split_test`, or by share and salt.
    """

    folder: Path
    subject: str
    unit_table: str
    max_records: int
    tables: dict[str, TableEntry]
    modalities: tuple[ModalityEntry, ...]
    tasks: tuple[TaskEntry, ...]
    groups_table: str
    groups: tuple[CategoricalColumn, ...]
    split_column: str
    split_share: float
    split_salt: str
    split_train: tuple[str, ...] = ()
    split_test: tuple[str, ...] = ()
    consent: ConsentColumns | None = None
