"""Drawing up a charter: the options that `charter create` and `charter found` share, and the charter from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..crypto.errors import RefusedError, UsageError
from ..node.blueprint import PRESETS
from ..protocol.bounds import MAX_DEADLINE, MAX_DELTA, MAX_EPSILON, MAX_ROUNDS, MIN_DEADLINE, MIN_DELTA, MIN_EPSILON
from ..protocol.learning import RULES
from . import founding
from .recipes import components

if TYPE_CHECKING:
    from ..protocol.charter import Charter, Member
    from ..protocol.components import ComponentSpec
    from ..protocol.learning import Learning

EPSILON, DELTA = 8.0, 1e-5
ROBUST = "clip+nnm+trimmed_mean"  # the default rule if members may lie and there are enough to tolerate one liar

NameOption = Annotated[str, typer.Option(help="The federation's name.")]
PresetOption = Annotated[str | None, typer.Option(help=f"Shipped components and recipe: {' or '.join(PRESETS)}.")]
ModelOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Components and recipe in TOML, as `charter model` writes them.")
]
EpsilonOption = Annotated[
    float | None,
    typer.Option(
        min=MIN_EPSILON,
        max=MAX_EPSILON,
        help=f"ε for each student and a member's lifetime [{EPSILON:g}]; without privacy: --no-dp.",
    ),
]
DeltaOption = Annotated[float | None, typer.Option(min=MIN_DELTA, max=MAX_DELTA, help=f"δ with that ε [{DELTA:g}].")]
RoundsOption = Annotated[
    int | None, typer.Option(min=1, max=MAX_ROUNDS, help="Rounds that the noise is calibrated for [FILE's, or 20].")
]
NoDpOption = Annotated[bool, typer.Option("--no-dp", help="No differential privacy.")]
RuleOption = Annotated[
    str | None, typer.Option(help=f"How updates are aggregated: {', '.join(RULES)}. docs/rules.md compares them.")
]
FaultModelOption = Annotated[str, typer.Option(help="byzantine or crash.")]
DeadlineOption = Annotated[
    float, typer.Option(min=MIN_DEADLINE, max=MAX_DEADLINE, help="Seconds that a round waits for a host that is late.")
]
PaceOption = Annotated[
    str, typer.Option(metavar="TIME", help="Least time between two rounds of a component: 90min, 24h, 7d; 0 for none.")
]
StartOption = Annotated[
    str, typer.Option(metavar="TIME", help="In UTC, as 2026-09-07T06:00: no round is trained or closed before it.")
]
MinStudentsOption = Annotated[
    int, typer.Option(min=0, max=2**20, help="A member that declares fewer students hosts, but does not train.")
]
AnywayOption = Annotated[
    bool,
    typer.Option(
        "--anyway", help="Even if members cannot reach each other, all is noise, or the data here do not fit."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Sign without asking; the review is printed all the same.")]


@dataclass(frozen=True, slots=True)
class Terms:
    """What these options say, beside who is in. `start` is in Unix seconds, 0 for none."""

    name: str
    preset: str | None
    model: Path | None
    epsilon: float | None
    delta: float | None
    rounds: int | None
    no_dp: bool
    rule: str | None
    fault_model: str
    deadline: float
    pace: str
    start: int
    min_students: int
    anyway: bool

    def check(self) -> None:
        """Refuse options that contradict each other. Raises UsageError."""
        if self.no_dp and (self.epsilon, self.delta) != (None, None):
            option = "--epsilon" if self.epsilon is not None else "--delta"
            raise UsageError(f"--no-dp asks for no privacy, and {option} for some", f"Leave out --no-dp, or {option}.")

    def parts(self, members: int, seed: bytes) -> "tuple[tuple[ComponentSpec, ...], Learning, float]":
        """Return the components, the recipe and a typical member's students, for so many members. Raises UsageError."""
        budget = (EPSILON if self.epsilon is None else self.epsilon, DELTA if self.delta is None else self.delta)
        usual = "mean"
        if members >= founding.MIN_ROBUST:
            usual = ROBUST if self.fault_model == "byzantine" else "random-effects"
        return components(
            self.preset,
            self.model,
            (*budget, self.rounds),
            dp=not self.no_dp,
            institutions=members,
            rule=self.rule,
            usual=usual,
            seed=seed,
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A charter, the students at each member by whom it was drawn up, and what its author is warned of."""

    charter: "Charter"
    students: float
    warnings: tuple[str, ...]


def draw_up(terms: Terms, people: "Sequence[Member]", seed: bytes, created: int, *, addresses: bool = True) -> Drawn:
    """Return the charter of these terms and members: the same arguments give the same bytes.

    Without `addresses` theirs are not looked at. Raises UsageError, and RefusedError for one that is all noise or whose
    members cannot reach each other.
    """
    from ..protocol.charter import Charter, Rules, check

    founding.check_twice(people)
    if addresses:
        founding.check_addresses(people, anyway=terms.anyway)
    specs, learning, students = terms.parts(len(people), seed)
    limits: dict[str, Any] = {
        "max_staleness": 1,
        "records_per_height": 64,
        "bytes_per_height": 1 << 20,
        "refold_horizon": 1000,
    }
    deadline, pace = round(terms.deadline * 1000), founding.pace_of(terms.pace)
    drawn = Charter(
        version=1,
        name=terms.name,
        created=created,
        seed=seed,
        members=tuple(sorted(people, key=lambda person: person.key)),
        rules=Rules(terms.fault_model, deadline, pace=pace, start=terms.start, **limits),
        components=tuple(sorted(specs, key=lambda spec: spec.name)),
        learning=replace(learning, min_students=terms.min_students),
    )
    check(drawn)
    drowned = founding.noise(drawn.components, drawn.learning, students, len(people))
    if drowned and not terms.anyway:
        raise RefusedError(
            f"This recipe is noise, with {len(people)} members of {students:g} students each: {'; '.join(drowned)}",
            "Let each task read only the modalities that it needs, allow a larger ε, plan fewer rounds, take a smaller"
            " model, or say how many students a typical member has (students under [training] of the model file). To"
            " draw it up all the same: --anyway.",
        )
    return Drawn(drawn, students, (*founding.warnings(drawn), *drowned, *founding.faint(drawn, students)))
