"""Canary students and audited mechanisms, to audit the training of this package.

A canary has a feature of its own, and a label so far off that every gradient is clipped. Its clipped gradient is known
beforehand, has the full length C in every engaged component, and is orthogonal to those of all other canaries. So one
run's release reveals each canary separately, as well as a run with that canary alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod, sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....protocol.components import MILLION, ComponentSpec, TensorSpec, base_digest, base_vector
from ....protocol.learning import Learning, Modality, PrivacyFloor, Task
from ...pretrained.folder import Dimensions
from ...pretrained.tensors import PROMPT, SOFT_PROMPT
from ...privacy.accountant import effective_noise
from .. import dpsgd
from ..dpsgd import Batch, Sampling
from ..messages import Engagement
from ..model import M3TModel
from ..quantise import noise_std, quantise
from ..randomness import Randomness, randomness, uniform
from ..text import TextEncoder

SEED = bytes(32)
SCENARIO_SEED = 7  # a simulation's seed, which an attacker may know
FAR = 100.0  # a label that far off makes every gradient larger than the clip norm
FINE = 8.0  # the noise, in steps of the grid that an update is rounded to

Floats = npt.NDArray[np.float64]
Events = list[tuple[float, float, int]]


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@dataclass(frozen=True, slots=True, eq=False)
class Mechanism:
    """An audited mechanism: a model with its first weights, the trained components, their recipe; `lot` is L."""

    model: M3TModel
    specs: Mapping[str, ComponentSpec]
    start: Mapping[str, npt.NDArray[np.float32]]
    engaged: Mapping[str, Engagement]
    steps: int
    sample_rate: float
    lot: float

    def reset(self) -> None:
        """Put the first weights back."""
        for name, spec in self.specs.items():
            self.model.load(spec, self.start[name])

    def release(self, data: Batch, source: Randomness) -> dict[str, Floats]:
        """Train on `data`; return the noised sums as the released integers show them, [d] for each component.

        This is the learner's own path: `dpsgd.train`, then `quantise`; scaled back by -L/η, which is public.
        """
        self.reset()
        changes = dpsgd.train(
            self.model,
            self.specs,
            self.engaged,
            data,
            sampling=Sampling(self.steps, self.sample_rate, self.lot),
            source=source,
            progress=lambda _done, _total: None,
        )
        released = {}
        for name, change in changes.items():
            rule, spec = self.engaged[name], self.specs[name]
            values = quantise(change, spec, rule, self.steps, self.lot).values.astype(np.float64)
            released[name] = values * (-spec.grid_step * self.lot / rule.learning_rate)
        return released


def claimed_events(engaged: Mapping[str, Engagement], sample_rate: float, steps: int) -> Events:
    """Return the events that a node accounts for: one for each sample, over all engaged components together."""
    return [(sample_rate, effective_noise([rule.noise for rule in engaged.values()]), steps)]


def mechanism_source() -> Randomness:
    """Return the source of a mechanism's sampling and noise: the system's randomness, as in every real session."""
    return randomness(None)


def spec_of(name: str, architecture: str, shapes: Mapping[str, tuple[int, ...]]) -> ComponentSpec:
    """Return the spec of a component, initial weights within ±1/2."""
    tensors = tuple(TensorSpec(tensor, shape, MILLION // 2) for tensor, shape in shapes.items())
    base = base_digest(base_vector(SEED, name, tensors))
    return ComponentSpec(name, architecture, tensors, 14, 16, "mean", 1, MILLION, MILLION, MILLION, base)


def mechanism_of(
    specs: Sequence[ComponentSpec],
    noises: Mapping[str, float],
    *,
    modalities: Mapping[str, tuple[str, int]],
    tasks: Sequence[str] = ("mark",),
    steps: int = 1,
    sample_rate: float = 1.0,
    lot: float,
    texts: Mapping[str, nn.Module] | None = None,
) -> Mechanism:
    """Return a mechanism that trains the components in `noises` (σ_c, all with C = 1); the others stay frozen.

    Every task is a regression that reads all `modalities` (name → kind and width).
    """
    learning = Learning(
        tuple(Modality(name, kind, width, 1) for name, (kind, width) in modalities.items()),
        tuple(Task(name, "regression", 1, tuple(sorted(modalities))) for name in tasks),
        tuple(PrivacyFloor(name, "dp", 8000, 10_000) for name in modalities),
        steps,
        round(sample_rate * MILLION),
        0,
        1,
    )
    by_name = {spec.name: spec for spec in specs}
    engaged = {}
    for name, noise in noises.items():
        unit = noise_std(Engagement(1.0, noise, 1.0), steps, lot)
        engaged[name] = Engagement(1.0, noise, FINE * by_name[name].grid_step / unit)
    model = M3TModel(specs, learning, SEED, texts)
    start = {spec.name: base_vector(SEED, spec.name, spec.tensors) for spec in specs}
    return Mechanism(model, by_name, start, engaged, steps, sample_rate, lot)


def crowd(canaries: int, records: int, modalities: Sequence[str], tasks: Sequence[str], signs: Floats) -> Batch:
    """Return the canaries [m]: student i has feature i alone, alike in all their records, and labels ±FAR."""
    one_hot = torch.eye(canaries)[:, None, None, :].expand(canaries, records, 1, canaries)
    there = torch.ones(canaries, records, 1, dtype=torch.bool)
    labels = torch.from_numpy((FAR * signs).astype(np.float32)).view(-1, 1, 1).expand(canaries, records, 1)
    weights = torch.full((canaries, records), 1.0 / records)
    return Batch(weights, dict.fromkeys(modalities, (one_hot, there)), dict.fromkeys(tasks, labels))


def disguised(base: Batch, tasks: Sequence[Task], count: int, source: Randomness) -> Batch:
    """Return students in the shape of `base` for a real model: random signs for features, random or far-off labels.

    Tokens of texts are those of students of `base`, taken at random. Every canary has one record.
    """
    picked = torch.from_numpy((uniform(source, count) * base.size).astype(np.int64))
    inputs = {}
    for name, (values, steps) in base.inputs.items():
        rows, there = values[picked].clone(), torch.zeros_like(steps[picked])
        if rows.is_floating_point():
            there[:, 0] = True
            rows = torch.from_numpy(signs(rows.numel(), source).astype(np.float32)).view(rows.shape) * there[..., None]
        else:
            there[:, 0] = steps[picked][:, 0]
        inputs[name] = (rows, there)
    labels = {}
    for task in (task for task in tasks if task.name in base.labels):
        shape = (count, *base.labels[task.name].shape[1:])
        kinds = 2 if task.kind == "multilabel" else task.classes
        drawn = np.floor(uniform(source, int(np.prod(shape))) * kinds)
        if task.kind == "regression":
            drawn = FAR * signs(int(np.prod(shape)), source)
        marks = torch.from_numpy(drawn.astype(np.float32)).view(shape)
        marks[:, 1:] = torch.nan
        labels[task.name] = marks
    weights = torch.zeros(count, base.weights.shape[1])
    weights[:, 0] = 1.0
    return Batch(weights, inputs, labels)


def together(first: Batch, second: Batch) -> Batch:
    """Return the students of two batches of equal shapes."""
    return Batch(
        torch.cat([first.weights, second.weights]),
        {
            name: (torch.cat([values, second.inputs[name][0]]), torch.cat([steps, second.inputs[name][1]]))
            for name, (values, steps) in first.inputs.items()
        },
        {name: torch.cat([labels, second.labels[name]]) for name, labels in first.labels.items()},
    )


def directions(mechanism: Mechanism, canaries: Batch) -> dict[str, Floats]:
    """Return the clipped gradients of students at the first weights, summed: [d] for each component.

    Canaries of a crowd have disjoint ones: all of them can be read off the sum.
    """
    mechanism.reset()
    active = [mechanism.specs[name] for name in sorted(mechanism.engaged)]
    with dpsgd.watch(mechanism.model, active) as gradients:
        return dpsgd.clipped_sums(
            gradients, mechanism.model, mechanism.engaged, canaries, np.arange(canaries.size, dtype=np.int64)
        )


def column_scores(mechanism: Mechanism, along: Mapping[str, Floats], released: Mapping[str, Floats]) -> Floats:
    """Return `Σ_c ⟨g_ic, y_c⟩ / (σ_c C_c)²` for each canary i, whose gradients fill column i of every tensor: [m].

    Up to a constant it is the logarithm of the likelihood ratio of "in" and "out": the optimal guess.
    """
    total: Floats = np.zeros(1)
    for name, rule in mechanism.engaged.items():
        product, start = along[name] * released[name] / (rule.noise * rule.clip) ** 2, 0
        for tensor in mechanism.specs[name].tensors:
            size = prod(tensor.shape)
            total = total + product[start : start + size].reshape(-1, tensor.shape[-1]).sum(0)
            start += size
    return total


def signs(count: int, source: Randomness) -> Floats:
    """Return random signs, [count]."""
    return np.where(uniform(source, count) < 0.5, -1.0, 1.0)


def split_noise(ratios: Mapping[str, float], strength: float, steps: int) -> dict[str, float]:
    """Return σ_c in the given ratios so that `steps` steps over all students equal one Gaussian with μ = `strength`."""
    scale = sqrt(steps) / (strength * effective_noise(list(ratios.values())))
    return {name: scale * ratio for name, ratio in ratios.items()}


class TinyReader(nn.Module):
    """A substitute for a frozen transformer of `transformers`: every hidden state also holds the mean of its inputs."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(4, hidden)
        with torch.no_grad():
            self.words.weight.copy_(torch.arange(4 * hidden).view(4, hidden) / (4.0 * hidden))

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of words."""
        return self.words

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Any:  # noqa: ARG002  # nothing is padded
        """[n, L, hidden] → an object with last_hidden_state of that shape."""
        return SimpleNamespace(last_hidden_state=inputs_embeds + inputs_embeds.mean(1, keepdim=True))


def prompted(hidden: int, noise: float, lot: float) -> Mechanism:
    """Return a mechanism that trains a soft prompt of two tokens before a tiny frozen reader; width `hidden`."""
    encoder = TextEncoder(TinyReader(hidden), lambda texts, _: [[[1]] for _ in texts], hidden, 64, 32)
    encoder.dimensions = Dimensions(hidden, 1, 64, {})
    specs = [
        spec_of("prompt/text", SOFT_PROMPT, {PROMPT: (2, hidden)}),
        spec_of("head/mark", "linear", {"linear.weight": (1, 1)}),
        spec_of("skip/mark", "linear-skip", {"text.weight": (1, hidden)}),
    ]
    return mechanism_of(
        specs, {"prompt/text": noise}, modalities={"text": ("text", hidden)}, lot=lot, texts={"text": encoder}
    )


def readers(labels: Sequence[float]) -> Batch:
    """Return students with the same text of three words, and these labels."""
    count = len(labels)
    tokens = torch.tensor([1, 2, 3]).expand(count, 1, 1, 3)
    there = torch.ones(count, 1, 1, dtype=torch.bool)
    marks = torch.tensor(labels, dtype=torch.float32).view(-1, 1, 1)
    return Batch(torch.ones(count, 1), {"text": (tokens, there)}, {"mark": marks})
