"""What an operator can do on the page (ADR 22): each action makes a plan first, and does it once it is confirmed.

An action is a form by POST. It opens a ticket; the ticket's page says what would happen and what that costs, and its
button confirms it. The daemon is asked over the same control API as by the commands.
"""

from collections.abc import Mapping
from typing import NamedTuple

from . import explaining, members, proofs, training, withdrawing
from .steps import Action


class Named(NamedTuple):
    """An action, and what the page says while it is being looked at."""

    title: str
    make: Action


ACTIONS: Mapping[str, Named] = {
    "pause": Named("Pause training", training.pause),
    "resume": Named("Resume training", training.resume),
    "invite": Named("Invite an institution", members.invite),
    "uninvite": Named("Withdraw an invitation", members.uninvite),
    "vote": Named("Vote", members.vote),
    "expel": Named("Expel a member", members.expel),
    "forget": Named("Forget students", withdrawing.forget),
    "withdraw": Named("Withdraw contributions", withdrawing.withdraw),
    "prove": Named("Prove a record", proofs.prove),
    "verify-ledger": Named("Verify the ledger", proofs.verify_ledger),
    "verify-withdrawal": Named("Verify a withdrawal", proofs.verify_withdrawal),
    "certificate": Named("Certify a withdrawal", proofs.certificate),
    "explain": Named("Explain results", explaining.explain),
    "check-file": Named("Check a file", proofs.check_file),
}
"""By the name of its form."""

READS = frozenset({"prove", "verify-ledger", "verify-withdrawal", "certificate", "check-file"})
"""Actions that change nothing: a page that only reads has them too."""
