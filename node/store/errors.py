"""The store's own addition to the error tree, and how the operating system's refusals become named errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...crypto.errors import OperatorError, UsageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class DiskFullError(OperatorError):
    """Nothing more can be written. Stored data are intact and can still be read."""

    def __init__(self, where: Path, why: str = "") -> None:
        super().__init__(
            f"Cannot write to {where}: {why or 'the disk is full'}",
            "Free space there (or raise the quota) and start again; nothing that was stored is lost.",
        )


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Raise DiskFullError for a full disk or quota, UsageError for a folder that may not be written; pass on the rest.

    FileNotFoundError and FileExistsError are answers, not failures, and pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(where, error.strerror or "") from error
        if error.errno in _DENIED:
            advice = "Run as the user who owns this node's directory, and check that the disk is not mounted read-only."
            raise UsageError(f"Cannot use {where}: {error.strerror}", advice) from error
        raise
