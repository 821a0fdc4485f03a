"""When to train, with which noise, and what an update then declares (DESIGN.md sections 5 and 6).

One draw trains every engaged component at once: it is one event for the accountant, and its cost is on disk before the
learner sees it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isqrt

from ...consensus.ledger import Ledger
from ...protocol.charter import Charter
from ...protocol.components import ComponentSpec
from ...protocol.update import NO_EPSILON, Draws, Engaged, UpdateHeader
from .events import PutDraw, Recipe

RECOVERY_ROUNDS = 5  # after a withdrawal so many rounds may use the share of ε that the charter keeps


@dataclass(frozen=True, slots=True)
class Plan:
    """What this node contributes: component patterns, its lot L (thousandths), a last round (0: none).

    `policy` is the institution's own, beside the charter's floors: the stricter is in force. `delta` is its own δ
    (billionths; 0: the charter's).
    """

    engage: tuple[str, ...] = ("*",)
    lot: int = 1000
    rounds: int = 0
    policy: str = "open"
    delta: int = 0


@dataclass(frozen=True, slots=True)
class Draw:
    """A draw under way."""

    number: int
    recipes: tuple[Recipe, ...]
    bases: Mapping[str, bytes]
    epochs: Mapping[str, int]


def engaged(plan: Plan, hosted: Iterable[str]) -> list[str]:
    """Return the hosted components that this node trains, sorted."""
    return sorted(name for name in hosted if any(fnmatchcase(name, pattern) for pattern in plan.engage))


def effective_noise(multipliers: Sequence[int]) -> int:
    """Return `σ_eff = (Σ σ_c^-2)^(-1/2)` in millionths, rounded down; 0 if any component goes without noise."""
    if not multipliers or min(multipliers) == 0:
        return 0
    # 1/Σσ^-2 = P / Σ(P/σ²) with P = Πσ²: every P/σ² is whole, so the claim can only err on the safe side.
    product = 1
    for sigma in multipliers:
        product *= sigma * sigma
    return isqrt(product // sum(product // (sigma * sigma) for sigma in multipliers))


def merge(draws: Iterable[Draws]) -> tuple[Draws, ...]:
    """Return draws of equal rate and noise as one event with their total count, sorted."""
    counts: dict[tuple[int, int], int] = {}
    for draw in draws:
        key = (draw.sample_rate, draw.noise_multiplier)
        counts[key] = counts.get(key, 0) + draw.count
    return tuple(Draws(rate, noise, count) for (rate, noise), count in sorted(counts.items()))


def is_private(specs: Iterable[ComponentSpec]) -> bool:
    """Whether the charter asks for noise on any of these components."""
    return any(spec.noise_multiplier > 0 for spec in specs)


def recovering(ledger: Ledger, rounds: Mapping[str, int]) -> bool:
    """Whether these rounds are recovery rounds: within RECOVERY_ROUNDS after a withdrawal took effect."""
    return any(
        rounds[name] <= closed + RECOVERY_ROUNDS
        for withdrawal in ledger.withdrawn
        for name, closed in withdrawal.rounds
        if name in rounds
    )


def header(
    charter: Charter,
    author: bytes,
    draw: Draw,
    plan: Plan,
    component: str,
    blob: tuple[bytes, int],
    spent: Sequence[PutDraw],
    delta: int,
) -> UpdateHeader:
    """Return the header of one component's update from a draw; `spent` are all reservations, this draw's included."""
    recipe = next(r for r in draw.recipes if r.component == component)
    private = all(r.noise_multiplier > 0 for r in draw.recipes)
    return UpdateHeader(
        federation=charter.federation,
        author=author,
        component=component,
        round=recipe.round,
        epoch=draw.epochs[component],
        base=draw.bases[component],
        blob=blob[0],
        size=blob[1],
        steps=charter.learning.steps,
        sample_rate=charter.learning.sample_rate,
        lot=plan.lot,
        engaged=tuple(
            Engaged(r.component, draw.bases[r.component], r.noise_multiplier, r.clip_norm, r.learning_rate)
            for r in draw.recipes
        ),
        draws=merge(d.draws for d in spent) if private else (),
        epsilon=max(d.epsilon for d in spent) if private else NO_EPSILON,
        delta=delta if private else 0,
    )


def candidate(charter: Charter, recipes: Iterable[Recipe]) -> Draws:
    """Return the accountant's view of one round of these components."""
    noise = effective_noise([recipe.noise_multiplier for recipe in recipes])
    return Draws(charter.learning.sample_rate, noise, charter.learning.steps)


def least_delta(charter: Charter, plan: Plan) -> int:
    """Return the strictest δ (billionths) of the charter's floors under "dp" and of the institution."""
    found = [floor.delta for floor in charter.learning.floors if floor.policy == "dp"]
    return min([*found, *([plan.delta] if plan.delta else [])], default=0)


def forbidden(plan: Plan, charter: Charter, specs: Iterable[ComponentSpec]) -> str:
    """Return why the policies in force forbid training these components at all, or "" (DESIGN.md section 6)."""
    if plan.policy == "never" or any(floor.policy == "never" for floor in charter.learning.floors):
        return "the policy for this data is never"
    if plan.policy == "dp" and not all(spec.noise_multiplier for spec in specs):
        return "the policy of this institution is dp, and the charter asks for no noise"
    return ""
