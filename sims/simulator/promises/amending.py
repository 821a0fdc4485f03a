"""The charter in force is the founding one and what a quorum passed, and only for rounds after that (G10)."""

from ....consensus.ledger import Ledger
from ....crypto.errors import RemoteProtocolError
from ....protocol.amendment import amended, load
from ....protocol.charter import Charter
from ....protocol.update import UpdateHeader
from ..cluster import Node
from ..promise import InvariantError
from .observed import Observed

KEPT = ("name", "architecture", "tensors", "step_log2", "width", "rule", "clip_norm", "noise_multiplier", "base")


def charter_at(seen: Observed, now: Ledger, height: int) -> Charter:
    """Return the charter in force for the block at `height`, from the founding one and the outcomes of motions alone.

    Of two amendments in one block the first one that passed counts: the other has the same number.
    """
    charter = seen.cluster.charter
    for outcome in now.roll.outcomes:
        if outcome.motion.action != "amend" or outcome.result != "passed" or outcome.height >= height:
            continue
        number = load(outcome.motion.statement, seen.cluster.federation).number
        if number != charter.number + 1:
            raise InvariantError("G10", f"amendment {number} passed after {charter.number}")
        key = (charter.digest, outcome.motion.statement)
        if key not in seen.charters:
            try:
                seen.charters[key] = amended(charter, outcome.motion.statement)
            except RemoteProtocolError as error:
                raise InvariantError("G10", f"an amendment passed that nobody may carry out: {error}") from error
        charter = seen.charters[key]
    return charter


def in_force(seen: Observed, now: Ledger) -> None:
    """G10: everybody has the charter that follows from the founding one; what exists keeps its shape."""
    expected = charter_at(seen, now, now.height + 1)
    if now.charter.digest != expected.digest:
        raise InvariantError("G10", f"at height {now.height} charter {now.charter.number} is not what was voted")
    if now.charter.federation != seen.cluster.federation:
        raise InvariantError("G10", "an amendment changed the federation's id")
    for name, old in seen.cluster.charter.specs.items():
        new = now.charter.component(name)
        if new is None or any(getattr(old, part) != getattr(new, part) for part in KEPT):
            raise InvariantError("G10", f"an amendment changed what {name} is")
    if set(now.components) != set(now.charter.specs):
        raise InvariantError("G10", f"at height {now.height} the ledger's components are not the charter's")


def closed_by(seen: Observed, before: Ledger, now: Ledger) -> None:
    """G10: a round closes by the charter of its block, and by no later one."""
    for name, component in now.components.items():
        old = before.components.get(name)
        for round_ in component.rounds[old.round if old is not None else 0 :]:
            charter, where = charter_at(seen, now, round_.height), f"{name} round {round_.number}"
            spec = charter.component(name)
            if not round_.entries:
                continue  # it counts nothing (any more)
            if spec is None or name in charter.retired:
                raise InvariantError("G10", f"{where} closes, and by the charter of its height there is none")
            if len(round_.entries) < spec.min_updates and not now.withdrawn:
                raise InvariantError("G10", f"{where} closes with {len(round_.entries)} of {spec.min_updates} updates")
            if (round_.rule or spec.rule) != charter.rule(name):
                raise InvariantError("G10", f"{where} has the rule of another charter")
            for header in (seen.updates.get(entry.update) for entry in round_.entries):
                if header is not None and header.steps > charter.learning.steps:
                    raise InvariantError("G10", f"{where} counts an update of {header.steps} steps")


def own_policy(node: Node, header: UpdateHeader) -> None:
    """G6: no vote makes a node release what its own policy rules out."""
    assert node.core is not None
    charter = node.core.charter
    for policy in node.options.plan.policies:
        for entry in header.engaged:
            reached = policy.modality in charter.learning.upstream(entry.component)
            if policy.policy == "dp" and reached and not entry.noise_multiplier:
                raise InvariantError("G6", f"node {node.index} trains {entry.component} without the noise it asks for")


def true_steps(node: Node, header: UpdateHeader) -> None:
    """G6: an update says how it was trained, not how the charter would have it trained by now."""
    paid = {(part.component, part.round): put.steps for put in node.store.reservations for part in put.parts}
    if paid.get((header.component, header.round), header.steps) != header.steps:
        raise InvariantError("G6", f"node {node.index} declares {header.steps} steps, and paid for others")


def held(node: Node) -> None:
    """At rest every node holds what opened, but what it has no data for, or what its own policy rules out."""
    core = node.core
    assert core is not None
    lacks = core.ledger.opened - set(core.held) - node.lacks - set(core.refused_here)
    if lacks:
        raise InvariantError("G10", f"node {node.index} does not take part in {', '.join(sorted(lacks))}")
    said = {str(notice.fields["component"]) for notice in node.notices if notice.event == "component-refused"}
    if not set(core.refused_here) <= said:
        raise InvariantError("G10", f"node {node.index} does not say that it takes no part")
