"""Heights: propose a block, judge the blocks of others, decide, and go on to the next height.

`consensus.agreement` counts the votes. This module carries out its actions, and the consequences of a decision.
"""

from collections.abc import Sequence
from typing import assert_never

from ...consensus import membership, trainers
from ...consensus.agreement import Action, Agreement, Ask, Decided, Equivocation, Judge, Keep, Message, Say, Wait
from ...consensus.cut import order
from ...consensus.fold import apply_records, fold_block, next_state
from ...consensus.ledger import Ledger
from ...crypto.errors import RemoteProtocolError
from ...protocol.blocks import Block, Certificate, Close, Proposal, Vote
from ...protocol.records import GENESIS, IDLE, Evidence
from . import amending, candidates, catchup, motions, offers, pacing, updates
from . import events as ev
from .messages import Kind, message, open_message, wrap
from .state import NodeState
from .timers import IdleDue, VoteTimeout

HEIGHTS_AHEAD = 8  # heights ahead of which votes are kept
WAITING_VOTES, WAITING_PROPOSALS = 40, 4  # votes of each member for each of these heights


def maybe_sign(state: NodeState) -> None:
    """G8: a restored backup must not sign twice, so first hear from quorum-1 peers what this node signed."""
    if state.signing or state.me not in state.ledger.members:
        return
    if len(state.reports.intersection(state.ledger.members)) < state.ledger.quorum - 1:
        return
    if not state.read_keys.issuperset(membership.earlier(state.ledger.roll, state.me)):
        return  # it has just replaced a lost key: after a restart it reads that key's spending
    state.signing = True
    state.notice("signing", height=state.ledger.height, reports=len(state.reports))
    if state.returned:
        state.notice("home-was-older", "warning", own_records_returned=sum(state.returned.values()))
    for update in state.in_flight.values():
        state.emit(ev.Publish(message(Kind.HEADER, update.header.wire)))
    _begin_height(state)


def on_vote(state: NodeState, vote: Message) -> None:
    """Take a proposal or vote of the open height, or keep it for a later one."""
    height = vote.value.height
    if vote.value.author not in state.ledger.members or height <= state.ledger.height:
        return
    mine = vote.value.author == state.me
    if height == state.ledger.height + 1 and state.agreement is not None:
        if mine and vote.digest not in state.agreement.seen:
            agree(state, state.agreement.fall_silent())
            state.muted.add(height)
            state.notice("own-vote-recovered", "warning", height=height)
        agree(state, state.agreement.receive(vote))
    elif height <= state.ledger.height + HEIGHTS_AHEAD and has_room(state, vote.value, vote.digest):
        if height not in state.later:  # a node that signs nothing never takes them out
            state.later = {h: votes for h, votes in state.later.items() if h > state.ledger.height}
        state.later.setdefault(height, []).append(vote)


def _begin_height(state: NodeState) -> None:
    height = state.ledger.height + 1
    restored = [data for kept, data in state.kept_messages if kept == height]
    state.judging.clear()
    state.prepared.clear()
    state.unclosed.clear()
    state.idle_due = state.gather_due = False
    state.ask_view = None
    if not state.signing or state.me not in state.ledger.members:
        state.agreement = None
        return
    state.emit(ev.SetTimer(IdleDue(), state.options.idle_ms))
    state.agreement = Agreement(
        state.identity, state.federation, height, state.ledger.members, state.ledger.fault_model
    )
    own: list[Message] = []
    for data in restored:
        cls = Proposal if data[0] == Kind.PROPOSAL else Vote
        own.append(open_message(cls, data[1:], state.federation, trusted=True))
    waiting = state.later.pop(height, [])
    signed = {item.digest for item in own}
    if any(vote.value.author == state.me and vote.digest not in signed for vote in waiting):
        state.agreement.mute = True
        state.notice("own-vote-recovered", "warning", height=height)
    agree(state, state.agreement.restore(own))
    for vote in waiting:
        if state.agreement is not None and state.agreement.height == height:
            try:
                agree(state, state.agreement.receive(vote))
            except RemoteProtocolError as error:
                state.refuse(vote.value.author, error)


def agree(state: NodeState, actions: Sequence[Action]) -> None:
    """Carry out the agreement's actions."""
    agreement = state.agreement
    assert agreement is not None
    for action in actions:
        match action:
            case Say():
                for item in (*action.proof, action.message):
                    state.emit(ev.Persist(ev.PutMessage(agreement.height, wrap(item))))
                state.emit(ev.Publish(wrap(action.message)))
            case Keep():
                for item in action.proof:
                    state.emit(ev.Persist(ev.PutMessage(agreement.height, wrap(item))))
            case Judge():
                state.judging[action.identifier] = action.block
            case Wait():
                delay = state.options.propose_ms * (2 + action.view) // 2
                state.emit(ev.SetTimer(VoteTimeout(agreement.height, action.view, action.step), delay))
            case Ask():
                state.ask_view = action.view
                propose(state, action.view)
            case Equivocation():
                if state.may_append() and action.a.value.author != state.me:
                    state.append(Evidence("double-vote", action.a.wire, action.b.wire))
                    state.notice("double-vote", "error", member=action.a.value.author)
            case Decided():
                _decide(state, action.block, action.certificate)
                return
            case _:
                assert_never(action)


def propose(state: NodeState, view: int) -> None:
    """Propose a block for a view, if there is timely work."""
    candidate = candidates.current(state)
    # A close may be of updates of an earlier block: then there may be no record.
    records, closes = candidate.records, candidates.due_closes(state, candidate.state)
    if state.agreement is None or not (records or closes):
        return
    if view == 0 and not closes and not candidates.has_work(state, candidate):
        return  # in later views any record justifies a block: it ends the height that others have started
    state.ask_view = None
    try:
        prepared, block = next_state(state.ledger, records, closes)
    except RemoteProtocolError as error:
        state.notice("cannot-propose", "error", reason=str(error))
        return
    state.prepared[block.id] = (prepared, records)
    agree(state, state.agreement.propose(view, block))


def judge(state: NodeState) -> None:
    """Judge proposed blocks: valid is deterministic, timely is by this node's clock."""
    height = state.ledger.height
    for identifier, block in list(state.judging.items()):
        if state.agreement is None or state.ledger.height != height:
            return  # one of them was decided
        if identifier not in state.agreement.verdicts:
            if identifier not in state.prepared and _settled(state, identifier, block) is None:
                continue
            agree(state, state.agreement.judged(identifier, True))
        if state.agreement is None or state.ledger.height != height:
            return
        mine = candidates.current(state).state
        before = _before_closes(state, identifier) if block.close else state.ledger
        if all(candidates.is_punctual(state, before, close.component, mine) for close in block.close):
            del state.judging[identifier]
            agree(state, state.agreement.timely(identifier))


def _before_closes(state: NodeState, identifier: bytes) -> Ledger:
    """Return the ledger with a proposed block's records, before it closes anything."""
    if identifier not in state.unclosed:
        records = state.prepared[identifier][1]
        state.unclosed[identifier] = apply_records(state.ledger, records)
    return state.unclosed[identifier]


def _settled(state: NodeState, identifier: bytes, block: Block) -> Ledger | None:
    """Fold a proposed block if its records are here; None if they are not, or if it is invalid."""
    assert state.agreement is not None
    try:
        for head in block.cut:
            if head.author not in state.ledger.members:
                raise RemoteProtocolError("not-a-member", "the author is not a member", head.author)
            agreed = state.ledger.heads.get(head.author, (0, GENESIS))[0]
            if head.seq - agreed > state.charter.rules.records_per_height:
                raise RemoteProtocolError("quota-records", f"{head.seq - agreed} records at one height", head.author)
        records = state.pool.under(block.cut, state.ledger.heads)
        if records is None:
            catchup.ask_somebody(state)
            return None
        ledger = fold_block(state.ledger, block, records)
    except RemoteProtocolError as error:
        del state.judging[identifier]
        state.refuse(error.peer or state.agreement.proposer(state.agreement.view), error)
        agree(state, state.agreement.judged(identifier, False))
        return None
    state.prepared[identifier] = (ledger, order(records))
    return ledger


def adopt(state: NodeState, block: Block, certificate: Certificate) -> bool:
    """Take a block whose certificate was checked; False if its records are not here yet."""
    records = state.pool.under(block.cut, state.ledger.heads)
    if records is None:
        catchup.ask_somebody(state)
        return False
    state.prepared[block.id] = (fold_block(state.ledger, block, records), order(records))
    _decide(state, block, certificate)
    return True


def _decide(state: NodeState, block: Block, certificate: Certificate) -> None:
    before = state.ledger
    state.ledger, records = state.prepared[block.id]
    state.emit(ev.Persist(ev.PutBlock(block, certificate, tuple(record.digest for record in records))))
    state.pool.settle(state.ledger.heads)
    if state.ledger.heads.get(state.me, (0, GENESIS)) > state.head:
        state.head = state.ledger.heads[state.me]
    state.notice("decided", "debug", height=block.height, view=certificate.view, records=len(records))
    for refusal in state.ledger.refusals:
        state.notice(
            "record-refused",
            "warning",
            member=refusal.author,
            seq=refusal.seq,
            kind=refusal.kind,
            reason=refusal.reason,
        )
    offers.note(state, before)
    motions.note_asked(state, before, records)
    for close in block.close:
        pacing.begin(state, close.component)
        _note_close(state, before, close)
        motions.note_close(state, before, close)
    if block.close:
        updates.pull_all(state, state.in_flight.values())  # it may be an active host from now on
    motions.tell(state, before)
    amending.note(state, before)
    if state.ledger.withdrawn != before.withdrawn:
        state.exhausted = ""  # the recovery share of ε is available now
        state.unaffordable.clear()
        state.last_run = False
    for withdrawn in (w for w in state.ledger.withdrawn if w not in before.withdrawn):
        state.notice(
            "withdrawn", member=withdrawn.author, height=block.height, mode=withdrawn.mode, scope=withdrawn.scope
        )
    for name, component in state.ledger.components.items():
        older = before.components[name].erasures if name in before.components else ()
        gone = [e for e in older if e not in component.erasures]
        gone += [e for e in component.erasures if e not in older and name not in state.hosted]
        if gone:
            state.emit(ev.Erase(tuple(sorted({blob for erasure in gone for blob in erasure.blobs}))))
    updates.drop(state, before)
    if state.signing:
        _begin_height(state)
    else:
        maybe_sign(state)


def _note_close(state: NodeState, before: Ledger, close: Close) -> None:
    component = state.ledger.components[close.component]
    round_ = component.rounds[-1]
    counted = {entry.author for entry in round_.entries}
    if state.specs[close.component].is_statistic:
        counted = {entry.author for earlier in component.rounds for entry in earlier.entries}
    hosts = {*before.components[close.component].hosts, *component.hosts}
    if close.round == 1:  # the first hosts were still gathering
        hosts |= {member for member in state.ledger.members if member not in hosts}
    missing = {host: _why_missing(state, host, close) for host in hosts if host not in counted}
    state.notice(
        "round-closed",
        component=close.component,
        round=close.round,
        height=state.ledger.height,
        counted=[entry.author for entry in round_.entries],
        stale=sorted(entry.author for entry in round_.entries if entry.staleness),
        missing=missing,
        deadline_passed=_waited_out(state, close),
    )


def _waited_out(state: NodeState, close: Close) -> bool | None:
    """Whether a round's deadline had passed here when it was closed; None if this node saw none of its updates."""
    deadline = state.deadlines.get(close.component)
    return None if deadline is None or deadline.round != close.round else deadline.due


def _why_missing(state: NodeState, host: bytes, close: Close) -> str:
    if host not in state.ledger.members:
        return state.ledger.roll.seats[host].gone
    for update in state.in_flight.at((host, close.component, close.round)):
        if update.refused:
            return f"refused: {update.refused}"
        return "acknowledged too late" if len(update.acks) > 1 else "its update reached too few hosts"
    why = trainers.idle(state.ledger.offers, host, close.component)
    if why:
        return f"it does not train: {IDLE[why]}"
    return "no update" if host in state.neighbours or host == state.me else "no update, no connection from here"


def has_room(state: NodeState, value: Proposal | Vote, name: bytes) -> bool:
    """Whether to keep a vote for a later height: it is new, and its author has room there."""
    same = [vote for vote in state.later.get(value.height, ()) if vote.value.author == value.author]
    if any(vote.digest == name for vote in same):
        return False
    if isinstance(value, Proposal):
        return sum(isinstance(vote.value, Proposal) for vote in same) < WAITING_PROPOSALS
    return len(same) < WAITING_VOTES
