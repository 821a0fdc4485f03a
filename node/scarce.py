"""Descriptors and kernel memory run out: no fault of what is asked for just then. It is tried again later."""

import errno
import os
import resource
from contextlib import suppress

ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
WANTED = 4096  # descriptors: far more than a node of 200 members uses


def is_scarce(error: BaseException) -> bool:
    """Whether the system had no room for it now, as an OSError says, itself or below what was made of it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in ERRNOS:
            return True
        seen = seen.__cause__
    return False


def raise_limit() -> int:
    """Raise this process's limit of open files to `WANTED`, if it may; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    with suppress(OSError, ValueError):  # a system that says it may, and then refuses
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def can_open() -> bool:
    """Whether a file can be opened now. SQLite does not say why it could not."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
