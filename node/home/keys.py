"""The node's key on disk: made once, never overwritten, readable by its owner only."""

import os
import stat
from contextlib import suppress

from ...crypto.errors import RefusedError, UsageError
from ...crypto.identity import Identity
from ...crypto.keyfile import FILE_LIMIT, is_sealed, seal, unseal
from ..store.errors import disk_errors
from ..store.files import sync_folder, write_all
from .paths import Home


def create(home: Home, passphrase: str | None) -> Identity:
    """Make the directory (0700) and a new key (0600) in it, durable on return; sealed if there is a passphrase.

    Raises RefusedError if there is a key already, or if others can open the directory; UsageError for an empty
    passphrase or a directory that cannot be written; DiskFullError.
    """
    identity = Identity.generate()
    content = seal(identity, passphrase)
    home.make()
    with disk_errors(home.key):
        try:
            descriptor = os.open(home.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise RefusedError(
                f"There is a key already: {home.key}",
                "A member is its key, so it is never overwritten. Use it, or choose another directory.",
            ) from None
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                home.key.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_folder(home.root)
    return identity


def load(home: Home, passphrase: str | None) -> Identity:
    """Read the key; a passphrase for an unsealed one is ignored.

    Raises UsageError if there is none, RefusedError if others may read it or the passphrase is wrong or missing,
    CorruptError if it is damaged.
    """
    return unseal(_read(home), passphrase, source=str(home.key))


def needs_passphrase(home: Home) -> bool:
    """Whether `load` needs a passphrase. Raises as `load` does for a file that is missing or open to others."""
    return is_sealed(_read(home))


def _read(home: Home) -> bytes:
    with disk_errors(home.key):
        try:
            descriptor = os.open(home.key, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            advice = "Run `collegium init` there first, or name the node's directory."
            raise UsageError(f"There is no key in {home.root}", advice) from None
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"{home.key} is not a file", "Put the node's key there.")
            if mode & 0o077:
                raise RefusedError(
                    f"Others may read the key {home.key} (mode {stat.S_IMODE(mode):04o})",
                    f"Run: chmod 600 {home.key}. If somebody else uses this machine, count the key as stolen.",
                )
            return file.read(FILE_LIMIT + 1)
