"""The charter's part on learning: modalities, tasks, the recipe of a round, and the privacy floors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, assert_never

from .component_names import ComponentKind, names_statistic, parse_name
from .equity import HELD_OUT, Equity
from .schema import LATER, U32, Between, Bytes32, Name, Size

MODALITY_KINDS = frozenset({"tabular", "image", "series", "text", "audio"})
PRETRAINED_KINDS = ("text", "image", "audio")  # of modalities that a pretrained model may embed
GENERATE = "generate"  # the task that writes a text
TASK_KINDS = frozenset({"binary", "multiclass", "ordinal", "regression", "multilabel", GENERATE})
PASSAGE = re.compile(r"\{([1-9][0-9]?)\}")  # of a template: the place of a passage, by its number
MAX_SHARDS = 64
POLICIES = ("never", "dp", "open")  # strictest first
SENSITIVITIES = ("biometric", "personal", "mild")  # strictest first; docs/data.md says what belongs where
# Of aggregation; consensus/rules.py, effects.py and robust.py have them.
RULES = (
    "mean",
    "random-effects",
    "trimmed_mean",
    "median",
    "multi_krum",
    "nnm+trimmed_mean",
    "clip+nnm+trimmed_mean",
    "centered_clipping",
)
AVERAGES = ("mean", "random-effects")  # the rules that are not robust: they weight all updates, late ones too


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The frozen model that embeds a modality: a hub id, a package or a name, and the digest of its weights.

    `max_tokens` are read of each text, by several passes where the model takes fewer at once; 0 for images and sound.
    Of a model that writes they are those of the template with the passages in it.
    """

    model: Name
    digest: Bytes32
    max_tokens: Annotated[int, Between(0, 2**16)] = field(default=128, metadata=LATER)


@dataclass(frozen=True, slots=True)
class Modality:
    """One modality: `width` features for each of at most `length` steps (tabular and image: length 1).

    Text has a step for each of its columns. Under a pretrained model the width is that of its features, and images and
    sound have one step. `layout` is the digest of the columns, levels, bounds and times that dataset.toml declares
    (node/data/layout.py), 32 bytes or none where the charter does not state it. `sensitivity` is one of SENSITIVITIES,
    or "": then a jurisdiction's preset judges by the kind.
    """

    name: Name
    kind: Name
    width: Annotated[int, Between(1, 2**20)]
    length: Annotated[int, Between(1, 2**16)]
    pretrained: Annotated[tuple[Pretrained, ...], Size(0, 1)] = ()
    layout: Annotated[bytes, Size(0, 32)] = b""
    sensitivity: Annotated[str, Size(0, 16)] = field(default="", metadata=LATER)


@dataclass(frozen=True, slots=True)
class Task:
    """One task, and the modalities that it reads, sorted: nothing else touches its head.

    `classes` counts the classes of "multiclass" and "ordinal" (in order), the labels of "multilabel"; it is 2 for
    "binary" and 1 for "regression". A task "generate" reads one text: `template` joins its passages, {1} the first, and
    the model writes on from there, `classes` tokens at most with the sign of the end. `layout` is the digest of the
    classes' names and order, of the values that count as positive, of the bounds of a regression, or of what a text is
    at most: 32 bytes, or none as in Modality.
    """

    name: Name
    kind: Name
    classes: Annotated[int, Between(1, 2**16)]
    modalities: Annotated[tuple[Name, ...], Size(1, 64)]
    layout: Annotated[bytes, Size(0, 32)] = b""
    template: Annotated[str, Size(0, 4096)] = field(default="", metadata=LATER)

    @property
    def outputs(self) -> int:
        """The number of a head's outputs: thresholds for "ordinal" (one less than its classes), else the classes.

        Of a text that is written there is one figure, its loss a token.
        """
        if self.kind == GENERATE:
            return 1
        return self.classes - 1 if self.kind == "ordinal" else self.classes

    @property
    def carrier(self) -> str:
        """The component without which a node cannot do this task: its head, or the adapter of the model that writes."""
        if self.kind == GENERATE:
            return ComponentKind.ADAPTER.named(self.modalities[0])
        return ComponentKind.HEAD.named(self.name)


@dataclass(frozen=True, slots=True)
class PrivacyFloor:
    """The least privacy of a modality, for each student and a member's lifetime in the federation.

    `policy` is "never", "dp" or "open"; `epsilon` in thousandths, `delta` in billionths (both unused unless "dp").
    That of held-out students is HELD_OUT's, in the place of a modality.
    """

    modality: Name
    policy: Name
    epsilon: U32
    delta: U32


@dataclass(frozen=True)
class Learning:
    """The recipe of one round: `steps` DP-SGD steps, each drawing students by Poisson at `sample_rate` (millionths).

    Steps and sample rate are upper bounds on what an update may declare. `recovery_share` (millionths) of every ε is
    kept for the rounds after a withdrawal. The noise was calibrated for `planned_rounds`. A member that declares fewer
    than `min_students` does not train. With `equity`, held-out students have a release of their own (equity.py).

    `shards` k: each student is in one of k shards for ever, and a training run draws from one of them. So a student is
    in about one of k training runs, and pays for these only. L is `sample_rate` times the students of a shard.
    """

    modalities: Annotated[tuple[Modality, ...], Size(1, 64)]
    tasks: Annotated[tuple[Task, ...], Size(1, 64)]
    floors: Annotated[tuple[PrivacyFloor, ...], Size(1, 64)]
    steps: Annotated[int, Between(1, 2**20)]
    sample_rate: Annotated[int, Between(1, 1_000_000)]
    recovery_share: Annotated[int, Between(0, 1_000_000)]
    planned_rounds: Annotated[int, Between(1, 2**20)]
    min_students: Annotated[int, Between(0, 2**20)] = 0
    shards: Annotated[int, Between(1, MAX_SHARDS)] = field(default=1, metadata=LATER)
    equity: Annotated[tuple[Equity, ...], Size(0, 1)] = field(default=(), metadata=LATER)

    @property
    def names_reader(self) -> str | None:
        """The modality whose frozen model embeds the names of classes: the first text with one, or None."""
        texts = (entry for entry in self.modalities if entry.kind == "text" and entry.name not in self.writers)
        return next((entry.name for entry in texts if entry.pretrained), None)

    def enough(self, lot: int) -> bool:
        """Whether a declared L (thousandths) means enough students to train.

        An L of 0 declares none.
        """
        return lot * 1000 * self.shards >= self.min_students * self.sample_rate

    def students(self, lot: int) -> int:
        """Return the number of students, in thousandths, that L (thousandths) declares: N̂ = L·shards / sample_rate."""
        return lot * self.shards * 1_000_000 // self.sample_rate

    @property
    def drawn(self) -> float:
        """The share of an institution's students that one step draws, on average: L is this times their number."""
        return self.sample_rate / (1_000_000 * self.shards)

    def runs_of_a_student(self, rounds: int) -> int:
        """Return how many of so many training runs, one after the other, can draw the same student, at most."""
        return -(-rounds // self.shards)

    def upstream(self, component: str) -> frozenset[str]:
        """Return the modalities whose data reach an update of this component (design.md section 6).

        They are those of its task for a head, skip or statistic, and those of any task for a backbone; for groups it is
        HELD_OUT alone. An encoder,
        adapter or prompt is also reached by the modalities read beside its own: its gradient comes through logits that
        depend on them.
        """
        modalities = self._upstream.get(component)
        if modalities is None:
            modalities = self._upstream[component] = self._seen_by(component)
        return modalities

    @cached_property
    def _upstream(self) -> dict[str, frozenset[str]]:
        return {}  # by the names of components that somebody asked for: those of a charter

    def _seen_by(self, component: str) -> frozenset[str]:
        if parse_name(component).kind is ComponentKind.GROUPS:
            return frozenset({HELD_OUT} if self.equity else ())
        own = parse_name(component).modality
        read = {modality for task in self._depending(component) for modality in task.modalities}
        return frozenset(read if own is None else read | {own})

    def judged_by(self, component: str) -> tuple[str, ...]:
        """Return the tasks whose predictions depend on a component, sorted; a statistic has its own, by its name."""
        if names_statistic(component):
            return (component,)
        return tuple(sorted(task.name for task in self._depending(component)))

    def _depending(self, component: str) -> list[Task]:
        """Return the tasks whose predictions depend on a component."""
        name = parse_name(component)
        match name.kind.owner:
            case "modality":
                return [task for task in self.tasks if name.of in task.modalities]
            case "task":
                return [task for task in self.tasks if task.name == name.of]
            case "model":
                return list(self.tasks)
            case owner:
                assert_never(owner)

    def downstream(self, modality: str, components: Iterable[str]) -> tuple[str, ...]:
        """Return those of `components` whose updates a modality's data reach, sorted."""
        return tuple(sorted(name for name in components if modality in self.upstream(name)))

    @cached_property
    def writers(self) -> dict[str, Task]:
        """Return the tasks that write a text, by the modality that each reads."""
        return {task.modalities[0]: task for task in self.tasks if task.kind == GENERATE}

    @cached_property
    def bounds(self) -> tuple[PrivacyFloor, ...]:
        """The floors of all that has a budget: the modalities, and held-out students where their groups are released.

        A release without noise is "open".
        """
        own = (PrivacyFloor(HELD_OUT, "dp" if e.epsilon else "open", e.epsilon, e.delta) for e in self.equity)
        return (*self.floors, *own)

    def floor(self, modality: str) -> PrivacyFloor:
        """Return the floor of a modality, or of HELD_OUT. Raises KeyError."""
        for floor in self.bounds:
            if floor.modality == modality:
                return floor
        raise KeyError(modality)
