"""The values of scenarios that no other file has; node/toml.py reads the rest."""

import re
from collections.abc import Callable

from ...node.toml import between, whole

share = between(0.0, 1.0)


def span(least: int, most: int) -> Callable[[object], tuple[int, int]]:
    """A whole number, or [lowest, highest] between which the seed chooses."""
    number = whole(least, most)

    def check(value: object) -> tuple[int, int]:
        pair = value if isinstance(value, list) else [value, value]
        try:
            low, high = number(pair[0]), number(pair[-1])
        except (ValueError, IndexError):
            low, high = 1, 0
        if len(pair) != 2 or low > high:
            raise ValueError(f"milliseconds from {least} to {most}, or [lowest, highest] of them")
        return low, high

    return check


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
