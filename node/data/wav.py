"""PCM .wav files: the chunks of RIFF, also WAVE_FORMAT_EXTENSIBLE. Sizes are checked before anything is read."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...crypto.errors import CorruptError
from .absent import absent

PCM, EXTENSIBLE = 1, 0xFFFE
SUBFORMAT = bytes.fromhex("0000000010008000 00aa00389b71".replace(" ", ""))  # of every format, after its number
MAX_CHANNELS, MAX_BYTES = 32, 256 << 20  # bytes of samples that are read
MAX_CHUNKS = 1000
CONVERT = "Convert it to PCM .wav (8, 16, 24 or 32 bit)."


@dataclass(frozen=True, slots=True)
class Wav:
    """A clip: its shape, how many frames (samples of all channels) the file has, and the bytes of the first ones."""

    rate: int
    channels: int
    width: int
    frames: int
    raw: bytes


def read(path: Path, seconds: float) -> Wav:
    """Read the samples of the first `seconds`.

    Raises CorruptError (no file, no PCM, damaged) without the file's name.
    """
    if not path.is_file():
        raise absent(path)
    try:
        with path.open("rb") as file:
            return _read(file, seconds)
    except (OSError, struct.error) as error:
        raise CorruptError("the file cannot be read: it is damaged or cut off", CONVERT) from error


def _read(file: BinaryIO, seconds: float) -> Wav:
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise CorruptError("the file cannot be read: it is no .wav", CONVERT)
    shape: tuple[int, int, int] | None = None
    for _ in range(MAX_CHUNKS):
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"fmt ":
            shape = _shape(file.read(min(size, 40)))
            file.seek(max(0, size - 40) + size % 2, 1)
        elif name == b"data":
            if shape is None:
                break
            return _samples(file, shape, size, seconds)
        else:
            file.seek(size + size % 2, 1)
    raise CorruptError("the file cannot be read: it has no samples", CONVERT)


def _shape(head: bytes) -> tuple[int, int, int]:
    """Return rate, channels and bytes of a sample."""
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", head[:16])
    if tag == EXTENSIBLE and len(head) == 40 and head[26:] == SUBFORMAT:
        tag = int.from_bytes(head[24:26], "little")
    width = -(-bits // 8)
    if tag != PCM:
        raise CorruptError("the file cannot be read: it is not PCM", CONVERT)
    if not 1 <= width <= 4:
        raise CorruptError(f"the file cannot be read: {bits} bit", CONVERT)
    if not 1 <= channels <= MAX_CHANNELS or block != channels * width or rate < 1:
        raise CorruptError("the file cannot be read: it is damaged", CONVERT)
    return rate, channels, width


def _samples(file: BinaryIO, shape: tuple[int, int, int], size: int, seconds: float) -> Wav:
    rate, channels, width = shape
    frames = size // (channels * width)
    wanted = min(frames, round(rate * seconds)) * channels * width
    if wanted > MAX_BYTES:
        raise CorruptError(f"the clip's first {seconds:g} s have more than {MAX_BYTES >> 20} MiB", "Lower max_seconds.")
    raw = file.read(wanted)
    if not raw or len(raw) != wanted:
        raise CorruptError("the file is empty or cut off", "Copy it again, or empty the cell.")
    return Wav(rate, channels, width, frames, raw)
