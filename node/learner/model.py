"""The M3T model, built from component specs: encoders of modalities → sum → backbone → heads of tasks, and skips.

Every parameter belongs to an `nn.Linear`, for which Opacus' gradients of single students are exact on [S, K, T, width]
inputs; a learned token is a linear map of an indicator. Nothing else holds state: no BatchNorm, no dropout, no buffers.

| component | architecture | tensors |
|---|---|---|
| `encoder/MODALITY` | `linear-tanh` | project.weight [h, width], project.bias [h], and maybe missing.weight [h, 1] |
| | `attention-pool` | the same and score.weight [1, h]: softmax over the valid steps of score·tanh(project x_t) |
| `backbone` | `mlp` | hidden.weight [m, h], hidden.bias [m], out.weight [h, m], out.bias [h]: z + out(tanh(hidden z)) |
| `head/TASK` | `linear` | linear.weight [classes, h], linear.bias [classes] |
| `skip/TASK` | `linear-skip` | MODALITY.weight [classes, width]: the mean of the valid steps, added to the logits |
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...crypto.errors import UsageError
from ...protocol.components import ComponentSpec

Inputs = Mapping[str, tuple[Tensor, Tensor]]  # modality -> values [S, K, T, width] float32, steps [S, K, T] bool


class LinearTanh(nn.Module):
    """Tabular or image: `tanh(project x)`; the missing token, or zero, where the record lacks the modality."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.project = _linear(spec, "project")
        self.missing = _missing(spec)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [S, K, 1, width], steps [S, K, 1] → [S, K, h]."""
        return _or_missing(torch.tanh(self.project(values)).squeeze(2), steps, self.missing)


class AttentionPool(nn.Module):
    """Series: an average of `tanh(project x_t)` over the valid steps, weighted by attention."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.project = _linear(spec, "project")
        self.score = _linear(spec, "score")
        self.missing = _missing(spec)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [S, K, T, width], steps [S, K, T] → [S, K, h]."""
        hidden = torch.tanh(self.project(values))
        # A large finite number, not -inf: a record without any step would give NaN, even when masked afterwards.
        scores = self.score(hidden).squeeze(3).masked_fill(~steps, -1e9)
        pooled = (torch.softmax(scores, dim=2).unsqueeze(3) * hidden).sum(2)
        return _or_missing(pooled, steps, self.missing)


class ResidualMlp(nn.Module):
    """Backbone: `z + out(tanh(hidden z))`."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.hidden = _linear(spec, "hidden")
        self.out = _linear(spec, "out")

    def forward(self, z: Tensor) -> Tensor:
        """[S, K, h] → [S, K, h]."""
        return z + self.out(torch.tanh(self.hidden(z)))  # type: ignore[no-any-return]  # nn.Module returns Any


class Head(nn.Module):
    """`linear z`: logits."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.linear = _linear(spec, "linear")

    def forward(self, z: Tensor) -> Tensor:
        """[S, K, h] → [S, K, classes]."""
        return self.linear(z)  # type: ignore[no-any-return]  # nn.Module returns Any


class LinearSkip(nn.Module):
    """Logits straight from the features: for each modality a linear map of the mean of its valid steps."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        names = [tensor.name.removesuffix(".weight") for tensor in spec.tensors]
        self.maps = nn.ModuleDict({name: _linear(spec, name) for name in names})

    def forward(self, inputs: Inputs) -> Tensor | float:
        """Return logits [S, K, classes]; 0 if none of the modalities is there."""
        total: Tensor | float = 0.0
        for name, linear in self.maps.items():
            if name in inputs:
                values, steps = inputs[name]
                count = steps.sum(2, keepdim=True).clamp(min=1)
                total = total + linear((values * steps.unsqueeze(3)).sum(2) / count)
        return total


ARCHITECTURES: dict[tuple[str, str], Callable[[ComponentSpec], nn.Module]] = {
    ("encoder", "linear-tanh"): LinearTanh,
    ("encoder", "attention-pool"): AttentionPool,
    ("backbone", "mlp"): ResidualMlp,
    ("head", "linear"): Head,
    ("skip", "linear-skip"): LinearSkip,
}


class M3TModel(nn.Module):
    """The components that a node hosts, joined. Components that it lacks are left out of every forward pass."""

    def __init__(self, specs: Sequence[ComponentSpec]) -> None:
        """Build from specs. Raises UsageError for an unknown architecture or tensors that do not fit it."""
        super().__init__()
        self.parts = nn.ModuleDict({spec.name: _part(spec) for spec in specs})
        self.encoders = [spec.name.split("/", 1)[1] for spec in specs if spec.name.startswith("encoder/")]
        self.heads = [spec.name.split("/", 1)[1] for spec in specs if spec.name.startswith("head/")]

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the logits of each hosted task, [S, K, classes]."""
        z = torch.stack([self.parts[f"encoder/{name}"](*inputs[name]) for name in self.encoders]).sum(0)
        if "backbone" in self.parts:
            z = self.parts["backbone"](z)
        logits = {name: self.parts[f"head/{name}"](z) for name in self.heads}
        for name in self.heads:
            if f"skip/{name}" in self.parts:
                logits[name] = logits[name] + self.parts[f"skip/{name}"](inputs)
        return logits

    def tensors(self, spec: ComponentSpec) -> list[nn.Parameter]:
        """Return a component's parameters in the order of its spec."""
        return _tensors(self.parts[spec.name], spec)

    def load(self, spec: ComponentSpec, vector: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> None:
        """Set a component's parameters from a flat vector, shape [d]."""
        source, start = torch.from_numpy(vector.astype(np.float32)), 0
        with torch.no_grad():
            for parameter, tensor in zip(self.tensors(spec), spec.tensors, strict=True):
                size = prod(tensor.shape)
                parameter.copy_(source[start : start + size].view(tensor.shape))
                start += size


def _part(spec: ComponentSpec) -> nn.Module:
    kind = spec.name.split("/", 1)[0]
    build = ARCHITECTURES.get((kind, spec.architecture))
    if build is None:
        known = ", ".join(sorted(f"{name} for a {part}" for part, name in ARCHITECTURES))
        raise UsageError(f"component {spec.name!r}: unknown architecture {spec.architecture!r}", f"Known: {known}.")
    part = build(spec)
    held = sum(parameter.numel() for parameter in part.parameters())
    if held != spec.dimension:
        raise UsageError(f"component {spec.name!r}: tensors that {spec.architecture!r} has no use for")
    return part


def _tensors(part: nn.Module, spec: ComponentSpec) -> list[nn.Parameter]:
    root = part.maps if isinstance(part, LinearSkip) else part
    return [root.get_parameter(tensor.name) for tensor in spec.tensors]


def _missing(spec: ComponentSpec) -> nn.Linear | None:
    return _linear(spec, "missing") if any(tensor.name == "missing.weight" for tensor in spec.tensors) else None


def _linear(spec: ComponentSpec, name: str) -> nn.Linear:
    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    weight, bias = shapes.get(f"{name}.weight"), shapes.get(f"{name}.bias")
    if weight is None or len(weight) != 2 or (bias is not None and bias != weight[:1]):
        raise UsageError(f"component {spec.name!r}: {name!r} needs a weight [out, in] and, if any, a bias [out]")
    return nn.Linear(weight[1], weight[0], bias=bias is not None)


def _or_missing(embedding: Tensor, steps: Tensor, missing: nn.Linear | None) -> Tensor:
    present = steps.any(2, keepdim=True).to(embedding.dtype)
    embedding = embedding * present
    return embedding if missing is None else embedding + missing(1.0 - present)
