"""Standard output and error as commands find them: closed, full, a pipe that nobody reads, of any encoding."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..crypto.errors import OperatorError

_PADDING = re.compile(r" +(?=\n)")


class NobodyReads(Exception):  # noqa: N818 - it is no error
    """Whoever read the output has seen enough (`| head`)."""


class Guarded:
    """A text stream: what goes wrong in writing is told as what it is, whoever writes; all else is the stream's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text. Raises NobodyReads, OperatorError."""
        with _told():
            return int(self._stream.write(text))

    def flush(self) -> None:
        """Hand over what was written. Raises NobodyReads, OperatorError."""
        with _told():
            self._stream.flush()


class Trimmed:
    """A text stream on which no line ends in a space: tables are padded, and in a pipe nobody needs that."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write whole lines."""
        return int(self._stream.write(_PADDING.sub("", text)))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NobodyReads from error
    except OSError as error:
        raise OperatorError(f"cannot write the output: {error.strerror}", "Send it elsewhere.") from error


@contextmanager
def guarded() -> Iterator[None]:
    """Put guards before standard output, and something in place of a stream that is closed."""
    before, error = sys.stdout, sys.stderr
    if before is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as this process lives
    if error is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A character that the terminal's encoding lacks, or a byte of a name that is no text, ends no command.
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = Guarded(sys.stdout)  # all that is asked of a stream it passes on
    try:
        yield
    finally:
        if before is not None:
            sys.stdout = before


def give_up() -> None:
    """Let what is still to be written go: else the interpreter complains of it when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
