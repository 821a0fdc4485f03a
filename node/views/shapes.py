"""The JSON of views, as types: keys are part of the interface (docs/cli.md)."""

from typing import NotRequired, TypedDict

from .note import Level, NoteKind


class MemberName(TypedDict):
    """A member as shown everywhere: its name, or a prefix of its key, and its key in hex."""

    name: str
    key: str


class IdleHost(MemberName):
    """A host that does not train: the reason (protocol/records.py IDLE), and its meaning."""

    why: str
    meaning: str


class IdleComponent(TypedDict):
    """A component that a node hosts and does not train: why (protocol/records.py IDLE), and what that means.

    `reason` is that of node/core/reasons.py where the node is this one, and `why` again where it is another.
    """

    component: str
    why: str
    reason: str
    meaning: str


class WaitingComponent(TypedDict):
    """A component that a node would train, but too few hosts can: how many of how many, and why, in words."""

    component: str
    trainers: int
    needed: int
    why: str


class TrainingShown(TypedDict):
    """The hosted components that this node offers to train, those of them that wait, and those that it does not."""

    trained: list[str]
    waiting: list[WaitingComponent]
    idle: list[IdleComponent]


class Missing(MemberName):
    """A host that was not counted in a round."""

    why: str


class StateLabel(TypedDict):
    """A state's digest, if known, and how far it is certified."""

    digest: str | None
    label: str


class RoundFacts(StateLabel):
    """A closed round. Facts that this node did not see itself are None."""

    component: str
    round: int
    generation: int
    height: int
    closed_at: str | None
    seconds: float | None
    stale: list[MemberName]
    deadline_passed: bool | None
    withdrawn: list[MemberName]
    quorum: int
    tolerated_liars: int
    bytes_of_updates: int
    bytes_received: int | None
    bytes_sent: int | None
    chain: str


class RoundSummary(RoundFacts):
    """A closed round in a line of `round list`."""

    counted: list[MemberName]
    missing: list[Missing] | None


class CountedUpdate(MemberName):
    """An update that a round counted; its weight in the mean, None under a rule that has none."""

    staleness: int
    weight: float | None
    bytes: int
    noise_variance: int
    update: str
    blob: str


class Attest(MemberName):
    """A host's digest of the state after a round."""

    digest: str


class Measured(TypedDict):
    """A figure of this node's own held-out students; a group under MIN_CELL is only marked as too small."""

    task: str
    metric: str
    group: str | None
    home_layer: bool
    value: float | None
    unit: str | None
    count: int | None
    too_few: bool
    generation: int
    in_force: bool


class NoBetter(TypedDict):
    """A task that is no better than a constant, and the metric."""

    generation: int
    task: str
    home_layer: bool
    reasons: list[str]


class NearlyCertain(TypedDict):
    """A task of many of whose held-out records the model is nearly certain: their share, and the warning."""

    generation: int
    task: str
    home_layer: bool
    share: float
    warning: str


class RoundDetail(RoundFacts):
    """A closed round in full. The figures, if they are asked for, are nobody else's business."""

    counted: list[CountedUpdate]
    missing: list[Missing]
    attested: list[Attest]
    block: str | None
    deciding_members: list[MemberName]
    evaluation: NotRequired[list[Measured]]
    no_better: NotRequired[list[NoBetter]]
    nearly_certain: NotRequired[list[NearlyCertain]]


class OnTheWay(MemberName):
    """An update in flight: signed by its author, not counted yet."""

    round: int
    acks: int
    bytes_here: bool
    refused: str


class OpenRound(TypedDict):
    """The round that is open now."""

    round: int
    ready: list[MemberName]
    on_the_way: list[OnTheWay]
    waiting_for: list[MemberName]


class ComponentGlance(StateLabel):
    """A component in a line of `node status`."""

    component: str
    round: int
    generation: int
    certified_round: int | None
    certified_digest: str | None
    counted_last: int
    active_hosts: int
    trainers: int
    closes_after: str | None
    hosted_here: bool | None
    followed_here: bool | None
    folded_round: int | None


class ComponentShown(ComponentGlance):
    """A component in full."""

    parameters: int
    width_bits: int
    rule: str
    min_updates: int
    noise_multiplier: float
    clip_norm: float
    learning_rate: float
    hosts: list[MemberName]
    not_training: list[IdleHost]
    host_quorum: int
    chain: str
    open_round: OpenRound
    erasing_blobs: int


class PeerShown(MemberName):
    """A present or former member, and its connection with this node."""

    me: bool
    state: str
    connected: bool | None
    why: str | None
    peer_id: str
    addresses: list[str]
    components: list[str]
    idle: list[IdleComponent]
    records: int
    last_record_at: str | None


class Peers(TypedDict):
    """All present and former members, and the addresses that this node's operator added."""

    peers: list[PeerShown]
    added: list[str]


class FederationGlance(TypedDict):
    """The federation at a glance."""

    id: str
    name: str
    fault_model: str
    members: int
    quorum: int
    pace_seconds: float
    tolerated_losses: int
    expelled: list[MemberName]
    open_motions: int


class LearnerGlance(TypedDict):
    """The learner of a running daemon."""

    state: str
    detail: str
    device: str | None
    left_out: int
    consents: dict[str, int] | None
    progress: list[int]
    cut_texts: dict[str, int]
    warnings: list[str]
    run: int | None


class NotConnected(MemberName):
    """A member without a connection, and the reason."""

    why: str


class CatchingUp(TypedDict):
    """A catch-up's target height, its source, and the components whose states are fetched."""

    of: int
    source: MemberName
    states: list[str]


class RunsOut(TypedDict):
    """The number of rounds until a modality's budget is used up, and each component's last round."""

    rounds_left: int
    last_rounds: dict[str, int]


class LiveShown(TypedDict):
    """Facts that only a running daemon knows."""

    started_at: str | None
    addresses: list[str]
    connected: list[MemberName]
    not_connected: list[NotConnected]
    bytes_received: int
    bytes_sent: int
    signing: bool
    contributing: bool
    learner: LearnerGlance
    view: int | None
    catching_up: CatchingUp | None
    refused: dict[str, int]
    returned: dict[str, int]
    removals_unknown: bool
    budget_runs_out: dict[str, RunsOut]


class FoundNote(TypedDict):
    """A problem and the advice on it, a sentence each; its kind and level are those of note.py."""

    kind: NoteKind
    level: Level
    found: str
    advice: str


class QuietShown(TypedDict):
    """This node's quiet hours, whether they are on and when that changes, and the rounds due within a week in them."""

    spans: list[str]
    now: bool
    changes_at: str | None
    rounds_due: int
    rounds_missed: int


class NodeStatus(TypedDict):
    """The node at a glance; without a daemon `live` is None."""

    running: bool
    member: MemberName | None
    is_member: bool
    gone: str | None
    gone_since_height: int | None
    federation: FederationGlance
    height: int
    block: str
    tree_size: int
    last_block_at: str | None
    components: list[ComponentGlance]
    training: TrainingShown
    paused: bool
    quiet_hours: QuietShown | None
    notes: list[str]
    findings: list[FoundNote]
    live: LiveShown | None
