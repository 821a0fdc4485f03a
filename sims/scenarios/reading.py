"""Strict reading of TOML tables: unknown keys, wrong types and impossible values are refused, with what is allowed."""

import re
from collections.abc import Callable
from typing import TypeVar

from ...crypto.errors import UsageError

T = TypeVar("T")
# Takes a value as TOML has it and returns it as the program wants it; raises ValueError with what is allowed.
Check = Callable[[object], object]


def whole(least: int, most: int) -> Callable[[object], int]:
    """A whole number within bounds."""

    def check(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def number(least: float, most: float) -> Callable[[object], float]:
    """A number within bounds."""

    def check(value: object) -> float:
        if type(value) not in (int, float) or not least <= float(str(value)) <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return float(str(value))

    return check


share = number(0.0, 1.0)


def span(least: int, most: int) -> Callable[[object], tuple[int, int]]:
    """A whole number, or [lowest, highest] between which the seed draws."""
    one = whole(least, most)

    def check(value: object) -> tuple[int, int]:
        pair = value if isinstance(value, list) else [value, value]
        try:
            low, high = one(pair[0]), one(pair[-1])
        except (ValueError, IndexError):
            low, high = 1, 0
        if len(pair) != 2 or low > high:
            raise ValueError(f"milliseconds from {least} to {most}, or [lowest, highest] of them")
        return low, high

    return check


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: object) -> str:
    """Some words."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("some words in quotes")
    return value


def name(value: object) -> str:
    """A name that is part of a file's name."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value):
        raise ValueError("1 to 64 small letters, digits and hyphens")
    return value


def one_of(*choices: str) -> Callable[[object], str]:
    """One of these words."""

    def check(value: object) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return str(value)

    return check


def words(value: object) -> tuple[str, ...]:
    """A list of words."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError('a list of words: ["one", "other"]')
    return tuple(value)


def after_round(value: object) -> int:
    """ "round N"."""
    kind, _, count = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if kind != "round" or not count.isdecimal() or not 1 <= int(count) <= 10_000:
        raise ValueError('"round N", with N from 1')
    return int(count)


class Table:
    """One table of a file. Take its keys, then call `done`: what is left is not known."""

    def __init__(self, source: str, where: str, found: object) -> None:
        if not isinstance(found, dict):
            raise UsageError(f"{source}: {where} must be a table", f"Write [{where}] and its keys below it.")
        self.source, self.where, self.found = source, where, dict(found)
        self.known: list[str] = []

    def take(self, key: str, check: Callable[[object], T], default: T | None = None) -> T:
        """Return a key's checked value, or the default; a key without one must be there. Raises UsageError."""
        self.known.append(key)
        if key not in self.found:
            if default is None:
                raise UsageError(f"{self.source}: {self._named(key)} is missing", "Add it; docs/simulator.md has all.")
            return default
        value = self.found.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise self.wrong(key, f"cannot be {value!r}", f"Allowed is {error}.") from None

    def wrong(self, key: str, problem: str, advice: str) -> UsageError:
        """Return the error for a key."""
        return UsageError(f"{self.source}: {self._named(key)} {problem}", advice)

    def done(self) -> None:
        """Refuse what nobody took. Raises UsageError."""
        for key in self.found:
            raise self.wrong(key, "is not known", f"Known there: {', '.join(sorted(self.known))}.")

    def _named(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key
