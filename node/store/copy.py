"""One consistent copy of the database while a daemon writes to it."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from . import connection as db
from .errors import disk_errors

PAGES = 1024  # that are copied between two words on how far it is

Progress = Callable[[int, int], None]


def copy_database(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy the database as of this moment into a new file (mode 0600), and check the copy whole.

    Writers do not wait, and their commits meanwhile are not in the copy. Raises as `Store.open` does.
    """
    db.check_file(source)
    with disk_errors(target):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))

    def step(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress(total - left, total)

    with closing(db.connect(source, readonly=True)) as read, closing(db.connect(target)) as write:
        with db.sql_errors(source):
            # While this transaction lasts the source is as it is now; else every commit would begin the copy anew.
            read.execute("BEGIN")
            read.execute("SELECT count(*) FROM meta").fetchone()
        with db.sql_errors(target):
            read.backup(write, pages=PAGES, progress=step)
    db.check_file(target)
    with closing(db.connect(target)) as written:
        db.verify(written, target, None, thorough=True)
