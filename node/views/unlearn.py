"""Withdrawals: agreed, refolded, certified, erased; and what one costs the other members."""

import time
from collections.abc import Callable, Collection
from datetime import datetime

from ...consensus.components import Entry
from ...consensus.ledger import Withdrawn, names
from ..core.contribution import RECOVERY_ROUNDS
from ..home.scheduled import Scheduled
from ..words import counted
from .context import Context, local, moment
from .membership import scope
from .note import Note, NoteKind
from .shapes_membership import (
    CostToOthers,
    RefoldCost,
    ScheduledBatch,
    Withdrawals,
    WithdrawalShown,
    WithdrawnComponent,
)

Covered = Callable[[str, int, Entry], bool]  # of a component's round: whether the withdrawal takes this update


def unlearn(context: Context) -> Withdrawals:
    """Return every withdrawal in the ledger with its progress, and this node's own that are still to come."""
    return {
        "waiting_to_sign": bool(context.store.flags().get("withdraw", 0)),
        "scheduled": scheduled(context),
        "withdrawals": [_withdrawal(context, withdrawal) for withdrawal in context.ledger.withdrawn],
    }


def scheduled(context: Context) -> list[ScheduledBatch]:
    """Return the withdrawals of students' updates that are still to come, by their times.

    Updates that another withdrawal took meanwhile are not counted.
    """
    gone = {update for withdrawal in context.ledger.withdrawn for update in withdrawal.updates}
    batches: dict[int, list[Scheduled]] = {}
    for request in context.scheduled:
        batches.setdefault(request.at, []).append(request)
    return [
        {
            "at": moment(float(at)) or "",
            "local": local(datetime.fromtimestamp(at)),
            "students": len({request.student for request in batch}),
            "updates": len({update for request in batch for update in request.updates} - gone),
            "pauses": any(request.pause for request in batch),
            "lapsed": sum(request.consent for request in batch),
        }
        for at, batch in sorted(batches.items())
    ]


def _to_withdraw(updates: int) -> str:
    if not updates:
        return "no update is to be withdrawn for them"
    return f"{counted(updates, 'update')} that saw them {'is' if updates == 1 else 'are'} withdrawn"


def scheduled_notes(context: Context) -> list[Note]:
    """Return a note for each time at which this node is to withdraw."""
    return [
        Note(
            NoteKind.WITHDRAWAL_SCHEDULED,
            f"{counted(batch['students'], 'student is', 'students are')} left out, and"
            f" {_to_withdraw(batch['updates'])} {'at' if ahead else 'now: due since'}"
            f" {batch['local']}.",
            "`collegium unlearn cancel ID` takes a request back before its time."
            if ahead and batch["lapsed"] < batch["students"]
            else "Their consent has ended; a new one in the data folder takes a withdrawal back before its time."
            if ahead
            else "",
            batch["at"],
        )
        for batch in scheduled(context)
        for ahead in [datetime.fromisoformat(batch["at"]).timestamp() > time.time()]
    ]


def cost_to_others(context: Context, covered: Covered, about: Collection[str] = ()) -> CostToOthers:
    """Return what each other member computes again and fetches after a withdrawal that takes the `covered` updates.

    Every state from the first round with such an update on is folded again, from the updates that are left. Recovery
    rounds are those of the components that it is `about`, of all if it names none.
    """
    refold: list[RefoldCost] = []
    recovery = 0
    for name, component in sorted(context.ledger.components.items()):
        touched = [r.number for r in component.rounds if any(covered(name, r.number, e) for e in r.entries)]
        if touched:
            again = [r for r in component.rounds if r.number >= touched[0]]
            left = [e for r in again for e in r.entries if not covered(name, r.number, e)]
            size = sum(entry.size for entry in left)
            refold.append({"component": name, "rounds": len(again), "updates": len(left), "bytes": size})
        spec = context.charter.component(name)
        if spec is not None and not spec.is_statistic and (not about or name in about):
            last = next((r.entries for r in reversed(component.rounds) if r.entries), ())
            recovery += RECOVERY_ROUNDS * sum(entry.size for entry in last)
    others = len(context.ledger.members) - (context.me in context.ledger.members)
    return {"members": others, "refold": refold, "recovery_rounds": RECOVERY_ROUNDS, "recovery_bytes": recovery}


def _withdrawal(context: Context, withdrawal: Withdrawn) -> WithdrawalShown:
    closed = dict(withdrawal.rounds)
    components: list[WithdrawnComponent] = []
    for name, c in sorted(context.ledger.components.items()):
        certified = c.certified is not None and c.certified.generation == c.generation
        certifiable = context.ledger.certifiable(c)
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
                "label": _label(c.generation, certified, certifiable, attested, context.ledger.host_quorum(c)),
                "settled": certified or c.generation == 0,
                "attested": attested,
                "needed": context.ledger.host_quorum(c),
                "blobs_to_erase": sum(len(erasure.blobs) for erasure in c.erasures),
            }
        )
    done = all(c["settled"] and not c["blobs_to_erase"] for c in components)
    few = any(c["label"] == "uncertified" for c in components)
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
        "state": f"refolded, {'uncertified: too few hosts' if few else 'certified'}, erased"
        if done
        else "refolding: waits for the hosts' attestations",
        "components": components,
    }


def _label(generation: int, certified: bool, certifiable: bool, attested: int, needed: int) -> str:
    """Return how far the state after a withdrawal is certified, in the words of `node status`."""
    if not generation:
        return "unchanged"
    if not certified:
        return f"attested by {attested} of {needed}"
    return "certified" if certifiable else "uncertified"
