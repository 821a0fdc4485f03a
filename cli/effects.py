"""What an amendment does to this institution's own students, for who votes on it."""

from typing import TYPE_CHECKING, Any

from ..crypto.errors import CorruptError, UsageError
from .output import say, table
from .read import from_store

if TYPE_CHECKING:
    from ..node.home.paths import Home
    from ..node.views.shapes_charter import Exposure
    from ..protocol.charter import Charter


def own_students(place: "Home", charter: "Charter", after: "Charter") -> "list[Exposure]":
    """Return what changes for the students of this home; nothing where it has no data, or they cannot be read."""
    from ..node.home.config import load
    from ..node.home.models import MEND, lacking, missing_models
    from ..node.home.policies import policies, wanted_components
    from ..node.views.exposure import exposures

    try:
        config = load(place.config)
        if config.data.path is None:
            return []
        lacks = missing_models(config, after)
        if lacks:
            say(f"warning: {lacking(lacks)}; without it this node takes no component that opens. {MEND}")
        engaged = tuple(wanted_components(config, side)[0] for side in (charter, after))
        return exposures(charter, after, (engaged[0], engaged[1]), policies(config, after), _spent(place))
    except (UsageError, CorruptError) as error:
        say(f"warning: what it does to this institution's students is not known: {error}")
        return []


def _spent(place: "Home") -> dict[str, int]:
    claims = [claim for put in from_store(place, lambda context: context.store.reservations()) for claim in put.claims]
    return {modality: max(value for name, value in claims if name == modality) for modality, _ in claims}


def of_open_motions(place: "Home") -> "dict[str, list[Exposure]]":
    """Return the same of each open motion to amend, by the motion's digest in hex."""
    from ..protocol.amendment import amended

    context = from_store(place, lambda context: context)
    return {
        motion.digest.hex(): own_students(place, context.charter, amended(context.charter, motion.statement))
        for motion in context.ledger.roll.motions
        if motion.action == "amend"
    }


def show_own(out: Any, own: "list[Exposure]") -> None:
    """Print what changes for this institution's students."""
    rows = [(e["modality"], e["noise_before"], e["noise_after"], e["epsilon_before"], e["epsilon_after"]) for e in own]
    columns = ("modality here", "σ before", "σ after", "ε of all planned rounds before", "after")
    table(out, columns, rows, empty="Nothing changes for this institution's own students.")
    for entry in own:
        out.print(_budget_words(entry))
    for entry in own:
        for name, why in entry["refused_here"].items():
            out.print(f"This node will take no part in {name}: {why}.")


def _budget_words(entry: "Exposure") -> str:
    """Say what is spent of the own budget, and whether the planned rounds fit into it."""
    spent, limit, plan, name = entry["spent"], entry["limit"], entry["epsilon_after"], entry["modality"]
    if limit is None:
        return f"{name}: ε {spent:g} is spent so far; no ε bounds it here."
    text = (
        f"{name}: ε {spent:g} is spent so far; planned rounds may spend {limit:g} of this node's {entry['budget']:g}."
    )
    if spent >= limit:
        return f"{text} So this node trains in no planned round any more."
    if plan is not None and plan > limit:
        return (
            f"{text} All planned rounds would cost {plan:g}: this node trains with more noise, or stops before the end."
        )
    return text
