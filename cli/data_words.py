"""Columns and words of a table in sentences, for `data init`."""

import csv
import io
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..node.data.look import Look, Seen
    from ..node.data.propose import Choice

SHOWN = 8  # words of a column in a table; the file has all
KINDS = {
    "constant": "the same in every row", "empty": "empty", "text": "texts", "image": "pictures", "pixels": "pixels",
    "audio": "clips", "file": "files", "date": "dates or times",
    "marked": "numbers with other signs", "many": "many words, each seldom",
    "twice": "there twice", "unreadable": "neither text nor numbers",
}  # fmt: skip


def split(words: str) -> list[str]:
    """Return the words of a line with commas between them, as CSV has them."""
    return [word.strip() for word in next(csv.reader([words], skipinitialspace=True), []) if word.strip()]


def join(words: Sequence[str]) -> str:
    """Return words as `split` reads them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(words)
    return line.getvalue()


def described(seen: "Seen") -> str:
    """Say what a column holds, in round numbers."""
    from ..node.data.dataset_toml import number_of
    from ..node.data.natural import rounded

    if seen.sensitive == "person":
        text = "not shown"
    elif seen.kind == "number":
        low, high = map(number_of, rounded(seen.low, seen.high))
        text = f"numbers of about {low} to {high}"
    elif seen.kind == "levels":
        shown = [f"{word} {number}" for word, number in seen.common[:SHOWN]]
        text = ", ".join([*shown, *(["…"] if seen.rare or len(seen.common) > SHOWN else [])])
    elif seen.kind == "many" and seen.unique:
        text = "another word in each row"
    else:
        text = KINDS[seen.kind]
    empty = seen.rows - seen.present
    return text + (f", {empty} empty" if 0 < empty < seen.rows else "")


def absent(look: "Look", choice: "Choice", words: Sequence[str]) -> dict[str, str]:
    """Return the stated words that no cell of a column holds, each with the word of the data that may be meant, or "".

    Only words of the data that are shown anyway are named.
    """
    from ..node.data.spelling import clean, whole

    found: dict[str, str] = {}
    for word in look.absent(choice.seen.column, [clean(word) for word in words]):
        alike = [seen for seen in choice.seen.words if whole(seen) == whole(word)]
        near = alike or get_close_matches(word, [seen for seen in choice.seen.words if seen not in words], 1)
        found[word] = near[0] if near else ""
    return found


def absent_text(choice: "Choice", words: Sequence[str], found: dict[str, str]) -> str:
    """Say which stated words no cell of a column holds; and of how many cells none holds any."""
    named = [repr(word) + (f" (is {near!r} meant?)" if near else "") for word, near in found.items()]
    cells = "no cell holds" if len(found) < len(set(words)) else f"none of its {choice.seen.present} filled cells holds"
    return f"{choice.seen.column}: {cells} {', '.join(named)}"
