"""What the parts of the model share: linear maps by the names in a component's spec, means over steps."""

from torch import Tensor, nn

from ...crypto.errors import UsageError
from ...protocol.components import ComponentSpec


class ByName(nn.ModuleDict):
    """Modules by the names of tasks or modalities, which may be those of an attribute of nn.Module: `half`, `type`."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """See nn.ModuleDict."""
        self._modules[name] = module  # type: ignore[assignment]  # as nn.Module itself does


def mean_of_steps(values: Tensor, steps: Tensor) -> Tensor:
    """Return the mean of the valid steps, [S, K, width]; zero without any."""
    count = steps.sum(2, keepdim=True).clamp(min=1)
    return (values * steps.unsqueeze(3)).sum(2) / count


def has(spec: ComponentSpec, name: str) -> bool:
    """Whether a component has a tensor of this name."""
    return any(tensor.name == name for tensor in spec.tensors)


def linear(spec: ComponentSpec, name: str) -> nn.Linear:
    """Return the linear map `name` of a component, with its bias if there is one. Raises UsageError."""
    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    weight, bias = shapes.get(f"{name}.weight"), shapes.get(f"{name}.bias")
    if weight is None or len(weight) != 2 or (bias is not None and bias != weight[:1]):
        raise UsageError(f"component {spec.name!r}: {name!r} needs a weight [out, in] and, if any, a bias [out]")
    return nn.Linear(weight[1], weight[0], bias=bias is not None)
