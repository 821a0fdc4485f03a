"""The rule `random-effects`: by tensor, weights from the declared noise and from how much institutions differ (ADR 34).

With q_i the updates' part for a tensor of d numbers, v_i ≥ 1 their declared noise variance and D_ij = ‖q_i - q_j‖²:

    w_i = ⌊2^16 v_max/v_i⌋                                                       the estimator's own weights
    τ²  = max(0, Σ w_i w_j (D_ij/d - v_i - v_j) / (2 Σ w_i w_j)), over pairs     DerSimonian and Laird 1986
    u_i = 1/(R τ² + v_i), R = 30
    a_i = c u_i, no less than .2 and no more than 2.5 equal shares, c the greatest with Σ a_i ≤ 2^16

and a_i is halved for each round of staleness. All of it is a function of one round's frozen entries and their integers,
in whole numbers, so neither history, order nor threads can change a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import prod

import numpy as np

from ..protocol.components import ComponentSpec
from ..protocol.update import Integers
from . import robust, rules
from .rules import Increment

WHOLE = 1 << 16  # the weights' sum at most
SPREAD_BITS = 32  # of the widest spread R τ² + v; the others have as many less as they are smaller
LASTING = 30  # R: over so many rounds differences add up as they are, and noise as its root
LEAST, MOST = Fraction(1, 5), Fraction(5, 2)  # of an equal share


@dataclass(frozen=True, slots=True)
class Block:
    """A tensor's part of a round: `variance` is τ² in squared grid units, `weights` are the a_i of the updates."""

    name: str
    start: int
    stop: int
    variance: Fraction
    weights: tuple[int, ...]

    @property
    def shares(self) -> list[float]:
        """Each update's share of the tensor's increment."""
        return [weight / sum(self.weights) for weight in self.weights]


def random_effects(
    updates: Sequence[Integers], spec: ComponentSpec, variances: Sequence[int], staleness: Sequence[int]
) -> Increment:
    """Return the increment, [d] int64 in 1/256 grid units, of updates [d] each with their declared variances."""
    out = np.empty(spec.dimension, dtype=np.int64)
    for block in blocks(updates, spec, variances, staleness):
        parts = [update[block.start : block.stop] for update in updates]
        out[block.start : block.stop] = rules.mean(parts, block.weights)
    return out


def blocks(
    updates: Sequence[Integers], spec: ComponentSpec, variances: Sequence[int], staleness: Sequence[int]
) -> list[Block]:
    """Return τ² and the weights for each tensor of a component, in the order of its parameters."""
    found, start = [], 0
    declared = [max(1, v) for v in variances]
    for tensor in spec.tensors:
        stop = start + prod(tensor.shape)
        tau = between([update[start:stop] for update in updates], declared)
        whole = shares([LASTING * tau.numerator + v * tau.denominator for v in declared])
        late = tuple(max(1, a >> s) for a, s in zip(whole, staleness, strict=True))
        found.append(Block(tensor.name, start, stop, tau, late))
        start = stop
    return found


def between(updates: Sequence[Integers], variances: Sequence[int]) -> Fraction:
    """Return τ², the variance between institutions, from updates [d] each and variances ≥ 1; 0 for a single one."""
    most, d = max(variances), updates[0].size
    w = [(most << 16) // v for v in variances]
    squared = robust.distances(robust.gram(updates), [1] * len(updates))
    over = under = 0
    for i, j in combinations(range(len(updates)), 2):
        over += w[i] * w[j] * (squared[i][j] - d * (variances[i] + variances[j]))
        under += w[i] * w[j]
    return max(Fraction(0), Fraction(over, 2 * d * under)) if under else Fraction(0)


def shares(spreads: Sequence[int]) -> list[int]:
    """Return the weights a_i ∝ 1/spread within their bounds; their sum is at most 2^16. Spreads are above zero.

    A member has at most `min(2.5, n - .2(n - 1))` of the n equal shares, whatever it declares or sends.
    """
    n, widest = len(spreads), max(spreads)
    low, high = max(1, int(WHOLE * LEAST / n)), int(WHOLE * MOST / n)
    r = [max(1, (spread << SPREAD_BITS) // widest) for spread in spreads]

    def at(c: int) -> list[int]:
        return [min(high, max(low, c // each)) for each in r]

    known, over = 0, (high + 1) * max(r)  # at(0) is all low, and at(over) all high
    while over - known > 1:
        middle = (known + over) // 2
        if sum(at(middle)) <= WHOLE:
            known = middle
        else:
            over = middle
    return at(known)
