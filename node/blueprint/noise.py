"""Whether a recipe can learn anything at all: its noise against the most that gradients could add up to.

Over R rounds of τ steps, a mean over n members changes a component's weights by at most R·τ·η·C, when every clipped
gradient of every student points the same way. The noise adds up to a norm of about η·σ·C·√(R·τ·d/n)/L. Real gradients
add up to a small part of the bound, so a recipe with noise above it learns nothing. Pure arithmetic.

More rounds for the same ε add up gradients and noise at the same pace. But each round says less: with the noise of one
round above all that its gradients can add up to, no round can be told from noise, neither by a rule against faulty
members nor by whoever looks at its figures, and the same is learned in fewer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning


@dataclass(frozen=True, slots=True)
class Drowned:
    """A component whose noise is above all that can be learned; both norms in units of the clip norm C (and of η)."""

    component: str
    noise: float
    signal: float
    rounds: int

    @property
    def in_one_round(self) -> float:
        """The noise of one round as a multiple of the most that its clipped gradients add up to."""
        return self.noise / self.signal * sqrt(self.rounds)


def drowned(
    specs: Iterable[ComponentSpec], learning: Learning, students: float, members: int, share: float = 1.0
) -> list[Drowned]:
    """Return the components whose noise is above this share of the signal, worst first; at 1 they are noise alone.

    `students` is their number at each of so many members.
    """
    lost = []
    for spec in specs:
        sigma, d = spec.noise_multiplier / MILLION, spec.dimension
        if spec.is_statistic:
            noise, signal = sigma * sqrt(d * members), students * members
        else:
            draws, lot = learning.planned_rounds * learning.steps, learning.drawn * students
            noise, signal = sigma * sqrt(draws * d / members) / lot, float(draws)
        if noise > share * signal:
            lost.append(Drowned(spec.name, noise, signal, 1 if spec.is_statistic else learning.planned_rounds))
    return sorted(lost, key=lambda component: component.signal / component.noise)
