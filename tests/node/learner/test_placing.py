"""Frozen models in bfloat16: on processors, which have it too, since there is no GPU here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.node.data.audio import AudioSpec
from collegium.node.data.media import MediaFile
from collegium.node.learner import placing
from collegium.node.learner.drafts import _batch
from collegium.node.learner.media import media_encoder
from collegium.node.learner.text import pretrained_encoder
from collegium.node.learner.writer import Writer, loaded

from .test_media import RATE, sound
from .writers import tiny_writer

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NEAR = 0.995  # the cosine of a vector with the same in float32; bfloat16 has 8 bits of mantissa


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "precision", lambda _device: torch.bfloat16)


def text(tiny: Path, _: Path, __: Path) -> tuple[Any, list[Any]]:
    return pretrained_encoder(tiny), ["the cat sat", "hello", "why the fraction"]


def pictures(_: Path, media: Path, __: Path) -> tuple[Any, list[Any]]:
    generator = np.random.default_rng(1)
    return media_encoder(media / "vit"), [generator.uniform(-1, 1, 64).astype(np.float32) for _ in range(3)]


def sounds(_: Path, media: Path, folder: Path) -> tuple[Any, list[Any]]:
    files = []
    for pitch in (300, 900):
        path = folder / f"{pitch}.wav"
        sound(path, 1.4, pitch)
        files.append(MediaFile.of(path, AudioSpec(RATE, 4.0, 4, 8, False)))
    return media_encoder(media / "whisper"), files


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("made", [text, pictures, sounds])
def test_frozen_features_in_bfloat16_are_near_the_exact_ones(
    made: Callable[[Path, Path, Path], tuple[Any, list[Any]]], tiny: Path, tiny_media: Path, tmp_path: Path
) -> None:
    encoder, records = made(tiny, tiny_media, tmp_path)
    exact = encoder.embed(records)
    half = placing.placed(encoder, CPU).embed(records)
    assert placing.type_of(encoder) is torch.bfloat16
    assert half.dtype == np.float32
    assert (half * exact).sum(1) == pytest.approx(1.0, abs=1 - NEAR)
    assert not np.array_equal(half, exact), "or nothing was rounded"


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    yield tiny_writer(tmp_path)
    loaded.cache_clear()  # the model is kept, and was rounded


@pytest.mark.usefixtures("bfloat16")
def test_a_model_writes_with_its_frozen_part_in_bfloat16(written: Path) -> None:
    """The adapted layers stay exact, and the positions' frequencies do."""
    writer = Writer(written, 1)
    values = torch.randint(3, 20, (4, 1, 2, 6), generator=torch.Generator().manual_seed(1))
    frequencies = writer.frozen.model.rotary_emb.inv_freq.clone()
    with torch.no_grad():
        exact = writer.losses(values)
        placing.moved(writer.frozen, CPU)
        half = writer.losses(values)
        drafts = _batch(writer, [[3, 4, 5], [6]], 4, -1, None)
    assert placing.type_of(writer.frozen) is torch.bfloat16
    assert {placing.type_of(layer) for layer in writer.upper} == {torch.float32}
    assert torch.equal(writer.frozen.model.rotary_emb.inv_freq, frequencies)
    assert half.dtype is torch.float32
    assert torch.allclose(half, exact, rtol=0.02)
    assert not torch.equal(half, exact)
    assert [len(draft) for draft in drafts] == [4, 4]


def test_a_gpu_without_room_leaves_a_frozen_model_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1000, 4000))
    assert placing.precision(CUDA) is torch.bfloat16
    assert placing.precision(CPU) is torch.float32
    assert (placing.has_room(CUDA, 250), placing.has_room(CUDA, 251)) == (True, False)
    assert placing.has_room(CPU, 10**12)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert placing.precision(CUDA) is torch.float32
    assert not placing.has_room(CUDA, 126)
    layer = torch.nn.Linear(20, 20)
    assert next(placing.placed(layer, CUDA).parameters()).device == CPU
