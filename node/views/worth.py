"""Whether a task is predicted better than by a constant, on this node's own held-out records. Nothing leaves."""

from collections.abc import Mapping, Sequence

NAMES = {"accuracy": "accuracy", "brier": "Brier score"}
SATURATED = 1e-6  # a probability so near 0 or 1 is written as 0.0 or 1.0
MANY = 0.1  # share of the records: from this on, certain predictions are reported


def no_better(metrics: Mapping[str, float | None]) -> list[str]:
    """Return in words the metrics (node/learner/tasks.py) in which a task is no better than the best constant."""
    reasons = []
    r2 = metrics.get("r2")
    if r2 is not None and r2 <= 0.0:
        reasons.append(f"R² {r2:.3g} is not above 0, which the mean has")
    for name, called in NAMES.items():
        value, constant = metrics.get(name), metrics.get(f"{name}_constant")
        if value is None or constant is None:
            continue
        if name == "brier" and value >= constant:
            reasons.append(f"{called} {value:.3f} is not below {constant:.3f}, which the base rates have")
        if name == "accuracy" and value <= constant:
            reasons.append(f"{called} {value:.3f} is not above {constant:.3f}, which the commonest class has")
    return reasons


def certain(scores: Sequence[Sequence[float]]) -> int:
    """Return the number of records with a class of probability 0.0 or 1.0, as written."""
    return sum(any(p <= SATURATED or p >= 1.0 - SATURATED for p in row) for row in scores)
