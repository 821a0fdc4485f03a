"""Standard output and error under all conditions: closed, full, a closed pipe, of any encoding."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..crypto.errors import OperatorError

_PADDING = re.compile(r" +(?=\n)")


class NobodyReads(Exception):  # noqa: N818 - it is no error
    """The reader of the output has closed it (`| head`)."""


class Guarded:
    """A text stream whose write errors are reported as such for every writer; otherwise the stream itself."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text. Raises NobodyReads, OperatorError."""
        with _write_errors():
            return int(self._stream.write(text))

    def flush(self) -> None:
        """Flush the stream. Raises NobodyReads, OperatorError."""
        with _write_errors():
            self._stream.flush()


class Trimmed:
    """A text stream without spaces at the end of lines: tables are padded, which a pipe does not need."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write whole lines."""
        return int(self._stream.write(_PADDING.sub("", text)))


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NobodyReads from error
    except OSError as error:
        raise OperatorError(f"cannot write the output: {error.strerror}", "Send it elsewhere.") from error


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output, and replace closed streams."""
    before, error = sys.stdout, sys.stderr
    if before is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as this process lives
    if error is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Characters outside of the terminal's encoding, or undecodable bytes of a name, end no command.
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = Guarded(sys.stdout)  # all that is asked of a stream it passes on
    try:
        yield
    finally:
        if before is not None:
            sys.stdout = before


def give_up() -> None:
    """Drop unwritten output: otherwise the interpreter reports it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
