"""The node's key on disk: made once, never overwritten, readable by its owner only."""

import errno
import json
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from ...crypto.errors import RefusedError, UsageError
from ...crypto.identity import Identity
from ...crypto.keyfile import FILE_LIMIT, is_sealed, seal, unseal
from ..store.errors import disk_errors
from ..store.files import TEMPORARY, sync_folder, write_all, write_atomic
from .paths import Home

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# Suffix of temporary files of write_atomic and _create.
_LEFT = re.compile(r"key(\.next|\.[0-9a-f]{16})?\.json(\.[0-9a-f]{8}\.tmp){1,2}")


def create(home: Home, passphrase: str | None) -> Identity:
    """Make the directory (0700) and a new key (0600) in it, durable on return; sealed if there is a passphrase.

    Raises RefusedError if there is a key already, or if others can open the directory; UsageError for an empty
    passphrase or a directory that cannot be written; DiskFullError.
    """
    _finish_move(home)
    return _create(home, home.key, passphrase)


def create_next(home: Home, passphrase: str | None) -> Identity:
    """Make the next key of this member, beside the one in use; an existing one is used again.

    Raises as `create` and `load` do.
    """
    with disk_errors(home.next_key):
        _sweep(home)
        there = home.next_key.exists()
    if there:
        return unseal(_read(home.next_key), passphrase, source=str(home.next_key))
    return _create(home, home.next_key, passphrase)


def load(home: Home, passphrase: str | None, path: Path | None = None) -> Identity:
    """Read the key in use, or the one in `path`; a passphrase for an unsealed one is ignored.

    Raises UsageError if there is none, RefusedError if others may read it or the passphrase is wrong or missing,
    CorruptError if it is damaged.
    """
    _finish_move(home)
    path = path or home.key
    return unseal(_read(path), passphrase, source=str(path))


def replace_gone(home: Home, passphrase: str | None) -> Identity:
    """Make a new key for a directory whose key is no longer a member's; the old one is kept under its own name.

    Durable on return. After a crash there is still a key in use, and a second call finishes the work.
    """
    new = create_next(home, passphrase)
    adopt_next(home, new.public_key)
    return new


def adopt_next(home: Home, successor: bytes) -> bool:
    """Replace the key in use by the next key, if that is `successor`; the old one is kept under its own name.

    Durable on return. There is a key in use at every moment: after a crash a second call finishes the work.
    """
    with disk_errors(home.next_key):
        if public_of(home.next_key) != successor:
            return public_of(home.key) == successor
        old = public_of(home.key)
        if old is not None:
            with suppress(FileExistsError):  # after a crash in between
                _keep(home.key, kept(home, old))
            sync_folder(home.root)
        home.next_key.replace(home.key)
        sync_folder(home.root)
    return True


def needs_passphrase(home: Home, path: Path | None = None) -> bool:
    """Whether `load` needs a passphrase. Raises as `load` does for a file that is missing or open to others."""
    _finish_move(home)
    return is_sealed(_read(path or home.key))


def kept(home: Home, public_key: bytes) -> Path:
    """Return the file of an earlier key."""
    return home.root / f"key.{public_key.hex()[:16]}.json"


def former(home: Home) -> frozenset[bytes]:
    """Return the public keys of this directory's earlier keys, from their files."""
    keys = {public_of(path) for path in home.root.glob("key.*.json") if path != home.next_key}
    return frozenset(key for key in keys if key is not None and key != public_of(home.key))


def _finish_move(home: Home) -> None:
    """Put the next key in place if no key is in use: earlier versions of `adopt_next` could leave that."""
    with disk_errors(home.key):
        _sweep(home)
        if home.next_key.exists() and not os.path.lexists(home.key):
            home.next_key.rename(home.key)
            sync_folder(home.root)


def _sweep(home: Home) -> None:
    """Delete temporary key files that a crash left: each holds a secret, or part of one."""
    for path in home.root.glob(f"key*.json.*{TEMPORARY}"):
        with suppress(FileNotFoundError):
            # A recent one may belong to a running process.
            if _LEFT.fullmatch(path.name) and abs(time.time() - path.lstat().st_mtime) > 60:
                path.unlink()


def _keep(path: Path, copy: Path) -> None:
    """Give a file a second name, or where the file system has no hard links, a whole copy. Raises FileExistsError."""
    try:
        copy.hardlink_to(path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(copy):
            raise FileExistsError(copy) from None
        write_atomic(copy, path.read_bytes())


def _make(path: Path, content: bytes) -> None:
    """Make a file that is complete or missing, where there are no hard links. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def public_of(path: Path) -> bytes | None:
    """Return the public key in a key file, sealed or not; None if it cannot be read."""
    try:
        return bytes.fromhex(json.loads(path.read_bytes())["public_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _create(home: Home, path: Path, passphrase: str | None) -> Identity:
    identity = Identity.generate()
    content = seal(identity, passphrase)
    home.make()
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    with disk_errors(path):
        write_atomic(whole, content)
        try:
            try:
                path.hardlink_to(whole)  # a rename would replace an existing key
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _make(path, content)
        except FileExistsError:
            raise RefusedError(
                f"There is a key already: {path}",
                "A member is its key, so it is never overwritten. Use it, or choose another directory.",
            ) from None
        finally:
            whole.unlink()
        sync_folder(path.parent)
    return identity


def _read(path: Path) -> bytes:
    with disk_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            advice = "Run `collegium init` there first, or name the node's directory."
            raise UsageError(f"There is no key in {path.parent}", advice) from None
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"{path} is not a file", "Put the node's key there.")
            if mode & 0o077:
                raise RefusedError(
                    f"Others may read the key {path} (mode {stat.S_IMODE(mode):04o})",
                    f"Run: chmod 600 {path}. If somebody else uses this machine, count the key as stolen.",
                )
            return file.read(FILE_LIMIT + 1)
