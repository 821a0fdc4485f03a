"""An update's privacy claims for each modality: its author's spend statement and ε, in integers (design.md section 6).

The ε of a modality composes all training runs, each with the noise of the engaged components that the modality's data
reach. Rounding and merging only ever overstate the cost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Annotated

from ..crypto.errors import RemoteProtocolError
from .component_names import ComponentKind, parse_name
from .components import MILLION, ComponentSpec
from .equity import HELD_OUT
from .learning import Learning
from .schema import U32, Between, Name, Size

NO_EPSILON = 2**32 - 1  # `epsilon` of a claim of no differential privacy
MAX_LINES = 64  # of one spend statement
ALL_LINES = 192  # of all spend statements of a header, which has to stay small enough to be proved
MAX_EVENTS = 2**24  # of a spend statement: no member trains so many steps
MAX_NOISE = 16  # × the charter's: a declared noise widens the norm bound (G5)


@dataclass(frozen=True, slots=True)
class DpEvents:
    """`count` noised steps at `sample_rate` with effective noise `noise_multiplier` (both in millionths)."""

    sample_rate: Annotated[int, Between(1, MILLION)]
    noise_multiplier: Annotated[int, Between(0, 2**40)]
    count: U32


@dataclass(frozen=True, slots=True)
class Claim:
    """The privacy cost of this author's training for one modality, over its lifetime in the federation.

    `events` is the spend statement, up to and with this update; `epsilon` (thousandths) and `delta` (billionths) are
    their composition as the author computed it. Without differential privacy: no events, NO_EPSILON and 0.
    """

    modality: Name
    events: Annotated[tuple[DpEvents, ...], Size(0, MAX_LINES)]
    epsilon: U32
    delta: U32


def effective_noise(multipliers: Sequence[int]) -> int:
    """Return `σ_eff = (Σ σ_c^-2)^(-1/2)` in millionths, rounded down; 0 if any component has no noise."""
    if not multipliers or min(multipliers) == 0:
        return 0
    # 1/Σσ^-2 = P / Σ(P/σ²) with P = Πσ²: every P/σ² is an integer, so rounding only overstates the cost.
    product = 1
    for sigma in multipliers:
        product *= sigma * sigma
    return isqrt(product // sum(product // (sigma * sigma) for sigma in multipliers))


def reached_noise(learning: Learning, modality: str, noises: Mapping[str, int]) -> int | None:
    """Return σ_eff of the components of one training run that a modality's data reach; None if they reach none."""
    reached = learning.downstream(modality, noises)
    return effective_noise([noises[name] for name in reached]) if reached else None


def merge(events: Iterable[DpEvents], lines: int = 0) -> tuple[DpEvents, ...]:
    """Return the events sorted, with counts of equal rate and noise added up.

    Down to `lines` entries (0: no limit) two are merged into one with the higher rate and the lower noise.
    """
    counts: dict[tuple[int, int], int] = {}
    for event in events:
        key = (event.sample_rate, event.noise_multiplier)
        counts[key] = counts.get(key, 0) + event.count
    merged = sorted(counts.items())
    while lines and len(merged) > lines:
        # The pair of neighbours whose noises differ least, relative to the lower one.
        at = min(range(len(merged) - 1), key=lambda n: _distance(merged[n][0], merged[n + 1][0]))
        ((rate, noise), count), ((higher, other), more) = merged[at : at + 2]
        joined = ((max(rate, higher), min(noise, other)), count + more)
        rest = dict([*merged[:at], *merged[at + 2 :]])
        rest[joined[0]] = rest.get(joined[0], 0) + joined[1]
        merged = sorted(rest.items())
    return tuple(DpEvents(rate, noise, count) for (rate, noise), count in merged)


def _distance(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    low, high = sorted((a[1], b[1]))
    return b[0] - a[0], (high - low) * MILLION // max(1, low)


def lines_for(claims: int) -> int:
    """Return the limit of lines for each of this many spend statements."""
    return max(1, min(MAX_LINES, ALL_LINES // max(1, claims)))


def check_spend_statements(
    claims: Sequence[Claim], widest_rate: int, specs: Sequence[ComponentSpec], *, author: bytes
) -> None:
    """Check that training under the charter can produce these spend statements; it bounds the work to compute ε (G9).

    `widest_rate` (millionths) is the highest sample rate that the charter ever had, and `specs` are all its components,
    the retired ones too: a spend statement holds the runs of all times. No training run has less noise than all of them
    together, or more than MAX_NOISE times that of one.

    Raises RemoteProtocolError("spend-lines" | "spend-events" | "spend-rate" | "spend-noise").
    """
    noises = [spec.noise_multiplier for spec in specs if spec.noise_multiplier]
    least, most = effective_noise(noises), MAX_NOISE * max(noises, default=0)
    rates = {MILLION} if any(spec.is_statistic for spec in specs) else set()
    for claim in claims:
        for reason, ok in (
            ("spend-lines", len(claim.events) <= lines_for(len(claims))),
            ("spend-events", sum(line.count for line in claim.events) <= MAX_EVENTS),
            (
                "spend-rate",
                all(d.sample_rate <= widest_rate or d.sample_rate in rates for d in claim.events),
            ),
            (
                "spend-noise",  # no noise: ε is infinite, and needs no computation
                all(d.noise_multiplier == 0 or least <= d.noise_multiplier <= most for d in claim.events),
            ),
        ):
            if not ok:
                raise RemoteProtocolError(reason, claim.modality, author)


def check_claims(
    claims: Sequence[Claim],
    learning: Learning,
    noises: Mapping[str, int],
    *,
    sample_rate: int,
    steps: int,
    author: bytes,
) -> None:
    """Check an update's claims against the charter's floors; `noises` are those of its engaged components.

    Raises RemoteProtocolError with the name of the broken bound. Integers decide, never an accountant.
    """
    declared = {bound.modality for bound in learning.bounds}
    names = [claim.modality for claim in claims]
    own = {modality for name in noises if (modality := parse_name(name).modality) is not None}
    own |= {HELD_OUT for name in noises if parse_name(name).kind is ComponentKind.GROUPS}
    seen: set[str] = set().union(*(learning.upstream(name) for name in noises))
    if names != sorted(set(names)) or not set(names) <= declared:
        raise RemoteProtocolError("claims-order", ", ".join(names), author)
    if not own <= set(names):
        raise RemoteProtocolError("claim-missing", ", ".join(sorted(own - set(names))), author)
    for claim in claims:
        floor = learning.floor(claim.modality)
        if floor.policy == "never":
            raise RemoteProtocolError("modality-forbidden", claim.modality, author)
        if claim.modality not in seen:
            raise RemoteProtocolError("claim-unreached", claim.modality, author)
        if floor.policy == "open" and claim.epsilon == NO_EPSILON:
            continue
        if not claim.events or claim.delta == 0:
            raise RemoteProtocolError("spend-missing", claim.modality, author)
        noise = reached_noise(learning, claim.modality, noises)
        # A line of at least this run's cost covers it: merging moves lines towards the higher cost.
        if noise is None or not any(
            line.count >= steps and line.sample_rate >= sample_rate and line.noise_multiplier <= noise
            for line in claim.events
        ):
            raise RemoteProtocolError("spend-lacks-training", claim.modality, author)
        if floor.policy == "dp" and (claim.epsilon > floor.epsilon or claim.delta > floor.delta):
            raise RemoteProtocolError("epsilon-above", claim.modality, author)
