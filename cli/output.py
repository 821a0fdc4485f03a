"""Printing: tables for people, one JSON value for programs. Messages beside the answer go to stderr."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import IO, TYPE_CHECKING, Any, cast

import typer

from ..crypto.errors import RefusedError, UsageError
from ..protocol.names import shown, visible
from .proposals import at_home
from .streams import Trimmed

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]

GAP = 2  # cells between columns
NARROW = 16  # cells: no column of text becomes narrower
INDENT = 2
SOLID = "\N{NO-BREAK SPACE}"
PIPE = 80  # columns of facts outside a terminal, unless COLUMNS is set
ENDLESS = 100_000  # columns of other output there: a digest stays in one piece for grep, and a table row on one line


def emit(value: object, as_json: bool, show: "Callable[[Console], None]") -> None:
    """Print an answer: as JSON, or for people by `show`."""
    if as_json:
        sys.stdout.write(json_text(value))
        return
    show(console())


def json_text(value: object) -> str:
    """Return a value as JSON and a line break; invisible and control characters are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    lines = text.split("\n")
    if not all(map(visible, lines)):
        text = "\n".join(
            line if visible(line) else "".join(c if visible(c) else json.dumps(c)[1:-1] for c in line) for line in lines
        )
    return text + "\n"


def console(*, stderr: bool = False, like: "Console | None" = None) -> "Console":
    """Return a console; it reads no markup, and writes out control characters.

    `like`: the output is captured, with the width and colours of that console.
    """
    from rich.console import Console

    class Safe(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(shown(at_home(o), breaks=True) if isinstance(o, str) else o for o in objects), **options)

    if like is not None:
        colours: dict[str, Any] = {"force_terminal": like.is_terminal, "no_color": like.no_color}
        return Safe(file=StringIO(), width=like.width, markup=False, highlight=False, **colours)
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Safe(stderr=stderr, markup=False, highlight=False)
    return Safe(file=cast("IO[str]", Trimmed(stream)), markup=False, highlight=False, width=ENDLESS)


def say(text: str) -> None:
    """Print a message to the operator beside the answer; at a terminal no word of it is broken."""
    sys.stderr.write(fitted(shown(at_home(text), breaks=True)) + "\n")


def fitted(text: str) -> str:
    """Return a message of lines for standard error: wrapped at a terminal, one line each elsewhere."""
    if not sys.stderr.isatty():
        return text
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")))
        lines += [indent + part for part in _wrapped(line.lstrip(" "), _terminal_width() - len(indent))]
    return "\n".join(lines)


def _terminal_width() -> int:
    return shutil.get_terminal_size((PIPE, 24)).columns


def recovery_price() -> str:
    """Return the cost of a withdrawal for the others, in words."""
    from ..node.views.consequences import of_withdrawing

    return of_withdrawing()


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `yes` confirms. Raises RefusedError on "n"; UsageError, with the question, without a terminal."""
    if not agreed(question, yes):
        raise RefusedError("You did not confirm", "Nothing was done.")


def agreed(question: str, yes: bool) -> bool:
    """Ask, unless `yes` answers, and return the answer. Raises UsageError, with the question, without a terminal."""
    if yes:
        return True
    question = at_home(question)
    if not sys.stdin.isatty():
        advice = "Give --yes to confirm. Nothing was done."
        raise UsageError(f"There is no terminal to ask at: {question}", advice)
    with_choice = fitted(f"{question}{SOLID}[y/N]")  # typer adds this to the last line
    return typer.confirm(with_choice.removesuffix("[y/N]").rstrip(), err=True)


def table(out: "Console", columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under their columns, or `none`. A table too wide for the screen has each row as a paragraph."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        out.print(empty)
        return
    cells = [[_cell(cell) for cell, _ in zip(row, columns, strict=True)] for row in rows]
    widths = _widths([list(columns), *cells], out.width - GAP * (len(columns) - 1))
    if widths is None:
        _paragraphs(out, columns, cells)
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        drawn.add_column(column, width=width, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell.replace(SOLID, " ")) for cell in row))
    out.print(drawn)


def solid(text: str) -> str:
    """Return a text that tables, facts and prose do not break at its spaces."""
    return text.replace(" ", SOLID)


def _cell(value: object) -> str:
    return shown(plain(value))


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return each column's width within `room` cells in all; None if words would have to be broken.

    A column of text becomes narrower, word by word, down to `NARROW`: one word a line is not readable.
    """
    from rich.cells import cell_len

    widths, least = [], []
    for column in zip(*rows, strict=True):
        whole = max(map(cell_len, column))
        word = max(cell_len(word) for cell in column for word in (cell.split(" ") or [""]))
        widths.append(whole)
        least.append(min(whole, max(word, NARROW)))
    while sum(widths) > room:
        spare, column_ = max((width - low, n) for n, (width, low) in enumerate(zip(widths, least, strict=True)))
        if spare <= 0:
            return None
        widths[column_] -= 1
    return widths


def _paragraphs(out: "Console", columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as its first cell and, indented, pairs of name and value: none is broken if it fits on a line."""
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.text import Text

    room = out.width - INDENT
    for row in rows:
        out.print(Text.assemble((f"{columns[0]} ", "bold"), row[0]))
        line = Text()
        for name, value in zip(columns[1:], row[1:], strict=True):
            if not value:
                continue
            pair = Text.assemble((name, "bold"), " ", value.replace(SOLID, " "))
            if line and line.cell_len + GAP + cell_len(pair.plain) > room:
                out.print(Padding(line, (0, 0, 0, INDENT), expand=False))
                line = Text()
            line = Text.assemble(line, " " * GAP, pair) if line else pair
        if line:
            out.print(Padding(line, (0, 0, 0, INDENT), expand=False))


def facts(out: "Console", pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values; a value with a word too long for its column (a digest) stands below its name.

    In a pipe such a value stays on the line of its name, in one piece: for `grep`, and to be pasted into a shell.
    """
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.text import Text

    names_ = max((cell_len(name) for name, _ in pairs), default=0)
    room = _width(out) - names_ - GAP
    for name, value in pairs:
        text = _cell(value)
        whole = max(map(cell_len, text.split() or [""])) > room
        if whole and out.is_terminal:
            out.print(Text(name, style="bold"))
            out.print(Padding(Text(text, overflow="fold"), (0, 0, 0, INDENT), expand=False))
            continue
        first, *others = [text] if whole else _wrapped(text, room)
        out.print(Text.assemble((name, "bold"), " " * (names_ + GAP - cell_len(name)), first))
        for line in others:
            out.print(Text(" " * (names_ + GAP) + line))


def prose(out: "Console", text: str) -> None:
    """Print sentences, wrapped as `facts` are."""
    for line in _wrapped(at_home(text), _width(out)):
        out.print(line)


def _width(out: "Console") -> int:
    return out.width if out.is_terminal else min(out.width, _columns())


def _columns() -> int:
    """Return the width of facts outside a terminal."""
    text = os.environ.get("COLUMNS", "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 6 and int(text) else PIPE


def _wrapped(text: str, room: int) -> list[str]:
    """Return a text in lines of at most so many cells, none of its words broken."""
    from rich.cells import cell_len

    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line.replace(SOLID, " ") for line in lines]


def plain(value: object) -> str:
    """Return a value of an answer in words, without Python's quotes, braces or capitals."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(part)}" for name, part in value.items()) or "–"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(plain, value)) or "–"
    return str(value)


def names(members: Iterable[Mapping[str, object]]) -> str:
    """Return the names of a list of members."""
    return ", ".join(str(member["name"]) for member in members) or "–"


def short(digest: str | None) -> str:
    """Return a digest's prefix."""
    return digest[:16] if digest else "–"


def size(count: int | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@contextmanager
def progress(as_json: bool) -> Iterator[Progress | None]:
    """Show the progress of a long check on stderr, at a terminal."""
    if as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bars

    with Bars(console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield step
