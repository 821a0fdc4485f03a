"""Each update's share of a round's increment: every rule is a weighted sum of the updates (ADR 7).

`mean` has one integer weight for each update, `random-effects` one for each update and tensor. Of a robust rule a
coordinate's increment is `256·Σ_i c_i q_i`, rounded, with weights c that depend on the values kept there; an update's
share is its mean weight over all coordinates.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.errors import LocalProtocolError
from ..protocol.components import FRACTION_BITS
from ..protocol.update import Integers
from . import robust, rules
from .components import Entry
from .effects import Block

Weights = npt.NDArray[np.float64]


def mean_shares(entries: Sequence[Entry]) -> list[Fraction]:
    """Return each entry's share of a round of `mean`: its integer weight (`rules.mean_weights`) over their sum."""
    weights = rules.mean_weights([e.variance for e in entries], [e.staleness for e in entries])
    return [Fraction(weight, sum(weights)) for weight in weights]


def effects_shares(blocks: Sequence[Block]) -> list[float]:
    """Return each update's share of a round of `random-effects`: averaged over the numbers of all tensors."""
    size = blocks[-1].stop
    parts = [[share * (block.stop - block.start) / size for share in block.shares] for block in blocks]
    return [sum(each) for each in zip(*parts, strict=True)]


def robust_shares(rule: str, updates: Sequence[Integers], faults: int) -> list[float]:
    """Return each update's share of a round of a robust rule: its weight, averaged over coordinates, over their sum.

    The part of an update that clipping removed is in no share.
    """
    totals = sum((weights.sum(axis=1) for weights in coefficients(rule, updates, faults)), np.zeros(len(updates)))
    whole = float(totals.sum())
    shares: list[float] = (totals / (whole or 1.0)).tolist()
    return shares


def coefficients(rule: str, updates: Sequence[Integers], faults: int) -> Iterator[Weights]:
    """Yield the weights c, [n, w], of the next w coordinates: `256·Σ_i c_i q_i` is the rule's increment, unrounded.

    Of updates that are equal at a coordinate, some of which the rule trims, each has the same weight there.
    """
    n, d = len(updates), updates[0].size
    width = rules.columns(4 * n, 8)
    columns = [slice(start, min(start + width, d)) for start in range(0, d, width)]
    match rule:
        case "multi_krum":
            chosen = robust.krum_choice(updates, faults)
            fixed = np.isin(np.arange(n), chosen) / len(chosen)
            for part in columns:
                yield np.repeat(fixed[:, None], part.stop - part.start, axis=1)
        case "centered_clipping":
            twice = (rules.median(updates) >> (FRACTION_BITS - 1)).astype(np.int32)
            weights = np.array(robust.centre_weights(updates, twice)) / 2.0**robust.CENTRE_BITS
            for part in columns:
                rows = np.stack([update[part] for update in updates])
                yield weights[:, None] + (1.0 - weights.sum()) * kept(rows, (n - 1) // 2)
        case "trimmed_mean" | "median":
            trim = faults if rule == "trimmed_mean" else (n - 1) // 2
            for part in columns:
                yield kept(np.stack([update[part] for update in updates]), trim)
        case "nnm+trimmed_mean" | "clip+nnm+trimmed_mean":
            products, bits = robust.gram(updates), robust.CLIP_BITS if rule.startswith("clip+") else 0
            norms = [products[row][row] for row in range(n)]
            factors = robust.clip_factors(norms, bits) if bits else [1] * n
            mixing = robust.neighbours(products, factors, n - faults).astype(np.float64)
            for part in columns:
                rows = np.stack([update[part] for update in updates]).astype(np.float64)
                # The sums are integers under 2^53: equality is exact.
                yield mixing.T @ kept(mixing @ rows, faults) / (float(1 << bits) * (n - faults))
        case _:
            raise LocalProtocolError(f"{rule}: an update's share is not defined for this rule")


def kept(rows: npt.NDArray[Any], trim: int) -> Weights:
    """Return the weights of a trimmed mean over rows [n, w]: 1/(n-2·trim) a kept value, shared by equal values."""
    n = len(rows)
    ordered = np.sort(rows, axis=0)
    inner = ordered[trim : n - trim]
    low, high = inner[0], inner[-1]
    weights: Weights = ((rows > low) & (rows < high)).astype(np.float64)
    for edge, counts in ((low, True), (high, low != high)):
        at = (rows == edge) & counts
        weights += at * ((inner == edge).sum(axis=0) / np.maximum(at.sum(axis=0), 1))
    return weights / (n - 2 * trim)
