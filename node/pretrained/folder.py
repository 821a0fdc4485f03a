"""A model's folder: the digest of the files that decide its embeddings, and its dimensions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from ...crypto.errors import CorruptError, UsageError
from ...crypto.hashing import digest
from .families import Family
from .normal import Normalised, family_of, read

CONFIG = "config.json"
CONFIG_LIMIT = 16 << 20  # bytes
WEIGHTS = ".safetensors"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")  # opening one of these runs what it says
# Everything else that transformers reads to load a model and its tokenizer.
DECISIVE = frozenset(
    {
        CONFIG,
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "bpe.codes",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
    }
)
READ_BY_ITSELF = "adapter_config.json"  # transformers would put the adapter on the model, unasked


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What adapters and prompts must know of a model.

    All projections read `hidden` features. Those in `outputs` make another number of them, all others `hidden` again.
    """

    hidden: int  # the width of its embeddings
    layers: int
    positions: int  # tokens of one text, special ones and prompt included, at most
    projections: Mapping[str, tuple[str, ...]]  # "query", "key", "value" -> the names of the modules, layer by layer
    outputs: Mapping[str, int] = field(default_factory=dict)  # by the name of the module


def is_model(folder: Path) -> bool:
    """Whether the folder looks like a model's: a configuration and weights, be they ones that `check` will refuse."""
    return (folder / CONFIG).is_file() and any(any(folder.glob(name)) for name in (f"*{WEIGHTS}", *PICKLED))


def weights_digest(folder: Path) -> bytes:
    """Return the digest of a model, 32 bytes: over the names and bytes of the files that decide its embeddings.

    Read again only if a file's size or time changed. Raises UsageError for a folder without safetensors weights.
    """
    return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in decisive_files(folder)))


def check(folder: Path, expected: bytes) -> None:
    """Raise UsageError unless the folder holds the very model that the charter means."""
    actual = weights_digest(folder)
    if actual != expected:
        raise UsageError(
            f"the model in {folder} has the digest {actual.hex()}, the charter asks for {expected.hex()}",
            "Every member embeds with the same weights: install the version that the federation agreed on.",
        )


def dimensions(folder: Path) -> Dimensions:
    """Read the dimensions of a model from its configuration. Raises UsageError, CorruptError."""
    path = folder / CONFIG
    config, family, model = configuration(folder)
    hidden, layers = _whole(path, config, family.hidden), _whole(path, config, family.layers, 0)
    positions = _whole(path, config, family.positions, 0 if family.kind == "image" else None)
    if family.shifted:
        positions -= _whole(path, config, "pad_token_id", 1) + 1
    names = {
        name: tuple(module.format(layer) for layer in range(layers)) for name, module in family.projections.items()
    }
    shapes = model.shapes if model is not None and family.kind == "writer" else {}
    outputs = {module: shapes[f"{module}.weight"][0] for each in names.values() for module in each if shapes}
    return Dimensions(hidden, layers, positions, names, outputs)


def features_of(folder: Path) -> int:
    """Return how many features an imported model makes of a record. Raises UsageError, CorruptError."""
    _, _, model = configuration(folder)
    return dimensions(folder).hidden if model is None else model.width


def writes(folder: Path) -> bool:
    """Whether the model continues texts. Raises UsageError, CorruptError."""
    return configuration(folder)[1].kind == "writer"


def configuration(folder: Path) -> tuple[dict[str, Any], Family, Normalised | None]:
    """Return a model's config.json and family, and the former normalised if the folder was imported.

    A folder that was not imported is a text encoder's. Raises UsageError, CorruptError.
    """
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_bytes()) if path.stat().st_size <= CONFIG_LIMIT else None
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is no JSON ({error})", "Install the model again.") from error
    if type(raw) is not dict:
        raw = {}
    family, model = family_of(path, raw), read(folder, raw)
    if model is None and family.kind != "text":
        raise UsageError(
            f"{path}: a model of type {raw['model_type']!r} has to be imported first",
            f"collegium model import {folder} NEW-FOLDER",
        )
    return raw, family, model


def decisive_files(folder: Path) -> list[Path]:
    """Return the files that decide a model's embeddings, sorted. Raises UsageError without safetensors weights."""
    try:
        files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name.encode())
    except OSError as error:
        raise UsageError(f"cannot read the model's folder {folder} ({error.strerror})") from error
    if any(path.name == READ_BY_ITSELF for path in files):
        raise UsageError(
            f"{folder} holds an adapter ({READ_BY_ITSELF}) that would change the model",
            "Merge it into the weights, or remove it.",
        )
    if not any(path.name.endswith(WEIGHTS) for path in files):
        pickled = [path.name for path in files if any(path.match(pattern) for pattern in PICKLED)]
        weights = f"only pickled ones ({', '.join(pickled)}), which can run code when opened" if pickled else "none"
        raise UsageError(f"{folder} has no safetensors weights: {weights}", "Convert the model to model.safetensors.")
    return [path for path in files if path.name in DECISIVE or path.name.endswith(WEIGHTS)]


@lru_cache(maxsize=16)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> bytes:
    parts: list[bytes] = []
    for path, _size, _changed in files:
        try:
            with path.open("rb") as file:
                parts += [path.name.encode(), file_digest(file, "sha256").digest()]
        except OSError as error:
            raise UsageError(f"cannot read {path} ({error.strerror})") from error
    return digest("pretrained", *parts)


def _whole(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if type(value) is not int or not 0 <= value < 2**24:
        raise UsageError(f"{path}: {key!r} is no whole number")
    return value
