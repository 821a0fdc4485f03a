"""The states of a model without each of its contributors: what a withdrawal of all that a member sent would leave."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..home.paths import Home
from ..provenance import coalitions_of
from ..verify import Disk, Model
from ..verify.ledger import Progress


@dataclass(frozen=True, slots=True)
class Without:
    """A member, by name and present key, and the states (int32 little-endian) that are others without it."""

    name: str
    key: bytes
    states: dict[str, bytes]


def without_members(home: Home, model: Model, *, progress: Progress | None = None) -> Sequence[Without]:
    """Return the states without each member that a state of the model counts, in the order of their keys.

    Statistics are left out: no shared prediction reads them. Raises VerificationError where bytes are missing.
    """
    ledger = model.report.ledger
    states: dict[bytes, dict[str, bytes]] = {}
    for name, part in model.components.items():
        if part.spec.is_statistic or not part.round:
            continue
        c = ledger.components[name]
        made = coalitions_of(model.report, part.spec, c, c.rounds[: part.round], Disk(home.blobs), progress=progress)
        everybody = frozenset(made.players)
        for member in made.players:
            states.setdefault(member, {})[name] = made.state(everybody - {member}).astype("<i4").tobytes()
    return [Without(ledger.roll.seats[key].name, key, states[key]) for key in sorted(states)]
