"""Training is charged before it leaves, and keeps the charter's pace (G6)."""

from ....node.core import events as ev
from ....protocol.update import UpdateHeader
from ..cluster import Node
from ..promise import InvariantError
from .observed import Observed

CLOCK_GRAIN = 60  # ms: timers of a clock that runs fast are rounded


def charged(seen: Observed, node: Node, value: UpdateHeader) -> None:
    """G6: the training run behind an update is on disk, and its claim covers every training run that is."""
    if value.author != node.identity.public_key:
        return
    reservations = node.store.reservations
    part = [d for d in reservations if any((p.component, p.round) == (value.component, value.round) for p in d.parts)]
    if not part:
        raise InvariantError("G6", f"{value.component} round {value.round} left without a training run on disk")
    for claim in value.claims:
        claimed = sum(entry.count for entry in claim.events)
        spent = sum(d.steps for d in reservations if d.run <= part[-1].run and any(p.noise_multiplier for p in d.parts))
        if claimed < spent:
            raise InvariantError("G6", f"a claim of {claimed} steps where {spent} were taken")
        claims = seen.claims.setdefault((node.index, claim.modality, value.component), {})
        claims[value.round] = claimed
        if claimed < max(claims[round_] for round_ in claims if round_ <= value.round):
            raise InvariantError("G6", f"a claim of {claimed} steps after a larger one")


def paced(seen: Observed, node: Node, put: ev.PutBlock) -> None:
    """The charter's pace: a quorum less the liars waited for it, each by its own clock."""
    for name, number in ((close.component, close.round) for close in put.block.close):
        if (name, number) not in seen.closed:
            honest = seen.cluster.honest()
            waited = sum(rested(seen, peer, name, number, known=True) for peer in honest)
            liars = len(seen.cluster.nodes) - len(honest)
            if (seen.cluster.charter.rules.pace or number == 1) and waited < seen.needed(
                len(seen.cluster.nodes)
            ) - liars:
                raise InvariantError("pace", f"{name} closes round {number} when {waited} members allow it")
        seen.closed.setdefault((name, number), {}).setdefault(node.index, node.now)


def rested(seen: Observed, node: Node, name: str, number: int, *, known: bool = False) -> bool:
    """Whether the round before closed long enough ago for a node; `known`: False if it never saw that close."""
    spec = seen.cluster.charter.component(name)
    if number == 1:
        return node.now >= 1000 * seen.cluster.charter.rules.start - CLOCK_GRAIN
    since = seen.closed.get((name, number - 1), {}).get(node.index)
    if since is None or (spec is not None and spec.is_statistic and not known):
        return not known
    return node.now - since >= seen.cluster.charter.rules.pace - CLOCK_GRAIN
