"""The JSON of the views of privacy spent, as types: keys are part of the interface (docs/cli.md). None is no bound."""

from typing import NotRequired, TypedDict

from .shapes import MemberName


class ModalityShown(TypedDict):
    """A modality's policy in force and its origin, ε spent and allowed, and the components that its data reach."""

    modality: str
    kind: str
    sensitivity: str | None
    policy: str
    policy_from: str
    epsilon_spent: float | None
    epsilon_budget: float | None
    epsilon_from: str | None
    epsilon_before_recovery: float | None
    delta: float
    delta_from: str | None
    withheld: str | None
    reaches: list[str]


class ReservationShown(TypedDict):
    """A training run, as reserved before it began; ε of each modality is the total with it."""

    run: int
    rounds: dict[str, int]
    noise_multipliers: dict[str, float]
    sample_rate: float
    steps: int
    epsilon: dict[str, float | None]
    published: bool
    recalled: bool


class FloorShown(TypedDict):
    """The least that the charter asks of one kind of modality."""

    modality: str
    policy: str
    epsilon: float | None
    delta: float | None


class RoundsLeft(TypedDict):
    """The number of rounds like the last run that still fit, before recovery and with it, and each component's last.

    `runs_out_at` is the time of the last of them at the present interval of rounds; None without an interval yet.
    """

    rounds_left: int
    rounds_left_in_recovery: int
    like_run: int
    epsilon_now: float | None
    last_rounds: dict[str, int]
    runs_out_at: str | None


class RetrainingCost(TypedDict):
    """A modality's ε now, and after `rounds` more rounds like the last one: as many of those asked as its budget has.

    The budget is the whole ε, with the part that is kept for recovery. None is no bound.
    """

    modality: str
    epsilon_now: float | None
    epsilon_then: float | None
    epsilon_budget: float | None
    rounds: int


class StudentCost(TypedDict):
    """What one student has spent over all modalities that are or were under a bound."""

    epsilon: float | None
    delta: float
    modalities: list[str]


class Forecast(TypedDict):
    """What still fits, by modality under a bound; None of one without a training run."""

    planned_rounds: int
    modalities: dict[str, RoundsLeft | None]
    student: StudentCost | None


class PrivacyShown(TypedDict):
    """The budget of this node's students."""

    unit: str
    jurisdiction: str | None
    recovery_share: float
    planned_rounds: int
    modalities: list[ModalityShown]
    reservations: list[ReservationShown]
    floors: list[FloorShown]
    notes: list[str]
    forecast: Forecast | None


class SpendingLine(TypedDict):
    """What one training run of a member spent of one modality; without a height it was never published."""

    member: MemberName
    height: int | None
    rounds: dict[str, int]
    components: list[str]
    modality: str
    steps: int
    epsilon: float | None
    delta: float | None
    published: bool


class CostAfter(TypedDict):
    """ε after a number of rounds of a plan."""

    rounds: int
    epsilon: float | None


class CrossCheck(TypedDict):
    """ε by the accountant in use and by Opacus' PRV accountant, which is at most `error` above the truth."""

    pld: float | None
    prv: float | None
    error: float


class PlanCost(TypedDict):
    """The cost of a plan for one modality; without a charter, of one training run."""

    modality: NotRequired[str]
    components: NotRequired[list[str]]
    noise_multiplier: float
    delta: float
    epsilon_spent: float | None
    epsilon_of_plan: float | None
    epsilon: float | None
    epsilon_budget: float | None
    epsilon_before_recovery: float | None
    fits: bool | None
    by_round: list[CostAfter]
    events: list[list[float]]
    cross_check: CrossCheck | None


class PlanShown(TypedDict):
    """A plan and its cost."""

    rounds: int
    steps: int
    sample_rate: float
    noise_multipliers: dict[str, float]
    modalities: list[PlanCost]
