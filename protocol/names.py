"""The characters that names may have.

Names come from non-members and are shown on terminals where people compare ids, so they hold no invisible or control
characters. Names of modalities and tasks have a grammar: they are parts of the names of components (components.py).
"""

import re
import unicodedata

_INVISIBLE = frozenset((*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5))
_INVISIBLE |= frozenset((*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x2028, 0x202F), 0x3164, 0xFFA0))
_INVISIBLE |= frozenset((*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), 0xFEFF, *range(0xFFF0, 0xFFFC)))
_INVISIBLE |= frozenset((*range(0xD800, 0xE000), *range(0xE0000, 0xE0200)))
# Blanks and signs of single scripts: braille, Khitan, Egyptian, shorthand, music.
_INVISIBLE |= frozenset((0x2800, 0x16FE4, *range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), 0x1D159))
_INVISIBLE |= frozenset(range(0x1D173, 0x1D17B))
_HIDDEN = re.compile(f"[{re.escape(''.join(map(chr, sorted(_INVISIBLE))))}]")
_HIDDEN_IN_LINES = re.compile(f"[{re.escape(''.join(map(chr, sorted(_INVISIBLE - {0x09, 0x0A}))))}]")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PLAIN_ADVICE = "Names have letters, digits, - and _ (at most 64), and begin with a letter or digit."


def visible(text: str) -> bool:
    """Whether all of a text is visible: no control characters, none that hides or reverses its neighbours."""
    return _HIDDEN.search(text) is None


def shown(text: str, *, breaks: bool = False) -> str:
    r"""Return a text for a screen: invisible characters are written out, as \x1b; line breaks are kept if `breaks`."""
    return (_HIDDEN_IN_LINES if breaks else _HIDDEN).sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def plain(name: str) -> bool:
    """Whether a name is one of a modality or task: letters, digits, - and _."""
    return _PLAIN.fullmatch(name) is not None


def person_problem(name: str) -> str:
    """Return the problem with the name of a member or of a federation, or ""."""
    if not 1 <= len(name.encode("utf-8", "replace")) <= 128:
        return "it does not have 1 to 128 bytes"
    if name != name.strip():
        return "it begins or ends with a space"
    if not visible(name):
        return f"it has characters that cannot be seen: {shown(name)}"
    if "=" in name:
        return "it has a = in it, which ends a name in `--member NAME=KEY@ADDRESS`"
    if name != unicodedata.normalize("NFC", name):
        return "its accents are written apart from their letters (write it in the composed form, NFC)"
    return ""
