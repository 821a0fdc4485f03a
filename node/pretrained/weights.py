"""Tensors in safetensors files: read with limits, nothing allocated by what a header claims; written in one way only.

A file is eight bytes (the length of the header, little-endian), a header in JSON, and the numbers. A file of `written`
has its tensors and keys in one order and no white space, so its bytes depend on the tensors alone.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError

AGAIN = "Fetch the model again, and see that its files are whole."
HEADER_LIMIT = 100 << 20  # bytes, as safetensors has it
CHUNK = 16 << 20
MOST_AXES = 8
# Of each type of float: its size in bytes; as what it is read, a float or bits; which bits are the exponent's.
FLOATS: Mapping[str, tuple[int, str, int]] = {
    "F64": (8, "<f8", 0),
    "F32": (4, "<f4", 0),
    "F16": (2, "<f2", 0),
    "BF16": (2, "<u2", 0x7F80),
}
SIZES: Mapping[str, int] = {
    **{name: size for name, (size, _, _) in FLOATS.items()},
    "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor in a file, from byte `begin` to `end`."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Values:
    """A tensor that is still to be written; `parts` makes its bytes, little-endian, when they are needed."""

    dtype: str
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[bytes]]


def header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, after checking that they are all there. Raises UsageError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise UsageError(f"{path} is no safetensors file, or only the beginning of one ({size} bytes)", AGAIN)
        text = file.read(length)
    try:
        entries = json.loads(text)
        tensors = {
            name: Tensor(path, entry["dtype"], _shape(entry), *(8 + length + at for at in _offsets(entry)))
            for name, entry in entries.items()
            if name != "__metadata__"
        }
        for name, tensor in tensors.items():
            if tensor.dtype not in SIZES:
                raise UsageError(f"{path}: {name} has numbers of type {tensor.dtype}, which are not supported", AGAIN)
            if tensor.end - tensor.begin != SIZES[tensor.dtype] * prod(tensor.shape):
                raise ValueError(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} has a damaged header ({error})", AGAIN) from error
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if end != size:
        what = "is cut short" if end > size else "has more than its header says"
        raise UsageError(f"{path} {what}: it has {size} bytes, and its header tells of {end}", AGAIN)
    places = sorted((tensor.begin, tensor.end) for tensor in tensors.values())
    if any(here[1] != after[0] for here, after in zip(places, [*places[1:], (end, end)], strict=True)):
        raise UsageError(f"{path} has tensors that overlap, or bytes between them that belong to none", AGAIN)
    return tensors


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = entry["shape"]
    if type(shape) is not list or len(shape) > MOST_AXES:
        raise ValueError("shape")
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        raise ValueError("shape")
    return tuple(shape)


def _offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise ValueError("data_offsets")
    return begin, end


def chunks(tensor: Tensor) -> Iterator[bytes]:
    """Read a tensor's bytes, some at a time."""
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        for at in range(tensor.begin, tensor.end, CHUNK):
            yield file.read(min(CHUNK, tensor.end - at))


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite."""
    return tensor.dtype not in FLOATS or all(_finite(tensor.dtype, chunk) for chunk in chunks(tensor))


def _finite(dtype: str, data: bytes) -> bool:
    _, kind, exponent = FLOATS[dtype]
    values: npt.NDArray[Any] = np.frombuffer(data, dtype=kind)
    return not ((values & exponent) == exponent).any() if exponent else bool(np.isfinite(values).all())


def written(tensors: Mapping[str, Values]) -> Iterator[bytes]:
    """Return a safetensors file, part by part."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without it transformers refuses the file
    at = 0
    for name, values in sorted(tensors.items()):
        end = at + SIZES[values.dtype] * prod(values.shape)
        entries[name] = {"dtype": values.dtype, "shape": list(values.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, values in sorted(tensors.items()):
        yield from values.parts()
