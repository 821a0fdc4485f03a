"""From config.toml, the charter and the data folder to the policies in force and the components of this node."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.charter import Charter
from ...protocol.equity import HELD_OUT
from ...protocol.learning import SENSITIVITIES
from ..blueprint.recipe import needed
from ..data.manifest import MANIFEST, read_manifest
from ..privacy import policy
from . import jurisdiction
from .away import missing_data
from .config import Config


def policies(config: Config, charter: Charter) -> tuple[policy.InForce, ...]:
    """Return the policy in force for each of the charter's modalities, by name.

    A preset's rule is by the charter's sensitivity, else by kind; where dataset.toml declares another one, by the
    stricter of both rules. Raises UsageError for a jurisdiction or a dataset.toml that cannot be read, or a modality
    that is not in the charter: a misspelt privacy setting must not be ignored.
    """
    learning, own = charter.learning, config.privacy
    kinds = {modality.name: modality.kind for modality in learning.modalities}
    if learning.equity:
        kinds[HELD_OUT] = "tabular"  # sensitive columns are of a table
    overrides = {entry.modality: entry for entry in own.modalities}
    for name in overrides:
        if name not in kinds:
            raise UsageError(
                f"config.toml has [privacy.modalities.{name}], and the charter no such modality",
                f"The charter has {', '.join(sorted(kinds))}.",
            )
    # `load` has made a path absolute.
    preset = jurisdiction.load(own.jurisdiction, Path()) if own.jurisdiction else None
    here, in_force = _sensitivities_here(config), []
    stated = {modality.name: modality.sensitivity for modality in learning.modalities}
    for name, kind in sorted(kinds.items()):
        entry = overrides.get(name)
        bound = policy.Bound(
            (entry.policy if entry else "") or own.policy,
            thousandths((entry.epsilon if entry else 0.0) or own.epsilon),
            billionths((entry.delta if entry else 0.0) or own.delta),
        )
        declared = [stated.get(name, ""), *filter(None, [here.get(name)])]
        rule = None if preset is None else policy.strictest(preset.rule(kind, s).bound for s in declared)
        strictest = min(filter(None, declared), key=SENSITIVITIES.index, default="")
        in_force.append(replace(policy.in_force(learning.floor(name), rule, bound), sensitivity=strictest))
    return tuple(in_force)


def _sensitivities_here(config: Config) -> dict[str, str]:
    """Return what dataset.toml declares, by modality; nothing without data, or while they are away."""
    folder = config.data.path
    if folder is None or missing_data(config) or not (folder / MANIFEST).exists():
        return {}
    return {entry.name: entry.sensitivity for entry in read_manifest(folder).modalities}


@dataclass(frozen=True, slots=True)
class HostedComponents:
    """The components that exist at this node: `hosted` are offered, trained, acknowledged and attested; `followed` are
    only folded, for forward passes. `withheld` has the reason for each modality excluded from training."""

    hosted: tuple[str, ...]
    followed: tuple[str, ...]
    withheld: Mapping[str, str]

    @property
    def held(self) -> tuple[str, ...]:
        """Both, sorted."""
        return tuple(sorted((*self.hosted, *self.followed)))


def wanted_components(config: Config, charter: Charter) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (hosted, followed) before policies exclude any, both sorted.

    A node with data needs the components of its modalities and tasks; it hosts those that it engages and follows the
    rest. A node without data, or with its own learner that reads no dataset.toml, hosts all that it engages. Raises
    UsageError or CorruptError for a data folder that cannot be read.
    """
    names = tuple(sorted(spec.name for spec in charter.components))
    folder, engages = config.data.path, config.learning.engages
    if folder is None or (config.learning.learner and not (folder / MANIFEST).exists()):
        return tuple(name for name in names if engages(name)), ()
    data = read_manifest(folder)
    modalities, tasks = {entry.name for entry in data.modalities}, {entry.name for entry in data.tasks}
    used = needed(charter.learning, names, modalities, tasks)
    known = {group.name for group in data.groups}
    if not any(attribute.name in known for equity in charter.learning.equity for attribute in equity.attributes):
        used = tuple(name for name in used if policy.owner(name) != HELD_OUT)  # nobody's group is known here
    return tuple(name for name in used if engages(name)), tuple(name for name in used if not engages(name))


def parts_here(config: Config, charter: Charter) -> HostedComponents:
    """Return this node's components, as its daemon uses them. Raises as `wanted_components` does."""
    return admitted_parts(config, charter, *wanted_components(config, charter))


def admitted_parts(
    config: Config, charter: Charter, hosted: tuple[str, ...], followed: tuple[str, ...] = ()
) -> HostedComponents:
    """Return the components of these that the policies in force admit. Raises as `policies` does."""
    withheld = policy.withheld(charter, policies(config, charter), hosted)
    return HostedComponents(policy.admitted(hosted, withheld), policy.admitted(followed, withheld), withheld)


def why_idle(config: Config, charter: Charter) -> str:
    """Return the configured reason why this node trains nothing, one of protocol.records.IDLE; "" if it trains.

    It uses the declared number of students, never that in the data, which would reveal single students (G6).
    """
    if config.data.path is None:
        return "no-data"
    if not config.learning.contribute:
        return "off"
    return "" if charter.learning.enough(declared_lot(config)) else "too-few-students"


def declared_lot(config: Config) -> int:
    """Return the declared L of config.toml, in thousandths; 0 if there is none."""
    return round(config.learning.lot_size * 1000)


def declared_students(config: Config, charter: Charter) -> int:
    """Return the declared number of students, N̂ = L over the share that a step draws, rounded; 0 if there is none."""
    return round(config.learning.lot_size / charter.learning.drawn)


def hosted_components(config: Config, charter: Charter) -> tuple[str, ...]:
    """Return the components that this node hosts, sorted. Raises as `wanted_components` does."""
    return parts_here(config, charter).hosted


def thousandths(epsilon: float) -> int:
    """Return an ε in thousandths, rounded down, at least one."""
    return max(1, int(epsilon * 1000 + 1e-6))


def billionths(delta: float) -> int:
    """Return a δ in billionths, rounded down, at least one."""
    return max(1, int(delta * 1e9 + 1e-6))
