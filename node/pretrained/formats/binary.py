"""Numbers, texts and arrays from a binary file, never beyond its end."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....crypto.errors import CorruptError
from ..weights import Values


class Reader:
    """A file that is mapped into memory, and a place in it. Raises CorruptError where the file ends too early."""

    def __init__(self, path: Path) -> None:
        try:
            self._data: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise CorruptError(f"cannot read {path} ({error})", "Install its package again.") from error
        self._path = path
        self.at = 0

    def fail(self, what: str) -> CorruptError:
        """Return the error of a file that is not what it should be."""
        return CorruptError(f"{self._path} is damaged, or of another version: {what}", "Install its package again.")

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Read little-endian numbers, as `struct` writes them."""
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))

    def number(self, form: str) -> Any:
        """Read one number."""
        return self.numbers(form)[0]

    def bytes(self, size: int) -> bytes:
        """Read so many bytes."""
        return self.array("u1", size).tobytes()

    def text(self, size: int) -> str:
        """Read a text of so many bytes."""
        try:
            return self.bytes(size).decode()
        except UnicodeDecodeError as error:
            raise self.fail("a name is no text") from error

    def array(self, kind: npt.DTypeLike, count: int, at: int | None = None) -> npt.NDArray[Any]:
        """Return `count` items of a type, a view of the file: from here on, or from the byte `at` on."""
        item = np.dtype(kind)
        begin = self.at if at is None else at
        end = begin + item.itemsize * count
        if not 0 <= begin <= end <= self._data.size:
            raise self.fail(f"it ends at {self._data.size} bytes, before {end}")
        if at is None:
            self.at = end
        return self._data[begin:end].view(item)


def half(array: npt.NDArray[Any]) -> Values:
    """Return an array in half precision, still to be written."""
    return Values("F16", array.shape, lambda: [np.ascontiguousarray(array, dtype="<f2").tobytes()])
