"""From a change of parameters to the integers of an update (design.md section 5). All of it is post-processing."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from ...protocol.components import ComponentSpec
from .messages import Engagement

MARGIN = 0.999  # of the norm bound: hosts check it in integers, with other rounding


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """`values` [d] in the spec's integer type; the number that saturated; the factor of the norm bound, or 1."""

    values: npt.NDArray[np.signedinteger]
    saturated: int
    scaled: float


def noise_std(engagement: Engagement, steps: int, lot: float) -> float:
    """Return `s = η·σ·C·√τ/L`, the standard deviation of the noise of a parameter after τ steps."""
    return engagement.learning_rate * engagement.noise * engagement.clip * sqrt(steps) / lot


def norm_bound(engagement: Engagement, steps: int, lot: float, dimension: int) -> float:
    """Return the largest norm of a change, `1.5·τ·η·C + s(√d + 6)`, in units of the parameters."""
    drift = 1.5 * steps * engagement.learning_rate * engagement.clip
    return drift + noise_std(engagement, steps, lot) * (sqrt(dimension) + 6.0)


def quantise(
    change: npt.NDArray[np.float64], spec: ComponentSpec, engagement: Engagement, steps: int, lot: float
) -> Quantised:
    """Round `change` [d] to the grid, half to even, saturate symmetrically, and scale it below the norm bound."""
    limit = 2 ** (spec.width - 1) - 1
    bound = MARGIN * norm_bound(engagement, steps, lot, change.size) / spec.grid_step
    grid = change / spec.grid_step
    factor = 1.0
    while True:
        rounded = np.rint(grid * factor)
        values = np.clip(rounded, -limit, limit)
        norm = float(np.linalg.norm(values))
        if norm <= bound:
            break
        # Rounding can raise the norm again, so shrink a little more each time; at factor 0 the norm is 0.
        factor = factor * 0.999 * bound / norm
    saturated = int(np.count_nonzero(np.abs(rounded) > limit))
    return Quantised(values.astype(spec.integer_type), saturated, factor)
