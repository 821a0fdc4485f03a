"""What this node offers: the components that it hosts, and which of them it does not train, with the reason (ADR 18).

Reasons by configuration hold as long as the configuration does. Others (a spent budget, a learner that fails, a
suspension) stay in `core.stopped` and in the ledger, across restarts, until the node has trained the component again
within a round's deadline: only then is it worth waiting for. What it sends before that counts, if it comes in time.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from ...consensus import trainers
from ...consensus.ledger import Ledger, has_contributed
from ...crypto.errors import RemoteProtocolError
from ...protocol.records import PAUSED, SILENT, Idle, Offer, body_of

if TYPE_CHECKING:
    from .core import Core


def why_idle(core: "Core", name: str) -> str:
    """Return why this node does not train a component that it hosts, one of IDLE; "" if it does."""
    if core.idle:
        return core.idle
    if not core.contributing:
        return "off"
    if name not in core._fed:
        return "policy"
    if core.specs[name].additive:
        if has_contributed(core.ledger.roll, core.ledger.components[name], core.me):
            return ""  # nobody waits for it any more
    elif plan_done(core, name):
        return "plan-done"
    return PAUSED if name in core.halted else core.stopped.get(name, "")


def plan_done(core: "Core", name: str) -> bool:
    """Whether this node has trained a component for as many rounds as its operator planned."""
    component, limit = core.ledger.components[name], core.options.plan.rounds
    return bool(limit) and component.round - component.empty >= limit


def renew(core: "Core") -> None:
    """Offer the hosted components, what of them is trained, and addresses, when that differs from the last offer.

    And again after it was suspended: it is here. Who does not have the states yet cannot train on them, so nobody
    should wait for it; it offers when it has.
    """
    listed = core.me in core.ledger.offers
    if not listed and not all(core._current(name) or name in core.halted for name in core.hosted):
        return
    last = latest(core)
    offer = Offer(core.hosted, core.options.addresses, _idle(core, last))
    if last != offer:
        core._append(offer)


def _idle(core: "Core", last: Offer | None) -> tuple[Idle, ...]:
    before = {} if last is None else {entry.component: entry.why for entry in last.idle}
    found = []
    for name in core.hosted:
        why = why_idle(core, name)
        if why and name not in before and _on_the_way(core, name):
            continue  # the update that is on its way is still to be waited for
        if why == SILENT and before.get(name) != SILENT:
            why = PAUSED  # only the ledger says that of somebody
        if why:
            found.append(Idle(name, why))
    return tuple(found)


def _on_the_way(core: "Core", name: str) -> bool:
    """Whether an update by this node for the open round is on its way to the ledger, or waits there."""
    closed = core.ledger.components[name].round
    headers = (flight.header.value for flight in core.flights.of(core.me))
    return any(header.component == name and header.round > closed for header in headers)


def latest(core: "Core") -> Offer | None:
    """Return this node's last offer, in a block or not yet; None if it has none, or was suspended since."""
    for record in reversed(core.pool.chain(core.me, core.ledger.heads)):
        if record.value.kind == "offer":
            with suppress(RemoteProtocolError):  # nonsense under this node's own key: the ledger refuses it by name
                body = body_of(record.value)
                return body if isinstance(body, Offer) else None
    return core.ledger.offers.get(core.me)


# ---- what stops this node, and what shows that it goes on


def stop(core: "Core", why: str, *, additive: bool = False) -> None:
    """Train no more, for a reason that is not of the configuration: a spent budget says of what, all else of all."""
    for name in core._fed:
        if why != "budget-spent":
            core.stopped.setdefault(name, why)
        elif core.specs[name].additive == additive:
            core.stopped[name] = why


def learner_ready(core: "Core") -> None:
    """What the learner has no data for is not trained."""
    for name in core._fed:
        if name not in core.learner:
            core.stopped.setdefault(name, PAUSED)


def trained(core: "Core", names: "list[str]", took_ms: int) -> None:
    """Take back what stopped these components, if others would not wait for them in vain."""
    back = [name for name in names if name in core.stopped]
    if not back:
        return
    if took_ms > core.charter.rules.round_deadline:
        core._notice("training-outlasts-deadline", "warning", took_ms=took_ms, components=back)
        return
    for name in back:
        del core.stopped[name]


def recall(core: "Core") -> None:
    """At a start: what had stopped this node, by its own last word or the ledger's."""
    last = latest(core)
    for entry in () if last is None else last.idle:
        if entry.why in (SILENT, PAUSED, "budget-spent"):
            core.stopped[entry.component] = entry.why


def note(core: "Core", before: Ledger) -> None:
    """After a block: whether the members suspended this node as a trainer."""
    for name in core.hosted:
        now, then = (trainers.idle(ledger.offers, core.me, name) for ledger in (core.ledger, before))
        if now == SILENT != then:
            core.stopped.setdefault(name, SILENT)
