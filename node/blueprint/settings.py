"""Settings that a component may have of its own in a model file: a learning rate and a rule."""

from dataclasses import dataclass

from ...protocol.components import MILLION
from ...protocol.learning import RULES
from ..toml import Table

LEARNING_RATE = 2.0


@dataclass(frozen=True, slots=True)
class Own:
    """Settings of single components; None: those of the others."""

    rate: int | None = None
    rule: str | None = None


def millionths(section: Table, key: str, default: float, high: int = MILLION, advice: str = "") -> int:
    """Return a positive number in millionths. Raises UsageError."""
    value = section.number(key, default)
    if not 1 / MILLION <= value <= high:  # neither is NaN
        raise section.fail(f"{key} = {value} is not between 0.000001 and {high:,}", advice)
    return round(value * MILLION)


def own_numbers(section: Table) -> Own:
    """Return the learning rate and the rule that a table names."""
    rate = millionths(section, "learning_rate", LEARNING_RATE) if "learning_rate" in section.raw else None
    return Own(rate, rule_of(section))


def rule_of(section: Table) -> str | None:
    """Return the rule that a table names. Raises UsageError for one that there is not."""
    if "rule" not in section.raw:
        return None
    rule = section.text("rule")
    if rule not in RULES:
        raise section.fail(f"rule = {rule!r} is unknown", f"Write one of {', '.join(RULES)}.")
    return rule
