"""Training is charged before it leaves, is not for nothing, and keeps the charter's pace (G6)."""

from collections.abc import Iterable

from ....crypto.errors import RemoteProtocolError
from ....node.core import events as ev
from ....protocol.component_names import ComponentKind, parse_name
from ....protocol.records import Offer, Record, body_of
from ....protocol.signing import Signed, open_gossip
from ....protocol.update import UpdateHeader
from ..cluster import Node
from ..promise import InvariantError
from .observed import Observed, update_in

CLOCK_GRAIN = 60  # ms: timers of a clock that runs fast are rounded


def charged(seen: Observed, node: Node, value: UpdateHeader) -> None:
    """G6: the training run behind an update is on disk, and its claim covers every training run that is."""
    if value.author != node.identity.public_key:
        return
    reservations = node.store.reservations
    part = [d for d in reservations if any((p.component, p.round) == (value.component, value.round) for p in d.parts)]
    if not part:
        raise InvariantError("G6", f"{value.component} round {value.round} left without a training run on disk")
    if not any(noised.noise_multiplier for noised in part[-1].parts):
        return  # a run without any noise: it claims no ε
    for claim in value.claims:
        claimed = sum(entry.count for entry in claim.events)
        before = [d for d in reservations if d.run <= part[-1].run and any(p.noise_multiplier for p in d.parts)]
        spent = max(_steps_of(node, before, shard) for shard in _drawn_from(node, value))
        if claimed < spent:
            raise InvariantError("G6", f"a claim of {claimed} steps where {spent} were taken")
        claims = seen.claims.setdefault((node.index, claim.modality, f"{value.component} {value.shard}"), {})
        claims[value.round] = claimed
        if claimed < max(claims[round_] for round_ in claims if round_ <= value.round):
            raise InvariantError("G6", f"a claim of {claimed} steps after a larger one")


def _drawn_from(node: Node, value: UpdateHeader) -> Iterable[int]:
    """The shards whose students an update's training run could draw: of a statistic all of them."""
    return (
        range(node.cluster.charter.learning.shards)
        if parse_name(value.component).kind is ComponentKind.STATISTIC
        else (value.shard,)
    )


def _steps_of(node: Node, reservations: Iterable[ev.PutReservation], shard: int) -> int:
    """The steps of these runs in which a student of a shard may be: the runs take turns, statistics reach all."""
    kinds = {d.run: {parse_name(p.component).kind for p in d.parts} for d in reservations}
    return sum(
        d.steps
        for d in reservations
        if ComponentKind.STATISTIC in kinds[d.run] or d.run % node.cluster.charter.learning.shards == shard
    )


def accompanied(seen: Observed, node: Node, part: ev.Noised) -> None:
    """G6: no ε for nothing. Enough members, by their last words on this disk, can send an update for the round.

    Members are counted that are no host, and liars whatever they say: too many, never too few.
    """
    cluster, me = seen.cluster, node.identity.public_key
    charter = node.core.charter if node.core is not None else cluster.charter
    spec = charter.component(part.component)
    assert spec is not None
    if spec.is_statistic:
        return
    said = {record.value.author: record.value for record in _in_order(node) if record.value.kind == "offer"}
    able = {me, *(liar.identity.public_key for liar in cluster.nodes if cluster.lies(liar))}
    able |= {author for author, value in said.items() if _offers_training(value, part.component)}
    for record in node.store.records.values() if len(able) < spec.min_updates else ():
        body = update_in(record.value)
        if body is not None:
            header = open_gossip(UpdateHeader, body.header, cluster.federation, trusted=True).value
            stale = charter.rules.max_staleness
            if header.component == part.component and header.round + stale >= part.round:
                able.add(header.author)
    if len(able) < spec.min_updates:
        count = f"{len(able)} of {spec.min_updates}"
        raise InvariantError("G6", f"node {node.index} trains {part.component} round {part.round}, as {count} can")


def _in_order(node: Node) -> list[Signed[Record]]:
    return sorted(node.store.records.values(), key=lambda record: record.value.seq)


def _offers_training(value: Record, component: str) -> bool:
    try:
        body = body_of(value)
    except RemoteProtocolError:
        return False
    if not isinstance(body, Offer):
        return False
    return component in body.components and component not in {entry.component for entry in body.idle}


def paced(seen: Observed, node: Node, put: ev.PutBlock) -> None:
    """The charter's pace: a quorum less the liars waited for it, each by its own clock."""
    for name, number in ((close.component, close.round) for close in put.block.close):
        if (name, number) not in seen.closed:
            honest = seen.cluster.honest()
            waited = sum(rested(seen, peer, name, number, close_known=True) for peer in honest)
            liars = len(seen.cluster.nodes) - len(honest)
            if (seen.cluster.charter.rules.pace or number == 1) and waited < seen.needed(
                len(seen.cluster.nodes)
            ) - liars:
                raise InvariantError("pace", f"{name} closes round {number} when {waited} members allow it")
        seen.closed.setdefault((name, number), {}).setdefault(node.index, node.now)


def rested(seen: Observed, node: Node, name: str, number: int, *, close_known: bool = False) -> bool:
    """Whether the round before closed long enough ago for a node; `close_known`: False if it never saw that close."""
    charter = node.core.charter if node.core is not None else seen.cluster.charter
    spec = charter.component(name)
    if number == 1:
        return node.now >= 1000 * seen.cluster.charter.rules.start - CLOCK_GRAIN
    since = seen.closed.get((name, number - 1), {}).get(node.index)
    if since is None or (spec is not None and spec.is_statistic and not close_known):
        return not close_known
    return node.now - since >= charter.rules.pace - CLOCK_GRAIN
