"""One daemon for each directory: a lock that the kernel drops when its holder dies for any reason."""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...crypto.errors import UsageError
from ..store.errors import disk_errors
from .paths import Home

_PATIENCE = 0.3  # seconds; `running` holds a shared lock for an instant


@contextmanager
def hold(home: Home) -> Iterator[None]:
    """Hold this directory's lock until the block is left. Raises UsageError if another daemon has it ("pid N").

    The file stays when the lock is dropped: otherwise two daemons could hold locks on two files of one name.
    """
    with disk_errors(home.lock):
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        _check_regular(home, descriptor)
        if not _try_lock(descriptor):
            pid = _read_pid(descriptor)
            who = f" (pid {pid})" if pid is not None else ""
            advice = "Stop it first (`collegium node stop`), or use another directory."
            raise UsageError(f"Another daemon runs in {home.root}{who}", advice)
        with disk_errors(home.lock):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def running(home: Home) -> int | None:
    """Return the process id of the daemon that runs in this directory, or None; 0 if one starts at this moment."""
    try:
        # Not blocking: a named pipe in its place would keep every command waiting for ever.
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        _check_regular(home, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor) or 0
    else:
        return None
    finally:
        os.close(descriptor)


def held_since(home: Home) -> int | None:
    """Return the time at which the daemon that runs in this directory took the lock, in ns of Unix time, or None."""
    return home.lock.stat().st_mtime_ns if running(home) else None


def _check_regular(home: Home, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise UsageError(f"{home.lock} is no regular file", "Remove it: the daemon makes its own.")


def _try_lock(descriptor: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
