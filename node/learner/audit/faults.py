"""Mistakes that make DP-SGD leak, planted on request in the training itself: an audit must find each of them.

Planting one replaces functions of the training for a while, in a worker that does nothing else meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from torch import Tensor, nn

from .. import adapters, dpsgd
from ..dpsgd import Batch, Sampling
from ..gradients import StudentGradients
from ..messages import Engagement
from ..randomness import randomness
from . import canaries
from .canaries import SCENARIO_SEED, replaced


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake, its description, the probe that looks for it, and the code that plants it.

    `naive` is the mistake alone, if the training refuses it with an AssertionError before any release. Then `planted`
    switches that check off as well.
    """

    name: str
    about: str
    probe: str
    planted: Callable[[], AbstractContextManager[None]]
    naive: Callable[[], AbstractContextManager[None]] | None = None


@contextmanager
def _no_clip() -> Iterator[None]:
    clipped = StudentGradients.clipped_sums

    def sums(self: StudentGradients, clips: Mapping[str, float]) -> dict[str, Tensor]:
        return clipped(self, dict.fromkeys(clips, inf))

    with replaced(StudentGradients, "clipped_sums", sums):
        yield


@contextmanager
def _by_record() -> Iterator[None]:
    seen = dpsgd.see

    def see(gradients: StudentGradients, model: Any, batch: Batch) -> None:
        """Treat every record as a student of its own."""
        seen(
            gradients,
            model,
            Batch(
                batch.weights.reshape(-1, 1),
                {name: (v.flatten(0, 1)[:, None], t.flatten(0, 1)[:, None]) for name, (v, t) in batch.inputs.items()},
                {name: labels.flatten(0, 1)[:, None] for name, labels in batch.labels.items()},
            ),
        )

    with replaced(dpsgd, "see", see):
        yield


@contextmanager
def _independent_draws() -> Iterator[None]:
    def events(engaged: Mapping[str, Engagement], sample_rate: float, steps: int) -> canaries.Events:
        return [(sample_rate, rule.noise, steps) for rule in engaged.values()]

    with replaced(canaries, "claimed_events", events):
        yield


@contextmanager
def _no_sampling() -> Iterator[None]:
    with replaced(dpsgd, "uniform", lambda _source, size: np.zeros(size)):
        yield


class SharedRow(nn.Module):
    """A prompt looked up once for the whole batch, as peft does it: its gradient is that of one student."""

    def __init__(self, prompt: nn.Embedding) -> None:
        super().__init__()
        self.inner = prompt
        self.num_embeddings = prompt.num_embeddings

    def forward(self, places: Tensor) -> Tensor:
        """[n, L] → [n, L, hidden]."""
        row: Tensor = self.inner(places[:1])
        return row.expand(places.shape[0], -1, -1)


@contextmanager
def shared_row() -> Iterator[None]:
    """The prompt of a shared row alone: `StudentGradients.backward` refuses it."""
    install = adapters.install_prompt

    def installed(encoder: Any, spec: Any) -> list[nn.Parameter]:
        parameters = install(encoder, spec)
        encoder.prompt = SharedRow(encoder.prompt)
        return parameters

    with replaced(adapters, "install_prompt", installed):
        yield


@contextmanager
def _clipped_as_one() -> Iterator[None]:
    """A shared row, without the check that refuses it: its gradient is treated as one student's, with one factor."""
    weighted, by_student = StudentGradients._weighted, StudentGradients._by_student  # to plant a fault

    def one(self: StudentGradients, rows: Tensor, layer: nn.Module) -> Tensor:
        if rows.shape[0] != 1:
            return by_student(self, rows, layer)
        return rows.reshape(1, -1) if not rows.is_floating_point() else rows.reshape(1, -1, rows.shape[-1])

    def sums(self: StudentGradients, parameter: Tensor, factors: Tensor) -> Tensor:
        _, _, pairs = self._pairs(parameter)  # as above
        return weighted(self, parameter, factors[:1] if pairs and pairs[0][0].shape[0] == 1 else factors)

    rows = property(lambda batch: frozenset({1, batch.size, batch.weights.numel()}))
    with (
        shared_row(),
        replaced(Batch, "rows", rows),
        replaced(StudentGradients, "_by_student", one),
        replaced(StudentGradients, "_weighted", sums),
    ):
        yield


@contextmanager
def _seeded_noise() -> Iterator[None]:
    with replaced(canaries, "mechanism_source", lambda: randomness(SCENARIO_SEED)):
        yield


@contextmanager
def _divisor() -> Iterator[None]:
    """Divide by the number of drawn students: multiply by L / n before the division by L."""
    train, clipped, noise = dpsgd.train, dpsgd.clipped_sums, vars(dpsgd)["gaussian"]
    factor = 1.0
    declared = 1.0

    def training(*arguments: Any, sampling: Sampling, **others: Any) -> Any:
        nonlocal declared
        declared = sampling.lot
        return train(*arguments, sampling=sampling, **others)

    def sums(gradients: Any, model: Any, engaged: Any, data: Any, drawn: Any) -> Any:
        nonlocal factor
        factor = declared / max(1, drawn.size)
        return {name: factor * total for name, total in clipped(gradients, model, engaged, data, drawn).items()}

    with (
        replaced(dpsgd, "train", training),
        replaced(dpsgd, "clipped_sums", sums),
        replaced(dpsgd, "gaussian", lambda source, size: factor * noise(source, size)),
    ):
        yield


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("no-clip", "gradients are not clipped", "crowd", _no_clip),
        Fault("record-clip", "each record is clipped, not each student", "crowd", _by_record),
        Fault("independent-draws", "ε as if each component drew for itself", "draw", _independent_draws),
        Fault("no-sampling", "every student is drawn in every step", "rate", _no_sampling),
        Fault(
            "shared-prompt",
            "the gradients of a prompt are clipped as one",
            "prompt",
            _clipped_as_one,
            shared_row,
        ),
        Fault("seeded-noise", "the noise comes from the scenario's seed", "seed", _seeded_noise),
        Fault("batch-divisor", "the divisor is the number of drawn students", "count", _divisor),
    )
}
