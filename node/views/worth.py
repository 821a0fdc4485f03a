"""What predictions are worth on this node's own held-out records: against a constant, and how sure. Nothing leaves."""

from collections.abc import Mapping, Sequence

from ..metrics import NEARLY, WRITTEN

NAMES = {"accuracy": "accuracy", "brier": "Brier score"}
MANY = 0.1  # share of the records: from this on, nearly certain predictions are reported


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
    return sum(any(p <= WRITTEN or p >= 1.0 - WRITTEN for p in row) for row in scores)


def too_certain(count: float, of: float, name: str, records: str = "records") -> str:
    """Return the warning where so many records of all are nearly certain, "" where they are few."""
    if not count or count < MANY * of:
        return ""
    return (
        f"{name}: of {count / of:.0%} of the {records} it is nearly certain (a probability of {NEARLY:g} or more, or"
        " 0.0). Under noise that is no certainty: large weights look like it."
    )
