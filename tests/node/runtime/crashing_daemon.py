"""A daemon that is killed at a chosen write: `python crashing_daemon.py --home DIR`, with CRASH_AT and CRASH_HOW.

Every transaction, write, fsync, rename and removal of the store and the runtime is a point, and so is every message
that leaves. At point number CRASH_AT the process dies by SIGKILL "before" or "after" it, or the point "fails": it was
carried out, and an error is reported all the same. Of a write that dies "before", half is on the disk. CRASH_ONLY
counts only points that have it in their name; CRASH_LOG names a file that gets the name of the point.
"""

import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from collegium.crypto.errors import UnreachableError
from collegium.node import __main__ as daemon
from collegium.node.core.events import Put
from collegium.node.network import Network
from collegium.node.store.connection import sql_errors
from collegium.node.store.database import Store

AT, HOW, LOG = int(os.environ["CRASH_AT"]), os.environ["CRASH_HOW"], Path(os.environ["CRASH_LOG"])
ONLY = os.environ.get("CRASH_ONLY", "")
OURS = ("collegium.node.store", "collegium.node.home", "collegium.node.runtime", "collegium.node.core")
_count, _lock = 0, threading.Lock()


def reached(name: str) -> bool:
    """Count a point; True if it is the one."""
    global _count  # noqa: PLW0603
    if ONLY not in name:
        return False
    with _lock:
        _count += 1
        if _count != AT:
            return False
    LOG.write_text(name)
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ours() -> bool:
    frame = sys._getframe(2)
    for _ in range(4):
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(OURS):
            return True
        if frame.f_back is None or not name.startswith(("pathlib", "shutil", "tempfile")):
            return False
        frame = frame.f_back
    return False


def hook_os(name: str) -> None:
    real: Callable[..., Any] = getattr(os, name)

    @wraps(real)
    def hooked(*args: Any, **more: Any) -> Any:
        point = f"os.{name} of a blob" if name == "unlink" and "/blobs/" in str(args[0]) else f"os.{name}"
        if not ours() or not reached(point):
            return real(*args, **more)
        if HOW == "before":
            if name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            die()
        result = real(*args, **more)
        if HOW == "after":
            die()
        raise OSError(errno.EIO, f"applied, then reported failure: {name} {result}")

    setattr(os, name, hooked)


def hook_store() -> None:
    real_apply, real_transaction = Store.apply, Store._transaction
    doing = threading.local()

    def apply(self: Store, puts: Sequence[Put]) -> None:
        doing.name = f"transaction {' '.join(sorted({type(put).__name__ for put in puts}))}"
        try:
            real_apply(self, puts)
        finally:
            del doing.name

    @contextmanager
    def transaction(self: Store) -> Iterator[sqlite3.Connection]:
        here = False
        with real_transaction(self) as connection:
            yield connection
            here = reached(getattr(doing, "name", "transaction"))
            if here and HOW == "before":
                die()
        if here and HOW == "after":
            die()
        if here:
            error = sqlite3.OperationalError("applied, then reported failure")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            with sql_errors(self.path):
                raise error

    Store.apply, Store._transaction = apply, transaction  # type: ignore[method-assign]


def hook_network(name: str) -> None:
    real = getattr(Network, name)

    @wraps(real)
    async def hooked(*args: Any, **more: Any) -> Any:
        here = reached(f"network.{name}")
        if here and HOW == "before":
            die()
        result = await real(*args, **more)
        if here and HOW == "after":
            die()
        if here:
            raise UnreachableError("applied, then reported failure")
        return result

    setattr(Network, name, hooked)


if __name__ == "__main__":
    for each in ("write", "fsync", "rename", "replace", "unlink"):
        hook_os(each)
    hook_store()
    for each in ("publish", "request"):
        hook_network(each)
    sys.exit(daemon.main())
