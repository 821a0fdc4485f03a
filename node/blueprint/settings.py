"""Settings of single components and modalities in a model file: learning rate, rule, privacy."""

from dataclasses import dataclass

from ...protocol.components import MILLION
from ...protocol.learning import POLICIES, RULES
from ..toml import Table
from .recipe import Privacy

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


def privacy_of(section: Table) -> Privacy | None:
    """Return the policy that a modality's table names, with its ε and δ. Raises UsageError."""
    policy = section.text("privacy", "")
    asked = [section.number(key) if key in section.raw else None for key in ("epsilon", "delta")]
    if not policy and asked == [None, None]:
        return None
    policy = policy or "dp"
    if policy not in POLICIES:
        raise section.fail(f"privacy = {policy!r} is unknown", f"Write one of {', '.join(POLICIES)}.")
    if policy != "dp" and asked != [None, None]:
        raise section.fail(f'epsilon and delta mean nothing under "{policy}"', 'Remove them, or write privacy = "dp".')
    return Privacy(policy, *asked)
