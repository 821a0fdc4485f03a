"""Files of pictures and sound that a pretrained model reads: named when the data are loaded, read when they are needed.

A file is known by the digest of its bytes, so that its features can be kept, and looked up without decoding it again.
"""

from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import CorruptError
from .audio import AudioSpec, Floats, read_wav
from .images import read_colours


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file that was read once without an error; `audio` is how a sound is declared, None for a picture."""

    path: Path
    digest: bytes
    audio: AudioSpec | None = None

    @classmethod
    def of(cls, path: Path, audio: AudioSpec | None = None) -> "MediaFile":
        """Return the file at a path, by its digest."""
        return cls(path, _digest(path), audio)

    def samples(self) -> Floats:
        """Return a sound's samples [n], in [-1, 1) at the declared rate. Raises CorruptError if the file changed."""
        assert self.audio is not None
        self._check()
        return read_wav(self.path, self.audio)[0]

    def colours(self, size: int) -> npt.NDArray[np.float32]:
        """Return red, green and blue [3, size, size] in [0, 1]. Raises CorruptError if the file changed."""
        self._check()
        return read_colours(self.path, size)

    def _check(self) -> None:
        if _digest(self.path) != self.digest:
            raise CorruptError("a file of the data folder changed while it was read", "Try again.")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()
