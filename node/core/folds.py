"""Folding closed rounds into states, attesting the states, and comparing them with the certified ones."""

from ...protocol.records import Attest
from . import catchup
from . import events as ev
from .pool import readable_body
from .state import NodeState
from .timers import FoldDue

RETRY_MS = 2000


def resume(state: NodeState, blob: bytes) -> None:
    """Resume a fold that lacked bytes when all of them are here."""
    for name, blobs in list(state.lacking.items()):
        blobs.discard(blob)
        if not blobs:
            del state.lacking[name]
            state.folding.discard(name)


def folded_to(state: NodeState, name: str) -> tuple[int, int]:
    """Return the (generation, round) that this node has folded a component up to."""
    round_, generation, _, _ = state.folded.get(name, (0, 0, b"", b""))
    return (generation, round_)


def fold(state: NodeState) -> None:
    """Request the folds of rounds that this node has not folded yet."""
    if state.progress.goes_on(state.now):
        return  # no node keeps the state of this height, and its bytes would be fetched for nothing
    for name in state.held:
        component = state.ledger.components[name]
        if not state.is_current(name) and name not in state.folding and name not in state.halted:
            state.folding.add(name)
            state.emit(ev.Fold(name, component.round, component.generation, component.rounds))


def on_folded(state: NodeState, event: ev.Folded) -> None:
    """Note a folded state's digest."""
    state.folding.discard(event.component)
    state.folded[event.component] = (event.round, event.generation, event.chain, event.digest)
    state.bases[event.component, event.round, event.generation] = event.digest
    state.movement[event.component] = event.movement
    for key in [k for k in state.bases if k[0] == event.component and k[1] and k[1] < event.round - 16]:
        del state.bases[key]
    if event.saturated:
        state.notice("saturated", "warning", component=event.component, round=event.round, count=event.saturated)


def on_blobs_missing(state: NodeState, event: ev.FoldMissing) -> None:
    """Fetch agreed bytes that are missing here by digest from any neighbour, then fold again."""
    component = state.ledger.components[event.component]
    if catchup.take_state(state, component, event.blobs):
        return
    entries = {e.blob: e for round_ in component.rounds for e in round_.entries}
    state.lacking[event.component] = set(event.blobs)
    for blob in event.blobs:
        if blob in entries and blob not in state.pulls:
            state.pulls[blob] = b""
            others = tuple(host for host in component.hosts if host != entries[blob].author and host != state.me)
            state.emit(ev.Pull(blob, entries[blob].size, None, (entries[blob].author, *others)))
    state.emit(ev.SetTimer(FoldDue(event.component), RETRY_MS))


def attest(state: NodeState) -> None:
    """Sign the states that this host holds, all components of a round together."""
    if (state.folding & set(state.hosted)) - state.lacking.keys():
        return
    for name in state.hosted:
        component = state.ledger.components[name]
        if not state.is_current(name) or not component.rounds or name in state.halted:
            continue
        key = (component.round, component.generation, state.me)
        mine = any(item[:3] == key for item in component.attests)
        if state.me in component.hosts and not mine and (name, *key[:2]) not in _attested(state):
            state.append(Attest(name, component.round, component.generation, state.folded[name][3]))


def compare(state: NodeState) -> None:
    """Recompute a state from the bytes if it differs from the certified one; halt the component if it still differs.

    Only an operator may take over another host's state.
    """
    for name in state.held:
        component = state.ledger.components[name]
        certified = component.certified
        if certified is None or certified.generation != component.generation or name in state.halted:
            continue
        mine = state.bases.get((name, certified.round, certified.generation))
        if mine is None:
            continue
        if mine == certified.digest:
            if name in state.doubted and name not in state.folding:
                state.doubted.discard(name)
                state.notice("state-mended", "warning", component=name, round=certified.round)
        elif name not in state.doubted:
            state.notice("state-differs", "error", component=name, round=certified.round, mine=mine.hex())
            state.doubted.add(name)
            state.folding.add(name)
            state.folded.pop(name, None)
            for key in [key for key in state.bases if key[0] == name and key[1]]:
                del state.bases[key]
            rounds = tuple(round_ for round_ in component.rounds if round_.number <= certified.round)
            state.emit(ev.Fold(name, certified.round, certified.generation, rounds, fresh=True))
        elif name not in state.folding:
            state.halted.add(name)
            state.notice("component-halted", "error", component=name, round=certified.round, mine=mine.hex())


def _attested(state: NodeState) -> set[tuple[str, int, int]]:
    states = set()
    for record in state.pool.chain(state.me, state.ledger.heads):
        if record.value.kind == "attest":
            body = readable_body(record)
            if isinstance(body, Attest):
                states.add((body.component, body.round, body.generation))
    return states
