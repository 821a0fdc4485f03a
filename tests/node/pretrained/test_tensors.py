"""The tensors that a charter's components declare."""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.pretrained.tensors import lora_tensors, prompt_tensors, scratch_tensors
from collegium.protocol.components import ComponentSpec, TensorSpec
from collegium.protocol.schema import from_map, to_map


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    config = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def size(tensors: tuple[TensorSpec, ...]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)


def test_the_sizes_are_those_of_the_design(minilm: Path) -> None:
    """768 numbers for a core of rank 8 on MiniLM, 36,864 for B (design.md section 5)."""
    assert size(lora_tensors(minilm, "lora-core", 8)) == 768
    assert size(lora_tensors(minilm, "lora-ffa", 8)) == 36_864
    assert size(prompt_tensors(minilm, 10)) == 3_840
    assert size(scratch_tensors(16, 1, 256, positions=64)) < 10_000


def test_an_adapter_has_one_tensor_for_each_module_and_starts_at_zero(minilm: Path) -> None:
    tensors = lora_tensors(minilm, "lora-ffa", 4, targets=("key",))
    assert [tensor.name for tensor in tensors] == [f"encoder.layer.{n}.attention.self.key.B" for n in range(6)]
    assert {(tensor.shape, tensor.bound) for tensor in tensors} == {((384, 4), 0)}
    assert lora_tensors(minilm, "lora-core", 4)[1] == TensorSpec("encoder.layer.0.attention.self.value.R", (4, 4), 0)


def test_a_scratch_bert_starts_with_zero_biases_and_offsets_and_the_rest_random() -> None:
    for tensor in scratch_tensors(32, 2, 100):
        zero = tensor.name.endswith(".bias") or ".offset." in tensor.name
        assert (tensor.bound == 0) == zero, tensor.name


@pytest.mark.parametrize("kind", ["lora-ffa", "lora-core", "prompt", "scratch"])
def test_a_charter_takes_them(minilm: Path, kind: str) -> None:
    if kind == "prompt":
        tensors = prompt_tensors(minilm, 10)
    else:
        tensors = scratch_tensors(32, 3, 100) if kind == "scratch" else lora_tensors(minilm, kind, 8)
    spec = ComponentSpec("x/essay", kind, tensors, 14, 16, "mean", 1, 1, 1, 1, bytes(32))
    assert from_map(ComponentSpec, to_map(spec)) == spec
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    assert all(tensor.name.isprintable() and len(tensor.name) < 60 for tensor in tensors)


REFUSED: dict[str, Callable[[Path], object]] = {
    "an unknown architecture": lambda folder: lora_tensors(folder, "lora", 8),
    "no rank": lambda folder: lora_tensors(folder, "lora-ffa", 0),
    "a rank above the width": lambda folder: lora_tensors(folder, "lora-core", 385),
    "an unknown target": lambda folder: lora_tensors(folder, "lora-ffa", 8, targets=("query", "output")),
    "no target": lambda folder: lora_tensors(folder, "lora-ffa", 8, targets=()),
    "a target twice": lambda folder: lora_tensors(folder, "lora-ffa", 8, targets=("key", "key")),
    "no prompt": lambda folder: prompt_tensors(folder, 0),
    "a prompt that leaves no room": lambda folder: prompt_tensors(folder, 257),
    "half a head": lambda _: scratch_tensors(24, 1, 100),
    "no features": lambda _: scratch_tensors(0, 1, 100),
    "no layer": lambda _: scratch_tensors(32, 0, 100),
    "more tensors than a component may have": lambda _: scratch_tensors(32, 4, 100),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused(minilm: Path, what: str) -> None:
    with pytest.raises(UsageError):
        REFUSED[what](minilm)


def test_a_model_of_too_many_layers_is_refused(minilm: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 33, "max_position_embeddings": 512}
    (minilm / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="Name fewer targets"):
        lora_tensors(minilm, "lora-core", 8)
    assert len(lora_tensors(minilm, "lora-core", 8, targets=("value",))) == 33
