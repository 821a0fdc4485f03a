"""What the kernel says of a process that does not answer: whether it was stopped, works, or does nothing."""

import os
from dataclasses import dataclass
from pathlib import Path

STOPPED = frozenset("Tt")  # states of a process, by a signal and by a debugger
DISK = "D"  # it waits for a disk or a share
LEAST = 0.03  # seconds of a processor from which it works: one that only waits takes less in some seconds


@dataclass(frozen=True, slots=True)
class Look:
    """A process at a moment: its state as the kernel writes it, "" where that cannot be read; seconds of a processor
    that it has had."""

    state: str
    used: float

    @property
    def stopped(self) -> bool:
        """Whether a signal or a debugger stopped it."""
        return self.state in STOPPED

    def works_since(self, before: "Look") -> bool:
        """Whether it had a processor since an earlier look, or waits for a disk."""
        return not self.stopped and (self.state == DISK or self.used - before.used >= LEAST)


def look(pid: int) -> Look:
    """Look at a process (proc(5): state, utime and stime are fields 3, 14 and 15)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()
        return Look(fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return Look("", 0.0)
