"""The JSON of the ledger's views, as types: keys are part of the interface (docs/cli.md)."""

from typing import Literal, TypedDict, final

from .shapes import MemberName


class OfferIdle(TypedDict):
    """A component that an offer names as not trained, and why (protocol/records.py IDLE)."""

    component: str
    why: str


@final
class OfferSaid(TypedDict):
    """The content of an offer."""

    components: list[str]
    idle: list[OfferIdle]
    addresses: list[str]


class ClaimSaid(TypedDict):
    """What an update claims of one modality; ε and δ are None without a bound."""

    modality: str
    epsilon: float | None
    delta: float | None
    steps: int


@final
class UpdateSaid(TypedDict):
    """The content of an update."""

    component: str
    round: int
    generation: int
    base: str
    blob: str
    bytes: int
    update: str
    steps: int
    sample_rate: float
    noise_multiplier: float
    claims: list[ClaimSaid]
    acks: list[MemberName]


@final
class AttestSaid(TypedDict):
    """The content of an attestation."""

    component: str
    round: int
    generation: int
    digest: str


@final
class EvidenceSaid(TypedDict):
    """The content of a proof that a member lied: its kind."""

    evidence: str


@final
class WithdrawalSaid(TypedDict):
    """The content of a withdrawal."""

    owner: MemberName
    scope: str
    mode: str
    through: int


@final
class MotionSaid(TypedDict):
    """The content of a motion."""

    action: str
    subject: MemberName
    reason: str
    expires_after_height: int


@final
class BallotSaid(TypedDict):
    """The content of a ballot."""

    motion: str
    vote: Literal["yes", "no"]


@final
class InertSaid(TypedDict):
    """A record of a kind that this version does not know."""

    inert: str


@final
class MalformedSaid(TypedDict):
    """A record whose body the fold refused, and why."""

    malformed: str


Said = (
    OfferSaid
    | UpdateSaid
    | AttestSaid
    | EvidenceSaid
    | WithdrawalSaid
    | MotionSaid
    | BallotSaid
    | InertSaid
    | MalformedSaid
)


class RecordLine(TypedDict):
    """A record in a line; one that no block has yet has no height and no position."""

    height: int | None
    position: int | None
    author: MemberName
    seq: int
    kind: str
    digest: str
    about: Said


class RecordShown(RecordLine):
    """A record in full."""

    type: Literal["record"]
    prev: str
    signature: str
    bytes: int
    received_at: str | None


class FeedHead(MemberName):
    """The last record of a member's feed that a block takes in."""

    seq: int
    digest: str


class ClosedRound(TypedDict):
    """A round that a block closes."""

    component: str
    round: int


class BlockCertificate(TypedDict):
    """The view in which a block was decided, and the members whose votes did it."""

    view: int
    signed_by: list[MemberName]


class BlockShown(TypedDict):
    """A block in full."""

    type: Literal["block"]
    height: int
    id: str
    prev: str
    tree_size: int
    tree_root: str
    fold: str
    next_members: str
    stored_at: str | None
    cut: list[FeedHead]
    close: list[ClosedRound]
    certificate: BlockCertificate
    records: list[RecordLine]
