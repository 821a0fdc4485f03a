"""Withdrawals: agreed, refolded, certified, erased."""

from ...consensus.ledger import Withdrawn, names
from .context import Context, moment
from .membership import scope
from .shapes_membership import Withdrawals, WithdrawalShown, WithdrawnComponent


def unlearn(context: Context) -> Withdrawals:
    """Return every withdrawal in the ledger with its progress, and whether an own one waits to be signed."""
    return {
        "waiting_to_sign": bool(context.store.flags().get("withdraw", 0)),
        "withdrawals": [_withdrawal(context, withdrawal) for withdrawal in context.ledger.withdrawn],
    }


def _withdrawal(context: Context, withdrawal: Withdrawn) -> WithdrawalShown:
    closed = dict(withdrawal.rounds)
    components: list[WithdrawnComponent] = []
    for name, c in sorted(context.ledger.components.items()):
        certified = c.certified is not None and c.certified.generation == c.generation
        attested = sum((r, e) == (c.round, c.generation) for r, e, _, _ in c.attests)
        still = sum(
            entry.author == withdrawal.author
            and entry.seq <= withdrawal.through
            and names(withdrawal, name, round_.number, entry.update)
            for round_ in c.rounds[: closed.get(name, 0)]
            for entry in round_.entries
        )
        components.append(
            {
                "component": name,
                "round": c.round,
                "generation": c.generation,
                "closed_rounds_then": closed.get(name, 0),
                "reaches_back_to_round": dict(withdrawal.since).get(name),
                "updates_beyond_refold_horizon": still,
                "certified": certified or c.generation == 0,
                "attested": attested,
                "needed": context.ledger.host_quorum(c),
                "blobs_to_erase": sum(len(erasure.blobs) for erasure in c.erasures),
            }
        )
    done = all(c["certified"] and not c["blobs_to_erase"] for c in components)
    return {
        "member": context.member(withdrawal.author),
        "carried_by": context.member(withdrawal.carrier),
        "mode": withdrawal.mode,
        "scope": withdrawal.scope,
        "what": scope(withdrawal),
        "scope_components": list(withdrawal.components),
        "scope_rounds": [withdrawal.first, withdrawal.last] if withdrawal.scope == "rounds" else [],
        "scope_updates": [update.hex() for update in withdrawal.updates],
        "motion": withdrawal.motion.hex() or None,
        "through": withdrawal.through,
        "height": withdrawal.height,
        "agreed_at": moment(context.store.decided(withdrawal.height)),
        "state": "refolded, certified, erased" if done else "refolding: waits for the hosts' attestations",
        "components": components,
    }
