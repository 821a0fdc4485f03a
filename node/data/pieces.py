"""Texts as pieces, without a vocabulary: fair to every script, so that as much is read of each in so many pieces.

A word is a piece, with its combining marks (vowel signs of Devanagari or Tamil), and so is every sign of punctuation.
Where scripts write no spaces a run of letters is no word: Chinese and Japanese characters go in pairs, and whatever is
longer than LONGEST is cut.
"""

from itertools import groupby
from unicodedata import category

LONGEST, PAIR = 12, 2  # characters of a piece
JOINERS = "\u200c\u200d"  # within words of Persian and of Indian scripts
WHOLE = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"))


def pieces(text: str) -> list[str]:
    """Return the pieces of a text in lower case, in order."""
    made: list[str] = []
    for kind, run in groupby(text.lower(), _kind):
        if kind in {"L", "H"}:
            letters, size = "".join(run), LONGEST if kind == "L" else PAIR
            made += [letters[at : at + size] for at in range(0, len(letters), size)]
        elif kind == "P":
            made += list(run)
    return made


def _kind(character: str) -> str:
    """Return L for what is in words, H for a character that stands for a word or syllable, P for a sign, else ""."""
    if character == "_" or character in JOINERS:
        return "L"
    if any(low <= character <= high for low, high in WHOLE):
        return "H"
    major = category(character)[0]
    return {"M": "L", "N": "L", "L": "L", "P": "P", "S": "P"}.get(major, "")
