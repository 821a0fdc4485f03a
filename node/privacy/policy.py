"""Which policy is in force for a modality: the strictest of the charter's floor, a jurisdiction's preset, our own.

Also its consequences here: modalities that stay out of training, and components that are then not hosted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...protocol.charter import Charter
from ...protocol.claims import NO_EPSILON
from ...protocol.component_names import ComponentKind, parse_name
from ...protocol.equity import HELD_OUT
from ...protocol.learning import POLICIES, PrivacyFloor

CHARTER, JURISDICTION, INSTITUTION = "charter", "jurisdiction", "institution"
DEFAULT_DELTA = 10_000  # billionths: of an ε that is reported although nothing bounds it


@dataclass(frozen=True, slots=True)
class Bound:
    """One source's policy: `epsilon` in thousandths, `delta` in billionths, both unused unless "dp"."""

    policy: str
    epsilon: int
    delta: int


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy in force for a modality, and which sources set it.

    `epsilon` (thousandths) and `delta` (billionths) bound it under "dp"; under "open" `delta` is the one at which an ε
    is still reported. `why` names the source of policy, ε and δ: "charter", "jurisdiction", "institution".
    `sensitivity` is what charter and dataset.toml declare, the stricter of both; "": neither does.
    """

    modality: str
    policy: str
    epsilon: int
    delta: int
    why: tuple[str, str, str]
    sensitivity: str = ""


def strictest(bounds: Iterable[Bound]) -> Bound:
    """Return one source's policy from several rules of it: the strictest policy, the smallest ε and δ under "dp"."""
    asked = list(bounds)
    policy = min((bound.policy for bound in asked), key=POLICIES.index)
    dp = [bound for bound in asked if bound.policy == "dp"] if policy == "dp" else asked
    return Bound(policy, min(bound.epsilon for bound in dp), min(bound.delta for bound in dp))


def in_force(floor: PrivacyFloor, preset: Bound | None, own: Bound | None) -> InForce:
    """Return the strictest of all three: "never" before "dp" before "open"; the smallest ε and δ of those under "dp".

    Where sources ask for the same, the first of charter, jurisdiction and institution is named.
    """
    sources = [(CHARTER, Bound(floor.policy, floor.epsilon, floor.delta)), (JURISDICTION, preset), (INSTITUTION, own)]
    asked = [(name, bound) for name, bound in sources if bound is not None]
    by, strictest = min(asked, key=lambda item: POLICIES.index(item[1].policy))
    bounds = [(name, bound) for name, bound in asked if bound.policy == "dp"]
    if not bounds:
        delta = own.delta if own is not None and own.delta else DEFAULT_DELTA
        return InForce(floor.modality, strictest.policy, NO_EPSILON, delta, (by, by, by))
    epsilon_by, tightest = min(bounds, key=lambda item: item[1].epsilon)
    delta_by, smallest = min(bounds, key=lambda item: item[1].delta)
    return InForce(floor.modality, strictest.policy, tightest.epsilon, smallest.delta, (by, epsilon_by, delta_by))


def of_charter(charter: Charter) -> tuple[InForce, ...]:
    """Return the policy in force for each modality by the charter alone, by name."""
    return tuple(in_force(floor, None, None) for floor in sorted(charter.learning.bounds, key=lambda f: f.modality))


def withheld(charter: Charter, policies: Sequence[InForce], engaged: Iterable[str]) -> dict[str, str]:
    """Return the modalities whose data take no part in training here, with the reason, by name.

    Under "never" none do. Under "dp" none may reach an engaged component that the charter gives no noise.
    """
    noises = {spec.name: spec.noise_multiplier for spec in charter.components}
    names = [name for name in engaged if name in noises]
    reasons = {}
    for policy in policies:
        if policy.policy == "never":
            reasons[policy.modality] = f"the policy for {policy.modality} is never ({policy.why[0]})"
        elif policy.policy == "dp":
            bare = [name for name in charter.learning.downstream(policy.modality, names) if noises[name] == 0]
            if bare:
                reasons[policy.modality] = (
                    f"the policy for {policy.modality} is dp ({policy.why[0]}),"
                    f" and by the charter {', '.join(bare)} carries no noise"
                )
    return dict(sorted(reasons.items()))


def refused(
    charter: Charter, policies: Sequence[InForce], wanted: Iterable[str], opened: Iterable[str]
) -> dict[str, str]:
    """Return the components opened by amendment that an own policy rules out here, with the reason, by name.

    No vote changes a member's own policy: it takes no part in what opens against it, and goes on with the rest. A
    modality under "never", and a component without noise that the data of a modality under "dp" would reach.
    """
    voted, reasons, specs = set(opened), dict[str, str](), charter.specs
    for name in sorted(set(wanted) & voted):
        for policy in policies:
            if policy.policy == "dp" and not specs[name].noise_multiplier:
                if policy.modality in charter.learning.upstream(name):
                    reasons[name] = (
                        f"the policy for {policy.modality} is dp ({policy.why[0]}), and {name} carries no noise"
                    )
            elif policy.policy == "never" and policy.modality == owner(name):
                reasons[name] = f"the policy for {policy.modality} is never ({policy.why[0]})"
    return reasons


_REMEDY = {
    ("never", "charter"): "The charter says never: only another charter would let these data in.",
    ("never", "jurisdiction"): (
        "The jurisdiction's preset says never. If your institution may depart from it, name another one, or a file of"
        " your own, as jurisdiction under [privacy] in config.toml (`collegium privacy presets`)."
    ),
    ("never", "institution"): "This institution's own policy says never: policy under [privacy] in config.toml.",
    ("dp", "institution"): (
        'If your institution allows it, write policy = "open" under [privacy] in config.toml. Else ask for a charter'
        " with noise (without --no-dp)."
    ),
    ("dp", "jurisdiction"): (
        "The jurisdiction's preset asks for noise, and the charter has none there: ask for a charter with noise"
        " (without --no-dp)."
    ),
}


def remedy(policies: Sequence[InForce], withheld: Iterable[str]) -> str:
    """Return advice on admitting withheld modalities, by the source of the policy that withholds them."""
    out = set(withheld)
    whose = dict.fromkeys((policy.policy, policy.why[0]) for policy in policies if policy.modality in out)
    remedies = [_REMEDY[key] for key in whose if key in _REMEDY]
    return " ".join([*remedies, "A node that trains nothing still hosts and votes."])


def admitted(names: Iterable[str], withheld: Iterable[str]) -> tuple[str, ...]:
    """Return the components without those that belong to a withheld modality, in the same order."""
    out = set(withheld)
    return tuple(name for name in names if owner(name) not in out)


def owner(component: str) -> str | None:
    """Return the modality to which a component belongs, HELD_OUT for groups, or None."""
    name = parse_name(component)
    return HELD_OUT if name.kind is ComponentKind.GROUPS else name.modality


def used(charter: Charter, hosted: Iterable[str], withheld: Iterable[str], engaged: Iterable[str]) -> tuple[str, ...]:
    """Return the modalities whose data a training run over the engaged components uses here, sorted.

    A modality that has components of its own is used only where one of them is hosted: nothing else reads it.
    """
    learning, here, out, names = charter.learning, set(hosted), set(withheld), list(engaged)
    own: dict[str, list[str]] = {
        modality.name: [spec.name for spec in charter.components if parse_name(spec.name).modality == modality.name]
        for modality in learning.modalities
    }
    if learning.equity:
        own |= {HELD_OUT: []}
    return tuple(
        sorted(
            name
            for name, parts in own.items()
            if name not in out and learning.downstream(name, names) and (not parts or here & set(parts))
        )
    )
