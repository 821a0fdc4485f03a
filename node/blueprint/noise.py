"""Whether a recipe can learn anything at all: its noise against the most that gradients could add up to.

Over R rounds of τ steps, a mean over n members changes a component's weights by at most R·τ·η·C, when every clipped
gradient of every student points the same way. The noise adds up to a norm of about η·σ·C·√(R·τ·d/n)/L. Real gradients
add up to a small part of the bound, so a recipe with noise above it learns nothing. Pure arithmetic.
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
            draws, lot = learning.planned_rounds * learning.steps, learning.sample_rate / MILLION * students
            noise, signal = sigma * sqrt(draws * d / members) / lot, float(draws)
        if noise > share * signal:
            lost.append(Drowned(spec.name, noise, signal))
    return sorted(lost, key=lambda component: component.signal / component.noise)
