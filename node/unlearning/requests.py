"""Withdrawal requests: their reach and cost at this node, checked before anything is signed."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ...consensus import membership, withdrawal
from ...consensus.ledger import names
from ...consensus.withdrawal import MAX_AT_A_HEIGHT, of_all_keys, proposed_withdrawals
from ...crypto.errors import RefusedError, UsageError
from ...protocol.membership import Action
from ...protocol.records import GENESIS, MAX_UPDATES, Scope, WithdrawalStatement
from ..core.contribution import taken_back
from ..core.events import RequestWithdrawal
from ..core.state import NodeState
from .students import Seen

MARGIN = 3  # rounds before the refold horizon at which a withdrawal that was put off is carried out
NOT_SIGNING = "Too few members are connected: see `collegium node status`, and try again."


def rounds_again(state: NodeState, action: Action, statement: bytes) -> dict[str, int]:
    """Return the number of rounds, by component, that run again if a motion to rewind passes now."""
    if action != "rewind":
        return {}
    withdrawals = proposed_withdrawals(
        state.charter, state.ledger, action, statement, state.ledger.height + 1, state.me
    )
    names = {name for each in withdrawals for name, _ in each.since}
    return {name: max(taken_back(each, name) for each in withdrawals) for name in sorted(names)}


def check_budget(state: NodeState, rounds: Mapping[str, int]) -> None:
    """Check that this node's own budget covers the rounds that would run again. Raises RefusedError."""
    forecast = {name for _, last in state.forecast.values() for name in last}
    private = {
        name for name in state.hosted if state.specs[name].noise_multiplier and not state.specs[name].is_statistic
    }
    if state.contributing and any(rounds.get(name) for name in private - forecast):
        raise RefusedError(
            f"what this node's budget allows is not known: {state.exhausted or 'it has not trained since its start'}",
            "It is computed when the node trains: try again after its next round; if it trains no more, give --anyway.",
        )
    for modality, (left, last) in sorted(state.forecast.items()):
        need = max((rounds.get(name, 0) for name in last), default=0)
        if need and left - 1 < need:  # the forecast counts the round that it was made for
            raise RefusedError(
                f"{need} rounds would run again, and this node's budget of {modality!r} allows {max(0, left - 1)}",
                "It would sit out the rest: give --anyway if that is meant.",
            )


class OutOfReach(TypedDict):
    """Updates that saw a student and cannot be withdrawn: the number of too old ones, and of those by former keys."""

    under_former_keys: dict[str, int]
    beyond_refold_horizon: int


@dataclass(frozen=True, slots=True)
class Sought:
    """The updates that saw a student: `whole` can be withdrawn, `settling` were withdrawn before or never came.

    `out_of_reach` is the message about the others.
    """

    whole: list[bytes]
    settling: frozenset[bytes]
    out_of_reach: OutOfReach


def sought_updates(state: NodeState, seen: Seen) -> Sought:
    """Return which of the updates that saw a student can be withdrawn."""
    ledger = state.ledger
    live = updates_ahead(state)
    counted = {
        e.update: r.number > c.round - state.charter.rules.refold_horizon
        for c in ledger.components.values()
        for r in c.rounds
        for e in r.entries
    }
    sought = sorted(update for update in seen.updates if counted.get(update) or update in live)
    mine, authors = own_keys(state), update_authors(state)
    # A withdrawal by the present key does not reach updates sent before a return with a new key.
    former = Counter(authors[update].hex() for update in sought if authors[update] not in mine)
    return Sought(
        [update for update in sought if authors[update] in mine],
        frozenset(update for update in seen.updates.difference(sought) if counted.get(update) is not False),
        {
            "under_former_keys": dict(sorted(former.items())),
            "beyond_refold_horizon": sum(counted.get(update) is False for update in seen.updates),
        },
    )


def rounds_in_reach(state: NodeState, updates: Collection[bytes]) -> int | None:
    """Return how many more rounds may close before one of these updates is too near the refold horizon to wait.

    That is a tenth of the horizon, or MARGIN rounds, before it is out of reach. None if no round counts any of them, or
    all that do are out of reach already.
    """
    wanted, horizon = set(updates), state.charter.rules.refold_horizon
    left = [
        r.number + horizon - c.round - 1
        for c in state.ledger.components.values()
        for r in c.rounds
        if any(e.update in wanted for e in r.entries)
    ]
    reachable = [rounds for rounds in left if rounds >= 0]
    return max(0, min(reachable) - max(MARGIN, horizon // 10)) if reachable else None


def at_one_height(updates: Sequence[bytes]) -> tuple[RequestWithdrawal, ...]:
    """Return requests for as many of these updates as one height takes; the others are to be asked for again.

    A height takes MAX_AT_A_HEIGHT withdrawals of one author. Half of them are left for the rounds that are given up
    with the updates (node/core/withdrawing.py): without these a round might stay open for ever.
    """
    most = MAX_AT_A_HEIGHT // 2 * MAX_UPDATES
    chunks = (tuple(updates[start : min(start + MAX_UPDATES, most)]) for start in range(0, len(updates), MAX_UPDATES))
    return tuple(RequestWithdrawal("updates", updates=chunk) for chunk in chunks if chunk)


def own_keys(state: NodeState) -> set[bytes]:
    """Return this node's key and its earlier keys of the same seat."""
    return {state.me, *membership.earlier(state.ledger.roll, state.me)}


def asked_scope(state: NodeState, body: Mapping[str, object]) -> RequestWithdrawal:
    """Read a scope. Raises UsageError."""
    components, first, last = list_of_texts(body["components"]), int(str(body["first"])), int(str(body["last"]))
    prefixes = list_of_texts(body["updates"])
    ledger = state.ledger
    for name in components:
        if name not in ledger.components:
            raise UsageError(f"there is no component {name!r}", "`collegium component list` names them.")
    if prefixes and (components or first or last):
        raise UsageError("a withdrawal names updates, or components and rounds, not both")
    if (first or last) and not components:
        raise UsageError("rounds are those of a component", "Name it: --component NAME --rounds A..B.")
    if (first or last) and not 1 <= first <= last:
        raise UsageError(f"there are no rounds {first} to {last}")
    if len(prefixes) > MAX_UPDATES:
        raise UsageError(f"{len(prefixes)} updates at once; a withdrawal names at most {MAX_UPDATES}")
    if prefixes:
        updates = tuple(sorted({named_update(state, prefix) for prefix in prefixes}))
        return RequestWithdrawal("updates", updates=updates)
    scope: Scope = "rounds" if first else "components" if components else "all"
    return RequestWithdrawal(scope, tuple(sorted(set(components))), first, last)


def named_update(state: NodeState, prefix: str) -> bytes:
    """Return the update whose header digest has this prefix, among all that count or are in flight."""
    ledger = state.ledger
    updates = {e.update for c in ledger.components.values() for r in c.rounds for e in r.entries}
    updates |= updates_ahead(state)
    matching = [update for update in updates if update.hex().startswith(prefix.lower())] if len(prefix) >= 4 else []
    if len(matching) != 1:
        problem = "more than one update" if matching else "no update that counts or is on its way"
        raise UsageError(f"{prefix!r} names {problem}", "`collegium round show --json` names them in full.")
    return matching[0]


def updates_ahead(state: NodeState) -> set[bytes]:
    """Return the updates that no list holds yet: pending or in flight."""
    ledger = state.ledger
    return {p.update for c in ledger.components.values() for p in c.pending} | set(state.in_flight)


def update_authors(state: NodeState) -> dict[bytes, bytes]:
    """Return the author of each update that counts, is pending or in flight."""
    in_flight = {digest: update.header.value.author for digest, update in state.in_flight.items()}
    ledger = state.ledger
    components = ledger.components.values()
    counted = {e.update: e.author for c in components for r in c.rounds for e in r.entries}
    return {**in_flight, **counted, **{p.update: p.author for c in components for p in c.pending}}


def list_of_texts(value: object) -> list[str]:
    """Return the value if it is a list of texts. Raises UsageError otherwise."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError("a list of texts is wanted")
    return value


def check_own(state: NodeState, asked: RequestWithdrawal) -> bool:
    """Refuse to sign a withdrawal that would withdraw nothing: it would stay in the ledger for ever.

    Returns whether it goes to the ledger: updates that no other node counts or has a record of are dropped here.
    """
    ledger = state.ledger
    if state.me in ledger.roll.seats and state.me not in ledger.members:
        raise RefusedError(
            "this node is no longer a member and can sign no record",
            "Let a member carry its withdrawal: `collegium unlearn statement` writes it.",
        )
    if asked.scope != "all" and not state.signing:
        raise RefusedError("not-signing: no quorum of members has reported to this node", NOT_SIGNING)
    terms = asked.terms(ledger.federation, state.me, through=ledger.heads.get(state.me, (0, GENESIS))[0])
    keys = [state.me, *membership.earlier(ledger.roll, state.me)]
    if any(withdraws_something(state, each) for each in of_all_keys(ledger, terms)):
        return True
    in_flight = [f for f in state.in_flight.values() if f.header.value.author in keys]
    named = [f for f in in_flight if names(terms, f.header.value.component, f.header.value.round, f.header.digest)]
    if named:
        return asked.scope == "all" or any(f.posted for f in named)
    raise RefusedError("there is nothing to withdraw", "No such update of this node is counted or on its way.")


def withdraws_something(state: NodeState, terms: WithdrawalStatement) -> bool:
    """Whether a withdrawal with these terms would reach anything, if it were agreed on at the next height."""
    placed = withdrawal.placed(state.charter, state.ledger, terms, state.ledger.height + 1, state.me)
    return withdrawal.reaches(state.ledger, placed)
