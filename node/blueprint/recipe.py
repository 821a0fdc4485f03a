"""How a federation trains: a recipe, and the charter's specs that follow from it with noise calibrated to an ε."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log2, sqrt

from ...crypto.errors import UsageError
from ...protocol.bounds import NO_PRIVACY, delta_problem, epsilon_problem, steps_problem
from ...protocol.claims import effective_noise
from ...protocol.component_names import parse_name
from ...protocol.components import MILLION, SUM, ComponentSpec, base_digest, base_vector
from ...protocol.equity import ARCHITECTURE, HELD_OUT, Equity
from ...protocol.learning import Learning, Modality, PrivacyFloor, Task
from ...protocol.statistics import SENSITIVITY, WIDTH
from ..privacy.accountant import Event, calibrate, split_noise
from .parts import Part

RECOVERY_SHARE = 250_000  # millionths of ε kept for the rounds after a withdrawal (design.md section 9)
STATISTIC_SHARE = 300_000  # beside rounds of ε = 8, a release of ε = 2.4 costs them 5 % more noise
MAX_TIMES = 16  # the typical students of an institution may one member declare of a statistic
# The squared error of a regression has curvature |x|² in its head and skip, which no clip bounds: above 2/|x|² a step
# goes further than the optimum, and grows. Cross-entropy's is a quarter of it at the most, and vanishes with certainty.
REGRESSION_RATE = 100_000
GRID_SHARE = 8  # the grid step is at most this part of the noise's standard deviation (section 5)
FREE_STEP_LOG2 = 12  # grid of a component without noise: 16 bits reach ±8
FINEST_STEP_LOG2 = 30  # of a ComponentSpec
NO_SEED = bytes(32)


@dataclass(frozen=True, slots=True)
class Privacy:
    """One modality's policy: "never", "open", or "dp" with ε and δ of its own (None: the budget's)."""

    policy: str
    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. Scaled integers are millionths.

    `students` is N̂ of a typical institution, which sets the grid; `learning_rate` is for components with noise,
    `free_learning_rate` for those without; head and skip of a regression have REGRESSION_RATE at most. Modalities in
    `open` have no privacy; all others have, if any does; `privacy` overrides single ones.
    """

    modalities: tuple[Modality, ...]
    tasks: tuple[Task, ...]
    parts: tuple[Part, ...]
    students: float
    steps: int
    sample_rate: int
    clip_norm: int
    learning_rate: int
    free_learning_rate: int
    width: int
    open: frozenset[str] = frozenset()
    rates: Mapping[str, int] = field(default_factory=dict)  # of single components, instead of the above
    privacy: Mapping[str, Privacy] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)  # of single components, instead of charter_parts' rule
    shards: int = 1  # of the students, which take turns
    statistic_share: int = STATISTIC_SHARE  # of every ε that the statistics together may cost by themselves
    equity: Equity | None = None  # with a part for each of its decisions; its ε is none without a budget


@dataclass(frozen=True, slots=True)
class Budget:
    """ε and δ of every modality that is not open, for `rounds` rounds; the share is kept for recovery."""

    epsilon: float
    delta: float
    rounds: int
    recovery_share: int = RECOVERY_SHARE


def charter_parts(
    recipe: Recipe, budget: Budget | None, *, min_updates: int, rule: str = "mean", base_seed: bytes = NO_SEED
) -> tuple[tuple[ComponentSpec, ...], Learning]:
    """Return the specs, sorted, and the learning map of a recipe; without a budget no modality asks for privacy.

    `rule` aggregates every component for which the recipe names none. With a budget, noise is calibrated for the
    planned rounds, with all components engaged that the data of one task's modalities can reach. They then cost at most
    the part of each modality's ε that is not kept for recovery. ε is rounded down to thousandths, δ to billionths.
    Raises UsageError for an invalid budget.
    """
    floors = tuple(_floor(recipe, modality.name, budget) for modality in recipe.modalities)
    rounds, share = (20, RECOVERY_SHARE) if budget is None else (budget.rounds, budget.recovery_share)
    problem = steps_problem(rounds, recipe.steps)
    if problem:
        raise UsageError(problem, "Plan fewer rounds (--rounds), or fewer steps in each (steps in the model file).")
    learning = Learning(
        recipe.modalities, recipe.tasks, floors, recipe.steps, recipe.sample_rate, share, rounds, shards=recipe.shards,
        equity=() if recipe.equity is None else (recipe.equity if budget else recipe.equity.free,),
    )  # fmt: skip
    noises = _noises(recipe, learning)
    lot = learning.drawn * recipe.students
    specs = [_spec(recipe, part, noises.get(part.name, 0), lot, min_updates, rule, base_seed) for part in recipe.parts]
    return tuple(sorted(specs, key=lambda spec: spec.name)), learning


def _floor(recipe: Recipe, modality: str, budget: Budget | None) -> PrivacyFloor:
    asked = recipe.privacy.get(modality)
    if asked is None:
        asked = Privacy("open" if budget is None or modality in recipe.open else "dp")
    if asked.policy != "dp":
        return PrivacyFloor(modality, asked.policy, 0, 0)
    if budget is None:
        raise UsageError(f"modality {modality!r} is under dp, and there is no budget", "Leave out --no-dp.")
    epsilon = budget.epsilon if asked.epsilon is None else asked.epsilon
    delta = budget.delta if asked.delta is None else asked.delta
    problem = epsilon_problem(epsilon) or delta_problem(delta)
    if problem:
        raise UsageError(f"modality {modality!r}: {problem}", NO_PRIVACY)
    milli, billionths = floor(epsilon * 1000 + 1e-6), floor(delta * 1e9 + 1e-6)
    return PrivacyFloor(modality, "dp", milli, billionths)


def _noises(recipe: Recipe, learning: Learning) -> Mapping[str, int]:
    """Return σ_c of every component that data under DP reach.

    An institution has the modalities of a task, so what its student can reach are their components, what they share,
    and the tasks that read any of them: together these have at least the noise of the loosest of the floors, those that
    the strictest modalities reach at least the noise of their floor, and so on in between. What one modality reaches is
    a part of what it and all stricter ones reach, so it costs that modality no more than its own floor.
    """
    noises = _statistics(recipe, learning)
    least = {floor.modality: _least(learning, floor, noises) for floor in learning.floors if floor.policy == "dp"}
    for task in learning.tasks:
        for bound in {least[modality] for modality in task.modalities if modality in least}:
            seen = {modality for modality in task.modalities if least.get(modality, 0) >= bound}
            reached = [p for p in recipe.parts if not p.is_statistic and learning.upstream(p.name) & seen]
            if not reached:
                continue
            # a_c = C_c √(u_c d_c) with equal clip norms and, before anything is learned, equal utilities.
            split = split_noise(bound, [sqrt(part.dimension) for part in reached])
            for part, noise in zip(reached, split, strict=True):
                noises[part.name] = max(noise, noises.get(part.name, 0))
    return noises


def _statistics(recipe: Recipe, learning: Learning) -> dict[str, int]:
    """Return σ_c of every statistic: those that a modality reaches cost it together its share of the budget."""
    noises: dict[str, int] = {}
    for bound in learning.bounds:
        reached = [p for p in recipe.parts if p.is_statistic and bound.modality in learning.upstream(p.name)]
        if bound.policy == "dp" and reached:
            own = MILLION if bound.modality == HELD_OUT else recipe.statistic_share  # nothing else spends it
            spent = _spent(learning, bound) * own / MILLION
            least = _calibrated(spent, bound, 1.0, 1)
            split = split_noise(least, [sqrt(part.dimension) for part in reached])
            for part, noise in zip(reached, split, strict=True):
                noises[part.name] = max(noise, noises.get(part.name, 0))
    return noises


def _spent(learning: Learning, floor: PrivacyFloor) -> float:
    return floor.epsilon * (MILLION - learning.recovery_share) // MILLION / 1000


def _least(learning: Learning, floor: PrivacyFloor, statistics: Mapping[str, int]) -> int:
    """Return the σ_eff by which the planned rounds cost what a floor leaves for them beside the statistics."""
    reached = learning.downstream(floor.modality, statistics)
    release = effective_noise([statistics[name] for name in reached]) / MILLION
    others = ((1.0, release, 1),) if reached else ()
    draws = learning.runs_of_a_student(learning.planned_rounds) * learning.steps
    return _calibrated(_spent(learning, floor), floor, learning.sample_rate / MILLION, draws, others)


def _calibrated(epsilon: float, floor: PrivacyFloor, rate: float, draws: int, others: tuple[Event, ...] = ()) -> int:
    try:
        return calibrate(epsilon, floor.delta / 1e9, rate, draws, others)
    except ValueError as error:
        raise UsageError(
            f"modality {floor.modality}: no noise is enough for {draws:,} steps at ε = {epsilon:g}",
            "Allow a larger ε, fewer rounds or steps, or a lower sample rate.",
        ) from error


def _spec(
    recipe: Recipe, part: Part, noise: int, lot: float, min_updates: int, rule: str, base_seed: bytes
) -> ComponentSpec:
    if part.is_statistic:
        return _statistic(recipe, part, noise, base_seed)
    rate = recipe.rates.get(part.name, _rate(recipe, part.name, bool(noise)))
    step_log2, width = FREE_STEP_LOG2, 16
    if noise:
        deviation = rate / MILLION * noise / MILLION * recipe.clip_norm / MILLION * sqrt(recipe.steps) / lot
        step_log2 = min(FINEST_STEP_LOG2, max(0, ceil(-log2(deviation / GRID_SHARE))))
        width = recipe.width
    return ComponentSpec(
        name=part.name,
        architecture=part.architecture,
        tensors=part.tensors,
        step_log2=step_log2,
        width=width,
        rule=recipe.rules.get(part.name, rule),
        min_updates=min_updates,
        clip_norm=recipe.clip_norm,
        noise_multiplier=noise,
        learning_rate=rate,
        base=part.base or base_digest(base_vector(base_seed, part.name, part.tensors)),
    )


def _rate(recipe: Recipe, name: str, noised: bool) -> int:
    rate = recipe.learning_rate if noised else recipe.free_learning_rate
    regressions = {task.name for task in recipe.tasks if task.kind == "regression"}
    return min(rate, REGRESSION_RATE) if parse_name(name).task in regressions else rate


def _sensitivity(part: Part, equity: Equity) -> int:
    return equity.sensitivity if part.architecture == ARCHITECTURE else SENSITIVITY[part.architecture]


def _statistic(recipe: Recipe, part: Part, noise: int, base_seed: bytes) -> ComponentSpec:
    """Return a statistic's spec; the grid bounds how many students one member may declare."""
    return ComponentSpec(
        name=part.name,
        architecture=part.architecture,
        tensors=part.tensors,
        step_log2=max(0, 30 - ceil(log2(max(1.0, MAX_TIMES * recipe.students)))),
        width=WIDTH,
        rule=SUM,
        min_updates=1,
        clip_norm=SENSITIVITY[part.architecture] if recipe.equity is None else _sensitivity(part, recipe.equity),
        noise_multiplier=noise,
        learning_rate=MILLION,
        base=base_digest(base_vector(base_seed, part.name, part.tensors)),
        ridge=part.ridge,
    )


def needed(learning: Learning, components: Sequence[str], modalities: set[str], tasks: set[str]) -> tuple[str, ...]:
    """Return the components that a node with these modalities and tasks has a use for, sorted: no others exist there.

    Heads, skips and statistics of its tasks; encoders, adapters and prompts of its modalities that one of those tasks
    reads; the backbone, if there is any head.
    """
    own = [task for task in learning.tasks if task.name in tasks and set(task.modalities) & modalities]
    read = {name for task in own for name in task.modalities} & modalities
    names, of_tasks = [parse_name(component) for component in components], {task.name for task in own}
    wanted = [n for n in names if n.modality in read or n.task in of_tasks or (n.kind.owner == "model" and own)]
    return tuple(sorted(map(str, wanted)))
