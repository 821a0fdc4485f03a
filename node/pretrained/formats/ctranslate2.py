"""Whisper's encoder from a model.bin of CTranslate2: names, shapes and numbers, one tensor after the other."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....crypto.errors import UsageError
from ..weights import Values
from .binary import Reader, half

VERSION, SPECIFICATION = 6, "WhisperSpec"
TYPES = ("<f4", "i1", "<i2", "<i4", "<f2")
MAX_TENSORS, MAX_DIMENSIONS = 4096, 8
Arrays = dict[str, npt.NDArray[Any]]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Values]]:
    """Return config.json and the tensors of the encoder. Raises CorruptError, UsageError."""
    file = Reader(path)
    if file.number("I") != VERSION or _text(file) != SPECIFICATION:
        raise UsageError(f"{path} is no Whisper of CTranslate2", "Install its package in the pinned version.")
    file.numbers("I")  # a revision of the specification
    count = file.number("I")
    if count > MAX_TENSORS:
        raise file.fail(f"{count} tensors")
    arrays: Arrays = {}
    for _ in range(count):
        name, dimensions = _text(file), file.number("B")
        if dimensions > MAX_DIMENSIONS:
            raise file.fail(f"the tensor {name}")
        shape = file.numbers(f"{dimensions}I")
        kind, size = file.numbers("BI")
        if kind >= len(TYPES) or size != np.dtype(TYPES[kind]).itemsize * prod(shape):
            raise file.fail(f"the tensor {name}")
        arrays[name] = file.array(TYPES[kind], prod(shape)).reshape(shape)
    try:
        return _encoder({name: array for name, array in arrays.items() if name.startswith("encoder/")})
    except (KeyError, ValueError, IndexError) as error:
        raise file.fail(f"its encoder lacks a tensor ({error})") from error


def _text(file: Reader) -> str:
    return file.text(file.number("H")).rstrip("\0")


def _encoder(arrays: Arrays) -> tuple[dict[str, Any], dict[str, Values]]:
    values: dict[str, Values] = {}

    def put(name: str, source: str, parts: tuple[str, str]) -> None:
        for suffix, part in zip(("weight", "bias"), parts, strict=True):
            values[f"{name}.{suffix}"] = half(arrays[f"encoder/{source}/{part}"])

    linear, norm = ("weight", "bias"), ("gamma", "beta")
    layers = len({name.split("/")[1] for name in arrays if name.endswith("ffn/linear_0/weight")})
    for layer in range(layers):
        source, name = f"layer_{layer}", f"layers.{layer}"
        # Query, key and value are stored as one map; Whisper's key has no bias.
        weights = np.split(arrays[f"encoder/{source}/self_attention/linear_0/weight"], 3)
        biases = np.split(arrays[f"encoder/{source}/self_attention/linear_0/bias"], 3)
        for part, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
            values[f"{name}.self_attn.{part}.weight"] = half(weight)
            if part != "k_proj":
                values[f"{name}.self_attn.{part}.bias"] = half(bias)
        put(f"{name}.self_attn.out_proj", f"{source}/self_attention/linear_1", linear)
        put(f"{name}.self_attn_layer_norm", f"{source}/self_attention/layer_norm", norm)
        put(f"{name}.final_layer_norm", f"{source}/ffn/layer_norm", norm)
        put(f"{name}.fc1", f"{source}/ffn/linear_0", linear)
        put(f"{name}.fc2", f"{source}/ffn/linear_1", linear)
    put("conv1", "conv1", linear)
    put("conv2", "conv2", linear)
    put("layer_norm", "layer_norm", norm)
    positions = arrays["encoder/position_encodings/encodings"]
    values["embed_positions.weight"] = half(positions)
    hidden, bands, _ = arrays["encoder/conv1/weight"].shape
    config = {
        "model_type": "whisper", "d_model": hidden, "encoder_layers": layers,
        "encoder_attention_heads": hidden // 64,  # of every published Whisper
        "encoder_ffn_dim": len(arrays["encoder/layer_0/ffn/linear_0/bias"]), "num_mel_bins": bands,
        "max_source_positions": len(positions),
    }  # fmt: skip
    return config, values
