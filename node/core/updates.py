"""Updates in flight: from a signed header to its bytes, its acknowledgements and its update record.

An author signs a header. Hosts pull its bytes, check them, store them, and acknowledge. With acknowledgements from a
quorum of the component's active hosts the author writes one `Update` record.
"""

from collections.abc import Iterable

from ...consensus.ledger import NOT_YET, Ledger
from ...consensus.rounds import is_stale, next_round
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol.blocks import quorum
from ...protocol.records import Ack, Record, Update, ack_message, body_of, verify_ack
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_gossip
from ...protocol.update import UpdateHeader, check_header
from . import candidates, folds, spending
from . import events as ev
from .in_flight import InFlightUpdate, update_key
from .messages import Acked, wrap_ack
from .pool import readable_body
from .state import NodeState
from .timers import PostDue, PullDue

RETRY_MS = 2000
MAX_ACKS = 128  # acks in an update record: with more hosts only a quorum's, so that a fork of it fits into a proof
GATHER_MS = 150  # milliseconds that an update record waits for the others of the same training run


def restore_posted(state: NodeState) -> None:
    """Recall the acknowledgements that this node's update records carry already."""
    for component in state.ledger.components.values():
        for pending in component.pending:
            if pending.update in state.in_flight:
                state.in_flight[pending.update].posted = pending.acks
    for record in state.pool.chain(state.me, state.ledger.heads):
        body = readable_body(record)
        if isinstance(body, Update):
            update = state.in_flight.get(digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]))
            if update is not None:
                update.posted = frozenset(ack.host for ack in body.acks)


def own_update(state: NodeState, header: Signed[UpdateHeader]) -> InFlightUpdate:
    """Note an own update, whose bytes this node holds and acknowledged."""
    signature = state.identity.sign("ack", ack_message(state.federation, header.digest))
    return InFlightUpdate(header, {state.me: Ack(state.me, signature)}, stored=True)


def note_update(state: NodeState, record: Signed[Record]) -> None:
    """Take the header of an update record, which may be news here."""
    if record.value.kind != "update":
        return
    body = body_of(record.value)
    if not isinstance(body, Update):
        return
    if digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]) not in state.in_flight:
        on_header(state, open_gossip(UpdateHeader, body.header, state.federation))


def on_header(state: NodeState, header: Signed[UpdateHeader]) -> None:
    """Check the header of an update, and get its bytes if this node has to acknowledge it."""
    value = header.value
    if value.author not in state.ledger.members:
        if state.progress.behind(state.ledger.height):
            return
        raise RemoteProtocolError("not-a-member", "the update's author is not a member", value.author)
    if value.component not in state.specs and state.progress.behind(state.ledger.height):
        return  # of a component that opened since
    check_header(value, state.charter)
    component = state.ledger.components[value.component]
    key = update_key(value)
    if value.author == state.me and state.acked.get(key) != header.digest:
        spending.recall_reservations(state, value)
    spec = state.specs[value.component]
    latest = next_round(spec, component, state.ledger.withdrawn, value.author)
    if value.round > latest + 1 or is_void(state, value, header.digest):
        return  # too stale to count, or this node is behind: anti-entropy brings it again
    if value.author == state.me:
        # A node's own updates come from its own disk only; but one that the disk lost must not be made again (G8).
        state.acked.setdefault(key, header.digest)
    if header.digest in state.counted or value.author == state.me:
        return
    if state.acked.get(key, header.digest) != header.digest:
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
    if len(state.in_flight.at(key)) >= 2:
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
    if _is_copied(state, header):
        raise RemoteProtocolError("copied-payload", f"{value.component} round {value.round}", value.author)
    spending.read_spend_statement(state, value)
    update = state.in_flight[header.digest] = InFlightUpdate(header)
    pull_all(state, (update,))


def _is_copied(state: NodeState, header: Signed[UpdateHeader]) -> bool:
    """Whether these bytes are known to be another update's: their prefix names the only update that they are for."""
    value = header.value
    if any(update.stored for update in state.in_flight.with_bytes(value.blob)):
        return True
    return state.ledger.components[value.component].counted.get(value.blob, header.digest) != header.digest


def _pull(state: NodeState, update: InFlightUpdate) -> None:
    """Get an update's bytes. Answers name bytes only, so equal bytes (copies) are pulled one at a time."""
    value = update.header.value
    if value.blob in state.pulls:
        return
    update.pulling = True
    state.pulls[value.blob] = update.header.digest
    sources = (value.author, *(host for host in update.acks if host not in (value.author, state.me)))
    state.emit(ev.Pull(value.blob, value.size, value, sources))


def on_ack(state: NodeState, ack: Acked) -> None:
    """Take a host's acknowledgement."""
    update = state.in_flight.get(ack.header)
    if ack.federation != state.federation:
        raise RemoteProtocolError("wrong-federation", "acknowledgement", ack.host)
    if update is None or ack.host in update.acks or ack.host not in state.ledger.members:
        return
    signed = Ack(ack.host, ack.signature)
    if not verify_ack(state.federation, ack.header, signed):
        raise RemoteProtocolError("false-ack", "an acknowledgement's signature does not match", ack.host)
    update.acks[ack.host] = signed


def on_blob(state: NodeState, event: ev.BlobStored | ev.BlobRefused) -> None:
    """Continue with the updates and folds that waited for these bytes."""
    update = state.in_flight.get(state.pulls.pop(event.blob, b""))
    refused = ""
    if update is not None:
        update.pulling = False
        if isinstance(event, ev.BlobStored):
            update.stored = True
            state.unacked[update.header.digest] = None
        elif event.reason not in ("unavailable", "blob-digest"):  # these two blame the source, not the author
            refused = update.refused = event.reason
    if isinstance(event, ev.BlobStored):
        if update is None:
            erase_unneeded(state, {event.blob})  # G7: withdrawn, expelled or outdated while it was on its way
        folds.resume(state, event.blob)
    elif not refused:
        state.emit(ev.SetTimer(PullDue(), RETRY_MS))
    if refused or isinstance(event, ev.BlobStored):
        pull_all(state, state.in_flight.with_bytes(event.blob))  # next: another header that names the same bytes
    if refused and update is not None:
        raise RemoteProtocolError(refused, update.header.value.component, update.header.value.author)


def pull_all(state: NodeState, waiting: Iterable[InFlightUpdate]) -> None:
    """Get the bytes of updates that this node has to acknowledge: only active hosts' acknowledgements count."""
    for update in waiting:
        component = state.ledger.components[update.header.value.component]
        if component.round and component.hosts and state.me not in component.hosts:
            continue
        if update.header.value.component in state.hosted and not (update.stored or update.pulling or update.refused):
            _pull(state, update)


def acknowledge(state: NodeState) -> None:
    """Acknowledge an update: bytes on disk, checks passed, trained from a state that this node knows."""
    for key in list(state.unacked):
        update = state.in_flight.get(key)
        if update is None or update.refused or state.me in update.acks:
            del state.unacked[key]
            continue
        value = update.header.value
        if value.component in state.halted:
            continue
        base = state.bases.get((value.component, value.round - 1, value.generation))
        if state.specs[value.component].is_statistic:
            base = value.base  # it starts from no state
        if base is None and (value.generation, value.round - 1) > folds.folded_to(state, value.component):
            continue  # this node has not folded that far yet
        if base is not None and base != value.base:
            update.refused = "base-mismatch"
            state.refuse(value.author, RemoteProtocolError("base-mismatch", value.component, value.author))
        elif state.acked.setdefault(update.key, update.header.digest) == update.header.digest:
            signature = state.identity.sign("ack", ack_message(state.federation, update.header.digest))
            update.acks[state.me] = Ack(state.me, signature)
            state.emit(ev.Persist(ev.PutHeader(update.header)))
            ack = wrap_ack(state.federation, update.header.digest, update.acks[state.me])
            state.emit(ev.Publish(ack, to=value.author))
        else:
            update.refused = "second-header"


def post(state: NodeState) -> None:
    """Write this node's update records once a quorum of the active hosts acknowledged.

    Those of one training run wait for each other briefly, so that they share a write and a message.
    """
    ready: list[tuple[InFlightUpdate, frozenset[bytes], int]] = []
    waiting = False
    for update in state.in_flight.of(state.me):
        value = update.header.value
        if state.me not in update.acks:
            continue
        component = state.ledger.components[value.component]
        if is_outdated(state, value.component, value.round, component.round):
            continue
        hosts = set(component.hosts)
        if component.round == 0:  # the first hosts are still gathering: count all that are known to offer
            hosts |= set(candidates.current(state).state.components[value.component].hosts)
        have = frozenset(update.acks) & hosts
        need = quorum(max(1, len(hosts)), state.ledger.fault_model)
        if len(update.posted & hosts) < need:
            waiting |= len(have) < need
            if len(have) >= need:
                ready.append((update, have, need))
    if ready and waiting and state.posting != "due":
        if state.posting != "armed":
            state.posting = "armed"
            state.emit(ev.SetTimer(PostDue(), GATHER_MS))
        return
    state.posting = ""
    for update, have, need in ready:
        # All of them, so that the rest is still a quorum when a host goes; of very many hosts, as many as fit a record.
        named = sorted(have) if len(have) <= MAX_ACKS else sorted(have)[:need]
        update.posted = frozenset(named)
        state.append(Update(update.header.wire, tuple(update.acks[host] for host in named)))


def drop(state: NodeState, before: Ledger | None = None) -> None:
    """Forget updates in flight that were counted or can never count, and erase bytes without a reference.

    After a restart, the PutHeader rows on disk still prevent second acks.
    """
    components = state.ledger.components
    counted = {
        entry.update
        for name, c in components.items()
        for round_ in (c.rounds if state.specs[name].is_statistic else c.rounds[-9:])
        for entry in round_.entries
    }
    state.counted = counted
    amended = before is None or before.charter is not state.charter
    gone: set[bytes] = set()
    for key, update in list(state.in_flight.items()):
        value = update.header.value
        if key in counted:
            del state.in_flight[key]
        elif is_void(state, value, key) or (amended and not is_allowed(state, value)):
            del state.in_flight[key]
            gone.add(value.blob)
    for name, c in before.components.items() if before is not None else ():
        still = {p.update for p in components[name].pending} | counted
        gone |= {p.blob for p in c.pending if p.update not in still}
    erase_unneeded(state, gone)


def needed(state: NodeState) -> set[bytes]:
    """Return the blobs with a reference; a crash between a certificate and its erasure may have left others."""
    keep = {update.header.value.blob for update in state.in_flight.values()}
    for c in state.ledger.components.values():
        keep |= c.counted.keys()
        keep |= {pending.blob for pending in c.pending}
        keep |= {blob for erasure in c.erasures for blob in erasure.blobs}
    return keep


def erase_unneeded(state: NodeState, blobs: set[bytes]) -> None:
    """Delete those of these blobs that no update in flight, no list and no waiting erasure refers to."""
    if blobs:
        blobs = {blob for blob in blobs if not state.in_flight.with_bytes(blob)}
    for c in state.ledger.components.values() if blobs else ():
        blobs = blobs - c.counted.keys()
        blobs -= {p.blob for p in c.pending}
        blobs -= {blob for erasure in c.erasures for blob in erasure.blobs}
    if blobs:
        state.emit(ev.Erase(tuple(sorted(blobs))))


def is_void(state: NodeState, value: UpdateHeader, name: bytes) -> bool:
    """Whether an update that no round counted can never count."""
    return (
        is_outdated(state, value.component, value.round, state.ledger.components[value.component].round)
        or value.author not in state.ledger.members
        or is_barred(state, value.component, value.author, value.round, name)
    )


def is_allowed(state: NodeState, value: UpdateHeader) -> bool:
    """Whether the charter in force allows an update that an older one allowed."""
    try:
        check_header(value, state.charter)
    except RemoteProtocolError:
        return False
    return True


def is_barred(state: NodeState, component: str, author: bytes, number: int, update: bytes = b"") -> bool:
    """Whether a withdrawal voids an update for this round that the ledger does not have yet."""
    return any(w.bars(component, author, NOT_YET, number, update) for w in state.ledger.withdrawn)


def is_outdated(state: NodeState, component: str, round_: int, closed: int) -> bool:
    """Whether an update for a round can no longer count after round `closed` was closed."""
    return is_stale(state.charter, state.specs[component], round_, closed)


def dropped_flag(update: bytes) -> str:
    """Return the name of the flag for an own update that was withdrawn before the ledger had it."""
    return f"dropped-{update.hex()}"
