"""Whether one more training run fits into what is left of every modality's ε, and with which noise (G6). Pure
arithmetic.

**What a budget bounds.** The (ε, δ) of accountant.py, for any one student, over all updates that this node ever sends
in its federation. It is a budget for a lifetime and not for a round. The ε of rounds are not added up: all training
runs together are composed anew, and that gives less than the sum. "Is there room for another training run?" therefore
means: compute ε of all training runs and this one, and compare it with the limit. ε depends on rates, noise and counts
only, so the answer needs no student's record.

**Why nothing is refunded.** A training run is reserved on disk first, then trained, then sent (node/core/training.py).
After a crash it is unknown whether its update left. So a reserved event counts whether or not its training finished.
A share of ε, `recovery_share`, is kept back for the rounds after a withdrawal. Without it, a federation that spent all
its ε could not replace what the withdrawal took out.

**Why each modality has its own.** Essays may be more sensitive than click counts, and each has an ε of its own. Data of
a modality reach every component whose gradient depends on them: their encoder, the backbone, the heads of their tasks
(protocol/learning.py, `upstream`). The price of a training run for a modality is the event with σ_eff over the
components that it reaches. The shortest budget decides for all, since one training run trains all.

**Why σ is split as it is.** A modality's ε fixes σ_eff of a training run, and many (σ_c) give the same σ_eff = (Σ
σ_c^-2)^-1/2. Which does least harm? The noise in the sum of component c has d_c coordinates of variance (σ_c C_c)².
With a weight u_c for how useful the component is now, the harm is Σ u_c d_c C_c² σ_c². With x_c = σ_c^-2 this is:
minimise Σ a_c²/x_c for a given Σ x_c, where a_c = C_c √(u_c d_c). The derivative is equal in all x_c where x_c is
proportional to a_c (Lagrange), and so

    σ_c² = σ_eff² · Σ_j a_j / a_c

A component with many parameters, a large clip norm or much use gets less noise, and pays with a larger part of the
event. u_c is the drift of the component's *folded* state relative to the others (node/core/contribution.py). That is
public, so it costs nothing; a utility measured on students' data would have to be charged.

**Why noise grows.** The charter's noise is the minimum. Where a budget would end before the planned rounds,
`decide_run` raises the noise until the budget lasts, to at most MAX_NOISE times the charter's: a node that stopped
early would leave the others without its students. Beyond the planned rounds no noise is added.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from ...protocol.claims import MAX_NOISE, DpEvents, effective_noise, merge
from .accountant import MILLION, UNBOUNDED, Event, claimed, epsilon

FORECAST_LIMIT = 1000  # rounds
FINENESS = 500  # noise is calibrated to one part in so many, and rounded up


@dataclass(frozen=True, slots=True)
class Budget:
    """A lifetime budget: `epsilon` in thousandths at `delta`; `recovery_share` in millionths of it is kept back.

    The share opens (`recovery_open`) for the rounds after a withdrawal.
    """

    epsilon: int
    delta: float
    recovery_share: int
    recovery_open: bool

    @property
    def limit(self) -> int:
        """The ε in force now, in thousandths, rounded down; UNBOUNDED where nothing bounds it."""
        if self.recovery_open or self.epsilon >= UNBOUNDED:
            return self.epsilon
        return self.epsilon * (MILLION - self.recovery_share) // MILLION


@dataclass(frozen=True, slots=True)
class Modality:
    """One modality of a training run: its budget, what it has spent, and the components that its data reach."""

    name: str
    budget: Budget
    spent: tuple[DpEvents, ...]
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoisePart:
    """One component of a training run, in millionths but for `dimension`: the charter's noise is the least.

    `last` is the noise that was used last (0: none yet), `utility` u_c of the split.
    """

    name: str
    noise: int
    last: int
    clip: int
    utility: int
    dimension: int

    @property
    def share(self) -> float:
        """a_c = C_c √(u_c d_c): the larger, the less noise (design.md section 6)."""
        return self.clip / MILLION * sqrt(self.utility / MILLION * self.dimension)


@dataclass(frozen=True, slots=True)
class Decision:
    """`before`, `after`, `limit` are claims in thousandths; `rounds_left` counts the runs that fit, with this one."""

    allowed: bool
    before: int
    after: int
    limit: int
    rounds_left: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a training run may be reserved, with which noise (millionths) for each component; `reason` names who is
    short.
    """

    allowed: bool
    reason: str
    noises: dict[str, int]
    modalities: dict[str, Decision]


def decide_run(
    modalities: Sequence[Modality], parts: Sequence[NoisePart], *, sample_rate: int, steps: int, rounds: int, lines: int
) -> Verdict:
    """Decide on one training run over all `parts`, and choose the noise by which every budget lasts for `rounds` like
    it.

    The charter's noise, or what was used last, if that is enough for all; else as much more as the shortest budgets
    need, at most MAX_NOISE times the charter's. Where even that is too little, the rounds run out before. Nobody looks
    further ahead than FORECAST_LIMIT.

    `rounds` of 0 is a training run beyond the planned ones: no noise is added for it, so it is made only if the
    charter's, or what was used last, fits. Else a budget that was used up as planned would end in a round of noise
    alone.
    """
    run, planned, rounds = _Run(sample_rate, steps, lines), rounds > 0, max(1, min(rounds, FORECAST_LIMIT))
    least = {part.name: part.noise for part in parts}
    last = {part.name: min(max(part.noise, part.last), MAX_NOISE * part.noise) for part in parts}
    noises = least
    if not _last_for(modalities, least, run, rounds):
        noises = last if last != least and _last_for(modalities, last, run, rounds) else {}
    if not noises:
        noises = dict(least)
        for modality in modalities if planned else ():
            for name, noise in _needed(modality, parts, run, rounds).items():
                noises[name] = max(noises[name], noise)
    decisions = {modality.name: _decide(modality, noises, run) for modality in modalities}
    short = [
        f"{name}: ε {decision.after / 1000:g} with another round is over {decision.limit / 1000:g}"
        for name, decision in sorted(decisions.items())
        if not decision.allowed
    ]
    return Verdict(not short, "; ".join(short), noises, decisions)


@dataclass(frozen=True, slots=True)
class _Run:
    sample_rate: int
    steps: int
    lines: int


def _cost(modality: Modality, noise: int, run: _Run, rounds: int) -> int:
    more = [DpEvents(run.sample_rate, noise, run.steps * rounds)] if rounds else []
    return claimed(epsilon(events(merge([*modality.spent, *more], run.lines)), modality.budget.delta))


def _noise_reached(modality: Modality, noises: Mapping[str, int]) -> int:
    return effective_noise([noises[name] for name in modality.components])


def _last_for(modalities: Iterable[Modality], noises: Mapping[str, int], run: _Run, rounds: int) -> bool:
    return all(
        m.budget.limit >= UNBOUNDED or _cost(m, _noise_reached(m, noises), run, rounds) <= m.budget.limit
        for m in modalities
    )


def _needed(modality: Modality, parts: Sequence[NoisePart], run: _Run, rounds: int) -> dict[str, int]:
    """Return the noise by which this modality's budget lasts, or the most that there may be."""
    reached = [part for part in parts if part.name in modality.components]
    least, most = spread(reached, 0.0), spread(reached, float("inf"))
    if modality.budget.limit >= UNBOUNDED or 0 in least.values():
        return least

    def enough(noise: int) -> bool:
        return _cost(modality, noise, run, rounds) <= modality.budget.limit

    low, high = effective_noise(list(least.values())), effective_noise(list(most.values()))
    if enough(low):
        return least
    if not enough(high):
        return most
    while high - low > max(1, low // FINENESS):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return _reach(reached, high)


def _reach(parts: Sequence[NoisePart], noise: int) -> dict[str, int]:
    """Split σ_eff = `noise` by the parts' shares, none below the charter's noise or above MAX_NOISE times it."""
    low, high = 0.0, 1.0
    while effective_noise(list(spread(parts, high).values())) < noise and high < 2.0**80:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        if effective_noise(list(spread(parts, middle).values())) >= noise:
            high = middle
        else:
            low = middle
    return spread(parts, high)


def spread(parts: Sequence[NoisePart], level: float) -> dict[str, int]:
    """Return σ_c = level/√a_c in millionths, rounded up, within what each part may have.

    Where no part is at a bound, that is `σ_c² = σ_eff²·Σ_j a_j / a_c` for level² = σ_eff²·Σ_j a_j.
    """
    return {
        part.name: max(part.noise, ceil(min(float(MAX_NOISE * part.noise), level / sqrt(part.share)))) for part in parts
    }


def _decide(modality: Modality, noises: Mapping[str, int], run: _Run) -> Decision:
    limit, noise = modality.budget.limit, _noise_reached(modality, noises)
    before, after = _cost(modality, noise, run, 0), _cost(modality, noise, run, 1)
    left = FORECAST_LIMIT if limit >= UNBOUNDED else count_rounds(lambda n: _cost(modality, noise, run, n) <= limit)
    return Decision(after <= limit, before, after, limit, left)


def events(draws: Iterable[DpEvents]) -> list[Event]:
    """Return DP events as the accountant takes them."""
    return [(d.sample_rate / MILLION, d.noise_multiplier / MILLION, d.count) for d in draws]


def count_rounds(fits: Callable[[int], bool]) -> int:
    """Return the largest number of rounds that fits, at most FORECAST_LIMIT; what fits, fits with fewer."""
    low, high = 0, 1
    while high <= FORECAST_LIMIT and fits(high):
        low, high = high, high * 2
    high = min(high, FORECAST_LIMIT + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
