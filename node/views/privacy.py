"""Privacy spent and left at this node, by modality, and every member's claims of spending."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...crypto.errors import RemoteProtocolError
from ...protocol.charter import Charter
from ...protocol.claims import NO_EPSILON, DpEvents, effective_noise
from ...protocol.component_names import parse_name
from ...protocol.components import MILLION
from ...protocol.equity import HELD_OUT
from ...protocol.records import Update, body_of
from ...protocol.update import UpdateHeader
from ..core.contribution import spend_statement, whole
from ..core.events import PutReservation
from ..privacy import policy as governing
from ..privacy.budget import Budget, count_rounds
from ..privacy.policy import InForce
from .context import Context, moment
from .interval import used_up
from .rounds import update_header
from .shapes_privacy import (
    Forecast,
    ModalityShown,
    PlanCost,
    PlanShown,
    PrivacyShown,
    ReservationShown,
    RetrainingCost,
    RoundsLeft,
    SpendingLine,
)

LOG_LIMIT = 10_000


def privacy(context: Context, policies: Sequence[InForce], jurisdiction: str = "") -> PrivacyShown:
    """Return each modality's policy in force and its origin, ε spent, the budgets, and the log of reservations.

    ε of each training run is the total with it, as reserved before training: reservations stay spent.
    """
    learning = context.charter.learning
    reservations = context.store.reservations()
    out = _withheld(context, policies)
    return {
        "unit": "student",
        "jurisdiction": jurisdiction or None,
        "recovery_share": learning.recovery_share / MILLION,
        "planned_rounds": learning.planned_rounds,
        "modalities": [_modality(context, policy, reservations, out.get(policy.modality)) for policy in policies],
        "reservations": [_reservation(context, put) for put in reservations],
        "floors": [
            {
                "modality": floor.modality,
                "policy": floor.policy,
                "epsilon": floor.epsilon / 1000 if floor.policy == "dp" else None,
                "delta": floor.delta / 1e9 if floor.policy == "dp" else None,
            }
            for floor in learning.bounds
        ],
        "notes": [
            *(f"The data of {name} take no part in training: {reason}." for name, reason in out.items()),
            *spent_notes(policies, reservations, learning.recovery_share),
        ],
        "forecast": None,
    }


def forecast(context: Context, policies: Sequence[InForce], planned: int = 0) -> Forecast:
    """Return by modality the number of rounds like its last one that still fit, the last of them, and ε of all.

    `planned` is this node's own last round (0: the charter's). Runs the accountant, which takes seconds and memory: the
    command line calls it, the daemon does not.
    """
    from ..privacy.accountant import claimed, epsilon  # noqa: PLC0415 - see above
    from ..privacy.budget import events  # noqa: PLC0415

    learning, reservations = context.charter.learning, context.store.reservations()
    bound = [policy for policy in policies if policy.policy == "dp"]
    # Training runs under DP stay spent under any later policy.
    paid = {name for put in reservations for name, value in put.claims if value != NO_EPSILON}
    counted = sorted((paid | {policy.modality for policy in bound}) - {HELD_OUT})  # nobody is both
    spent = whole(reservations, counted, learning)
    delta = min((policy.delta for policy in policies if policy.modality in counted), default=0) / 1e9
    total = claimed(epsilon(events(spent), delta or governing.DEFAULT_DELTA / 1e9)) if counted else None
    return {
        "planned_rounds": planned or learning.planned_rounds,
        "modalities": {policy.modality: _rounds_left(context, policy, reservations) for policy in bound},
        # One student over all modalities that are or were under "dp": at least the ε of each of them.
        "student": None
        if total is None
        else {"epsilon": _thousandths(total), "delta": delta or governing.DEFAULT_DELTA / 1e9, "modalities": counted},
    }


def spent_notes(policies: Sequence[InForce], reservations: Sequence[PutReservation], recovery_share: int) -> list[str]:
    """Return a sentence for each modality that has spent more than the policy in force allows."""
    sentences = []
    for policy in policies:
        claims = [dict(put.claims)[policy.modality] for put in reservations if policy.modality in dict(put.claims)]
        limit = policy.epsilon * (MILLION - recovery_share) // MILLION
        if policy.policy != "dp" or not claims or max(claims) < limit or policy.modality == HELD_OUT:  # released once
            continue
        spent = _thousandths(max(claims))
        amount = "without a bound" if spent is None else f"ε {spent:g}"
        kept = f", of which {limit / 1000:g} before recovery" if limit < policy.epsilon else ""
        rest = (
            " so its data train in no planned round any more. The rest is kept for the recovery rounds that follow a"
            " withdrawal."
            if max(claims) < policy.epsilon
            else " so its data train no more here. What is spent stays spent;"
            " only a higher ε from all of charter, jurisdiction and institution lets it go on."
        )
        sentences.append(
            f"{policy.modality}: {amount} is spent of {policy.epsilon / 1000:g} ({policy.why[1]}{kept}),{rest}"
        )
    return sentences


def retraining_cost(context: Context, policies: Sequence[InForce], rounds: int) -> list[RetrainingCost]:
    """Return by modality what so many recovery rounds like its last one cost; one that never trained is left out.

    Runs the accountant, as `forecast` does.
    """
    costs: list[RetrainingCost] = []
    for policy in policies:
        spending = _spending(context, policy, context.store.reservations()) if policy.policy == "dp" else None
        if spending is None:
            continue
        fits = min(rounds, spending.rounds_left(recovery=True))
        costs.append(
            {
                "modality": policy.modality,
                "epsilon_now": _thousandths(spending.cost(0)),
                "epsilon_then": _thousandths(spending.cost(fits)),
                "epsilon_budget": _thousandths(policy.epsilon),
                "rounds": fits,
            }
        )
    return costs


@dataclass(frozen=True, slots=True)
class _Spending:
    """A modality's last run that trained, and `cost`: ε in thousandths after so many more rounds like it."""

    last: PutReservation
    cost: Callable[[int], int]
    budget: Budget

    def rounds_left(self, *, recovery: bool) -> int:
        """Return the number of rounds like the last one that still fit."""
        limit = replace(self.budget, recovery_open=recovery).limit
        return count_rounds(lambda rounds: self.cost(rounds) <= limit)


def _spending(context: Context, policy: InForce, reservations: Sequence[PutReservation]) -> _Spending | None:
    from ..privacy.accountant import claimed, epsilon  # noqa: PLC0415 - as above
    from ..privacy.budget import events  # noqa: PLC0415

    learning = context.charter.learning
    # Released once: not typical of a round.
    sums = {spec.name for spec in context.charter.components if spec.is_statistic}
    rounds_ = [d for d in reservations if not d.recalled and not any(part.component in sums for part in d.parts)]
    last = next((d for d in reversed(rounds_) if policy.modality in dict(d.claims)), None)
    if last is None:
        return None
    spent, delta = spend_statement(reservations, policy.modality, learning), policy.delta / 1e9
    (once,) = spend_statement([last], policy.modality, learning)

    def cost(rounds: int) -> int:
        count = once.count * learning.runs_of_a_student(rounds)
        more = [DpEvents(once.sample_rate, once.noise_multiplier, count)] if rounds else []
        return claimed(epsilon(events([*spent, *more]), delta))

    return _Spending(last, cost, Budget(policy.epsilon, delta, learning.recovery_share, recovery_open=False))


def _rounds_left(context: Context, policy: InForce, reservations: Sequence[PutReservation]) -> RoundsLeft | None:
    spending = _spending(context, policy, reservations)
    if spending is None:
        return None

    still = spending.rounds_left(recovery=False)
    rounds = {part.component: _newest(context, reservations, part.component) for part in spending.last.parts}
    reached = context.charter.learning.downstream(policy.modality, rounds)
    return {
        "rounds_left": still,
        "rounds_left_in_recovery": spending.rounds_left(recovery=True),
        "like_run": spending.last.run,
        "epsilon_now": _thousandths(spending.cost(0)),
        "last_rounds": {name: rounds[name] + still for name in reached},
        "runs_out_at": moment(used_up(context, reached, still)),
    }


def _newest(context: Context, reservations: Sequence[PutReservation], component: str) -> int:
    """Return the last round of a component that this node trained, by its reservations or, where they are lost, the
    ledger.
    """
    drawn = [part.round for put in reservations for part in put.parts if part.component == component]
    ledger = context.ledger.components.get(component)
    mine = [r.number for r in ledger.rounds if any(e.author == context.me for e in r.entries)] if ledger else []
    return max([*drawn, *mine])


def privacy_log(context: Context, *, member: bytes | None = None, limit: int = 1000) -> list[SpendingLine]:
    """Return the log of spending: every member's claims from the ledger, and this node's own reservations.

    One line for each training run and modality: the updates of one training run claim the same. Own reservations
    without an update in the ledger come last; they are spent too.
    """
    by_run: dict[tuple[object, ...], SpendingLine] = {}
    for height, header in _headers(context):
        if member is not None and header.author != member:
            continue
        for claim in header.claims:
            line = by_run.setdefault(
                (header.author, header.engaged, claim),
                {
                    "member": context.member(header.author),
                    "height": height,
                    "rounds": {},
                    "components": [entry.component for entry in header.engaged],
                    "modality": claim.modality,
                    "steps": sum(event.count for event in claim.events),
                    "epsilon": _thousandths(claim.epsilon),
                    "delta": claim.delta / 1e9 if claim.events else None,
                    "published": True,
                },
            )
            line["rounds"][header.component] = header.round
    lines = list(by_run.values())
    if context.me is not None and member in (None, context.me):
        lines += _unpublished_lines(context)
    return lines[-min(limit, LOG_LIMIT) :]


def _unpublished_lines(context: Context) -> Iterator[SpendingLine]:
    assert context.me is not None
    for put in context.store.reservations():
        if put.run in context.published or put.recalled:  # the line of a recalled one is its update's
            continue
        for modality, epsilon in put.claims:
            yield {
                "member": context.member(context.me),
                "height": None,
                "rounds": {part.component: part.round for part in put.parts},
                "components": [part.component for part in put.parts],
                "modality": modality,
                "steps": put.steps,
                "epsilon": _thousandths(epsilon),
                "delta": None,
                "published": False,
            }


def _headers(context: Context) -> Iterator[tuple[int, UpdateHeader]]:
    seen: set[bytes] = set()
    for height in range(1, context.ledger.height + 1):
        block = context.store.block(height)
        for record in block.records if block is not None else ():
            if record.value.kind != "update":
                continue
            try:
                body = body_of(record.value)
            except RemoteProtocolError:
                continue
            if isinstance(body, Update) and body.header not in seen:  # posted again with more acknowledgements
                seen.add(body.header)
                yield height, update_header(body)


def _withheld(context: Context, policies: Sequence[InForce]) -> Mapping[str, str]:
    if context.withheld is not None:
        return context.withheld
    names = [spec.name for spec in context.charter.components]
    here = [
        name
        for name in names
        if context.hosted is None or name in context.hosted or parse_name(name).modality is not None
    ]
    return governing.withheld(context.charter, policies, here)


def _modality(
    context: Context, policy: InForce, reservations: Sequence[PutReservation], withheld: str | None
) -> ModalityShown:
    share = context.charter.learning.recovery_share
    claims = [dict(put.claims)[policy.modality] for put in reservations if policy.modality in dict(put.claims)]
    kinds = {modality.name: modality.kind for modality in context.charter.learning.modalities} | {HELD_OUT: "groups"}
    bounded = policy.policy == "dp"
    hosted = context.hosted if context.hosted is not None else [spec.name for spec in context.charter.components]
    return {
        "modality": policy.modality,
        "kind": kinds[policy.modality],
        "sensitivity": policy.sensitivity or None,
        "policy": policy.policy,
        "policy_from": policy.why[0],
        "epsilon_spent": _thousandths(max(claims, default=0)),
        "epsilon_budget": policy.epsilon / 1000 if bounded else None,
        "epsilon_from": policy.why[1] if bounded else None,
        "epsilon_before_recovery": policy.epsilon * (MILLION - share) // MILLION / 1000 if bounded else None,
        "delta": policy.delta / 1e9,
        "delta_from": policy.why[2] if bounded else None,
        "withheld": withheld,
        "reaches": list(context.charter.learning.downstream(policy.modality, hosted)),
    }


def _reservation(context: Context, put: PutReservation) -> ReservationShown:
    return {
        "run": put.run,
        "rounds": {part.component: part.round for part in put.parts},
        "noise_multipliers": {part.component: part.noise_multiplier / MILLION for part in put.parts},
        "sample_rate": put.sample_rate / MILLION,
        "steps": put.steps,
        "epsilon": {modality: _thousandths(epsilon) for modality, epsilon in put.claims},
        # A recalled one came back with its update, which others have.
        "published": put.run in context.published or bool(put.recalled),
        "recalled": bool(put.recalled),
    }


def _thousandths(epsilon: int) -> float | None:
    """Return an ε for JSON; None where there is no bound."""
    return None if epsilon == NO_EPSILON else epsilon / 1000


def privacy_plan(
    charter: Charter | None,
    policies: Sequence[InForce],
    *,
    rounds: int,
    steps: int,
    sample_rate: int,
    noises: Mapping[str, int],
    delta: int = 0,
    spent: Sequence[PutReservation] = (),
) -> PlanShown:
    """Return the cost of `rounds` rounds of `steps` steps for each modality, on top of `spent`, and its growth.

    `noises` (millionths, as `sample_rate`) are by component of the charter; without a charter they are one training
    run's, and `delta` (billionths) is needed. Runs the accountant.
    """
    if charter is None:
        lines: list[PlanCost] = [_cost(None, delta, (), list(noises.values()), sample_rate, steps, rounds, 1)]
    else:
        learning = charter.learning
        lines = []
        for policy in policies:
            reached = learning.downstream(policy.modality, noises)
            if not reached or policy.policy == "never":
                continue
            before = spend_statement(spent, policy.modality, learning)
            chosen = [noises[name] for name in reached]
            kept = learning.recovery_share
            line = _cost(
                policy, delta or policy.delta, before, chosen, sample_rate, steps, rounds, learning.shards, kept
            )
            lines.append({"modality": policy.modality, "components": list(reached), **line})
    return {
        "rounds": rounds,
        "steps": steps,
        "sample_rate": sample_rate / MILLION,
        "noise_multipliers": {name: noise / MILLION for name, noise in noises.items()},
        "modalities": lines,
    }


def _cost(
    policy: InForce | None,
    delta: int,
    before: Sequence[DpEvents],
    noises: Sequence[int],
    sample_rate: int,
    steps: int,
    rounds: int,
    shards: int,
    recovery_share: int = 0,
) -> PlanCost:
    from ..privacy.accountant import claimed, epsilon  # noqa: PLC0415 - as above
    from ..privacy.budget import events  # noqa: PLC0415

    noise = effective_noise(noises)

    def reservations(count: int) -> list[tuple[float, float, int]]:
        return events([*before, DpEvents(sample_rate, noise, steps * -(-count // shards))] if count else before)

    points = sorted({count for count in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if count < rounds} | {rounds})
    rows = [(count, claimed(epsilon(reservations(count), delta / 1e9))) for count in points]
    alone = epsilon(events([DpEvents(sample_rate, noise, steps * -(-rounds // shards))]), delta / 1e9)
    limit = None
    if policy is not None and policy.policy == "dp":
        limit = policy.epsilon * (MILLION - recovery_share) // MILLION
    return {
        "noise_multiplier": noise / MILLION,
        "delta": delta / 1e9,
        "epsilon_spent": _thousandths(rows[0][1]),
        "epsilon_of_plan": _thousandths(claimed(alone)),
        "epsilon": _thousandths(rows[-1][1]),
        "epsilon_budget": policy.epsilon / 1000 if policy is not None and limit is not None else None,
        "epsilon_before_recovery": None if limit is None else limit / 1000,
        "fits": None if limit is None else rows[-1][1] <= limit,
        "by_round": [{"rounds": count, "epsilon": _thousandths(value)} for count, value in rows],
        "events": [list(event) for event in reservations(rounds)],
        "cross_check": None,
    }
