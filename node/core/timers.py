"""The timers of the core: set by `SetTimer`, returned by `TimerFired`. A timer replaces an equal one."""

from dataclasses import dataclass
from typing import TypeAlias

from ...consensus.agreement import Step


@dataclass(frozen=True, slots=True)
class NextPiece:
    """Take the next piece of a neighbour's answer."""


@dataclass(frozen=True, slots=True)
class SyncDue:
    """Send a sync request to a neighbour."""


@dataclass(frozen=True, slots=True)
class IdleDue:
    """End a height in which nothing is urgent."""


@dataclass(frozen=True, slots=True)
class PostDue:
    """Write this node's update records without waiting for the others of the same training."""


@dataclass(frozen=True, slots=True)
class GatherDue:
    """Close rounds without waiting for other components' updates of the same trainings."""


@dataclass(frozen=True, slots=True)
class TrainDue:
    """Train the components that can be trained, without the rest."""


@dataclass(frozen=True, slots=True)
class PullDue:
    """Try again to get the bytes of updates."""


@dataclass(frozen=True, slots=True)
class FoldDue:
    """Try again to fold a component whose bytes are missing."""

    component: str


@dataclass(frozen=True, slots=True)
class RoundDeadline:
    """A round is no longer held open for updates that are not here."""

    component: str
    round: int


@dataclass(frozen=True, slots=True)
class PaceDue:
    """By this node's clock, the charter's pace lets a component close a round from now on."""

    component: str


@dataclass(frozen=True, slots=True)
class VoteTimeout:
    """A step of a view has lasted too long."""

    height: int
    view: int
    step: Step


Timer: TypeAlias = (
    NextPiece
    | SyncDue
    | IdleDue
    | PostDue
    | GatherDue
    | TrainDue
    | PullDue
    | FoldDue
    | RoundDeadline
    | PaceDue
    | VoteTimeout
)
