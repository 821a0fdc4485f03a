"""This node's own withdrawals: each is checked and signed once, and voids covered updates in flight."""

from collections.abc import Iterable
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
    given_up = _given_up(state, covered)
    if statement.scope == "all" or posted or agreed or (given_up and statement.scope != "updates"):
        state.append(Withdrawal(sign(state.identity, statement).wire))
        state.notice("withdrawal-signed", scope=statement.scope, through=statement.through)
    else:
        state.notice("withdrawn-in-flight", scope=statement.scope, updates=len(mine))
    if statement.scope == "updates":
        for number, parts in sorted(given_up.items()):
            rounds = ev.RequestWithdrawal("rounds", tuple(sorted(parts)), number, number)
            terms = rounds.terms(state.federation, state.me, through=state.head[0])
            state.append(Withdrawal(sign(state.identity, terms).wire))


def _given_up(state: NodeState, covered: Iterable[InFlightUpdate]) -> dict[int, list[str]]:
    """Return the open rounds of these own updates, each with its components.

    This node may send no other update for them, and the ledger has to know: else the others would wait for one, and
    where too few are left, for ever (docs/adr/0027-a-round-given-up-counts-nothing.md). The names of updates do not say
    what they are for, and those that no block has name nothing that others know.
    """
    rounds: dict[int, list[str]] = {}
    for value in (update.header.value for update in covered):
        is_open = value.round == state.ledger.components[value.component].round + 1
        if is_open and not state.specs[value.component].is_statistic:
            rounds.setdefault(value.round, []).append(value.component)
    return rounds


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
