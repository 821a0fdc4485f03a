"""A running federation's stores, read-only, so that a killed daemon does not blind the observer."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, genesis
from ...crypto.errors import CollegiumError
from ...node.core.events import Snapshot
from ...node.store.database import Store
from ...protocol.charter import Charter
from ...protocol.component_names import names_statistic
from ...protocol.components import ComponentSpec
from .federation import Institution

MAIN = ("accuracy", "auc", "r2", "loss_a_token")


@dataclass(slots=True)
class View:
    """One institution as of the last look: notes by (component, round), metric by round, training runs, height."""

    height: int = 0
    notes: dict[tuple[str, int], dict[str, object]] = field(default_factory=dict)
    metrics: dict[tuple[int, int], float] = field(default_factory=dict)  # by (generation, round)
    draws: int = 0
    epsilon: int = 0


def look(institution: Institution, before: View) -> View:
    """Read one institution's store; keep the last observation if it cannot be read at this moment."""
    try:
        with Store.open_readonly(institution.home.database) as store:
            draws = store.reservations()
            return View(
                height=store.height(),
                notes={(note.component, note.round): dict(note.data) for note in store.notes()},
                # In the order of the store the first metric of every kind of task comes last among these.
                metrics={
                    (m.generation, m.round): m.value
                    for m in store.metrics()
                    if m.metric in MAIN and not m.cell and not m.home_layer and not names_statistic(m.task)
                },
                draws=sum(not any(names_statistic(p.component) for p in draw.parts) for draw in draws),
                epsilon=max((epsilon for draw in draws for _, epsilon in draw.claims), default=0),
            )
    except CollegiumError:
        return before


def snapshot(institution: Institution) -> Snapshot:
    """Return all that an institution's database holds."""
    with Store.open_readonly(institution.home.database) as store:
        return store.snapshot()


def trained(charter: Charter) -> list[ComponentSpec]:
    """Return the components that go from round to round: all but the statistics."""
    return [spec for spec in charter.components if not spec.is_statistic]


def closed(view: View, charter: Charter) -> int:
    """Return the last round that this institution has folded in every component that is trained."""
    folded = [
        max((r for (name, r), note in view.notes.items() if name == spec.name and "folded_at" in note), default=0)
        for spec in trained(charter)
    ]
    return min(folded)


def moment(view: View, charter: Charter, round_: int, fact: str) -> float:
    """Return the last time of a fact ("trained_at", "folded_at") over a round's components; NaN if one lacks it."""
    facts = [view.notes.get((spec.name, round_), {}).get(fact) for spec in trained(charter)]
    times = [float(str(value)) for value in facts if value is not None]
    return max(times) if len(times) == len(facts) else math.nan


def round_seconds(views: Sequence[View], charter: Charter, round_: int) -> float:
    """Return the seconds from the last training's end to the last fold: a round without training. NaN if unknown.

    A member that trained after that was too late for the round: it was down, for example.
    """
    folded = [moment(view, charter, round_, "folded_at") for view in views]
    trained = [t for view in views if (t := moment(view, charter, round_, "trained_at")) <= max(folded)]
    return max(folded) - max(trained) if trained and not any(map(math.isnan, folded)) else math.nan


def bytes_per_round(views: Sequence[View], charter: Charter, skip: set[int]) -> float:
    """Return the median over nodes and rounds of the bytes received between two closes, rounds in `skip` left out."""
    differences = []
    for view in views:
        rounds = sorted({r for _, r in view.notes})
        for first, second in itertools.pairwise(rounds):
            a, b = (_received_at(view, charter, r) for r in (first, second))
            if second == first + 1 and not {first, second} & skip and not math.isnan(b - a):
                differences.append(b - a)
    return median(differences) if differences else math.nan


def _received_at(view: View, charter: Charter, round_: int) -> float:
    received = [view.notes.get((spec.name, round_), {}).get("received") for spec in trained(charter)]
    return math.nan if None in received else max(float(str(value)) for value in received)


def lower_bound(ledger: Ledger, institutions: Sequence[Institution], skip: set[int]) -> float:
    """Return the median over nodes and rounds of the bytes of every other host's update, once."""
    sizes: dict[int, list[tuple[bytes, int]]] = {}
    for component in ledger.components.values():
        for round_ in component.rounds:
            sizes.setdefault(round_.number, []).extend((entry.author, entry.size) for entry in round_.entries)
    came_in = [
        sum(size for author, size in entries if author != institution.identity.public_key)
        for number, entries in sizes.items()
        if number not in skip
        for institution in institutions
    ]
    return median(came_in) if came_in else math.nan


def fold_ledger(institution: Institution, charter: Charter) -> Ledger:
    """Return the ledger that an institution's stored blocks fold to, every signature in them checked."""
    ledger = genesis(charter)
    for stored in snapshot(institution).blocks:
        ledger = fold_block(ledger, stored.block, stored.records)
    return ledger
