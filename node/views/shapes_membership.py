"""The JSON of the views of members, motions and withdrawals, as types: keys are part of the interface (docs/cli.md)."""

from typing import Literal, NotRequired, TypedDict, final

from ...protocol.membership import Action
from ...protocol.records import Mode, Scope
from .shapes import MemberName


class WithdrawnComponent(TypedDict):
    """A withdrawal's progress in one component.

    `label` of the state without it: "unchanged", "attested by 2 of 3", "certified", or "uncertified" where enough hosts
    attested it, but too few members host the component for a certificate. `settled`: no attestation is waited for.
    """

    component: str
    round: int
    generation: int
    closed_rounds_then: int
    reaches_back_to_round: int | None
    updates_beyond_refold_horizon: int
    label: str
    settled: bool
    attested: int
    needed: int
    blobs_to_erase: int


class WithdrawalShown(TypedDict):
    """A withdrawal, and its progress."""

    member: MemberName
    carried_by: MemberName
    mode: Mode
    scope: Scope
    what: str
    scope_components: list[str]
    scope_rounds: list[int]
    scope_updates: list[str]
    motion: str | None
    through: int
    height: int
    agreed_at: str | None
    state: str
    components: list[WithdrawnComponent]


class ScheduledBatch(TypedDict):
    """Withdrawals for students that this node carries out together: when, for how many, of how many updates.

    `local` is the time in this machine's zone, in words; `pauses` whether training is paused with it. Of the
    students `lapsed` did not ask: their consent has ended.
    """

    at: str
    local: str
    students: int
    updates: int
    pauses: bool
    lapsed: int


class Withdrawals(TypedDict):
    """Every withdrawal, whether one of this node's own waits to be signed, and its own that are still to come."""

    waiting_to_sign: bool
    scheduled: list[ScheduledBatch]
    withdrawals: list[WithdrawalShown]


class RefoldCost(TypedDict):
    """What each other member computes again of one component: rounds, the updates left in them, and their bytes."""

    component: str
    rounds: int
    updates: int
    bytes: int


class CostToOthers(TypedDict):
    """What a withdrawal costs each of the other members, in computing and transfer.

    `recovery_bytes` are of the updates that each fetches in the recovery rounds, if these are like the last rounds.
    """

    members: int
    refold: list[RefoldCost]
    recovery_rounds: int
    recovery_bytes: int


class MotionCommon(TypedDict):
    """The common fields of open and ended motions."""

    motion: str
    action: Action
    what: str
    subject: MemberName
    reason: str
    by: MemberName
    yes: list[MemberName]
    no: list[MemberName]


@final
class MotionShown(MotionCommon):
    """An open motion."""

    opened_at_height: int
    expires_after_height: int
    needed: int
    undecided: list[MemberName]
    your_ballot: Literal["yes", "no", "not cast"] | None
    addresses: NotRequired[list[str]]
    new_key: NotRequired[str]
    scope: NotRequired[str]


@final
class MotionEnded(MotionCommon):
    """An ended motion, with its outcome."""

    result: str
    why: str
    at_height: int


class Motions(TypedDict):
    """The motions of a federation; those that ended, last first."""

    height: int
    open: list[MotionShown]
    ended: list[MotionEnded]


class MemberShown(MemberName):
    """One member's seat: heights, motions that changed it, keys, and every motion about it."""

    me: bool
    since_height: int
    admitted_by: str | None
    until_height: int | None
    gone: str | None
    ended_by: str | None
    earlier_keys: list[str]
    later_key: str | None
    addresses: list[str]
    active_host_of: list[str]
    open_motions: list[MotionShown]
    ended_motions: list[MotionEnded]
