"""Numbers with their nouns, for people."""

from collections.abc import Mapping


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number and what is counted: "1 file", "2 files". `more` is the plural that takes more than an s."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def lasting(seconds: float) -> str:
    """Return a time in the largest unit that it is a whole number of: "90 min", "24 h", "7 d"."""
    for unit, size, least in (("d", 86_400, 2), ("h", 3600, 1), ("min", 60, 1)):
        if seconds >= least * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def consents(counts: Mapping[str, int]) -> str:
    """Return how many students consent, and how many do not, and why."""
    return f"{counts['yes']} yes, {counts['no']} no, {counts['lapsed']} lapsed, {counts['unreadable']} cannot be read"


def of_kind(kind: str, sensitivity: str | None) -> str:
    """Return a modality's kind, with the sensitivity that is declared of it: "series, biometric"."""
    return ", ".join(filter(None, (kind, sensitivity)))
