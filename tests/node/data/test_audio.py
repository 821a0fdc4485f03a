"""Spectrograms: where a tone lands, what a clip's end masks, which files are refused."""

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.crypto.errors import CorruptError, OperatorError, UsageError
from collegium.node.data.audio import AudioSpec, log_mel, read_wav

SPEC = AudioSpec(rate=8000, max_seconds=1.0, bands=32, frames=32, normalise=False)


def write_wav(path: Path, samples: np.ndarray, *, width: int = 2, channels: int = 1, rate: int = 8000) -> None:
    """Write samples in [-1, 1), the same in every channel."""
    whole = np.round(samples * 2.0 ** (8 * width - 1)).astype(np.int64)
    if width == 1:
        whole += 128
    raw = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    with wave.open(str(path), "wb") as clip:
        clip.setnchannels(channels)
        clip.setsampwidth(width)
        clip.setframerate(rate)
        clip.writeframes(np.repeat(raw, channels, axis=0).reshape(-1, channels * width).tobytes())


def tone(hertz: float, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_and_channel_count_gives_the_same_samples(tmp_path: Path, width: int, channels: int) -> None:
    write_wav(tmp_path / "a.wav", tone(440), width=width, channels=channels)
    samples, _ = read_wav(tmp_path / "a.wav", SPEC)
    assert samples.shape == (8000,)
    assert np.abs(samples - tone(440)).max() <= 2.0 ** -(8 * width - 1)


def test_channels_are_averaged(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as clip:
        clip.setparams((2, 2, 8000, 0, "NONE", ""))
        clip.writeframes(np.array([[16384, 0], [0, -16384]], dtype="<i2").tobytes())
    assert read_wav(tmp_path / "a.wav", SPEC)[0].tolist() == [0.25, -0.25]


def test_a_long_clip_is_cut_where_the_frames_end(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(440, 3.0))
    samples, longer = read_wav(tmp_path / "a.wav", SPEC)
    assert (samples.size, longer) == (8000, True)


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_is_loudest_in_the_band_that_holds_it(hertz: float) -> None:
    values, filled = log_mel(tone(hertz), SPEC)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34) / 2595) - 1)
    band = int(values[5:27].mean(0).argmax())
    assert edges[band] < hertz < edges[band + 2]
    assert filled == 32
    assert values.shape == (32, 32)
    assert values.dtype == np.float32


def test_the_scale_is_declared_not_fitted() -> None:
    """A sine of amplitude a has a peak of (a/2)² in the power spectrum; a tenth of it is 20 dB, half a unit, lower."""
    loud, quiet = log_mel(tone(1000), SPEC)[0][10], log_mel(0.1 * tone(1000), SPEC)[0][10]
    band = int(loud.argmax())
    assert 10 * np.log10(0.25**2) - 3 < loud[band] * 40 - 40 < 10 * np.log10(0.25**2) + 3
    assert loud[band] - quiet[band] == pytest.approx(0.5, abs=1e-4)
    assert log_mel(np.zeros(8000), SPEC)[0].tolist() == [[-1.0] * 32] * 32


def test_a_sound_is_in_the_frame_of_its_time() -> None:
    samples = np.zeros(8000)
    samples[10 * 250 + 125] = 1.0  # the centre of frame 10
    energy = log_mel(samples, SPEC)[0].mean(1)
    assert int(energy.argmax()) == 10
    assert energy[9] == pytest.approx(energy[11], abs=1e-5)
    assert energy[10] > energy[11] + 0.2
    assert np.allclose(energy[[8, 12]], -1.0)  # 512 samples a window: two hops away nothing is heard


@given(st.integers(min_value=1, max_value=12_000))
def test_frames_whose_centre_is_beyond_the_end_are_masked(size: int) -> None:
    values, filled = log_mel(np.full(size, 0.5), SPEC)
    centres = (np.arange(32) + 0.5) * 250
    assert filled == max(1, int((centres < size).sum()))
    assert not values[filled:].any()
    assert np.abs(values).max() <= 1.0


def test_normalising_takes_away_loudness() -> None:
    spec = AudioSpec(8000, 1.0, 32, 32, normalise=True)
    noise = np.random.default_rng(0).normal(size=8000) * 0.1
    loud, quiet = log_mel(noise, spec)[0], log_mel(noise / 4, spec)[0]
    assert np.allclose(loud, quiet, atol=1e-5)
    assert abs(float(loud.mean())) < 1e-6


def test_more_bands_than_the_window_resolves_still_hear_something() -> None:
    values, _ = log_mel(np.random.default_rng(0).normal(size=8000) * 0.1, AudioSpec(8000, 1.0, 200, 32, False))
    assert (values.max(0) > -1.0).all()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def extensible(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[20:22] = b"\x03\x00"  # floating point
    path.write_bytes(raw)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def wide(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[34] = 40
    path.write_bytes(raw)


BAD: dict[str, tuple[Callable[[Path], object], type[OperatorError], str]] = {
    "no file": (Path.unlink, CorruptError, "does not exist"),
    "a folder": (folder_instead, CorruptError, "does not exist"),
    "not a wav": (lambda path: path.write_bytes(b"ID3" + bytes(100)), CorruptError, "cannot be read"),
    "nothing": (lambda path: path.write_bytes(b""), CorruptError, "cannot be read"),
    "floating point": (extensible, CorruptError, "cannot be read.*Convert it to PCM"),
    "40 bit": (wide, CorruptError, "cannot be read: 40 bit"),
    "cut off": (cut, CorruptError, "cut off"),
    "no samples": (lambda path: write_wav(path, np.zeros(0)), CorruptError, "empty"),
    "another rate": (lambda path: write_wav(path, tone(1), rate=16000), UsageError, "has 16000 .* declared are 8000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    spoil, kind, text = BAD[name]
    path = tmp_path / "a.wav"
    write_wav(path, tone(440))
    spoil(path)
    with pytest.raises(kind, match=text):
        read_wav(path, SPEC)


@given(st.data())
def test_damaged_bytes_never_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    write_wav(path, tone(440, 0.02))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 59))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        samples, _ = read_wav(path, SPEC)
    except OperatorError:
        return
    assert np.isfinite(log_mel(samples, SPEC)[0]).all()
