"""When to train, with which noise, and the claims of an update (design.md sections 5 and 6).

One training run trains every engaged component at once. For the accountant it is one event; a modality's noise is that
of the components which its data reach. Its cost is on disk before the learner sees it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import assert_never

from ...consensus.ledger import Ledger, Withdrawn
from ...protocol.charter import Charter
from ...protocol.claims import NO_EPSILON, Claim, DpEvents, effective_noise, lines_for, merge, reached_noise
from ...protocol.component_names import names_statistic
from ...protocol.components import MILLION
from ...protocol.learning import Learning
from ...protocol.statistics import most_students
from ...protocol.update import MIN_LOT, Engaged, UpdateHeader
from ..privacy.policy import InForce
from .events import EVERY_SHARD, CheckBudget, Noised, NoisePart, PutReservation, Reach, Recipe

RECOVERY_ROUNDS = 5  # rounds after a withdrawal that may use the charter's recovery share of ε
MAX_UTILITY = 16  # × the mean over the components of a training run; the minimum is its inverse


@dataclass(frozen=True, slots=True)
class Plan:
    """This node's contribution: component patterns, its lot L (thousandths), a last round (0: none).

    `policies` are those in force here, one for each modality; if empty, the charter's.
    """

    engage: tuple[str, ...] = ("*",)
    lot: int = 1000
    rounds: int = 0
    policies: tuple[InForce, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run under way, and the modalities whose data it uses. One `of_statistics` trains nothing else.

    `shard` is that of the students whom it may draw: statistics add up all of them.
    """

    number: int
    recipes: tuple[Recipe, ...]
    bases: Mapping[str, bytes]
    generations: Mapping[str, int]
    modalities: tuple[str, ...]
    of_statistics: bool = False
    shard: int = 0


def shard_of(number: int, learning: Learning) -> int:
    """Return the shard from which the training run of this number draws: they take turns, so all spend alike."""
    return number % learning.shards


def event(run: TrainingRun, learning: Learning) -> tuple[int, int]:
    """Return the steps of a training run and their sample rate (millionths): one over all students for statistics."""
    return (1, MILLION) if run.of_statistics else (learning.steps, learning.sample_rate)


def lot(run: TrainingRun, plan: Plan, charter: Charter) -> int:
    """Return the declared lot of a training run, in thousandths: for statistics N̂ = L/q, up to the charter's limit."""
    if not run.of_statistics:
        return plan.lot
    limit = min(most_students(spec) for spec in charter.components if spec.name in run.bases)
    return max(MIN_LOT, min(charter.learning.students(plan.lot), 1000 * limit))


def engaged(plan: Plan, hosted: Iterable[str]) -> list[str]:
    """Return the hosted components that this node trains, sorted."""
    return sorted(name for name in hosted if any(fnmatchcase(name, pattern) for pattern in plan.engage))


def barred(plan: Plan, learning: Learning) -> str:
    """Return "" if this node may train; else the reason, one of protocol.records.IDLE: too few students declared."""
    return "" if learning.enough(plan.lot) else "too-few-students"


def recovering(ledger: Ledger, rounds: Mapping[str, int]) -> bool:
    """Whether these rounds are recovery rounds: within RECOVERY_ROUNDS after a withdrawal from their components.

    After a rewind they are as many as it took back, if those are more.
    """
    return any(
        rounds[name] <= closed + max(RECOVERY_ROUNDS, taken_back(withdrawn, name))
        for withdrawn in ledger.withdrawn
        for name, closed in withdrawn.rounds
        if name in rounds and _takes_from(withdrawn, name)
    )


def _takes_from(withdrawn: Withdrawn, component: str) -> bool:
    """Whether a withdrawal can have taken something out of a component; of single updates it is not known which."""
    if withdrawn.mode == "rewind":
        return component in dict(withdrawn.since)
    match withdrawn.scope:
        case "all" | "updates":
            return True
        case "components":
            return component in withdrawn.components
        case "rounds":  # none of them may have closed
            return component in withdrawn.components and withdrawn.first <= withdrawn.closed(component)
        case _:
            assert_never(withdrawn.scope)


def taken_back(withdrawn: Withdrawn, component: str) -> int:
    """Return the number of a component's rounds that will run again, including the one that was under way."""
    since = dict(withdrawn.since).get(component)
    if withdrawn.mode != "rewind" or since is None:
        return 0
    return dict(withdrawn.rounds)[component] - since + 2


def events(put: PutReservation, modality: str, learning: Learning) -> list[DpEvents]:
    """Return a reservation's cost to one modality, as events."""
    if put.recalled:
        return [event for name, event in put.recalled if name == modality]
    if modality not in dict(put.claims):
        return []
    noise = reached_noise(learning, modality, {part.component: part.noise_multiplier for part in put.parts})
    return [] if noise is None else [DpEvents(put.sample_rate, noise, put.steps)]


def spend_statement(
    spent: Iterable[PutReservation], modality: str, learning: Learning, lines: int = 0, shard: int = EVERY_SHARD
) -> tuple[DpEvents, ...]:
    """Return a modality's spend statement: all training runs that a student of this shard may have been in.

    At most `lines` lines (0: no limit). For EVERY_SHARD one that covers each shard's.
    """
    spent = list(spent)
    if shard == EVERY_SHARD:
        return merge(_covering(spend_statement(spent, modality, learning, 0, s) for s in range(learning.shards)), lines)
    reached = (put for put in spent if put.shard in (shard, EVERY_SHARD))
    return merge((event for put in reached for event in events(put, modality, learning)), lines)


def _covering(statements: Iterable[Sequence[DpEvents]]) -> list[DpEvents]:
    """Return events that cover each of these statements: of each rate and noise the largest count."""
    counts: dict[tuple[int, int], int] = {}
    for line in (line for statement in statements for line in statement):
        key = (line.sample_rate, line.noise_multiplier)
        counts[key] = max(counts.get(key, 0), line.count)
    return [DpEvents(rate, noise, count) for (rate, noise), count in counts.items()]


def whole(spent: Iterable[PutReservation], modalities: Iterable[str], learning: Learning) -> tuple[DpEvents, ...]:
    """Return the training runs that used any of these modalities, each with the noise of all components they reach.

    Runs that were recalled modality by modality are overstated: it is unknown which of them were the same. Of several
    shards it covers each one's.
    """
    spent, chosen = list(spent), sorted(set(modalities))
    return merge(
        _covering(
            _whole([put for put in spent if put.shard in (shard, EVERY_SHARD)], chosen, learning)
            for shard in range(learning.shards)
        )
    )


def _whole(spent: Iterable[PutReservation], chosen: Sequence[str], learning: Learning) -> tuple[DpEvents, ...]:
    paid: list[DpEvents] = []
    for put in spent:
        if put.recalled:
            paid += _recalled(put, chosen)
            continue
        used = [name for name in chosen if name in dict(put.claims)]
        noises = {
            part.component: part.noise_multiplier
            for part in put.parts
            if any(name in learning.upstream(part.component) for name in used)
        }
        if noises:
            noise = effective_noise(list(noises.values()))
            paid.append(DpEvents(put.sample_rate, noise, put.steps))
    return merge(paid)


def _recalled(put: PutReservation, chosen: Sequence[str]) -> list[DpEvents]:
    lines = {name: [event for other, event in put.recalled if other == name] for name in chosen}
    least = [min(event.noise_multiplier for event in line) for line in lines.values() if line]
    every = [event for line in lines.values() for event in line]
    if not every:
        return []
    return [DpEvents(max(d.sample_rate for d in every), effective_noise(least), sum(d.count for d in every))]


def recipe_of(run: TrainingRun, component: str) -> Recipe:
    """Return the recipe of one component of a training run."""
    return next(recipe for recipe in run.recipes if recipe.component == component)


def header(
    charter: Charter,
    author: bytes,
    run: TrainingRun,
    plan: Plan,
    component: str,
    blob: tuple[bytes, int],
    claims: tuple[Claim, ...],
) -> UpdateHeader:
    """Return the header of one component's update from a training run."""
    steps, sample_rate = event(run, charter.learning)
    return UpdateHeader(
        federation=charter.federation,
        author=author,
        component=component,
        round=recipe_of(run, component).round,
        generation=run.generations[component],
        base=run.bases[component],
        blob=blob[0],
        size=blob[1],
        steps=steps,
        sample_rate=sample_rate,
        lot=lot(run, plan, charter),
        engaged=tuple(
            Engaged(r.component, run.bases[r.component], r.noise_multiplier, r.clip_norm, r.learning_rate)
            for r in run.recipes
        ),
        claims=claims,
        shard=max(run.shard, 0),
    )


def claims(
    spent: Sequence[PutReservation], put: PutReservation, policies: Mapping[str, InForce], learning: Learning
) -> tuple[Claim, ...]:
    """Return the claims of a reserved training run's updates; `spent` are all reservations up to and including it."""
    lines = lines_for(len(put.claims))
    return tuple(
        Claim(name, (), NO_EPSILON, 0)
        if epsilon == NO_EPSILON
        else Claim(name, spend_statement(spent, name, learning, lines, put.shard), epsilon, policies[name].delta)
        for name, epsilon in put.claims
    )


def reaches(
    run: TrainingRun, spent: Sequence[PutReservation], policies: Mapping[str, InForce], learning: Learning
) -> tuple[Reach, ...]:
    """Return the accountant's input for each modality that a training run uses."""
    names = [recipe.component for recipe in run.recipes]
    return tuple(
        Reach(
            name,
            policies[name].epsilon,
            policies[name].delta,
            spend_statement(spent, name, learning, shard=run.shard),
            learning.downstream(name, names),
        )
        for name in run.modalities
    )


def parts(
    run: TrainingRun, charter: Charter, last: Mapping[str, int], movement: Mapping[str, int]
) -> tuple[NoisePart, ...]:
    """Return the noise split's input for each component of a training run."""
    specs = {spec.name: spec for spec in charter.components}
    names = [recipe.component for recipe in run.recipes]
    utility = utilities(names, movement)
    return tuple(
        NoisePart(
            name,
            specs[name].noise_multiplier,
            last.get(name, 0),
            specs[name].clip_norm,
            utility[name],
            specs[name].dimension,
        )
        for name in names
    )


def utilities(names: Sequence[str], movement: Mapping[str, int]) -> dict[str, int]:
    """Return u_c in millionths: a component's movement relative to the mean of all, from folded states only.

    Between 1/MAX_UTILITY and MAX_UTILITY; 1 for each until all of them have moved.
    """
    drifts = [movement.get(name, 0) for name in names]
    if not names or min(drifts) <= 0:
        return dict.fromkeys(names, MILLION)
    return {
        name: max(MILLION // MAX_UTILITY, min(MAX_UTILITY * MILLION, MILLION * drift * len(drifts) // sum(drifts)))
        for name, drift in zip(names, drifts, strict=True)
    }


def question(
    run: TrainingRun,
    spent: Sequence[PutReservation],
    policies: Mapping[str, InForce],
    charter: Charter,
    movement: Mapping[str, int],
    *,
    rounds: int,
    recovery: bool,
) -> CheckBudget:
    """Return the accountant's request for a training run; `rounds` are those still planned.

    The accountant is asked about the students of the run's shard, who are in one of `shards` runs.
    """
    last = {part.component: part.noise_multiplier for put in spent for part in put.parts if put.steps}
    steps, sample_rate = event(run, charter.learning)
    return CheckBudget(
        run.number,
        reaches(run, spent, policies, charter.learning),
        parts(run, charter, last, movement),
        sample_rate,
        steps,
        charter.learning.runs_of_a_student(rounds),
        lines_for(len(run.modalities)),
        recovery,
    )


def logged_epsilon(epsilon: Mapping[str, int]) -> dict[str, float | None]:
    """Return each modality's ε for the log: a number, or None where the privacy policy has none."""
    return {name: None if value == NO_EPSILON else value / 1000 for name, value in epsilon.items()}


def reservation(run: TrainingRun, epsilon: Mapping[str, int], learning: Learning) -> PutReservation:
    """Return the reservation that has to be on disk before a training run begins."""
    steps, sample_rate = event(run, learning)
    return PutReservation(
        run.number,
        tuple(Noised(r.component, r.round, r.noise_multiplier) for r in run.recipes),
        sample_rate,
        steps,
        tuple((name, epsilon[name]) for name in run.modalities),
        shard=run.shard,
    )


def recalled(header: UpdateHeader, spent: Sequence[PutReservation], learning: Learning) -> PutReservation | None:
    """Return a reservation of the events in an own update's spend statements that this disk lacks; None without any.

    They count for the update's shard; those of a statistic, which adds up all students, for every shard.
    """
    missing: list[tuple[str, DpEvents]] = []
    every = names_statistic(header.component) and learning.shards > 1
    for claim in header.claims:
        counts = _counted(spent, claim.modality, learning, range(learning.shards) if every else (header.shard,))
        for event in claim.events:
            count = event.count - counts.get((event.sample_rate, event.noise_multiplier), 0)
            if count > 0:
                missing.append((claim.modality, DpEvents(event.sample_rate, event.noise_multiplier, count)))
    if not missing:
        return None
    return PutReservation(
        max((put.run for put in spent), default=0) + 1,
        (Noised(header.component, header.round, header.recipe.noise_multiplier),),
        header.sample_rate,
        0,
        tuple((claim.modality, claim.epsilon) for claim in header.claims),
        tuple(missing),
        EVERY_SHARD if every else header.shard,
    )


def _counted(
    spent: Sequence[PutReservation], modality: str, learning: Learning, shards: Iterable[int]
) -> dict[tuple[int, int], int]:
    """Return how many events of each rate and noise this disk has for every one of these shards."""
    each = [
        {(e.sample_rate, e.noise_multiplier): e.count for e in spend_statement(spent, modality, learning, 0, shard)}
        for shard in shards
    ]
    return {key: min(counts.get(key, 0) for counts in each) for key in set().union(*each)}
