"""A note on a node: its kind, and the level that follows from it. Monitors decide by these, never by its words."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Level(StrEnum):
    """What a note asks of an operator."""

    INFO = "info"  # nothing: the node goes on by itself, or the charter makes it so
    WARNING = "warning"  # a look, in working hours
    CRITICAL = "critical"  # to come: this node trains nothing, or no round closes


class NoteKind(StrEnum):
    """What a note is about. The values are part of the interface (`findings` of `node status --json`)."""

    FORMER_MEMBER = "former-member"
    NO_MEMBER_YET = "no-member-yet"
    BALLOT_WAITS = "ballot-waits"
    EXPULSION_PROPOSED = "expulsion-proposed"
    PAUSED = "paused"
    QUIET_HOURS = "quiet-hours"
    QUIET_MISSES_ROUNDS = "quiet-hours-miss-rounds"
    WITHDRAWAL_SCHEDULED = "withdrawal-scheduled"
    APPLICATION_WAITS = "application-waits"
    CATCHING_UP = "catching-up"
    TAKING_STATES = "taking-states"
    OLDER_HOME = "older-home"
    REMOVALS_UNKNOWN = "removals-unknown"
    NOT_SIGNING = "not-signing"
    TOO_FEW_CONNECTED = "too-few-connected"
    DATA_WITHHELD = "data-withheld"
    BUDGET_SPENT = "budget-spent"
    BUDGET_RUNS_OUT = "budget-runs-out"
    NOT_CONTRIBUTING = "not-contributing"
    STUDENTS_LEFT_OUT = "students-left-out"
    DECLARED_OTHERWISE = "declared-otherwise"
    LEARNER_FAILED = "learner-failed"
    DATA_AWAITED = "data-awaited"
    DATA_GONE = "data-gone"
    PATTERN_UNMATCHED = "pattern-unmatched"
    NOT_TRAINED_HERE = "not-trained-here"
    TOO_FEW_TRAINERS = "too-few-trainers"
    FEWER_FAULTS_TOLERATED = "fewer-faults-tolerated"
    STATES_UNCERTIFIED = "states-uncertified"
    STATE_DIFFERS = "state-differs"
    DISK_NEARLY_FULL = "disk-nearly-full"

    @property
    def level(self) -> Level:
        """The level of every note of this kind."""
        match self:
            case (
                NoteKind.CATCHING_UP
                | NoteKind.TAKING_STATES
                | NoteKind.STATES_UNCERTIFIED
                | NoteKind.QUIET_HOURS
                | NoteKind.WITHDRAWAL_SCHEDULED
            ):
                return Level.INFO
            case NoteKind.LEARNER_FAILED | NoteKind.TOO_FEW_CONNECTED | NoteKind.STATE_DIFFERS:
                return Level.CRITICAL
            case (
                NoteKind.FORMER_MEMBER
                | NoteKind.NO_MEMBER_YET
                | NoteKind.BALLOT_WAITS
                | NoteKind.EXPULSION_PROPOSED
                | NoteKind.PAUSED
                | NoteKind.QUIET_MISSES_ROUNDS
                | NoteKind.APPLICATION_WAITS
                | NoteKind.OLDER_HOME
                | NoteKind.REMOVALS_UNKNOWN
                | NoteKind.NOT_SIGNING
                | NoteKind.DATA_WITHHELD
                | NoteKind.BUDGET_SPENT
                | NoteKind.BUDGET_RUNS_OUT
                | NoteKind.NOT_CONTRIBUTING
                | NoteKind.STUDENTS_LEFT_OUT
                | NoteKind.DECLARED_OTHERWISE
                | NoteKind.DATA_AWAITED
                | NoteKind.DATA_GONE
                | NoteKind.PATTERN_UNMATCHED
                | NoteKind.NOT_TRAINED_HERE
                | NoteKind.TOO_FEW_TRAINERS
                | NoteKind.FEWER_FAULTS_TOLERATED
                | NoteKind.DISK_NEARLY_FULL
            ):
                return Level.WARNING
            case _:
                assert_never(self)


OF_THE_DATA = {  # whether they are there tells of the students
    NoteKind.STUDENTS_LEFT_OUT,
    NoteKind.DECLARED_OTHERWISE,
    NoteKind.WITHDRAWAL_SCHEDULED,
}


@dataclass(frozen=True, slots=True)
class Note:
    """A problem of a node or its federation, and the advice on it, a sentence each."""

    kind: NoteKind
    found: str
    advice: str
    subject: str = ""  # what this note is about, where a node may have several of a kind

    @property
    def level(self) -> Level:
        """What it asks of an operator."""
        return self.kind.level

    def __str__(self) -> str:
        return f"{self.found} {self.advice}".rstrip()
