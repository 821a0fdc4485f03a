"""A pretrained model is looked at before its digest stands in a charter, through `charter create` as users run it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.node.pretrained.folder import weights_digest

if TYPE_CHECKING:
    from ..firstweek.schools import Answer
    from .conftest import Run

FILE = """
[[modality]]
name = "essay"
kind = "text"
pretrained = "encoder"
privacy = "open"
[[task]]
name = "pass"
kind = "binary"
"""
Weights = dict[str, Any]


@pytest.fixture
def create(run: "Run", tiny: Path, tmp_path: Path, one_worker: None) -> Callable[..., "Answer"]:
    """Return a function that changes a good model, draws up a charter that names it, and returns what was said."""
    member = run("init", "--home", tmp_path / "a", "--listen", "/ip4/127.0.0.1/tcp/4001", "--json").value["member"]
    (tmp_path / "model.toml").write_text(FILE)

    def made(change: Callable[[Path], object] = lambda _: None) -> "Answer":
        shutil.rmtree(tmp_path / "encoder", ignore_errors=True)
        shutil.copytree(tiny, tmp_path / "encoder")
        change(tmp_path / "encoder")
        (tmp_path / "charter").unlink(missing_ok=True)
        words = ("charter", "create", "--name", "t", "--member", member, "--model", tmp_path / "model.toml")
        answer = run(*words, "--out", tmp_path / "charter")
        assert (tmp_path / "charter").exists() == (answer.code == 0)
        return answer

    return made


def tensors(folder: Path) -> Weights:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def save(folder: Path, weights: Mapping[str, Any], name: str = "model.safetensors") -> None:
    from safetensors.numpy import save_file

    save_file(dict(weights), folder / name, {"format": "pt"})


def changed(change: Callable[[Weights], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = tensors(folder)
        change(weights)
        save(folder, weights)

    return apply


def no_tokenizer(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in {"config.json", "model.safetensors"}:
            path.unlink()


def pointer(name: str) -> Callable[[Path], object]:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"
    return lambda folder: (folder / name).write_bytes(text)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def more(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")


def shards(folder: Path) -> None:
    """Share the tensors out to two files with an index, as large models come."""
    weights = tensors(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + (at >= 10)}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        save(folder, {name: weights[name] for name in names if files[name] == file}, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def lacking_shard(folder: Path) -> None:
    shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def another_shard(folder: Path) -> None:
    shards(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")


def prefixed(folder: Path, prefix: str = "module.") -> None:
    save(folder, {prefix + name: values for name, values in tensors(folder).items()})


def number(value: float) -> Callable[[Path], None]:
    def spoil(weights: Weights) -> None:
        weights["encoder.layer.1.output.dense.weight"][3, 5] = value

    return changed(spoil)


def half_with_nan(folder: Path) -> None:
    """One weight of a model in bfloat16, which numpy does not know, is NaN."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = {name: values.to(torch.bfloat16) for name, values in load_file(folder / "model.safetensors").items()}
    weights["embeddings.LayerNorm.bias"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def two_words_more(folder: Path) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    size = len(whole["model"]["vocab"])
    whole["model"]["vocab"] |= {"photosynthesis": size, "chlorophyll": size + 1}
    path.write_text(json.dumps(whole))


def an_added_word(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"[PUPIL]": 4000}')


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer": (no_tokenizer, "has no tokenizer"),
    "a pointer of git-lfs": (pointer("model.safetensors"), "model.safetensors is a pointer of git-lfs"),
    "a tokenizer that is a pointer": (pointer("tokenizer.json"), "tokenizer.json is a pointer of git-lfs"),
    "an empty tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "has no vocabulary"),
    "cut in half": (cut, "is cut short"),
    "cut in the header": (cut_in_the_header, "only the beginning of one"),
    "bytes too many": (more, "more than its header says"),
    "a shard is missing": (lacking_shard, "lacks model-00002-of-00002.safetensors"),
    "a shard twice": (another_shard, "which its index says is there"),
    "saved from DataParallel": (prefixed, "are called module.…"),
    "a wrapper of sentence-transformers": (lambda folder: prefixed(folder, "0.auto_model."), "called 0.auto_model.…"),
    "NaN": (number(float("nan")), "encoder.layer.1.output.dense.weight holds numbers that are NaN or infinite"),
    "infinite": (number(float("inf")), "NaN or infinite"),
    "NaN in bfloat16": (half_with_nan, "embeddings.LayerNorm.bias holds numbers that are NaN or infinite"),
    "a layer is missing": (
        changed(lambda weights: weights.pop("encoder.layer.1.attention.self.value.weight")),
        "lack encoder.layer.1.attention.self.value.weight",
    ),
    "a larger vocabulary": (two_words_more, "they do not belong together"),
    "a word added": (an_added_word, "they do not belong together"),
    "quantised": (
        lambda folder: edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "quantised weights are not supported",
    ),
    # These only an embedding shows.
    "every text embeds alike": (
        changed(
            lambda weights: [
                weights[f"encoder.layer.1.output.LayerNorm.{name}"].fill(0.5 * (name == "bias"))
                for name in ("weight", "bias")
            ]
        ),
        "embeds different texts alike",
    ),
    "every text embeds as nothing": (
        changed(lambda weights: weights["encoder.layer.1.output.LayerNorm.weight"].fill(0.0)),
        "embeds a text as nothing",
    ),
    "a tensor that no name of the layers tells of": (
        changed(lambda weights: weights.pop("encoder.layer.1.output.dense.bias")),
        "lack encoder.layer.1.output.dense.bias",
    ),
}


def edit(folder: Path, **more: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_model_does_not_get_into_a_charter(create: Callable[..., "Answer"], what: str) -> None:
    change, message = BROKEN[what]
    answer = create(change)
    assert answer.code == 2, answer.err
    assert message in answer.err
    assert "internal error" not in answer.err


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        shards,
        lambda folder: prefixed(folder, "bert."),  # saved with a head on it, which transformers takes off
        lambda folder: (folder / "tokenizer.json").unlink() or (folder / "README.md").write_text(""),
        # The code of a hub would be fetched and run, or, where that cannot be reached, nothing would load.
        lambda folder: edit(folder, attn_implementation="somebody/kernels", _attn_implementation="somebody/kernels"),
    ],
    ids=["as saved", "in shards", "with a head's prefix", "with vocab.txt alone", "with another's kernels"],
)
def test_a_good_model_is_taken(
    create: Callable[..., "Answer"], change: Callable[[Path], object], run: "Run", tmp_path: Path
) -> None:
    answer = create(change)
    assert answer.code == 0, answer.err
    shown = run("charter", "show", tmp_path / "charter", "--json").value["charter"]
    (pretrained,) = shown["learning"]["modalities"][0]["pretrained"]
    assert pretrained == {"model": "encoder", "digest": weights_digest(tmp_path / "encoder").hex()}


def test_a_model_file_may_train_the_last_layers_whole(
    create: Callable[..., "Answer"], run: "Run", tmp_path: Path
) -> None:
    adapter = 'pretrained = "encoder"\nadapter = { kind = "last-layers", layers = 1 }'
    (tmp_path / "model.toml").write_text(FILE.replace('pretrained = "encoder"', adapter))
    assert create().code == 0
    shown = run("charter", "show", tmp_path / "charter", "--json").value["charter"]["components"]
    (layer,) = [component for component in shown if component["name"] == "adapter/essay"]
    assert (layer["architecture"], len(layer["tensors"])) == ("last-layers", 16)
    (tmp_path / "model.toml").write_text(FILE.replace('pretrained = "encoder"', adapter.replace("= 1", "= 3")))
    said = create()
    assert (said.code, "the last 3 layers of a model of 2" in said.err) == (2, True)
