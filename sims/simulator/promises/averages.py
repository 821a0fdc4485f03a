"""The weights of design.md section 8 again, in plain integers and fractions: what the fold's are held against."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, combinations, pairwise
from math import prod

from ....protocol.components import ComponentSpec

Rows = Sequence[Sequence[int]]
Declared = Sequence[tuple[int, int]]  # (variance, staleness)


def tensors(spec: ComponentSpec) -> Iterator[tuple[int, int]]:
    """Yield where each tensor begins and ends."""
    yield from pairwise(accumulate((prod(tensor.shape) for tensor in spec.tensors), initial=0))


def mean(_rows: Rows, declared: Declared) -> list[int]:
    """Return the weights of `mean`: `v₀ = max(1, lower median)`, at least half a share."""
    n = len(declared)
    middle = max(1, sorted(variance for variance, _ in declared)[(n - 1) // 2])
    shares = [2**16 * middle // (middle + variance) for variance, _ in declared]
    whole = [2**15 * share // sum(shares) + 2**15 // n for share in shares]
    return [max(1, a // 2**staleness) for a, (_, staleness) in zip(whole, declared, strict=True)]


def random_effects(rows: Rows, declared: Declared) -> list[int]:
    """Return the weights of `random-effects` for one tensor: τ² as the weighted sum of squares says it, then shares."""
    n, d = len(rows), len(rows[0])
    v = [max(1, variance) for variance, _ in declared]
    w = [2**16 * max(v) // each for each in v]
    means = [Fraction(sum(a * row[index] for a, row in zip(w, rows, strict=True)), sum(w)) for index in range(d)]
    spread = sum(
        a * sum((value - centre) ** 2 for value, centre in zip(row, means, strict=True))
        for a, row in zip(w, rows, strict=True)
    )
    noise = sum(a * each - Fraction(a * a * each, sum(w)) for a, each in zip(w, v, strict=True))
    pairs = Fraction(2 * sum(a * b for a, b in combinations(w, 2)), sum(w))
    tau = max(Fraction(0), (Fraction(spread) / d - noise) / pairs) if n > 1 else Fraction(0)
    spreads = [30 * tau + each for each in v]
    r = [max(1, int(2**32 * each / max(spreads))) for each in spreads]
    low, high = max(1, 2**16 // (5 * n)), 5 * 2**16 // (2 * n)

    def shares(c: int) -> list[int]:
        return [max(low, min(high, c // each)) for each in r]

    c = 0
    for bit in reversed(range(80)):  # the greatest c whose shares are no more than the whole
        if sum(shares(c + 2**bit)) <= 2**16:
            c += 2**bit
    return [max(1, a // 2**staleness) for a, (_, staleness) in zip(shares(c), declared, strict=True)]
