"""Benchmarks: figures as ratios, taken side by side in one run."""

# The benchmarks, (module, function) by name; imported only when measured: libp2p and numpy take a second.
MODULES = {
    "transfer": ("transfer", "measure"),
    "fold": ("fold", "measure_fold"),
    "refold": ("fold", "measure_refold"),
    "ledger": ("ledger", "measure"),
    "round": ("rounds", "measure"),
    "daemon": ("daemon", "measure"),
    "dp": ("dp", "measure"),
    "learner": ("learner", "measure"),
    "sim": ("sim", "measure"),
}
