"""Strict reading of the TOML files that people write: configurations, data, models, presets, members, scenarios.

A key that is not known is an error, because a misspelt privacy setting that is ignored is worse. Every error names the
file, the table and the key, and says what is allowed there or which key was probably meant.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..crypto.errors import UsageError
from .store.files import read_limited

FILE_LIMIT = 1 << 20  # bytes
MAX_NUMBER = 1e300  # TOML's whole numbers have any size, and the largest fit no float
T = TypeVar("T")
# Takes a value as TOML has it and returns it as the program wants it; raises ValueError with what is allowed.
Check = Callable[[object], T]

_KINDS: dict[type, str] = {
    str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false", list: "a list [...]",
    dict: "a table of keys",
}  # fmt: skip


def read(path: Path, advice: str, guide: str = "", *, links: bool = True) -> "Table":
    """Read a file's top table. `advice` says what to do if it cannot be read, `guide` where its keys are explained.

    Raises UsageError: the file cannot be read, is a link where no `links` are followed, is too large, not UTF-8 or not
    TOML.
    """
    try:
        if links:
            with path.open("rb") as file:
                start = file.read(FILE_LIMIT + 1)
            data = start if len(start) <= FILE_LIMIT else None
        else:
            data = read_limited(path, FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}", advice) from error
    if data is None:
        raise UsageError(f"{path} is over {FILE_LIMIT} bytes", "Nothing of that size belongs there.")
    try:
        return parse(data.decode(), str(path), guide)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})", "Save it as UTF-8.") from error


def parse(text: str, source: str, guide: str = "") -> "Table":
    """Read the top table of a file's text; `source` names the file in errors. Raises UsageError if it is not TOML."""
    try:
        return Table(tomllib.loads(text), source, guide=guide)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a ValueError
        raise UsageError(f"{source} is not TOML: {error}", _advice(text, str(error))) from error


def _advice(text: str, error: str) -> str:
    """Return what to do about an error of TOML, which names its line; text without quotes is the commonest."""
    match = re.search(r"at line (\d+)", error)
    lines = text.splitlines()
    line = lines[int(match[1]) - 1] if match and int(match[1]) <= len(lines) else ""
    if re.search(r"[=\[,]\s*(?!(?:true|false|inf|nan)\b)[^\W\d_]", line.partition("=")[1] + line.partition("=")[2]):
        return 'Correct the line named here. Text needs quotation marks, as in kind = "text".'
    return "Correct the line named here; https://toml.io says how TOML is written."


class Table:
    """One table of a file. Take its keys, then call `done`: what is left is not known."""

    def __init__(self, raw: object, source: str, name: str = "", guide: str = "") -> None:
        """Wrap what TOML gave; `name` is the table's header. Raises UsageError if it is no table."""
        self.source, self.name, self.guide = source, name, guide
        self.where = f"{source} {name}" if name else source
        self.accepted: dict[str, None] = {}
        if not isinstance(raw, dict):
            raise self.fail(f"a table of keys belongs here, not {shown(raw)}", f"Write {name} and its keys below it.")
        self.raw = dict(raw)

    def fail(self, what: str, advice: str = "") -> UsageError:
        """Return the error for this table."""
        return UsageError(f"{self.where}: {what}", advice)

    def take(self, key: str, check: Check[T], default: T | None = None) -> T:
        """Remove a key and return its checked value, or the default. Raises UsageError; a missing key has a default."""
        self.accepted[key] = None
        if key not in self.raw:
            if default is not None:
                return default
            for slip in get_close_matches(key, sorted(self.raw.keys() - self.accepted.keys()), 1):
                raise self.fail(f"{key} is missing", f"Is it misspelt as {slip!r}?")
            advice = f"Add it: {self.guide} says what it means." if self.guide else "Add it."
            raise self.fail(f"{key} is missing", advice)
        value = self.raw.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise self.fail(f"{key} cannot be {shown(value)}", f"Allowed is {error}.") from None

    def given(self, checks: Mapping[str, Check[Any]]) -> dict[str, Any]:
        """Take those of these keys that are there, and refuse all others."""
        values = {key: self.take(key, check) for key, check in checks.items() if key in self.raw}
        self.only(*checks)
        return values

    def text(self, key: str, default: str | None = None) -> str:
        """Take a text."""
        return self.take(key, kind(str), default)

    def flag(self, key: str, default: bool = False) -> bool:
        """Take true or false."""
        return self.take(key, flag, default)

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        """Take a whole number in [low, high]."""
        return self.take(key, whole(low, high), default)

    def number(self, key: str, default: float | None = None) -> float:
        """Take a finite number."""
        return self.take(key, number(f"a finite number below {MAX_NUMBER:g}", lambda _: True), default)

    def texts(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        """Take a list of distinct texts (or whole numbers, as texts)."""
        items: list[str] = self.take(key, kind(list), default)
        if not all(type(item) in (str, int) for item in items):
            raise self.fail(f"{key} holds something that is neither text nor a whole number")
        return self.distinct(key, (str(item) for item in items))

    def distinct(self, key: str, items: Iterable[str]) -> tuple[str, ...]:
        """Return these values of a key. Raises UsageError if two are the same."""
        distinct = tuple(items)
        for index, item in enumerate(distinct):
            if item in distinct[:index]:
                advice = "Name it once. White space at the ends does not count, nor how an accent is composed."
                raise self.fail(f"{key} names {item!r} twice", advice)
        return distinct

    def table(self, key: str, default: dict[str, object] | None = None) -> "Table":
        """Take a table below this one."""
        return self.below(key, self.take(key, _as_is, default))

    def below(self, key: str, raw: object) -> "Table":
        """Return what stands below a key, which is named after this table in errors."""
        inner = not self.name or self.name.startswith("[[")
        name = f"{self.name} {key}" if inner and self.name else f"[{key}]" if inner else f"{self.name[:-1]}.{key}]"
        return Table(raw, self.source, name, self.guide)

    def named(self, key: str, default: dict[str, object] | None = None) -> "dict[str, Table]":
        """Take a table of tables, as [key.NAME]."""
        outer = self.table(key, default)
        return {name: outer.below(name, raw) for name, raw in outer.raw.items()}

    def tables(self, key: str, title: str = "name") -> "list[Table]":
        """Take a list of tables, [[key]]; each is named in errors by its `title`, else by its place."""
        items: list[object] = self.take(key, kind(list), [])
        named = [item.get(title, number) if isinstance(item, dict) else number for number, item in enumerate(items, 1)]
        start = f"{self.name} [[{key}]]".lstrip()
        pairs = zip(items, named, strict=True)
        return [Table(item, self.source, f"{start} {name}", self.guide) for item, name in pairs]

    def only(self, *keys: str) -> None:
        """Raise UsageError for a key that is none of `keys`, naming the one that was probably meant."""
        for key in sorted(self.raw.keys() - set(keys)):
            for meant in get_close_matches(key, keys, 1):
                raise self.fail(f"unknown key {key!r}", f"Did you mean {meant}?")
            raise self.fail(f"unknown key {key!r}", f"Known here: {', '.join(keys)}.")

    def done(self) -> None:
        """Raise UsageError if a key is left over: it is unknown, or means nothing beside the others here."""
        self.only(*(key for key in self.accepted if key not in self.raw))


def _as_is(value: object) -> Any:
    return value


def shown(value: object) -> str:
    """Return a value of TOML as an error shows it; nothing long, and Python refuses to print thousands of digits."""
    if type(value) is int and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value) if len(repr(value)) <= 80 else "this value"


# ---- what a value may be


def kind(*kinds: type) -> Check[Any]:
    """A value of one of these types of TOML."""

    def check(value: object) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(" or ".join(_KINDS[kind] for kind in kinds))
        return value

    return check


def flag(value: object) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def whole(low: int, high: int) -> Check[int]:
    """A whole number within bounds."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def number(allowed: str, fits: Callable[[float], bool]) -> Check[float]:
    """A finite number that `fits`; `allowed` says in words which do."""

    def check(value: object) -> float:
        finite = (type(value) is int or type(value) is float) and abs(value) < MAX_NUMBER  # not NaN either
        if not finite or not fits(float(value)):  # type: ignore[arg-type]  # it is a number
            raise ValueError(allowed)
        return float(value)  # type: ignore[arg-type]  # as above

    return check


def between(low: float, high: float) -> Check[float]:
    """A number within bounds."""
    return number(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(*words: str) -> Check[str]:
    """One of these words."""

    def check(value: object) -> str:
        if type(value) is not str or value not in words:
            raise ValueError("one of " + ", ".join(f'"{word}"' for word in words))
        return value

    return check


def list_of(what: str, low: int, high: int, problem: Callable[[object], str]) -> Check[tuple[Any, ...]]:
    """A list of `low` to `high` items, none of which has a `problem`."""

    def check(value: object) -> tuple[Any, ...]:
        if type(value) is not list or not low <= len(value) <= high:
            raise ValueError(f"a list of {low} to {high} {what}")
        for wrong in filter(None, map(problem, value)):
            raise ValueError(f"a list of {what}; {wrong}")
        return tuple(value)

    return check
