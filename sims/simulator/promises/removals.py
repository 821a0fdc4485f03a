"""What is withdrawn is gone, and not before the state without it is certified (G7)."""

from dataclasses import replace

from ....consensus.components import Round, origin, replay
from ....consensus.ledger import Ledger
from ....protocol.components import state_digest
from ....protocol.signing import open_gossip
from ....protocol.update import UpdateHeader, payload_values
from ..cluster import Node
from ..promise import InvariantError
from .observed import Observed, is_taken, update_in


def forgotten(now: Ledger) -> None:
    """G7: no frozen list still has what a withdrawal in force covers, but beyond the horizon."""
    for withdrawal in now.withdrawn:
        for name, last in withdrawal.rounds:
            since = dict(withdrawal.since).get(name)
            for round_ in now.components[name].rounds[since - 1 : last] if since is not None else ():
                if any(is_taken(withdrawal, name, round_.number, entry) for entry in round_.entries):
                    raise InvariantError("G7", f"{name} round {round_.number} still counts a withdrawn update")
            # Their rounds are numbered otherwise.
            sums = {spec.name for spec in now.charter.components if spec.is_statistic}
            for round_ in now.components[name].rounds[last:] if since is not None and name not in sums else ():
                # What was on its way then had learned from what was withdrawn, or was that.
                flown = [entry for entry in round_.entries if round_.number - entry.staleness <= last + 1]
                if any(is_taken(withdrawal, name, round_.number - e.staleness, replace(e, seq=0)) for e in flown):
                    raise InvariantError("G7", f"{name} round {round_.number} counts an update that was in flight")
        if withdrawal.mode == "rewind" and not withdrawal.motion:
            raise InvariantError("G7", "a rewind that no motion decided")


def awaited(before: Ledger, now: Ledger) -> None:
    """G7: withdrawn bytes may go only after a state of the generation without them is certified."""
    for name, component in now.components.items():
        older = before.components[name].erasures if name in before.components else ()
        gone = [erasure.generation for erasure in older if erasure not in component.erasures]
        if gone and (component.certified is None or component.certified.generation < max(gone)):
            raise InvariantError("G7", f"withdrawn bytes of {name} may go before generation {max(gone)} is certified")


def refolded(node: Node) -> None:
    """G7, G8: a node holds the bytes of all counted updates, and its states are the fold of what is in force."""
    core = node.core
    assert core is not None
    for name in core.held:
        component, spec = core.ledger.components[name], core.specs[name]
        rounds = [Round(r.number, 0, r.entries, r.faults, b"", r.rule) for r in component.rounds]
        values = {}
        for entry in (entry for round_ in rounds for entry in round_.entries):
            if entry.blob not in node.store.blobs:
                raise InvariantError("G8", f"node {node.index} lost the bytes of a counted update of {name}")
            values[entry.blob] = payload_values(node.store.blobs[entry.blob], spec)
        state, _ = replay(origin(spec), spec, rounds, lambda entry, values=values: values[entry.blob])  # type: ignore[misc]
        done = core.folded.get(name)
        if done is None or done[3] != state_digest(name, state):
            raise InvariantError("G7", f"{name} at node {node.index} is not the fold of what is in force")


def final(seen: Observed, node: Node) -> None:
    """G7: what was withdrawn is gone from every disk but its owner's once the new generation is certified."""
    core = node.core
    assert core is not None
    if any(component.erasures for component in core.ledger.components.values()):
        return
    counted = {e.blob for c in core.ledger.components.values() for r in c.rounds for e in r.entries}
    counted |= {p.blob for c in core.ledger.components.values() for p in c.pending}
    for record in node.store.records.values():
        body = update_in(record.value)
        if body is None:
            continue
        signed = open_gossip(UpdateHeader, body.header, seen.cluster.federation, trusted=True)
        header, seq = signed.value, record.value.seq
        where = (header.component, header.author, seq, header.round, signed.digest)
        # What stale updates left is not withdrawn; a round after a rewind may hold what others have in flight.
        if header.blob in counted or not any(w.bars(*where) for w in core.ledger.withdrawn):
            continue
        if header.blob in node.store.blobs and header.author != node.identity.public_key:
            raise InvariantError("G7", f"node {node.index} still holds withdrawn bytes of {header.component}")
