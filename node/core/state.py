"""One node's state in memory, shared by all rooms of the core.

The rooms are modules of functions of (state, input). They change a `NodeState` and add to its effects; none has state
of its own. `NodeState` itself only appends to this node's feed, counts refusals and collects effects.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...consensus.agreement import Agreement, Message
from ...consensus.cut import order
from ...consensus.ledger import Ledger
from ...crypto.errors import LocalProtocolError, RemoteProtocolError
from ...crypto.identity import Identity
from ...protocol import schema
from ...protocol.blocks import Block
from ...protocol.charter import Charter
from ...protocol.records import GENESIS, Body, Record, kind_of
from ...protocol.signing import Signed, sign
from ..privacy import policy as governing
from . import contribution as contributing
from . import events as ev
from .in_flight import InFlightUpdates
from .messages import Kind, message
from .pool import Pool
from .progress import Progress
from .reasons import Reason

REMOVALS_UNKNOWN = "removals-unknown"  # the flag of `NodeState.removals_unknown`
PAUSED_FLAG = "paused"  # the flag of `NodeState.paused`
MAX_REFUSALS = 1024  # pairs of (peer, reason) that are counted


@dataclass(frozen=True, slots=True)
class Options:
    """This node's configuration. Milliseconds: see docs/architecture.md for how to choose them.

    `hosted` components are offered, acknowledged, attested and, if planned, trained. `followed` ones are only folded,
    from bytes that are already agreed on: training and evaluation need their states. `idle`: the reason to train
    nothing at all, one of protocol.records.IDLE, or "". `quiet`: whether it starts in its quiet hours.
    """

    hosted: tuple[str, ...]
    followed: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    idle: str = ""
    quiet: bool = False
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
    """The records that this node could put under the next cut, and the ledger after them, before any close.

    `commutes`: the order of its records does not matter. `urgent`: they are worth a block at once.
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


@dataclass(slots=True)
class Answers:
    """Answers of neighbours that are being processed, in the order of arrival: at most one of each."""

    steps: dict[bytes, Iterator[int]] = field(default_factory=dict)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self.steps


class NodeState:
    """One node, from its configuration (`Options`), its ledger, and its history on disk (`Snapshot`)."""

    def __init__(self, ledger: Ledger, identity: Identity, options: Options, snapshot: ev.Snapshot) -> None:
        self.identity = identity
        self.me = identity.public_key
        self.federation = ledger.federation
        self.ledger = ledger
        self.pool = Pool(4 * ledger.charter.rules.records_per_height)
        self.arrange(options)
        self.cached: Candidate | None = None
        self.agreement: Agreement | None = None
        self.neighbours: set[bytes] = set()
        self.reports: set[bytes] = set()
        self.signing = False
        self.muted: set[int] = set()
        self.later: dict[int, list[Message]] = {}
        self.in_flight = InFlightUpdates()
        self.unacked: dict[bytes, None] = {}  # updates whose bytes are here, until they are acknowledged or refused
        self.acked: dict[tuple[bytes, str, int], bytes] = {}
        self.deadlines: dict[str, Deadline] = {}
        self.resting: dict[str, int] = {}  # component → when, by `now`, the charter's pace allows a close (pacing.py)
        self.judging: dict[bytes, Block] = {}
        self.prepared: dict[bytes, tuple[Ledger, list[Signed[Record]]]] = {}
        self.unclosed: dict[bytes, Ledger] = {}
        self.folding: set[str] = set()
        self.lacking: dict[str, set[bytes]] = {}
        self.pulls: dict[bytes, bytes] = {}
        self.proofs: dict[bytes, tuple[Signed[Record], Signed[Record]]] = {}
        self.doubted: set[str] = set()  # differed from a certified state, and is computed again
        self.halted: set[str] = set()  # still differed: no acknowledgement, attestation or training
        self.folded: dict[str, tuple[int, int, bytes, bytes]] = {}
        self.bases: dict[tuple[str, int, int], bytes] = {}
        self.movement: dict[str, int] = {}
        self.spend_statements: dict[tuple[bytes, str, int], tuple[int, tuple[tuple[str, bytes], ...]]] = {}
        self.learner: tuple[str, ...] = ()
        self.run: contributing.TrainingRun | None = None
        self.reservations: list[ev.PutReservation] = list(snapshot.reservations)
        self.failures = 0
        self.silent: dict[str, dict[bytes, int]] = {}  # component → host → closed rounds without a message of it
        self.asked: dict[str, set[bytes]] = {}  # component → hosts that declared training since its last close
        self.waited: dict[
            str, dict[bytes, int]
        ] = {}  # as `silent`: rounds that waited for it since its update last counted
        self.progress = Progress()
        self.answers = Answers()
        self.exhausted = ""
        self.last_run = False  # the budget allows no training run after the one that is under way
        self.unaffordable = set[str]()  # statistics that the budget does not allow, though rounds go on
        self.forecast: dict[str, tuple[int, dict[str, int]]] = {}  # modality → rounds left, last round by component
        self.evaluated: tuple[tuple[str, int, int, bytes], ...] = ()
        self.returned: dict[str, int] = {}  # kind → own records that this disk lacked at the start, and peers had
        self.refusals: dict[tuple[bytes, str], int] = {}
        self.idle_due = False
        self.stopped: dict[str, Reason] = {}  # component → reason of a stop, until this node has trained it again
        self.contributing = bool(snapshot.flags.get("contributing", 1))
        # Own withdrawals of updates that this disk lacked: a removed student may be in the data again. Nothing is
        # trained.
        self.removals_unknown = bool(snapshot.flags.get(REMOVALS_UNKNOWN, 0))
        self.paused = bool(snapshot.flags.get(PAUSED_FLAG, 0))  # by its operator, until `node resume`
        self.quiet = options.quiet  # in the quiet hours of its configuration
        self.learn_partly = self.learn_waits = False
        self.withdraw_waits = bool(snapshot.flags.get("withdraw", 0))
        self.ask_view: int | None = None
        self.counted: set[bytes] = set()
        self.gather_due = False
        self.gather_height = -1
        self.posting = ""  # "armed" or "due": my ready updates wait for the others of their training run
        self.asked_at = -1000
        self.train_began = 0
        self.now = 0
        self.out: list[ev.Effect] = []
        self.head = (0, GENESIS)  # of this node's own feed: sequence number, digest
        self.kept_messages: list[tuple[int, bytes]] = list(snapshot.messages)
        self.read_keys: set[bytes] = set()

    @property
    def charter(self) -> Charter:
        """The charter in force (G10)."""
        return self.ledger.charter

    def arrange(self, options: Options) -> None:
        """Choose what is hosted, followed and trained here, under the charter in force.

        A component that an amendment opened and that this node's own policies rule out is not held here at all; the
        components that were there before go on without it. Retired components are held, and not trained.
        """
        charter = self.ledger.charter
        self.options = options
        self.specs = charter.specs
        self.pool.per_author = 4 * charter.rules.records_per_height
        policies = options.plan.policies or governing.of_charter(charter)
        self.policies = {policy.modality: policy for policy in (*governing.of_charter(charter), *policies)}
        wanted = [name for name in sorted(options.hosted) if name in self.specs]
        self.refused_here = governing.refused(charter, policies, [*wanted, *options.followed], self.ledger.opened)
        chosen = [name for name in wanted if name not in self.refused_here]
        self.withheld = governing.withheld(charter, policies, chosen)
        self.hosted = governing.admitted(chosen, self.withheld)
        others = [name for name in sorted(options.followed) if name in self.specs and name not in wanted]
        others = [name for name in others if name not in self.refused_here]
        self.followed = governing.admitted(others, self.withheld)
        self.held = tuple(sorted((*self.hosted, *self.followed)))
        self.idle = options.idle or contributing.barred(options.plan, charter.learning)
        open_ = [name for name in self.hosted if name not in charter.retired]
        self.engaged = [] if self.idle else contributing.engaged(options.plan, open_)
        used = set(governing.used(charter, self.held, self.withheld, self.engaged))
        self.fed = [name for name in self.engaged if charter.learning.upstream(name) & used]

    @property
    def on_hold(self) -> bool:
        """Whether nothing is trained for now: the operator paused it, quiet hours, or it lost who is removed."""
        return self.paused or self.quiet or self.removals_unknown

    def is_current(self, name: str) -> bool:
        """Whether a component is folded up to the last frozen list."""
        component, done = self.ledger.components[name], self.folded.get(name)
        return done is not None and done[:3] == (component.round, component.generation, component.chain)

    def append(self, body: Body) -> None:
        """Sign the next record of this node's feed. Raises LocalProtocolError before this node may sign."""
        if not self.signing:
            raise LocalProtocolError("nothing may be signed before quorum-1 peers reported")
        seq, prev = self.head
        record = sign(self.identity, Record(self.federation, self.me, seq + 1, prev, kind_of(body), schema.dump(body)))
        self.head = (record.value.seq, record.digest)
        self.pool.add(record, self.ledger.heads, agreed=True)  # it is signed: the bound is for other authors
        self.emit(ev.Persist(ev.PutRecord(record)), ev.Publish(message(Kind.RECORD, record.wire)))

    def may_append(self) -> bool:
        """G8: nothing is appended while a peer has a later record of this node than its own disk."""
        ahead = max(self.pool.by_seq.get(self.me, ()), default=0)
        return self.signing and self.me in self.ledger.members and ahead <= self.head[0]

    def refuse(self, peer: bytes, error: RemoteProtocolError) -> None:
        """Count every refusal; notify the operator of the first of its kind."""
        key = (peer, error.reason)
        if key not in self.refusals and len(self.refusals) >= MAX_REFUSALS:
            key = (bytes(32), "others")  # keys are free to make: they must not fill the memory
        self.refusals[key] = self.refusals.get(key, 0) + 1
        if self.refusals[key] == 1:
            self.notice("refused", "warning", peer=peer, reason=error.reason, detail=error.detail)

    def notice(self, event: str, level: str = "info", **fields: object) -> None:
        """Notify the operator of an event."""
        self.emit(ev.Notice(event, level, fields))

    def emit(self, *effects: ev.Effect) -> None:
        """Add an effect for the shell."""
        self.out.extend(effects)

    def drain(self) -> list[ev.Effect]:
        """Return the effects since the last call, in order."""
        effects, self.out = self.out, []
        return effects
