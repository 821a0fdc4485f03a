"""The node's core: one state machine from events to effects. It persists before it sends.

**A pure state machine.** `handle(state, events, now)` takes a batch of events (a message came, a timer ended, bytes are
stored, the learner is done, the operator asks; events.py) and returns a list of effects (write, send, set a timer,
fold, train). It opens no file and no socket, reads no clock (`now` is an argument) and draws no random number;
import-linter holds that. The shell (node/runtime/runtime.py) carries the effects out and turns their results into new
events. So the simulator runs this code on a simulated network, clock and disk (sims/simulator), a seed determines a
run, and a test is a list of events and a check of the effects. The pattern is known as sans-I/O (h11, iroh-gossip).

**Disk before network.** The effect `Persist` asks for a durable write. The shell puts every `Persist` of a batch into
one transaction, waits until the disk has it, and only then carries out the other effects, in order. So a room emits
`Persist(vote)` and `Publish(vote)` in one batch, and a crash at any instruction leaves one of two worlds: nothing
written and nothing sent, or written and perhaps sent. The third world, in which a vote was sent and forgotten, cannot
occur; a restart would vote a second time there (G8). New code keeps to this: the write and the message in the same
batch, and no write beside `Persist`. For privacy the same holds: `Persist(PutReservation)` is in the batch of its
`Train` (G6).

**The order of consequences.** `handle` absorbs the whole batch first: `_absorb` has one case for each event, notes
facts, and answers what needs an answer at once. `_advance` then draws the consequences, once for the batch: a hundred
messages cost one look at the ledger. In this order:

1. this node's own records, if it may sign: a withdrawal that waits, evidence of forks, motions about silent hosts,
   acknowledgements, update records, its offer, attestations;
2. proposed blocks are judged, deadlines of rounds are set;
3. a block is proposed if it is this node's turn; a height begins if there is work;
4. states are compared with the certified ones, and folded;
5. evaluation and training come last: they start from the newest state.

During a long answer from a neighbour (inbox.py) none of this runs until the last piece.

**The rooms.** There is one `NodeState` (state.py); rooms are modules of functions over it, and a room imports rooms
below it only (pyproject.toml, "The rooms of the core"). From the top:

    core          this file: dispatch and order
    inbox         messages of neighbours: cheap checks first, signatures only of news
    heights       agreement on the next block: propose, judge, decide
    feeds         records: admission, forks, evidence
    training      when to train, at which cost; withdrawing: own withdrawals
    updates       from a signed header to an update record
    spending      what own updates spent, after a disk was lost
    removals      whether this node contributes, pauses or rests, and what it does after its home forgot who was removed
    amending      what follows from a charter that changed
    folds, offers, motions, candidates    one subject each; none imports another
    catchup       what this node lacks, and certified states in place of history
    state         NodeState, and `append`, `emit`, `notice`, `refuse`
    pool, in_flight, progress, contribution           parts of the state, with classes of their own
    sync, messages, events, timers, reasons         types and their encoding

An error in a neighbour's bytes is a RemoteProtocolError. `handle` catches it for each event, counts it against the
peer and goes on (G9). Any other exception is a bug, and is not caught here.

Reading order: `handle`, `_absorb`, `_advance`, then the room that you need.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import assert_never

from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, genesis
from ...consensus.rounds import eligible
from ...crypto.errors import RemoteProtocolError
from ...crypto.identity import Identity
from ...protocol.charter import Charter
from ...protocol.records import GENESIS
from . import (
    amending,
    candidates,
    catchup,
    feeds,
    folds,
    heights,
    inbox,
    motions,
    offers,
    pacing,
    removals,
    spending,
    training,
    updates,
    withdrawing,
)
from . import events as ev
from .progress import PATIENCE
from .reasons import Reason
from .state import NodeState, Options
from .timers import (
    FoldDue,
    GatherDue,
    IdleDue,
    NextPiece,
    PaceDue,
    PostDue,
    PullDue,
    RoundDeadline,
    SyncDue,
    Timer,
    TrainDue,
    VoteTimeout,
)

_NEXT = ev.TimerFired(NextPiece())


def load_node(
    charter: Charter,
    identity: Identity,
    options: Options | Callable[[Ledger], Options],
    snapshot: ev.Snapshot,
) -> NodeState:
    """Return a node restored from its disk, from the founding charter. The next call is `start_node`.

    `options` may depend on the charter in force.
    """
    ledger = genesis(charter)
    for stored in snapshot.blocks:
        ledger = fold_block(ledger, stored.block, stored.records, trusted=True)
    state = NodeState(ledger, identity, options if isinstance(options, Options) else options(ledger), snapshot)
    state.pool.settle(state.ledger.heads)
    for record in snapshot.records:
        if state.pool.add(record, state.ledger.heads, agreed=True):
            feeds.note_fork(state, record)
    seq, head = state.pool.heads(state.ledger.heads).get(state.me, (0, GENESIS))
    state.head = (seq, head)
    for header in snapshot.headers:
        value = header.value
        state.acked[value.author, value.component, value.round] = header.digest
        component = state.ledger.components.get(value.component)
        dropped = bool(snapshot.flags.get(updates.dropped_flag(header.digest), 0))
        if component and not dropped and not updates.is_outdated(state, value.component, value.round, component.round):
            state.in_flight[header.digest] = updates.own_update(state, header)
    updates.restore_posted(state)
    updates.drop(state)
    amending.begin(state)
    offers.recall(state)
    pacing.recall(state, snapshot)
    spending.recall_earlier_keys(state, snapshot.blocks)
    return state


def start_node(state: NodeState, now: int) -> list[ev.Effect]:
    """Return the first effects. Nothing is signed until enough peers sent their records of this node."""
    state.now = now
    state.emit(ev.SetTimer(SyncDue(), state.options.sync_ms), ev.SetTimer(IdleDue(), state.options.idle_ms))
    for name, reason in state.withheld.items():
        state.notice("modality-withheld", "warning", modality=name, reason=reason)
    amending.tell(state)
    heights.maybe_sign(state)
    _advance(state)
    return state.drain()


def handle(state: NodeState, events: Iterable[ev.Event], now: int) -> list[ev.Effect]:
    """Absorb a batch of events and return every effect that follows."""
    state.now = now
    events = list(events)
    for event in events:
        peer = getattr(event, "peer", None)
        try:
            _absorb(state, event)
        except RemoteProtocolError as error:
            state.refuse(error.peer or peer or bytes(32), error)
    if not state.answers.steps or any(event != _NEXT for event in events):
        _advance(state)  # during an answer there are no consequences
    return state.drain()


def _absorb(state: NodeState, event: ev.Event) -> None:
    match event:
        case ev.Gossip():
            inbox.on_message(state, event.data)
        case ev.SyncReply():
            inbox.begin(state, event)
        case ev.PeerUp():
            state.neighbours.add(event.peer)
            if state.reports or len(state.neighbours) == 1:
                catchup.sync(state, event.peer)  # otherwise when the first answer has brought this node up to date
        case ev.PeerDown():
            state.neighbours.discard(event.peer)
            state.progress.more = -PATIENCE
        case ev.Configured():
            amending.on_configured(state, event)
        case ev.Readdressed():
            state.options = replace(state.options, addresses=event.addresses)
        case ev.TimerFired():
            _on_timer(state, event.timer)
        case ev.BlobStored() | ev.BlobRefused():
            updates.on_blob(state, event)
        case ev.Folded():
            folds.on_folded(state, event)
        case ev.FoldMissing():
            folds.on_blobs_missing(state, event)
        case ev.StateStored() | ev.StateMissing():
            catchup.on_state(state, event)
        case ev.LearnerReady():
            state.learner = event.components
            state.evaluated = ()
            offers.learner_ready(state)
        case ev.LearnerReads():
            state.learner = ()  # no run is reserved meanwhile, nor ever if the learner refuses the data
            offers.stop(state, Reason.READING)
        case ev.LearnerLost():
            offers.stop(state, Reason.LEARNER_LOST)
        case ev.BudgetAnswer():
            training.on_budget(state, event)
        case ev.Trained():
            training.on_trained(state, event)
        case ev.TrainingFailed():
            training.on_training_failed(state, event)
        case ev.RequestWithdrawal():
            withdrawing.on_withdraw(state, event)
        case ev.SetContributing():
            removals.set_contributing(state, event.on)
        case ev.SetPaused():
            removals.set_paused(state, event.on)
        case ev.SetQuiet():
            removals.set_quiet(state, event.on)
        case ev.ResumeTraining():
            removals.resume(state)
        case ev.Carry():
            motions.carry(state, event)
        case ev.ProposeMotion() | ev.Cast():
            motions.say(state, event)
        case _:
            assert_never(event)


def _on_timer(state: NodeState, timer: Timer) -> None:
    match timer:
        case NextPiece():
            inbox.go_on(state)
        case SyncDue():
            state.emit(ev.SetTimer(SyncDue(), state.options.sync_ms))
            if state.neighbours and not state.progress.goes_on(state.now):
                ordered = sorted(state.neighbours)
                catchup.sync(state, ordered[(state.now // max(1, state.options.sync_ms)) % len(ordered)])
        case IdleDue():
            state.idle_due = True
        case PostDue():
            state.posting = "due"
        case GatherDue():
            state.gather_due = True
        case TrainDue():
            state.failures = min(state.failures, 2)
            state.learn_partly = True
        case PullDue():
            updates.pull_all(state, state.in_flight.values())
        case FoldDue(component):
            if state.lacking.pop(component, None) is not None:
                state.folding.discard(component)
        case RoundDeadline(component, round_):
            deadline = state.deadlines.get(component)
            if deadline is not None and deadline.round == round_ and not deadline.due:
                ledger = candidates.current(state).state
                deadline.held = frozenset(entry.update for entry in eligible(state.charter, ledger, component))
                deadline.due = True
        case PaceDue(component):
            pacing.end(state, component)
        case VoteTimeout(height, view, step):
            if state.agreement is not None and height == state.agreement.height:
                heights.agree(state, state.agreement.timeout(view, step))
        case _:
            assert_never(timer)


def _advance(state: NodeState) -> None:
    if state.may_append():
        if state.withdraw_waits:
            withdrawing.on_withdraw(state)
        feeds.convict(state)
        motions.suspend_silent(state)
        updates.acknowledge(state)
        updates.post(state)
        offers.renew(state)  # with an update record, that it was the last one
        folds.attest(state)
    if state.agreement is not None:
        heights.judge(state)
    candidate = candidates.current(state)
    candidates.watch_deadlines(state, candidate.state)
    if state.agreement is not None and state.ask_view is not None and state.ask_view == state.agreement.view:
        heights.propose(state, state.ask_view)  # it had nothing to propose when the view began
        if state.agreement is not None:
            heights.judge(state)
    if state.agreement is not None and not state.agreement.started and candidates.has_work(state, candidate):
        heights.agree(state, state.agreement.start())
        heights.judge(state)
    folds.compare(state)
    folds.fold(state)
    training.evaluate(state)
    training.learn(state)
