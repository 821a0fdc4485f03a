"""Explanations of results: what each role may see of them, in words, as a file, and computed again by another node.

The learner's worker makes the figures (node/learner/explain.py). Who contributed is the ledger's to tell: the states
without a member are folded here.
"""

from .contributors import Without, without_members
from .proof import FORMAT, Compared, Explanation, Proof, compare, proof_of, read, written
from .roles import ROLES, Contributor, Role, here, view
from .words import html, pieces, text

__all__ = [
    "FORMAT",
    "ROLES",
    "Compared",
    "Contributor",
    "Explanation",
    "Proof",
    "Role",
    "Without",
    "compare",
    "here",
    "html",
    "pieces",
    "proof_of",
    "read",
    "text",
    "view",
    "without_members",
    "written",
]
