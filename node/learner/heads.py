"""Logits: heads on the representation of a task's modalities, skips on their features themselves."""

from collections.abc import Mapping

from torch import Tensor, nn

from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from .layers import linear, mean_of_steps
from .pairs import Projected


class Head(nn.Module):
    """`linear z`: logits."""

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__()
        self.linear = linear(spec, "linear")

    def forward(self, z: Tensor) -> Tensor:
        """[S, K, h] → [S, K, outputs]."""
        return self.linear(z)  # type: ignore[no-any-return]  # nn.Module returns Any


class LinearSkip(nn.Module):
    """Logits straight from the features: for each modality a linear map of the mean of its valid steps."""

    def __init__(self, spec: ComponentSpec, seed: bytes, learning: Learning) -> None:
        super().__init__()
        names = [tensor.name.removesuffix(".weight") for tensor in spec.tensors]
        self.maps = nn.ModuleDict({name: linear(spec, name) for name in names})
        modalities = {modality.name: modality for modality in learning.modalities}
        self.pairs = nn.ModuleDict()
        for name in names:
            read = modalities.get(name)
            if read is not None and read.kind == "text":
                width = int(self.maps[name].in_features)  # type: ignore[arg-type]  # the attribute of an nn.Linear
                self.pairs[name] = Projected(seed, spec.name, width, read)

    def forward(self, inputs: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor | float:
        """Return logits [S, K, outputs]; 0 if no modality is present."""
        total: Tensor | float = 0.0
        for name, each in self.maps.items():
            if name in inputs:
                total = total + each(self.features(name, *inputs[name]))
        return total

    def features(self, name: str, values: Tensor, steps: Tensor) -> Tensor:
        """Return the input of a modality's linear map, [S, K, width]."""
        if name in self.pairs:
            return self.pairs[name](values, steps)  # type: ignore[no-any-return]  # nn.Module returns Any
        return mean_of_steps(values, steps)
