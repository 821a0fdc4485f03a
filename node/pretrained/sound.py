"""Whether a model's folder is whole: checked before its digest stands in a charter, and each time it is loaded.

A charter cannot be mended. What stands in it broken is refused by every learner for good, or, worse, taken: a tokenizer
that transformers makes up knows no word, and weights that are not numbers train nothing.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...crypto.errors import UsageError
from .families import Family
from .folder import CONFIG, WEIGHTS, Dimensions, configuration, decisive_files, dimensions
from .normal import Normalised
from .weights import AGAIN, Tensor, header, is_finite

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
    raw, family, model = configuration(folder)
    if "quantization_config" in raw:
        raise UsageError(f"{paths[CONFIG]}: quantised weights are not supported", "Take the model as it was before.")
    highest = _highest_id(folder, paths) if family.words else -1
    tensors = {}
    for name, path in paths.items():
        if name.endswith(WEIGHTS):
            tensors.update(header(path))
    if INDEX in paths:
        _check_index(paths, tensors)
    if model is None:
        rows = _check_names(folder, family, dimensions(folder), tensors)
    else:
        rows = _check_shapes(folder, model, tensors)
    if highest >= rows:
        raise UsageError(
            f"the tokenizer in {folder} has tokens up to number {highest}, its model embeddings of {rows} only:"
            " they do not belong together",
            "Take both from the same release of the model.",
        )
    for name, tensor in tensors.items():
        if not is_finite(tensor):
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
        added = whole.get("added_tokens") or []
        if type(added) is not list:
            raise UsageError(f"{paths['tokenizer.json']} has added_tokens that are no list", AGAIN)
        ids += [token.get("id") for token in added if type(token) is dict]
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


def _check_index(paths: Mapping[str, Path], tensors: Mapping[str, Tensor]) -> None:
    listed = _json(paths[INDEX]).get("weight_map")
    if type(listed) is not dict:
        raise UsageError(f"{paths[INDEX]} has no weight_map", AGAIN)
    for name, shard in listed.items():
        if shard not in paths:
            raise UsageError(f"{paths[INDEX].parent} lacks {shard}, of which its index tells", AGAIN)
        if name not in tensors or tensors[name].path.name != shard:
            raise UsageError(f"{paths[shard]} lacks {name}, which its index says is there", AGAIN)


def _check_shapes(folder: Path, model: Normalised, tensors: Mapping[str, Tensor]) -> int:
    """Return the rows of an imported model's table of embeddings, after comparing all its tensors with its family's."""
    shapes = model.shapes
    for name in sorted(shapes.keys() | tensors.keys()):
        here = tensors[name].shape if name in tensors else None
        if here != shapes.get(name):
            what = "is missing" if here is None else f"is {list(here)}"
            raise UsageError(f"{folder}: {name} {what}, by {CONFIG} {list(shapes.get(name, ()))}", AGAIN)
    return shapes[model.family.words][0] if model.family.words else 0


def _check_names(folder: Path, family: Family, sizes: Dimensions, tensors: Mapping[str, Tensor]) -> int:
    """Return the number of rows of the table of embeddings, after looking for the tensors that the model reads."""
    before = next((start for start in ("", *family.prefixes) if start + WORDS in tensors), None)
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
