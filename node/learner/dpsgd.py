"""Student-level DP-SGD over all engaged components at once (DESIGN.md section 6; Abadi et al. 2016).

Each step draws students by Poisson(q), once for all components; for each engaged component c
`θ_c ← θ_c - η_c (Σ_s clip(g_{s,c}, C_c) + σ_c C_c ξ) / L`. An empty draw still adds noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor
from torch.nn.functional import log_softmax

from ...protocol.components import ComponentSpec
from .model import M3TModel
from .quantise import Engagement
from .randomness import Randomness, gaussian, uniform

PHYSICAL_BATCH = 256  # students whose gradients are in memory at once; their clipped sums add up
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Students: weights [S, K] float32 (1/K_s or 0); values and steps of modalities; labels [S, K] int64, -1 none."""

    weights: Tensor
    inputs: Mapping[str, tuple[Tensor, Tensor]]
    labels: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """The number of students S."""
        return int(self.weights.shape[0])

    def take(self, index: Tensor) -> "Batch":
        """Return the students of an index (or mask), shape [S]."""
        inputs = {name: (values[index], steps[index]) for name, (values, steps) in self.inputs.items()}
        return Batch(self.weights[index], inputs, {name: labels[index] for name, labels in self.labels.items()})


def student_losses(logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Return each student's loss, [S]: cross-entropy summed over tasks, averaged over the student's records.

    Masks multiply; nothing is indexed by them, so that every student keeps a row in every gradient.
    """
    total = torch.zeros(batch.size)
    for name, scores in logits.items():
        labels = batch.labels[name]
        picked = log_softmax(scores, dim=2).gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
        total = total - (picked * (labels >= 0) * batch.weights).sum(1)
    return total


def student_gradients(module: GradSampleModule, specs: Sequence[ComponentSpec], batch: Batch) -> dict[str, Tensor]:
    """Return for each component of `specs` the gradients of the students' losses, [S, d] float64."""
    model: M3TModel = module._module
    module.zero_grad(set_to_none=True)
    student_losses(module(batch.inputs), batch).sum().backward()  # type: ignore[no-untyped-call]  # torch
    gradients = {}
    for spec in specs:
        rows = []
        for tensor, parameter in zip(spec.tensors, model.tensors(spec), strict=True):
            sample = getattr(parameter, "grad_sample", None)
            # A layer that mixes students would hand us another number of rows, and the clip would bound nothing.
            if not isinstance(sample, Tensor) or sample.shape[0] != batch.size:
                raise AssertionError(f"{spec.name} {tensor.name}: no gradient for each student")
            rows.append(sample.reshape(batch.size, -1))
        gradients[spec.name] = torch.cat(rows, dim=1).double()
    return gradients


def clipped_sum(gradients: Tensor, clip: float) -> Floats:
    """Return Σ_s g_s·min(1, C/‖g_s‖), [d] float64. A student whose gradient is not finite counts as zero."""
    norms = gradients.norm(dim=1)
    factors = torch.where(norms > clip, clip / norms, torch.ones_like(norms))
    finite = torch.isfinite(norms)
    safe = torch.where(finite.unsqueeze(1), gradients, torch.zeros_like(gradients))
    total: Floats = (torch.where(finite, factors, torch.zeros_like(factors)) @ safe).numpy()
    return total


def train(
    model: M3TModel,
    specs: Mapping[str, ComponentSpec],
    engaged: Mapping[str, Engagement],
    data: Batch,
    *,
    steps: int,
    sample_rate: float,
    lot: float,
    source: Randomness,
    progress: Callable[[int, int], None],
) -> dict[str, Floats]:
    """Train the engaged components of `model` (changed in place); return their changes, [d] float64 each.

    `data` are all students that may be drawn, `lot` the declared L, never the size of a draw.
    """
    active = [specs[name] for name in sorted(engaged)]
    for name, spec in specs.items():
        for parameter in model.tensors(spec):
            parameter.requires_grad_(name in engaged)
    start = {spec.name: _flat(model, spec) for spec in active}
    change = {spec.name: np.zeros(spec.dimension) for spec in active}
    module = GradSampleModule(model, loss_reduction="sum")
    try:
        for step in range(steps):
            drawn = np.flatnonzero(uniform(source, data.size) < sample_rate)
            sums = _sums(module, active, engaged, data, drawn)
            for spec in active:
                rule = engaged[spec.name]
                noise = rule.noise * rule.clip * gaussian(source, spec.dimension) if rule.noise > 0.0 else 0.0
                change[spec.name] -= rule.learning_rate * (sums[spec.name] + noise) / lot
                model.load(spec, start[spec.name] + change[spec.name])
            progress(step + 1, steps)
    finally:
        module.to_standard_module()
    return change


def _flat(model: M3TModel, spec: ComponentSpec) -> Floats:
    parts = [parameter.detach().reshape(-1) for parameter in model.tensors(spec)]
    flat: Floats = torch.cat(parts).double().numpy()
    return flat


def _sums(
    module: GradSampleModule,
    active: Sequence[ComponentSpec],
    engaged: Mapping[str, Engagement],
    data: Batch,
    drawn: npt.NDArray[np.int64],
) -> dict[str, Floats]:
    sums = {spec.name: np.zeros(spec.dimension) for spec in active}
    for begin in range(0, drawn.size, PHYSICAL_BATCH):
        batch = data.take(torch.from_numpy(drawn[begin : begin + PHYSICAL_BATCH]))
        for name, gradients in student_gradients(module, active, batch).items():
            sums[name] += clipped_sum(gradients, engaged[name].clip)
    return sums
