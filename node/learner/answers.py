"""The answers of a learner worker, one dataclass each (messages.py has the requests). No torch."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ...crypto.errors import CorruptError, OperatorError, RefusedError, UsageError
from ...protocol.schema import U63, Between, Bytes32
from ..privacy.budget import Verdict

Positive = Annotated[float, Between(0, 2**1000)]  # or zero
ErrorKind = Literal["bad-request", "bad-data", "internal"]


class BadRequestError(UsageError):
    """A request that does not decode, or names something that does not exist; `number` is its id, 0 if unknown."""

    number = 0


class BadReplyError(OperatorError):
    """A learner's answer that does not decode or does not fit its request; `number` is its id, 0 if unknown."""

    number = 0


class HelperLostError(OperatorError):
    """A helper of a training run over several processes does not answer: the whole team begins anew (crew.py)."""


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out; there is no result."""


@dataclass(frozen=True, slots=True)
class ModalityData:
    """A modality in the data: its kind, features, largest number of steps, and number of records that have it."""

    kind: str
    width: int
    length: int
    records: int


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task in the data: its kind, classes, and number of records with a label."""

    kind: str
    classes: int
    records: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The content of a data folder; `subjects` are those to train on.

    `everybody` are all ids in the data, with the excluded ones; None: this learner does not report them. `left_out`
    students have an unusable cell; `problems` name its place, never its content. `consents` counts students by consent
    ("yes", "no", "lapsed", "unreadable"), and `refused` are the ids without one, `unclear` those whose cells do not say
    it; None and none where dataset.toml names no column of consents. `components` are the hosted ones, with their
    dimensions. `cut` counts, for a text modality, records that are read in part. `simulated`: the randomness is a
    function of the request's seed.
    """

    components: dict[str, int]
    subjects: int = 0
    held_out: int = 0
    everybody: tuple[str, ...] | None = None
    left_out: int = 0
    problems: tuple[str, ...] = ()
    consents: dict[str, int] | None = None
    refused: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    modalities: dict[str, ModalityData] = field(default_factory=dict)
    tasks: dict[str, TaskData] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    simulated: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class Trained:
    """The updates of a training run: for each component integers, little-endian, of the spec's width.

    `saturated` counts the integers at the end of their range; `scaled` is the factor that brought an update within the
    norm bound, or 1. `subjects` are the drawn students; None: this learner does not report them.
    """

    updates: dict[str, bytes]
    seconds: Positive
    saturated: dict[str, int] = field(default_factory=dict)
    scaled: dict[str, float] = field(default_factory=dict)
    subjects: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A task's first metric on `n` students; None where it is undefined."""

    metric: str
    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """The first metric on the students of a sensitive group; None, and `n` too, where these are too few to report."""

    value: float | None
    n: int | None


MIN_RECALIBRATED = 20  # own students with a label; of fewer no home layer is learned
MIN_STACKED = 50  # of fewer it only recalibrates


@dataclass(frozen=True, slots=True)
class HomeLayer:
    """What the home layer does to a task, and of how many own students with a label it is learned; "": nothing.

    "adapted": a private adapter writes the text.
    """

    form: Literal["", "recalibrated", "stacked", "adapted"]
    students: U63


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A task's evaluation on `n` students: its first metric, all metrics, and by attribute and level of groups."""

    metric: str
    value: float | None
    n: int
    records: int
    metrics: dict[str, float | None]
    groups: dict[str, dict[str, GroupFigure]]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A report for each hosted task.

    `home_layer`: the same with the home layer, of the tasks that it changes. `statistics`: the same for heads solved
    from statistics, by the statistic's name, if anybody contributed.
    """

    tasks: dict[str, TaskReport] = field(default_factory=dict)
    home_layer: dict[str, TaskReport] = field(default_factory=dict)
    statistics: dict[str, TaskReport] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluatedVariants:
    """For each variant the figure of each task, or statistic."""

    variants: tuple[dict[str, Figure], ...]


@dataclass(frozen=True, slots=True)
class TaskScores:
    """Every labelled record of a split: its subject, its scores and its labels."""

    kind: str
    metric: str
    subjects: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of each hosted task, and of statistics by the statistic's name."""

    tasks: dict[str, TaskScores]


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """A task's scores for each record: probabilities of `classes`, or a regression's value; or the `texts` written."""

    kind: str
    classes: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions for the records of a file, and the number of records with each modality.

    Those of students `without_consent`, a number, are not among them.
    `home_layer`: what it did to each task with a head; empty where it was not asked for.
    """

    records: tuple[str, ...]
    tasks: dict[str, TaskPrediction]
    modalities: dict[str, int]
    without_consent: int = 0
    home_layer: dict[str, HomeLayer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeatureEffect:
    """What a feature of a record adds to its score; `value` is the record's own, in its table's units ("": no words).

    `trait`: a fact about the person that nobody can change, or that the law protects.
    """

    modality: str
    name: str
    value: str
    trait: bool
    effect: float


@dataclass(frozen=True, slots=True)
class Change:
    """A value of one feature, all else equal, with which the model would give another result."""

    modality: str
    name: str
    value: str
    result: str


@dataclass(frozen=True, slots=True)
class AtHome:
    """What an institution's home layer makes of a record: the result with it, and what it adds to the score."""

    result: str
    adds: float


@dataclass(frozen=True, slots=True)
class RecordExplained:
    """Why a record of a student gets its result (explain.py). `scores` are as in a prediction.

    `score` is what is explained, `start` that of the record that the features are compared with, `nothing` that
    without any modality, `head` that without any component but the head. Features add up to score - start - `gap`,
    modalities to score - nothing, components to score - head. `variants` are the scores with other states.
    Of a text that is written the score is the loss a token, negative, the features are the sentences that were read,
    and nothing adds up.
    """

    record: str
    student: str
    result: str
    scores: tuple[float, ...]
    score: float
    start: float
    gap: float
    nothing: float
    head: float
    features: tuple[FeatureEffect, ...]
    modalities: dict[str, float]
    components: dict[str, float]
    variants: tuple[float, ...]
    changes: tuple[Change, ...]
    at_home: AtHome | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanations of a file's records; `digest` is of their contents, `method` how features were explained."""

    kind: str
    classes: tuple[str, ...]
    method: str
    digest: Bytes32
    records: tuple[RecordExplained, ...]


@dataclass(frozen=True, slots=True)
class Personalised:
    """The loss with the private adapters on validation students, and their number of parameters."""

    loss: float
    parameters: int


@dataclass(frozen=True, slots=True)
class EpsilonFound:
    """ε, and the claim in thousandths."""

    epsilon: float
    claimed: int


@dataclass(frozen=True, slots=True)
class CrossChecked:
    """ε by the accountant in use, and the upper end of Opacus' PRV accountant's, at most `error` above the truth.

    None where there is no noise.
    """

    pld: float | None
    prv: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A probe's result: `audited` is the lower bound of ε, `provable` that bound if every guess had been right.

    `exact` is ε of the training as it really ran. `refuted` names what refutes the claim: "guesses", "exact".
    """

    probe: str
    canaries: int
    guesses: int
    correct: int
    claimed: float
    exact: float
    audited: float
    provable: float
    delta: float
    confidence: float
    refuted: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit's findings; `caught` names what refutes the claim. `fault` is the planted mistake, if any."""

    findings: tuple[Finding, ...]
    fault: str | None
    about: str
    caught: tuple[str, ...]
    confidence: float
    seconds: float


@dataclass(frozen=True, slots=True)
class DeletionCurves:
    """How fast results of so many `records` lose their probability as their features are deleted, one by one.

    Means over the records and the whole curve of what the probability of the result has lost: in the order of the
    effects, and in the mean of random orders. `best` and `spread` are of the random orders, each over all records.
    """

    records: int
    features: float
    by_effect: float
    at_random: float
    best: float
    spread: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A request's progress."""

    done: U63
    total: U63


@dataclass(frozen=True, slots=True)
class Failed:
    """The reason why there is no answer.

    `bad-request`: it does not decode, or names something that this session lacks. `bad-data`: the folders' content is
    not usable. `internal`: a bug; the worker's log has the details. `exit_code` is that of the error's class
    (crypto/errors.py).
    """

    kind: ErrorKind
    message: str
    advice: str = ""
    exit_code: int = 1

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        """Return the worker's answer for an error."""
        match error:
            case BadRequestError() | RefusedError():
                return cls("bad-request", error.message, error.advice, error.exit_code)
            case HelperLostError():
                return cls("internal", error.message, error.advice)
            case OperatorError():
                return cls("bad-data", error.message, error.advice, error.exit_code)
            case _:
                return cls("internal", f"{type(error).__name__}: {error}", "The worker's log has the details.")

    def error(self) -> OperatorError:
        """Return the error of the class that the worker raised."""
        return next(
            (kind for kind in (UsageError, CorruptError, RefusedError) if kind.exit_code == self.exit_code),
            OperatorError,
        )(self.message, self.advice)


Answer = (
    Done
    | Opened
    | Trained
    | Evaluated
    | EvaluatedVariants
    | Scores
    | Predicted
    | Explained
    | Personalised
    | EpsilonFound
    | CrossChecked
    | Verdict
    | Audited
    | DeletionCurves
)
Reply = Answer | Progress | Failed
