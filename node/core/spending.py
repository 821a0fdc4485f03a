"""Spending recalled from this node's own updates (G6), and checks of others' spend statements."""

from collections.abc import Iterable

from ...consensus import membership
from ...protocol.records import Record, Update, Withdrawal, WithdrawalStatement
from ...protocol.signing import Signed, open_gossip, open_signed
from ...protocol.update import UpdateHeader
from . import contribution as contributing
from . import events as ev
from . import removals
from .pool import readable_body
from .state import NodeState


def recall_earlier_keys(state: NodeState, blocks: Iterable[ev.StoredBlock]) -> None:
    """G6: recall the spending of this member's earlier keys from their spend statements: this disk may be new."""
    state.read_keys = keys = set(membership.earlier(state.ledger.roll, state.me))
    for stored in blocks if keys else ():
        for record in stored.records:
            body = readable_body(record) if record.value.author in keys else None
            if isinstance(body, Update):
                recall_reservations(state, open_gossip(UpdateHeader, body.header, state.federation, trusted=True).value)


def recall_record(state: NodeState, record: Signed[Record]) -> None:
    """Count an own record that this disk lacked, and recall the spending that it lists."""
    if record.value.author != state.me:
        return
    state.returned[record.value.kind] = state.returned.get(record.value.kind, 0) + 1
    body = readable_body(record)
    if isinstance(body, Update):
        recall_reservations(state, open_gossip(UpdateHeader, body.header, state.federation).value)
    elif isinstance(body, Withdrawal):
        removals.recalled(state, open_signed(WithdrawalStatement, body.statement, state.federation).value)


def recall_reservations(state: NodeState, header: UpdateHeader) -> None:
    """G6: reserve the spending in an own update's spend statements that this disk, lost or set back, lacks."""
    put = contributing.recalled(header, state.reservations, state.charter.learning)
    if put is None:
        return
    state.reservations.append(put)
    state.run = None  # a run under way was computed without these: its spend statement would be too small
    state.emit(ev.Persist(put))
    state.notice(
        "spending-recovered",
        "warning",
        steps=sum(d.count for _, d in put.recalled),
        epsilon=contributing.logged_epsilon(dict(put.claims)),
    )


def read_spend_statement(state: NodeState, value: UpdateHeader) -> None:
    """Check that a spend statement grew by its update's training run, and have its ε recomputed.

    Each shard of the author's students has its own; the releases of statistics, which reach all of them, cover those.
    """
    shard = ev.EVERY_SHARD if state.specs[value.component].is_statistic else value.shard
    engaged = tuple((entry.component, entry.base) for entry in value.engaged)
    grew = False
    for claim in value.claims:
        if not claim.events:
            continue
        total = sum(run.count for run in claim.events)
        before, last = state.spend_statements.get((value.author, claim.modality, shard), (0, ()))
        if engaged != last and total < before + value.steps:
            facts = {"modality": claim.modality, "reservations": total, "before": before}
            state.notice("spend-shrinks", "warning", member=value.author, **facts)
        if total > before:
            state.spend_statements[value.author, claim.modality, shard] = (total, engaged)
            grew = True
    if grew:
        state.emit(ev.CheckSpendStatement(value))
