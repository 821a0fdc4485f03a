"""Equity: what a charter has its members publish of their held-out students, as sums (docs/adr/0036).

`groups/TASK` is a statistic (statistics.py) of decisions: for each level of a sensitive attribute and each label, how
many held-out students the shared model flags and does not flag, and a histogram of its probabilities. Its budget is
that of `held-out`, an entry of its own beside the modalities: no student is both held out and trained on.

| tensor | shape | a student adds, in each attribute |
|---|---|---|
| `decided` | [levels, labels, 2] | DECIDED at their level, label, and whether they are flagged |
| `scores` | [levels, labels, bins] | SCORES at their level, label and bin |

DECIDED² + SCORES² = 1, so a student with all their records moves the whole by at most √attributes.
"""

from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Annotated

from .schema import LATER, U32, Between, Name, Size

HELD_OUT = "held-out"  # the entry of held-out students among the budgets
ARCHITECTURE = "histogram"
DECIDED, SCORES = 0.9, 0.19**0.5  # most of the release is for the decisions: they are what harms
FLAGGED = ("below", "above")  # which side of the threshold is flagged
MILLION = 1_000_000  # components.py has it too, and numpy, for which a command's help does not wait


@dataclass(frozen=True, slots=True)
class Attribute:
    """A sensitive attribute, by its name and levels in dataset.toml. Students of another level are not counted."""

    name: Name
    levels: Annotated[tuple[Name, ...], Size(2, 32)]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a binary task is used for: a student is flagged whose probability is `flagged` the threshold (millionths).

    Flagged "below", those at risk have the negative label (they do not pass); "above", the positive one.
    """

    task: Name
    threshold: Annotated[int, Between(1, MILLION - 1)]
    flagged: Name

    @property
    def at_risk(self) -> int:
        """The label of students that ought to be flagged."""
        return 0 if self.flagged == "below" else 1


@dataclass(frozen=True, slots=True)
class Equity:
    """The release: once a member, when the task's components have closed `after` rounds.

    `epsilon` (thousandths; 0: without noise) and `delta` (billionths) bound it for each held-out student. Half of
    `bins` lie on each side of a threshold.
    """

    attributes: Annotated[tuple[Attribute, ...], Size(1, 8)]
    decisions: Annotated[tuple[Decision, ...], Size(1, 16)]
    after: Annotated[int, Between(1, 2**20)]
    epsilon: U32
    delta: U32
    bins: Annotated[int, Between(2, 64)] = field(default=10, metadata=LATER)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """The rows of both tensors: (attribute, level)."""
        return tuple((attribute.name, level) for attribute in self.attributes for level in attribute.levels)

    @property
    def sensitivity(self) -> int:
        """The most by which a student moves the release, in millionths, rounded up: √attributes."""
        square = len(self.attributes) * MILLION**2
        return isqrt(square - 1) + 1

    @property
    def free(self) -> "Equity":
        """The same, without noise."""
        return replace(self, epsilon=0, delta=0)

    def decision(self, task: str) -> Decision | None:
        """Return the decision of a task, or None."""
        return next((decision for decision in self.decisions if decision.task == task), None)

    def problem(self, binary: frozenset[str]) -> str:
        """Return what is wrong with it, or "": `binary` are the charter's binary tasks."""
        names = [attribute.name for attribute in self.attributes]
        for ok, problem in (
            (len(set(names)) == len(names), "a sensitive attribute is named twice"),
            (all(len(set(a.levels)) == len(a.levels) for a in self.attributes), "a level is named twice"),
            ({d.task for d in self.decisions} <= binary, "a decision is of a task that is not binary, or not there"),
            (len({d.task for d in self.decisions}) == len(self.decisions), "a task has two decisions"),
            (all(d.flagged in FLAGGED for d in self.decisions), f"flagged is one of {', '.join(FLAGGED)}"),
            (self.bins % 2 == 0, "the number of bins is odd"),
            ((self.epsilon == 0) == (self.delta == 0), "ε or δ is 0, and the other is not"),
        ):
            if not ok:
                return problem
        return ""
