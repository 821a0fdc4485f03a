"""The token of the page: whoever can read the home may see what the home holds."""

import os
import secrets
import stat

from ...crypto.errors import CorruptError, RefusedError
from ..home.paths import Home
from ..store.errors import disk_errors

SIZE = 32  # bytes
LENGTH = len(secrets.token_urlsafe(SIZE))


def token(home: Home) -> str:
    """Return the token in page.token (0600); it is made if it is missing.

    Raises RefusedError if others can read it, CorruptError if it is none.
    """
    path = home.page_token
    with disk_errors(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(SIZE) + "\n")
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise RefusedError(f"{path} is not a private file of this user", "Remove it: a new one is made.")
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(text) != LENGTH or not text.isascii():
        raise CorruptError(f"{path} does not hold a token", "Remove it: a new one is made.")
    return text
