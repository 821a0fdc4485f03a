"""Whether a model's folder is whole: checked before its digest stands in a charter, and each time it is loaded.

A charter cannot be mended. What stands in it broken is refused by every learner for good, or, worse, taken: a tokenizer
that transformers makes up knows no word, and weights that are not numbers train nothing.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from .folder import CONFIG, WEIGHTS, Dimensions, decisive_files, dimensions, prefix_of

AGAIN = "Fetch the model again, and see that its files are whole."
POINTER = b"version https://git-lfs"
WORDS = "embeddings.word_embeddings.weight"
INDEX = "model.safetensors.index.json"
# Each is a vocabulary by itself, or with the others of its line.
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt", "bpe.codes"),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("tokenizer.model",),
)
JSON_LIMIT = 256 << 20  # bytes: the tokenizer of a large vocabulary has 20 MB
HEADER_LIMIT = 100 << 20  # as safetensors has it
CHUNK = 16 << 20
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


class _Tensor(NamedTuple):
    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  # in the file
    end: int


def check_sound(folder: Path) -> None:
    """Raise UsageError, or CorruptError for a config.json that is no JSON, unless a model's folder is whole.

    Looked at are the tokenizer's files, the safetensors files' headers and sizes, the names of the tensors, every
    number of the weights (none is NaN or infinite), and that the vocabulary fits the table of embeddings. Read again
    only if a file's size or time changed. How the model embeds, only the learner can try.
    """
    _check(folder, tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in decisive_files(folder)))


@lru_cache(maxsize=16)
def _check(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> None:
    paths = {path.name: path for path, _, _ in files}
    for path in paths.values():
        _is_real(path)
    sizes = dimensions(folder)
    if "quantization_config" in _json(paths[CONFIG]):
        raise UsageError(f"{paths[CONFIG]}: quantised weights are not supported", "Take the model as it was before.")
    highest = _highest_id(folder, paths)
    tensors = {}
    for name, path in paths.items():
        if name.endswith(WEIGHTS):
            tensors.update(_header(path))
    if INDEX in paths:
        _check_index(paths, tensors)
    rows = _check_names(folder, prefix_of(folder), sizes, tensors)
    if highest >= rows:
        raise UsageError(
            f"the tokenizer in {folder} has tokens up to number {highest}, its model embeddings of {rows} only:"
            " they do not belong together",
            "Take both from the same release of the model.",
        )
    for name, tensor in tensors.items():
        if not all(_finite(tensor, chunk) for chunk in _chunks(tensor)):
            raise UsageError(f"{tensor.path}: {name} holds numbers that are NaN or infinite", AGAIN)


def _is_real(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from error
    if start == POINTER:
        raise UsageError(
            f"{path} is a pointer of git-lfs, not the file itself", "Run `git lfs pull` where the model was cloned."
        )
    if not start and path.name != "merges.txt":
        raise UsageError(f"{path} is empty", AGAIN)


def _highest_id(folder: Path, paths: Mapping[str, Path]) -> int:
    """Return the largest token id that the tokenizer's files name, -1 where only a library can tell."""
    if not any(all(name in paths for name in names) for names in VOCABULARIES):
        raise UsageError(
            f"{folder} has no tokenizer: without one every word would be read as unknown",
            "Put its files beside the weights: tokenizer.json, vocab.txt, or what else it was published with.",
        )
    ids: list[Any] = [-1]
    if "tokenizer.json" in paths:
        whole = _json(paths["tokenizer.json"])
        model = whole.get("model")
        words = model.get("vocab") if type(model) is dict else None
        if not words or type(words) not in (dict, list):
            raise UsageError(f"{paths['tokenizer.json']} has no vocabulary", AGAIN)
        ids += words.values() if type(words) is dict else [len(words) - 1]
        ids += [token.get("id") for token in whole.get("added_tokens") or () if type(token) is dict]
    elif "vocab.json" in paths:
        ids += _json(paths["vocab.json"]).values()
    elif "vocab.txt" in paths and "bpe.codes" not in paths:
        ids.append(paths["vocab.txt"].read_bytes().rstrip(b"\n").count(b"\n"))
    if "added_tokens.json" in paths:
        ids += _json(paths["added_tokens.json"]).values()
    if not all(type(number) is int for number in ids):
        raise UsageError(f"the tokenizer in {folder} has token numbers that are none", AGAIN)
    return int(max(ids))


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise UsageError(f"{path} is over {JSON_LIMIT >> 20} MiB", AGAIN)
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error})", AGAIN) from error
    if type(value) is not dict:
        raise UsageError(f"{path} is no JSON object", AGAIN)
    return value


def _header(path: Path) -> dict[str, _Tensor]:
    """Return the tensors of a safetensors file, after checking that they are all there. Raises UsageError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise UsageError(f"{path} is no safetensors file, or only the beginning of one ({size} bytes)", AGAIN)
        text = file.read(length)
    try:
        header = json.loads(text)
        tensors = {
            name: _Tensor(path, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in _offsets(entry)))
            for name, entry in header.items()
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
    return tensors


def _offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise ValueError("data_offsets")
    return begin, end


def _check_index(paths: Mapping[str, Path], tensors: Mapping[str, _Tensor]) -> None:
    listed = _json(paths[INDEX]).get("weight_map")
    if type(listed) is not dict:
        raise UsageError(f"{paths[INDEX]} has no weight_map", AGAIN)
    for name, shard in listed.items():
        if shard not in paths:
            raise UsageError(f"{paths[INDEX].parent} lacks {shard}, of which its index tells", AGAIN)
        if name not in tensors or tensors[name].path.name != shard:
            raise UsageError(f"{paths[shard]} lacks {name}, which its index says is there", AGAIN)


def _check_names(folder: Path, prefix: str, sizes: Dimensions, tensors: Mapping[str, _Tensor]) -> int:
    """Return the number of rows of the table of embeddings, after looking for the tensors that the model reads."""
    before = next((start for start in ("", f"{prefix}.") if start + WORDS in tensors), None)
    if before is None:
        foreign = sorted(name.removesuffix(WORDS) for name in tensors if name.endswith(WORDS))
        if foreign:
            raise UsageError(
                f"the tensors in {folder} are called {foreign[0]}…: the model would read none of them",
                f"They were saved from a wrapper (DataParallel?): save them again without {foreign[0]!r}.",
            )
        raise UsageError(f"the weights in {folder} lack {WORDS}", "Is it a text encoder? Fetch the model again.")
    modules = [f"{before}{name}.weight" for names in sizes.projections.values() for name in names]
    lacking = [name for name in modules if name not in tensors]
    if lacking:
        raise UsageError(f"the weights in {folder} lack {', '.join(lacking[:3])}", AGAIN)
    shape = tensors[before + WORDS].shape
    if len(shape) != 2 or shape[1] != sizes.hidden:
        raise UsageError(f"{folder}: {WORDS} is {list(shape)}, and {CONFIG} says {sizes.hidden} wide", AGAIN)
    return shape[0]


def _chunks(tensor: _Tensor) -> Iterator[bytes]:
    if tensor.dtype not in FLOATS:
        return
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        for at in range(tensor.begin, tensor.end, CHUNK):
            yield file.read(min(CHUNK, tensor.end - at))


def _finite(tensor: _Tensor, data: bytes) -> bool:
    _, kind, exponent = FLOATS[tensor.dtype]
    values: npt.NDArray[Any] = np.frombuffer(data, dtype=kind)
    return not ((values & exponent) == exponent).any() if exponent else bool(np.isfinite(values).all())
