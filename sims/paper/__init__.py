"""Ledgers made in one hand, without daemons: for tests and benchmarks of what outsiders check."""
