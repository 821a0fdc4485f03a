"""Updates in flight: from a signed header to its bytes, its acknowledgements and its update record.

An author signs a header. Hosts pull its bytes, check them, store them, and acknowledge. With acknowledgements from a
quorum of the component's active hosts the author writes one `Update` record.
"""

from collections.abc import Iterable

from ...consensus.ledger import Ledger
from ...consensus.rounds import is_stale, next_round
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol.blocks import quorum
from ...protocol.records import Ack, Record, Update, ack_message, body_of, verify_ack
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_gossip
from ...protocol.update import UpdateHeader, check_header
from . import candidates, folds, spending
from . import events as ev
from .flights import Flight, slot
from .messages import Acked, wrap_ack
from .pool import readable_body
from .state import NodeState
from .timers import PostDue, PullDue

RETRY_MS = 2000
NOT_YET = 2**63 - 1  # the place in a feed of what is not in it
MAX_ACKS = 128  # in an update record: of more hosts only a quorum's, for a fork of it has to fit into a proof
GATHER_MS = 150  # how long one component waits for the others of the same draws


def restore_posted(state: NodeState) -> None:
    """Recall which acknowledgements my update records already carry."""
    for component in state.ledger.components.values():
        for pending in component.pending:
            if pending.update in state.flights:
                state.flights[pending.update].posted = pending.acks
    for record in state.pool.chain(state.me, state.ledger.heads):
        body = readable_body(record)
        if isinstance(body, Update):
            flight = state.flights.get(digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]))
            if flight is not None:
                flight.posted = frozenset(ack.host for ack in body.acks)


def own_flight(state: NodeState, header: Signed[UpdateHeader]) -> Flight:
    """A flight whose bytes this node holds and acknowledged."""
    signature = state.identity.sign("ack", ack_message(state.federation, header.digest))
    return Flight(header, {state.me: Ack(state.me, signature)}, stored=True)


def note_update(state: NodeState, record: Signed[Record]) -> None:
    """An update record's header may be news here."""
    if record.value.kind != "update":
        return
    body = body_of(record.value)
    if not isinstance(body, Update):
        return
    if digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]) not in state.flights:
        on_header(state, open_gossip(UpdateHeader, body.header, state.federation))


def on_header(state: NodeState, header: Signed[UpdateHeader]) -> None:
    """Take the header of somebody's update: check it, and get its bytes if this node is to acknowledge it."""
    value = header.value
    if value.author not in state.ledger.members:
        if state.progress.behind(state.ledger.height):
            return
        raise RemoteProtocolError("stranger", "the update's author is not a member", value.author)
    check_header(value, state.charter)
    component = state.ledger.components[value.component]
    place = slot(value)
    if value.author == state.me and state.acked.get(place) != header.digest:
        spending.recall_draws(state, value)
    spec = state.specs[value.component]
    latest = next_round(spec, component, state.ledger.withdrawn, value.author)
    if value.round > latest + 1 or is_void(state, value, header.digest):
        return  # too stale to count, or this node is behind: anti-entropy brings it again
    if value.author == state.me:
        # A node's own updates come from its own disk only, but one that its disk lost must not be made again (G8).
        state.acked.setdefault(place, header.digest)
    if header.digest in state.counted or value.author == state.me:
        return
    if state.acked.get(place, header.digest) != header.digest:
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
    if len(state.flights.at(place)) >= 2:
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
    if _is_copied(state, header):
        raise RemoteProtocolError("copied-payload", f"{value.component} round {value.round}", value.author)
    spending.read_receipt(state, value)
    flight = state.flights[header.digest] = Flight(header)
    pull_all(state, (flight,))


def _is_copied(state: NodeState, header: Signed[UpdateHeader]) -> bool:
    """Whether these bytes are known to be of another place: they begin with the one place that they are for."""
    value = header.value
    if any(flight.stored for flight in state.flights.with_bytes(value.blob)):
        return True
    return state.ledger.components[value.component].counted.get(value.blob, header.digest) != header.digest


def _pull(state: NodeState, flight: Flight) -> None:
    """Get an update's bytes. Answers name the bytes only, so one pull at a time for equal bytes (copies)."""
    value = flight.header.value
    if value.blob in state.pulls:
        return
    flight.pulling = True
    state.pulls[value.blob] = flight.header.digest
    sources = (value.author, *(host for host in flight.acks if host not in (value.author, state.me)))
    state.emit(ev.Pull(value.blob, value.size, value, sources))


def on_ack(state: NodeState, ack: Acked) -> None:
    """Take a host's acknowledgement."""
    flight = state.flights.get(ack.header)
    if ack.federation != state.federation:
        raise RemoteProtocolError("wrong-federation", "acknowledgement", ack.host)
    if flight is None or ack.host in flight.acks or ack.host not in state.ledger.members:
        return
    receipt = Ack(ack.host, ack.signature)
    if not verify_ack(state.federation, ack.header, receipt):
        raise RemoteProtocolError("false-receipt", "an acknowledgement's signature does not match", ack.host)
    flight.acks[ack.host] = receipt


def on_blob(state: NodeState, event: ev.BlobStored | ev.BlobRefused) -> None:
    """Go on with what waited for these bytes."""
    flight = state.flights.get(state.pulls.pop(event.blob, b""))
    refused = ""
    if flight is not None:
        flight.pulling = False
        if isinstance(event, ev.BlobStored):
            flight.stored = True
            state.unacked[flight.header.digest] = None
        elif event.reason not in ("unavailable", "blob-digest"):  # these two blame the source, not the author
            refused = flight.refused = event.reason
    if isinstance(event, ev.BlobStored):
        if flight is None:
            erase_unneeded(state, {event.blob})  # G7: withdrawn, expelled or outdated while it was on its way
        folds.resume(state, event.blob)
    elif not refused:
        state.emit(ev.SetTimer(PullDue(), RETRY_MS))
    if refused or isinstance(event, ev.BlobStored):
        pull_all(state, state.flights.with_bytes(event.blob))  # another header that names the same bytes: its turn
    if refused and flight is not None:
        raise RemoteProtocolError(refused, flight.header.value.component, flight.header.value.author)


def pull_all(state: NodeState, flights: Iterable[Flight]) -> None:
    """Get the bytes of updates that this node is asked to acknowledge: only active hosts' receipts count."""
    for flight in flights:
        component = state.ledger.components[flight.header.value.component]
        if component.round and component.hosts and state.me not in component.hosts:
            continue
        if flight.header.value.component in state.hosted and not (flight.stored or flight.pulling or flight.refused):
            _pull(state, flight)


def acknowledge(state: NodeState) -> None:
    """Sign what this host holds: bytes on disk, checks passed, trained from the state that this node knows."""
    for key in list(state.unacked):
        flight = state.flights.get(key)
        if flight is None or flight.refused or state.me in flight.acks:
            del state.unacked[key]
            continue
        value = flight.header.value
        if value.component in state.halted:
            continue
        base = state.bases.get((value.component, value.round - 1, value.generation))
        if state.specs[value.component].additive:
            base = value.base  # of no state
        if base is None and (value.generation, value.round - 1) > folds.folded_to(state, value.component):
            continue  # this node has not folded that far yet
        if base is not None and base != value.base:
            flight.refused = "base-mismatch"
            state.refuse(value.author, RemoteProtocolError("base-mismatch", value.component, value.author))
        elif state.acked.setdefault(flight.slot, flight.header.digest) == flight.header.digest:
            signature = state.identity.sign("ack", ack_message(state.federation, flight.header.digest))
            flight.acks[state.me] = Ack(state.me, signature)
            state.emit(ev.Persist(ev.PutHeader(flight.header)))
            said = wrap_ack(state.federation, flight.header.digest, flight.acks[state.me])
            state.emit(ev.Publish(said, to=value.author))
        else:
            flight.refused = "second-header"


def post(state: NodeState) -> None:
    """Write my update records once a quorum of the active hosts acknowledged.

    Those of one draw wait for each other a little, so that they share a write and a message.
    """
    ready: list[tuple[Flight, frozenset[bytes], int]] = []
    waiting = False
    for flight in state.flights.of(state.me):
        value = flight.header.value
        if state.me not in flight.acks:
            continue
        component = state.ledger.components[value.component]
        if is_outdated(state, value.component, value.round, component.round):
            continue
        hosts = set(component.hosts)
        if component.round == 0:  # the first hosts are still gathering: count all that are known to offer
            hosts |= set(candidates.current(state).state.components[value.component].hosts)
        have = frozenset(flight.acks) & hosts
        need = quorum(max(1, len(hosts)), state.ledger.fault_model)
        if len(flight.posted & hosts) < need:
            waiting |= len(have) < need
            if len(have) >= need:
                ready.append((flight, have, need))
    if ready and waiting and state.posting != "due":
        if state.posting != "armed":
            state.posting = "armed"
            state.emit(ev.SetTimer(PostDue(), GATHER_MS))
        return
    state.posting = ""
    for flight, have, need in ready:
        # All of them, so that the rest still is a quorum when a host goes; of very many hosts, what fits a record.
        named = sorted(have) if len(have) <= MAX_ACKS else sorted(have)[:need]
        flight.posted = frozenset(named)
        state.append(Update(flight.header.wire, tuple(flight.acks[host] for host in named)))


def drop(state: NodeState, before: Ledger | None = None) -> None:
    """Forget flights that were counted or can never count, and the bytes that nothing refers to any more.

    A restart's PutHeader rows still bar second acks.
    """
    components = state.ledger.components
    counted = {
        entry.update
        for name, c in components.items()
        for round_ in (c.rounds if state.specs[name].additive else c.rounds[-9:])
        for entry in round_.entries
    }
    state.counted = counted
    gone: set[bytes] = set()
    for key, flight in list(state.flights.items()):
        value = flight.header.value
        if key in counted:
            del state.flights[key]
        elif is_void(state, value, key):
            del state.flights[key]
            gone.add(value.blob)
    for name, c in before.components.items() if before is not None else ():
        still = {p.update for p in components[name].pending} | counted
        gone |= {p.blob for p in c.pending if p.update not in still}
    erase_unneeded(state, gone)


def needed(state: NodeState) -> set[bytes]:
    """Return the blobs that anything refers to; others a crash left between a certificate and its erasure."""
    keep = {flight.header.value.blob for flight in state.flights.values()}
    for c in state.ledger.components.values():
        keep |= c.counted.keys()
        keep |= {pending.blob for pending in c.pending}
        keep |= {blob for erasure in c.erasures for blob in erasure.blobs}
    return keep


def erase_unneeded(state: NodeState, blobs: set[bytes]) -> None:
    """Delete those of these bytes that nothing refers to: no flight, no list, no erasure that still waits."""
    if blobs:
        blobs = {blob for blob in blobs if not state.flights.with_bytes(blob)}
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


def is_barred(state: NodeState, component: str, author: bytes, number: int, update: bytes = b"") -> bool:
    """Whether a withdrawal voids an update for this round that the ledger does not have yet."""
    return any(w.bars(component, author, NOT_YET, number, update) for w in state.ledger.withdrawn)


def is_outdated(state: NodeState, component: str, round_: int, closed: int) -> bool:
    """Whether an update for a round can no longer count after round `closed` was closed."""
    return is_stale(state.charter, state.specs[component], round_, closed)


def dropped_flag(update: bytes) -> str:
    """Return the flag of an own update that was withdrawn before the ledger had it."""
    return f"dropped-{update.hex()}"
