"""This node's offer: the components that it hosts, and the reasons why it does not train some of them (ADR 18).

Reasons by configuration hold as long as the configuration does. Others (a spent budget, a failing learner, a
suspension) stay in `state.stopped` and in the ledger, across restarts, until the node has trained the component again
within a round's deadline: only then do rounds wait for it. Its updates before that count if they come in time.
"""

from collections.abc import Iterable
from contextlib import suppress

from ...consensus import trainers
from ...consensus.ledger import Ledger
from ...consensus.rounds import has_contributed
from ...crypto.errors import RemoteProtocolError
from ...protocol.records import PAUSED, SILENT, Idle, Offer, body_of
from .reasons import PASSING, Reason
from .state import NodeState


def why_idle(state: NodeState, name: str) -> str:
    """Return what others are told of why this node does not train a hosted component, one of IDLE; "" if it does."""
    reason = own_reason(state, name)
    return "" if reason is None else reason.told


def own_reason(state: NodeState, name: str) -> Reason | None:
    """Return the reason why this node does not train a hosted component; None if it does."""
    if state.idle:
        return Reason(state.idle)
    if not state.contributing:
        return Reason.OFF
    if name in state.charter.retired:
        return Reason.RETIRED
    if name not in state.fed:
        return Reason.POLICY
    if state.specs[name].is_statistic:
        if has_contributed(state.ledger.roll, state.ledger.components[name], state.me):
            return None  # no round waits for it any more
    elif plan_done(state, name):
        return Reason.PLAN_DONE
    if state.paused:
        return Reason.BY_OPERATOR
    if state.removals_unknown:
        return Reason.REMOVALS_UNKNOWN
    if name in state.halted:
        return Reason.STATE_DIFFERS
    if state.quiet:
        return Reason.QUIET_HOURS
    return state.stopped.get(name)


def plan_done(state: NodeState, name: str) -> bool:
    """Whether this node has trained a component for as many rounds as its operator planned."""
    component, limit = state.ledger.components[name], state.options.plan.rounds
    return bool(limit) and component.round - component.empty >= limit


def renew(state: NodeState) -> None:
    """Offer the hosted components, the trained ones among them, and addresses, if they differ from the last offer.

    Also after a suspension: the node is back. A node without the states cannot train on them, so no round should wait
    for it; it offers when it has them.
    """
    listed = state.me in state.ledger.offers
    if not listed and not all(state.is_current(name) or name in state.halted for name in state.hosted):
        return
    last = latest(state)
    offer = Offer(state.hosted, state.options.addresses, _idle(state, last))
    if last != offer:
        state.append(offer)


def _idle(state: NodeState, last: Offer | None) -> tuple[Idle, ...]:
    before = {} if last is None else {entry.component: entry.why for entry in last.idle}
    idle = []
    for name in state.hosted:
        why = why_idle(state, name)
        if why and name not in before and _on_the_way(state, name):
            continue  # rounds should still wait for an update in flight
        if why == SILENT and before.get(name) != SILENT:
            why = PAUSED  # only the ledger gives this reason
        if why:
            idle.append(Idle(name, why))
    return tuple(idle)


def _on_the_way(state: NodeState, name: str) -> bool:
    """Whether this node's update for the open round is signed, and not yet in a record that the round can count."""
    component = state.ledger.components[name]
    hosts, need = set(component.hosts), state.ledger.host_quorum(component)
    return any(
        update.header.value.component == name
        and update.header.value.round > component.round
        and (not component.round or len(update.posted & hosts) < need)  # the first hosts are still gathering
        for update in state.in_flight.of(state.me)
    )


def latest(state: NodeState) -> Offer | None:
    """Return this node's last offer, agreed or not; None if it has none, or was suspended since."""
    for record in reversed(state.pool.chain(state.me, state.ledger.heads)):
        if record.value.kind == "offer":
            with suppress(RemoteProtocolError):  # malformed under this node's own key: the ledger refuses it by name
                body = body_of(record.value)
                return body if isinstance(body, Offer) else None
    return state.ledger.offers.get(state.me)


# ---- when training stops, and when it resumes


def stop_some(state: NodeState, why: Reason, names: Iterable[str]) -> None:
    """Stop contributing to these statistics."""
    state.stopped.update(dict.fromkeys(names, why))


def stop(state: NodeState, why: Reason) -> None:
    """Stop training for a reason outside of the configuration: a spent budget stops all but statistics, others all.

    What others were told stays: a spent budget and a suspension go before what they learn no reason of.
    """
    for name in state.fed:
        before = state.stopped.get(name)
        if why is Reason.BUDGET_SPENT:
            if not state.specs[name].is_statistic:
                state.stopped[name] = why
        elif before is None or before.told == why.told:
            state.stopped[name] = why


def learner_ready(state: NodeState) -> None:
    """Stop training components that the learner has no data for. Others, which it had stopped, are offered again.

    The offer goes before the training run, so that the round waits for its update: else ε would be spent for a round
    that closes without it.
    """
    for name in state.fed:
        before = state.stopped.get(name)
        if name not in state.learner:
            if before is None or before in PASSING:
                state.stopped[name] = Reason.NOT_IN_DATA
        elif before in PASSING:
            state.stopped.pop(name)


def go_on(state: NodeState, names: Iterable[str]) -> None:
    """Clear the stop reason of these components: too few hosts train them, and this one can."""
    for name in names:
        state.stopped.pop(name, None)


def trained(state: NodeState, names: "list[str]", took_ms: int) -> None:
    """Clear the stop reason of these components if others would not wait for them in vain."""
    back = [name for name in names if name in state.stopped]
    if not back:
        return
    if took_ms > state.charter.rules.round_deadline:
        state.notice("training-outlasts-deadline", "warning", took_ms=took_ms, components=back)
        return
    for name in back:
        del state.stopped[name]


def recall(state: NodeState) -> None:
    """At a start: recall the reasons that had stopped training, from this node's last offer or the ledger.

    What a pause, or quiet hours, would explain ends with them: then rounds wait for this node at once.
    """
    last = latest(state)
    for entry in () if last is None else last.idle:
        match entry.why:
            case "silent":
                state.stopped[entry.component] = Reason.SILENT
            case "budget-spent":
                state.stopped[entry.component] = Reason.BUDGET_SPENT
            case "paused" if not state.on_hold:
                state.stopped[entry.component] = Reason.BEFORE_START
            case _:
                pass  # by the configuration of then


def note(state: NodeState, before: Ledger) -> None:
    """After a block: note whether the members suspended this node as a trainer."""
    for name in state.hosted:
        now, then = (trainers.idle(ledger.offers, state.me, name) for ledger in (state.ledger, before))
        if now == SILENT != then:
            state.stopped.setdefault(name, Reason.SILENT)
