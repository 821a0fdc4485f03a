"""Ledger fold, component fold, agreement, aggregation rules and withdrawal. Pure: no I/O."""
