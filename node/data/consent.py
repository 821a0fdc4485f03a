"""Who consents, by columns of the unit table.

A student consents where every row that is read says one of the declared words, and none names a last day that is past.
An empty cell of the word is no consent; an empty cell of the last day is a consent without an end. Whoever does not
consent is in no array (arrays.py): not to train on, not to evaluate on, not to predict.

"Past" is judged by days in UTC, for the day that the reader names. A daemon names the last day of the time for which it
reads (node/runtime/consenting.py): so a consent that ends meanwhile is over from the start.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from .entries import ConsentColumns
from .tables import Index, Table, moment_of, number_of

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Consents:
    """By subject [S], which of them `refuse` (a row has no word of consent) and whose consent has `lapsed`.

    `unreadable` have a cell that is no word or day: like others with such a cell, they are left out.
    """

    refuse: Mask
    lapsed: Mask
    unreadable: Mask

    @property
    def without(self) -> Mask:
        """Who does not consent [S]."""
        return self.refuse | self.lapsed

    def counts(self) -> dict[str, int]:
        """Return how many subjects consent ("yes"), do not ("no"), did and no longer do, or cannot be read."""
        no, lapsed = self.refuse & ~self.unreadable, self.lapsed & ~self.refuse & ~self.unreadable
        yes = int((~self.without & ~self.unreadable).sum())
        return {
            "yes": yes,
            "no": int(no.sum()),
            "lapsed": int(lapsed.sum()),
            "unreadable": int(self.unreadable.sum()),
        }


def read_consents(table: Table, declared: ConsentColumns, subject: Index, count: int, day: date) -> Consents:
    """Return the consents of `count` subjects on a day; `subject` [rows] is -1 for rows that are not read.

    Cells that cannot be used are noted as problems. Raises CorruptError if the findings are strict.
    """
    before = table.bad.copy()
    places = table.levels(declared.column, declared.yes, "consent")
    refuse = (places < 0) | (places == len(declared.yes))
    last = _last_days(table, declared.until) if declared.until else np.full(table.rows, np.inf)
    bad = table.bad & ~before
    masks = []
    for rows in (refuse & ~bad, (last < day.toordinal()) & ~bad, bad):
        mask = np.zeros(count, dtype=np.bool_)
        mask[subject[rows & (subject >= 0)]] = True
        masks.append(mask)
    return Consents(*masks)


def today() -> date:
    """Return the day it is, in UTC."""
    return datetime.now(UTC).date()


def _last_days(table: Table, column: str) -> npt.NDArray[np.float64]:
    """Return the last whole day of each row's consent, as `date.toordinal` counts [rows]; infinite: no end."""
    cells = table.cells(column)
    days = np.array([*(_last_day(value) for value in cells.values), np.inf])[cells.codes]
    advice = "Write the last day on which the consent holds, as 2026-07-31 or 31.7.2026; or leave it empty."
    table.fail(column, np.flatnonzero(np.isnan(days)), " is no date", advice)
    return days


def _last_day(text: str) -> float:
    if not np.isnan(number_of(text, ".")):
        return float("nan")
    moment = moment_of(text, ".")  # one that ends in the middle of a day does not hold for this day
    return moment if np.isnan(moment) or moment == np.floor(moment) else np.floor(moment) - 1.0
