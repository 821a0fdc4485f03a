"""A node as shown to people and programs, in JSON: bytes in hex, members by name and key.

Views only read: the charter, the ledger, the store, and facts of a running daemon if there is one. The control API and
the command line without a daemon call the same functions.
"""

from .charter import charter_at, charter_history, differences
from .context import Context, InFlight, Live, moment, offline
from .ledger import ledger_log, ledger_show
from .membership import how_it_ended, member, motions, motions_named, near_motion, show_motion
from .note import Level, Note, NoteKind
from .privacy import forecast, privacy, privacy_log, privacy_plan, retraining_cost, spent_notes
from .rounds import round_detail, rounds
from .status import components, find_member, member_named, peers, status, under_way
from .unlearn import cost_to_others, unlearn

__all__ = [
    "Context",
    "InFlight",
    "Level",
    "Live",
    "Note",
    "NoteKind",
    "charter_at",
    "charter_history",
    "components",
    "cost_to_others",
    "differences",
    "find_member",
    "forecast",
    "how_it_ended",
    "ledger_log",
    "ledger_show",
    "member",
    "member_named",
    "moment",
    "motions",
    "motions_named",
    "near_motion",
    "offline",
    "peers",
    "privacy",
    "privacy_log",
    "privacy_plan",
    "retraining_cost",
    "round_detail",
    "rounds",
    "show_motion",
    "spent_notes",
    "status",
    "under_way",
    "unlearn",
]
