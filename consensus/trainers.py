"""Who trains a component, by what its hosts say in the ledger: rounds wait for trainers, certificates are the hosts'.

A host that says nothing of a component trains it. An update that comes from a host counts, whatever the host said.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ..crypto.errors import RemoteProtocolError
from ..protocol.records import IDLE, SILENT, Idle, Offer
from .ledger import Ledger


def checked(body: Offer, components: Collection[str], author: bytes) -> Offer:
    """Return a member's offer as the ledger keeps it: known components only, sorted, one reason for each.

    Raises RemoteProtocolError("unknown-reason") for a reason that no member gives.
    """
    for entry in body.idle:
        if entry.why not in IDLE or entry.why == SILENT:
            raise RemoteProtocolError("unknown-reason", entry.why, author)
    known = tuple(sorted({name for name in body.components if name in components}))
    reasons = {entry.component: entry.why for entry in body.idle if entry.component in known}
    return Offer(known, body.addresses, tuple(Idle(name, why) for name, why in sorted(reasons.items())))


def idle(offers: Mapping[bytes, Offer], host: bytes, component: str) -> str:
    """Return why a host does not train a component; "" if it says that it does, or offers nothing at all."""
    offer = offers.get(host)
    return "" if offer is None else next((entry.why for entry in offer.idle if entry.component == component), "")


def trains(offers: Mapping[bytes, Offer], host: bytes, component: str) -> bool:
    """Whether a host says that it trains a component."""
    offer = offers.get(host)
    return offer is not None and component in offer.components and not idle(offers, host, component)


def trainers(offers: Mapping[bytes, Offer], hosts: Iterable[bytes], component: str) -> frozenset[bytes]:
    """Return those of the hosts that say that they train a component."""
    return frozenset(host for host in hosts if trains(offers, host, component))


def waited_for(ledger: Ledger, host: bytes, component: str, round_: int) -> bool:
    """Whether a trainer is waited for in a round: in every one, at first.

    After the m-th time that it was suspended since an update of it counted, in every 2^(m-1)-th only: whoever says
    again and again that it trains, and sends nothing, costs ever fewer deadlines.
    """
    times = suspensions(ledger, host, component)
    return times < 2 or round_ % (1 << min(times - 1, 62)) == 0


def suspensions(ledger: Ledger, host: bytes, component: str) -> int:
    """Return how often a host was suspended as a trainer since a round of a component counted it."""
    heights = [
        outcome.height
        for outcome in ledger.roll.outcomes
        if outcome.motion.action == "suspend-training" and outcome.motion.subject == host and outcome.result == "passed"
    ]
    if not heights:
        return 0
    for each in reversed(ledger.components[component].rounds):
        if each.height <= heights[0]:
            break
        if any(entry.author == host for entry in each.entries):
            return sum(height > each.height for height in heights)
    return len(heights)


def silenced(offer: Offer) -> Offer:
    """Return the offer of a host that is suspended as a trainer: idle in all, each with the reason that it gave."""
    reasons = {entry.component: entry.why for entry in offer.idle}
    return replace(offer, idle=tuple(Idle(name, reasons.get(name, SILENT)) for name in offer.components))
