"""Catching up: how far behind this node is, and certified states in place of replayed history.

Blocks and records come by anti-entropy in bounded answers; each block is durable when it is taken, so an interrupted
catch-up goes on where it stopped. A component's state is copied from a neighbour if a quorum of enough hosts certified
it (G1): a joiner need not replay every update since the start. The state is computed from the bytes if only a few
rounds are missing, if this node's state differed from the certified one, or if the component has too few hosts.
"""

from collections.abc import Collection

from ...consensus.ledger import ComponentLedger
from ...protocol import schema
from ...protocol.blocks import Head
from . import events as ev
from .messages import Kind, SyncRequest, message, tag, wrap, wrap_ack
from .progress import WORTH_REPORTING
from .state import NodeState

REPLAYED = 3  # up to so many missing rounds are fetched and folded
REPORT_EVERY = 5000  # milliseconds between two progress notices


def tell(state: NodeState, peer: bytes, before: int) -> None:
    """Report the catch-up's progress every few seconds while it moves from height `before`, and its end."""
    progress, height = state.progress, state.ledger.height
    left = progress.heights.get(peer, 0) - height
    if left > 0 and height > before and (progress.reported >= 0 or left >= WORTH_REPORTING):
        progress.source = peer
        if progress.reported < 0 or state.now - progress.reported >= REPORT_EVERY:
            progress.reported = state.now
            state.notice("catching-up", height=height, of=height + left, source=peer)
    elif left <= 0 and (progress.reported >= 0 or height - before >= WORTH_REPORTING):
        progress.reported, progress.source = -1, b""
        state.notice("caught-up", height=height)


def take_state(state: NodeState, component: ComponentLedger, missing: Collection[bytes]) -> bool:
    """Ask for the certified state in place of the missing bytes before it; False if those are to be fetched."""
    name, certified = component.name, component.certified
    if certified is None or certified.generation != component.generation or not state.ledger.certifiable(component):
        return False
    if name in state.doubted or name in state.halted:
        return False  # it has to be computed again from the bytes
    lacking = [r for r in component.rounds if any(entry.blob in missing for entry in r.entries)]
    before = [round_ for round_ in lacking if round_.number <= certified.round]
    chain = next((round_.chain for round_ in component.rounds if round_.number == certified.round), b"")
    if len(before) <= REPLAYED or state.progress.tried.get(name) == chain:
        return False
    state.progress.fetching[name] = chain
    sources = tuple(host for host in component.hosts if host != state.me)
    state.notice("taking-state", component=name, round=certified.round, instead_of=len(before))
    state.emit(ev.FetchState(name, chain, certified.digest, sources))
    return True


def on_state(state: NodeState, event: ev.StateStored | ev.StateMissing) -> None:
    """Fold again: from the state that came, or else from bytes, until a newer state is certified."""
    if state.progress.fetching.get(event.component) != event.chain:
        return
    del state.progress.fetching[event.component]
    if isinstance(event, ev.StateMissing):
        state.progress.tried[event.component] = event.chain
    state.folding.discard(event.component)


def in_flight_messages(state: NodeState) -> list[bytes]:
    """Return the gossip messages that a neighbour may lack."""
    messages: list[bytes] = []
    if state.agreement is not None:
        messages += [wrap(item) for item in state.agreement.messages()]
    for votes in state.later.values():
        messages += [wrap(item) for item in votes]
    for author in state.proofs:  # both branches: a proposal may contain either
        for same in state.pool.by_seq.get(author, {}).values():
            messages += [message(Kind.RECORD, state.pool.records[key].wire) for key in same]
    for update in state.in_flight.values():
        messages.append(message(Kind.HEADER, update.header.wire))
        for ack in update.acks.values():
            messages.append(wrap_ack(state.federation, update.header.digest, ack))
    return messages


def sync_request(state: NodeState) -> bytes:
    """Return a sync request: it lists this node's heads and messages in flight."""
    heads = state.pool.heads(state.ledger.heads)
    members = frozenset(state.ledger.members)  # other feeds are frozen: their agreed records come with the blocks
    heads_known = tuple(Head(author, seq, head) for author, (seq, head) in sorted(heads.items()) if author in members)
    have = b"".join(tag(item) for item in in_flight_messages(state)[:16_384])
    return schema.dump(SyncRequest(state.federation, state.ledger.height, heads_known, have))


def sync(state: NodeState, peer: bytes) -> None:
    """Send a sync request to a neighbour, unless its last answer is still being taken."""
    if peer in state.answers:
        return  # its last answer is not taken yet
    state.emit(ev.Sync(peer, sync_request(state)))


def ask_somebody(state: NodeState) -> None:
    """Send a sync request to some neighbour, at most every 100 ms."""
    if state.neighbours and state.now - state.asked_at >= 100:
        state.asked_at = state.now
        ordered = sorted(state.neighbours)
        sync(state, ordered[state.now % len(ordered)])
