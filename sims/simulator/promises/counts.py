"""What closed rounds count: signed, agreed, acknowledged, once, and added up (G4, G5)."""

from fractions import Fraction

import numpy as np

from ....consensus.components import rule_of
from ....consensus.ledger import ComponentLedger, Ledger
from ....consensus.membership import present
from ....consensus.trainers import trains
from ....crypto.errors import RemoteProtocolError
from ....node.core import events as ev
from ....protocol.blocks import NIL
from ....protocol.components import state_digest
from ....protocol.learning import AVERAGES
from ....protocol.records import verify_ack
from ....protocol.signing import open_gossip
from ....protocol.update import UpdateHeader, payload_values
from ..cluster import Node
from ..promise import InvariantError
from . import averages
from .amending import charter_at
from .observed import Observed, is_taken, update_in

MAX_COMPUTED = 256  # parameters: more are not added up again in plain integers


def looked_at(seen: Observed, node: Node, put: ev.PutBlock) -> None:
    """Agreed feeds have no gaps and no branches, and no member gets more into a height than the charter allows."""
    if put.block.height != seen.agreed + 1:
        return
    seen.agreed += 1
    count: dict[bytes, int] = {}
    federation = seen.cluster.federation
    rules = (node.core.charter if node.core is not None else seen.cluster.charter).rules
    for record in (node.store.records[key] for key in put.records):
        value = record.value
        count[value.author] = count.get(value.author, 0) + 1
        if (value.seq - 1, value.prev) != seen.feeds.get(value.author, (0, NIL)):
            raise InvariantError("G4", f"agreed record {value.seq} does not follow its feed")
        seen.feeds[value.author] = (value.seq, record.digest)
        body = update_in(value)
        if body is None:
            continue
        try:
            header = open_gossip(UpdateHeader, body.header, federation)
        except RemoteProtocolError:
            continue  # inert
        if header.value.author == value.author:
            seen.updates[header.digest] = header.value
            hosts = {ack.host for ack in body.acks if verify_ack(federation, header.digest, ack)}
            seen.agreed_acks.setdefault(header.digest, set()).update(hosts)
    if max(count.values(), default=0) > rules.records_per_height:
        raise InvariantError("G9", f"{max(count.values())} records of one member at height {put.block.height}")


def traced(seen: Observed, before: Ledger, now: Ledger) -> None:
    """G4, G5: what newly closed rounds count is signed, agreed, acknowledged, fresh enough, and counts once."""
    for name, component in now.components.items():
        spec = now.charter.component(name)
        is_statistic = spec is not None and spec.is_statistic
        if is_statistic:
            once_a_member(name, now)
        for round_ in component.rounds[seen.rounds.get(name, 0) :]:
            hosts = hosts_at_close(before, now, name) - set(now.expelled)
            seen.rounds[name] = round_.number
            where = f"{name} round {round_.number}"
            charter = charter_at(seen, now, round_.height)
            averaged = name in charter.specs and charter.rule(name) in AVERAGES
            stale = charter.rules.max_staleness if averaged else 0
            authors = [entry.author for entry in round_.entries]
            if authors != sorted(set(authors)):
                raise InvariantError("G4", f"{where} counts an author twice, or out of order")
            for entry in round_.entries:
                header = seen.updates.get(entry.update)
                if header is None or (header.author, header.component, header.blob) != (
                    entry.author,
                    name,
                    entry.blob,
                ):
                    raise InvariantError("G4", f"{where} counts an unsigned update")
                behind = 0 if is_statistic else round_.number - header.round
                if entry.staleness != behind or not 0 <= entry.staleness <= stale:
                    raise InvariantError("G5", f"{where} counts an update of round {header.round}")
                if seen.counted.setdefault(entry.update, round_.number) != round_.number:
                    raise InvariantError("G4", f"{where} counts an update of round {header.round} again")
                held = seen.agreed_acks[entry.update] & hosts
                if before.height + 1 == now.height and len(held) < seen.needed(max(1, len(hosts))):
                    raise InvariantError("G4", f"{where} counts an update with {len(held)} acknowledgements")


def hosts_at_close(before: Ledger, now: Ledger, name: str) -> set[bytes]:
    """Return the hosts whose acknowledgements count in a block that closed a round: frozen at the close before.

    Those that offer it gather at any time before the first close, for a statistic, and while too few train.
    """
    c, spec = before.components.get(name) or ComponentLedger(name), before.charter.component(name)
    if spec is None:
        return set(now.components[name].hosts)
    train = sum(1 for host in c.hosts if trains(now.offers, host, name))
    if c.round == 0 or spec.is_statistic or train < spec.min_updates:
        return set(now.components[name].hosts)
    return set(c.hosts)


def once_a_member(name: str, now: Ledger) -> None:
    """G4: no statistic counts a member twice, under whatever key."""
    authors = [entry.author for round_ in now.components[name].rounds for entry in round_.entries]
    people = [present(now.roll, author) for author in authors]
    if len(set(people)) < len(people):
        raise InvariantError("G4", f"{name} counts a member twice")


def kept(seen: Observed, node: Node, before: Ledger) -> None:
    """Counted updates have acks of a host quorum, and honest ackers hold the bytes."""
    core = node.core
    assert core is not None
    for name, component in core.ledger.components.items():
        for round_ in component.rounds[before.components[name].round if name in before.components else 0 :]:
            hosts = hosts_at_close(before, core.ledger, name)
            for entry in round_.entries:
                held = [n for n in seen.cluster.honest() if entry.blob in n.store.blobs]
                bound = [n for n in seen.cluster.honest() if n.index not in seen.lost]
                # Liars, lost disks, and nodes that are further on and may have erased it again.
                on = [n for n in bound if n.core is not None and n.core.ledger.height > core.ledger.height]
                others = len(hosts - {n.identity.public_key for n in (*(n for n in bound if n not in on), *held)})
                if len(held) + others < seen.needed(max(1, len(hosts))):
                    raise InvariantError("G4", f"{name} round {round_.number}: {len(held)} hosts hold an update")


def added_up(node: Node) -> None:
    """G4: the states are what design.md section 8 says of the counted updates, computed again in plain integers."""
    core = node.core
    assert core is not None
    for name in core.held:
        component, spec = core.ledger.components[name], core.specs[name]
        if {rule_of(spec, round_) for round_ in component.rounds} - set(AVERAGES) or spec.dimension > MAX_COMPUTED:
            continue
        state = [0] * spec.dimension
        for round_ in component.rounds:
            weighed = averages.mean if rule_of(spec, round_) == "mean" else averages.random_effects
            rows = [payload_values(node.store.blobs[entry.blob], spec).tolist() for entry in round_.entries]
            for start, stop in averages.tensors(spec) if rows else []:
                part = [row[start:stop] for row in rows]
                weights = weighed(part, [(entry.variance, entry.staleness) for entry in round_.entries])
                for index in range(stop - start):
                    total = 256 * sum(a * int(row[index]) for a, row in zip(weights, part, strict=True))
                    state[start + index] += round(Fraction(total, sum(weights)))  # half to even
        if core.folded[name][3] != state_digest(name, np.array(state, dtype=np.int32)):
            raise InvariantError("G4", f"{name} is not what its counted updates add up to")


def extended(before: Ledger, now: Ledger) -> None:
    """G2, G4: agreed heads only extend; frozen lists never gain or reorder, and lose only what was withdrawn."""
    for author, (seq, head) in before.heads.items():
        again = now.heads.get(author, (0, NIL))
        if again[0] < seq or (again[0] == seq and again[1] != head):
            raise InvariantError("G2", f"an agreed head went from seq {seq} to {again[0]}")
    for name, component in before.components.items():
        after = now.components[name].rounds
        for old, new in zip(component.rounds, after, strict=False):
            if old.entries == new.entries:
                continue
            kept = [entry for entry in old.entries if entry in new.entries]
            if list(new.entries) != kept:
                raise InvariantError("G4", f"the frozen list of {name} round {old.number} gained or reordered")
            if any(
                not any(is_taken(withdrawal, name, old.number, entry) for withdrawal in now.withdrawn)
                for entry in old.entries
                if entry not in kept
            ):
                raise InvariantError(
                    "G4", f"the frozen list of {name} round {old.number} lost an update that was not withdrawn"
                )
