"""ε of what really ran: Poisson-subsampled Gaussian events composed by privacy loss distribution (design.md section
6).

**What (ε, δ) bounds.** Take an institution's data, and the same data without one student. An onlooker sees every
update that the node ever sent, knows all other students, has any computer, and guesses which of the two it was. Under
(ε, δ), for every set S of outcomes, `P(S | with) ≤ e^ε · P(S | without) + δ`, and the same the other way round (Dwork
and Roth 2014). So a fair bet is won with a chance of at most about e^ε/(1 + e^ε): .73 at ε = 1, .95 at 3, .9997 at 8.
A large ε says little by itself. δ is the part of the chance that lies outside the bound; it has to be far below one
over the number of students. All records of a student count together; a student of k institutions pays k times.

**One step.** A step gives out a sum of clipped gradients with Gaussian noise. One student changes the sum by at most C,
and the noise has standard deviation σC, so σ alone decides. The *privacy loss* of an outcome is the logarithm of the
ratio of its two probabilities. For one Gaussian step it is normal, with mean 1/(2σ²) and variance 1/σ².

**Subsampling.** In each step a student is sampled with chance q, independently of all others. An onlooker who cannot
see whether the student was sampled learns less: for small q the loss shrinks by about q (Balle, Barthe and Gaboardi
2018). The outcome with the student is the mixture (1 − q)·N(0, σ²) + q·N(1, σ²). This holds only if samples are Poisson
and stay secret; batches of a fixed size or a shuffle once an epoch are other mechanisms, with another ε.

**Composition.** Losses of steps add up, so the loss of T steps has the T-fold convolution of one step's distribution.
The accountant holds that distribution as a list of numbers on a grid (PLD: Meiser and Mohammadi 2018; Koskela et al.
2020; Google's dp_accounting) and reads off the ε at which `E[max(0, 1 − e^(ε − loss))] = δ`. That is nearly exact. A
sum of the steps' ε would be many times as large; Rényi bounds (Mironov 2017) lie in between.

**Several components at once.** One sample of students trains all engaged components, each with noise σ_c of its own.
Divide each gradient by its σ_c C_c: the student then changes the whole by at most √(Σ σ_c^-2), under noise of 1. So a
step is one event with `σ_eff = (Σ σ_c^-2)^-1/2`, and not one event a component: the same student is in all of them or
in none.

Every rounding is pessimistic: the discretisation, the calibrated noise and the claimed ε only ever overstate the cost.
`dp_accounting` takes 2 s to import, so it is imported on the first use. An `epsilon` of one kind of event takes 0.05 to
0.2 s the first time (less for more noise), and nothing when it was asked before.

Time and memory are bounded before anything is computed: too little noise, or a distribution of too many numbers, has an
infinite ε here. That overstates an ε which protects no student.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, inf, isfinite, isnan, sqrt
from typing import Any

MILLION = 1_000_000
UNBOUNDED = 2**32 - 1  # the claim of an infinite ε, in thousandths
# At 1e-3 the worked case of design.md section 6 comes out 8e-5 above the value at 1e-4, ten times faster; never below.
INTERVAL = 1e-3
# Above the error of the Fourier transforms by which distributions are composed, below what a claim resolves.
SLACK = 1e-6
MIN_NOISE = 0.1  # below it one step at q = 1 has ε of 90 and more
MAX_NUMBERS = 2**22  # of a composed distribution: 0.5 GB and a second while it is computed
KEPT_NUMBERS = 2**17  # a larger one is computed anew each time: 2 MB each, at most 192 of them
HIGHEST_NOISE = 2**40  # millionths: the largest noise multiplier that a charter can hold

Event = tuple[float, float, int]  # (sample rate q, effective noise multiplier, count)


def effective_noise(noise_multipliers: Sequence[float]) -> float:
    """Return σ_eff = (Σ_c σ_c^-2)^-1/2 of one step over several components; 0 if any of them is without noise."""
    if not noise_multipliers or min(noise_multipliers) <= 0.0:
        return 0.0
    return 1.0 / sqrt(sum(sigma**-2 for sigma in noise_multipliers))


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Return ε at `delta` of all `events` together, for adding or removing one student; `inf` if one has no noise.

    An event (q, σ_eff, count) is `count` Gaussian sums over Poisson samples at rate q. `inf` too where one has less
    noise than MIN_NOISE, or all together would take more than MAX_NUMBERS. Raises ValueError if a rate is not
    in [0, 1], a noise is negative, a count is negative or `delta` is not in (0, 1).
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta {delta} is not in (0, 1)")
    counts: dict[tuple[float, float], int] = {}
    for q, sigma, count in events:
        if not (0.0 <= q <= 1.0 and sigma >= 0.0 and count >= 0):
            raise ValueError(f"no event: sample rate {q}, noise {sigma}, count {count}")
        if count and q > 0.0:
            counts[(q, sigma)] = counts.get((q, sigma), 0) + count
    if not counts:
        return 0.0
    together = tuple(sorted((q, sigma, count) for (q, sigma), count in counts.items()))
    if any(sigma < MIN_NOISE for _, sigma, _ in together) or numbers(*together) > MAX_NUMBERS:
        return inf
    return _composed(together, delta)


def numbers(*events: Event) -> int:
    """Return how many numbers the distribution of these events takes, generously: its length / INTERVAL.

    A step reaches 10 standard deviations, and many together 12 of their sum (σ >= MIN_NOISE; a student is in a sample
    with chance q, and then the loss has mean 1/(2σ²) and variance 1/σ²).
    """
    widest = max((20.0 / sigma + 1.0 / sigma**2 for _, sigma, _ in events), default=0.0)
    variance = sum(count * q * (1.0 / (4.0 * sigma**4) + 1.0 / sigma**2) for q, sigma, count in events)
    return ceil((widest + 24.0 * sqrt(variance)) / INTERVAL)


def claimed(value: float) -> int:
    """Return an ε in thousandths, rounded up; UNBOUNDED for an infinite one."""
    if isnan(value) or value < 0.0:
        raise ValueError(f"no ε: {value}")
    return min(ceil(value * 1000.0), UNBOUNDED) if isfinite(value) else UNBOUNDED


@lru_cache(maxsize=256)
def calibrate(target: float, delta: float, q: float, steps: int, others: tuple[Event, ...] = ()) -> int:
    """Return the σ_eff, in millionths and rounded up, for which `steps` steps at rate `q` cost at most ε = `target`,
    together with `others` of the same students.

    Bisection to one part in ten thousand, and the upper end is returned. Raises ValueError if no noise is enough.
    """
    # From above: at too little noise a distribution of so many steps takes gigabytes.
    high = MILLION
    while high < MILLION * q * sqrt(steps):
        high *= 2
    while epsilon([(q, high / MILLION, steps), *others], delta) > target:
        high *= 2
        if high > HIGHEST_NOISE:
            raise ValueError(f"no noise reaches ε = {target} at δ = {delta}")
    low = high // 2
    while low > MILLION // 100 and epsilon([(q, low / MILLION, steps), *others], delta) <= target:
        high, low = low, low // 2
    while high - low > max(1, high // 10_000):
        middle = (low + high) // 2
        if epsilon([(q, middle / MILLION, steps), *others], delta) <= target:
            high = middle
        else:
            low = middle
    return high


def split_noise(noise: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return σ_c in millionths, rounded up, with `σ_c² = σ_eff²·Σ_j a_j / a_c` for the shares a (design.md section 6).

    `noise` is σ_eff in millionths. A larger share gets less noise; together they never cost more than σ_eff.
    """
    if not shares or min(shares) <= 0.0:
        raise ValueError("every component needs a positive share of the noise")
    total = sum(shares)
    return tuple(ceil(noise * sqrt(total / share)) for share in shares)


def _single(q: float, sigma: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution  # noqa: PLC0415  # 2 s: imported on the first use

    return privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=q, value_discretization_interval=INTERVAL, pessimistic_estimate=True
    )


def _repeated(q: float, sigma: float, count: int) -> Any:
    single = _kept_single(q, sigma) if numbers((q, sigma, 1)) <= KEPT_NUMBERS else _single(q, sigma)
    return single.self_compose(count) if count > 1 else single


_kept_single = lru_cache(maxsize=128)(_single)
_kept_repeated = lru_cache(maxsize=64)(_repeated)


@lru_cache(maxsize=4096)
def _composed(events: tuple[Event, ...], delta: float) -> float:
    whole: Any = None
    for q, sigma, count in events:
        small = numbers((q, sigma, count)) <= KEPT_NUMBERS
        part = _kept_repeated(q, sigma, count) if small else _repeated(q, sigma, count)
        whole = part if whole is None else whole.compose(part)
    value = float(whole.get_epsilon_for_delta(delta))
    return inf if isnan(value) else max(value, 0.0) + SLACK
