"""This node's own withdrawals: each is checked and signed once, and voids covered updates in flight."""

from dataclasses import replace

from ...consensus import withdrawal
from ...consensus.ledger import names
from ...consensus.withdrawal import of_all_keys
from ...protocol.records import Withdrawal, WithdrawalStatement, body_of
from ...protocol.signing import open_gossip, sign
from . import events as ev
from . import removals, updates
from .in_flight import InFlightUpdate
from .state import NodeState


def on_withdraw(state: NodeState, event: ev.RequestWithdrawal = ev.RequestWithdrawal()) -> None:  # noqa: B008 - frozen
    """Sign a withdrawal of this node's own contributions, or keep the request until it can be signed."""
    if not state.may_append() and event.scope != "all":
        state.notice("withdrawal-not-signed", "warning", reason="no quorum of peers is connected yet")
        return
    if not state.may_append():
        state.notice("withdrawal-waits", "warning", reason="no quorum of peers is connected yet")
        state.withdraw_waits = True
        state.emit(ev.Persist(ev.PutFlag("withdraw", 1)))
        return
    if state.withdraw_waits:
        state.withdraw_waits = False
        state.emit(ev.Persist(ev.PutFlag("withdraw", 0)))
    if event.scope == "updates":  # what an own statement names that no block has yet is on its way
        event = replace(event, updates=tuple(sorted(set(event.updates) - pending_updates(state))))
        if not event.updates:
            return
    statement = replace(event.terms(state.federation, state.me), through=state.head[0])
    height = state.ledger.height + 1
    if statement.scope == "all":
        removals.set_contributing(state, False)
    # In flight: covered updates must not be posted after this, nor after a restart. Posted ones stay until the ledger
    # has both: a block may take one without the other.
    covered = [update for update in state.in_flight.of(state.me) if _is_in_scope(statement, update)]
    mine = [update for update in covered if not update.posted]
    for update in mine:
        del state.in_flight[update.header.digest]
        state.emit(ev.Persist(ev.PutFlag(updates.dropped_flag(update.header.digest), 1)))
    updates.erase_unneeded(state, {update.header.value.blob for update in mine})
    posted = len(covered) > len(mine)  # in this feed before the withdrawal: a block has it first, or with it
    agreed = any(
        withdrawal.reaches(state.ledger, withdrawal.placed(state.charter, state.ledger, terms, height, state.me))
        for terms in of_all_keys(state.ledger, statement)
    )
    if statement.scope != "all" and not posted and not agreed:
        state.notice("withdrawn-in-flight", scope=statement.scope, updates=len(mine))
        return  # nothing of it is in the ledger, or will be
    state.append(Withdrawal(sign(state.identity, statement).wire))
    state.notice("withdrawal-signed", scope=statement.scope, through=statement.through)


def pending_updates(state: NodeState) -> set[bytes]:
    """Return the updates that own withdrawals name which no block has yet."""
    named = set[bytes]()
    for record in state.pool.chain(state.me, state.ledger.heads):
        if record.value.kind == "withdrawal":
            body = body_of(record.value)
            assert isinstance(body, Withdrawal)
            signed = open_gossip(WithdrawalStatement, body.statement, state.federation, trusted=True)
            named.update(signed.value.updates)
    return named


def _is_in_scope(terms: WithdrawalStatement, update: InFlightUpdate) -> bool:
    header = update.header
    return names(terms, header.value.component, header.value.round, header.digest)
