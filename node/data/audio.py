"""PCM .wav files as log-mel spectrograms. Every constant is declared or stands here: nothing is fitted to data.

With `hop = rate · max_seconds / frames` (rounded down), frame t is the Hann window centred at sample (t + ½)·hop, its
length the power of two that covers two hops and 25 ms. A band's energy is `Σ_f W[b, f] |X[f]|² / (Σ window)²`, W
triangles evenly spaced on the mel scale `2595 log10(1 + f/700)` up to half the rate (O'Shaughnessy 1987). Decibels
relative to full scale from FLOOR to CEILING become -1 to 1; `normalise` then takes away the clip's own mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from . import wav

FLOOR, CEILING = -80.0, 0.0  # dB
FFMPEG = "`ffmpeg -i IN.wav -ar {} OUT.wav` does it"
MIN_WINDOW = 0.025  # seconds: two periods of the lowest voices
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AudioSpec:
    """The declarations of `dataset.toml`: Hz, seconds, mel bands, frames T, and whether a clip's mean is subtracted."""

    rate: int
    max_seconds: float
    bands: int
    frames: int
    normalise: bool

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self.rate * self.max_seconds / self.frames)

    @property
    def window(self) -> int:
        """Samples in a frame."""
        return 1 << (int(max(2 * self.hop, MIN_WINDOW * self.rate)) - 1).bit_length()


class OtherRateError(UsageError):
    """A clip has another sampling rate than is declared."""


def resample(files: Mapping[int, str], declared: int, target: int = 0) -> str:
    """Return what to do about files of these rates, each with what has it: it leads to one rate, 0: the lowest of all.

    Going down is always possible, and what a higher rate would add is not in a file of a lower one.
    """
    target = target or min({*files, declared})
    what = " and ".join(listed for rate, listed in sorted(files.items()) if rate != target)
    steps = [f"resample {what} to {target} ({FFMPEG.format(target)})"] if what else []
    if target != declared:
        steps.append(f"declare rate = {target} in every institution's dataset.toml")
    sentence = ", and ".join(steps)
    return f"{sentence[:1].upper()}{sentence[1:]}: all files of a modality have one rate."


def read_wav(path: Path, spec: AudioSpec) -> tuple[Floats, bool]:
    """Return the samples of the first `max_seconds`, and whether the recording is longer.

    Samples are [n] float64 in [-1, 1), the mean of the channels.

    Raises UsageError (another rate) or CorruptError (no file, not PCM, cut off, empty) without the file's name, which
    may be a student's: the caller names the cell.
    """
    seconds = spec.hop * spec.frames / spec.rate
    clip = wav.read(path, seconds)
    if clip.rate != spec.rate:
        raise OtherRateError(
            f"the file has {clip.rate} samples a second, declared are {spec.rate}",
            resample({clip.rate: "it"}, spec.rate, spec.rate),
        )
    samples: Floats = _samples(clip.raw, clip.width).reshape(-1, clip.channels).mean(axis=1)
    return samples, clip.frames > round(clip.rate * spec.max_seconds)


def log_mel(samples: Floats, spec: AudioSpec) -> tuple[npt.NDArray[np.float32], int]:
    """Return the spectrogram [frames, bands] float32, zero after the clip's end, and how many frames it fills."""
    filled = min(spec.frames, max(1, -(-(2 * samples.size - spec.hop) // (2 * spec.hop))))
    window, half = spec.window, spec.window // 2
    padded = np.zeros(half + max(samples.size, spec.hop * spec.frames) + window)
    padded[half : half + samples.size] = samples
    starts = np.arange(filled) * spec.hop + spec.hop // 2  # in `padded`: the centre minus half a window
    frames = padded[starts[:, None] + np.arange(window)]
    shape = _hann(window)
    power = np.abs(np.fft.rfft(frames * shape, axis=1)) ** 2 / shape.sum() ** 2
    energy = power @ _triangles(spec.rate, window, spec.bands).T
    decibels = 10.0 * np.log10(np.maximum(energy, 10.0 ** (FLOOR / 10.0)))
    scaled = 2.0 * (np.minimum(decibels, CEILING) - FLOOR) / (CEILING - FLOOR) - 1.0
    if spec.normalise:
        scaled = np.clip(scaled - scaled.mean(), -1.0, 1.0)
    values = np.zeros((spec.frames, spec.bands), dtype=np.float32)
    values[:filled] = scaled
    return values, filled


def _samples(raw: bytes, width: int) -> Floats:
    if width == 1:  # the only unsigned one
        return (np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 128.0) / 128.0
    if width == 3:
        parts = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), dtype=np.uint8)
        wide[:, 1:] = parts
        return wide.reshape(-1).view("<i4").astype(np.float64) / 2.0**31
    return np.frombuffer(raw, dtype=f"<i{width}").astype(np.float64) / 2.0 ** (8 * width - 1)


@cache
def _hann(size: int) -> Floats:
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


@cache
def _triangles(rate: int, window: int, bands: int) -> Floats:
    """Return W [bands, window/2 + 1]. A band too narrow for the window's resolution takes the nearest frequency."""
    frequencies = np.fft.rfftfreq(window, 1.0 / rate)
    top = 2595.0 * np.log10(1.0 + rate / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    empty = np.flatnonzero(weights.sum(axis=1) == 0.0)
    weights[empty, np.abs(frequencies - middle[empty]).argmin(axis=1)] = 1.0
    return weights
