"""What goes into the core and what comes out of it.

The shell calls `core.handle(state, events, now)`, `now` in milliseconds of a monotonic clock. It then carries out the
effects: every `Persist` of the batch in one durable transaction, and only after that everything else, in order (G6, G8:
disk before network).

The module is long because it is one flat list: types only, so that everything between core and shell is read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...consensus.components import Round
from ...protocol.blocks import Block, Certificate
from ...protocol.claims import DpEvents
from ...protocol.records import Record, WithdrawalStatement
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from .timers import Timer

# ---- events


@dataclass(frozen=True, slots=True)
class Gossip:
    """A gossip message (messages.py) from a neighbour."""

    peer: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SyncReply:
    """A neighbour's answer (messages.py SyncResponse, encoded) to this node's sync request."""

    peer: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A member's connection came up."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Readdressed:
    """This node can be dialled at other addresses now."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A member's connection went down."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer set by `SetTimer` ended."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class BlobStored:
    """These bytes are on disk, fsynced, and passed every check that `Pull` asked for."""

    blob: bytes


@dataclass(frozen=True, slots=True)
class BlobRefused:
    """These bytes failed a check (`reason`, by name) or could not be had ("unavailable")."""

    blob: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Folded:
    """The state of a component after the frozen lists named by `chain`.

    `movement` is the mean square of its weights' change since the first state, in units of 2^-64.
    """

    component: str
    round: int
    generation: int
    chain: bytes
    digest: bytes
    saturated: int
    movement: int = 0


@dataclass(frozen=True, slots=True)
class FoldMissing:
    """The fold lacks these blobs."""

    component: str
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LearnerReady:
    """The learner worker is open: it has data for these components."""

    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LearnerLost:
    """The learner worker cannot train: it refused the data, or does not start. It may be ready again later."""


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """Whether another training run is within every modality's budget, and with which noise (millionths) by component.

    `epsilon` (thousandths, rounded up) is each modality's total with it, `rounds_left` how many rounds like it fit,
    itself included.
    """

    run: int
    allowed: bool
    reason: str
    noises: Mapping[str, int] = field(default_factory=dict)
    epsilon: Mapping[str, int] = field(default_factory=dict)
    rounds_left: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """A training run's updates: compressed payloads by component, already in the blob store.

    `manifest` is the root of the students who were drawn (node/unlearning/students.py), zeros if the learner names
    nobody.
    """

    run: int
    blobs: Mapping[str, tuple[bytes, int]]
    manifest: bytes = bytes(32)


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """A training run came to nothing; what it reserved is spent. `counts`: it is one of few that may fail in a row."""

    run: int
    reason: str
    counts: bool = True


@dataclass(frozen=True, slots=True)
class RequestWithdrawal:
    """The operator withdraws this node's contributions, or those in a scope (protocol/records.py says which)."""

    scope: str = "all"
    components: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    updates: tuple[bytes, ...] = ()

    def terms(self, federation: bytes, author: bytes, mode: str = "refold", through: int = 0) -> WithdrawalStatement:
        """Return what is to be signed, or moved about somebody."""
        return WithdrawalStatement(
            federation, author, self.scope, mode, through, self.components, self.first, self.last, self.updates
        )


@dataclass(frozen=True, slots=True)
class SetContributing:
    """The operator lets this node contribute, or stops it."""

    on: bool


@dataclass(frozen=True, slots=True)
class ResumeTraining:
    """The operator confirms that everybody removed before is left out of this home again."""


@dataclass(frozen=True, slots=True)
class Carry:
    """The operator carries the signed withdrawal of somebody who is no longer a member."""

    statement: bytes


@dataclass(frozen=True, slots=True)
class Move:
    """The operator moves something about membership (protocol/membership.py), open for so many heights."""

    action: str
    subject: bytes
    statement: bytes
    reason: str
    heights: int


@dataclass(frozen=True, slots=True)
class Cast:
    """The operator votes on an open motion."""

    motion: bytes
    yes: bool


@dataclass(frozen=True, slots=True)
class StateStored:
    """A component's certified state came from a neighbour, matched its digest and is stored."""

    component: str
    chain: bytes


@dataclass(frozen=True, slots=True)
class StateMissing:
    """No neighbour has this state (any more)."""

    component: str
    chain: bytes


Event: TypeAlias = (
    Gossip
    | SyncReply
    | PeerUp
    | PeerDown
    | Readdressed
    | TimerFired
    | BlobStored
    | BlobRefused
    | Folded
    | FoldMissing
    | LearnerReady
    | LearnerLost
    | BudgetAnswer
    | Trained
    | TrainingFailed
    | RequestWithdrawal
    | SetContributing
    | ResumeTraining
    | Carry
    | Move
    | Cast
    | StateStored
    | StateMissing
)

# ---- what is persisted


@dataclass(frozen=True, slots=True)
class PutRecord:
    """A record of any member's feed, in the order of receipt."""

    record: Signed[Record]


@dataclass(frozen=True, slots=True)
class PutBlock:
    """A decided block, its certificate and the digests of its records in ledger order."""

    block: Block
    certificate: Certificate
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PutMessage:
    """A proposal or vote needed after a restart: own ones, and the proofs of locked and valid blocks."""

    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PutHeader:
    """An update header that this node acknowledged or made. At most one for each (author, component, round)."""

    header: Signed[UpdateHeader]


@dataclass(frozen=True, slots=True)
class Noised:
    """One component of a training run: the round that it trains for, and its noise multiplier in millionths."""

    component: str
    round: int
    noise_multiplier: int


@dataclass(frozen=True, slots=True)
class PutReservation:
    """A privacy reservation: this training run counts as spent from now on, whatever becomes of it (G6).

    `claims` has each modality whose data it used, with the ε of all draws up to it (thousandths, as computed then).
    `recalled` is not empty for what a lost disk had and an own update told again: by modality, and no other field says
    what was spent then.
    """

    run: int
    parts: tuple[Noised, ...]
    sample_rate: int
    steps: int
    claims: tuple[tuple[str, int], ...]
    recalled: tuple[tuple[str, DpEvents], ...] = ()


@dataclass(frozen=True, slots=True)
class PutPublished:
    """A training run's updates were signed."""

    run: int


@dataclass(frozen=True, slots=True)
class PutFlag:
    """A small setting that survives restarts."""

    name: str
    value: int


Put: TypeAlias = PutRecord | PutBlock | PutMessage | PutHeader | PutReservation | PutPublished | PutFlag

# ---- effects


@dataclass(frozen=True, slots=True)
class Persist:
    """Make durable before any later effect."""

    put: Put


@dataclass(frozen=True, slots=True)
class Publish:
    """Gossip this message; if it concerns one member only (`to`), tell that neighbour directly where there is one."""

    data: bytes
    to: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """Ask this neighbour for what this node lacks; answer with `SyncReply`."""

    peer: bytes
    request: bytes


@dataclass(frozen=True, slots=True)
class Pull:
    """Get these bytes (from `sources` first) and store them; answer BlobStored/BlobRefused.

    With a `header` they also have to pass read_payload and check_norm; without, they are already agreed on and the
    digest is enough.
    """

    blob: bytes
    size: int
    header: UpdateHeader | None
    sources: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire `TimerFired(timer)` after `delay` milliseconds; a timer that equals it is replaced."""

    timer: Timer
    delay: int


@dataclass(frozen=True, slots=True)
class Fold:
    """Compute and store the component's state after these rounds; answer Folded/FoldMissing.

    `fresh`: from the updates' bytes alone, and forget every stored state of the component first.
    """

    component: str
    round: int
    generation: int
    rounds: tuple[Round, ...]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class FetchState:
    """Get the state that `chain` names from a neighbour and store it, if it has this digest; answer StateStored or
    StateMissing. A quorum of the component's hosts certified the digest."""

    component: str
    chain: bytes
    digest: bytes
    sources: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """One modality of a training run: what bounds it (thousandths, billionths), what it has spent, what its data
    reach.
    """

    modality: str
    epsilon: int
    delta: int
    spent: tuple[DpEvents, ...]
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoisePart:
    """One component of a training run as the split of noise sees it: millionths, but for `dimension`.

    `noise_multiplier` is the charter's, and the least; `last` is what this node used last, 0 for nothing yet.
    """

    component: str
    noise_multiplier: int
    last: int
    clip_norm: int
    utility: int
    dimension: int


@dataclass(frozen=True, slots=True)
class CheckBudget:
    """Ask the accountant whether one more training run fits, and with which noise; answer BudgetAnswer.

    `rounds` are those still planned, this one included: what is left of every budget should last for them. 0: this one
    is beyond them.
    """

    run: int
    modalities: tuple[Reach, ...]
    parts: tuple[NoisePart, ...]
    sample_rate: int
    steps: int
    rounds: int
    lines: int
    recovery: bool


@dataclass(frozen=True, slots=True)
class CheckSpendStatement:
    """Recompute the ε that a member claims for each modality. A claim that is too low is told, never judged here:
    floating point decides no validity."""

    header: UpdateHeader


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one component trains with, in millionths, from which state."""

    component: str
    round: int
    chain: bytes
    noise_multiplier: int
    clip_norm: int
    learning_rate: int


@dataclass(frozen=True, slots=True)
class Train:
    """Train these components under one training run, store the payloads; answer Trained/TrainingFailed.

    `context` has (component, chain) of the others that forward passes need.
    """

    run: int
    recipes: tuple[Recipe, ...]
    steps: int
    sample_rate: int
    lot: int
    context: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluate:
    """All components held here are folded up to here: evaluate on this node's own held-out subjects (stays local)."""

    states: tuple[tuple[str, int, int, bytes], ...]  # (component, round, generation, chain)


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete what is no longer in force: blobs of withdrawn updates, states of older generations."""

    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Tell the operator: `event` is a stable kebab-case name."""

    event: str
    level: str = "info"
    fields: Mapping[str, object] = field(default_factory=dict)


Effect: TypeAlias = (
    Persist
    | Publish
    | Sync
    | Pull
    | SetTimer
    | Fold
    | FetchState
    | CheckBudget
    | CheckSpendStatement
    | Train
    | Evaluate
    | Erase
    | Notice
)


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A decided block as the store returns it, with its records in ledger order."""

    block: Block
    certificate: Certificate
    records: tuple[Signed[Record], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node has on disk when it starts."""

    blocks: Sequence[StoredBlock] = ()
    records: Sequence[Signed[Record]] = ()  # not under any block yet, in the order of receipt
    messages: Sequence[tuple[int, bytes]] = ()
    headers: Sequence[Signed[UpdateHeader]] = ()
    reservations: Sequence[PutReservation] = ()
    published: frozenset[int] = frozenset()
    flags: Mapping[str, int] = field(default_factory=dict)
