"""What an amendment does to this institution's own students: the noise and ε of a planned lifetime, before and after.

No vote changes a member's policy or budget. A component that opens downstream of a modality makes each training run
cost more of that modality's ε, so the same budget lasts for fewer rounds.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...protocol.charter import Charter
from ...protocol.claims import effective_noise
from ...protocol.components import MILLION
from ..privacy import policy as governing
from .shapes_charter import Exposure


def exposures(
    before: Charter,
    after: Charter,
    engaged: tuple[Sequence[str], Sequence[str]],
    policies: Sequence[governing.InForce],
    spent: Mapping[str, int] = MappingProxyType({}),
) -> list[Exposure]:
    """Return what changes for each modality that is trained on here; `engaged` are the components before and after.

    `policies` are those in force here under the charter after, `spent` each modality's ε so far in thousandths.
    """
    opened = after.specs.keys() - before.specs.keys()
    refused = governing.refused(after, policies, engaged[1], opened)
    kept = [name for name in engaged[1] if name not in refused]
    shown: list[Exposure] = []
    share = after.learning.recovery_share
    for policy in policies:
        sides = [_side(charter, policy, names) for charter, names in ((before, engaged[0]), (after, kept))]
        if sides[0] == sides[1] and not refused:
            continue
        (reaches, noise, epsilon), (reaches_after, noise_after, epsilon_after) = sides
        shown.append(
            {
                "modality": policy.modality,
                "reaches_before": reaches,
                "reaches_after": reaches_after,
                "noise_before": noise,
                "noise_after": noise_after,
                "epsilon_before": epsilon,
                "epsilon_after": epsilon_after,
                "spent": spent.get(policy.modality, 0) / 1000,
                "limit": policy.epsilon * (MILLION - share) // MILLION / 1000 if policy.policy == "dp" else None,
                "budget": policy.epsilon / 1000 if policy.policy == "dp" else None,
                "refused_here": {name: why for name, why in refused.items() if policy.modality in why},
            }
        )
    return shown


def _side(
    charter: Charter, policy: governing.InForce, engaged: Sequence[str]
) -> tuple[list[str], float | None, float | None]:
    """Return the components that a modality reaches, σ_eff of a step, and ε of the planned rounds."""
    from ..privacy.accountant import epsilon  # noqa: PLC0415 - dp_accounting takes seconds to import

    learning = charter.learning
    if policy.modality not in {m.name for m in learning.modalities} or policy.policy == "never":
        return [], None, None
    trained = [
        name
        for name in engaged
        if name in charter.specs and name not in charter.retired and not charter.specs[name].is_statistic
    ]
    reached = list(learning.downstream(policy.modality, trained))
    if not reached:
        return [], None, None
    noise = effective_noise([charter.specs[name].noise_multiplier for name in reached]) / MILLION
    steps = learning.steps * learning.runs_of_a_student(learning.planned_rounds)
    spent = epsilon([(learning.sample_rate / MILLION, noise, steps)], policy.delta / 1e9) if noise else None
    return reached, noise, None if spent is None else round(spent, 3)
