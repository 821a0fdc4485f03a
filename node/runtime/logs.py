"""Logging: JSON lines for machines, or a console for people; bytes are shown as short hex.

Lines that peers provoke are logged the first few times and counted after that (`Repeats`), and a log file is rotated by
size: repeated connections cannot fill the disk.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog

FILE_BYTES, FILES = 8 << 20, 5  # a log file's size, and how many there are: node.log, node.log.1, …
WINDOW = 600.0  # seconds after which a repeated line is logged again
MAX_LOGGED = 5  # lines of one kind and peer in a window
KINDS = 20  # of one event in a window, by peer and reason; keys are free to make, so the rest counts as one
LONGEST = 1000  # characters of one value
SUMMARY = "repeated"
_WHO = ("peer", "forwarder", "host", "member", "author")
_WHY = ("reason", "task", "protocol")
_LOUD = frozenset({"warning", "error", "critical"})

Key = tuple[str, str, str]  # event, reason, who
_OTHERS = "others"


@dataclass(slots=True)
class _Count:
    logged: int = 0
    left_out: int = 0


class Repeats:
    """Decides which lines are logged: of each kind the first few in a window. The rest is counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._counts: dict[str, dict[Key, _Count]] = {}

    def tell(self, event: str, why: str = "", who: str = "") -> bool:
        """Whether to log this line; if not, it is counted."""
        with self._lock:
            kinds = self._counts.setdefault(event, {})
            key = (event, why, who)
            if key not in kinds and len(kinds) >= KINDS:
                key = (event, _OTHERS, _OTHERS)
                kinds.setdefault(key, _Count(logged=MAX_LOGGED))
            count = kinds.setdefault(key, _Count())
            if count.logged < MAX_LOGGED:
                count.logged += 1
                return True
            count.left_out += 1
            return False

    def summary(self) -> list[tuple[Key, int]]:
        """Return the counts of lines left out, once a window is over; a new one begins then."""
        with self._lock:
            if self._clock() - self._since < WINDOW:
                return []
            self._since, counts, self._counts = self._clock(), self._counts, {}
        return [(key, count.left_out) for kinds in counts.values() for key, count in kinds.items() if count.left_out]


class LogFile:
    """A file that takes text and is rotated by size; mode 0600. With `stdio` standard output and error follow it."""

    def __init__(self, path: Path, *, stdio: bool = False) -> None:
        self._handler = _Handler(path, stdio)

    def write(self, text: str) -> None:
        """Append text. A full disk loses it and raises nothing."""
        self._handler.handle(logging.makeLogRecord({"msg": text}))

    def flush(self) -> None:
        """Do nothing: every text is flushed."""

    def reopen(self) -> None:
        """Go on in a new file under the old name: `logrotate` has renamed the one before."""
        self._handler.reopen()

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    terminator = ""

    def __init__(self, path: Path, stdio: bool) -> None:
        self._stdio = stdio
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8", errors="backslashreplace")

    def reopen(self) -> None:
        self.acquire()
        try:
            before, self.stream = self.stream, self._open()
            if before is not None:
                before.close()
        finally:
            self.release()

    def _open(self) -> Any:
        def private(path: str, flags: int) -> int:
            descriptor = os.open(path, flags, 0o600)
            os.fchmod(descriptor, 0o600)  # one that was there already
            return descriptor

        file = open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=private)  # noqa: SIM115 - the handler closes it
        if self._stdio:
            for descriptor in (1, 2):  # output of a crash or a library
                os.dup2(file.fileno(), descriptor)
        return file


_repeats = Repeats()
_sink: TextIO | LogFile = sys.stderr
_library: logging.Handler | None = None


def configure(format_: str, level: str, file: Path | None = None) -> None:
    """Send structlog and the standard library's warnings to stderr, or to a file that is rotated.

    `format_` is "json" or "console". With `file`, standard output and error go there too.
    """
    global _sink, _library, _repeats  # noqa: PLW0603 - like the logging that it configures, it is the process's
    if isinstance(_sink, LogFile):
        _sink.close()
    _sink = sys.stderr if file is None else LogFile(file, stdio=True)
    _repeats = Repeats()
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=file is None and sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _count_repeated,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _readable,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(_sink),  # type: ignore[arg-type] # it writes and flushes, no more
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    if _library is not None:
        root.removeHandler(_library)
    _library = logging.StreamHandler(_sink)
    _library.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    _library.addFilter(lambda record: _repeats.tell(record.name, str(record.msg)[:100]))
    root.addHandler(_library)
    root.setLevel(logging.WARNING)


def reopen() -> bool:
    """Open the log file anew; False if the log goes to no file."""
    if not isinstance(_sink, LogFile):
        return False
    _sink.reopen()
    return True


def pass_on(text: str) -> None:
    """Write the output of another process of this node unchanged."""
    _sink.write(text)
    _sink.flush()


def tell_repeats(log: Any) -> None:
    """Log the counts of lines left out, if a window is over. To be called regularly."""
    for (event, why, who), count in _repeats.summary():
        facts = {name: value for name, value in (("why", why), ("who", who)) if value}
        log.warning(SUMMARY, what=event, times=count, minutes=round(WINDOW / 60), **facts)


def _count_repeated(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    who = next((str(readable(event[name])) for name in _WHO if event.get(name)), "")
    if event["event"] == SUMMARY or (not who and event.get("level") not in _LOUD):
        return event  # this node's own doing
    why = next((str(event[name])[:100] for name in _WHY if event.get(name)), "")
    if not _repeats.tell(str(event.get("event")), why, who):
        raise structlog.DropEvent
    return event


def _readable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: readable(value) for key, value in event.items()}


def readable(value: Any) -> Any:
    """Return a value fit for JSON: bytes as hex (keys shortened to 16 digits), long texts cut, containers likewise."""
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {str(readable(key)): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [readable(item) for item in value]
    return value
