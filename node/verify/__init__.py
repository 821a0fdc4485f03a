"""Offline checks from the charter alone: the ledger, the states that it certifies, and withdrawals (G1, G2, G4, G7).

Nothing here trusts a store: every signature is checked, every header and every state computed again.
"""

from .bytes import Bytes, Disk, checkpoints
from .files import ConsistencyFile, InclusionFile, LedgerFile, verify_file
from .home import parts_of_home, read_charter, verify_home_ledger, verify_home_states, verify_home_withdrawal
from .ledger import Certification, Counted, Report, verify_ledger, verify_record
from .memory import Memory, tenure_means
from .model import Component, Model, home_model
from .states import StateReport, verify_states
from .withdrawal import ComponentWithdrawal, WithdrawalReport, verify_withdrawal

__all__ = [
    "Bytes",
    "Certification",
    "Component",
    "ComponentWithdrawal",
    "ConsistencyFile",
    "Counted",
    "Disk",
    "InclusionFile",
    "LedgerFile",
    "Memory",
    "Model",
    "Report",
    "StateReport",
    "WithdrawalReport",
    "checkpoints",
    "home_model",
    "parts_of_home",
    "read_charter",
    "tenure_means",
    "verify_file",
    "verify_home_ledger",
    "verify_home_states",
    "verify_home_withdrawal",
    "verify_ledger",
    "verify_record",
    "verify_states",
    "verify_withdrawal",
]
