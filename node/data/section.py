"""One table of `dataset.toml`, taken apart key by key."""

from difflib import get_close_matches
from typing import Any

from ...crypto.errors import UsageError
from .spelling import clean

MAX_NUMBER = 1e300


_KINDS: dict[type, str] = {
    str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false", list: "a list [...]",
    dict: "a table of keys",
}  # fmt: skip


class Section:
    """One table of the file: typed access with errors that name it, and no key left over."""

    def __init__(self, raw: Any, where: str) -> None:
        """Wrap what TOML gave; `where` names it in errors. Raises UsageError if it is no table."""
        if not isinstance(raw, dict):
            raise UsageError(f"{where}: a table of keys belongs here, not {_KINDS.get(type(raw), 'a date')}")
        self.raw = dict(raw)
        self.where = where

    def fail(self, what: str, advice: str = "") -> UsageError:
        """Return the error for this table."""
        return UsageError(f"{self.where}: {what}", advice)

    def take(self, key: str, kinds: tuple[type, ...], default: Any = None) -> Any:
        """Remove and return a value. Raises UsageError if it is missing (and has no default) or of another type."""
        value = self.raw.pop(key, default)
        if value is None:
            raise self.fail(f"{key} is missing", "Add it: docs/data.md says what it means.")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_KINDS.get(kind, "a date") for kind in kinds)
            raise self.fail(f"{key} is of the wrong type: {_KINDS.get(type(value), 'a date')}", f"Write {wanted}.")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Take a string."""
        return str(self.take(key, (str,), default))

    def name(self, key: str, default: str | None = None) -> str:
        """Take a string that is compared with what stands in a table."""
        return clean(self.text(key, default))

    def number(self, key: str, default: float | None = None) -> float:
        """Take a finite number."""
        given = key in self.raw
        value = self.take(key, (int, float), default)
        if given and not abs(value) < MAX_NUMBER:  # before float(), for TOML integers have any size; no NaN either
            raise self.fail(f"{key} is not a finite number", f"Write one below {MAX_NUMBER:g}.")
        return float(value)

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        """Take a whole number in [low, high]."""
        value = int(self.take(key, (int,), default))
        if not low <= value <= high:
            raise self.fail(f"{key} = {_short(value)} is not between {low} and {high}")
        return value

    def sections(self, key: str, title: str = "name") -> list["Section"]:
        """Take a list of tables; each is named in errors by `title`, else by its place."""
        items = self.take(key, (list,), [])
        named = [item.get(title, number) if isinstance(item, dict) else number for number, item in enumerate(items, 1)]
        return [Section(item, f"{self.where} [[{key}]] {name}") for item, name in zip(items, named, strict=True)]

    def flag(self, key: str) -> bool:
        """Take true or false; false if it is not there."""
        return bool(self.take(key, (bool,), False))

    def texts(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        """Take a list of distinct strings (or whole numbers, as strings)."""
        items = self.take(key, (list,), default)
        if not all(type(item) in (str, int) for item in items):
            raise self.fail(f"{key} holds something that is neither text nor a whole number")
        return self._distinct(key, [str(item) for item in items])

    def names(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        """Take a list of distinct strings that are compared with what stands in a table."""
        return self._distinct(key, [clean(item) for item in self.texts(key, default)])

    def _distinct(self, key: str, items: list[str]) -> tuple[str, ...]:
        twice = next((item for place, item in enumerate(items) if item in items[:place]), None)
        if twice is not None:
            advice = "Name it once. White space at the ends does not count, nor how an accent is composed."
            raise self.fail(f"{key} names {twice!r} twice", advice)
        return tuple(items)

    def bounds(self, low: float | None = None, high: float | None = None) -> tuple[float, float]:
        """Take `low` and `high`, finite and in order."""
        bottom, top = self.number("low", low), self.number("high", high)
        if not bottom < top:
            raise self.fail(f"low = {bottom} and high = {top} are no bounds", "Write finite numbers, low below high.")
        return bottom, top

    def only(self, *keys: str) -> None:
        """Raise UsageError for a key that is none of `keys`, naming the one that was probably meant."""
        for key in sorted(set(self.raw) - set(keys)):
            near = get_close_matches(key, keys, 1)
            advice = f"Did you mean {near[0]}?" if near else f"Remove it; known here are {', '.join(keys)}."
            raise self.fail(f"unknown key {key!r}", advice)

    def done(self) -> None:
        """Raise UsageError if a key is left over: it means nothing beside the others here."""
        if self.raw:
            raise self.fail(f"unknown key {sorted(self.raw)[0]!r}", "Remove it: it means nothing beside the others.")


def _short(value: int) -> str:
    # Python refuses to print an integer of over 4,300 digits; TOML has them.
    return str(value) if abs(value) < 10**40 else "a number of more than 40 digits"
