"""Trainers of each component, the reasons of its other hosts, and the effect on its rounds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...consensus import rules, trainers
from ...consensus.ledger import ComponentLedger
from ...protocol.components import MILLION
from ...protocol.records import IDLE, PAUSED
from .context import Context
from .note import Note, NoteKind
from .shapes import IdleHost, TrainingShown

LISTED = 12  # components that a note names
_WHY = "`collegium component list` says why the others do not."


def trained_by(context: Context, c: ComponentLedger) -> list[bytes]:
    """Return the active hosts that declare training of a component, sorted by key."""
    return sorted(trainers.trainers(context.ledger.offers, c.hosts, c.name))


def not_trained_by(context: Context, c: ComponentLedger) -> list[IdleHost]:
    """Return the active hosts that declare no training, each with `why` (one of IDLE) and its meaning."""
    offers = context.ledger.offers
    reasons = {host: trainers.idle(offers, host, c.name) for host in c.hosts}
    silent = [host for host, why in reasons.items() if why]
    return [
        {**member, "why": reasons[bytes.fromhex(member["key"])], "meaning": IDLE[reasons[bytes.fromhex(member["key"])]]}
        for member in context.members(silent)
    ]


def idle_here(context: Context) -> dict[str, str]:
    """Return the components that this node hosts and does not train, with the reason.

    From a running daemon's present state, otherwise from the last agreed offer and whether it was paused.
    """
    if context.live is not None:
        return dict(context.live.idle)
    offer = None if context.me is None else context.ledger.offers.get(context.me)
    reasons = {} if offer is None else {entry.component: entry.why for entry in offer.idle}
    return {**dict.fromkeys(context.hosted or () if context.paused else (), PAUSED), **reasons}


def meaning(context: Context, why: str) -> str:
    """Return what a reason of this node's own means. Others are told less of a pause."""
    return "it is paused by its operator" if why == PAUSED and context.paused else IDLE[why]


def training(context: Context) -> TrainingShown:
    """Return the hosted components that this node trains, and the others with `why` and its meaning."""
    idle = idle_here(context)
    hosted = context.hosted if context.hosted is not None else tuple(idle)
    return {
        "trained": [name for name in hosted if name not in idle],
        "idle": [{"component": n, "why": why, "meaning": meaning(context, why)} for n, why in sorted(idle.items())],
    }


def unmatched(patterns: Sequence[str], components: Sequence[str]) -> list[Note]:
    """Return the note on patterns of `engage` that match none of the components; an empty list without such a one."""
    if not patterns:
        return []
    every = ", … (`collegium charter show` has all)" if len(components) > LISTED else ""
    return [
        Note(
            NoteKind.PATTERN_UNMATCHED,
            f"engage in config.toml has {', '.join(map(repr, patterns))}, which no component of the charter matches.",
            "Correct it under [learning], or remove it, and start the daemon anew."
            f" The components are {', '.join(components[:LISTED])}{every}.",
        )
    ]


def remarks(context: Context) -> list[Note]:
    """Return notes on components that this node does not train, and on those with too few trainers."""
    shown = unmatched(context.unmatched, sorted(context.ledger.components))
    by_reason: dict[str, list[str]] = {}
    for name, why in sorted(idle_here(context).items()):
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = _advice(context, why)
        if more:
            shown.append(
                Note(NoteKind.NOT_TRAINED_HERE, f"This node does not train {listed(names)}: {IDLE[why]}.", more)
            )
    by_note: dict[Note, list[str]] = {}
    for _, c in sorted(context.ledger.components.items()):
        for note in _too_few(context, c):
            by_note.setdefault(note, []).append(c.name)
    return shown + [replace(note, found=f"{listed(names)}: {note.found}") for note, names in by_note.items()]


def _advice(context: Context, why: str) -> str:
    """Return the advice for a reason; "" for those with notes of their own."""
    learning = context.charter.learning
    if why == "plan-done":
        return "Raise [learning] rounds in config.toml, or set it to 0, to go on."
    if why == "too-few-students":
        least = f"{learning.min_students * learning.sample_rate / MILLION:g}"
        return (
            f"That is at least {learning.min_students} students: [learning] lot_size of {least}, the sampling rate"
            f" {learning.sample_rate / MILLION:g} times the number that you expect. Until then it hosts and votes."
        )
    if why == "silent":
        return "It goes on trying: others wait for it again after a training that takes less than the deadline."
    return ""


def _too_few(context: Context, c: ComponentLedger) -> Iterable[Note]:
    spec = context.charter.component(c.name)
    if spec is None or spec.is_statistic or not c.hosts:
        return
    count, hosts, ledger = len(trained_by(context, c)), len(c.hosts), context.ledger
    if count < spec.min_updates:
        need = f"{spec.min_updates} update{'s' if spec.min_updates > 1 else ''}"
        reasons = Counter(trainers.idle(ledger.offers, host, c.name) for host in c.hosts)
        others = "; ".join(
            f"{number} host{'s' if number > 1 else ''}: {IDLE[why]}" for why, number in sorted(reasons.items()) if why
        )
        yield Note(
            NoteKind.TOO_FEW_TRAINERS,
            f"{count} of {hosts} hosts train it{f' ({others})' if others else ''}, and a round needs {need}. No round"
            " closes until more do.",
            "What helps is a member that joins, or one that can go on (`collegium component list`).",
        )
    elif ledger.fault_model == "byzantine" and spec.rule != "mean" and rules.faults(count) < rules.faults(hosts):
        faulty = rules.faults(count)
        yield Note(
            NoteKind.FEWER_FAULTS_TOLERATED,
            f"{count} of {hosts} hosts train it, so a round tolerates {faulty} faulty updates.",
            _WHY,
        )


def listed(names: list[str]) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
