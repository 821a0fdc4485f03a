"""Aggregation rules in exact integers (design.md section 8): order, threads and BLAS cannot change a bit.

Every sum below stays inside the exact integers of its floating type, and every division rounds half to even, once. A
rule maps updates (int8 or int16, shape [d] each) to the increment of the state (int64, shape [d], in 1/256 grid units).
Here are the coordinate-wise rules; robust.py has those that compare whole updates.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.errors import LocalProtocolError
from ..protocol.components import FRACTION_BITS, MILLION, ComponentSpec
from ..protocol.update import Integers, UpdateHeader, divisor

Increment = npt.NDArray[np.int64]
CHUNK = 1 << 13  # columns folded at a time: n rows of them, and the intermediate results, stay in the cache


def faults(updates: int) -> int:
    """Return f = ⌊(n-1)/3⌋, the number of faulty updates that a robust rule tolerates."""
    return max(0, (updates - 1) // 3)


def noise_variance(header: UpdateHeader, spec: ComponentSpec) -> int:
    """Return `v = τ(ησC/(LΔ))²`, the noise variance of a coordinate in squared grid units, rounded up.

    L is 1 for a statistic.
    """
    recipe = header.recipe
    over = recipe.learning_rate * recipe.noise_multiplier * recipe.clip_norm * 1000 * (1 << spec.step_log2)
    under = MILLION**3 * divisor(header, spec)
    return -(-header.steps * over**2 // under**2)


def mean_weights(variances: Sequence[int], staleness: Sequence[int]) -> list[int]:
    """Return the integer weights a_i of `mean`: half by noise, half in equal shares.

    `v₀ = max(1, lower median)`, `w_i = ⌊2^16 v₀/(v₀+v_i)⌋`, `a_i = ⌊2^15 w_i/Σw⌋ + ⌊2^15/n⌋`, halved for each round of
    staleness. Their sum is at most 2^16.
    """
    n = len(variances)
    v0 = max(1, sorted(variances)[(n - 1) // 2])
    w = [(v0 << 16) // (v0 + v) for v in variances]
    total = max(1, sum(w))
    return [max(1, ((w_i << 15) // total + (1 << 15) // n) >> s) for w_i, s in zip(w, staleness, strict=True)]


def _divide(sums: npt.NDArray[Any], divisor: int) -> Increment:
    """Return `256·sums / divisor`, half to even.

    Exact: |256·sums/divisor| < 2^23 · 2^8, so the float64 quotient's error (< 2^-21) is under the least distance of a
    quotient with a divisor ≤ 2^16 from a tie (2^-17).
    """
    return np.rint(sums.astype(np.float64) * (1 << FRACTION_BITS) / divisor).astype(np.int64)


def mean(updates: Sequence[Integers], weights: Sequence[int]) -> Increment:
    """Return `round(256·Σ a_i q_i / Σ a_i)`."""
    total = sum(weights)
    if total > 1 << 16 or not updates:
        raise LocalProtocolError("mean: weights over 2^16, or no update")
    # Σ a_i |q_i| ≤ 2^16 · 127 < 2^24 for int8 and 2^16 · 2^15 < 2^53 for int16: exact in the chosen float type.
    exact = np.float32 if updates[0].dtype.itemsize == 1 else np.float64
    a = np.asarray(weights, dtype=exact)
    d, width = updates[0].size, 2 * CHUNK
    out = np.empty(d, dtype=np.int64)
    rows = np.empty((len(updates), min(width, d)), dtype=exact)
    for start in range(0, d, width):
        stop = min(start + width, d)
        part = rows[:, : stop - start]
        for row, update in zip(part, updates, strict=True):
            row[:] = update[start:stop]
        out[start:stop] = _divide(a @ part, total)
    return out


@cache
def _network(n: int) -> tuple[tuple[int, int], ...]:
    """Return the comparisons that sort n values: Batcher's merge exchange (Knuth, TAOCP vol. 3, 5.2.2, algorithm M)."""
    pairs: list[tuple[int, int]] = []
    top = 1 << (n - 1).bit_length() - 1 if n > 1 else 0
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(pairs)


def sorted_rows(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return the rows of `rows`, shape [n, w], with every column in ascending order; `rows` is used up.

    A fixed network of minima and maxima over whole rows: several times as fast as sorting each column for itself.
    """
    ordered, spare = list(rows), np.empty_like(rows[0])
    for low, high in _network(len(ordered)):
        a, b = ordered[low], ordered[high]
        np.minimum(a, b, out=spare)
        np.maximum(a, b, out=b)
        ordered[low], spare = spare, a
    return ordered


def columns(n: int, itemsize: int) -> int:
    """Return the number of columns of n rows to process at a time, so that they stay in the cache."""
    return max(256, min(CHUNK, (1 << 19) // max(1, n * itemsize)))


def trimmed_mean(updates: Sequence[Integers], trim: int) -> Increment:
    """Return the coordinate-wise mean without the `trim` least and `trim` greatest values.

    Tolerates any `trim` faulty updates: each coordinate stays in the range of the others' (Yin et al. 2018).
    """
    n = len(updates)
    if n <= 2 * trim:
        raise LocalProtocolError(f"trimmed_mean: {n} updates cannot lose {trim} at either end")
    d = updates[0].size
    out = np.empty(d, dtype=np.int64)
    width = columns(n, updates[0].dtype.itemsize)
    for start in range(0, d, width):
        stop = min(start + width, d)
        rows = sorted_rows(np.stack([update[start:stop] for update in updates]))
        sums = np.zeros(stop - start, dtype=np.int64)
        for row in rows[trim : n - trim]:
            sums += row
        out[start:stop] = _divide(sums, n - 2 * trim)
    return out


def median(updates: Sequence[Integers], _faults: int = 0) -> Increment:
    """Return the coordinate-wise median; of an even number of updates, half the sum of the two in the middle.

    It is the trimmed mean that trims the most, and tolerates any ⌊(n-1)/2⌋ faulty updates.
    """
    return trimmed_mean(updates, (len(updates) - 1) // 2)
