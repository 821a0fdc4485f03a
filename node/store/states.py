"""Component states on disk, by component and chain digest (consensus/components.py defines the chain).

A file is magic, round, number of parameters, the values (int32, little-endian) and a SHA-256 over all of that, the
component and the chain. Writes are not fsynced: a state can be recomputed from blocks and blobs at any time, so a torn
or lost file costs a refold and no more. Before a state's blobs are deleted it is made durable (`sync`). Removals are
fsynced: a withdrawn contribution must not come back (G7).
"""

import hashlib
import os
import struct
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

from ...crypto.errors import LocalProtocolError
from .errors import disk_errors
from .files import TEMPORARY, read_limited, sync_folder, write_atomic

log = structlog.get_logger(__name__)

MAGIC = b"CLGSTAT1"
DIMENSION_LIMIT = 2**26  # parameters, as in protocol/charter.py
_HEADER = struct.Struct(">8sQQ")
_TRAILER = 32
_LIMIT = _HEADER.size + 4 * DIMENSION_LIMIT + _TRAILER
_SUFFIX = ".state"
_PART = ".part"


def file_size(dimension: int) -> int:
    """Return the size of the file that holds a state of d parameters."""
    return _HEADER.size + 4 * dimension + _TRAILER


class States:
    """A folder of states, made if it is missing (mode 0700)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changing = threading.Lock()  # `prune` would take a file that `put` is writing for one that a crash left
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, component: str, round_: int, chain: bytes, state: npt.NDArray[np.int32]) -> None:
        """Store a state, shape [d], int32. A reader sees all of it or nothing. Raises DiskFullError."""
        if state.dtype != np.int32 or state.ndim != 1 or state.size > DIMENSION_LIMIT:
            raise LocalProtocolError(f"a state is int32 of shape [d], not {state.dtype} of shape {state.shape}")
        path = self._path(component, chain)
        header = _HEADER.pack(MAGIC, round_, state.size)
        values = np.ascontiguousarray(state, dtype="<i4").view(np.uint8).data
        with self._changing, disk_errors(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(path, header, values, _seal(component, chain, header, values), durable=False)

    def get(self, component: str, chain: bytes) -> npt.NDArray[np.int32] | None:
        """Return a state, read-only, shape [d], int32; None if there is none, or if it was damaged (it is deleted)."""
        path = self._path(component, chain)
        with disk_errors(path):
            try:
                data = read_limited(path, _LIMIT)
            except FileNotFoundError:
                return None
            state = None if data is None else _read(component, chain, data)
            if state is None:
                log.warning(
                    "a stored state was damaged and will be computed again", component=component, path=str(path)
                )
                path.unlink(missing_ok=True)
        return state

    def sync(self, component: str, chain: bytes) -> bool:
        """Make a stored state durable; False if there is none that can be read."""
        if self.get(component, chain) is None:
            return False
        path = self._path(component, chain)
        with disk_errors(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(path.parent)
            sync_folder(self.folder)
        return True

    def find(self, component: str, chain: bytes) -> tuple[Path, int] | None:
        """Return the path and the size of a state's file, which a neighbour may copy."""
        path = self._path(component, chain)
        with disk_errors(path):
            try:
                return path, path.stat().st_size
            except FileNotFoundError:
                return None

    def incoming(self, component: str, chain: bytes) -> Path:
        """Return the file into which a neighbour's copy is written, bit by bit; it outlives an interruption.

        There is one a component: files of another state are removed.
        """
        folder = self._folder(component)
        path = folder / (chain.hex() + _PART)
        with disk_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            for other in folder.iterdir():
                if other.name.endswith(_PART) and other != path:
                    other.unlink(missing_ok=True)
        return path

    def received(self, component: str, chain: bytes) -> npt.NDArray[np.int32] | None:
        """Return the state that came whole, shape [d], int32, and remove the copy; None if it is damaged."""
        path = self.incoming(component, chain)
        with disk_errors(path):
            data = read_limited(path, _LIMIT)
            path.unlink()
        return None if data is None else _read(component, chain, data)

    def prune(self, component: str, keep_chains: Collection[bytes]) -> int:
        """Delete a component's states but those of `keep_chains`, and what crashes left; return how many.

        Durable on return.
        """
        names = {chain.hex() + suffix for chain in keep_chains for suffix in (_SUFFIX, _PART)}
        folder = self._folder(component)
        count = 0
        if folder.is_dir():
            with self._changing, disk_errors(folder):
                for path in list(folder.iterdir()):
                    if path.name not in names and path.name.endswith((_SUFFIX, _PART, TEMPORARY)):
                        path.unlink(missing_ok=True)
                        count += 1
                sync_folder(folder)
        return count

    def _folder(self, component: str) -> Path:
        # A hash: names of components contain "/", and nothing in a charter may choose a path on this machine.
        return self.folder / hashlib.sha256(component.encode()).hexdigest()[:32]

    def _path(self, component: str, chain: bytes) -> Path:
        if len(chain) != 32:
            raise LocalProtocolError(f"a chain digest has 32 bytes, not {len(chain)}")
        return self._folder(component) / (chain.hex() + _SUFFIX)


def _seal(component: str, chain: bytes, *parts: bytes | memoryview) -> bytes:
    name = component.encode()
    seal = hashlib.sha256(chain + len(name).to_bytes(8, "big") + name)
    for part in parts:
        seal.update(part)
    return seal.digest()


def _read(component: str, chain: bytes, data: bytes) -> npt.NDArray[np.int32] | None:
    if len(data) < _HEADER.size + _TRAILER:
        return None
    content = memoryview(data)
    magic, _round, dimension = _HEADER.unpack_from(data)
    if magic != MAGIC or len(data) != _HEADER.size + 4 * dimension + _TRAILER:
        return None
    if _seal(component, chain, content[:-_TRAILER]) != data[-_TRAILER:]:
        return None
    values = np.frombuffer(data, dtype="<i4", count=dimension, offset=_HEADER.size)
    return values.astype(np.int32, copy=False)
