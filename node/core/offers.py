"""What this node offers: the components that it hosts, and which of them it does not train, with the reason (ADR 18).

Reasons by configuration hold as long as the configuration does. Others (a spent budget, a learner that fails, a
suspension) stay in `state.stopped` and in the ledger, across restarts, until the node has trained the component again
within a round's deadline: only then is it worth waiting for. What it sends before that counts, if it comes in time.
"""

from contextlib import suppress

from ...consensus import trainers
from ...consensus.ledger import Ledger
from ...consensus.rounds import has_contributed
from ...crypto.errors import RemoteProtocolError
from ...protocol.records import PAUSED, SILENT, Idle, Offer, body_of
from .state import NodeState


def why_idle(state: NodeState, name: str) -> str:
    """Return why this node does not train a component that it hosts, one of IDLE; "" if it does."""
    if state.idle:
        return state.idle
    if not state.contributing:
        return "off"
    if name not in state.fed:
        return "policy"
    if state.specs[name].is_statistic:
        if has_contributed(state.ledger.roll, state.ledger.components[name], state.me):
            return ""  # nobody waits for it any more
    elif plan_done(state, name):
        return "plan-done"
    return PAUSED if name in state.halted else state.stopped.get(name, "")


def plan_done(state: NodeState, name: str) -> bool:
    """Whether this node has trained a component for as many rounds as its operator planned."""
    component, limit = state.ledger.components[name], state.options.plan.rounds
    return bool(limit) and component.round - component.empty >= limit


def renew(state: NodeState) -> None:
    """Offer the hosted components, what of them is trained, and addresses, when that differs from the last offer.

    And again after it was suspended: it is here. Who does not have the states yet cannot train on them, so nobody
    should wait for it; it offers when it has.
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
    found = []
    for name in state.hosted:
        why = why_idle(state, name)
        if why and name not in before and _on_the_way(state, name):
            continue  # the update that is on its way is still to be waited for
        if why == SILENT and before.get(name) != SILENT:
            why = PAUSED  # only the ledger says that of somebody
        if why:
            found.append(Idle(name, why))
    return tuple(found)


def _on_the_way(state: NodeState, name: str) -> bool:
    """Whether an update by this node for the open round is on its way to the ledger, or waits there."""
    closed = state.ledger.components[name].round
    headers = (update.header.value for update in state.in_flight.of(state.me))
    return any(header.component == name and header.round > closed for header in headers)


def latest(state: NodeState) -> Offer | None:
    """Return this node's last offer, in a block or not yet; None if it has none, or was suspended since."""
    for record in reversed(state.pool.chain(state.me, state.ledger.heads)):
        if record.value.kind == "offer":
            with suppress(RemoteProtocolError):  # nonsense under this node's own key: the ledger refuses it by name
                body = body_of(record.value)
                return body if isinstance(body, Offer) else None
    return state.ledger.offers.get(state.me)


# ---- what stops this node, and what shows that it goes on


def stop(state: NodeState, why: str, *, statistics: bool = False) -> None:
    """Train no more, for a reason that is not of the configuration: a spent budget says of what, all else of all."""
    for name in state.fed:
        if why != "budget-spent":
            state.stopped.setdefault(name, why)
        elif state.specs[name].is_statistic == statistics:
            state.stopped[name] = why


def learner_ready(state: NodeState) -> None:
    """What the learner has no data for is not trained."""
    for name in state.fed:
        if name not in state.learner:
            state.stopped.setdefault(name, PAUSED)


def trained(state: NodeState, names: "list[str]", took_ms: int) -> None:
    """Take back what stopped these components, if others would not wait for them in vain."""
    back = [name for name in names if name in state.stopped]
    if not back:
        return
    if took_ms > state.charter.rules.round_deadline:
        state.notice("training-outlasts-deadline", "warning", took_ms=took_ms, components=back)
        return
    for name in back:
        del state.stopped[name]


def recall(state: NodeState) -> None:
    """At a start: what had stopped this node, by its own last word or the ledger's."""
    last = latest(state)
    for entry in () if last is None else last.idle:
        if entry.why in (SILENT, PAUSED, "budget-spent"):
            state.stopped[entry.component] = entry.why


def note(state: NodeState, before: Ledger) -> None:
    """After a block: whether the members suspended this node as a trainer."""
    for name in state.hosted:
        now, then = (trainers.idle(ledger.offers, state.me, name) for ledger in (state.ledger, before))
        if now == SILENT != then:
            state.stopped.setdefault(name, SILENT)
