"""Frames between a learner worker and its client: 4 bytes of length, big-endian, and a body (messages.py)."""

import struct
from typing import BinaryIO

from ...crypto.errors import CorruptError

FRAME_LIMIT = 256 * 2**20
HEADER = 4


class BrokenStreamError(CorruptError):
    """A frame over FRAME_LIMIT, or cut short: the start of the next one is unknown, so the stream is lost."""


def frame(body: bytes) -> bytes:
    """Return a body as one frame. Raises BrokenStreamError above FRAME_LIMIT."""
    if len(body) > FRAME_LIMIT:
        raise BrokenStreamError(f"a frame of {len(body)} bytes", f"At most {FRAME_LIMIT} fit.")
    return struct.pack(">I", len(body)) + body


def frame_length(header: bytes) -> int:
    """Return the length of the body that a 4-byte header announces. Raises BrokenStreamError above FRAME_LIMIT."""
    (length,) = struct.unpack(">I", header)
    if length > FRAME_LIMIT:
        raise BrokenStreamError(f"a frame of {length} bytes is announced", f"At most {FRAME_LIMIT} fit.")
    return int(length)


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read the body of one frame; None at the end of the stream.

    Raises BrokenStreamError: too long (before anything is allocated), or cut short.
    """
    header = _exactly(stream, HEADER)
    if header is None:
        return None
    body = _exactly(stream, frame_length(header))
    if body is None:
        raise BrokenStreamError("the stream ended inside a frame")
    return body


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Write one frame and flush."""
    stream.write(frame(body))
    stream.flush()


def _exactly(stream: BinaryIO, size: int) -> bytes | None:
    parts, missing = [], size
    while missing:
        part = stream.read(min(missing, 2**20))
        if not part:
            if missing < size:
                raise BrokenStreamError("the stream ended inside a frame")
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
