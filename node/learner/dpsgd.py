"""Student-level DP-SGD over all engaged components at once (design.md section 6; Abadi et al. 2016).

**In ten lines**, for one component with clip norm C, noise multiplier σ, learning rate η and lot L:

    for step in range(sampling.steps):
        drawn = [s for s in students if uniform() < q]           # Poisson: each student independently
        total = zeros(d)
        for s in drawn:
            g = gradient(mean of the losses of the records of s)  # a student, never a row
            total += g * min(1, C / norm(g))                      # no student changes the total by more than C
        total += σ * C * normal(d)                                # hides a change of that size
        weights -= η * total / L                                  # L is declared, and never len(drawn)

Students' data enter only in the fifth line. Clipping bounds one student's influence, noise hides an influence of that
size, and further computation on the noised weights costs nothing more (post-processing: rounding to a grid and scaling
down in quantise.py). privacy/accountant.py computes the cost of `steps` such steps.

**Why the lot is a constant.** Divided by the number of drawn students, the scale of the update would reveal that
number. Worse, one student more would change the weight of all other gradients, so that C would no longer bound the
effect of one student. L is declared by the operator, about q times the number of students expected, and is public. For
the same reason an empty sample adds its noise: a step without noise would reveal that nobody was drawn.

**Why Poisson.** The accountant's gain from subsampling holds for independent coins. Shuffled batches of a fixed size
are another mechanism, and Poisson's ε for them would be too small (Chua et al. 2024). There is one sample a step for
all components, and one event for the accountant. Coins and noise come from the operating system (randomness.py): a
predictable sample would protect nobody.

**Ghost norms.** Clipping needs the norm of each student's gradient, and then one sum of clipped gradients; the
gradients themselves would be students × parameters numbers. For a linear layer, with inputs a and output gradients g
of the student's records, the squared norm is Σ_pq (a_p·a_q)(g_p·g_q), and the clipped sum over students is one product
of matrices with rows weighted by min(1, C/norm). Both come from one ordinary backward pass (gradients.py; Goodfellow
2015; Li et al. 2022; Bu et al. 2023). Rounding must not help a student past C: where records nearly cancel, the error
of the sum counts as part of the norm.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...protocol.components import ComponentSpec
from .gradients import StudentGradients
from .memory import PHYSICAL_RECORDS, READ_RECORDS, WRITTEN_RECORDS
from .messages import Engagement
from .model import M3TModel
from .parallel import ALONE, Team
from .randomness import Randomness, gaussian, uniform
from .tasks import record_losses

Floats = npt.NDArray[np.float64]
NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Students: weights [S, K] float32 (1/K_s or 0); values and steps of modalities; labels [S, K, L], NaN none.

    A text to write from has the ids of two passages: the filled template, and the answer.
    """

    weights: Tensor
    inputs: Mapping[str, tuple[Tensor, Tensor]]
    labels: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """The number of students S."""
        return int(self.weights.shape[0])

    def take(self, index: Tensor) -> "Batch":
        """Return the students of an index (or mask), shape [S], without record slots that none of them uses."""
        weights = self.weights[index]
        most = max(1, int((weights > 0).sum(1).max())) if weights.numel() else 1
        inputs = {
            name: (values[:, :most][index], steps[:, :most][index]) for name, (values, steps) in self.inputs.items()
        }
        return Batch(weights[:, :most], inputs, {name: labels[:, :most][index] for name, labels in self.labels.items()})

    def without(self, modalities: Collection[str]) -> "Batch":
        """Return the batch without some modalities: no forward pass sees them."""
        inputs = {name: pair for name, pair in self.inputs.items() if name not in modalities}
        return Batch(self.weights, inputs, self.labels)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            self.weights.to(device),
            {name: (values.to(device), steps.to(device)) for name, (values, steps) in self.inputs.items()},
            {name: labels.to(device) for name, labels in self.labels.items()},
        )

    @property
    def rows(self) -> frozenset[int]:
        """The leading dimensions that a layer may see: students, their records, the segments of those."""
        students, records = (int(size) for size in self.weights.shape)
        lengths = {int(steps.shape[2]) for _, steps in self.inputs.values()}
        return frozenset({students, students * records} | {students * records * length for length in lengths})


def student_losses(kinds: Mapping[str, str], logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Return each student's loss, [S]: summed over tasks (of `kinds`), averaged over the student's records."""
    total = torch.zeros(batch.size, device=batch.weights.device)
    for name, values in logits.items():
        total = total + (record_losses(kinds[name], values, batch.labels[name]) * batch.weights).sum(1)
    return total


def training_losses(model: M3TModel, batch: Batch) -> Tensor:
    """Return what training lowers, [S]: each student's loss, and the imbalance of a mixture of experts within it."""
    losses = student_losses(kinds_of(model), model(batch.inputs), batch)
    return losses + model.imbalance(batch.weights)


def kinds_of(model: M3TModel) -> dict[str, str]:
    """Return the kind of each hosted task."""
    return {task.name: task.kind for task in model.learning.tasks if task.name in model.judged}


def watch(model: M3TModel, specs: Sequence[ComponentSpec]) -> StudentGradients:
    """Let only the parameters of `specs` require gradients, and watch their layers."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    components = {spec.name: model.tensors(spec) for spec in specs}
    for parameters in components.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    return StudentGradients(model, components)


def see(gradients: StudentGradients, model: M3TModel, batch: Batch) -> None:
    """One forward and one backward pass over the students of a batch."""
    gradients.forget()
    gradients.backward(training_losses(model, batch), batch.rows)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many steps are trained, and on whom: each step draws every student with probability `rate`.

    `lot` is the declared L by which the sum is divided, never the size of a sample.
    """

    steps: int
    rate: float
    lot: float


def train(
    model: M3TModel,
    specs: Mapping[str, ComponentSpec],
    engaged: Mapping[str, Engagement],
    data: Batch,
    *,
    sampling: Sampling,
    source: Randomness,
    progress: Callable[[int, int], None],
    drawn: set[int] | None = None,
    team: Team = ALONE,
    eligible: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Floats]:
    """Train the engaged components of `model` (changed in place); return their changes, [d] float64 each.

    `data` are all students; those that are `eligible` [S], or all, may be drawn. The rows of students drawn in any step
    are added to `drawn`. Of a `team` only the leader uses `source`, and returns changes that mean anything.
    """
    active = [specs[name] for name in sorted(engaged)]
    weights = _join_parameters(model, active)
    start = weights.double().cpu().numpy()
    total = np.zeros(start.size)
    ends = np.cumsum([spec.dimension for spec in active])
    change = {spec.name: total[end - spec.dimension : end] for spec, end in zip(active, ends, strict=True)}
    with watch(model, active) as gradients:
        for step in range(sampling.steps):
            chosen = np.flatnonzero(uniform(source, data.size) < sampling.rate) if team.leads else NOBODY
            if eligible is not None:
                chosen = chosen[eligible[chosen]]
            chosen = team.from_leader(chosen)
            if drawn is not None:
                drawn.update(chosen.tolist())
            mine = clipped_sums(gradients, model, engaged, data, team.part(chosen))
            if not team.leads:
                progress(step + 1, sampling.steps)  # before it waits: the leader knows for whom it waits
            sums = team.added(mine)
            for spec in active if team.leads else ():
                rule = engaged[spec.name]
                noise = rule.noise * rule.clip * gaussian(source, spec.dimension) if rule.noise > 0.0 else 0.0
                change[spec.name] -= rule.learning_rate * (sums[spec.name] + noise) / sampling.lot
            weights.copy_(torch.from_numpy(team.from_leader(start + total)))
            if team.leads:
                progress(step + 1, sampling.steps)
    return change


def students_at_once(model: M3TModel, data: Batch) -> int:
    """Return how many students are in memory at once, with the graph of their records.

    A model that writes has a number for each word of its vocabulary at every token, and one that is adapted has all
    layers for each text: of these few records fit. The sums of all parts add up.
    """
    if model.writes:
        return max(1, WRITTEN_RECORDS // max(1, int(data.weights.shape[1])))
    if model.texts:
        texts = [steps.shape[1] * steps.shape[2] for name, (_, steps) in data.inputs.items() if name in model.texts]
        return max(1, READ_RECORDS // max(1, *texts, 1))
    return max(1, PHYSICAL_RECORDS // max(1, int(data.weights.shape[1])))


def clipped_sums(
    gradients: StudentGradients,
    model: M3TModel,
    engaged: Mapping[str, Engagement],
    data: Batch,
    drawn: npt.NDArray[np.int64],
) -> dict[str, Floats]:
    """Return `Σ_s clip(g_s, C)` over the drawn students, [d] float64 for each engaged component."""
    clips = {name: rule.clip for name, rule in engaged.items()}
    device = next(model.parameters()).device
    sums: dict[str, Floats] = {
        name: np.zeros(sum(p.numel() for p in parameters)) for name, parameters in gradients.components.items()
    }
    at_once = students_at_once(model, data)
    for begin in range(0, drawn.size, at_once):
        batch = data.take(torch.from_numpy(drawn[begin : begin + at_once])).to(device)
        see(gradients, model, batch)
        for name, total in gradients.clipped_sums(clips).items():
            sums[name] += total.double().cpu().numpy()
    gradients.forget()
    return sums


def _join_parameters(model: M3TModel, specs: Sequence[ComponentSpec]) -> Tensor:
    """Move the parameters of `specs` into one tensor, [Σ d] float32, and return it: one copy then sets them all."""
    parameters = [parameter for spec in specs for parameter in model.tensors(spec)]
    whole = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, part in zip(parameters, torch.split(whole, [p.numel() for p in parameters]), strict=True):
        parameter.data = part.view_as(parameter)
    return whole
