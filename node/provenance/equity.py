"""`equity show`: the groups that a federation released, from a verified ledger and the updates' bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from ...consensus import membership
from ...consensus.components import taken
from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind
from ...protocol.components import MILLION
from ...protocol.equity import Decision, Equity
from ..equity import ERRORS, LEAST, Estimate, Groups, added, auc, compared, groups_of, rate, thresholds
from ..home.paths import Home
from ..verify.bytes import Bytes, Disk
from ..verify.home import verify_home_ledger
from ..verify.ledger import Progress, Report
from ..verify.states import checked


@dataclass(frozen=True, slots=True)
class Released:
    """A task's releases in force: those of `members` (names) whose bytes are here, and how many others there are."""

    decision: Decision
    members: tuple[str, ...]
    groups: tuple[Groups, ...]
    lacking: int
    generation: int


def home_released(home: Home, task: str = "", *, progress: Progress | None = None) -> tuple[Equity, list[Released]]:
    """Return the charter's equity and the releases of each task, or of one. Raises UsageError, VerificationError."""
    report = verify_home_ledger(home, progress=progress)
    equity = next(iter(report.charter.learning.equity), None)
    if equity is None:
        raise UsageError(
            "This charter has no [equity]: nothing is released of groups",
            "docs/learning.md says how a charter declares it. `collegium round show --local` has your own figures.",
        )
    chosen = [decision for decision in equity.decisions if task in ("", decision.task)]
    if not chosen:
        names = ", ".join(decision.task for decision in equity.decisions)
        raise UsageError(f"The charter's [equity] has no task {task!r}", f"It has {names}.")
    return equity, [released(report, decision, Disk(home.blobs)) for decision in chosen]


def released(report: Report, decision: Decision, data: Bytes) -> Released:
    """Return the releases of a task that are in force; withdrawn ones are not."""
    name = ComponentKind.GROUPS.named(decision.task)
    spec, c = report.charter.specs[name], report.ledger.components[name]
    members, groups, lacking = [], [], 0
    for round_ in c.rounds:
        for entry in taken(spec, round_)[0]:
            frame = data.get(entry.blob)
            if frame is None:
                lacking += 1
                continue
            values = checked(report, spec, round_.number, entry, data, frame)
            noise = report.updates[entry.update].header.recipe.noise_multiplier
            members.append(report.ledger.roll.seats[membership.present(report.ledger.roll, entry.author)].name)
            groups.append(groups_of(spec, decision, values.astype(np.int64), (noise / MILLION) ** 2))
    return Released(decision, tuple(members), tuple(groups), lacking, c.generation)


# ---- what is shown


class Shown(TypedDict):
    """A figure and its 95 % interval; `noise` is the part of its standard error that the releases' noise makes."""

    value: float
    low: float
    high: float
    noise: float


class GroupShown(TypedDict):
    """One group. None: under 50 students. Gaps are against the other groups of the attribute."""

    attribute: str
    level: str
    students: int | None
    missed: Shown | None
    falsely_flagged: Shown | None
    auc: float | None
    missed_gap: Shown | None
    falsely_flagged_gap: Shown | None
    within_institutions: bool


class EquityShown(TypedDict):
    """What everybody can tell of a task's groups; `thresholds` by attribute and level miss as many in each group."""

    task: str
    threshold: float
    flagged: str
    at_risk: int
    members: list[str]
    releases_without_bytes: int
    generation: int
    epsilon: float | None
    delta: float | None
    after_round: int
    groups: list[GroupShown]
    thresholds: dict[str, dict[str, float]]


def shown(equity: Equity, released: Released) -> EquityShown:
    """Return the figures of one task."""
    decision, members = released.decision, released.groups
    rows = range(len(equity.rows)) if members else ()
    whole = added(members) if members else None
    return {
        "task": decision.task,
        "threshold": decision.threshold / MILLION,
        "flagged": decision.flagged,
        "at_risk": decision.at_risk,
        "members": sorted(released.members),
        "releases_without_bytes": released.lacking,
        "generation": released.generation,
        "epsilon": equity.epsilon / 1000 if equity.epsilon else None,
        "delta": equity.delta / 1e9 if equity.epsilon else None,
        "after_round": equity.after,
        "groups": [_group(equity, decision, members, row) for row in rows],
        "thresholds": {
            attribute.name: {
                level: round(value, 4) for level, value in thresholds(whole, equity, decision, attribute.name).items()
            }
            for attribute in equity.attributes
        }
        if whole is not None
        else {},
    }


def _group(equity: Equity, decision: Decision, members: Sequence[Groups], row: int) -> GroupShown:
    whole = added(members)
    students = float(whole.decided[row].sum())
    gaps = {error: compared(members, equity, row, decision, error) for error in ERRORS}
    attribute, level = equity.rows[row]
    return {
        "attribute": attribute,
        "level": level,
        "students": round(students) if students >= LEAST else None,
        "missed": _shown(rate(whole, [row], decision, "missed")),
        "falsely_flagged": _shown(rate(whole, [row], decision, "falsely flagged")),
        "auc": None if (area := auc(whole, row)) is None else round(area, 3),
        "missed_gap": _shown(gaps["missed"][0]),
        "falsely_flagged_gap": _shown(gaps["falsely flagged"][0]),
        "within_institutions": all(within for _, within in gaps.values()),
    }


def _shown(estimate: Estimate | None) -> Shown | None:
    if estimate is None:
        return None
    low, high = estimate.interval
    return {
        "value": round(estimate.value, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "noise": round(estimate.noise, 4),
    }
