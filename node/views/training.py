"""Trainers of each component, the reasons of its other hosts, and the effect on its rounds."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import assert_never

from ...consensus import rules, trainers
from ...consensus.ledger import ComponentLedger
from ...consensus.rounds import possible_authors
from ...protocol.learning import AVERAGES
from ...protocol.records import IDLE, PAUSED, Offer
from ..core.reasons import Reason
from .context import Context
from .note import Note, NoteKind
from .shapes import IdleComponent, IdleHost, TrainingShown, WaitingComponent

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


def idle_here(context: Context) -> dict[str, Reason]:
    """Return the components that this node hosts and does not train, with its own reason.

    From a running daemon's present state, otherwise from the last agreed offer and whether it is paused or quiet now.
    """
    if context.live is not None:
        return dict(context.live.idle)
    offer = None if context.me is None else context.ledger.offers.get(context.me)
    now = Reason.BY_OPERATOR if context.paused else Reason.QUIET_HOURS if context.is_quiet() else None
    offered = {} if offer is None else {e.component: _recalled(e.why, now) for e in offer.idle}
    return {**(dict.fromkeys(context.hosted or (), now) if now is not None else {}), **offered}


def _recalled(why: str, now: Reason | None) -> Reason:
    """Return the reason behind an offered one, which is all that is on the disk."""
    return now or Reason.BEFORE_START if why == PAUSED else Reason(why)


def meaning(context: Context, why: Reason) -> str:
    """Return what a reason of this node's own means, as its operator is told. Others may be told less."""
    match why:
        case Reason.BY_OPERATOR:
            return "it is paused by its operator"
        case Reason.QUIET_HOURS:
            return f"its quiet hours last until {context.quiet_until()}"
        case Reason.REMOVALS_UNKNOWN:
            return "it does not know which students were removed (the note below)"
        case Reason.STATE_DIFFERS:
            return "its state here differs from the certified one"
        case Reason.LEARNER_LOST:
            return "its learner does not run, or cannot read the data"
        case Reason.FAILING:
            return "its training failed too often: node.log has the errors; mend them and start the daemon anew"
        case Reason.READING:
            return "its learner reads the data anew, without students that were removed"
        case Reason.NOT_IN_DATA:
            return "its data have nothing for it"
        case Reason.BEFORE_START:
            return (
                "it could not when its daemon was last stopped; the learner has yet to open the data"
                if context.live is not None
                else "it could not when its daemon last ran (node.log says why)"
            )
        case (
            Reason.NO_DATA
            | Reason.OFF
            | Reason.PLAN_DONE
            | Reason.BUDGET_SPENT
            | Reason.POLICY
            | Reason.RETIRED
            | Reason.TOO_FEW_STUDENTS
            | Reason.SILENT
        ):
            return IDLE[why.told]
        case _:
            assert_never(why)


def offered(context: Context, offer: Offer | None, mine: bool) -> list[IdleComponent]:
    """Return the components that an offer names as not trained; of this node's own offer (`mine`) with its reasons."""
    own = idle_here(context) if mine else {}
    return [
        {
            "component": entry.component,
            "why": entry.why,
            "reason": own.get(entry.component, entry.why),
            "meaning": _meaning_of(context, own.get(entry.component)) if mine else IDLE[entry.why],
        }
        for entry in (offer.idle if offer is not None else ())
    ]


def _meaning_of(context: Context, why: Reason | None) -> str:
    return "it trains again; its next offer says so" if why is None else meaning(context, why)


def training(context: Context) -> TrainingShown:
    """Return the hosted components that this node trains, and the others with `why` and its meaning."""
    idle = idle_here(context)
    hosted = context.hosted if context.hosted is not None else tuple(idle)
    trained = [name for name in hosted if name not in idle]
    return {
        "trained": trained,
        "waiting": [waits for name in trained if (waits := waiting(context, name)) is not None],
        "idle": [
            {"component": n, "why": why.told, "reason": why, "meaning": meaning(context, why)}
            for n, why in sorted(idle.items())
        ],
    }


def waiting(context: Context, name: str) -> WaitingComponent | None:
    """Return why no host trains a component for its open round; None if enough can, or no host is known yet."""
    c, spec = context.ledger.components[name], context.charter.component(name)
    if spec is None or not c.hosts:
        return None
    able = possible_authors(context.charter, context.ledger, name)
    if len(able) >= spec.min_updates:
        return None
    why = "; ".join([f"{len(able)} of {spec.min_updates} trainers", *_others(context, c, able)])
    return {"component": name, "trainers": len(able), "needed": spec.min_updates, "why": why}


def _others(context: Context, c: ComponentLedger, able: Collection[bytes] = ()) -> list[str]:
    """Say of the hosts that do not train a component, but for those `able` to, who they are and why.

    This node's own reason is said in full: others may be told less.
    """
    own = idle_here(context).get(c.name)
    by_meaning: dict[str, list[str]] = {}
    for host in not_trained_by(context, c):
        key = bytes.fromhex(host["key"])
        if key not in able:
            why = meaning(context, own) if key == context.me and own is not None else host["meaning"]
            by_meaning.setdefault(why, []).append("this node" if key == context.me else host["name"])
    return [f"{listed(names)}: {why}" for why, names in sorted(by_meaning.items())]


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
    by_reason: dict[Reason, list[str]] = {}
    for name, why in sorted(idle_here(context).items()):
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = _advice(context, why)
        if more:
            shown.append(
                Note(NoteKind.NOT_TRAINED_HERE, f"This node does not train {listed(names)}: {IDLE[why.told]}.", more)
            )
    by_note: dict[Note, list[str]] = {}
    for _, c in sorted(context.ledger.components.items()):
        for note in _too_few(context, c):
            by_note.setdefault(note, []).append(c.name)
    return shown + [replace(note, found=f"{listed(names)}: {note.found}") for note, names in by_note.items()]


def _advice(context: Context, why: Reason) -> str:
    """Return the advice for a reason; "" for those with notes of their own."""
    learning = context.charter.learning
    if why is Reason.PLAN_DONE:
        return "Raise [learning] rounds in config.toml, or set it to 0, to go on."
    if why is Reason.TOO_FEW_STUDENTS:
        least = f"{learning.min_students * learning.drawn:g}"
        return (
            f"That is at least {learning.min_students} students: [learning] lot_size of {least}, the share that a"
            f" step draws ({learning.drawn:g}) times the number that you expect. Until then it hosts and votes."
        )
    if why is Reason.SILENT:
        return "It goes on trying: others wait for it again after a training that takes less than the deadline."
    return ""


def _too_few(context: Context, c: ComponentLedger) -> Iterable[Note]:
    spec = context.charter.component(c.name)
    if spec is None or spec.is_statistic or not c.hosts:
        return
    count, hosts, ledger = len(trained_by(context, c)), len(c.hosts), context.ledger
    if count < spec.min_updates:
        need = f"{spec.min_updates} update{'s' if spec.min_updates > 1 else ''}"
        others = "; ".join(_others(context, c))
        yield Note(
            NoteKind.TOO_FEW_TRAINERS,
            f"{count} of {hosts} hosts train it{f' ({others})' if others else ''}, and a round needs {need}. No round"
            " closes until more do, and none of them spends ε on it meanwhile.",
            "What helps is a member that joins, or one that can go on (`collegium component list`).",
        )
    elif (
        ledger.fault_model == "byzantine"
        and context.charter.rule(spec.name) not in AVERAGES
        and rules.faults(count) < rules.faults(hosts)
    ):
        faulty = rules.faults(count)
        yield Note(
            NoteKind.FEWER_FAULTS_TOLERATED,
            f"{count} of {hosts} hosts train it, so a round tolerates {faulty} faulty updates.",
            _WHY,
        )


def listed(names: list[str]) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
