"""Pretrained encoders of images and sound: frozen, each record to a vector of the model's width.

A vector is the mean over what a record fills of the last layer, less what the model makes of an empty record (grey,
silence), over its norm: what all records have in common would else outweigh what tells them apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize, pad

from ...crypto.errors import UsageError
from ..data.images import scaled
from ..data.media import MediaFile
from ..pretrained.families import LITE0, LITE0_BLOCKS, LITE0_FEATURES, LITE0_STEM, LiteBlock
from ..pretrained.folder import configuration
from ..pretrained.normal import AudioInput, ImageInput, Normalised
from ..pretrained.sound import check_sound
from .placing import type_of

BATCH = 32
EPSILON = 1e-3  # of EfficientNet's batch norms
WINDOW, HOP = 400, 160  # samples of Whisper's spectrogram, 25 and 10 ms
STEP = 2 * HOP  # samples of a position of its encoder
ROUNDED = 50  # positions: windows are of whole seconds, so that many have one length
Floats = npt.NDArray[np.float32]
Medium = MediaFile | Floats
Progress = Callable[[int, int], None]


class FrozenEncoder(nn.Module, ABC):
    """A frozen model; `means` turns records into the means of their last layers, a batch at a time."""

    width: int
    max_tokens = 0  # a text's
    adapted = False

    def embed(self, records: Sequence[Medium], progress: Progress | None = None) -> Floats:
        """Return the features of records, [n, width] float32."""
        vectors = np.zeros((len(records), self.width), dtype=np.float32)
        with torch.no_grad():
            blank = self.means([self.blank])
            for begin in range(0, len(records), BATCH):
                means = self.means([self.prepared(record) for record in records[begin : begin + BATCH]])
                vectors[begin : begin + len(means)] = normalize(means - blank, dim=1).cpu().numpy()
                if progress is not None:
                    progress(begin + len(means), len(records))
        return vectors

    @property
    @abstractmethod
    def blank(self) -> Floats:
        """An empty record, prepared."""

    @abstractmethod
    def prepared(self, record: Medium) -> Floats:
        """Return a record as the model's numbers."""

    @abstractmethod
    def means(self, prepared: Sequence[Floats]) -> Tensor:
        """Return [n, width]."""

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.parameters()).device


class ImageEncoder(FrozenEncoder):
    """Pictures: files in colours, or columns of grey pixels in [-1, 1], scaled to the size that the model reads."""

    def __init__(self, model: nn.Module, reads: ImageInput, width: int) -> None:
        super().__init__()
        self.model, self.reads, self.width = model, reads, width

    @property
    def blank(self) -> Floats:
        """A grey picture."""
        return np.zeros((3, self.reads.size, self.reads.size), dtype=np.float32)

    def prepared(self, record: Medium) -> Floats:
        """Return a picture [3, size, size] in the model's scale. Raises UsageError for columns that are no square."""
        size = self.reads.size
        if isinstance(record, MediaFile):
            colours = record.colours(size)
        else:
            side = round(record.size**0.5)
            if side * side != record.size:
                raise UsageError(f"{record.size} columns of pixels are no square picture", "Use image files.")
            colours = np.repeat(scaled((record.reshape(1, side, side) + 1.0) / 2.0, size), 3, axis=0)
        mean = np.array(self.reads.mean, dtype=np.float32)[:, None, None]
        deviation = np.array(self.reads.deviation, dtype=np.float32)[:, None, None]
        whole: Floats = (colours - mean) / deviation
        return whole

    def means(self, prepared: Sequence[Floats]) -> Tensor:
        """[n] pictures → [n, width]."""
        out: Any = self.model(torch.from_numpy(np.stack(prepared)).to(self.device, type_of(self)))
        features: Tensor = out if isinstance(out, Tensor) else out.last_hidden_state[:, 1:].mean(1)  # ViT's patches
        return features.float()


class SoundEncoder(FrozenEncoder):
    """Sound: in windows of the model's length, the last of whole seconds; the mean over all that sound fills."""

    def __init__(self, model: Any, reads: AudioInput, width: int, bands: int) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank  # noqa: PLC0415  # takes seconds

        self.model, self.reads, self.width = model, reads, width
        self._positions = model.embed_positions.weight.detach().clone()
        filters = mel_filter_bank(
            1 + WINDOW // 2, bands, 0.0, reads.rate / 2, reads.rate, norm="slaney", mel_scale="slaney"
        )
        self._filters = torch.from_numpy(filters.T.astype(np.float32))

    @property
    def blank(self) -> Floats:
        """A second of silence."""
        return np.zeros(self.reads.rate, dtype=np.float32)

    def prepared(self, record: Medium) -> Floats:
        """Return the samples at the model's rate."""
        assert isinstance(record, MediaFile)
        assert record.audio is not None
        from scipy.signal import resample_poly  # noqa: PLC0415  # half a second

        samples, rate = record.samples(), record.audio.rate
        common = gcd(rate, self.reads.rate)
        if rate != self.reads.rate:
            samples = resample_poly(samples, self.reads.rate // common, rate // common)
        return samples.astype(np.float32)

    def means(self, prepared: Sequence[Floats]) -> Tensor:
        """[n] sounds → [n, width]; windows of one length are one batch."""
        most = min(int(self.reads.seconds * self.reads.rate) // STEP, len(self._positions))
        windows: dict[int, list[tuple[int, int, Floats]]] = {}
        for row, sound in enumerate(prepared):
            for begin in range(0, max(1, sound.size), most * STEP):
                part = sound[begin : begin + most * STEP]
                filled = max(1, -(-part.size // STEP))
                length = min(most, -(-filled // ROUNDED) * ROUNDED)
                windows.setdefault(length, []).append((row, filled, part))
        total = torch.zeros(len(prepared), self.width, device=self.device)
        count = torch.zeros(len(prepared), 1, device=self.device)
        for length, parts in windows.items():
            for begin in range(0, len(parts), BATCH):
                chosen = parts[begin : begin + BATCH]
                hidden = self._hidden(torch.stack([_filled(part, length * STEP) for _, _, part in chosen]), length)
                for (row, filled, _), states in zip(chosen, hidden, strict=True):
                    total[row] += states[:filled].sum(0)
                    count[row] += filled
        return total / count

    def _hidden(self, waves: Tensor, length: int) -> Tensor:
        """Samples [n, length · STEP] → [n, length, width], by Whisper's spectrogram (Radford et al. 2022)."""
        shape = torch.hann_window(WINDOW, device=self.device)
        waves = waves.to(self.device)
        power = torch.stft(waves, WINDOW, HOP, window=shape, return_complex=True)[..., :-1].abs().square()
        decades = (self._filters.to(self.device) @ power).clamp(min=1e-10).log10()
        decades = decades.maximum(decades.amax((1, 2), keepdim=True) - 8.0)
        # The encoder reads no other number of frames than its configuration says, so it is told one.
        self.model.config.max_source_positions = self.model.max_source_positions = length
        self.model.embed_positions.num_embeddings = length
        self.model.embed_positions.weight.data = self._positions[:length].to(self.device, type_of(self))
        frames = ((decades + 4.0) / 4.0).to(type_of(self))
        return self.model(frames).last_hidden_state.float()  # type: ignore[no-any-return]  # untyped


def _filled(part: Floats, size: int) -> Tensor:
    return pad(torch.from_numpy(np.ascontiguousarray(part)), (0, size - part.size))


class LiteNet(nn.Module):
    """EfficientNet-Lite0 without its classes: pictures [n, 3, s, s] → [n, channels · grid²] (Tan and Le 2019).

    The channels are those after so many `blocks`, or the last layer's 1280. Its parts are called as its tensors are
    (families.py).
    """

    def __init__(self, blocks: int = 0, grid: int = 1) -> None:
        super().__init__()
        self._read, self._grid = blocks, grid
        self._conv_stem = _convolution(3, LITE0_STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(LITE0_STEM, EPSILON)
        self._blocks = nn.ModuleList(_Block(block) for block in LITE0_BLOCKS)
        self._conv_head = _convolution(LITE0_BLOCKS[-1].outputs, LITE0_FEATURES, 1, 1)
        self._bn1 = nn.BatchNorm2d(LITE0_FEATURES, EPSILON)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        x = self._bn0(self._conv_stem(pictures)).clamp(0.0, 6.0)
        for block in self._blocks[: self._read or None]:
            x = block(x)
        if not self._read:
            x = self._bn1(self._conv_head(x)).clamp(0.0, 6.0)
        return adaptive_avg_pool2d(x, self._grid).flatten(1)


class _Block(nn.Module):
    def __init__(self, block: LiteBlock) -> None:
        super().__init__()
        self.keeps = block.stride == 1 and block.inputs == block.outputs
        if block.expand != 1:
            self._expand_conv = _convolution(block.inputs, block.inner, 1, 1)
            self._bn0 = nn.BatchNorm2d(block.inner, EPSILON)
        self.expands = block.expand != 1
        self._depthwise_conv = _convolution(block.inner, block.inner, block.kernel, block.stride, block.inner)
        self._bn1 = nn.BatchNorm2d(block.inner, EPSILON)
        self._project_conv = _convolution(block.inner, block.outputs, 1, 1)
        self._bn2 = nn.BatchNorm2d(block.outputs, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, s, s] → [n, outputs, s / stride, s / stride]."""
        y: Tensor = self._bn0(self._expand_conv(x)).clamp(0.0, 6.0) if self.expands else x
        y = self._bn1(self._depthwise_conv(y)).clamp(0.0, 6.0)
        y = self._bn2(self._project_conv(y))
        return x + y if self.keeps else y


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def media_encoder(folder: Path) -> FrozenEncoder:
    """Load an imported encoder of images or sound, frozen. No code of it runs.

    Raises UsageError, also for an incomplete folder or a model that makes the same of different records.
    """
    check_sound(folder)
    _, _, model = configuration(folder)
    if model is None or not isinstance(model.reads, ImageInput | AudioInput):
        raise UsageError(f"the model in {folder} reads no images and no sound", "Name another for this modality.")
    encoder = _built(folder, model, model.reads).eval().requires_grad_(False)
    _try(encoder, folder)
    return encoder


def _built(folder: Path, model: Normalised, reads: ImageInput | AudioInput) -> FrozenEncoder:
    if model.model_type == LITE0 and isinstance(reads, ImageInput):
        net = LiteNet(reads.blocks, reads.grid)
        missing = net.load_state_dict(_weights(folder), strict=False).missing_keys
        assert all(name.endswith("num_batches_tracked") for name in missing)  # the shapes were checked
        return ImageEncoder(net, reads, model.width)
    import transformers  # noqa: PLC0415  # takes seconds

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    config: Any = transformers.AutoConfig.for_model(model.model_type, **model.config)
    config._attn_implementation = "eager"
    if isinstance(reads, AudioInput):
        from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: PLC0415

        encoder: Any = WhisperEncoder(config)
        encoder.load_state_dict(_weights(folder))
        return SoundEncoder(encoder, reads, model.width, model.config["num_mel_bins"])
    vit = transformers.AutoModel.from_pretrained(
        folder, config=config, use_safetensors=True, dtype=torch.float32, local_files_only=True,
        trust_remote_code=False, add_pooling_layer=False,
    )  # fmt: skip
    return ImageEncoder(vit, reads, model.width)


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    return {name: values.float() for name, values in load_file(folder / "model.safetensors").items()}


def _try(encoder: FrozenEncoder, folder: Path) -> None:
    """Embed two records. Raises UsageError if their features are not finite, or alike."""
    with torch.no_grad():
        means = encoder.means([encoder.blank, *_trials(encoder)]).cpu().numpy()
    if not np.isfinite(means).all():
        raise UsageError(f"the model in {folder} makes numbers that are not finite", "Import it again.")
    if np.abs(means[1] - means[2]).max() <= 1e-4 * np.abs(means).max():
        raise UsageError(f"the model in {folder} makes the same of different records", "Import it again.")


def _trials(encoder: FrozenEncoder) -> list[Floats]:
    """Return two records that differ: waves of two lengths."""
    waves = [np.sin(np.arange(encoder.blank.size, dtype=np.float32) / length) for length in (3.0, 40.0)]
    return [(0.5 * wave).reshape(encoder.blank.shape).astype(np.float32) for wave in waves]
