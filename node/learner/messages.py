"""The requests to a learner worker, one dataclass each, which names its answer (answers.py). No torch.

A new operation is such a class, in the union `Request`, and its answer in `Answer`; mypy then names the worker's
switch. coding.py writes and reads both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from ...protocol import schema
from ...protocol.charter import Charter
from ...protocol.components import MILLION, ComponentSpec
from ...protocol.learning import MAX_SHARDS, Learning
from ...protocol.schema import U32, U63, Between, Bytes32, Size
from ..privacy.budget import Modality, NoisePart, Verdict
from .answers import (
    Audited,
    CrossChecked,
    DeletionCurves,
    Done,
    EpsilonFound,
    Evaluated,
    EvaluatedVariants,
    Explained,
    Opened,
    Personalised,
    Positive,
    Predicted,
    Scores,
    Trained,
)

States = dict[str, bytes]  # component → int32 little-endian; of a statistic int64. A component not named: its base
Split = Literal["held_out", "validation", "train"]
Finite = Annotated[float, Between(-(2**1000), 2**1000)]
Share = Annotated[float, Between(0, 1)]
Count = Annotated[int, Between(1, 2**32 - 1)]
A_co = TypeVar("A_co", covariant=True)


class Asks(Generic[A_co]):
    """A request whose answer is an `A_co`: `class Train(Asks[Trained])`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Excluded students: their tags under a salt (node/unlearning/students.py)."""

    salt: Annotated[bytes, Size(0, 64)]
    tags: tuple[Bytes32, ...]


@dataclass(frozen=True, slots=True)
class PrivateAdapter:
    """A private adapter on each pretrained text model."""

    kind: Literal["lora", "rslora", "dora"]
    rank: Count

    @classmethod
    def named(cls, kind: str, rank: int) -> "PrivateAdapter | None":
        """Return the private adapter that config.toml (node/home/config.py) names; None for ""."""
        return schema.from_plain(cls, {"kind": kind, "rank": rank}) if kind else None


@dataclass(frozen=True, slots=True)
class Open(Asks[Opened]):
    """Read a data folder (several are pooled), and check it against the charter's components.

    `seed` is for simulations only. `withheld` modalities are read only for the `home_layer`. `models` has
    the folders of pretrained models, by name; `cache` is the file of their embeddings (None: no cache), which may be
    `cache_read_only`; `purge` deletes its rows of students that are not in the data. `validation` is the share of the
    training students that is set apart. Consents are judged on `day` ("2026-07-31"; None: the day it is, in UTC).
    `private` is the folder of the private adapters. A `session` of the same name is replaced. Training is shared out
    over `processes` (crew.py).
    """

    data: Annotated[tuple[str, ...], Size(1, 2**16)]
    components: tuple[ComponentSpec, ...]
    learning: Learning
    base_seed: Bytes32
    hosted: tuple[str, ...]
    seed: U63 | None = None
    session: str = ""
    withheld: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    cache: str | None = None
    cache_read_only: bool = False
    purge: bool = False
    validation: Share = 0.0
    home_layer: bool = False
    private: str | None = None
    private_adapter: PrivateAdapter | None = None
    excluded: LeftOut | None = None
    day: str | None = None
    processes: Annotated[int, Between(1, 64)] = 1


@dataclass(frozen=True, slots=True)
class TryModel(Asks[Done]):
    """Load a pretrained model of text and embed with it; needs no session."""

    folder: str


@dataclass(frozen=True, slots=True)
class Respec(Asks[Done]):
    """Continue with the same data under another recipe (simulations); a `seed` restarts the randomness."""

    components: tuple[ComponentSpec, ...]
    learning: Learning
    base_seed: Bytes32
    seed: U63 | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class Engagement:
    """One component's recipe: clip norm C, noise multiplier σ, learning rate η."""

    clip: Positive
    noise: Positive
    learning_rate: Positive

    @classmethod
    def of(cls, clip_norm: int, noise_multiplier: int, learning_rate: int) -> "Engagement":
        """Return an engagement from millionths, the unit of charters and headers."""
        return cls(clip_norm / MILLION, noise_multiplier / MILLION, learning_rate / MILLION)


@dataclass(frozen=True, slots=True)
class Train(Asks[Trained]):
    """Train the engaged components from these states.

    All of `engaged` are statistics, or none. For statistics steps and sample_rate are 1, lot is N̂, and states are not
    needed. Only students of `shard` are drawn, of as many shards as the charter has; -1: of all.
    """

    states: States
    engaged: dict[str, Engagement]
    steps: Count
    sample_rate: Share
    lot: Positive
    shard: Annotated[int, Between(-1, MAX_SHARDS - 1)] = -1
    split: Split = "train"
    session: str = ""


@dataclass(frozen=True, slots=True)
class Evaluate(Asks[Evaluated]):
    """Evaluate these states on a split of this node's own students.

    With the `home_layer` too, which is learned of the split "train": that split has no such figures.
    """

    states: States
    split: Split = "held_out"
    session: str = ""
    home_layer: bool = False


@dataclass(frozen=True, slots=True)
class EvaluateVariants(Asks[EvaluatedVariants]):
    """Evaluate variants one after the other on one model: each replaces some of `states`."""

    states: States
    variants: tuple[States, ...]
    split: Split = "held_out"
    session: str = ""


@dataclass(frozen=True, slots=True)
class PredictScores(Asks[Scores]):
    """Compute the scores of every labelled record of a split, for metrics over several institutions."""

    states: States
    split: Split = "held_out"
    session: str = ""


@dataclass(frozen=True, slots=True)
class Predict(Asks[Predicted]):
    """Predict every hosted task, or one, for the records of a file: with the `home_layer`, or by the shared model.

    `sample` is the seed of texts that are sampled; None: the likeliest token is taken each time.
    """

    states: States
    file: str
    home_layer: bool = False
    task: str | None = None
    sample: U63 | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class Explain(Asks[Explained]):
    """Explain a task's results for the records of a file, or for one, by the shared model.

    `only`: there has to be one record alone, since the answer is for one person. With the `home_layer` it is told
    beside them what that makes of each record.
    `variants` are other states of some components: each record is scored with them as well.
    """

    states: States
    file: str
    task: str
    record: str | None = None
    variants: tuple[States, ...] = ()
    only: bool = False
    home_layer: bool = False
    session: str = ""


@dataclass(frozen=True, slots=True)
class Personalise(Asks[Personalised]):
    """Train the private adapters beside these states, and store them."""

    states: States
    session: str = ""


@dataclass(frozen=True, slots=True)
class SampledSteps:
    """`count` steps at a sample rate q with effective noise σ_eff."""

    sample_rate: Share
    noise: Finite
    count: U32


@dataclass(frozen=True, slots=True)
class Epsilon(Asks[EpsilonFound]):
    """Compute ε of these steps."""

    events: tuple[SampledSteps, ...]
    delta: Finite


@dataclass(frozen=True, slots=True)
class CrossCheck(Asks[CrossChecked]):
    """Compute ε of these steps by two accountants."""

    events: tuple[SampledSteps, ...]
    delta: Finite


@dataclass(frozen=True, slots=True)
class DecideRun(Asks[Verdict]):
    """Decide whether one more training run fits the budgets, and with which noise (node/privacy/budget.py)."""

    modalities: tuple[Modality, ...]
    components: tuple[NoisePart, ...]
    sample_rate: U32
    steps: U32
    rounds: U32
    lines: U32


@dataclass(frozen=True, slots=True)
class Audit(Asks[Audited]):
    """Try to refute the claimed ε on synthetic students; a `fault` plants a mistake (audit/)."""

    fault: str | None = None


@dataclass(frozen=True, slots=True)
class AuditOwn(Asks[Audited]):
    """Try to refute the claimed ε of this session's training, with canaries among its students."""

    states: States
    engaged: dict[str, Engagement]
    steps: Count
    sample_rate: Share
    lot: Positive
    canaries: Annotated[int, Between(10, 2**20)]
    fault: str | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class DeleteFeatures(Asks[DeletionCurves]):
    """Delete the features of held-out records in the order of their effects, and in so many random orders."""

    states: States
    task: str
    records: Count
    orders: Annotated[int, Between(2, 1000)]
    seed: U63
    session: str = ""


SessionRequest = (
    Respec | Train | Evaluate | EvaluateVariants | PredictScores | Predict | Explain | Personalise
)  # of an opened data folder
AuditRequest = Audit | AuditOwn | CrossCheck | DeleteFeatures  # of a worker that audits (audit/worker.py)
LearnerRequest = Open | TryModel | Epsilon | DecideRun | SessionRequest  # of a worker that trains
Request = LearnerRequest | AuditRequest


def opening(charter: Charter, data: Path, hosted: Sequence[str] | None = None) -> Open:
    """Return the request that opens a data folder under a charter, with these components, or with all."""
    return Open(
        data=(str(data),),
        components=charter.components,
        learning=charter.learning,
        base_seed=charter.seed,
        hosted=tuple(spec.name for spec in charter.components) if hosted is None else tuple(hosted),
    )
