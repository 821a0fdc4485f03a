"""Update bytes and checkpoints as they lie on a disk. Unlike the daemon's own blob store this changes nothing there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..store.blobs import BLOB_LIMIT


class Bytes(Protocol):
    """Where a check finds update bytes."""

    def get(self, digest: bytes) -> bytes | None:
        """Return the bytes stored under this name, unchecked; None if there are none."""
        ...

    def has(self, digest: bytes) -> bool:
        """Whether anything of these bytes is stored, a cut pull included."""
        ...


@dataclass(frozen=True, slots=True)
class Disk:
    """The blob folder of a node's directory (node/store/blobs.py gives its layout)."""

    folder: Path

    def get(self, digest: bytes) -> bytes | None:
        """Return the file's bytes, unchecked; None if there is no file, or it cannot be read whole."""
        try:
            with self._path(digest).open("rb") as file:
                return file.read(BLOB_LIMIT + 1)
        except OSError:
            return None

    def has(self, digest: bytes) -> bool:
        """Whether a file of this name is there, whole, cut or in quarantine."""
        name = digest.hex()
        return any(p.exists() for p in (self._path(digest), self.folder / "partial" / name, self._quarantined(name)))

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / name[2:4] / name

    def _quarantined(self, name: str) -> Path:
        return self.folder / "quarantine" / name


def checkpoints(folder: Path) -> frozenset[bytes]:
    """Return the chains of all states stored under a node's state folder, by their names.

    Take them before reading the ledger: a state stored in between would look like one that is not in the ledger.
    """
    digests = set()
    for path in folder.glob("*/*.state"):
        try:
            digests.add(bytes.fromhex(path.stem))
        except ValueError:
            continue
    return frozenset(digests)
