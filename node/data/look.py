"""The contents of a table's columns, for a person who declares them.

It is for the screen of the machine that holds the data. Of the cells it keeps only words that occur often.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...crypto.errors import CollegiumError, UsageError
from . import wav
from .entries import TableEntry
from .files import header
from .paths import inside
from .problems import Findings, is_code
from .sensitive import sensitive
from .spelling import alike
from .tables import Table, number_of

OFTEN = 10  # times that a word must occur to be shown
MAX_LEVELS = 30  # distinct words of a column that is read as levels
LONGEST = 64  # characters of a word that is shown
NUMBERS = 0.95  # share of the cells that are numbers, from which a column is one of numbers
MOST = 0.9  # the same for dates, e-mails and files
PIXELS = 64  # numbered columns of numbers from which they are an image
CLIPS = 200  # clips whose rate and length are looked at
IMAGES, CLIP = (".png", ".jpg", ".jpeg"), ".wav"
FILES = (".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic", ".mp3", ".m4a", ".ogg", ".flac", ".mp4", ".pdf", ".docx")
# Words for "no value" that need no asking, as `alike` compares them.
NOTHING = frozenset({
    "-", "--", "–", "—", ".", "?", "k.a.", "keineangabe", "unbekannt", "n.d.", "nd", "nc", "inconnu", "s/d", "n.v.t.",
    "onbekend", "brak", "b.d.", "unknown", "#div/0!", "#value!", "#wert!", "#ref!", "#bezug!",
})  # fmt: skip
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]+\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\S*)?"
    r"|\d{1,2}:\d{2}(:\d{2})?"
)
_PIXEL = re.compile(r"(\D+)(0|[1-9]\d*)")
# "91,5 %", "1.234,50", "12 €": no number as it stands
_MARKED = re.compile(r"[-+]?[$€£]?\d{1,3}(?:[.,'’ \xa0\u202f]?\d{3})*(?:[.,]\d+)?[ \xa0\u202f]?[%‰€$£]?")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One column's contents. `kind` is number, levels, text, image, audio, file, date, many, constant, empty, twice,
    unreadable, or pixels for all columns whose names begin so; `sensitive` as that module has it.

    `low` and `high` are the least and the largest number, which are never shown as they are. `common` are the words (of
    numbers, too) that occur `OFTEN`, `rare` the number of others, in `rare_cells`. `codes` are words for "no value",
    `unfit` the cells of numbers that hold something else. `rates` and `seconds` are of clips.
    """

    table: str
    column: str
    kind: str
    rows: int
    present: int = 0
    distinct: int = 0
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    common: tuple[tuple[str, int], ...] = ()
    rare: int = 0
    rare_cells: int = 0
    codes: tuple[str, ...] = ()
    unfit: int = 0
    sensitive: str = ""
    rates: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def unique(self) -> bool:
        """Whether the rows have values of their own; a few may have none, as a row of totals."""
        return self.present == self.distinct and self.present >= MOST * self.rows > 0

    @property
    def missing(self) -> bool:
        """Whether a cell is empty, or will count so."""
        return self.present < self.rows

    @property
    def words(self) -> tuple[str, ...]:
        """The words that occur often."""
        return tuple(word for word, _ in self.common)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A table: how it is written, what its columns hold, and it itself, to compare columns of ids."""

    entry: TableEntry
    columns: tuple[Seen, ...]
    table: Table

    def seen(self, column: str) -> Seen | None:
        """Return a column's contents; None if there is none of this name."""
        return next((seen for seen in self.columns if seen.column == column), None)

    def most(self, column: str) -> int:
        """Return how many rows the commonest value of a column has."""
        codes = self.table.cells(column).codes
        return int(np.bincount(codes[codes >= 0], minlength=1).max())

    def absent(self, column: str, words: Sequence[str]) -> tuple[str, ...]:
        """Return those of these words that no cell of a column holds."""
        there = set(self.table.cells(column).values)
        return tuple(word for word in words if word not in there)

    def others(self, column: str, words: Sequence[str]) -> int:
        """Return how many cells of a column hold a word that is none of these."""
        cells, known = self.table.cells(column), set(words)
        return int(np.array([*(value not in known for value in cells.values), False])[cells.codes].sum())

    def unknown(self, column: str, unit: "Look", key: str) -> int:
        """Return how many rows of a column name a key that the unit table lacks."""
        cells, ids = self.table.cells(column), set(unit.table.cells(key).values)
        return int(np.array([*(value not in ids for value in cells.values), False])[cells.codes].sum())


def look(folder: Path, entry: TableEntry) -> Look:
    """Read a table. Raises UsageError or CorruptError, also where its first line seems to hold no names."""
    names = header(entry)
    nameless = [name for name in names if not name or _number(name, ".") is not None]
    if len(nameless) * 2 > len(names):
        what = f"{entry.path}: the first line holds numbers or nothing where the columns' names belong"
        raise UsageError(what, "Put a line with the names of the columns there.")
    once = [name for name in dict.fromkeys(names) if name and names.count(name) == 1]
    table = Table(entry, once, Findings(strict=False))
    columns = [_look_at(folder, table, name) for name in once]
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    columns += [Seen(entry.name, name, "twice", table.rows) for name in twice]
    return Look(entry, tuple(_with_pixels_joined(columns)), table)


def _with_pixels_joined(columns: list[Seen]) -> list[Seen]:
    """Return the columns, those of the pixels of an image (pixel0, pixel1, …) as one."""
    groups: dict[str, list[tuple[int, Seen]]] = {}
    for seen in columns:
        match = _PIXEL.fullmatch(seen.column)
        if match and seen.kind in {"number", "constant", "empty"}:
            groups.setdefault(match[1], []).append((int(match[2]), seen))
    for prefix, numbered in groups.items():
        if len(numbered) < PIXELS or sorted(number for number, _ in numbered) != list(range(len(numbered))):
            continue
        inside_ = [seen for _, seen in numbered]
        numbers = [seen for seen in inside_ if seen.kind == "number"]
        if numbers:
            low, high = min(seen.low for seen in numbers), max(seen.high for seen in numbers)
            joined = replace(numbers[0], column=prefix, kind="pixels", low=low, high=high, common=())
            first = columns.index(inside_[0])
            columns = [*columns[:first], joined, *(seen for seen in columns[first:] if seen not in inside_)]
    return columns


def _look_at(folder: Path, table: Table, column: str) -> Seen:
    seen = Seen(table.entry.name, column, "empty", table.rows, sensitive=sensitive(column))
    try:
        cells = table.cells(column)
    except CollegiumError:
        return replace(seen, kind="unreadable")
    counts = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.values)).tolist()
    weights = {word: int(number) for word, number in zip(cells.values, counts, strict=True)}
    codes = [word for word in weights if alike(word) in NOTHING]
    meant = [word for word in weights if word not in codes]
    numbers = {word: number for word in meant if (number := _number(word, table.entry.decimal)) is not None}
    numeric = sum(weights[word] for word in numbers) >= NUMBERS * sum(weights[word] for word in meant)
    codes = codes + _sentinels(numbers) if numeric else []  # among words each of these is one word more
    meant = [word for word in weights if word not in codes]
    seen = replace(seen, codes=tuple(codes))
    if not meant:
        return seen
    present = sum(weights[word] for word in meant)
    often = [word for word in meant if weights[word] >= OFTEN and len(word) <= LONGEST]
    often.sort(key=lambda word: (numbers.get(word, math.inf), word))
    common = tuple((word, weights[word]) for word in often)
    seen = replace(
        seen, kind="constant", present=present, distinct=len(meant), common=common, rare=len(meant) - len(often),
        rare_cells=present - sum(number for _, number in common),
    )  # fmt: skip
    if len(meant) == 1 and table.rows > 1:
        return seen
    if numeric:
        kept = [numbers[word] for word in meant if word in numbers]
        unfit = sum(weights[word] for word in meant if word not in numbers)
        whole = all(number.is_integer() for number in kept)
        return replace(seen, kind="number", low=min(kept), high=max(kept), whole=whole, unfit=unfit)
    kind = _kind(meant, weights, present)
    if kind == "mail":
        return replace(seen, kind="many", sensitive="person")
    rates, seconds = _clips(folder, meant) if kind == "audio" else ((), 0.0)
    return replace(seen, kind=kind, rates=rates, seconds=seconds)


def _kind(words: Sequence[str], weights: dict[str, int], present: int) -> str:
    """Return the kind of a column of words."""

    def most(passes: Callable[[str], bool]) -> bool:
        return sum(weights[word] for word in words if passes(word)) >= MOST * present

    if most(lambda word: bool(_DATE.fullmatch(word))):
        return "date"
    if most(lambda word: word.lower().endswith(IMAGES)):
        return "image"
    if most(lambda word: word.lower().endswith(CLIP)):
        return "audio"
    if most(lambda word: word.lower().endswith(FILES)):
        return "file"
    if most(lambda word: bool(_MAIL.fullmatch(word))):
        return "mail"
    if most(lambda word: bool(_MARKED.fullmatch(word))):
        return "marked"
    few = len(words) <= MAX_LEVELS and len(words) * 3 <= max(present, 6)
    if few and max(map(len, words)) <= LONGEST:
        return "levels"
    spoken = sum(weights[word] * len(word.split()) for word in words) / present
    return "text" if spoken >= 4 else "many"


def _number(text: str, decimal: str) -> float | None:
    """Return the number that a cell holds, as tables.py reads it; None if it holds none."""
    number = number_of(text, decimal)
    return number if math.isfinite(number) else None


def _sentinels(numbers: dict[str, float]) -> list[str]:
    """Return the words of numbers far from all others that look like a code for "no value", as -999 and 9999 do."""
    left = sorted(set(numbers.values()))
    sentinels: set[float] = set()
    while len(left) > 2:
        ends = ((left[0], left[1:]), (left[-1], left[:-1]))
        code = next((end for end in ends if is_code(end[0], end[1][0]) and _far(*end)), None)
        if code is None:
            break
        value, left = code
        sentinels.add(value)
    return [word for word, number in numbers.items() if number in sentinels]


def _far(value: float, rest: Sequence[float]) -> bool:
    if value == -1.0:
        return rest[0] >= 0.0 and rest[-1] > 5.0
    return abs(value) > 5.0 * max(map(abs, rest))


def _clips(folder: Path, names: Sequence[str]) -> tuple[tuple[int, ...], float]:
    """Return the rates of the first clips, and how many seconds the longest has."""
    rates, seconds = set(), 0.0
    for name in islice(names, CLIPS):
        try:
            clip = wav.read(inside(folder, name, str(folder)), 0.001)
        except CollegiumError:
            continue
        rates.add(clip.rate)
        seconds = max(seconds, clip.frames / clip.rate)
    return tuple(sorted(rates)), seconds
