"""A founding on disk: at the founder who is invited and who has said what, at a member its invitation.

The charter is not in here: draft and signatures lie in charter.bin, as after `charter sign`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from ...crypto.errors import CorruptError, RemoteProtocolError, UsageError
from ...protocol import schema
from ...protocol.membership import STATEMENT_LIMIT, Application
from ...protocol.schema import MAX_MEMBERS, U32, U63, Between, Bytes32, Name, Size
from ...protocol.signing import SIGNATURE_SIZE
from ..home.paths import Home
from ..store.errors import disk_errors
from ..store.files import read_limited, write_atomic
from .messages import Word

VERSION = 1
INVITATION_LIMIT = 8192
LIMIT = 16 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class Invited:
    """One invited member. `invitation`, `application` and `word` are signed statements; the last two may be empty."""

    name: Name
    token_key: Bytes32
    expires: U63
    invitation: Annotated[bytes, Size(1, INVITATION_LIMIT)]
    application: Annotated[bytes, Size(0, STATEMENT_LIMIT + SIGNATURE_SIZE)] = b""
    word: Annotated[bytes, Size(0, Word.LIMIT + SIGNATURE_SIZE)] = b""

    def entered(self) -> Application | None:
        """Return what it handed in, if it came; the signature was checked on arrival."""
        wire = self.application[SIGNATURE_SIZE:]
        return schema.load(Application, wire, Application.LIMIT) if wire else None

    def said(self, draft: bytes) -> str:
        """Return its last word on this draft, or ""."""
        wire = self.word[SIGNATURE_SIZE:]
        word = schema.load(Word, wire, Word.LIMIT) if wire else None
        return word.word if word is not None and word.draft == draft else ""


@dataclass(frozen=True, slots=True)
class FounderRecord:
    """The founder's. The seed and the time are those of the charter, so that the same options give the same bytes.

    `left_out` are the names of who was invited, and is not any more.
    """

    version: Annotated[int, Between(VERSION, VERSION)]
    founding: Bytes32
    seed: Bytes32
    created: U32
    invited: Annotated[tuple[Invited, ...], Size(0, MAX_MEMBERS)]
    left_out: Annotated[tuple[Name, ...], Size(0, MAX_MEMBERS)] = ()


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A member's: the invitation that it came by, and the name that it gave."""

    version: Annotated[int, Between(VERSION, VERSION)]
    invitation: Annotated[bytes, Size(1, INVITATION_LIMIT)]
    name: Name


R = TypeVar("R", FounderRecord, MemberRecord)


def load(cls: type[R], path: Path) -> R | None:
    """Return the record in a file, None if there is none. Raises CorruptError naming the file."""
    try:
        data = read_limited(path, LIMIT)
    except FileNotFoundError:
        return None
    try:
        return schema.load(cls, data or b"", LIMIT)
    except RemoteProtocolError as error:
        raise CorruptError(
            f"{path} is damaged, or another release's ({error.reason})", "Remove it, and begin the founding anew."
        ) from error


def save(path: Path, record: FounderRecord | MemberRecord) -> None:
    """Write a record; after a crash the file holds the old or the new one."""
    write_atomic(path, schema.dump(record))


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Hold the founding of this home until the block is left. Raises UsageError if another command has it."""
    with disk_errors(home.founding_lock):
        descriptor = os.open(home.founding_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another command founds or joins in {home.root} at this moment", "Go on there, or stop it first."
            ) from None
        yield
    finally:
        os.close(descriptor)
