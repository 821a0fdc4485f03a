"""Two architectures for Collegium: an encoder of series, and a backbone that has gradients of students of its own.

Shapes are those of one student: K records of T steps, or of M modalities. torch.func calls a module for each student.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from collegium.node.architectures import Architecture, Sizes
from collegium.protocol.components import MILLION, TensorSpec


def series_tensors(sizes: Sizes, options: Mapping[str, int]) -> list[TensorSpec]:
    """Return the tensors of `GatedSeries`: a convolution over `taps` steps, an odd number (5)."""
    taps = options.get("taps", 5)
    if taps % 2 == 0 or set(options) - {"taps"}:
        raise ValueError("it takes taps, an odd number, and nothing else")
    bound = round(sqrt(3.0 / (taps * sizes.width)) * MILLION)  # of the uniform first weights, in millionths
    return [
        TensorSpec("conv.weight", (2 * sizes.hidden, sizes.width, taps), bound),
        TensorSpec("conv.bias", (2 * sizes.hidden,), 0),
    ]


class GatedSeries(nn.Module):
    """`tanh(a) · sigmoid(b)` of a convolution's two halves a and b, averaged over the steps that are there."""

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        super().__init__()
        outputs, width, taps = tensors[0].shape
        self.conv = nn.Conv1d(width, outputs, taps, padding=taps // 2)

    def forward(self, values: Tensor, steps: Tensor) -> Tensor:
        """Values [K, T, width], steps [K, T] → [K, h]."""
        signal, gate = self.conv(values.transpose(1, 2)).chunk(2, dim=1)
        features = torch.tanh(signal) * torch.sigmoid(gate) * steps.unsqueeze(1)
        return features.sum(2) / steps.sum(1, keepdim=True).clamp(min=1)


def sum_tensors(sizes: Sizes, options: Mapping[str, int]) -> list[TensorSpec]:
    """Return the tensor of `WeightedSum`: a weight for each feature, which starts at zero."""
    if options:
        raise ValueError("it takes no numbers")
    return [TensorSpec("weight", (sizes.hidden,), 0)]


class WeightedSum(nn.Module):
    """The sum of the modalities, each feature times one plus its weight."""

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tensors[0].shape))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:  # noqa: ARG002  # absent tokens are zero
        """Tokens [K, M, h], present [K, M] → [K, h]."""
        return tokens.sum(1) * (1.0 + self.weight)


def sum_gradients(module: WeightedSum, inputs: tuple[Tensor, Tensor], gradient: Tensor) -> dict[str, Tensor]:  # noqa: ARG001
    """Tokens [S, K, M, h] and the gradient of the output [S, K, h] → each student's gradient, [S, h]."""
    return {"weight": (inputs[0].sum(2) * gradient).sum(1)}


GATED_SERIES = Architecture("encoder", series_tensors, GatedSeries)
WEIGHTED_SUM = Architecture("backbone", sum_tensors, WeightedSum, sum_gradients)
