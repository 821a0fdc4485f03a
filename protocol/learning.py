"""What a charter says of the learning: modalities, tasks, the recipe of a round, and the privacy floors."""

from dataclasses import dataclass
from typing import Annotated

from .schema import U32, Between, Name, Size

MODALITY_KINDS = frozenset({"tabular", "image", "series"})
TASK_KINDS = frozenset({"binary", "multiclass"})
POLICIES = ("never", "dp", "open")  # strictest first


@dataclass(frozen=True, slots=True)
class Modality:
    """One modality: `width` features for each of at most `length` steps (tabular and image: length 1)."""

    name: Name
    kind: Name
    width: Annotated[int, Between(1, 2**20)]
    length: Annotated[int, Between(1, 2**16)]


@dataclass(frozen=True, slots=True)
class Task:
    """One task: `kind` is "binary" (classes = 2) or "multiclass"."""

    name: Name
    kind: Name
    classes: Annotated[int, Between(2, 2**16)]


@dataclass(frozen=True, slots=True)
class PrivacyFloor:
    """The least privacy of a modality, for each student and a member's lifetime in the federation.

    `policy` is "never", "dp" or "open"; `epsilon` in thousandths, `delta` in billionths (both unused unless "dp").
    """

    modality: Name
    policy: Name
    epsilon: U32
    delta: U32


@dataclass(frozen=True, slots=True)
class Learning:
    """The recipe of one round: `steps` DP-SGD steps, each drawing students by Poisson at `sample_rate` (millionths).

    Steps and sample rate are upper bounds on what an update may declare. `recovery_share` (millionths) of every ε is
    kept for the rounds after a withdrawal. `planned_rounds` is what the noise was calibrated for.
    """

    modalities: Annotated[tuple[Modality, ...], Size(1, 64)]
    tasks: Annotated[tuple[Task, ...], Size(1, 64)]
    floors: Annotated[tuple[PrivacyFloor, ...], Size(1, 64)]
    steps: Annotated[int, Between(1, 2**20)]
    sample_rate: Annotated[int, Between(1, 1_000_000)]
    recovery_share: Annotated[int, Between(0, 1_000_000)]
    planned_rounds: Annotated[int, Between(1, 2**20)]
