"""A node's part in membership: the operator's motions and ballots, the daemon's own motions, and notices of both.

Operators decide by hand, with two exceptions. The daemon proposes to suspend a host that sent neither an update nor an
attestation for `SILENT_ROUNDS` closed rounds; the host offers again when it is back. And it proposes to suspend as a
trainer a host that sent no update in as many rounds in which it declared training: it stays a host, and no round waits
for it until it declares training again.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ...consensus import membership, trainers
from ...consensus.ledger import Ledger
from ...consensus.membership import OpenMotion
from ...consensus.withdrawal import check_withdrawal, proposed_withdrawals
from ...crypto.errors import RemoteProtocolError
from ...protocol.blocks import Close
from ...protocol.membership import Action, Ballot, Motion
from ...protocol.records import Offer, Record, Withdrawal, body_of
from ...protocol.signing import Signed
from . import events as ev
from .state import NodeState

SILENT_ROUNDS = 3
SUSPENSION_HEIGHTS = 50


def check(state: NodeState, event: ev.ProposeMotion | ev.Cast) -> Motion | Ballot:
    """Return the motion or ballot to sign. Raises RemoteProtocolError: "not-signing", or the reason why it is void."""
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
        raise RemoteProtocolError("proposed-already", motion.action, state.me)
    membership.check_motion(ledger.roll, ledger.members, ledger.offers, state.charter, height, state.me, motion)
    if event.action in membership.WITHDRAWALS and not proposed_withdrawals(
        state.charter, ledger, event.action, motion.statement, height, state.me
    ):
        raise RemoteProtocolError("withdrawn-already", "nothing of it is in force", state.me)
    membership.add_motion(ledger.roll, motion, state.me, 0, bytes(32), height)
    return motion


def say(state: NodeState, event: ev.ProposeMotion | ev.Cast) -> None:
    """Sign the operator's motion or ballot if it is still valid."""
    try:
        state.append(check(state, event))
    except RemoteProtocolError as error:
        state.notice("motion-not-proposed", "warning", reason=error.reason, detail=error.detail)


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
    """Sign a record that carries a former member's withdrawal, if that is still valid."""
    try:
        state.append(check_carried(state, event))
    except RemoteProtocolError as error:
        state.notice("not-carried", "warning", reason=error.reason, detail=error.detail)


def waiting(state: NodeState) -> Iterator[object]:
    """Yield the bodies of this node's records that are in no block yet."""
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
    """After a block: note who declared training at any time of the open rounds. Taking it back has no effect."""
    declarations = list(_offers(records))
    changed = bool(declarations) or before.offers is not state.ledger.offers
    for name, component in before.components.items():
        noted = state.asked.get(name)
        if noted is not None and not changed:
            continue
        declared = {
            key for key, offer in declarations if key in component.hosts and trainers.trains({key: offer}, key, name)
        }
        for offers in (before.offers, state.ledger.offers):
            declared |= trainers.trainers(offers, component.hosts, name)
        state.asked[name] = declared | (noted or set())


def _offers(records: Iterable[Signed[Record]]) -> Iterator[tuple[bytes, Offer]]:
    for record in records:
        if record.value.kind == "offer":
            with suppress(RemoteProtocolError):  # malformed: the ledger refuses it by name
                body = body_of(record.value)
                if isinstance(body, Offer):
                    yield record.value.author, body


def note_close(state: NodeState, before: Ledger, close: Close) -> None:
    """Count the closed rounds in which an active host was silent, or a trainer sent no update that counted."""
    asked = state.asked.pop(close.component, set())
    if state.specs[close.component].is_statistic:
        return  # a host contributes once, and is then silent rightly
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
    """Propose to suspend silent hosts and trainers, or vote for open motions to do so."""
    suspensions: tuple[tuple[Action, str, Mapping[str, dict[bytes, int]], int], ...] = (
        ("suspend", "host-silent", state.silent, 0),
        # A trainer that declares training again, and sends nothing, is waited for in one more round only.
        ("suspend-training", "trainer-silent", state.waited, SILENT_ROUNDS - 1),
    )
    for action, event, silent, again in suspensions:
        for name, counts in silent.items():
            for host, rounds in counts.items():
                if rounds < SILENT_ROUNDS or host == state.me or host not in state.ledger.components[name].hosts:
                    continue
                try:
                    motion = check(state, ev.ProposeMotion(action, host, b"", f"silent in {name}", SUSPENSION_HEIGHTS))
                except RemoteProtocolError:
                    continue  # this node proposed or voted already, or it is no host any more
                counts[host] = again  # if it does not pass, this node proposes it again after as many silent rounds
                state.append(motion)
                state.notice(event, "warning", member=host, component=name, rounds=rounds)


# ---- notices


def tell(state: NodeState, before: Ledger) -> None:
    """Report a block's changes to the operator: motions opened, motions ended, and changes of members."""
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
