"""The M3T model, built from component specs: encoders of modalities → sum or backbone → heads of tasks, and skips.

A task sees its modalities of the charter that are hosted here; tasks with the same modalities share one pass through
the backbone. Only parameters hold state: no BatchNorm, no dropout, no buffers that learn.

| component | architecture | tensors |
|---|---|---|
| `encoder/MODALITY` | `linear-tanh` | project.weight [h, width], project.bias [h]: tabular, image |
| | `attention-pool` | and score.weight [1, h]: softmax over the valid steps of score·tanh(project x_t); series, audio |
| | `pair-tanh` | project.weight [h, p], project.bias [h]: features of a pretrained model, `pair_features` |
| | `conv-image` | convN.weight [c, 9·c'], convN.bias [c]; project over what is left: square images |
| | `conv-series` | convN.weight [c, 5·c'], convN.bias [c]; project.weight [h, 2c] of mean and maximum: series, audio |
| | `bert` | all of a small transformer of width h with hashed pieces (text.py) |
| | any but `bert` | maybe missing.weight [h, 1], the learned token of a record without the modality |
| `adapter/TEXT` | `last-layers` | every parameter of the encoder's last layers (pretrained/layers.py) |
| | `lora-ffa`, `lora-core` | adapters.py: peft's LoRA on the frozen encoder, or the model that writes |
| `prompt/TEXT` | `soft-prompt` | adapters.py: prompt tokens before the text |
| `backbone` | `mlp` | hidden.weight [m, h], hidden.bias [m], out.weight [h, m], out.bias [h]: z + out(tanh(hidden z)) |
| | `transformer` | layers of transformers' BERT over the modalities as tokens (pretrained/tensors.py) |
| | `concat` | modality/NAME.weight [m, h + 1]: its embedding, whether it is there; out.weight [h, m], out.bias [h] |
| | `cross-attention` | query, key, value, out: weight [h, h] and bias [h] each; the sum asks the modalities |
| | `experts-topN` | router.weight [e, h]; hidden.weight [e·m, h], hidden.bias [e·m]; out.weight [h, e·m], out.bias |
| `head/TASK` | `linear` | linear.weight [outputs, h], linear.bias [outputs] |
| | `similarity` | shift.weight [h, 1]: 4 (z + shift)·u_c, with u_c the frozen embedding of a class's name |
| `skip/TASK` | `linear-skip` | MODALITY.weight [outputs, width]: the mean of the valid steps (or `pair_features`) |
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isqrt, prod
from typing import Any, TypeAlias, assert_never, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, pad, relu, unfold

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind as Kind
from ...protocol.component_names import of_kind, parse_name
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning, Modality
from ..blueprint.parts import EXPERTS
from ..pretrained.tensors import SIMILARITY
from .backbones import Backbone, Concat, CrossAttention, Experts, ResidualMlp, TransformerBackbone
from .heads import Head, LinearSkip, Similarity
from .layers import ByName, has, linear, mean_of_steps
from .own import OwnBackbone, OwnEncoder, hidden_of, own_part
from .pairs import Projected

Inputs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""Modality → values [S, K, T, width] float32 (text with an adapter: token ids [S, K, T, L] int64), steps [S, K, T]."""


class Encoder(nn.Module, ABC):
    """Base of encoders: the learned token, or zero, where a record lacks the modality."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.project = linear(spec, "project")
        self.missing = linear(spec, "missing") if has(spec, "missing.weight") else None

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [S, K, T, width], steps [S, K, T] → [S, K, h]."""
        embedding = self.encode(values, steps)
        present = steps.any(2, keepdim=True).to(embedding.dtype)
        embedding = embedding * present
        return embedding if self.missing is None else embedding + self.missing(1.0 - present)

    @abstractmethod
    def encode(self, values: Tensor, steps: Tensor) -> Tensor:
        """Return the embedding of records with the modality, [S, K, h]; values of other records are ignored."""


class LinearTanh(Encoder):
    """`tanh(project x)`."""

    def encode(self, values: Tensor, steps: Tensor) -> Tensor:  # noqa: ARG002
        """See Encoder."""
        return torch.tanh(self.project(values[:, :, 0]))


class AttentionPool(Encoder):
    """An average of `tanh(project x_t)` over the valid steps, weighted by attention."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__(spec)
        self.score = linear(spec, "score")

    def encode(self, values: Tensor, steps: Tensor) -> Tensor:
        """See Encoder."""
        hidden = torch.tanh(self.project(values))
        # A large finite number, not -inf: a record without any step would give NaN, even when masked afterwards.
        scores = self.score(hidden).squeeze(3).masked_fill(~steps, -1e9)
        return (torch.softmax(scores, dim=2).unsqueeze(3) * hidden).sum(2)


class PairTanh(Encoder):
    """`tanh(project (P f))` with f the pair features of a text's segments and P seeded, not learned."""

    def __init__(self, spec: ComponentSpec, seed: bytes, modality: Modality | None) -> None:
        super().__init__(spec)
        if modality is None:
            raise UsageError(f"component {spec.name!r}: the charter has no such modality")
        self.fixed = Projected(seed, spec.name, self.project.in_features, modality)

    def encode(self, values: Tensor, steps: Tensor) -> Tensor:
        """See Encoder."""
        return torch.tanh(self.project(self.fixed(values, steps)))


class ConvImage(Encoder):
    """Convolutions 3 × 3 with stride 2, group normalisation without parameters, then `tanh(project ·)`."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__(spec)
        self.layers = _stack(spec)

    def encode(self, values: Tensor, steps: Tensor) -> Tensor:  # noqa: ARG002
        """See Encoder."""
        students, records, _, width = values.shape
        side = isqrt(width)
        x = values.reshape(students * records, 1, side, side)
        for layer in self.layers:
            side = (side + 1) // 2
            # As a linear map of patches, which has gradients of single students.
            x = layer(unfold(x, 3, padding=1, stride=2).transpose(1, 2)).transpose(1, 2)
            x = relu(group_norm(x, 1)).reshape(students * records, -1, side, side)
        return torch.tanh(self.project(x.reshape(students, records, -1)))


class ConvSeries(Encoder):
    """Convolutions over 5 steps with stride 2, then `tanh(project [mean, max])` over the valid steps."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__(spec)
        self.layers = _stack(spec)

    def encode(self, values: Tensor, steps: Tensor) -> Tensor:
        """See Encoder."""
        students, records, length, width = values.shape
        mask = steps.reshape(students * records, length, 1).to(values.dtype)
        x = values.reshape(students * records, length, width) * mask
        for layer in self.layers:
            patches = pad(x, (0, 0, 2, 2)).unfold(1, 5, 2).flatten(2)
            mask = pad(mask, (0, 0, 2, 2)).unfold(1, 5, 2).amax(3)
            x = relu(_normalised(layer(patches), mask)) * mask
        mean = x.sum(1) / mask.sum(1).clamp(min=1.0)
        pooled = torch.cat([mean, x.amax(1)], dim=1)
        return torch.tanh(self.project(pooled.reshape(students, records, -1)))


def _normalised(x: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over a record's valid steps and all channels: [R, T, c] and [R, T, 1]."""
    count = (mask.sum((1, 2), keepdim=True) * x.shape[2]).clamp(min=1.0)
    centred = (x - (x * mask).sum((1, 2), keepdim=True) / count) * mask
    return centred / (centred.square().sum((1, 2), keepdim=True) / count + 1e-5).sqrt()


class Bert(nn.Module):
    """A small transformer from scratch on token ids; the mean over the segments."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        from .text import scratch_encoder  # noqa: PLC0415  # transformers takes seconds to import

        self.text = scratch_encoder(spec)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Token ids [S, K, T, L] int64, steps [S, K, T] → [S, K, h]; zero where the record has no text."""
        return mean_of_steps(embed_tokens(self.text, values), steps)


def embed_tokens(text: nn.Module, ids: Tensor) -> Tensor:
    """Token ids [S, K, T, L] int64 (negative: padding) → embeddings [S, K, T, width]."""
    flat = ids.reshape(-1, ids.shape[3])
    mask = flat >= 0
    longest = max(1, int(mask.sum(1).max()))
    flat, mask = flat[:, :longest], mask[:, :longest].clone()
    mask[:, 0] = True  # a missing text is one token long, and its embedding is masked afterwards
    return text(flat.clamp(min=0), mask).reshape(*ids.shape[:3], -1)  # type: ignore[no-any-return]  # nn.Module


class M3TModel(nn.Module):
    """The hosted components of a node, joined. Components that it lacks are left out of every forward pass.

    `texts` are the frozen text encoders of modalities with a hosted adapter or prompt, and the models that write;
    `names` the embeddings of class names [classes, width] for tasks whose head compares with them.
    """

    def __init__(
        self,
        specs: Sequence[ComponentSpec],
        learning: Learning,
        seed: bytes = bytes(32),
        texts: Mapping[str, nn.Module] | None = None,
        names: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Build from specs. Raises UsageError for an unknown architecture or tensors that do not fit it."""
        super().__init__()
        self.learning = learning
        self.texts = ByName(texts or {})
        self.parts = nn.ModuleDict()
        self._own: dict[str, list[nn.Parameter]] = {}
        hidden = hidden_of(specs)
        for spec in specs:
            kind = parse_name(spec.name).kind
            match kind:
                case Kind.ADAPTER | Kind.PROMPT:
                    self._own[spec.name] = self._install(spec, seed)
                case Kind.ENCODER | Kind.BACKBONE | Kind.HEAD | Kind.SKIP | Kind.STATISTIC | Kind.GROUPS:
                    part = _part(spec, seed, learning, hidden)
                    if isinstance(part, Similarity):
                        part.place((names or {})[parse_name(spec.name).of])
                    self.parts[spec.name] = part
                    self._own[spec.name] = _tensors(part, spec)
                case _:
                    assert_never(kind)
        hosted = [spec.name for spec in specs]
        self.writes = {task.name: modality for modality, task in learning.writers.items() if task.carrier in self._own}
        self.encoders, self.heads = of_kind(Kind.ENCODER, hosted), of_kind(Kind.HEAD, hosted)
        self.reads = {
            task.name: tuple(name for name in task.modalities if name in self.encoders)
            for task in learning.tasks
            if task.name in self.heads
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the logits of each hosted task, [S, K, outputs]; of one that writes its loss a token."""
        return self.decide(self.embed(inputs)) | {
            task: self.texts[name].losses(inputs[name][0])  # type: ignore[operator]  # a Writer
            for task, name in self.writes.items()
            if name in inputs
        }

    @property
    def judged(self) -> tuple[str, ...]:
        """The hosted tasks: those with a head, and those that write."""
        return (*self.heads, *self.writes)

    def decide(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the logits from embedded inputs."""
        hidden = self.represent(inputs)
        logits = {}
        for name in self.heads:
            out = self.parts[Kind.HEAD.named(name)](hidden[name])
            skip = Kind.SKIP.named(name)
            if skip in self.parts:
                seen = {m: pair for m, pair in inputs.items() if m in self._task_modalities(name)}
                out = out + self.parts[skip](seen)
            logits[name] = out
        return logits

    def embed(self, inputs: Inputs) -> Inputs:
        """Turn the tokens of texts with an adapter or prompt into embeddings."""
        if not self.texts:
            return inputs
        return {
            name: (embed_tokens(self.texts[name], values), steps) if name in self.texts else (values, steps)
            for name, (values, steps) in inputs.items()
            if name not in self.writes.values()
        }

    def represent(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the input of each task's head, [S, K, h], from embedded inputs."""
        represented: dict[tuple[str, ...], Tensor] = {}
        if self.backbone is not None:
            self.backbone.routed.clear()
        parts = {name: self.parts[Kind.ENCODER.named(name)](*inputs[name]) for name in self.encoders if name in inputs}
        present = {name: self._present(name, inputs[name][1]) for name in parts}
        for names in set(self.reads.values()):
            seen = [name for name in names if name in parts]
            if seen:
                tokens = torch.stack([parts[name] for name in seen], dim=2)
                there = torch.stack([present[name] for name in seen], dim=2)
            else:  # a task whose modalities are all excluded from this node's training
                some = next(iter(inputs.values()))[1]
                kind = next(self.parameters()).dtype
                tokens = torch.zeros(*some.shape[:2], 1, self.width, device=some.device, dtype=kind)
                there = torch.zeros(*some.shape[:2], 1, dtype=torch.bool, device=some.device)
            represented[names] = tokens.sum(2) if self.backbone is None else self.backbone(tokens, there, seen)
        return {name: represented[names] for name, names in self.reads.items()}

    def imbalance(self, weights: Tensor) -> Tensor | float:
        """Return what the last pass adds to each student's loss, [S], for the records' `weights` [S, K].

        It is of mixtures of experts alone (backbones.py), and of each student by itself.
        """
        return 0.0 if self.backbone is None else self.backbone.imbalance(weights)

    def _present(self, name: str, steps: Tensor) -> Tensor:
        """Return where a modality contributes, [S, K]: everywhere, if it has a token for missing records."""
        learned = getattr(self.parts[Kind.ENCODER.named(name)], "missing", None) is not None
        return torch.ones_like(steps[:, :, 0]) if learned else steps.any(2)

    @property
    def backbone(self) -> Backbone | None:
        """The hosted backbone."""
        return cast("Backbone | None", dict(self.parts.items()).get(Kind.BACKBONE))

    @property
    def width(self) -> int:
        """The input width h of heads."""
        return next(cast("Head | Similarity", self.parts[Kind.HEAD.named(name)]).width for name in self.heads)

    def tensors(self, spec: ComponentSpec) -> list[nn.Parameter]:
        """Return a component's parameters in the order of its spec."""
        return self._own[spec.name]

    def load(self, spec: ComponentSpec, vector: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
        """Set a component's parameters from a flat vector, shape [d]."""
        source, start = torch.from_numpy(vector.astype(np.float32)), 0
        with torch.no_grad():
            for parameter, tensor in zip(self.tensors(spec), spec.tensors, strict=True):
                size = prod(tensor.shape)
                parameter.copy_(source[start : start + size].view(tensor.shape))
                start += size

    def _task_modalities(self, task: str) -> tuple[str, ...]:
        return next(t.modalities for t in self.learning.tasks if t.name == task)

    def _install(self, spec: ComponentSpec, seed: bytes) -> list[nn.Parameter]:
        from . import adapters  # noqa: PLC0415  # peft takes seconds to import

        name = parse_name(spec.name)
        text: Any = dict(self.texts.items()).get(name.of)
        if text is None:
            raise UsageError(f"component {spec.name!r}: modality {name.of!r} has no pretrained encoder to adapt")
        if name.kind is Kind.ADAPTER:
            return adapters.install_adapter(text, spec, seed)
        return adapters.install_prompt(text, spec)


def _part(spec: ComponentSpec, seed: bytes, learning: Learning, hidden: int | None) -> nn.Module:
    name = parse_name(spec.name)
    modality = next((m for m in learning.modalities if m.name == name.modality), None)
    own = own_part(spec, name.kind, modality, hidden)
    if own is not None:
        return own
    build = ARCHITECTURES.get((name.kind, spec.architecture))
    if build is None:
        architectures = ", ".join(sorted(f"{name} for a {part}" for part, name in ARCHITECTURES))
        raise UsageError(
            f"component {spec.name!r}: unknown architecture {spec.architecture!r}", f"Known: {architectures}."
        )
    part = build(spec, seed, learning, modality)
    held = sum(parameter.numel() for parameter in part.parameters())
    if held != spec.dimension:
        raise UsageError(f"component {spec.name!r}: tensors that {spec.architecture!r} has no use for")
    return part


ARCHITECTURES: dict[tuple[Kind, str], Callable[[ComponentSpec, bytes, Learning, Modality | None], nn.Module]] = {
    (Kind.ENCODER, "linear-tanh"): lambda spec, *_: LinearTanh(spec),
    (Kind.ENCODER, "attention-pool"): lambda spec, *_: AttentionPool(spec),
    (Kind.ENCODER, "pair-tanh"): lambda spec, seed, _, modality: PairTanh(spec, seed, modality),
    (Kind.ENCODER, "conv-image"): lambda spec, *_: ConvImage(spec),
    (Kind.ENCODER, "conv-series"): lambda spec, *_: ConvSeries(spec),
    (Kind.ENCODER, "bert"): lambda spec, *_: Bert(spec),
    (Kind.BACKBONE, "mlp"): lambda spec, *_: ResidualMlp(spec),
    (Kind.BACKBONE, "transformer"): lambda spec, *_: TransformerBackbone(spec),
    (Kind.BACKBONE, "concat"): lambda spec, *_: Concat(spec),
    (Kind.BACKBONE, "cross-attention"): lambda spec, *_: CrossAttention(spec),
    **{(Kind.BACKBONE, name): lambda spec, *_: Experts(spec) for name in EXPERTS},
    (Kind.HEAD, "linear"): lambda spec, *_: Head(spec),
    (Kind.HEAD, SIMILARITY): lambda spec, seed, *_: Similarity(spec, seed),
    (Kind.SKIP, "linear-skip"): lambda spec, seed, learning, _: LinearSkip(spec, seed, learning),
}


def _tensors(part: nn.Module, spec: ComponentSpec) -> list[nn.Parameter]:
    if isinstance(part, OwnEncoder | OwnBackbone):
        return part.inner.parameters_of(spec)
    if isinstance(part, LinearSkip):
        maps: dict[str, Any] = dict(part.maps.items())
        return [maps[tensor.name.removesuffix(".weight")].weight for tensor in spec.tensors]
    root: nn.Module = part
    if isinstance(part, Bert):
        root = part.text.model
    try:
        return [root.get_parameter(_path(tensor.name)) for tensor in spec.tensors]
    except AttributeError as error:
        raise UsageError(f"component {spec.name!r}: {error}") from error


def _path(name: str) -> str:
    """`conv0.weight` is stored as layers.0.weight."""
    return f"layers.{name.removeprefix('conv')}" if name.startswith("conv") else name


def _stack(spec: ComponentSpec) -> nn.ModuleList:
    layers: list[nn.Module] = []
    while has(spec, f"conv{len(layers)}.weight"):
        layers.append(linear(spec, f"conv{len(layers)}"))
    if not layers:
        raise UsageError(f"component {spec.name!r}: no conv0.weight")
    return nn.ModuleList(layers)
