"""A node's part in membership: what its operator moves and votes, what it moves by itself, and what it tells of it.

Operators decide by hand. Two things the daemons do themselves. A host that sent neither an update nor an attestation
for `SILENT_ROUNDS` closed rounds is moved to be suspended; it offers again when it is back. A host that sent no update
in as many rounds in which it said that it trains is moved to be suspended as a trainer: it stays a host, and no further
round waits for it until it says again that it trains.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ...consensus import membership, trainers
from ...consensus.ledger import Ledger
from ...consensus.membership import OpenMotion
from ...consensus.withdrawal import check_withdrawal, proposed_withdrawals
from ...crypto.errors import RemoteProtocolError
from ...protocol.blocks import Close
from ...protocol.membership import Ballot, Motion
from ...protocol.records import Offer, Record, Withdrawal, body_of
from ...protocol.signing import Signed
from . import events as ev
from .state import NodeState

SILENT_ROUNDS = 3
SUSPENSION_HEIGHTS = 50


def check(state: NodeState, event: ev.Move | ev.Cast) -> Motion | Ballot:
    """Return what this node would sign now. Raises RemoteProtocolError, by name: "not-signing" or why it is void."""
    if not state.may_append():
        raise RemoteProtocolError("not-signing", "no quorum of members has reported to this node", state.me)
    ledger, height = state.ledger, state.ledger.height + 1
    if isinstance(event, ev.Cast):
        ballot = Ballot(event.motion, int(event.yes))
        if any(isinstance(b, Ballot) and b.motion == event.motion for b in waiting(state)):
            raise RemoteProtocolError("voted-already", event.motion.hex()[:16], state.me)
        membership.add_ballot(ledger.roll, ballot, state.me)
        return ballot
    motion = Motion(event.action, event.subject, event.statement, event.reason, height + event.heights)
    same = (motion.action, motion.subject, motion.statement)
    if any(isinstance(b, Motion) and (b.action, b.subject, b.statement) == same for b in waiting(state)):
        raise RemoteProtocolError("moved-already", motion.action, state.me)
    membership.check_motion(ledger.roll, ledger.members, ledger.offers, state.federation, height, state.me, motion)
    if motion.action in membership.WITHDRAWALS and not proposed_withdrawals(
        state.charter, ledger, motion.action, motion.statement, height, state.me
    ):
        raise RemoteProtocolError("withdrawn-already", "nothing of it is in force", state.me)
    membership.add_motion(ledger.roll, motion, state.me, 0, bytes(32), height)
    return motion


def say(state: NodeState, event: ev.Move | ev.Cast) -> None:
    """Sign what the operator moves or votes, if it still stands."""
    try:
        state.append(check(state, event))
    except RemoteProtocolError as error:
        state.notice("not-moved", "warning", reason=error.reason, detail=error.detail)


def check_carried(state: NodeState, event: ev.Carry) -> Withdrawal:
    """Return the record's body that carries a withdrawal. Raises RemoteProtocolError, by name."""
    statement = check_withdrawal(Withdrawal(event.statement), state.federation)
    seat = state.ledger.roll.seats.get(statement.author)
    if seat is None:
        raise RemoteProtocolError("not-a-member", "its owner was never a member", statement.author)
    if any(
        w.author == statement.author and w.through >= statement.through and w.scope == "all"
        for w in state.ledger.withdrawn
    ):
        raise RemoteProtocolError("withdrawn-already", "it is in the ledger", statement.author)
    if not state.may_append():
        raise RemoteProtocolError("not-signing", "no quorum of members has reported to this node", state.me)
    return Withdrawal(event.statement)


def carry(state: NodeState, event: ev.Carry) -> None:
    """Sign a record that carries somebody's withdrawal, if it still stands."""
    try:
        state.append(check_carried(state, event))
    except RemoteProtocolError as error:
        state.notice("not-carried", "warning", reason=error.reason, detail=error.detail)


def waiting(state: NodeState) -> Iterator[object]:
    """Yield the bodies of this node's records that no block has yet."""
    for record in state.pool.chain(state.me, state.ledger.heads):
        if record.value.kind in ("motion", "ballot"):
            yield body_of(record.value)


def undecided(ledger: Ledger, me: bytes | None) -> list[OpenMotion]:
    """Return the open motions that wait for this member's ballot."""
    if me is None or me not in ledger.members:
        return []
    return [m for m in ledger.roll.motions if me in membership.voters(m, ledger.members) and me not in m.yes | m.no]


# ---- silent hosts


def note_asked(state: NodeState, before: Ledger, records: Iterable[Signed[Record]]) -> None:
    """After a block: who said at any time of the open rounds that it trains. To change one's word does not help."""
    said = list(_offers(records))
    changed = bool(said) or before.offers is not state.ledger.offers
    for name, component in before.components.items():
        known = state.asked.get(name)
        if known is not None and not changed:
            continue
        found = {key for key, offer in said if key in component.hosts and trainers.trains({key: offer}, key, name)}
        for offers in (before.offers, state.ledger.offers):
            found |= trainers.trainers(offers, component.hosts, name)
        state.asked[name] = found | (known or set())


def _offers(records: Iterable[Signed[Record]]) -> Iterator[tuple[bytes, Offer]]:
    for record in records:
        if record.value.kind == "offer":
            with suppress(RemoteProtocolError):  # nonsense, which the ledger refuses by name
                body = body_of(record.value)
                if isinstance(body, Offer):
                    yield record.value.author, body


def note_close(state: NodeState, before: Ledger, close: Close) -> None:
    """Count for how many closed rounds each active host was silent, and each trainer since an update of it counted."""
    asked = state.asked.pop(close.component, set())
    if state.specs[close.component].is_statistic:
        return  # who has contributed has nothing more to say
    component = state.ledger.components[close.component]
    counted = {entry.author for entry in component.rounds[-1].entries}
    attested = {host for round_, _, host, _ in component.attests if round_ > close.round - SILENT_ROUNDS}
    counts = state.silent.get(close.component, {})
    state.silent[close.component] = {
        host: 0 if host in counted | attested else counts.get(host, 0) + 1
        for host in before.components[close.component].hosts
    }
    waited = state.waited.get(close.component, {})
    asked = {host for host in asked if trainers.waited_for(before, host, close.component, close.round)}
    state.waited[close.component] = {
        host: waited.get(host, 0) + (host in asked)
        for host in before.components[close.component].hosts
        if host not in counted
    }


def suspend_silent(state: NodeState) -> None:
    """Move, or support the motion, that a host or trainer which fell silent be suspended."""
    for action, event, silent, again in (
        ("suspend", "host-silent", state.silent, 0),
        # Who says that it is back, and is not, has to be waited for once more only.
        ("suspend-training", "trainer-silent", state.waited, SILENT_ROUNDS - 1),
    ):
        for name, counts in silent.items():
            for host, rounds in counts.items():
                if rounds < SILENT_ROUNDS or host == state.me or host not in state.ledger.components[name].hosts:
                    continue
                try:
                    motion = check(state, ev.Move(action, host, b"", f"silent in {name}", SUSPENSION_HEIGHTS))
                except RemoteProtocolError:
                    continue  # it was moved or voted on by this node already, or is no host any more
                counts[host] = again  # if it does not pass, this node moves it again after as many silent rounds
                state.append(motion)
                state.notice(event, "warning", member=host, component=name, rounds=rounds)


# ---- what it tells


def tell(state: NodeState, before: Ledger) -> None:
    """Tell the operator what the block changed: motions opened, ended, and who the members are now."""
    after = state.ledger
    opened = {motion.digest for motion in before.roll.motions}
    for motion in after.roll.motions:
        if motion.digest not in opened:
            state.emit(ev.Notice("motion-opened", "info", {**_facts(motion), "by": motion.author}))
    for outcome in membership.ended(before.roll, after.roll):
        level = "warning" if outcome.result == "passed" and outcome.motion.action != "admit" else "info"
        facts = {**_facts(outcome.motion), "height": outcome.height, "why": outcome.why}
        state.emit(ev.Notice(f"motion-{outcome.result}", level, facts))
    if after.members == before.members:
        return
    for key in set(before.members) - set(after.members):
        state.pool.forget(key)
    state.notice("members", height=after.height, members=len(after.members), quorum=after.quorum)
    if state.me in before.members and state.me not in after.members:
        gone = after.roll.seats[state.me].gone
        state.notice("no-longer-a-member", "error", height=after.height, why=gone)
    elif state.me in after.members and state.me not in before.members:
        state.notice("admitted", height=after.height)


def _facts(motion: OpenMotion) -> dict[str, object]:
    return {"motion": motion.digest, "action": motion.action, "subject": motion.subject, "reason": motion.reason}
