"""A model's folder: the digest of the files that decide its embeddings, and its dimensions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from ...crypto.errors import CorruptError, UsageError
from ...crypto.hashing import digest

CONFIG = "config.json"
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
class Family:
    """How a `model_type` of transformers calls its parts; `{}` is the number of the layer.

    `prefix` stands before the names of tensors that were saved with a head on the model.
    """

    prefix: str
    query: str
    key: str
    value: str
    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    shifted: bool = False  # positions start after the padding id: that many fewer can be used


_SELF = "encoder.layer.{}.attention.self"
_MPNET = "encoder.layer.{}.attention.attn"
_DISTILBERT = "transformer.layer.{}.attention"
_BERT = Family("bert", f"{_SELF}.query", f"{_SELF}.key", f"{_SELF}.value")
_ROBERTA = Family("roberta", _BERT.query, _BERT.key, _BERT.value, shifted=True)
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": Family("mpnet", f"{_MPNET}.q", f"{_MPNET}.k", f"{_MPNET}.v", shifted=True),
    "distilbert": Family(
        "distilbert",
        f"{_DISTILBERT}.q_lin",
        f"{_DISTILBERT}.k_lin",
        f"{_DISTILBERT}.v_lin",
        hidden="dim",
        layers="n_layers",
    ),
}


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What adapters and prompts must know of a model. All projections are [hidden, hidden]."""

    hidden: int  # the width of its embeddings
    layers: int
    positions: int  # tokens of one text, special ones and prompt included, at most
    projections: Mapping[str, tuple[str, ...]]  # "query", "key", "value" -> the names of the modules, layer by layer


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
    config, family = _configuration(path)
    hidden, layers = _whole(path, config, family.hidden), _whole(path, config, family.layers)
    positions = _whole(path, config, "max_position_embeddings")
    if family.shifted:
        positions -= _whole(path, config, "pad_token_id", 1) + 1
    templates = {"query": family.query, "key": family.key, "value": family.value}
    names = {name: tuple(template.format(layer) for layer in range(layers)) for name, template in templates.items()}
    return Dimensions(hidden, layers, positions, names)


def prefix_of(folder: Path) -> str:
    """Return what may stand before the names of a model's tensors. Raises UsageError, CorruptError."""
    return _configuration(folder / CONFIG)[1].prefix


def _configuration(path: Path) -> tuple[dict[str, Any], Family]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise CorruptError(f"{path} is no JSON ({error})", "Install the model again.") from error
    kind = config.get("model_type") if type(config) is dict else None
    family = FAMILIES.get(kind) if type(kind) is str else None
    if family is None:
        raise UsageError(f"{path}: models of type {kind!r} are not supported", f"Known: {', '.join(sorted(FAMILIES))}.")
    return config, family


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
