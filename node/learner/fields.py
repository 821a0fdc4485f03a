"""Fields of a request, checked: their faults are errors that name the field."""

from math import isfinite
from typing import Any

from ...crypto.errors import UsageError
from .protocol import Message


def field(message: Message, key: str, kind: type) -> Any:
    """Return a field of exactly `kind`. Raises UsageError."""
    value = message.get(key)
    if type(value) is not kind:
        raise UsageError(f"{key} is missing or no {kind.__name__}")
    return value


def number(message: Message, key: str) -> float:
    """Return a finite number. Raises UsageError."""
    value: Any = message.get(key)
    if type(value) not in (int, float) or not isfinite(value):
        raise UsageError(f"{key} is missing or no finite number")
    return float(value)
