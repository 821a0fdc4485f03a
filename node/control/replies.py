"""The JSON with which the control API answers commands, as types. What it shows has the types of node/views."""

from typing import NotRequired, TypedDict

from ...protocol.membership import Action
from ..unlearning.requests import OutOfReach
from ..views.shapes import MemberName


class PeerAdded(TypedDict):
    """An address that is remembered: the member behind it, or why no connection came."""

    address: str
    connected: bool
    why: NotRequired[str]
    tried: NotRequired[bool]
    member: NotRequired[MemberName]


class PeerRemoved(TypedDict):
    """An address that was forgotten, and those that are left."""

    address: str
    added: list[str]


class PauseSet(TypedDict):
    """Whether training was paused before, and whether a training run is under way."""

    was: bool
    training: bool


class Submitted(TypedDict):
    """A motion or a ballot that was signed: the subject of the one, the motion of the other."""

    submitted: bool
    subject: NotRequired[str | None]
    motion: NotRequired[str | None]
    withdrawn: NotRequired[str]  # the held application that was turned down: nothing was signed


class Applicant(TypedDict):
    """Who applied by an invitation."""

    name: str
    key: str
    addresses: list[str]


class InvitationShown(TypedDict):
    """An invitation that this node gave out, and how it stands."""

    invitation: str
    name: str
    created: str | None
    expires: str | None
    key: str | None
    hold: bool
    withdrawn: bool
    applicant: Applicant | None
    state: str


class InvitationGiven(InvitationShown):
    """A new invitation, with its text."""

    addresses: list[str]
    text: str


class Invitations(TypedDict):
    """All invitations of this node."""

    invitations: list[InvitationShown]


class InvitationWithdrawn(TypedDict):
    """The invitation that lets nobody in any more."""

    withdrawn: str


class WithdrawalAsked(TypedDict):
    """An own withdrawal: whether it is signed now or later, and whether the ledger will have it."""

    submitted: bool
    signing: bool
    recorded: bool


class WithdrawalProposed(TypedDict):
    """A motion to withdraw or rewind, and the rounds of each component that would run again."""

    submitted: bool
    subject: str
    action: Action
    rounds_again: dict[str, int]


class WithdrawalCarried(TypedDict):
    """A former member's withdrawal that this node carries."""

    submitted: bool


class StudentsLook(OutOfReach):
    """What a node knows of students together; `in_data` is None if no learner has read the data.

    `updates` are those that would be withdrawn; `scheduled` the Unix times at which that is to be done for any of them
    already; `rounds_left`: so many rounds may close before that can wait no more, None where no round counts any.
    """

    in_data: bool | None
    drawn: bool
    left_out: bool
    would_withdraw: int
    of_unknown_students: int
    own_updates: int
    own_rounds: int
    updates: list[str]
    scheduled: list[int]
    rounds_left: int | None


class StudentsForgotten(OutOfReach):
    """Students that are left out, and the updates that are withdrawn; `remaining` ones need another request."""

    excluded: bool
    in_data: bool | None
    drawn: bool
    withdrawn_updates: int
    remaining: int
    of_unknown_students: int
    updates: list[str]


class StudentsPutOff(OutOfReach):
    """Students that are left out, and updates that are withdrawn at a time; `with_others`: requests for that time.

    `rounds_left`: so many rounds may close before it is carried out early, so as not to miss the refold horizon; None
    where no round counts any of them.
    """

    excluded: bool
    in_data: bool | None
    drawn: bool
    at: int
    will_withdraw: int
    of_unknown_students: int
    with_others: int
    rounds_left: int | None


class Cancelled(TypedDict):
    """Requests to withdraw that were taken back, and students that are trained on again."""

    cancelled: int
    readmitted: int


class TrainingResumed(TypedDict):
    """Whether nothing was trained before."""

    held: bool


class Settled(TypedDict):
    """How many of some updates count or may count, and whether the hosts certified states without them."""

    left: int
    certified: bool


class BlockEvent(TypedDict):
    """The ledger's height, when it grows."""

    height: int


class RoundEvent(TypedDict):
    """A component's last closed round, when one closes, is certified or is refolded."""

    component: str
    round: int
    generation: int
    certified_round: int | None


class PeerEvent(TypedDict):
    """A member, and whether a connection with it is held."""

    member: MemberName
    connected: bool


class MotionEvent(TypedDict):
    """A motion, when it is proposed, when a ballot is counted, and when it ends (`open` false)."""

    motion: str
    what: str
    yes: int
    no: int
    open: bool


class WithdrawalEvent(TypedDict):
    """A withdrawal in the ledger; `settled` once no refold waits for a certificate and no bytes for erasure."""

    member: MemberName
    what: str
    height: int
    settled: bool


class LearnerEvent(TypedDict):
    """The learner's state, and the number of the training run that is under way."""

    state: str
    run: int | None


class Health(TypedDict):
    """A daemon that answers."""

    answers: bool


class Stopping(TypedDict):
    """A daemon that stops."""

    stopping: bool


class Refused(TypedDict):
    """Why something was not done, what to do next, and the exit code of docs/cli.md."""

    error: str
    advice: str
    exit_code: int
