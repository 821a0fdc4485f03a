"""Trainers: the hosts that declare in the ledger that they train. Rounds wait for them; all hosts make certificates.

A host whose offer gives no reason to be idle trains the component. A host's update counts, whatever its offer says.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ..crypto.errors import RemoteProtocolError
from ..protocol.records import IDLE, SILENT, Idle, Offer
from .ledger import Ledger


def checked(body: Offer, components: Collection[str], author: bytes) -> Offer:
    """Return a member's offer in the ledger's form: known components only, sorted, one reason for each.

    Raises RemoteProtocolError("unknown-reason") for a reason that members may not give.
    """
    for entry in body.idle:
        if entry.why not in IDLE or entry.why == SILENT:
            raise RemoteProtocolError("unknown-reason", entry.why, author)
    hosted = tuple(sorted({name for name in body.components if name in components}))
    reasons = {entry.component: entry.why for entry in body.idle if entry.component in hosted}
    return Offer(hosted, body.addresses, tuple(Idle(name, why) for name, why in sorted(reasons.items())))


def idle(offers: Mapping[bytes, Offer], host: bytes, component: str) -> str:
    """Return the reason why a host does not train a component; "" if it trains, or offers nothing at all."""
    offer = offers.get(host)
    return "" if offer is None else next((entry.why for entry in offer.idle if entry.component == component), "")


def trains(offers: Mapping[bytes, Offer], host: bytes, component: str) -> bool:
    """Whether a host declares that it trains a component."""
    offer = offers.get(host)
    return offer is not None and component in offer.components and not idle(offers, host, component)


def trainers(offers: Mapping[bytes, Offer], hosts: Iterable[bytes], component: str) -> frozenset[bytes]:
    """Return the hosts that declare that they train a component."""
    return frozenset(host for host in hosts if trains(offers, host, component))


def waited_for(ledger: Ledger, host: bytes, component: str, round_: int) -> bool:
    """Whether a round waits for a trainer: at first every round does.

    After its m-th suspension since an update of it counted, only every 2^(m-1)-th round does: a host that declares
    training again and again, and sends nothing, costs fewer and fewer deadlines.
    """
    times = suspensions(ledger, host, component)
    return times < 2 or round_ % (1 << min(times - 1, 62)) == 0


def suspensions(ledger: Ledger, host: bytes, component: str) -> int:
    """Return how often a host was suspended as a trainer since a round of a component counted its update."""
    heights = [
        outcome.height
        for outcome in ledger.roll.outcomes
        if outcome.motion.action == "suspend-training" and outcome.motion.subject == host and outcome.result == "passed"
    ]
    if not heights:
        return 0
    for round_ in reversed(ledger.components[component].rounds):
        if round_.height <= heights[0]:
            break
        if any(entry.author == host for entry in round_.entries):
            return sum(height > round_.height for height in heights)
    return len(heights)


def silenced(offer: Offer) -> Offer:
    """Return the offer of a host that is suspended as a trainer: idle in all components, with the reasons it gave."""
    reasons = {entry.component: entry.why for entry in offer.idle}
    return replace(offer, idle=tuple(Idle(name, reasons.get(name, SILENT)) for name in offer.components))
