"""`dataset.toml`: the description of an institution's data folder (design.md section 10). docs/data.md has every key.

Bounds and levels are declared, never fitted: a fitted scaler would leak outside the accountant (design.md section 6).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.learning import SENSITIVITIES
from ...protocol.names import shown, visible
from .. import toml
from ..toml import Table
from .audio import AudioSpec
from .entries import (
    CategoricalColumn,
    Column,
    ConsentColumns,
    Filter,
    Manifest,
    ModalityEntry,
    NumericColumn,
    TableEntry,
    TaskEntry,
)
from .paths import inside
from .spelling import MISSING, alike, clean, whole

MANIFEST = "dataset.toml"
GUIDE = "docs/data.md"
FORMAT = 1
MODALITY_KINDS = ("tabular", "series", "text", "image", "audio")
TASK_KINDS = ("binary", "multiclass", "ordinal", "regression", "multilabel", "generate")
PIXELS = (0.0, 255.0)
MAX_TEXTS = 64  # passages of one record: as many as a charter allows
ENCODINGS = ("utf-8", "utf-16", "windows-1252", "iso-8859-1", "iso-8859-15", "windows-1250", "windows-1251")
# Allowed keys of each table of the file, of any kind.
TOP_KEYS = ("format", "unit", "tables", "modality", "task", "sensitive", "split")
MODALITY_KEYS = (
    "name", "kind", "table", "columns", "time", "until", "max_len", "resample", "prefix", "low", "high", "file", "size",
    "invert", "rate", "max_seconds", "bands", "frames", "normalise", "order", "texts", "separator", "sensitivity",
    "slot", "slots",
)  # fmt: skip
TASK_KEYS = (
    "name", "kind", "table", "column", "positive", "negative", "classes", "low", "high", "separator", "none",
    "max_tokens",
)  # fmt: skip
MAX_TOKENS = 2048  # that a task writes, at most


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/dataset.toml`.

    Raises UsageError: the folder or the file is missing, is not TOML, or says something wrong (which key and what to
    write).
    """
    if not folder.exists():
        raise UsageError(f"{folder}: there is no such folder", "Check the path.")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", f"Give the folder that holds {MANIFEST} and the tables.")
    path = inside(folder, MANIFEST, str(folder))
    return _manifest(toml.read(path, f"Put a {MANIFEST} into the data folder.", GUIDE), folder)


def parse_manifest(text: str, folder: Path) -> Manifest:
    """Check the text of a dataset.toml of this folder, as `read_manifest` does the file. Raises UsageError."""
    return _manifest(toml.parse(text, MANIFEST, GUIDE), folder)


def _manifest(top: Table, folder: Path) -> Manifest:
    if top.whole("format", FORMAT, 1, 2**31) != FORMAT:
        raise top.fail("this format is not known", f"Write format = {FORMAT}, or use a newer Collegium.")
    top.only(*TOP_KEYS)
    tables = {name: _table(table, name, folder) for name, table in top.named("tables").items()}
    if not tables:
        raise top.fail("no [tables.NAME]", "Name at least one table.")
    unit = top.table("unit")
    kind = unit.text("kind", "subject")
    if kind not in {"subject", "record"}:
        raise unit.fail(f'kind = "{kind}" is unknown', 'Write kind = "record", or subject = a column.')
    subject = _name(unit, "subject") if kind == "subject" else ""
    unit_table = _known_table(unit, "table", tables, next(iter(tables)) if len(tables) == 1 else None)
    max_records = unit.whole("max_records", 16, 1, 2**16)
    consent = _consent(unit)
    unit.done()
    split = top.table("split")
    split.only("share", "salt", "column", "train", "test")
    column, share, salt = _name(split, "column", ""), 0.0, ""
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    if not column:
        share, salt = split.number("share"), split.text("salt")
        if not 0.0 <= share < 1.0:
            raise split.fail(f"share = {share} is not in [0, 1)")
    else:
        train, test = _words(split, "train", ["train"]), _words(split, "test", ["test"])
        if not train or not test:
            raise split.fail("train and test must be words of their own", 'Write train = ["..."] and test = ["..."].')
        _refuse_alike(split, {"train": train, "test": test})
    split.done()
    tasks = tuple(_task(section, tables, unit_table) for section in top.tables("task"))
    hidden = {(task.table, task.column): f"the label of {task.name!r}" for task in tasks}
    hidden |= {(name, table.key): "the key of its table" for name, table in tables.items()}
    hidden |= {(unit_table, subject): "the subject"} if subject else {}
    hidden |= {(unit_table, column): "a consent" for column in (consent.columns if consent else ())}
    modalities = tuple(_modality(section, tables, unit_table, hidden) for section in top.tables("modality"))
    groups_table, groups = _sensitive(top, tables, unit_table)
    top.done()
    if not modalities or not tasks:
        raise top.fail("at least one [[modality]] and one [[task]] are needed")
    _refuse_repeated(top, "modality", (entry.name for entry in modalities), alike)
    _refuse_repeated(top, "task", (entry.name for entry in tasks), alike)
    return Manifest(
        folder, subject, unit_table, max_records, tables, modalities, tasks, groups_table, groups, column, share, salt,
        train, test, consent,
    )  # fmt: skip


def _refuse_repeated(top: Table, what: str, entries: Iterable[str], form: Callable[[str], str] = str) -> None:
    """Refuse two entries of one name, as `form` compares names."""
    names: dict[str, str] = {}
    for name in entries:
        first = names.get(form(name))
        if first is not None:
            other = "" if first == name else f" (also as {first!r})"
            raise top.fail(f"{what} {name!r} is there twice{other}", "Give each its own name.")
        names[form(name)] = name


def _own_name(section: Table) -> str:
    name = section.text("name")
    if not visible(name):
        raise section.fail(f"name = '{shown(name)}' has characters that cannot be seen", "Write it without them.")
    return name


def _table(section: Table, name: str, folder: Path) -> TableEntry:
    path, key = inside(folder, section.text("path"), section.where), _name(section, "key")
    keep = tuple(_filter(item) for item in section.tables("keep", "column"))
    separator, decimal = section.text("separator", ","), section.text("decimal", ".")
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise section.fail(f"separator = {separator!r} is not one character", 'Write ",", ";" or "\\t".')
    if decimal not in {".", ","}:
        raise section.fail(f"decimal = {decimal!r} is unknown", 'Write "." or ",".')
    encoding = section.text("encoding", "utf-8").lower()
    if encoding not in ENCODINGS:
        raise section.fail(f"encoding = {encoding!r} is unknown", f"Write one of {', '.join(ENCODINGS)}.")
    missing = frozenset(_names(section, "missing_values", []))
    rows, mib = section.whole("max_rows", 10_000_000, 1, 10**9), section.whole("max_mib", 1024, 1, 2**20)
    section.done()
    return TableEntry(name, path, key, keep, separator, decimal, encoding, missing, rows, mib)


def _consent(unit: Table) -> ConsentColumns | None:
    """Return who consents by which columns of the unit table; None where dataset.toml does not say."""
    column, until = _name(unit, "consent", ""), _name(unit, "consent_until", "")
    yes = _words(unit, "consent_yes", [])
    if not column:
        if until or yes:
            what = "consent_yes and consent_until go with consent, the column that says yes or no"
            raise unit.fail(what, "Name the column: consent = ...")
        return None
    if not yes:
        raise unit.fail("consent without consent_yes", 'Name the words of the column that mean yes: ["yes"].')
    if until == column:
        raise unit.fail(f"consent and consent_until are both {column!r}", "Name two columns.")
    return ConsentColumns(column, yes, until)


def _filter(section: Table) -> Filter:
    section.only("column", "values", "low", "high")
    column, values = _name(section, "column"), _names(section, "values", [])
    if bool(values) == bool({"low", "high"} & set(section.raw)):
        raise section.fail("a filter needs either values or bounds", "Write values = [...], or low and high.")
    low, high = (0.0, 0.0) if values else _bounds(section)
    section.done()
    return Filter(column, values, low, high)


def _known_table(section: Table, key: str, tables: dict[str, TableEntry], default: str | None) -> str:
    name = section.text(key, default)
    if name not in tables:
        raise section.fail(f"table {name!r} is unknown", f"The tables are {', '.join(tables)}.")
    return name


def _modality(
    section: Table, tables: dict[str, TableEntry], unit_table: str, hidden: dict[tuple[str, str], str]
) -> ModalityEntry:
    section.only(*MODALITY_KEYS)
    name, kind = _own_name(section), section.text("kind")
    if kind not in MODALITY_KINDS:
        raise section.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join(MODALITY_KINDS)}.")
    table = _known_table(section, "table", tables, unit_table)
    sensitivity = section.take("sensitivity", toml.one_of(*SENSITIVITIES), "")
    entry = replace(_READERS[kind](section, name, table), sensitivity=sensitivity)
    if entry.order and table == unit_table:
        what = "order is for texts of another table than the unit table, which has one row a record"
        raise section.fail(what, "Name that table, or remove order and texts.")
    used = [*(column.name for column in entry.columns), *entry.segments, entry.file]
    _refuse_repeated(section, "column", used)
    for column in used:
        if (table, column) in hidden:
            what = hidden[table, column]
            raise section.fail(f"column {column!r} is no feature: it is {what}", "Remove it from the columns.")
    section.done()
    return entry


def _tabular(section: Table, name: str, table: str) -> ModalityEntry:
    return ModalityEntry(name, "tabular", table, _columns(section))


def _series(section: Table, name: str, table: str) -> ModalityEntry:
    time, until = _name(section, "time"), section.number("until", float("inf"))
    slot, slots = _name(section, "slot", ""), _words(section, "slots", [])
    if bool(slot) != bool(slots):
        raise section.fail("slot and slots go together", "Name the column, and the words in it that have a place.")
    for key in [key for key in ("max_len", "resample") if slot and key in section.raw]:
        raise section.fail(f"{key} with slots, which say how many steps there are", f"Remove {key}.")
    max_len, resample = section.whole("max_len", len(slots) or None, 1, 2**16), section.flag("resample")
    return ModalityEntry(
        name,
        "series",
        table,
        _columns(section),
        time=time,
        until=until,
        max_len=max_len,
        resample=resample,
        slot=slot,
        slots=slots,
    )


def _text(section: Table, name: str, table: str) -> ModalityEntry:
    segments = _names(section, "columns")
    if not segments:
        raise section.fail("columns is empty", "Name the columns that hold text.")
    order, separator = _name(section, "order", ""), section.text("separator", "")
    if not order:
        if separator or "texts" in section.raw:
            what = "texts and separator are for several texts of a record, and these need an order"
            raise section.fail(what, 'Write order = "the column by which they are sorted", a number or a date.')
        return ModalityEntry(name, "text", table, segments=segments, max_len=len(segments))
    texts = section.whole("texts", None, 1, MAX_TEXTS)
    length = len(segments) * (1 if separator else texts)
    if length > MAX_TEXTS:
        what = f"texts = {texts} of {len(segments)} columns: a record would have {length} passages"
        raise section.fail(what, f"At most {MAX_TEXTS} are read: lower texts, or join them by a separator.")
    return ModalityEntry(
        name, "text", table, segments=segments, max_len=length, order=order, texts=texts, separator=separator
    )


def _image(section: Table, name: str, table: str) -> ModalityEntry:
    file, prefix, names = _name(section, "file", ""), section.text("prefix", ""), _names(section, "columns", [])
    if [bool(file), bool(prefix), bool(names)].count(True) != 1:
        raise section.fail("an image needs either prefix or columns or file")
    if file:
        low, high = _bounds(section, *PIXELS)
        size, invert = section.whole("size", None, 1, 1024), section.flag("invert")
        return ModalityEntry(name, "image", table, file=file, low=low, high=high, size=size, invert=invert)
    low, high = _bounds(section)
    columns = tuple(NumericColumn(column, low, high, missing=False) for column in names)
    return ModalityEntry(name, "image", table, columns, prefix=prefix, low=low, high=high)


def _audio(section: Table, name: str, table: str) -> ModalityEntry:
    file, rate = _name(section, "file"), section.whole("rate", None, 1000, 384_000)
    seconds = section.number("max_seconds")
    if not 0.0 < seconds <= 3600.0:
        raise section.fail(f"max_seconds = {seconds} is not in (0, 3600]")
    bands, frames = section.whole("bands", 32, 1, 512), section.whole("frames", 32, 1, 2**16)
    if rate * seconds < frames:
        raise section.fail(f"{frames} frames in {seconds} s: less than a sample each", "Lower frames.")
    normalise = section.flag("normalise", True)
    spec = AudioSpec(rate, seconds, bands, frames, normalise)
    return ModalityEntry(name, "audio", table, file=file, audio=spec, max_len=frames)


_READERS: dict[str, Callable[[Table, str, str], ModalityEntry]] = {
    "tabular": _tabular, "series": _series, "text": _text, "image": _image, "audio": _audio,
}  # fmt: skip


def _columns(section: Table) -> tuple[Column, ...]:
    columns = tuple(_column(item) for item in section.tables("columns"))
    if not columns:
        raise section.fail("columns is missing or empty", "List columns with bounds or levels.")
    return columns


def _column(section: Table) -> Column:
    section.only("name", "low", "high", "missing", "levels", "immutable")
    name, immutable = _name(section, "name"), section.flag("immutable")
    if "levels" in section.raw:
        levels = _levels(section)
        section.done()
        return CategoricalColumn(name, levels, immutable)
    if not {"low", "high"} <= set(section.raw):
        raise section.fail("no bounds and no levels", "Write low and high (known beforehand, not fitted), or levels.")
    low, high = _bounds(section)
    missing = section.flag("missing")
    section.done()
    return NumericColumn(name, low, high, missing, immutable)


def _task(section: Table, tables: dict[str, TableEntry], unit_table: str) -> TaskEntry:
    section.only(*TASK_KEYS)
    name, kind = _own_name(section), section.text("kind")
    table, column = _known_table(section, "table", tables, unit_table), _name(section, "column")
    entry = TaskEntry(name, kind, table, column)
    if kind == "binary":
        for key in ("positive", "negative"):
            if isinstance(section.raw.get(key), str | int):
                section.raw[key] = [section.raw[key]]
        positive, negative = _words(section, "positive"), _words(section, "negative", [])
        _refuse_alike(section, {"positive": positive, "negative": negative})
        entry = TaskEntry(name, kind, table, column, positive=positive, negative=negative)
        _refuse_few(section, "positive", entry.positive, 1)
    elif kind in {"multiclass", "ordinal"}:
        entry = TaskEntry(name, kind, table, column, _words(section, "classes"))
        _refuse_few(section, "classes", entry.classes, 2)
    elif kind == "regression":
        low, high = _bounds(section)
        entry = TaskEntry(name, kind, table, column, low=low, high=high)
    elif kind == "multilabel":
        classes = _words(section, "classes")
        separator, none = section.text("separator", ";"), _name(section, "none", "none")
        _refuse_few(section, "classes", classes, 1)
        if (
            not separator.strip()
            or not none
            or any(separator in item or alike(item) == alike(none) for item in classes)
        ):
            raise section.fail("separator and none must not be empty or occur in classes", "Choose other ones.")
        entry = TaskEntry(name, kind, table, column, classes, separator=separator, none=none)
    elif kind == "generate":
        entry = TaskEntry(name, kind, table, column, tokens=section.whole("max_tokens", None, 2, MAX_TOKENS))
    else:
        raise section.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join(TASK_KINDS)}.")
    section.done()
    return entry


def _name(section: Table, key: str, default: str | None = None) -> str:
    """Take a text that is compared with what stands in a table."""
    return clean(section.text(key, default))


def _names(section: Table, key: str, default: list[str] | None = None) -> tuple[str, ...]:
    """Take a list of distinct texts that are compared with what stands in a table."""
    return section.distinct(key, (clean(item) for item in section.texts(key, default)))


def _bounds(section: Table, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """Take `low` and `high`, finite and in order."""
    bottom, top = section.number("low", low), section.number("high", high)
    if not bottom < top:
        raise section.fail(f"low = {bottom} and high = {top} are no bounds", "Write finite numbers, low below high.")
    return bottom, top


def _words(section: Table, key: str, default: list[str] | None = None) -> tuple[str, ...]:
    """Take declared words that cells are compared with.

    Raises UsageError for one that stands for an empty cell, and for two that are one word, written in two ways: a cell
    that differs from a declared word in case, space or number format alone is taken for a slip.
    """
    words = _names(section, key, default)
    for word in words:
        if word in MISSING:
            advice = f"In a table {word!r} means that there is no value. Choose another word, there and here."
            raise section.fail(f"{key}: {word!r} can never occur", advice)
    _refuse_alike(section, {key: words})
    return words


def _levels(section: Table) -> tuple[str, ...]:
    levels = _words(section, "levels")
    if not levels:
        raise section.fail("levels is empty", 'Name the words that the column may hold, as in levels = ["a", "b"].')
    return levels


def _refuse_alike(section: Table, lists: Mapping[str, Sequence[str]]) -> None:
    """Refuse words of these keys of which two differ in case, space, Unicode form or number format alone."""
    spellings: dict[str, tuple[str, str]] = {}
    for key, words in lists.items():
        for word in words:
            there, first = spellings.setdefault(whole(word), (key, word))
            if (there, first) == (key, word):
                continue
            where = key if there == key else f"{there} and {key}"
            if first == word:
                raise section.fail(f"{where}: {word!r} is in both", "Name it once.")
            advice = "Name it once, and write it in the table in this one way."
            raise section.fail(f"{where}: {first!r} and {word!r} are one word, written in two ways", advice)


def _refuse_few(section: Table, key: str, values: Sequence[str], least: int) -> None:
    if len(values) < least:
        advice = "Binary needs positive, multilabel a class, multiclass and ordinal at least two classes."
        raise section.fail(f"{key}: too few values", advice)


def _sensitive(top: Table, tables: dict[str, TableEntry], unit_table: str) -> tuple[str, tuple[CategoricalColumn, ...]]:
    if "sensitive" not in top.raw:
        return unit_table, ()
    section = top.table("sensitive")
    table = _known_table(section, "table", tables, unit_table)
    groups = []
    for item in section.tables("columns"):
        groups.append(CategoricalColumn(_name(item, "name"), _levels(item)))
        item.done()
    section.done()
    _refuse_repeated(section, "column", (group.name for group in groups))
    return table, tuple(groups)
