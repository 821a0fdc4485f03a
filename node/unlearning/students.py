"""A node's files about single students: the drawn ones of each training run, and the excluded ones.

    manifests/ROOT    one training run: a salt, and the tag under it of each drawn student. ROOT is a commitment to the
                      salt and to a sparse Merkle tree over blinded leaves at those tags; it is in the header of every
                      update of the run. No other salt fits it later, and it does not reveal whether anybody was drawn.
    excluded.json     a salt, and the tags of the students who are left out

A tag is of the cleaned id (node/data/spelling.py): all spellings with the same `clean` form have the same tag. Tags
name nobody: a tag is an HMAC of the id. Only a deletion receipt for one student shows a salt, and with it the empty
leaf of this student; the other leaves are not in it, and each run has another salt.
"""

import fcntl
import hmac
import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
    """The drawn students, as tags under `salt`; `blind` hides the leaves and is never shown."""

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
    """Return a student's leaf position under this salt, 8 bytes; equal for all spellings with the same `clean` form."""
    return hmac.digest(salt, b"student" + clean(subject).encode(), "sha256")[: sparse.POSITION_BYTES]


def manifest_root(salt: bytes, tree: bytes) -> bytes:
    """Return the digest by which headers name a manifest: it binds both parts, and hides them without the salt."""
    return digest("manifest", salt, tree)


class Manifests:
    """The folder of manifests; made when the first one is written (mode 0700)."""

    def __init__(self, home: Home) -> None:
        self.folder = home.root / "manifests"

    def put(self, subjects: Iterable[str]) -> bytes:
        """Write a manifest; durable on return. Returns the root."""
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
            manifest = schema.load(Manifest, data or b"", LIMIT)
        except RemoteProtocolError as error:
            raise CorruptError(f"{path} is damaged: {error.reason}", "Restore a backup of it.") from error
        if manifest.root() != root:
            raise CorruptError(f"{path} is damaged: it is not the manifest of its name", "Restore a backup of it.")
        return manifest

    def roots(self) -> list[bytes]:
        """Return the roots of all manifests."""
        if not self.folder.is_dir():
            return []
        return sorted(bytes.fromhex(path.name) for path in self.folder.iterdir() if len(path.name) == 64)

    def of(self, subject: str) -> set[bytes]:
        """Return the roots of the training runs that drew a student. Raises CorruptError."""
        return {root for root in self.roots() if (manifest := self.get(root)) is not None and manifest.has(subject)}

    def delete(self, roots: Collection[bytes]) -> int:
        """Delete manifests, durably; return their number."""
        paths = [path for root in roots if (path := self.folder / root.hex()).exists()]
        with disk_errors(self.folder):
            for path in paths:
                path.unlink(missing_ok=True)
            if paths:
                sync_folder(self.folder)
        return len(paths)


@dataclass(frozen=True, slots=True)
class Excluded:
    """The students left out of training and evaluation: tags of 32 bytes under one salt.

    `readmitted` counts those who were, and are no longer. `provisional` are those whom a withdrawal that was put off
    left out: until it is made `unlearn cancel` lets them in again.
    """

    salt: bytes = b""
    tags: frozenset[bytes] = frozenset()
    readmitted: int = 0
    provisional: frozenset[bytes] = frozenset()

    @property
    def total(self) -> int:
        """How many were ever left out: the database knows this number, so that a lost file is noticed."""
        return len(self.tags) + self.readmitted

    def tag(self, subject: str) -> bytes:
        """Return the tag that a student has here, left out or not."""
        return _long(self.salt, subject)

    def has(self, subject: str) -> bool:
        """Whether a student is left out."""
        return bool(self.tags) and _long(self.salt, subject) in self.tags


@dataclass(frozen=True, slots=True)
class Seen:
    """A node's knowledge of students: the updates that saw any of them, by header digest, including `unknown` ones.

    The students of an `unknown` update are not known: it counts as having seen all. `in_data`: whether the data have
    all these ids; None if no learner has read them. `drawn`: whether a manifest on this disk has each. `left_out`:
    whether all are left out of training. `to_come`: the Unix times at which withdrawals for them are to be made.
    """

    updates: frozenset[bytes]
    unknown: frozenset[bytes]
    in_data: bool | None
    drawn: bool = False
    left_out: bool = False
    to_come: tuple[int, ...] = ()


def _long(salt: bytes, subject: str) -> bytes:
    return hmac.digest(salt, b"excluded" + clean(subject).encode(), "sha256")


def load_excluded(home: Home) -> Excluded:
    """Read the excluded students. Raises CorruptError: a student lost here would be trained on again."""
    path = home.root / "excluded.json"
    with disk_errors(path):
        try:
            data = read_limited(path, LIMIT)
        except FileNotFoundError:
            return Excluded()
    try:
        content = json.loads(data or b"")
        salt, tags = bytes.fromhex(content["salt"]), frozenset(map(bytes.fromhex, content["tags"]))
        readmitted = int(content.get("readmitted", 0))
        provisional = frozenset(map(bytes.fromhex, content.get("provisional", [])))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is damaged", RESTORE) from error
    if len(salt) != 32 or any(len(item) != 32 for item in tags) or readmitted < 0 or not provisional <= tags:
        raise CorruptError(f"{path} is damaged", RESTORE)
    return Excluded(salt, tags, readmitted, provisional)


def exclude(home: Home, *subjects: str, provisional: bool = False) -> Excluded:
    """Leave students out from now on; durable on return, all or none. Concurrent calls lose none.

    `provisional`: those who were not left out before may be let in again (`readmit`), until `exclude_for_good`.
    """
    with _alone(home):
        excluded = load_excluded(home)
        salt = excluded.salt or os.urandom(32)
        new = {_long(salt, subject) for subject in subjects} - excluded.tags
        grown = replace(excluded, salt=salt, tags=excluded.tags | new)
        if provisional:
            grown = replace(grown, provisional=grown.provisional | new)
        _save(home, grown)
    return grown


def with_salt(home: Home) -> Excluded:
    """Return the excluded students, with a salt for the tags of others; durable on return."""
    with _alone(home):
        excluded = load_excluded(home)
        if not excluded.salt:
            excluded = replace(excluded, salt=os.urandom(32))
            _save(home, excluded)
    return excluded


def exclude_for_good(home: Home, tags: Collection[bytes]) -> None:
    """Let none of these students in again by `readmit`; durable on return."""
    with _alone(home):
        excluded = load_excluded(home)
        if excluded.provisional.intersection(tags):
            _save(home, replace(excluded, provisional=excluded.provisional.difference(tags)))


def readmit(home: Home, tags: Collection[bytes]) -> None:
    """Let those of these students in again who are left out provisionally; durable on return."""
    with _alone(home):
        excluded = load_excluded(home)
        back = excluded.provisional.intersection(tags)
        kept, left = excluded.tags - back, excluded.provisional - back
        _save(home, Excluded(excluded.salt, kept, excluded.readmitted + len(back), left))


def _save(home: Home, excluded: Excluded) -> None:
    content = {
        "salt": excluded.salt.hex(),
        "readmitted": excluded.readmitted,
        "tags": sorted(item.hex() for item in excluded.tags),
        "provisional": sorted(item.hex() for item in excluded.provisional),
    }
    write_atomic(home.root / "excluded.json", (json.dumps(content, indent=1) + "\n").encode())


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Lock the directory itself: the file is replaced, so a lock on it would not exclude the next writer."""
    with disk_errors(home.root):
        descriptor = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
