"""Problems in an institution's tables, cell by cell, and its columns' contents.

A wrong cell does not stop a node. Its student is left out, with all records, and only this machine reports it: a node
that stopped, or sent a report, would reveal something of one student (design.md, promise G6). Whether a student is left
out follows from this student's own rows and from dataset.toml. The one exception is a record name that two students
share: both are left out. No text here holds the value of a cell, except `ColumnCount.words`, which is only shown by
`data check`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError

KEPT = 200  # problems that are kept with their place; the others are counted
COUNTED = 100_000  # problems that are counted; then counting ends
SHOWN = 5  # words and sentinels of a column that are named
LONGEST_WORD = 32  # characters: a longer text may be a student's sentence
HUGE = 1e30
_EDGES_OF_TYPES = {-32768.0, 32767.0, -2147483648.0, 2147483647.0}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Problem:
    """One cell or row that cannot be used: where and what, and what to do."""

    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.text}. {self.advice}"


@dataclass(frozen=True, slots=True)
class ColumnCount:
    """One column's contents, in the rows that are read. `use` is its purpose, as in "task 'grade'".

    `other` counts cells that are none of the declared levels or classes (of a binary task: that count as no); `words`
    are the commonest of them. `below` and `above` count numbers that are clamped, `sentinels` those among them that
    look like a code for "no value". `missing_words` are words that count as an empty cell. `unreadable` cells of a
    column of numbers hold something else.
    """

    table: str
    column: str
    use: str
    values: int
    missing: int
    missing_words: tuple[tuple[str, int], ...] = ()
    unreadable: int = 0
    other: int = 0
    words: tuple[tuple[str, int], ...] = ()
    below: int = 0
    above: int = 0
    sentinels: tuple[tuple[str, int], ...] = ()


class Findings:
    """Collects problems and counts while data are read. With `strict` the first problem is raised instead."""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.problems: list[Problem] = []
        self.number = 0
        self.clashes: dict[str, Problem] = {}
        self.columns: dict[tuple[str, str, str], ColumnCount] = {}
        self.empty_rows: dict[str, int] = {}
        self.cut: Counter[str] = Counter()  # modality → recordings of which only the beginning is read
        self.unread_texts: dict[str, tuple[int, int]] = {}  # modality → records with too many texts, texts not read
        self.repeated: dict[str, tuple[str, list[tuple[int, int]]]] = {}  # modality → file, lines of copy and original
        self.squeezed: Counter[str] = Counter()  # modality → pictures that are far from square
        self._seen: set[tuple[str, str]] = set()

    def add(self, where: str, what: str, advice: str) -> None:
        """Note one problem once. Raises CorruptError if these findings are strict."""
        if self.strict:
            raise CorruptError(f"{where}{what}", advice)
        if (where, what) in self._seen or self.number >= COUNTED:
            return
        self._seen.add((where, what))
        self.number += 1
        if len(self.problems) < KEPT:
            self.problems.append(Problem(f"{where}{what}", advice))

    def clash(self, text: str, advice: str) -> None:
        """Note that two values differ in form only. It changes no number here, so no student is left out."""
        self.clashes.setdefault(text, Problem(text, advice))

    def count(self, counted: ColumnCount) -> None:
        """Note a column's contents."""
        self.columns[counted.table, counted.column, counted.use] = counted


def commonest(words: Iterable[str], counts: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Return the words that occur most, with their numbers; a long one, or one that occurs once, is not named."""
    named = [(word, number) for word, number in zip(words, counts, strict=True)
             if number > 1 and len(word) <= LONGEST_WORD]  # fmt: skip
    return tuple(sorted(named, key=lambda item: (-item[1], item[0]))[:SHOWN])


def outside(numbers: npt.NDArray[np.float64], low: float, high: float) -> dict[str, Any]:
    """Return the fields of ColumnCount for the numbers of a column, NaN where there is none."""
    below, above = numbers < low, numbers > high
    values, counts = np.unique(numbers[below | above], return_counts=True)
    codes = [
        (f"{value:.0f}" if abs(value) < HUGE else f"{value:g}", int(number))
        for value, number in zip(values.tolist(), counts.tolist(), strict=True)
        if is_code(value, low)
    ]
    codes.sort(key=lambda item: -item[1])
    return {"below": int(below.sum()), "above": int(above.sum()), "sentinels": tuple(codes[:SHOWN])}


def is_code(value: float, low: float) -> bool:
    """Return whether a number outside its bounds looks like a code for "no value": -1, 99, -999, 9999, 1e308, ..."""
    if abs(value) >= HUGE or value in _EDGES_OF_TYPES or (value == -1.0 and low >= 0.0):
        return True
    digits = f"{abs(value):.0f}"
    return value == int(value) and len(digits) >= 2 and set(digits) == {"9"}
