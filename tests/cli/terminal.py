"""A small terminal: programs run on a pseudo-terminal, and the cells of the screen are read, as a person reads them."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

CSI = re.compile(rb"\x1b\[([?>=]?)([0-9;]*)([@-~])")
OTHER = re.compile(rb"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[()][0-9A-B]|[=>78M])")
AGAIN = 2.0  # seconds between one Ctrl-C and the next
PATIENCE = 120.0  # seconds for a program to show something, on however busy a machine


@dataclass
class Screen:
    """So many columns and rows of cells. A sequence that it does not know is an error: nothing is skipped unseen."""

    columns: int
    rows: int
    cells: list[list[str]] = field(init=False)
    row: int = 0
    column: int = 0
    history: list[str] = field(default_factory=list)  # lines that scrolled out at the top
    full: bool = False  # whether the alternate screen is shown
    _rest: bytes = b""
    _main: tuple[list[list[str]], int, int] | None = None

    def __post_init__(self) -> None:
        self.cells = self._blank()

    def _blank(self) -> list[list[str]]:
        return [[" "] * self.columns for _ in range(self.rows)]

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, row by row, without blanks at the end."""
        return ["".join(row).rstrip() for row in self.cells]

    @property
    def text(self) -> str:
        """All lines of the screen."""
        return "\n".join(self.lines)

    @property
    def scroll(self) -> str:
        """Everything that was printed: what scrolled out, and the screen."""
        return "\n".join([*self.history, *self.lines])

    def feed(self, data: bytes) -> None:
        """Take output of the program."""
        data = self._rest + data
        self._rest = b""
        at = 0
        while at < len(data):
            byte = data[at]
            if byte == 0x1B:
                match = CSI.match(data, at)
                if match is not None:
                    self._control(match[1], match[2], match[3])
                    at = match.end()
                    continue
                skipped = OTHER.match(data, at)
                if skipped is None:
                    if len(data) - at > 32:
                        raise AssertionError(f"an unknown sequence: {data[at : at + 16]!r}")
                    self._rest = data[at:]
                    return
                at = skipped.end()
            elif byte < 0x20 or byte == 0x7F:
                self._c0(byte)
                at += 1
            else:
                size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                if at + size > len(data):
                    self._rest = data[at:]
                    return
                self._put(data[at : at + size].decode("utf-8", "replace"))
                at += size

    def _c0(self, byte: int) -> None:
        if byte == 0x0D:
            self.column = 0
        elif byte in (0x0A, 0x0B):
            self._down()
        elif byte == 0x08:
            self.column = max(0, self.column - 1)
        elif byte == 0x09:
            self.column = min(self.columns - 1, (self.column // 8 + 1) * 8)

    def _down(self) -> None:
        if self.row + 1 < self.rows:
            self.row += 1
            return
        self.history.append("".join(self.cells[0]).rstrip())
        self.cells = [*self.cells[1:], [" "] * self.columns]

    def _put(self, text: str) -> None:
        width = cell_len(text)
        if self.column + width > self.columns:
            self.column = 0
            self._down()
        if width == 0:
            self.cells[self.row][max(0, self.column - 1)] += text
            return
        self.cells[self.row][self.column] = text
        for more in range(1, width):
            self.cells[self.row][self.column + more] = ""
        self.column += width

    def _control(self, mark: bytes, numbers: bytes, final: bytes) -> None:
        values = [int(number or 0) for number in numbers.split(b";")]
        count = max(1, values[0])
        match final:
            case b"A":
                self.row = max(0, self.row - count)
            case b"B":
                self.row = min(self.rows - 1, self.row + count)
            case b"C":
                self.column = min(self.columns - 1, self.column + count)
            case b"D":
                self.column = max(0, self.column - count)
            case b"G":
                self.column = min(self.columns, count) - 1
            case b"H":
                self.row = min(self.rows, count) - 1
                self.column = min(self.columns, max(1, values[1] if len(values) > 1 else 1)) - 1
            case b"J":
                for row in range(0 if values[0] >= 2 else self.row + 1, self.rows):
                    self.cells[row] = [" "] * self.columns
                if values[0] < 2:
                    self._erase_line(0)
            case b"K":
                self._erase_line(values[0])
            case b"h" | b"l" if mark == b"?" and values[0] == 1049:
                self._alternate(final == b"h")
            case b"m" | b"h" | b"l":
                pass  # colours; whether the cursor is seen
            case _:
                raise AssertionError(f"an unknown control sequence: {mark + numbers + final!r}")

    def _erase_line(self, how: int) -> None:
        first, last = {0: (self.column, self.columns), 1: (0, self.column + 1), 2: (0, self.columns)}[how]
        self.cells[self.row][first:last] = [" "] * (min(last, self.columns) - first)

    def _alternate(self, on: bool) -> None:
        self.full = on
        if on:
            self._main = (self.cells, self.row, self.column)
            self.cells, self.row, self.column = self._blank(), 0, 0
        elif self._main is not None:
            self.cells, self.row, self.column = self._main


@dataclass
class Terminal:
    """A program on a pseudo-terminal of this size."""

    words: Sequence[str]
    columns: int = 80
    rows: int = 24
    environment: Mapping[str, str] = field(default_factory=dict)
    screen: Screen = field(init=False)
    code: int | None = None

    def __post_init__(self) -> None:
        self.screen = Screen(self.columns, self.rows)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        environment |= {"TERM": "xterm-256color", **self.environment}
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background lets its children ignore it
        self._process = subprocess.Popen(
            self.words, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        signal.signal(signal.SIGINT, before)
        os.close(slave)

    def send(self, text: str) -> None:
        """Type a text."""
        os.write(self._master, text.encode())

    def until(self, done: Callable[[Screen], object], seconds: float = PATIENCE) -> Screen:
        """Read until the screen is as wanted."""
        deadline = time.monotonic() + seconds
        while not done(self.screen):
            assert self._read(deadline), f"the program ended; the screen:\n{self.screen.scroll}"
            assert time.monotonic() < deadline, f"not seen in {seconds:g} s; the screen:\n{self.screen.text}"
        return self.screen

    def end(self, *, interrupt: bool = False, seconds: float = PATIENCE) -> Screen:
        """Read until the program ends, after Ctrl-C if asked for."""
        deadline, due = time.monotonic() + seconds, 0.0
        while True:
            if interrupt and time.monotonic() >= due and self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGINT)  # again and again: one that meets a destructor is lost
                due = time.monotonic() + AGAIN  # output in between is no reason: a second one breaks off its clean-up
            if not self._read(min(deadline, time.monotonic() + AGAIN)):
                break
            assert time.monotonic() < deadline, f"it does not end; the screen:\n{self.screen.text}"
        self.code = self._process.wait(10)
        os.close(self._master)
        return self.screen

    def kill(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self, deadline: float) -> bool:
        while not select.select([self._master], [], [], 0.2)[0]:
            if time.monotonic() > deadline:
                return True
            if self._process.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.screen.feed(data)
        return bool(data)
