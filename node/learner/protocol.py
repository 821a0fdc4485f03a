"""Frames between the daemon and its learner worker: 4 bytes of length, big-endian, and a MessagePack map. No torch.

This pipe never leaves the machine, so floats are allowed in it, unlike in records.

| request `op` | fields | response fields |
|---|---|---|
| `open` | data, components, learning, base_seed, hosted, seed | subjects, held_out, modalities, tasks, components |
| `train` | states, engaged, steps, sample_rate, lot | updates, saturated, scaled, seconds |
| `evaluate` | states, split | tasks: {name: {metric, value, n}} |
| `evaluate_variants` | states, variants, split | variants: [{task: {metric, value, n}}] |
| `predict_scores` | states, split | tasks: {name: {metric, subjects, scores, labels}} |
| `epsilon` | events, delta | epsilon, claimed |
| `budget` | modalities, components, sample_rate, steps, rounds, lines, … | allowed, reason, noises, modalities |
| `cross_check` | events, delta | pld, prv, error |
| `audit` | fault | findings, caught |

Every request carries `id` and `op`; the response repeats `id` and says `ok: true`, or `ok: false` with `error`,
`advice` and `exit_code` (crypto/errors.py; none is 1). While it trains, the worker also sends `{id, progress: done,
total}`. `worker.py` gives the types.
"""

import struct
from typing import Any, BinaryIO, Literal, get_args

import msgpack

from ...crypto.errors import CorruptError, OperatorError, RefusedError, UsageError, VerificationError

FRAME_LIMIT = 256 * 2**20
HEADER = 4
Operation = Literal[
    "open",
    "try_model",
    "respec",
    "train",
    "evaluate",
    "evaluate_variants",
    "predict_scores",
    "predict",
    "personalise",
    "epsilon",
    "budget",
    "cross_check",
    "audit",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Message = dict[str, Any]

_ERRORS: dict[Any, type[OperatorError]] = {
    kind.exit_code: kind for kind in (UsageError, CorruptError, RefusedError, VerificationError)
}


def failure(answer: Message) -> OperatorError:
    """Return the error that an answer with `ok: false` tells of, of the class that the worker raised."""
    kind = _ERRORS.get(answer.get("exit_code"), OperatorError)
    return kind(str(answer.get("error", "refused")), str(answer.get("advice", "")))


class BrokenStreamError(CorruptError):
    """A frame longer than FRAME_LIMIT, or cut short: where the next one begins is not known, so the stream is lost."""


def encode_frame(message: Message) -> bytes:
    """Return a message as one frame. Raises BrokenStreamError above FRAME_LIMIT."""
    body = msgpack.packb(message, use_bin_type=True)
    if len(body) > FRAME_LIMIT:
        raise BrokenStreamError(f"a frame of {len(body)} bytes", f"At most {FRAME_LIMIT} fit.")
    return struct.pack(">I", len(body)) + bytes(body)


def frame_length(header: bytes) -> int:
    """Return the length of the body that a 4-byte header announces. Raises BrokenStreamError above FRAME_LIMIT."""
    (length,) = struct.unpack(">I", header)
    if length > FRAME_LIMIT:
        raise BrokenStreamError(f"a frame of {length} bytes is announced", f"At most {FRAME_LIMIT} fit.")
    return int(length)


def decode_frame(body: bytes) -> Message:
    """Return the message of a frame's body (without the header). Raises CorruptError if it is no map with text keys."""
    try:
        message = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise CorruptError(f"no frame: {error}") from error
    if type(message) is not dict or not all(type(key) is str for key in message):
        raise CorruptError("a frame that holds no map with text keys")
    return message


def read_frame(stream: BinaryIO) -> Message | None:
    """Read one frame; None at the end of the stream.

    Raises BrokenStreamError (too long, before anything is allocated; cut short) or CorruptError (no map).
    """
    header = _exactly(stream, HEADER)
    if header is None:
        return None
    body = _exactly(stream, frame_length(header))
    if body is None:
        raise BrokenStreamError("the stream ended inside a frame")
    return decode_frame(body)


def write_frame(stream: BinaryIO, message: Message) -> None:
    """Write one frame and flush."""
    stream.write(encode_frame(message))
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
