"""Why this node does not train a component: the reason that its operator is told, and the word that others are told.

Other members see one of protocol.records.IDLE in an offer, and one neutral word for whatever may depend on the data
(ADR 18, G6). The operator of this node is always told the reason itself.
"""

from enum import StrEnum
from typing import assert_never

from ...protocol.records import PAUSED, SILENT


class Reason(StrEnum):
    """A reason of this node's own. Those that others are told too have the same value there."""

    NO_DATA = "no-data"
    OFF = "off"
    PLAN_DONE = "plan-done"
    BUDGET_SPENT = "budget-spent"
    POLICY = "policy"
    RETIRED = "retired"  # by an amendment of the charter
    TOO_FEW_STUDENTS = "too-few-students"
    SILENT = SILENT
    BY_OPERATOR = "by-operator"  # `node pause`
    QUIET_HOURS = "quiet-hours"  # [learning] quiet_hours of config.toml
    REMOVALS_UNKNOWN = "removals-unknown"  # the home lost the list of removed students
    STATE_DIFFERS = "state-differs"  # from the certified one, and again when it was recomputed
    LEARNER_LOST = "learner-lost"  # it ended, or cannot read the data
    FAILING = "failing"  # as many trainings in a row as are tried
    READING = "reading"  # the daemon restarted the learner: a student was left out
    NOT_IN_DATA = "not-in-data"  # the learner has no data for this component
    BEFORE_START = "before-start"  # it could not train when the daemon was last stopped

    @property
    def told(self) -> str:
        """What others are told: one of protocol.records.IDLE."""
        match self:
            case (
                Reason.NO_DATA
                | Reason.OFF
                | Reason.PLAN_DONE
                | Reason.BUDGET_SPENT
                | Reason.POLICY
                | Reason.RETIRED
                | Reason.TOO_FEW_STUDENTS
                | Reason.SILENT
            ):
                return self.value
            case (
                Reason.BY_OPERATOR
                | Reason.QUIET_HOURS
                | Reason.REMOVALS_UNKNOWN
                | Reason.STATE_DIFFERS
                | Reason.LEARNER_LOST
                | Reason.FAILING
                | Reason.READING
                | Reason.NOT_IN_DATA
                | Reason.BEFORE_START
            ):
                return PAUSED
            case _:
                assert_never(self)


PASSING = frozenset(  # reasons that end when the learner is ready
    {Reason.LEARNER_LOST, Reason.READING, Reason.NOT_IN_DATA, Reason.BEFORE_START}
)
