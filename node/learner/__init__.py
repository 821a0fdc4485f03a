"""The learner: a worker process that trains and evaluates. Only `protocol` may be imported by the daemon (no torch)."""
