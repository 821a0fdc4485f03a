"""The cost of a charter's planned rounds for one student whose institution has data of every modality.

Each modality has an ε of its own: it bounds what that modality's data may be exposed to. A student has data of several,
and tasks that read different ones add up. So the ε of a student is that of all components together, which is more than
any single budget says and less than their sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.claims import effective_noise
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import Learning
from ..privacy.accountant import UNBOUNDED, Event, claimed, epsilon


@dataclass(frozen=True, slots=True)
class StudentCost:
    """ε in thousandths, rounded up (None: no bound), at `delta`, after `rounds` rounds over these modalities."""

    epsilon: int | None
    delta: float
    rounds: int
    modalities: tuple[str, ...]


def planned_cost(specs: Sequence[ComponentSpec], learning: Learning) -> StudentCost | None:
    """Return the cost of all planned rounds by the charter's noise; None if no modality is under dp."""
    floors = [floor for floor in learning.floors if floor.policy == "dp"]
    if not floors:
        return None
    names = {floor.modality for floor in floors}
    reached = [spec for spec in specs if learning.upstream(spec.name) & names]
    rounds_, sums = (
        [s.noise_multiplier for s in reached if s.is_statistic is is_statistic] for is_statistic in (False, True)
    )
    draws = learning.planned_rounds * learning.steps
    events: list[Event] = []
    if rounds_:
        events.append((learning.sample_rate / MILLION, effective_noise(rounds_) / MILLION, draws))
    if sums:
        events.append((1.0, effective_noise(sums) / MILLION, 1))
    delta = min(floor.delta for floor in floors) / 1e9
    total = claimed(epsilon(events, delta))
    return StudentCost(None if total == UNBOUNDED else total, delta, learning.planned_rounds, tuple(sorted(names)))
