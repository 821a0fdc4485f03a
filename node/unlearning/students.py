"""What a node notes of single students: who took part in which draw, and who must not take part any more.

    manifests/ROOT    one draw: a salt, and the tag under it of each student who was drawn. ROOT, a commitment to the
                      salt and to a sparse Merkle tree over blinded leaves at those tags, is in the header of every
                      update of the draw. Nobody can show another salt for it later, nor tell from it whether anybody
                      was drawn.
    excluded.json     a salt, and the tags of the students who are left out

A tag is of the cleaned id (node/data/spelling.py): all spellings that `clean` makes one have the same tag.
Nothing here names anybody: a tag is an HMAC of the id. Only a receipt for one student shows a salt, and with it this
student's place in the tree, which is empty; the others' places are not in it, and each draw has another salt.
"""

import fcntl
import hmac
import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from ...crypto import sparse
from ...crypto.errors import CorruptError, RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol import schema
from ...protocol.schema import Bytes32, Size
from ..data.spelling import clean
from ..home.paths import Home
from ..store.errors import disk_errors
from ..store.files import read_limited, sync_folder, write_atomic

LIMIT = 64 << 20
RESTORE = "Restore a backup of it: it says who must not be trained on."
NONE = bytes(32)  # the root of an update whose learner named nobody


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who was drawn, as tags under `salt`; `blind` hides the leaves and is never shown."""

    salt: Bytes32
    blind: Bytes32
    tags: Annotated[tuple[Annotated[bytes, Size(8, 8)], ...], Size(0, 2**22)]

    def leaves(self) -> dict[bytes, bytes]:
        """Return the leaves by position."""
        return {tag: hmac.digest(self.blind, tag, "sha256") for tag in self.tags}

    def root(self) -> bytes:
        """Return the root that update headers name."""
        return manifest_root(self.salt, sparse.root(self.leaves()))

    def has(self, subject: str) -> bool:
        """Whether a student was drawn."""
        return tag(self.salt, subject) in self.tags


def tag(salt: bytes, subject: str) -> bytes:
    """Return where a student's leaf is under this salt, 8 bytes; the same for every spelling that `clean` makes one."""
    return hmac.digest(salt, b"student" + clean(subject).encode(), "sha256")[: sparse.POSITION_BYTES]


def manifest_root(salt: bytes, tree: bytes) -> bytes:
    """Return how headers name a manifest: both parts are bound, and without the salt neither shows."""
    return digest("manifest", salt, tree)


class Manifests:
    """The folder of manifests; made when the first one is written (mode 0700)."""

    def __init__(self, home: Home) -> None:
        self.folder = home.root / "manifests"

    def put(self, subjects: Iterable[str]) -> bytes:
        """Write down who was drawn; durable on return. Returns the root."""
        salt = os.urandom(32)
        made = Manifest(salt, os.urandom(32), tuple(sorted({tag(salt, subject) for subject in subjects})))
        root = made.root()
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            write_atomic(self.folder / root.hex(), schema.dump(made))
        return root

    def get(self, root: bytes) -> Manifest | None:
        """Return a manifest; None if there is none. Raises CorruptError."""
        path = self.folder / root.hex()
        with disk_errors(path):
            try:
                data = read_limited(path, LIMIT)
            except FileNotFoundError:
                return None
        try:
            found = schema.load(Manifest, data or b"", LIMIT)
        except RemoteProtocolError as error:
            raise CorruptError(f"{path} is damaged: {error.reason}", "Restore a backup of it.") from error
        if found.root() != root:
            raise CorruptError(f"{path} is damaged: it is not the manifest of its name", "Restore a backup of it.")
        return found

    def roots(self) -> list[bytes]:
        """Return the roots of all manifests."""
        if not self.folder.is_dir():
            return []
        return sorted(bytes.fromhex(path.name) for path in self.folder.iterdir() if len(path.name) == 64)

    def of(self, subject: str) -> set[bytes]:
        """Return the roots of the draws in which a student was. Raises CorruptError."""
        return {root for root in self.roots() if (found := self.get(root)) is not None and found.has(subject)}

    def delete(self, roots: Collection[bytes]) -> int:
        """Delete manifests, durably; return how many there were."""
        paths = [path for root in roots if (path := self.folder / root.hex()).exists()]
        with disk_errors(self.folder):
            for path in paths:
                path.unlink(missing_ok=True)
            if paths:
                sync_folder(self.folder)
        return len(paths)


@dataclass(frozen=True, slots=True)
class Excluded:
    """Who is left out of training and evaluation: tags of 32 bytes under one salt."""

    salt: bytes = b""
    tags: frozenset[bytes] = frozenset()

    def has(self, subject: str) -> bool:
        """Whether a student is left out."""
        return bool(self.tags) and _long(self.salt, subject) in self.tags


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node knows of one student: the updates that saw them, by header digest, `unknown` ones among them.

    Of an `unknown` one nobody can tell whom it saw: it counts as having seen everybody. `in_data`: whether the data
    have this id; None if no learner has read them. `drawn`: whether a manifest that is here has it. `left_out`:
    whether the student is left out of training.
    """

    updates: frozenset[bytes]
    unknown: frozenset[bytes]
    in_data: bool | None
    drawn: bool = False
    left_out: bool = False


def _long(salt: bytes, subject: str) -> bytes:
    return hmac.digest(salt, b"excluded" + clean(subject).encode(), "sha256")


def load_excluded(home: Home) -> Excluded:
    """Read who is left out. Raises CorruptError: somebody forgotten here would be trained on again."""
    path = home.root / "excluded.json"
    with disk_errors(path):
        try:
            data = read_limited(path, LIMIT)
        except FileNotFoundError:
            return Excluded()
    try:
        found = json.loads(data or b"")
        salt, tags = bytes.fromhex(found["salt"]), frozenset(map(bytes.fromhex, found["tags"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is damaged", RESTORE) from error
    if len(salt) != 32 or any(len(item) != 32 for item in tags):
        raise CorruptError(f"{path} is damaged", RESTORE)
    return Excluded(salt, tags)


def exclude(home: Home, subject: str) -> Excluded:
    """Leave a student out from now on; durable on return. Of several at once none is lost."""
    with _alone(home):
        known = load_excluded(home)
        salt = known.salt or os.urandom(32)
        grown = Excluded(salt, known.tags | {_long(salt, subject)})
        text = json.dumps({"salt": salt.hex(), "tags": sorted(item.hex() for item in grown.tags)}, indent=1) + "\n"
        write_atomic(home.root / "excluded.json", text.encode())
    return grown


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Lock the directory itself: the file is replaced, so that a lock on it would not keep the next one out."""
    with disk_errors(home.root):
        descriptor = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
