"""From config.toml and the charter to the policy in force for each modality here."""

from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.charter import Charter
from ..privacy import jurisdiction, policy
from .config import Config


def policies(config: Config, charter: Charter) -> tuple[policy.InForce, ...]:
    """Return what is in force for each of the charter's modalities, by name.

    Raises UsageError for a jurisdiction that cannot be read or a modality that the charter does not know: a privacy
    setting must not be ignored for a slip of the pen.
    """
    learning, own = charter.learning, config.privacy
    known = {modality.name: modality for modality in learning.modalities}
    overrides = {entry.modality: entry for entry in own.modalities}
    for name in overrides:
        if name not in known:
            raise UsageError(
                f"config.toml has [privacy.modalities.{name}], and the charter no such modality",
                f"The charter has {', '.join(sorted(known))}.",
            )
    # `load` has made a path absolute.
    preset = jurisdiction.load(own.jurisdiction, Path()) if own.jurisdiction else None
    found = []
    for name, modality in sorted(known.items()):
        entry = overrides.get(name)
        bound = policy.Bound(
            (entry.policy if entry else "") or own.policy,
            thousandths((entry.epsilon if entry else 0.0) or own.epsilon),
            billionths((entry.delta if entry else 0.0) or own.delta),
        )
        rule = None if preset is None else preset.rule(modality.kind).bound
        found.append(policy.in_force(learning.floor(name), rule, bound))
    return tuple(found)


def hosted_components(config: Config, charter: Charter) -> tuple[str, ...]:
    """Return the components that this node hosts, sorted: those it engages, without a withheld modality's own."""
    names = [name for name in sorted(spec.name for spec in charter.components) if config.learning.engages(name)]
    return policy.admitted(names, policy.withheld(charter, policies(config, charter), names))


def thousandths(epsilon: float) -> int:
    """Return an ε in thousandths, rounded down, at least one."""
    return max(1, int(epsilon * 1000 + 1e-6))


def billionths(delta: float) -> int:
    """Return a δ in billionths, rounded down, at least one."""
    return max(1, int(delta * 1e9 + 1e-6))
