"""Robust rules that compare whole updates, in exact integers (design.md section 8), and the table of all of them.

All of them need only the inner products of the updates, exact in int64, and then weighted sums of the updates. The
scalars in between (whose neighbour is whose, by how much a norm is cut) are Python integers: square roots are `isqrt`,
in fixed point. Updates come in the order of their authors' keys, and a tie goes to the smaller key.
"""

from collections.abc import Callable, Mapping, Sequence
from math import gcd, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.errors import LocalProtocolError
from ..protocol.components import FRACTION_BITS
from ..protocol.update import Integers
from .rules import CHUNK, Increment, columns, median, sorted_rows, trimmed_mean
from .rules import faults as tolerable

Rule = Callable[[Sequence[Integers], int], Increment]
Gram = list[list[int]]

CLIP_BITS = 24  # bits of the factor that clips a norm, rounded down: at most |q|·2^-24 below the exact value
CENTRE_BITS = 32  # bits of the weights whose mean of updates is centered clipping's centre
CENTRE_STEPS = 3  # of centered clipping
EXACT = 1 << 53  # float64 holds all integers up to here


def gram(rows: Sequence[npt.NDArray[Any]]) -> Gram:
    """Return the exact inner products of integer rows, shape [d] each, of at most 17 bits and a sign.

    A chunk's products in float64 stay under CHUNK · 2^34 = 2^47; the sums over d < 2^29 stay under 2^63.
    """
    n, d = len(rows), rows[0].size
    if d > 1 << 28:
        raise LocalProtocolError(f"{d} coordinates are too many for exact inner products")
    total = np.zeros((n, n), dtype=np.int64)
    width = _block(n)
    part = np.empty((n, min(width, d)), dtype=np.float64)
    for start in range(0, d, width):
        stop = min(start + width, d)
        chunk = part[:, : stop - start]
        for row, values in zip(chunk, rows, strict=True):
            row[:] = values[start:stop]
        total += (chunk @ chunk.T).astype(np.int64)
    products: Gram = total.tolist()
    return products


def _block(n: int) -> int:
    """Return how many columns of n rows to multiply at a time: so few that BLAS starts no threads.

    Threads cannot change the result, but on a busy machine waking them takes ten times as long as the product.
    """
    return max(64, min(CHUNK, (1 << 17) // (n * n)))


def distances(products: Gram, factors: Sequence[int]) -> Gram:
    """Return the exact squared distances of the vectors `factors[i] · row i`."""
    n = len(factors)
    own = [factors[i] ** 2 * products[i][i] for i in range(n)]
    return [[own[i] + own[j] - 2 * factors[i] * factors[j] * products[i][j] for j in range(n)] for i in range(n)]


def nearest(squared: Sequence[int], count: int) -> list[int]:
    """Return the indices of the `count` least values; of equal ones the first."""
    return sorted(range(len(squared)), key=lambda index: (squared[index], index))[:count]


def quotient(sums: npt.NDArray[np.int64], divisor: int) -> Increment:
    """Return `256·sums / divisor`, half to even, in integers; `256·sums / gcd(256, divisor)` is under 2^62."""
    common = gcd(1 << FRACTION_BITS, divisor)
    scaled, divisor = sums * ((1 << FRACTION_BITS) // common), divisor // common
    whole = scaled // divisor
    twice = 2 * (scaled - whole * divisor)
    whole += (twice > divisor) | ((twice == divisor) & (whole & 1 == 1))
    return whole


def multi_krum(updates: Sequence[Integers], faults: int) -> Increment:
    """Return the mean of the n-f updates with the least distance to their n-f-1 nearest others (Blanchard et al. 2017).

    The neighbours are counted as in byzfl: n-f-1 others, where the paper has n-f-2.
    """
    chosen = krum_choice(updates, faults)
    keep, d = len(chosen), updates[0].size
    out = np.empty(d, dtype=np.int64)
    for start in range(0, d, CHUNK):
        sums = np.zeros(min(CHUNK, d - start), dtype=np.int64)
        for index in chosen:
            sums += updates[index][start : start + CHUNK]
        out[start : start + CHUNK] = quotient(sums, keep)
    return out


def krum_choice(updates: Sequence[Integers], faults: int) -> list[int]:
    """Return the indices of the updates that `multi_krum` averages, ascending."""
    n, keep = _sizes("multi_krum", updates, faults)
    scores = []
    for index, row in enumerate(distances(gram(updates), [1] * n)):
        others = row[:index] + row[index + 1 :]
        scores.append(sum(sorted(others)[: keep - 1]))
    return sorted(nearest(scores, keep))


def nnm_trimmed_mean(updates: Sequence[Integers], faults: int) -> Increment:
    """Replace each update by the mean of its n-f nearest, itself included, then trim f at either end.

    Allouah et al. 2023, "Fixing by mixing". One division, by (n-f)(n-2f).
    """
    n, _ = _sizes("nnm+trimmed_mean", updates, faults)
    return _mixed(updates, faults, gram(updates), [1] * n, 0)


def clip_nnm_trimmed_mean(updates: Sequence[Integers], faults: int) -> Increment:
    """Cap each norm at the lower median of the norms, then as `nnm+trimmed_mean`.

    With Q the squared norms and M their lower median, update i counts as `q_i · min(2^24, ⌊2^24 √(M/Q_i)⌋) / 2^24`: its
    norm is never over the cap. Mixing and trimming are exact on these; one division, by (n-f)(n-2f)·2^24.
    """
    _sizes("clip+nnm+trimmed_mean", updates, faults)
    products = gram(updates)
    return _mixed(updates, faults, products, clip_factors(_diagonal(products), CLIP_BITS), CLIP_BITS)


def clip_factors(squared: Sequence[int], bits: int) -> list[int]:
    """Return `min(1, √(M/Q_i))` for each squared norm Q_i and their lower median M, in `bits` bits, rounded down."""
    cap = sorted(squared)[(len(squared) - 1) // 2]
    return [1 << bits if norm <= cap else isqrt((cap << 2 * bits) // norm) for norm in squared]


def centered_clipping(updates: Sequence[Integers], _faults: int = 0) -> Increment:
    """Return `v_3` of `v_(l+1) = v_l + (1/n) Σ (q_i - v_l) min(1, τ_l/‖q_i - v_l‖)` (Karimireddy et al. 2021).

    Three iterations from the coordinate-wise median; the radius τ_l is the lower median of the distances to v_l, so at
    most half of the updates are cut and no scale has to be chosen. The centre is kept as weights of the updates and of
    the first centre, in 32 bits, each rounded down; the remainder goes to the first centre.
    """
    n, unit = len(updates), 1 << CENTRE_BITS
    twice = (median(updates) >> (FRACTION_BITS - 1)).astype(np.int32)  # 2·median is whole
    weights = centre_weights(updates, twice)
    rows = [*updates, twice]
    coefficients = np.array([*(2 * weight for weight in weights), unit - sum(weights)], dtype=np.float64)
    d = updates[0].size
    out = np.empty(d, dtype=np.int64)
    width = _block(n + 1)
    part = np.empty((n + 1, min(width, d)), dtype=np.float64)
    for start in range(0, d, width):
        stop = min(start + width, d)
        chunk = part[:, : stop - start]
        for row, values in zip(chunk, rows, strict=True):
            row[:] = values[start:stop]
        # The weights add up to 2·2^32 on values under 2^15: sums under 2^48, and dividing by a power of two is exact.
        out[start:stop] = np.rint((coefficients @ chunk) * 2.0 ** (FRACTION_BITS - 1 - CENTRE_BITS))
    return out


def centre_weights(updates: Sequence[Integers], twice: npt.NDArray[np.int32]) -> list[int]:
    """Return the updates' weights in the centre of `centered_clipping`, in 2^-32; the median has the remaining weight.

    `twice` is two times the coordinate-wise median, [d].
    """
    n, unit = len(updates), 1 << CENTRE_BITS
    products = gram([*updates, twice])
    weights = [0] * n
    for _ in range(CENTRE_STEPS):
        factors = clip_factors(_from_centre(products, weights), CENTRE_BITS)
        left = n * unit - sum(factors)
        weights = [
            (weight * left + factor * unit) // (n * unit) for weight, factor in zip(weights, factors, strict=True)
        ]
    return weights


def _from_centre(products: Gram, weights: Sequence[int]) -> list[int]:
    """Return the squared distances, times (2·2^32)², of the updates to their mean by `weights`.

    The median has the remaining weight; the last row of `products` is twice the median.
    """
    unit, n = 1 << CENTRE_BITS, len(weights)
    centre = [*(2 * weight for weight in weights), unit - sum(weights)]
    on_rows = [sum(a * b for a, b in zip(row, centre, strict=True)) for row in products]
    own = sum(a * b for a, b in zip(on_rows, centre, strict=True))
    return [4 * unit * unit * products[i][i] - 4 * unit * on_rows[i] + own for i in range(n)]


def _mixed(updates: Sequence[Integers], faults: int, products: Gram, factors: Sequence[int], bits: int) -> Increment:
    """Nearest-neighbour mixing of `factors[i]/2^bits · q_i`, then the trimmed mean."""
    n, d = len(updates), updates[0].size
    keep = n - faults
    greatest = 1 << 8 * updates[0].dtype.itemsize - 1
    bound = (keep << bits) * greatest  # of a mixed sum
    if bound >= EXACT or n * bound << (0 if bits else FRACTION_BITS) >= 1 << 62:
        raise LocalProtocolError(f"nnm+trimmed_mean: {n} updates are too many")
    exact = np.float32 if bound <= 1 << 24 else np.float64
    mixing = neighbours(products, factors, keep).astype(exact)
    out = np.empty(d, dtype=np.int64)
    width = columns(2 * n, mixing.itemsize)
    block = _block(n)
    part, mixed = np.empty((2, n, min(width, d)), dtype=exact)
    for start in range(0, d, width):
        stop = min(start + width, d)
        chunk, out_of = part[:, : stop - start], mixed[:, : stop - start]
        for row, update in zip(chunk, updates, strict=True):
            row[:] = update[start:stop]
        for at in range(0, stop - start, block):
            np.matmul(mixing, chunk[:, at : at + block], out=out_of[:, at : at + block])
        sums = np.zeros(stop - start, dtype=np.int64)
        for row in sorted_rows(out_of)[faults : n - faults]:
            sums += row.astype(np.int64)
        out[start:stop] = quotient(sums, keep * (n - 2 * faults) << bits)
    return out


def neighbours(products: Gram, factors: Sequence[int], keep: int) -> npt.NDArray[np.int64]:
    """Return the matrix of nearest-neighbour mixing, [n, n]: row i has `factors[j]` where j is one of i's `keep`."""
    n = len(factors)
    mixing = np.zeros((n, n), dtype=np.int64)
    for row, squared in zip(mixing, distances(products, factors), strict=True):
        for index in nearest(squared, keep):
            row[index] = factors[index]
    return mixing


def _diagonal(products: Gram) -> list[int]:
    return [row[index] for index, row in enumerate(products)]


def _sizes(rule: str, updates: Sequence[Integers], faults: int) -> tuple[int, int]:
    n = len(updates)
    if n <= 2 * faults:
        raise LocalProtocolError(f"{rule}: {n} updates cannot tolerate {faults} faulty ones")
    return n, n - faults


# The robust rules of protocol/learning.py (the others need weights): from the updates and f to the increment.
RULES: Mapping[str, Rule] = {
    "trimmed_mean": trimmed_mean,
    "median": median,
    "multi_krum": multi_krum,
    "nnm+trimmed_mean": nnm_trimmed_mean,
    "clip+nnm+trimmed_mean": clip_nnm_trimmed_mean,
    "centered_clipping": centered_clipping,
}


def liars(rule: str, updates: int) -> int:
    """Return the number of faulty ones among so many updates that a rule tolerates: none for the mean and a sum."""
    if rule in ("median", "centered_clipping"):
        return max(0, (updates - 1) // 2)
    return tolerable(updates) if rule in RULES else 0
