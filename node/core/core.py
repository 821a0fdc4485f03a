"""The node's core: one state machine from events to effects. It persists before it says.

Reading order: `handle` takes a batch of events, `_on_*` absorb them, `_advance` then draws every consequence, in this
order: evidence of forks, acknowledgements of my updates, judging of proposals, starting a height, folding, training.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ...consensus import membership, trainers, withdrawal
from ...consensus.agreement import (
    Action,
    Agreement,
    Ask,
    Decided,
    Equivocation,
    Judge,
    Keep,
    Message,
    Say,
    Step,
    Wait,
)
from ...consensus.components import origin
from ...consensus.ledger import (
    Ledger,
    apply_records,
    check_record,
    closable,
    eligible,
    fold_block,
    genesis,
    has_contributed,
    is_stale,
    next_round,
    next_state,
    of_all_keys,
    order,
)
from ...crypto.errors import LocalProtocolError, RemoteProtocolError
from ...crypto.hashing import digest
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.blocks import Block, Certificate, Close, Head, Proposal, Vote, quorum
from ...protocol.charter import Charter
from ...protocol.claims import NO_EPSILON
from ...protocol.components import state_digest
from ...protocol.records import (
    GENESIS,
    IDLE,
    PAUSED,
    PROVABLE,
    Ack,
    Attest,
    Body,
    Evidence,
    Record,
    Update,
    Withdrawal,
    WithdrawalStatement,
    ack_message,
    body_of,
    kind_of,
    verify_ack,
)
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_gossip, sign
from ...protocol.update import UpdateHeader, check_header
from ..privacy import policy as governing
from . import catchup, incoming, motions, offers
from . import contribution as contributing
from . import events as ev
from .flights import Flight, Flights, slot
from .messages import Acked, Kind, SyncRequest, message, tag
from .pool import Pool

_NEXT = ev.TimerFired(incoming.TIMER)
RETRY_MS = 2000
MOST_FAILURES = 3
NOT_YET = 2**63 - 1  # the place in a feed of what is not in it
MOST_ACKS = 128  # in an update record: of more hosts only a quorum's, for a fork of it has to fit into a proof
MOST_REFUSALS = 1024  # pairs of peer and reason that are counted
URGENT = frozenset({"evidence", "withdrawal", "motion", "ballot"})  # each gets a block at once
COMMUTING = frozenset({"offer", "update", "attest"})
GATHER_MS = 150  # how long one component waits for the others of the same draws


@dataclass(frozen=True, slots=True)
class Options:
    """This node's own choices. Milliseconds: see docs/architecture.md for how to choose them.

    `hosted` components are offered, acknowledged, attested and, if the plan says so, trained. `followed` ones are only
    folded, from bytes that are already agreed on: training and evaluation need their states. `idle`: why it is to train
    nothing at all, one of protocol.records.IDLE.
    """

    hosted: tuple[str, ...]
    followed: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    idle: str = ""
    plan: contributing.Plan = field(default_factory=contributing.Plan)
    propose_ms: int = 1000
    idle_ms: int = 1000
    sync_ms: int = 2000


@dataclass(slots=True)
class Deadline:
    """A round's deadline by this node's clock; `held` are the acknowledged updates known when it passed."""

    round: int
    due: bool = False
    held: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """All that this node could put under the next cut, and the ledger with it, before it closes anything.

    `commutes`: the order of its records is all the same. `urgent`: they are worth a block at once.
    """

    height: int
    version: int
    state: Ledger
    chains: Mapping[bytes, tuple[Signed[Record], ...]]
    commutes: bool
    urgent: bool

    @property
    def records(self) -> list[Signed[Record]]:
        """The records in the order of the ledger."""
        return order(record for chain in self.chains.values() for record in chain)


class Core:
    """One node. See the module's docstring; `Options` and `Charter` fix what it does, `Snapshot` what it has done."""

    def __init__(self, charter: Charter, identity: Identity, options: Options, snapshot: ev.Snapshot) -> None:
        self.charter = charter
        self.identity = identity
        self.me = identity.public_key
        self.federation = charter.federation
        self.options = options
        self.specs = {spec.name: spec for spec in charter.components}
        policies = options.plan.policies or governing.of_charter(charter)
        self.policies = {policy.modality: policy for policy in policies}
        known = [name for name in sorted(options.hosted) if name in self.specs]
        self.withheld = governing.withheld(charter, policies, known)
        self.hosted = governing.admitted(known, self.withheld)
        others = [name for name in sorted(options.followed) if name in self.specs and name not in known]
        self.followed = governing.admitted(others, self.withheld)
        self.held = tuple(sorted((*self.hosted, *self.followed)))
        self.idle = options.idle or contributing.barred(options.plan, charter.learning)
        self._engaged = [] if self.idle else contributing.engaged(options.plan, self.hosted)
        used = set(governing.used(charter, self.held, self.withheld, self._engaged))
        self._fed = [name for name in self._engaged if charter.learning.upstream(name) & used]
        self.ledger = genesis(charter)
        self.pool = Pool(4 * charter.rules.records_per_height)
        self._cached: Candidate | None = None
        self.agreement: Agreement | None = None
        self.neighbours: set[bytes] = set()
        self.reports: set[bytes] = set()
        self.signing = False
        self.muted: set[int] = set()
        self.later: dict[int, list[Message]] = {}
        self.flights = Flights()
        self._unacked: dict[bytes, None] = {}  # flights whose bytes are here, until they are acknowledged or refused
        self.acked: dict[tuple[bytes, str, int], bytes] = {}
        self.deadlines: dict[str, Deadline] = {}
        self.judging: dict[bytes, Block] = {}
        self.prepared: dict[bytes, tuple[Ledger, list[Signed[Record]]]] = {}
        self._unclosed: dict[bytes, Ledger] = {}
        self.folding: set[str] = set()
        self.lacking: dict[str, set[bytes]] = {}
        self.pulls: dict[bytes, bytes] = {}
        self.proofs: dict[bytes, tuple[Signed[Record], Signed[Record]]] = {}
        self.doubted: set[str] = set()  # differed from a certified state, and is computed again
        self.halted: set[str] = set()  # still differed: no acknowledgement, attestation or training
        self.folded: dict[str, tuple[int, int, bytes, bytes]] = {}
        self.bases: dict[tuple[str, int, int], bytes] = {}
        self.movement: dict[str, int] = {}
        self.receipts: dict[tuple[bytes, str], tuple[int, tuple[tuple[str, bytes], ...]]] = {}
        self.learner: tuple[str, ...] = ()
        self.draw: contributing.Draw | None = None
        self.draws: list[ev.PutDraw] = list(snapshot.draws)
        self.failures = 0
        self.silent: dict[str, dict[bytes, int]] = {}  # component → host → closed rounds without a word of it
        self.asked: dict[str, set[bytes]] = {}  # component → who said since its last close that it trains it
        self.waited: dict[str, dict[bytes, int]] = {}  # as `silent`: rounds that it was asked for since it counted
        self.progress = catchup.Progress()
        self.answers = incoming.Answers()
        self.exhausted = ""
        self.unaffordable = ""  # why no statistic is contributed, though the rounds go on
        self.forecast: dict[str, tuple[int, dict[str, int]]] = {}  # modality → rounds left, last round by component
        self.evaluated: tuple[tuple[str, int, int, bytes], ...] = ()
        self.returned: dict[str, int] = {}  # kind → own records that this disk lacked at the start, and peers had
        self.refusals: dict[tuple[bytes, str], int] = {}
        self.idle_due = False
        self.stopped: dict[str, str] = {}  # component → why this node trains it no more, until it has trained it again
        self.contributing = bool(snapshot.flags.get("contributing", 1))
        self._learn_partly = self._learn_waits = False
        self._withdraw_waits = bool(snapshot.flags.get("withdraw", 0))
        self._ask_view: int | None = None
        self._counted: set[bytes] = set()
        self._gather_due = False
        self._gather_height = -1
        self._posting = ""  # "armed" or "due": my ready updates wait for the others of their draw
        self._asked = -1000
        self._train_began = 0
        self._now = 0
        self._out: list[ev.Effect] = []
        self._restore(snapshot)

    # ---- start

    def _restore(self, snapshot: ev.Snapshot) -> None:
        for stored in snapshot.blocks:
            self.ledger = fold_block(self.charter, self.ledger, stored.block, stored.records, trusted=True)
        self.pool.settle(self.ledger.heads)
        for record in snapshot.records:
            if self.pool.add(record, self.ledger.heads, agreed=True):
                self._note_fork(record)
        seq, head = self.pool.heads(self.ledger.heads).get(self.me, (0, GENESIS))
        self.head = (seq, head)
        for header in snapshot.headers:
            value = header.value
            self.acked[value.author, value.component, value.round] = header.digest
            component = self.ledger.components.get(value.component)
            dropped = bool(snapshot.flags.get(_dropped(header.digest), 0))
            if component and not dropped and not self._stale(value.component, value.round, component.round):
                self.flights[header.digest] = self._my_flight(header)
        self._restore_posted()
        self._drop_flights()
        for name in self.held:
            self.bases[name, 0, 0] = state_digest(name, origin(self.specs[name]))
        self._messages = list(snapshot.messages)
        offers.recall(self)
        self._recall_earlier_keys(snapshot.blocks)

    def _recall_earlier_keys(self, blocks: Iterable[ev.StoredBlock]) -> None:
        """G6: who took a lost key's place has spent what its updates' receipts list, though its own disk is new."""
        self._read_keys = keys = set(membership.earlier(self.ledger.roll, self.me))
        for stored in blocks if keys else ():
            for record in stored.records:
                body = _body(record) if record.value.author in keys else None
                if isinstance(body, Update):
                    self._recall_draws(open_gossip(UpdateHeader, body.header, self.federation, trusted=True).value)

    def _restore_posted(self) -> None:
        """Recall which acknowledgements my update records already carry."""
        for component in self.ledger.components.values():
            for pending in component.pending:
                if pending.update in self.flights:
                    self.flights[pending.update].posted = pending.acks
        for record in self.pool.chain(self.me, self.ledger.heads):
            body = _body(record)
            if isinstance(body, Update):
                flight = self.flights.get(digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]))
                if flight is not None:
                    flight.posted = frozenset(ack.host for ack in body.acks)

    def _my_flight(self, header: Signed[UpdateHeader]) -> Flight:
        """A flight whose bytes this node holds and acknowledged."""
        signature = self.identity.sign("ack", ack_message(self.federation, header.digest))
        return Flight(header, {self.me: Ack(self.me, signature)}, stored=True)

    def start(self, now: int) -> list[ev.Effect]:
        """Return the first effects. Nothing is signed until enough peers reported what they know of this node."""
        self._now = now
        self._emit(ev.SetTimer("sync", self.options.sync_ms), ev.SetTimer("idle", self.options.idle_ms))
        for name, reason in self.withheld.items():
            self._notice("modality-withheld", "warning", modality=name, reason=reason)
        self._maybe_sign()
        self._advance()
        return self._drain()

    def _maybe_sign(self) -> None:
        """G8: a restored backup must not sign twice, so first hear what quorum-1 peers know of this node."""
        if self.signing or self.me not in self.ledger.members:
            return
        if len(self.reports.intersection(self.ledger.members)) < self.ledger.quorum - 1:
            return
        if not self._read_keys.issuperset(membership.earlier(self.ledger.roll, self.me)):
            return  # it has just taken a lost key's place: started again, it reads what that one spent
        self.signing = True
        self._notice("signing", height=self.ledger.height, reports=len(self.reports))
        if self.returned:
            self._notice("home-was-older", "warning", own_records_returned=sum(self.returned.values()))
        for flight in self.flights.values():
            self._emit(ev.Publish(message(Kind.HEADER, flight.header.wire)))
        self._begin_height()

    # ---- events

    def handle(self, events: Iterable[ev.Event], now: int) -> list[ev.Effect]:
        """Absorb a batch of events and return every effect that follows."""
        self._now = now
        events = list(events)
        for event in events:
            peer = getattr(event, "peer", None)
            try:
                self._absorb(event)
            except RemoteProtocolError as error:
                self._refuse(error.peer or peer or bytes(32), error)
        if not self.answers.steps or any(event != _NEXT for event in events):
            self._advance()  # in the middle of an answer nothing follows
        return self._drain()

    def _absorb(self, event: ev.Event) -> None:
        if isinstance(event, ev.Gossip):
            self._on_message(event.data)
        elif isinstance(event, ev.SyncReply):
            incoming.begin(self, event)
        elif isinstance(event, ev.PeerUp):
            self.neighbours.add(event.peer)
            if self.reports or len(self.neighbours) == 1:
                self._sync(event.peer)  # else when the first has brought this node up to date: history comes once
        elif isinstance(event, ev.PeerDown):
            self.neighbours.discard(event.peer)
            self.progress.more = -catchup.PATIENCE
        elif isinstance(event, ev.Readdressed):
            self.options = replace(self.options, addresses=event.addresses)
        elif isinstance(event, ev.TimerFired):
            self._on_timer(event.name)
        elif isinstance(event, ev.BlobStored | ev.BlobRefused):
            self._on_blob(event)
        elif isinstance(event, ev.Folded):
            self._on_folded(event)
        elif isinstance(event, ev.FoldMissing):
            self._on_missing(event)
        elif isinstance(event, ev.LearnerReady):
            self.learner = event.components
            self.evaluated = ()
            offers.learner_ready(self)
        elif isinstance(event, ev.LearnerLost):
            offers.stop(self, PAUSED)
        elif isinstance(event, ev.BudgetAnswer):
            self._on_budget(event)
        elif isinstance(event, ev.Trained):
            self._on_trained(event)
        elif isinstance(event, ev.TrainingFailed):
            self._on_training_failed(event)
        elif isinstance(event, ev.RequestWithdrawal):
            self._on_withdraw(event)
        elif isinstance(event, ev.SetContributing):
            self._set_contributing(event.on)
        elif isinstance(event, ev.Carry):
            motions.carry(self, event)
        elif isinstance(event, ev.Move | ev.Cast):
            motions.say(self, event)
        elif isinstance(event, ev.StateStored | ev.StateMissing):
            catchup.on_state(self, event)

    def _on_message(self, data: bytes) -> bool:
        """Take what a neighbour told; False if it was no news, by what is cheaper to ask than whose signature it is."""
        if not data:
            raise RemoteProtocolError("malformed", "an empty message")
        kind, wire = data[0], data[1:]
        if not incoming.is_news(self, kind, wire):
            return False
        if kind == Kind.RECORD:
            self._on_record(wire)
        elif kind == Kind.HEADER:
            self._on_header(open_gossip(UpdateHeader, wire, self.federation))
        elif kind == Kind.ACK:
            self._on_ack(schema.load(Acked, wire, Acked.LIMIT))
        elif kind == Kind.PROPOSAL:
            self._on_vote(self._open(Proposal, wire))
        elif kind == Kind.VOTE:
            self._on_vote(self._open(Vote, wire))
        else:
            raise RemoteProtocolError("unknown-message", f"kind {kind}")
        return True

    def _open(self, cls: type[Proposal] | type[Vote], wire: bytes) -> Message:
        """Decode a proposal or vote, checking its signature only if it is news."""
        known = digest(cls.DOMAIN, wire[SIGNATURE_SIZE:])
        if self.agreement is not None and known in self.agreement.seen:
            return self.agreement.seen[known]
        return _open_message(cls, wire, self.federation)

    def _on_record(self, wire: bytes) -> None:
        if digest(Record.DOMAIN, wire[SIGNATURE_SIZE:]) in self.pool.records:
            return
        record = open_gossip(Record, wire, self.federation)
        author = record.value.author
        check_record(record, self.federation)
        if author not in self.ledger.members:
            if self.progress.behind(self.ledger.height):
                return  # admitted by a block that this node does not have yet
            raise RemoteProtocolError("stranger", "the record's author is not a member", author)
        seq, head = self.ledger.heads.get(author, (0, GENESIS))
        if record.value.seq <= seq:
            if record.value.seq == seq and record.digest != head:
                raise RemoteProtocolError("fork", f"seq {seq} is agreed, and another record", author)
            return
        if self.pool.add(record, self.ledger.heads, agreed=self._wanted(record.digest)):
            self._note_fork(record)
            self._emit(ev.Persist(ev.PutRecord(record)))
            if author == self.me:
                self._adopt_own(record)
                self._recall_record(record)
            self._note_update(record)

    def _wanted(self, identifier: bytes) -> bool:
        """Whether a proposed block cannot be judged for want of this record (a third branch of a fork, say)."""
        return any(
            self.pool.missing(block.cut, self.ledger.heads) == identifier
            for key, block in self.judging.items()
            if key not in self.prepared
        )

    def _note_fork(self, record: Signed[Record]) -> None:
        value = record.value
        same = self.pool.by_seq[value.author][value.seq]
        if len(same) < 2:
            return
        a, b = self.pool.records[same[0]], self.pool.records[same[1]]
        known = self.proofs.get(value.author)
        if known is None or (not _provable(*known) and _provable(a, b)):
            self.proofs[value.author] = (a, b)

    def _adopt_own(self, record: Signed[Record]) -> None:
        """A peer returned a record that this node signed before its disk was lost or set back: go on after it."""
        heads = self.pool.heads(self.ledger.heads)
        self.head = max(self.head, heads.get(self.me, (0, GENESIS)))
        self._notice("own-record-recovered", "warning", seq=record.value.seq)

    def _recall_record(self, record: Signed[Record]) -> None:
        if record.value.author != self.me:
            return
        self.returned[record.value.kind] = self.returned.get(record.value.kind, 0) + 1
        body = _body(record)
        if isinstance(body, Update):
            self._recall_draws(open_gossip(UpdateHeader, body.header, self.federation).value)

    def _recall_draws(self, header: UpdateHeader) -> None:
        """G6: what an own update's receipts list is spent, though this disk was set back and does not know it."""
        put = contributing.recalled(header, self.draws, self.charter.learning)
        if put is None:
            return
        self.draws.append(put)
        self.draw = None  # what is under way was reckoned without these: its receipt would say too little
        self._emit(ev.Persist(put))
        self._notice(
            "spending-recovered",
            "warning",
            draws=sum(d.count for _, d in put.recalled),
            epsilon=contributing.told(dict(put.claims)),
        )

    def _note_update(self, record: Signed[Record]) -> None:
        """An update record's header may be news here."""
        if record.value.kind != "update":
            return
        body = body_of(record.value)
        if not isinstance(body, Update):
            return
        if digest(UpdateHeader.DOMAIN, body.header[SIGNATURE_SIZE:]) not in self.flights:
            self._on_header(open_gossip(UpdateHeader, body.header, self.federation))

    def _watch_deadlines(self, state: Ledger) -> None:
        """The first acknowledged update of a round starts its deadline."""
        for name in state.components:
            open_round = self.ledger.components[name].round + 1
            known = self.deadlines.get(name)
            if known is not None and known.round >= open_round:
                continue
            if any(entry.staleness == 0 for entry in eligible(self.charter, state, name)):
                self.deadlines[name] = Deadline(open_round)
                self._emit(ev.SetTimer(f"deadline:{name}:{open_round}", self.charter.rules.round_deadline))

    def _on_header(self, header: Signed[UpdateHeader]) -> None:
        value = header.value
        if value.author not in self.ledger.members:
            if self.progress.behind(self.ledger.height):
                return
            raise RemoteProtocolError("stranger", "the update's author is not a member", value.author)
        check_header(value, self.charter)
        component = self.ledger.components[value.component]
        place = slot(value)
        if value.author == self.me and self.acked.get(place) != header.digest:
            self._recall_draws(value)
        spec = self.specs[value.component]
        latest = next_round(spec, component, self.ledger.withdrawn, value.author)
        if value.round > latest + 1 or self._void(value, header.digest):
            return  # too stale to count, or this node is behind: anti-entropy brings it again
        if value.author == self.me:
            # A node's own updates come from its own disk only, but one that its disk lost must not be made again (G8).
            self.acked.setdefault(place, header.digest)
        if header.digest in self._counted or value.author == self.me:
            return
        if self.acked.get(place, header.digest) != header.digest:
            raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
        if len(self.flights.at(place)) >= 2:
            raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", value.author)
        if self._taken(header):
            raise RemoteProtocolError("copied-payload", f"{value.component} round {value.round}", value.author)
        self._read_receipt(value)
        flight = self.flights[header.digest] = Flight(header)
        self._pull_all((flight,))

    def _taken(self, header: Signed[UpdateHeader]) -> bool:
        """Whether these bytes are known to be of another place: they begin with the one place that they are for."""
        value = header.value
        if any(flight.stored for flight in self.flights.with_bytes(value.blob)):
            return True
        return self.ledger.components[value.component].counted.get(value.blob, header.digest) != header.digest

    def _read_receipt(self, value: UpdateHeader) -> None:
        """A receipt lists every draw of its author: it grows by what each update declares, and adds up to its ε."""
        engaged = tuple((entry.component, entry.base) for entry in value.engaged)
        grew = False
        for claim in value.claims:
            if not claim.draws:
                continue
            total = sum(draw.count for draw in claim.draws)
            before, known = self.receipts.get((value.author, claim.modality), (0, ()))
            if engaged != known and total < before + value.steps:
                facts = {"modality": claim.modality, "draws": total, "before": before}
                self._notice("receipt-shrinks", "warning", member=value.author, **facts)
            if total > before:
                self.receipts[value.author, claim.modality] = (total, engaged)
                grew = True
        if grew:
            self._emit(ev.CheckReceipt(value))

    def _pull(self, flight: Flight) -> None:
        """Get an update's bytes. Answers name the bytes only, so one pull at a time for equal bytes (copies)."""
        value = flight.header.value
        if value.blob in self.pulls:
            return
        flight.pulling = True
        self.pulls[value.blob] = flight.header.digest
        sources = (value.author, *(host for host in flight.acks if host not in (value.author, self.me)))
        self._emit(ev.Pull(value.blob, value.size, value, sources))

    def _on_ack(self, ack: Acked) -> None:
        flight = self.flights.get(ack.header)
        if ack.federation != self.federation:
            raise RemoteProtocolError("wrong-federation", "acknowledgement", ack.host)
        if flight is None or ack.host in flight.acks or ack.host not in self.ledger.members:
            return
        receipt = Ack(ack.host, ack.signature)
        if not verify_ack(self.federation, ack.header, receipt):
            raise RemoteProtocolError("false-receipt", "an acknowledgement's signature does not match", ack.host)
        flight.acks[ack.host] = receipt

    def _on_vote(self, vote: Message) -> None:
        height = vote.value.height
        if vote.value.author not in self.ledger.members or height <= self.ledger.height:
            return
        mine = vote.value.author == self.me
        if height == self.ledger.height + 1 and self.agreement is not None:
            if mine and vote.digest not in self.agreement.seen:
                self._agree(self.agreement.fall_silent())
                self.muted.add(height)
                self._notice("own-vote-recovered", "warning", height=height)
            self._agree(self.agreement.receive(vote))
        elif height <= self.ledger.height + incoming.HEIGHTS_AHEAD and incoming.has_room(self, vote.value, vote.digest):
            if height not in self.later:  # who signs nothing, or is no member, takes none of them out again
                self.later = {h: found for h, found in self.later.items() if h > self.ledger.height}
            self.later.setdefault(height, []).append(vote)

    def _take_under(self, block: Block, sent: dict[bytes, bytes]) -> None:
        """Take the records under a decided or proposed cut from an answer, whatever else is known of their feeds."""
        for head in block.cut:
            if head.author not in self.ledger.members:
                continue  # the fold refuses the block by name; strangers' records would stay for ever
            agreed = self.ledger.heads.get(head.author, (0, GENESIS))[0]
            wanted = head.digest
            for _ in range(min(head.seq - agreed, self.charter.rules.records_per_height)):
                known = self.pool.records.get(wanted)
                if known is None and wanted in sent:
                    known = open_gossip(Record, sent.pop(wanted), self.federation)
                    if known.value.author != head.author:
                        break
                    try:
                        check_record(known, self.federation)
                    except RemoteProtocolError as error:
                        self._refuse(head.author, error)
                        break
                    if self.pool.add(known, self.ledger.heads, agreed=True):
                        self._note_fork(known)
                        self._emit(ev.Persist(ev.PutRecord(known)))
                        self._recall_record(known)
                if known is None or known.value.author != head.author:
                    break
                wanted = known.value.prev

    def _on_timer(self, name: str) -> None:
        what, *rest = name.split(":")
        if what == incoming.TIMER:
            incoming.go_on(self)
        elif what == "sync":
            self._emit(ev.SetTimer("sync", self.options.sync_ms))
            if self.neighbours and not self.progress.goes_on(self._now):
                ordered = sorted(self.neighbours)
                self._sync(ordered[(self._now // max(1, self.options.sync_ms)) % len(ordered)])
        elif what == "idle":
            self.idle_due = True
        elif what == "post":
            self._posting = "due"
        elif what == "gather":
            self._gather_due = True
        elif what == "learn":
            self.failures = min(self.failures, 2)
            self._learn_partly = True
        elif what == "pull":
            self._pull_all(self.flights.values())
        elif what == "fold":
            if self.lacking.pop(rest[0], None) is not None:
                self.folding.discard(rest[0])
        elif what == "deadline":
            known = self.deadlines.get(rest[0])
            if known is not None and known.round == int(rest[1]) and not known.due:
                state = self._candidate().state
                known.held = frozenset(entry.update for entry in eligible(self.charter, state, rest[0]))
                known.due = True
        elif what == "agree" and self.agreement is not None and int(rest[0]) == self.agreement.height:
            self._agree(self.agreement.timeout(int(rest[1]), Step(int(rest[2]))))

    # ---- update bytes and folds

    def _on_blob(self, event: ev.BlobStored | ev.BlobRefused) -> None:
        flight = self.flights.get(self.pulls.pop(event.blob, b""))
        refused = ""
        if flight is not None:
            flight.pulling = False
            if isinstance(event, ev.BlobStored):
                flight.stored = True
                self._unacked[flight.header.digest] = None
            elif event.reason not in ("unavailable", "blob-digest"):  # these two blame the source, not the author
                refused = flight.refused = event.reason
        if isinstance(event, ev.BlobStored):
            if flight is None:
                self._erase_unneeded({event.blob})  # G7: withdrawn, expelled or outdated while it was on its way
            self._found(event.blob)
        elif not refused:
            self._emit(ev.SetTimer("pull", RETRY_MS))
        if refused or isinstance(event, ev.BlobStored):
            self._pull_all(self.flights.with_bytes(event.blob))  # another header that names the same bytes: its turn
        if refused and flight is not None:
            raise RemoteProtocolError(refused, flight.header.value.component, flight.header.value.author)

    def _pull_all(self, flights: Iterable[Flight]) -> None:
        """Get the bytes of updates that this node is asked to acknowledge: only active hosts' receipts count."""
        for flight in flights:
            component = self.ledger.components[flight.header.value.component]
            if component.round and component.hosts and self.me not in component.hosts:
                continue
            if flight.header.value.component in self.hosted and not (flight.stored or flight.pulling or flight.refused):
                self._pull(flight)

    def _found(self, blob: bytes) -> None:
        """A fold that lacked bytes goes on when it has them all."""
        for name, blobs in list(self.lacking.items()):
            blobs.discard(blob)
            if not blobs:
                del self.lacking[name]
                self.folding.discard(name)

    def _acknowledge(self) -> None:
        """Sign what this host holds: bytes on disk, checks passed, trained from the state that this node knows."""
        for key in list(self._unacked):
            flight = self.flights.get(key)
            if flight is None or flight.refused or self.me in flight.acks:
                del self._unacked[key]
                continue
            value = flight.header.value
            if value.component in self.halted:
                continue
            base = self.bases.get((value.component, value.round - 1, value.epoch))
            if self.specs[value.component].additive:
                base = value.base  # of no state
            if base is None and (value.epoch, value.round - 1) > self._folded_to(value.component):
                continue  # this node has not folded that far yet
            if base is not None and base != value.base:
                flight.refused = "base-mismatch"
                self._refuse(value.author, RemoteProtocolError("base-mismatch", value.component, value.author))
            elif self.acked.setdefault(flight.slot, flight.header.digest) == flight.header.digest:
                signature = self.identity.sign("ack", ack_message(self.federation, flight.header.digest))
                flight.acks[self.me] = Ack(self.me, signature)
                self._emit(ev.Persist(ev.PutHeader(flight.header)))
                said = _wrap_ack(self.federation, flight.header.digest, flight.acks[self.me])
                self._emit(ev.Publish(said, to=value.author))
            else:
                flight.refused = "second-header"

    def _folded_to(self, name: str) -> tuple[int, int]:
        round_, epoch, _, _ = self.folded.get(name, (0, 0, b"", b""))
        return (epoch, round_)

    def _post_updates(self) -> None:
        """Write my update records once a quorum of the active hosts acknowledged.

        Those of one draw wait for each other a little, so that they share a write and a message.
        """
        ready: list[tuple[Flight, frozenset[bytes], int]] = []
        waiting = False
        for flight in self.flights.of(self.me):
            value = flight.header.value
            if self.me not in flight.acks:
                continue
            component = self.ledger.components[value.component]
            if self._stale(value.component, value.round, component.round):
                continue
            hosts = set(component.hosts)
            if component.round == 0:  # the first hosts are still gathering: count all that are known to offer
                hosts |= set(self._candidate().state.components[value.component].hosts)
            have = frozenset(flight.acks) & hosts
            need = quorum(max(1, len(hosts)), self.ledger.fault_model)
            if len(flight.posted & hosts) < need:
                waiting |= len(have) < need
                if len(have) >= need:
                    ready.append((flight, have, need))
        if ready and waiting and self._posting != "due":
            if self._posting != "armed":
                self._posting = "armed"
                self._emit(ev.SetTimer("post", GATHER_MS))
            return
        self._posting = ""
        for flight, have, need in ready:
            # All of them, so that the rest still is a quorum when a host goes; of very many hosts, what fits a record.
            named = sorted(have) if len(have) <= MOST_ACKS else sorted(have)[:need]
            flight.posted = frozenset(named)
            self._append(Update(flight.header.wire, tuple(flight.acks[host] for host in named)))

    def _current(self, name: str) -> bool:
        """Whether a component is folded up to the last frozen list."""
        component, done = self.ledger.components[name], self.folded.get(name)
        return done is not None and done[:3] == (component.round, component.epoch, component.chain)

    def _fold(self) -> None:
        if self.progress.goes_on(self._now):
            return  # nobody keeps the state of this height, and its bytes would be fetched for nothing
        for name in self.held:
            component = self.ledger.components[name]
            if not self._current(name) and name not in self.folding and name not in self.halted:
                self.folding.add(name)
                self._emit(ev.Fold(name, component.round, component.epoch, component.rounds))

    def _on_folded(self, event: ev.Folded) -> None:
        self.folding.discard(event.component)
        self.folded[event.component] = (event.round, event.epoch, event.chain, event.digest)
        self.bases[event.component, event.round, event.epoch] = event.digest
        self.movement[event.component] = event.movement
        for key in [k for k in self.bases if k[0] == event.component and k[1] and k[1] < event.round - 16]:
            del self.bases[key]
        if event.saturated:
            self._notice("saturated", "warning", component=event.component, round=event.round, count=event.saturated)

    def _on_missing(self, event: ev.FoldMissing) -> None:
        """Agreed bytes are missing here: fetch them by digest from whoever has them, then fold again."""
        component = self.ledger.components[event.component]
        if catchup.take_state(self, component, event.blobs):
            return
        entries = {e.blob: e for round_ in component.rounds for e in round_.entries}
        self.lacking[event.component] = set(event.blobs)
        for blob in event.blobs:
            if blob in entries and blob not in self.pulls:
                self.pulls[blob] = b""
                others = tuple(host for host in component.hosts if host != entries[blob].author and host != self.me)
                self._emit(ev.Pull(blob, entries[blob].size, None, (entries[blob].author, *others)))
        self._emit(ev.SetTimer(f"fold:{event.component}", RETRY_MS))

    def _attest(self) -> None:
        """Sign the states that this host holds, all components of a round together."""
        if (self.folding & set(self.hosted)) - self.lacking.keys():
            return
        for name in self.hosted:
            component = self.ledger.components[name]
            if not self._current(name) or not component.rounds or name in self.halted:
                continue
            key = (component.round, component.epoch, self.me)
            mine = any(item[:3] == key for item in component.attests)
            if self.me in component.hosts and not mine and (name, *key[:2]) not in self._attested():
                self._append(Attest(name, component.round, component.epoch, self.folded[name][3]))

    def _compare(self) -> None:
        """‡ Whose state is not the certified one computes it again from the bytes; if it still differs, halts.

        Taking over another host's state would be an operator's act.
        """
        for name in self.held:
            component = self.ledger.components[name]
            certified = component.certified
            if certified is None or certified.epoch != component.epoch or name in self.halted:
                continue
            mine = self.bases.get((name, certified.round, certified.epoch))
            if mine is None:
                continue
            if mine == certified.digest:
                if name in self.doubted and name not in self.folding:
                    self.doubted.discard(name)
                    self._notice("state-mended", "warning", component=name, round=certified.round)
            elif name not in self.doubted:
                self._notice("state-differs", "error", component=name, round=certified.round, mine=mine.hex())
                self.doubted.add(name)
                self.folding.add(name)
                self.folded.pop(name, None)
                for key in [key for key in self.bases if key[0] == name and key[1]]:
                    del self.bases[key]
                rounds = tuple(round_ for round_ in component.rounds if round_.number <= certified.round)
                self._emit(ev.Fold(name, certified.round, certified.epoch, rounds, fresh=True))
            elif name not in self.folding:
                self.halted.add(name)
                self._notice("component-halted", "error", component=name, round=certified.round, mine=mine.hex())

    def _attested(self) -> set[tuple[str, int, int]]:
        found = set()
        for record in self.pool.chain(self.me, self.ledger.heads):
            if record.value.kind == "attest":
                body = _body(record)
                if isinstance(body, Attest):
                    found.add((body.component, body.round, body.epoch))
        return found

    # ---- agreement

    def _begin_height(self) -> None:
        height = self.ledger.height + 1
        restored = [data for known, data in self._messages if known == height]
        self.judging.clear()
        self.prepared.clear()
        self._unclosed.clear()
        self.idle_due = self._gather_due = False
        self._ask_view = None
        if not self.signing or self.me not in self.ledger.members:
            self.agreement = None
            return
        self._emit(ev.SetTimer("idle", self.options.idle_ms))
        self.agreement = Agreement(self.identity, self.federation, height, self.ledger.members, self.ledger.fault_model)
        own: list[Message] = []
        for data in restored:
            cls = Proposal if data[0] == Kind.PROPOSAL else Vote
            own.append(_open_message(cls, data[1:], self.federation, trusted=True))
        waiting = self.later.pop(height, [])
        known = {item.digest for item in own}
        if any(vote.value.author == self.me and vote.digest not in known for vote in waiting):
            self.agreement.mute = True
            self._notice("own-vote-recovered", "warning", height=height)
        self._agree(self.agreement.restore(own))
        for vote in waiting:
            if self.agreement is not None and self.agreement.height == height:
                try:
                    self._agree(self.agreement.receive(vote))
                except RemoteProtocolError as error:
                    self._refuse(vote.value.author, error)

    def _agree(self, actions: Sequence[Action]) -> None:
        agreement = self.agreement
        assert agreement is not None
        for action in actions:
            if isinstance(action, Say):
                for item in (*action.proof, action.message):
                    self._emit(ev.Persist(ev.PutMessage(agreement.height, _wrap(item))))
                self._emit(ev.Publish(_wrap(action.message)))
            elif isinstance(action, Keep):
                for item in action.proof:
                    self._emit(ev.Persist(ev.PutMessage(agreement.height, _wrap(item))))
            elif isinstance(action, Judge):
                self.judging[action.identifier] = action.block
            elif isinstance(action, Wait):
                delay = self.options.propose_ms * (2 + action.view) // 2
                name = f"agree:{agreement.height}:{action.view}:{int(action.step)}"
                self._emit(ev.SetTimer(name, delay))
            elif isinstance(action, Ask):
                self._ask_view = action.view
                self._propose(action.view)
            elif isinstance(action, Equivocation):
                if self._may_append() and action.a.value.author != self.me:
                    self._append(Evidence("double-vote", action.a.wire, action.b.wire))
                    self._notice("double-vote", "error", member=action.a.value.author)
            elif isinstance(action, Decided):
                self._decide(action.block, action.certificate)
                return

    def _candidate(self) -> Candidate:
        """Return all that this node could put under the next cut, within the quotas."""
        known, height, version = self._cached, self.ledger.height, self.pool.version
        if known is not None and (known.height, known.version) == (height, version):
            return known
        found = self._grown(known) if known is not None and known.height == height and known.commutes else None
        if found is None:
            chains = {author: chain for author in self.ledger.members if (chain := self._within_quotas(author))}
            new = [record for chain in chains.values() for record in chain]
            commutes = all(record.value.kind in COMMUTING for record in new)
            state = apply_records(self.charter, self.ledger, order(new))
            inert = {(refusal.author, refusal.seq) for refusal in state.refusals}  # a liar may write them without end
            urgent = any(r.value.kind in URGENT and (r.value.author, r.value.seq) not in inert for r in new)
            found = Candidate(height, version, state, chains, commutes, urgent)
        self.pool.touched.clear()
        self._cached = found
        return found

    def _grown(self, known: Candidate) -> Candidate | None:
        """Return the last candidate with what came since; None if it has to be made anew.

        Offers, updates and attests of different members change nothing of each other's, so their order is all the same
        here: a proposal is folded from its records anew.
        """
        chains, new = dict(known.chains), list[Signed[Record]]()
        for author in self.pool.touched.intersection(self.ledger.members):
            before, now = chains.get(author, ()), self._within_quotas(author)
            if now[: len(before)] != before:
                return None
            chains[author] = now
            new += now[len(before) :]
        if not all(record.value.kind in COMMUTING for record in new):
            return None
        state = apply_records(self.charter, known.state, order(new)) if new else known.state
        return Candidate(known.height, self.pool.version, state, chains, True, False)

    def _within_quotas(self, author: bytes) -> tuple[Signed[Record], ...]:
        if author in self.proofs:
            return ()  # it is about to be expelled, and not everybody may hold the same branch
        rules, size = self.charter.rules, 0
        chain = self.pool.chain(author, self.ledger.heads)[: rules.records_per_height]
        for place, record in enumerate(chain):
            size += len(record.wire)
            if size > rules.bytes_per_height or not self._admissible(record):
                return chain[:place]
        return chain

    def _admissible(self, record: Signed[Record]) -> bool:
        """Whether any block may have it: one on the disk that none may have must not hold up the others for ever."""
        try:
            check_record(record, self.federation)
        except RemoteProtocolError:
            return False
        return True

    def _punctual(self, state: Ledger, name: str, mine: Ledger) -> bool:
        """Whether closing this component on `state` leaves nobody out, by this node's clock (‡ timely)."""
        component = state.components[name]
        entries = eligible(self.charter, state, name)
        present = {entry.author for entry in entries}
        expected = set(trainers.trainers(state.offers, component.hosts, name))
        if component.round == 0:
            expected |= set(state.members) - state.offers.keys()
        held = {entry.author for entry in eligible(self.charter, mine, name)}
        expected |= held  # whatever they say: nobody is left out whose update is here
        if self.specs[name].additive:
            expected = {host for host in expected if not has_contributed(state.roll, component, host)}
        patient = {host for host in expected - present if trainers.waited_for(state, host, name, component.round + 1)}
        expected = expected & (present | held | patient)
        if expected <= present:
            return True
        deadline = self.deadlines.get(name)
        if deadline is None or deadline.round != component.round + 1 or not deadline.due:
            return False
        still = {entry.update for entry in eligible(self.charter, mine, name)}
        return (deadline.held & still) <= {entry.update for entry in entries}

    def _closes(self, state: Ledger) -> list[Close]:
        return [
            Close(name, component.round + 1)
            for name, component in sorted(state.components.items())
            if closable(self.charter, state, name) and self._punctual(state, name, state)
        ]

    def _work(self, candidate: Candidate) -> bool:
        """Whether there is work that this node finds timely."""
        if candidate.urgent:
            return True
        closes = self._closes(candidate.state)
        if closes:
            return self._gather_due or not self._gathering({close.component for close in closes})
        underway = any(
            d.round == self.ledger.components[name].round + 1 and not d.due for name, d in self.deadlines.items()
        )
        return any(candidate.chains.values()) and self.idle_due and not underway

    def _gathering(self, closing: set[str]) -> bool:
        """Whether other components' updates of the same draws are on their way: a round should cost one height."""
        for flight in self.flights.values():
            value = flight.header.value
            others = {entry.component for entry in value.engaged} - closing
            if any(value.round == self.ledger.components[name].round + 1 for name in others):
                if self._gather_height != self.ledger.height:
                    self._gather_height = self.ledger.height
                    self._emit(ev.SetTimer("gather", GATHER_MS))
                return True
        return False

    def _propose(self, view: int) -> None:
        candidate = self._candidate()
        # A close may also be of updates that an earlier block agreed on: then there may be no record.
        records, closes = candidate.records, self._closes(candidate.state)
        if self.agreement is None or not (records or closes):
            return
        if view == 0 and not closes and not self._work(candidate):
            return  # in later views, any record is worth ending the height that others have started
        self._ask_view = None
        try:
            prepared, block = next_state(self.charter, self.ledger, records, closes)
        except RemoteProtocolError as error:
            self._notice("cannot-propose", "error", reason=str(error))
            return
        self.prepared[block.id] = (prepared, records)
        self._agree(self.agreement.propose(view, block))

    def _judge(self) -> None:
        """Judge proposed blocks: valid is deterministic, timely is by this node's clock."""
        height = self.ledger.height
        for identifier, block in list(self.judging.items()):
            if self.agreement is None or self.ledger.height != height:
                return  # one of them was decided
            if identifier not in self.agreement.verdicts:
                if identifier not in self.prepared and self._settled(identifier, block) is None:
                    continue
                self._agree(self.agreement.judged(identifier, True))
            if self.agreement is None or self.ledger.height != height:
                return
            mine = self._candidate().state
            if all(self._punctual(self._before(identifier), close.component, mine) for close in block.close):
                del self.judging[identifier]
                self._agree(self.agreement.timely(identifier))

    def _before(self, identifier: bytes) -> Ledger:
        """Return the ledger with a proposed block's records, before it closes anything."""
        if identifier not in self._unclosed:
            records = self.prepared[identifier][1]
            self._unclosed[identifier] = apply_records(self.charter, self.ledger, records)
        return self._unclosed[identifier]

    def _settled(self, identifier: bytes, block: Block) -> Ledger | None:
        """Fold a proposed block if its records are here; None while they are not, or if it is invalid."""
        assert self.agreement is not None
        try:
            for head in block.cut:
                if head.author not in self.ledger.members:
                    raise RemoteProtocolError("stranger", "the author is not a member", head.author)
                agreed = self.ledger.heads.get(head.author, (0, GENESIS))[0]
                if head.seq - agreed > self.charter.rules.records_per_height:
                    raise RemoteProtocolError(
                        "quota-records", f"{head.seq - agreed} records at one height", head.author
                    )
            records = self.pool.under(block.cut, self.ledger.heads)
            if records is None:
                self._ask_somebody()
                return None
            state = fold_block(self.charter, self.ledger, block, records)
        except RemoteProtocolError as error:
            del self.judging[identifier]
            self._refuse(error.peer or self.agreement.proposer(self.agreement.view), error)
            self._agree(self.agreement.judged(identifier, False))
            return None
        self.prepared[identifier] = (state, order(records))
        return state

    def _adopt(self, block: Block, certificate: Certificate) -> bool:
        """Take a block whose certificate was checked; False if its records are not here yet."""
        records = self.pool.under(block.cut, self.ledger.heads)
        if records is None:
            self._ask_somebody()
            return False
        self.prepared[block.id] = (fold_block(self.charter, self.ledger, block, records), order(records))
        self._decide(block, certificate)
        return True

    def _decide(self, block: Block, certificate: Certificate) -> None:
        before = self.ledger
        self.ledger, records = self.prepared[block.id]
        self._emit(ev.Persist(ev.PutBlock(block, certificate, tuple(record.digest for record in records))))
        self.pool.settle(self.ledger.heads)
        if self.ledger.heads.get(self.me, (0, GENESIS)) > self.head:
            self.head = self.ledger.heads[self.me]
        self._notice("decided", "debug", height=block.height, view=certificate.view, records=len(records))
        for refusal in self.ledger.refusals:
            self._notice(
                "record-refused",
                "warning",
                member=refusal.author,
                seq=refusal.seq,
                kind=refusal.kind,
                reason=refusal.reason,
            )
        offers.note(self, before)
        motions.note_asked(self, before, records)
        for close in block.close:
            self._closed(before, close)
            motions.note_close(self, before, close)
        if block.close:
            self._pull_all(self.flights.values())  # it may be an active host from now on
        motions.tell(self, before)
        if self.ledger.withdrawn != before.withdrawn:
            self.exhausted = self.unaffordable = ""  # the share of ε kept for recovery is open now
        for found in (w for w in self.ledger.withdrawn if w not in before.withdrawn):
            self._notice("withdrawn", member=found.author, height=block.height, mode=found.mode, scope=found.scope)
        for name, component in self.ledger.components.items():
            gone = [e for e in before.components[name].erasures if e not in component.erasures]
            gone += [
                e for e in component.erasures if e not in before.components[name].erasures and name not in self.hosted
            ]
            if gone:
                self._emit(ev.Erase(tuple(sorted({blob for erasure in gone for blob in erasure.blobs}))))
        self._drop_flights(before)
        if self.signing:
            self._begin_height()
        else:
            self._maybe_sign()

    def _closed(self, before: Ledger, close: Close) -> None:
        component = self.ledger.components[close.component]
        round_ = component.rounds[-1]
        counted = {entry.author for entry in round_.entries}
        if self.specs[close.component].additive:
            counted = {entry.author for each in component.rounds for entry in each.entries}
        hosts = {*before.components[close.component].hosts, *component.hosts}
        if close.round == 1:  # the first hosts were still gathering
            hosts |= {member for member in self.ledger.members if member not in hosts}
        missing = {host: self._why_missing(host, close) for host in hosts if host not in counted}
        self._notice(
            "round-closed",
            component=close.component,
            round=close.round,
            height=self.ledger.height,
            counted=[entry.author for entry in round_.entries],
            stale=sorted(entry.author for entry in round_.entries if entry.staleness),
            missing=missing,
            deadline_passed=self._waited_out(close),
        )

    def _waited_out(self, close: Close) -> bool | None:
        """Whether a round's deadline had passed here when it was closed; None if this node saw none of its updates."""
        known = self.deadlines.get(close.component)
        return None if known is None or known.round != close.round else known.due

    def _why_missing(self, host: bytes, close: Close) -> str:
        if host not in self.ledger.members:
            return self.ledger.roll.seats[host].gone
        for flight in self.flights.at((host, close.component, close.round)):
            if flight.refused:
                return f"refused: {flight.refused}"
            return "acknowledged too late" if len(flight.acks) > 1 else "its update reached too few hosts"
        why = trainers.idle(self.ledger.offers, host, close.component)
        if why:
            return f"it does not train: {IDLE[why]}"
        return "no update" if host in self.neighbours or host == self.me else "no update, no connection from here"

    def _drop_flights(self, before: Ledger | None = None) -> None:
        """Forget flights that were counted or can never count, and the bytes that nothing refers to any more.

        A restart's PutHeader rows still bar second acks.
        """
        components = self.ledger.components
        counted = {
            entry.update
            for name, c in components.items()
            for round_ in (c.rounds if self.specs[name].additive else c.rounds[-9:])
            for entry in round_.entries
        }
        self._counted = counted
        gone: set[bytes] = set()
        for key, flight in list(self.flights.items()):
            value = flight.header.value
            if key in counted:
                del self.flights[key]
            elif self._void(value, key):
                del self.flights[key]
                gone.add(value.blob)
        for name, c in before.components.items() if before is not None else ():
            still = {p.update for p in components[name].pending} | counted
            gone |= {p.blob for p in c.pending if p.update not in still}
        self._erase_unneeded(gone)

    def needed(self) -> set[bytes]:
        """Return the blobs that anything refers to; others a crash left between a certificate and its erasure."""
        keep = {flight.header.value.blob for flight in self.flights.values()}
        for c in self.ledger.components.values():
            keep |= c.counted.keys()
            keep |= {pending.blob for pending in c.pending}
            keep |= {blob for erasure in c.erasures for blob in erasure.blobs}
        return keep

    def _erase_unneeded(self, blobs: set[bytes]) -> None:
        """Delete those of these bytes that nothing refers to: no flight, no list, no erasure that still waits."""
        if blobs:
            blobs = {blob for blob in blobs if not self.flights.with_bytes(blob)}
        for c in self.ledger.components.values() if blobs else ():
            blobs = blobs - c.counted.keys()
            blobs -= {p.blob for p in c.pending}
            blobs -= {blob for erasure in c.erasures for blob in erasure.blobs}
        if blobs:
            self._emit(ev.Erase(tuple(sorted(blobs))))

    def _void(self, value: UpdateHeader, name: bytes) -> bool:
        """Whether an update that no round counted can never count."""
        return (
            self._stale(value.component, value.round, self.ledger.components[value.component].round)
            or value.author not in self.ledger.members
            or self._barred(value.component, value.author, value.round, name)
        )

    def _barred(self, component: str, author: bytes, number: int, update: bytes = b"") -> bool:
        """Whether a withdrawal voids an update for this round that the ledger does not have yet."""
        return any(w.bars(component, author, NOT_YET, number, update) for w in self.ledger.withdrawn)

    def _stale(self, component: str, round_: int, closed: int) -> bool:
        return is_stale(self.charter, self.specs[component], round_, closed)

    # ---- training

    def _learn(self) -> None:
        ready = self.signing and self.contributing and self.draw is None and not self.exhausted
        if not ready or self.me not in self.ledger.members:
            return
        fed = self._fed
        if self._engaged and not fed and self.withheld:
            self.exhausted = "; ".join(self.withheld.values())
            self._notice("training-forbidden", "warning", reason=self.exhausted)
            return
        names = [name for name in fed if name in self.learner]
        sums = [name for name in names if self.specs[name].additive and self._to_contribute(name)]
        if (
            sums and not self.unaffordable
        ):  # once, of all students, and of no state that had to be waited for: before everything else
            self.draw = self._statistics(sums)
            self._pay(self.draw)
            return
        names = [name for name in names if not self.specs[name].additive and self._goes_on(name)]
        open_ = [name for name in names if self._trainable(name)]
        if not open_ or (len(open_) < len(names) and not self._learn_partly):
            if open_ and not self._learn_waits:
                self._learn_waits = True
                self._emit(ev.SetTimer("learn", 2 * self.charter.rules.round_deadline))
            return
        if not all(self._current(name) and name not in self.halted | self.doubted for name in self.followed):
            return  # every forward pass needs them
        self._learn_partly = self._learn_waits = False
        self.draw = contributing.Draw(
            max((put.draw for put in self.draws), default=0) + 1,
            tuple(self._recipe(name) for name in open_),
            {name: self.folded[name][3] for name in open_},
            {name: self.folded[name][1] for name in open_},
            governing.used(self.charter, self.held, self.withheld, open_),
        )
        self._pay(self.draw)

    def _pay(self, draw: contributing.Draw) -> None:
        if any(self.specs[recipe.component].noise_multiplier for recipe in draw.recipes):
            self._ask_budget(draw)
        else:
            self._reserve(dict.fromkeys(draw.modalities, NO_EPSILON))

    def _to_contribute(self, name: str) -> bool:
        """Whether this node's part of a statistic is neither counted, nor on its way, nor made and not yet signed."""
        component = self.ledger.components[name]
        made = {key: update for key, update in self.acked.items() if key[:2] == (self.me, name)}
        barred = 0
        for found in (w for w in self.ledger.withdrawn if w.author == self.me):
            if any(withdrawal.names(found, name, key[2], update) for key, update in made.items()):
                barred = max(barred, dict(found.rounds).get(name, 0) + 1)
        waits = any(key[2] > barred for key in made)
        return not waits and name not in self.halted and not has_contributed(self.ledger.roll, component, self.me)

    def _statistics(self, names: Sequence[str]) -> contributing.Draw:
        found = {name: self.ledger.components[name] for name in names}
        return contributing.Draw(
            max((put.draw for put in self.draws), default=0) + 1,
            tuple(
                self._recipe_of(name, next_round(self.specs[name], c, self.ledger.withdrawn, self.me), GENESIS)
                for name, c in found.items()
            ),
            {name: self.specs[name].base for name in names},
            {name: c.epoch for name, c in found.items()},
            governing.used(self.charter, self.held, self.withheld, names),
            additive=True,
        )

    def _ask_budget(self, draw: contributing.Draw) -> None:
        rounds = {recipe.component: recipe.round for recipe in draw.recipes}
        self._emit(
            contributing.question(
                draw,
                self.draws,
                self.policies,
                self.charter,
                self.movement,
                rounds=self._rounds_ahead(draw),
                recovery=contributing.recovering(self.ledger, rounds),
            )
        )

    def _rounds_ahead(self, draw: contributing.Draw) -> int:
        """How many rounds are still planned, the draw's own included: 0 if it is beyond them."""
        if draw.additive:
            return 1
        planned = self.options.plan.rounds or self.charter.learning.planned_rounds
        components = self.ledger.components
        return max(0, planned + 1 - min(r.round - components[r.component].empty for r in draw.recipes))

    def _trainable(self, name: str) -> bool:
        if not self._current(name) or name in self.doubted:
            return False
        component = self.ledger.components[name]
        target = component.round + 1
        if component.round and component.hosts and self.me not in component.hosts:
            return False  # who came since the last close is a host from the next one on: ε would be spent for nothing
        if self._barred(name, self.me, target):
            return False  # what was withdrawn stays out, this round included
        return (self.me, name, target) not in self.acked

    def _goes_on(self, name: str) -> bool:
        """Whether this node is to train it at all; else the others do not wait for it."""
        return name not in self.halted and not offers.plan_done(self, name)

    def _recipe(self, name: str) -> ev.Recipe:
        done = self.folded[name]
        return self._recipe_of(name, done[0] + 1, done[2])

    def _recipe_of(self, name: str, round_: int, chain: bytes) -> ev.Recipe:
        spec = self.specs[name]
        return ev.Recipe(name, round_, chain, spec.noise_multiplier, spec.clip_norm, spec.learning_rate)

    def _on_budget(self, event: ev.BudgetAnswer) -> None:
        draw = self.draw
        if draw is None or draw.number != event.draw or any(put.draw == draw.number for put in self.draws):
            return
        if not event.allowed:
            self.draw = None
            if draw.additive:
                self.unaffordable = event.reason
            else:
                self.exhausted = event.reason
            offers.stop(self, "budget-spent", additive=draw.additive)
            self._notice("budget-spent", "warning", reason=event.reason, epsilon=contributing.told(event.epsilon))
            return
        self.draw = replace(
            draw,
            recipes=tuple(
                # Whatever the worker answers: no less noise than the charter asks for.
                replace(
                    recipe,
                    noise_multiplier=max(recipe.noise_multiplier, event.noises.get(recipe.component, 0)),
                )
                for recipe in draw.recipes
            ),
        )
        if not draw.additive:
            self._foresee(self.draw, event.rounds_left)
        self._reserve({name: event.epsilon.get(name, NO_EPSILON) for name in draw.modalities})

    def _foresee(self, draw: contributing.Draw, rounds_left: Mapping[str, int]) -> None:
        """Tell once, and again when it changes, after which round a budget does not last as long as is planned."""
        learning, ahead = self.charter.learning, self._rounds_ahead(draw)
        rounds = {recipe.component: recipe.round for recipe in draw.recipes}
        for name, left in sorted(rounds_left.items()):
            last = {part: rounds[part] + left - 1 for part in learning.downstream(name, rounds)}
            known = self.forecast.get(name)
            self.forecast[name] = (left, last)
            if left < ahead and (known is None or known[1] != last):
                self._notice("budget-runs-out", "warning", modality=name, rounds_left=left, last_rounds=last)

    def _reserve(self, epsilon: Mapping[str, int]) -> None:
        """G6: the cost is on disk before anything is computed from the students' data."""
        draw, learning = self.draw, self.charter.learning
        assert draw is not None
        put = contributing.reservation(draw, epsilon, learning)
        self.draws.append(put)
        self._emit(ev.Persist(put))
        lot = contributing.lot(draw, self.options.plan, self.charter)
        steps, rate = contributing.event(draw, learning)
        self._train_began = self._now
        self._emit(ev.Train(draw.number, draw.recipes, steps, rate, lot, self._beside(draw)))
        rounds = {recipe.component: recipe.round for recipe in draw.recipes}
        self._notice("training", draw=draw.number, rounds=rounds, epsilon=contributing.told(dict(put.claims)))

    def _beside(self, draw: contributing.Draw) -> tuple[tuple[str, bytes], ...]:
        """Return (component, chain) of what forward passes need beside the components that the draw trains."""
        trained, found = {recipe.component for recipe in draw.recipes}, []
        for name in () if draw.additive else self.held:
            if self.specs[name].additive:
                continue
            done = self.folded.get(name)
            # One that is behind serves as it was; one of another epoch would bring a withdrawn update back.
            if name not in trained and done is not None and done[1] == self.ledger.components[name].epoch:
                found.append((name, done[2]))
        return tuple(found)

    def _on_trained(self, event: ev.Trained) -> None:
        draw = self.draw
        if draw is None or draw.number != event.draw:
            return
        self.draw, self.failures = None, 0
        if not self.signing or not self.contributing or self.me not in self.ledger.members:
            return
        offers.trained(self, sorted(event.blobs), self._now - self._train_began)
        put = next(put for put in self.draws if put.draw == draw.number)
        claims = contributing.claims(self.draws, put, self.policies, self.charter.learning)
        self._emit(ev.Persist(ev.PutPublished(draw.number)))
        for name, blob in sorted(event.blobs.items()):
            value = replace(
                contributing.header(self.charter, self.me, draw, self.options.plan, name, blob, claims),
                manifest=event.manifest,
            )
            component = self.ledger.components[name]
            place = slot(value)
            if place in self.acked or self._void(value, b""):
                self._notice("too-late", "warning", component=name, round=value.round, closed=component.round)
                continue
            header = sign(self.identity, value)
            self.acked[place] = header.digest
            self.flights[header.digest] = self._my_flight(header)
            self._emit(ev.Persist(ev.PutHeader(header)), ev.Publish(message(Kind.HEADER, header.wire)))

    def _on_training_failed(self, event: ev.TrainingFailed) -> None:
        if self.draw is None or self.draw.number != event.draw:
            return
        self.draw = None
        self.failures += event.counts
        self._notice(
            "training-failed", "error" if event.counts else "warning", reason=event.reason, attempt=self.failures
        )
        if self.failures >= MOST_FAILURES:  # each attempt costs its ε: an operator has to look
            self.exhausted = f"training failed {self.failures} times ({event.reason}); mend it and start the node again"
            offers.stop(self, PAUSED)

    def _evaluate(self) -> None:
        if not self.learner:
            return
        states = []
        for name in self.held:
            if not self._current(name):
                return
            states.append((name, *self.folded[name][:3]))
        if tuple(states) != self.evaluated:
            self.evaluated = tuple(states)
            self._emit(ev.Evaluate(self.evaluated))

    # ---- own records

    def _append(self, body: Body) -> None:
        if not self.signing:
            raise LocalProtocolError("nothing may be signed before quorum-1 peers reported")
        seq, prev = self.head
        record = sign(self.identity, Record(self.federation, self.me, seq + 1, prev, kind_of(body), schema.dump(body)))
        self.head = (record.value.seq, record.digest)
        self.pool.add(record, self.ledger.heads, agreed=True)  # it is signed: the bound is for what others send
        self._emit(ev.Persist(ev.PutRecord(record)), ev.Publish(message(Kind.RECORD, record.wire)))
        self._note_update(record)

    def _may_append(self) -> bool:
        """G8: nothing is appended while a peer knows a later record of this node than its disk holds up to."""
        ahead = max(self.pool.by_seq.get(self.me, ()), default=0)
        return self.signing and self.me in self.ledger.members and ahead <= self.head[0]

    def _on_withdraw(self, event: ev.RequestWithdrawal = ev.RequestWithdrawal()) -> None:  # noqa: B008 - frozen
        if not self._may_append() and event.scope != "all":
            self._notice("withdrawal-not-signed", "warning", reason="no quorum of peers is connected yet")
            return
        if not self._may_append():
            self._notice("withdrawal-waits", "warning", reason="no quorum of peers is connected yet")
            self._withdraw_waits = True
            self._emit(ev.Persist(ev.PutFlag("withdraw", 1)))
            return
        if self._withdraw_waits:
            self._withdraw_waits = False
            self._emit(ev.Persist(ev.PutFlag("withdraw", 0)))
        statement = replace(event.terms(self.federation, self.me), through=self.head[0])
        height = self.ledger.height + 1
        if statement.scope == "all":
            self._set_contributing(False)
        # In flight: what is covered must not be posted after this, nor after a restart.
        # What is posted stays until the ledger has both: a block may take the one without the other.
        covered = [flight for flight in self.flights.of(self.me) if _within(statement, flight)]
        mine = [flight for flight in covered if not flight.posted]
        for flight in mine:
            del self.flights[flight.header.digest]
            self._emit(ev.Persist(ev.PutFlag(_dropped(flight.header.digest), 1)))
        self._erase_unneeded({flight.header.value.blob for flight in mine})
        posted = len(covered) > len(mine)  # in this feed before the withdrawal: a block has it first, or with it
        agreed = any(
            withdrawal.reaches(self.ledger, withdrawal.placed(self.charter, self.ledger, terms, height, self.me))
            for terms in of_all_keys(self.ledger, statement)
        )
        if statement.scope != "all" and not posted and not agreed:
            self._notice("withdrawn-in-flight", scope=statement.scope, updates=len(mine))
            return  # the ledger has none of it, and will not
        self._append(Withdrawal(sign(self.identity, statement).wire))
        self._notice("withdrawal-signed", scope=statement.scope, through=statement.through)

    def _set_contributing(self, on: bool) -> None:
        self.contributing = on
        self._emit(ev.Persist(ev.PutFlag("contributing", int(on))))

    def _convict(self) -> None:
        told = {record.value.body for record in self.pool.chain(self.me, self.ledger.heads)}
        for author, (a, b) in self.proofs.items():
            if membership.present(self.ledger.roll, author) not in self.ledger.members:
                continue
            if author == self.me or not _provable(a, b):
                continue
            evidence = Evidence("fork", a.wire, b.wire)
            if schema.dump(evidence) not in told:
                self._notice("fork", "error", member=author, seq=a.value.seq)
                self._append(evidence)

    # ---- consequences

    def _advance(self) -> None:
        if self._may_append():
            if self._withdraw_waits:
                self._on_withdraw()
            offers.renew(self)
            self._convict()
            motions.suspend_silent(self)
            self._acknowledge()
            self._post_updates()
            self._attest()
        if self.agreement is not None:
            self._judge()
        candidate = self._candidate()
        self._watch_deadlines(candidate.state)
        if self.agreement is not None and self._ask_view is not None and self._ask_view == self.agreement.view:
            self._propose(self._ask_view)  # it had nothing to propose when the view began
            if self.agreement is not None:
                self._judge()
        if self.agreement is not None and not self.agreement.started and self._work(candidate):
            self._agree(self.agreement.start())
            self._judge()
        self._compare()
        self._fold()
        self._evaluate()
        self._learn()

    def in_flight(self) -> list[bytes]:
        """Return the gossip messages that a neighbour may lack."""
        found: list[bytes] = []
        if self.agreement is not None:
            found += [_wrap(item) for item in self.agreement.messages()]
        for votes in self.later.values():
            found += [_wrap(item) for item in votes]
        for author in self.proofs:  # both branches: a proposal may contain either
            for same in self.pool.by_seq.get(author, {}).values():
                found += [message(Kind.RECORD, self.pool.records[key].wire) for key in same]
        for flight in self.flights.values():
            found.append(message(Kind.HEADER, flight.header.wire))
            for ack in flight.acks.values():
                found.append(_wrap_ack(self.federation, flight.header.digest, ack))
        return found

    def sync_request(self) -> bytes:
        """Return what this node has, to ask a neighbour for the rest."""
        heads = self.pool.heads(self.ledger.heads)
        members = frozenset(self.ledger.members)  # others' feeds are frozen: what blocks hold of them comes with those
        known = tuple(Head(author, seq, head) for author, (seq, head) in sorted(heads.items()) if author in members)
        have = b"".join(tag(item) for item in self.in_flight()[:16_384])
        return schema.dump(SyncRequest(self.federation, self.ledger.height, known, have))

    def _sync(self, peer: bytes) -> None:
        if peer in self.answers:
            return  # its last answer is not taken yet
        self._emit(ev.Sync(peer, self.sync_request()))

    def _ask_somebody(self) -> None:
        if self.neighbours and self._now - self._asked >= 100:
            self._asked = self._now
            ordered = sorted(self.neighbours)
            self._sync(ordered[self._now % len(ordered)])

    def _refuse(self, peer: bytes, error: RemoteProtocolError) -> None:
        """Count every refusal, tell the operator of the first of its kind."""
        key = (peer, error.reason)
        if key not in self.refusals and len(self.refusals) >= MOST_REFUSALS:
            key = (bytes(32), "others")  # strangers' keys are free to make: they may not fill the memory
        self.refusals[key] = self.refusals.get(key, 0) + 1
        if self.refusals[key] == 1:
            self._notice("refused", "warning", peer=peer, reason=error.reason, detail=error.detail)

    def _notice(self, event: str, level: str = "info", **fields: object) -> None:
        self._emit(ev.Notice(event, level, fields))

    def _emit(self, *effects: ev.Effect) -> None:
        self._out.extend(effects)

    def _drain(self) -> list[ev.Effect]:
        effects, self._out = self._out, []
        return effects


def _open_message(
    cls: type[Proposal] | type[Vote], wire: bytes, federation: bytes, *, trusted: bool = False
) -> Message:
    if cls is Proposal:
        return open_gossip(Proposal, wire, federation, trusted=trusted)
    return open_gossip(Vote, wire, federation, trusted=trusted)


def _provable(a: Signed[Record], b: Signed[Record]) -> bool:
    return max(len(a.wire), len(b.wire)) <= PROVABLE


def _dropped(update: bytes) -> str:
    """Return the flag of an own update that was withdrawn before the ledger had it."""
    return f"dropped-{update.hex()}"


def _within(terms: WithdrawalStatement, flight: Flight) -> bool:
    header = flight.header
    return withdrawal.names(terms, header.value.component, header.value.round, header.digest)


def _body(record: Signed[Record]) -> Body | None:
    """Decode the body of a record in the pool: None if its author wrote nonsense (the ledger refuses it by name)."""
    try:
        return body_of(record.value)
    except RemoteProtocolError:
        return None


@lru_cache(maxsize=8192)  # each answer to a neighbour names all that are in flight
def _wrap_ack(federation: bytes, header: bytes, ack: Ack) -> bytes:
    return message(Kind.ACK, schema.dump(Acked(federation, header, ack.host, ack.signature)))


def _wrap(item: Message) -> bytes:
    return message(Kind.PROPOSAL if isinstance(item.value, Proposal) else Kind.VOTE, item.wire)
