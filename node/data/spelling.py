"""How one key, label or name can be written in several ways, and which ways count as the same.

`clean` is applied to every key, label, level and column name before anything else: no reader compares raw cells.
Ids that are equal after `clean` are the same person. `alike` and `near` only list ids for a person to check.
"""

import re
import unicodedata
from collections.abc import Iterable

# Spaces and line ends of Unicode, control characters, the byte order mark, and zero-width characters.
_EDGE = "".join(
    [chr(code) for code in range(0x3001) if chr(code).isspace()]
    + [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x180E, 0xFEFF)]
    + [chr(code) for code in (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070))]
)
_UNSEEN = str.maketrans("", "", _EDGE)
_ZEROS = re.compile(r"(?<!\d)0+(?=\w)")
_WHOLE = re.compile(r"(\d+)\.0+")
_FORMATTED = re.compile(r"([+-]?\d+)[.,]0+")

# A cell that holds one of these words is empty.
MISSING = frozenset({"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "Null"})


def clean(text: str) -> str:
    """Return a key as it is compared: in Unicode form NFC, without space or invisible characters at its ends."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip(_EDGE)


def alike(text: str) -> str:
    """Return a text without case, space and Unicode compatibility forms."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_UNSEEN)


def whole(text: str) -> str:
    """Return a whole number without the ",0" or ".0" that a number format adds; any other text as `alike` has it."""
    spelled = alike(text)
    number = _FORMATTED.fullmatch(spelled)
    return number[1] if number else spelled


def near(text: str) -> str:
    """Return an id without case, space, forms, leading zeros and a ".0" that a number format added."""
    spelled = _ZEROS.sub("", alike(text))
    whole = _WHOLE.fullmatch(spelled)
    return whole[1] if whole else spelled


def near_ids(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of distinct ids that `near` does not distinguish, in the order of their first one."""
    groups: dict[str, dict[str, None]] = {}
    for name in ids:
        groups.setdefault(near(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]
