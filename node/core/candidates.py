"""The records that this node could put under the next cut, and whether now is the time for it."""

from ...consensus import trainers
from ...consensus.cut import check_record, order
from ...consensus.fold import apply_records
from ...consensus.ledger import Ledger
from ...consensus.rounds import closable, eligible, has_contributed
from ...crypto.errors import RemoteProtocolError
from ...protocol.blocks import Close
from ...protocol.records import Record
from ...protocol.signing import Signed
from . import events as ev
from .state import Candidate, Deadline, NodeState
from .timers import GatherDue, RoundDeadline

URGENT = frozenset({"evidence", "withdrawal", "motion", "ballot"})  # each gets a block at once
COMMUTING = frozenset({"offer", "update", "attest"})
GATHER_MS = 150  # milliseconds that a component's close waits for the others of the same training runs


def watch_deadlines(state: NodeState, ledger: Ledger) -> None:
    """Start a round's deadline at its first acknowledged update."""
    for name in ledger.components:
        open_round = state.ledger.components[name].round + 1
        deadline = state.deadlines.get(name)
        if deadline is not None and deadline.round >= open_round:
            continue
        if name in state.resting:
            continue  # else who sends too early would end the deadline before the others may train
        if any(entry.staleness == 0 for entry in eligible(state.charter, ledger, name)):
            state.deadlines[name] = Deadline(open_round)
            state.emit(ev.SetTimer(RoundDeadline(name, open_round), state.charter.rules.round_deadline))


def current(state: NodeState) -> Candidate:
    """Return all records that this node could put under the next cut, within the quotas."""
    cached, height, version = state.cached, state.ledger.height, state.pool.version
    if cached is not None and (cached.height, cached.version) == (height, version):
        return cached
    candidate = _grown(state, cached) if cached is not None and cached.height == height and cached.commutes else None
    if candidate is None:
        chains = {author: chain for author in state.ledger.members if (chain := _within_quotas(state, author))}
        new = [record for chain in chains.values() for record in chain]
        commutes = all(record.value.kind in COMMUTING for record in new)
        ledger = apply_records(state.ledger, order(new))
        inert = {(refusal.author, refusal.seq) for refusal in ledger.refusals}  # a liar can write any number of them
        urgent = any(r.value.kind in URGENT and (r.value.author, r.value.seq) not in inert for r in new)
        candidate = Candidate(height, version, ledger, chains, commutes, urgent)
    state.pool.touched.clear()
    state.cached = candidate
    return candidate


def _grown(state: NodeState, last: Candidate) -> Candidate | None:
    """Return the last candidate with the records that came since; None if it has to be made anew.

    Offers, updates and attests of different members commute, so their order does not matter here: a proposal is folded
    from its records anew.
    """
    chains, new = dict(last.chains), list[Signed[Record]]()
    for author in state.pool.touched.intersection(state.ledger.members):
        before, now = chains.get(author, ()), _within_quotas(state, author)
        if now[: len(before)] != before:
            return None
        chains[author] = now
        new += now[len(before) :]
    if not all(record.value.kind in COMMUTING for record in new):
        return None
    ledger = apply_records(last.state, order(new)) if new else last.state
    return Candidate(last.height, state.pool.version, ledger, chains, True, False)


def _within_quotas(state: NodeState, author: bytes) -> tuple[Signed[Record], ...]:
    if author in state.proofs:
        return ()  # it is about to be expelled, and nodes may hold different branches
    rules, size = state.charter.rules, 0
    chain = state.pool.chain(author, state.ledger.heads)[: rules.records_per_height]
    for index, record in enumerate(chain):
        size += len(record.wire)
        if size > rules.bytes_per_height or not _admissible(state, record):
            return chain[:index]
    return chain


def _admissible(state: NodeState, record: Signed[Record]) -> bool:
    """Whether a block may hold this record: an inadmissible one on the disk must not hold up the others for ever."""
    try:
        check_record(record, state.federation)
    except RemoteProtocolError:
        return False
    return True


def is_punctual(state: NodeState, ledger: Ledger, name: str, mine: Ledger) -> bool:
    """Whether closing this component on `ledger` leaves no member out, by this node's clock (timely)."""
    if name in state.resting:
        return False
    component = ledger.components[name]
    entries = eligible(state.charter, ledger, name)
    present = {entry.author for entry in entries}
    expected = set(trainers.trainers(ledger.offers, component.hosts, name))
    if component.round == 0:
        expected |= set(ledger.members) - ledger.offers.keys()
    held = {entry.author for entry in eligible(state.charter, mine, name)}
    expected |= held  # even of hosts that declare no training: no member is left out whose update is here
    if state.specs[name].is_statistic:
        expected = {host for host in expected if not has_contributed(ledger.roll, component, host)}
    patient = {host for host in expected - present if trainers.waited_for(ledger, host, name, component.round + 1)}
    expected = expected & (present | held | patient)
    if expected <= present:
        return True
    deadline = state.deadlines.get(name)
    if deadline is None or deadline.round != component.round + 1 or not deadline.due:
        return False
    still = {entry.update for entry in eligible(state.charter, mine, name)}
    return (deadline.held & still) <= {entry.update for entry in entries}


def due_closes(state: NodeState, ledger: Ledger) -> list[Close]:
    """Return the rounds that can be closed on these records and leave no member out."""
    return [
        Close(name, component.round + 1)
        for name, component in sorted(ledger.components.items())
        if closable(state.charter, ledger, name) and is_punctual(state, ledger, name, ledger)
    ]


def has_work(state: NodeState, candidate: Candidate) -> bool:
    """Whether there is work that is timely by this node's clock."""
    if candidate.urgent:
        return True
    closes = due_closes(state, candidate.state)
    if closes:
        return state.gather_due or not _is_gathering(state, {close.component for close in closes})
    underway = any(
        d.round == state.ledger.components[name].round + 1 and not d.due for name, d in state.deadlines.items()
    )
    return any(candidate.chains.values()) and state.idle_due and not underway


def _is_gathering(state: NodeState, closing: set[str]) -> bool:
    """Whether other components' updates of the same training runs are in flight: a round should cost one height."""
    for update in state.in_flight.values():
        value = update.header.value
        others = {entry.component for entry in value.engaged} - closing
        if any(value.round == state.ledger.components[name].round + 1 for name in others):
            if state.gather_height != state.ledger.height:
                state.gather_height = state.ledger.height
                state.emit(ev.SetTimer(GatherDue(), GATHER_MS))
            return True
    return False
