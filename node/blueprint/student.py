"""The cost of a charter's planned rounds for one student whose institution has data of every modality.

Each modality has an ε of its own: it bounds what that modality's data may be exposed to. A student has data of several,
and tasks that read different ones add up. So the ε of a student is that of all components together, which is more than
any single budget says and less than their sum.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ...protocol.claims import effective_noise
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning, PrivacyFloor
from ..privacy.accountant import UNBOUNDED, Event, claimed, epsilon
from ..privacy.budget import count_rounds


@dataclass(frozen=True, slots=True)
class StudentCost:
    """ε in thousandths, rounded up (None: no bound), at `delta`, after `rounds` rounds over these modalities.

    `epsilon_with_reserve` is that when the rounds after withdrawals have spent the reserve too; None where the charter
    keeps none. It is exact where one modality's data reach every noised component: that modality's ε bounds it. Else it
    is estimated, as if every modality were trained until the last one's budget is spent.
    """

    epsilon: int | None
    delta: float
    rounds: int
    modalities: tuple[str, ...]
    epsilon_with_reserve: int | None = None
    reserve_estimated: bool = False


def planned_cost(specs: Sequence[ComponentSpec], learning: Learning) -> StudentCost | None:
    """Return the cost of all planned rounds by the charter's noise; None if no modality is under dp."""
    floors = [floor for floor in learning.floors if floor.policy == "dp"]
    if not floors:
        return None
    names = frozenset(floor.modality for floor in floors)
    delta = min(floor.delta for floor in floors)
    total = _cost(specs, learning, names, delta, learning.planned_rounds)
    bounded = total != UNBOUNDED
    cost = StudentCost(total if bounded else None, delta / 1e9, learning.planned_rounds, tuple(sorted(names)))
    if not bounded or not learning.recovery_share:
        return cost
    whole = _reached(specs, learning, names)
    bounds = [f.epsilon for f in floors if f.delta == delta and _reached(specs, learning, {f.modality}) == whole]
    if bounds:
        return replace(cost, epsilon_with_reserve=max(total, min(bounds)))
    rounds = max(_affordable(specs, learning, floor) for floor in floors)
    most = _cost(specs, learning, names, delta, max(rounds, learning.planned_rounds))
    return replace(cost, epsilon_with_reserve=most, reserve_estimated=True)


def _reached(specs: Sequence[ComponentSpec], learning: Learning, names: Collection[str]) -> list[ComponentSpec]:
    """Return the components that data of these modalities reach."""
    return [spec for spec in specs if not learning.upstream(spec.name).isdisjoint(names)]


def _cost(specs: Sequence[ComponentSpec], learning: Learning, names: Collection[str], delta: int, rounds: int) -> int:
    """Return ε in thousandths of so many rounds for a student with data of these modalities; δ is in billionths."""
    reached = _reached(specs, learning, names)
    trained, sums = (
        [s.noise_multiplier for s in reached if s.is_statistic is is_statistic] for is_statistic in (False, True)
    )
    events: list[Event] = []
    if trained:
        steps = learning.runs_of_a_student(rounds) * learning.steps
        events.append((learning.sample_rate / MILLION, effective_noise(trained) / MILLION, steps))
    if sums:
        events.append((1.0, effective_noise(sums) / MILLION, 1))
    return claimed(epsilon(events, delta / 1e9))


def _affordable(specs: Sequence[ComponentSpec], learning: Learning, floor: PrivacyFloor) -> int:
    """Return the number of rounds that a modality's whole ε pays for."""

    def fits(rounds: int) -> bool:
        return _cost(specs, learning, {floor.modality}, floor.delta, rounds) <= floor.epsilon

    return count_rounds(fits)
