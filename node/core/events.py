"""The core's inputs (events) and outputs (effects).

The shell calls `core.handle(state, events, now)`, `now` in milliseconds of a monotonic clock. It then carries out the
effects: every `Persist` of the batch in one durable transaction, and only after that everything else, in order (G6, G8:
disk before network).

The module is long because it is one flat list of types: the whole interface between core and shell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...consensus.components import Round
from ...protocol.blocks import Block, Certificate
from ...protocol.charter import Charter
from ...protocol.claims import DpEvents
from ...protocol.membership import Action
from ...protocol.records import Mode, Record, Scope, WithdrawalStatement
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..privacy.policy import InForce
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
class Configured:
    """What this node holds under a charter that was amended, as `Options` has it; `policies` are those of `Plan`."""

    hosted: tuple[str, ...]
    followed: tuple[str, ...]
    idle: str
    policies: tuple[InForce, ...]


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
class LearnerReads:
    """The learner worker begins anew and reads its data: the daemon restarted it, or it ended by itself."""


@dataclass(frozen=True, slots=True)
class LearnerLost:
    """The learner worker cannot train: it refused the data, or does not start. It may be ready again later."""


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """Whether another training run is within every modality's budget, and its noise (millionths) by component.

    `epsilon` (thousandths, rounded up) is each modality's total with it, `rounds_left` the number of such rounds that
    fit, including it.
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

    `manifest` is the root of the drawn students (node/unlearning/students.py); zeros if the learner names nobody.
    """

    run: int
    blobs: Mapping[str, tuple[bytes, int]]
    manifest: bytes = bytes(32)


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """A training run failed; its reservation is spent. `counts`: whether it counts towards the limit of failures."""

    run: int
    reason: str
    counts: bool = True


@dataclass(frozen=True, slots=True)
class RequestWithdrawal:
    """The operator withdraws this node's contributions, all or a scope of them (protocol/records.py)."""

    scope: Scope = "all"
    components: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    updates: tuple[bytes, ...] = ()

    def terms(self, federation: bytes, author: bytes, mode: Mode = "refold", through: int = 0) -> WithdrawalStatement:
        """Return the terms to sign, or to propose about another member."""
        return WithdrawalStatement(
            federation, author, self.scope, mode, through, self.components, self.first, self.last, self.updates
        )


@dataclass(frozen=True, slots=True)
class SetContributing:
    """The operator lets this node contribute, or stops it."""

    on: bool


@dataclass(frozen=True, slots=True)
class SetPaused:
    """The operator pauses this node's training, or lets it go on."""

    on: bool


@dataclass(frozen=True, slots=True)
class SetQuiet:
    """This node's quiet hours begin or end, by its configuration and its clock."""

    on: bool


@dataclass(frozen=True, slots=True)
class ResumeTraining:
    """The operator confirms that this home leaves out all students removed before."""


@dataclass(frozen=True, slots=True)
class Carry:
    """The operator carries the signed withdrawal of a former member."""

    statement: bytes


@dataclass(frozen=True, slots=True)
class ProposeMotion:
    """The operator proposes a motion (protocol/membership.py), open for `heights` heights."""

    action: Action
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
    """No neighbour has this state, or none any more."""

    component: str
    chain: bytes


Event: TypeAlias = (
    Gossip
    | SyncReply
    | PeerUp
    | PeerDown
    | Readdressed
    | Configured
    | TimerFired
    | BlobStored
    | BlobRefused
    | Folded
    | FoldMissing
    | LearnerReady
    | LearnerReads
    | LearnerLost
    | BudgetAnswer
    | Trained
    | TrainingFailed
    | RequestWithdrawal
    | SetContributing
    | SetPaused
    | SetQuiet
    | ResumeTraining
    | Carry
    | ProposeMotion
    | Cast
    | StateStored
    | StateMissing
)

# ---- persisted values


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


EVERY_SHARD = -1  # of a training run that may have drawn any student


@dataclass(frozen=True, slots=True)
class PutReservation:
    """A privacy reservation: this training run counts as spent from now on, even if it fails (G6).

    `claims` has each modality whose data it used, with the ε of all training runs up to it (thousandths, as computed
    then). `recalled` holds events, by modality, that a lost disk had and an own update's spend statement restored; then
    the other fields say nothing about the cost. `shard` is that of the students whom it could draw; EVERY_SHARD: all of
    them.
    """

    run: int
    parts: tuple[Noised, ...]
    sample_rate: int
    steps: int
    claims: tuple[tuple[str, int], ...]
    recalled: tuple[tuple[str, DpEvents], ...] = ()
    shard: int = 0


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
    """Gossip this message; one that concerns a single member (`to`) goes to it directly if it is a neighbour."""

    data: bytes
    to: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """Send this neighbour a sync request; answer with `SyncReply`."""

    peer: bytes
    request: bytes


@dataclass(frozen=True, slots=True)
class Pull:
    """Get these bytes (from `sources` first) and store them; answer BlobStored/BlobRefused.

    With a `header` they must also pass read_payload and check_norm; without one they are agreed on, and the digest is
    enough.
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
    """Get the state that `chain` names from a neighbour and store it if it has this digest.

    A quorum of the component's hosts certified the digest. Answer StateStored or StateMissing."""

    component: str
    chain: bytes
    digest: bytes
    sources: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """One modality of a training run: its bounds (thousandths, billionths), its spending, the components it reaches."""

    modality: str
    epsilon: int
    delta: int
    spent: tuple[DpEvents, ...]
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoisePart:
    """One component of a training run, as input of the noise split: millionths, except for `dimension`.

    `noise_multiplier` is the charter's, the minimum; `last` is the one that this node used last, 0 for none yet.
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

    `rounds` are those still planned, including this one: the rest of every budget should last for them. 0: this one is
    beyond the plan.
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
    """Recompute the ε that a member claims for each modality.

    A claim that is too low is logged, never refused: floating point decides no validity.
    """

    header: UpdateHeader


@dataclass(frozen=True, slots=True)
class Recipe:
    """One component's recipe in millionths, and the state that it starts from."""

    component: str
    round: int
    chain: bytes
    noise_multiplier: int
    clip_norm: int
    learning_rate: int


@dataclass(frozen=True, slots=True)
class Train:
    """Train these components in one training run and store the payloads; answer Trained/TrainingFailed.

    `context` has (component, chain) of the other components that forward passes need. Students of `shard` may be drawn.
    """

    run: int
    recipes: tuple[Recipe, ...]
    steps: int
    sample_rate: int
    lot: int
    context: tuple[tuple[str, bytes], ...] = ()
    shard: int = 0


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate these states, the newest of all held components, on this node's own held-out subjects (stays local)."""

    states: tuple[tuple[str, int, int, bytes], ...]  # (component, round, generation, chain)


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete the blobs of withdrawn updates and the states of older generations."""

    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice to the operator: `event` is a stable kebab-case name."""

    event: str
    level: str = "info"
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amended:
    """The charter in force is another one: find out what this institution has data for; answer Configured."""

    charter: Charter


@dataclass(frozen=True, slots=True)
class OpenLearner:
    """Let the learner open the data again for the components that are held now; it answers as at a start."""


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
    | Amended
    | OpenLearner
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
    """A node's state on disk when it starts."""

    blocks: Sequence[StoredBlock] = ()
    records: Sequence[Signed[Record]] = ()  # not under any block yet, in the order of receipt
    messages: Sequence[tuple[int, bytes]] = ()
    headers: Sequence[Signed[UpdateHeader]] = ()
    reservations: Sequence[PutReservation] = ()
    published: frozenset[int] = frozenset()
    flags: Mapping[str, int] = field(default_factory=dict)
    # Height → ms since this node decided its block, as of the reading: not compared.
    ages: Mapping[int, int] = field(default_factory=dict, compare=False)
    clock: int = field(default=0, compare=False)  # Unix time of the reading in ms
