"""The contributors to a state: shares of its updates, and its value without a member.

All of it is read from one node's directory, verified from the charter on (node/verify), and changes nothing there.
"""

from .blame import blame, home_blame
from .influence import (
    Coalitions,
    Figures,
    Removal,
    Shapley,
    Worth,
    coalitions_of,
    leave_one_out,
    most_coalitions,
    shapley,
)

__all__ = [
    "Coalitions",
    "Figures",
    "Removal",
    "Shapley",
    "Worth",
    "blame",
    "coalitions_of",
    "home_blame",
    "leave_one_out",
    "most_coalitions",
    "shapley",
]
