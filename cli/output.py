"""Printing: tables for people, one JSON value for programs. Messages beside the answer go to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..protocol.names import shown, visible

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]


def emit(value: object, as_json: bool, show: "Callable[[Console], None]") -> None:
    """Print an answer: as JSON, or as `show` shows it to people."""
    if as_json:
        sys.stdout.write(json_text(value))
        return
    show(console())


def json_text(value: object) -> str:
    """Return a value as JSON and a line break; what cannot be seen, or would act on a terminal, is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    lines = text.split("\n")
    if not all(map(visible, lines)):
        text = "\n".join(
            line if visible(line) else "".join(c if visible(c) else json.dumps(c)[1:-1] for c in line) for line in lines
        )
    return text + "\n"


def console(*, stderr: bool = False) -> "Console":
    """Return a console; text is not read as markup, and what in it would act on the terminal is written out."""
    from rich.console import Console  # noqa: PLC0415 - `--help` must not wait for it

    class Safe(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(shown(o, breaks=True) if isinstance(o, str) else o for o in objects), **options)

    stream = sys.stderr if stderr else sys.stdout
    # In a pipe a digest must stay in one piece for grep, however wide the line becomes.
    return Safe(stderr=stderr, markup=False, highlight=False, width=None if stream.isatty() else 400)


def say(text: str) -> None:
    """Tell the operator something beside the answer."""
    sys.stderr.write(shown(text, breaks=True) + "\n")


def table(out: "Console", columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under their columns, or say that there are none."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    if not rows:
        out.print(empty)
        return
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(cell)) for cell, _ in zip(row, columns, strict=True)))
    out.print(drawn)


def facts(out: "Console", pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        drawn.add_row(Text(name), Text(_cell(value)))
    out.print(drawn)


def _cell(value: object) -> str:
    return "–" if value is None else shown(str(value))


def names(members: Any) -> str:
    """Return the names of a list of members."""
    return ", ".join(str(member["name"]) for member in members) or "–"


def short(digest: Any) -> str:
    """Return the beginning of a digest."""
    return "–" if not digest else str(digest)[:16]


def size(count: Any) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@contextmanager
def progress(as_json: bool) -> Iterator[Progress | None]:
    """Show how far a long check is, on stderr, if somebody looks on."""
    if as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bars  # noqa: PLC0415 - as above

    with Bars(console=console(stderr=True), transient=True) as bars:
        known: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total or None)
            bars.update(known[what], completed=done)

        yield step
