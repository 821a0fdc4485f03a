"""Problems of this federation or this node, in sentences, each with advice."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ...consensus.ledger import ComponentLedger, Ledger
from ...consensus.membership import OpenMotion, Roll, Seat, needed
from ..core.motions import undecided
from ..home.paths import GOOD_FREE
from ..words import counted
from .context import Context, Live
from .membership import sentence
from .note import Note, NoteKind
from .quiet import quiet_notes
from .training import listed, remarks
from .unlearn import scheduled_notes

SOON = 3  # rounds: a budget that lasts for no more gets a note
_BY_ITSELF = "It goes on by itself."
BOUNDS = "`collegium privacy show` has the training runs and who set which bound."
STILL = (
    "It keeps its data, and signs and sends nothing more. Without a daemon it can still verify the ledger"
    " (`collegium ledger verify`), and have what it contributed withdrawn: `collegium unlearn statement --out FILE`,"
    " which a member carries."
)


def notes(context: Context) -> list[Note]:
    """Return the notes on a node. For a former member: that it is none, and its remaining options."""
    ledger, live = context.ledger, context.live
    seat = None if context.me is None else ledger.roll.seats.get(context.me)
    if seat is not None and seat.gone:
        return [gone(seat, ledger.roll)]
    shown = [_candidate(context)] if context.me is not None and seat is None else []
    shown += [
        Note(
            NoteKind.BALLOT_WAITS,
            f"A motion waits for your ballot: {sentence(context, motion)}.",
            f"`collegium peer approve|refuse {motion.digest.hex()[:12]}`.",
            motion.digest.hex(),
        )
        for motion in undecided(ledger, context.me)
    ]
    shown += [
        Note(
            NoteKind.EXPULSION_PROPOSED,
            f"The members vote on it: {sentence(context, motion)}{_reason(motion)}; {len(motion.yes)} of"
            f" {needed(motion, ledger.members, ledger.fault_model)} have voted yes.",
            f"This node has no vote on it. Speak with the others; `collegium peer show"
            f" {context.member(motion.author)['name']}` says who made the motion.",
            motion.digest.hex(),
        )
        for motion in ledger.roll.motions
        if motion.action == "expel" and motion.subject == context.me
    ]
    shown += paused(context.paused) + quiet_notes(context) + scheduled_notes(context)
    if live is not None:
        shown += _running(context, live)
    return shown + remarks(context) + _uncertified_notes(context)


def _running(context: Context, live: Live) -> list[Note]:
    return [
        *(
            Note(
                NoteKind.APPLICATION_WAITS,
                f"Pending application: {name} (key {key.hex()[:16]}), invited"
                f" {f'as {invited}' if invited else 'without a name'}. Approve or refuse it:",
                f"`collegium peer approve|refuse {token_key}`.",
                token_key,
            )
            for name, token_key, invited, key in live.held
        ),
        *_network(context, live),
        *_storage(live),
        *_budget(context, live),
        *_learner(live),
    ]


def _network(context: Context, live: Live) -> list[Note]:
    ledger, shown = context.ledger, []
    if live.goal:
        source = context.member(live.source)["name"]
        shown.append(
            Note(
                NoteKind.CATCHING_UP, f"Catching up: height {ledger.height} of {live.goal}, from {source}.", _BY_ITSELF
            )
        )
    if live.taking:
        states = ", ".join(live.taking)
        shown.append(
            Note(NoteKind.TAKING_STATES, f"Taking the certified state of {states} from a neighbour.", _BY_ITSELF)
        )
    shown += older(live.returned, live.removals_unknown)
    if not live.signing and context.me in ledger.members:
        shown.append(
            Note(
                NoteKind.NOT_SIGNING,
                f"This node signs nothing yet: {live.reports} of the {ledger.quorum - 1} members that it needs have"
                " reported.",
                "Check that they run and can be reached (`collegium peer list`).",
            )
        )
    elif len(live.neighbours) < min(ledger.quorum - 1, live.max_neighbours) and context.me in ledger.members:
        shown.append(
            Note(
                NoteKind.TOO_FEW_CONNECTED,
                f"Connected to {len(live.neighbours)} of the {len(ledger.members) - 1} other members, and"
                f" {ledger.quorum} of {len(ledger.members)} must agree: rounds wait until more can be reached"
                " (`collegium peer list`).",
                "This node keeps what it signs meanwhile, and sends it then.",
            )
        )
    return shown


def _storage(live: Live) -> list[Note]:
    """Return notes on this node's disk, and on states that it cannot reproduce."""
    shown = []
    if live.free is not None and live.free < GOOD_FREE:
        shown.append(
            Note(
                NoteKind.DISK_NEARLY_FULL,
                f"The disk of this node has {live.free / 1e9:.1f} GB free. A full disk stops the daemon; nothing stored"
                " is lost.",
                "Free space.",
            )
        )
    if live.halted:
        names = listed(list(live.halted))
        shown.append(
            Note(
                NoteKind.STATE_DIFFERS,
                f"The state of {names} here differs from the certified one, and did so again when it was"
                " recomputed: this node no longer trains it, nor vouches for it.",
                "The others go on. Check this machine's memory and disk, and its package versions with another member's"
                " (`collegium doctor`); then restart.",
            )
        )
    return shown


def older(returned: Mapping[str, int], removals_unknown: bool) -> list[Note]:
    """Return notes if this home was behind its own signatures, with the consequences; else an empty list."""
    count, shown = sum(returned.values()), []
    if count:
        shown.append(
            Note(
                NoteKind.OLDER_HOME,
                "This home was older than the others' records of it (an old copy was put back, or its disk was lost):"
                f" {counted(count, 'record')} of its own came back from them.",
                "It continues after the last, never votes twice, and counts the spending of these updates (`collegium"
                " privacy show`). A training run whose update no other node got is not counted.",
            )
        )
    if removals_unknown:
        shown.append(
            Note(
                NoteKind.REMOVALS_UNKNOWN,
                "This node trains nothing: updates were withdrawn after this copy of the home was made. If a student"
                " was removed then, this home no longer leaves the student out.",
                "Run `collegium unlearn subject` again for each student who was removed since and is still in the data"
                " folder; then `collegium unlearn resume`.",
            )
        )
    return shown


def paused(on: bool) -> list[Note]:
    """Say that this node is paused; an empty list if it is not."""
    text = "This node is paused: it trains nothing and spends nothing, until you let it go on. It votes and folds."
    return [Note(NoteKind.PAUSED, text, "To train again: `collegium node resume`.")] if on else []


def _budget(context: Context, live: Live) -> list[Note]:
    learning, shown = context.charter.learning, []
    withheld = "; ".join((context.withheld or {}).values())
    if withheld and live.exhausted in ("", withheld):
        shown.append(
            Note(
                NoteKind.DATA_WITHHELD,
                f"This node does not train with all its data: {withheld}.",
                "`collegium doctor` has advice.",
            )
        )
    elif live.exhausted:
        shown.append(Note(NoteKind.BUDGET_SPENT, f"This node trains no more: {live.exhausted}.", BOUNDS))
    # The noise was chosen to end with the planned rounds. A statistic has one round.
    planned, sums = learning.planned_rounds, {spec.name for spec in context.charter.components if spec.is_statistic}
    shown += _run_out(
        context,
        {
            name: last
            for name, (left, last) in sorted(() if live.exhausted else live.forecast.items())
            if left <= SOON or any(round_ < planned for component, round_ in last.items() if component not in sums)
        },
    )
    if not live.contributing:
        shown.append(
            Note(
                NoteKind.NOT_CONTRIBUTING,
                "This node does not contribute (it withdrew, or its operator stopped it).",
                "It still votes and folds; `collegium unlearn status` lists its withdrawals.",
            )
        )
    return shown


def _learner(live: Live) -> list[Note]:
    shown = []
    if live.learner_left_out:
        shown.append(
            Note(
                NoteKind.STUDENTS_LEFT_OUT,
                f"{counted(live.learner_left_out, 'student is', 'students are')} left out of training: a cell of theirs"
                " cannot be used.",
                "node.log has the places, `collegium data check` all of them.",
            )
        )
    shown += live.learner_warnings
    if live.learner == "failed":
        shown.append(
            Note(
                NoteKind.LEARNER_FAILED,
                "The learner failed, so nothing is trained here; it is tried again by itself:"
                f" {live.learner_detail or 'it failed without a message; see node.log'}",
                "Correct it; no restart is needed, except after a change of config.toml.",
            )
        )
    if live.learner == "waiting":
        shown.append(
            Note(
                NoteKind.DATA_AWAITED,
                f"The data folder is not there, so nothing is trained here: {live.learner_detail}.",
                "It is looked for again, and this node goes on by itself.",
            )
        )
    elif live.data_missing:
        shown.append(
            Note(
                NoteKind.DATA_GONE,
                f"The data folder is not there any more: {live.data_missing}. This node trains on with what its"
                " learner has read of it, as long as the learner runs.",
                "Put it back where it was, or set [data] path in config.toml and start the daemon anew.",
            )
        )
    return shown


def _uncertified_notes(context: Context) -> list[Note]:
    """Return notes on components with too few hosts: one for each number of hosts."""
    ledger, together = context.ledger, dict[int, list[str]]()
    for spec in context.charter.components:
        component = ledger.components[spec.name]
        if component.round and _lacks_hosts(ledger, component):
            together.setdefault(len(component.hosts), []).append(spec.name)
    least = 4 if ledger.fault_model == "byzantine" else 2
    return [
        Note(
            NoteKind.STATES_UNCERTIFIED,
            f"{names[0]} has {count} hosts: its states are uncertified."
            if len(names) == 1
            else f"{listed(names)} have {count} hosts each: their states are uncertified.",
            f"From {least} hosts on they are certified: more members have to host them.",
        )
        for count, names in sorted(together.items())
    ]


def _lacks_hosts(ledger: Ledger, component: ComponentLedger) -> bool:
    """Whether a component has too few hosts for certificates, though there are enough members."""
    return not ledger.certifiable(component) and ledger.certifiable(replace(component, hosts=ledger.members))


def _candidate(context: Context) -> Note:
    return Note(
        NoteKind.NO_MEMBER_YET,
        f"This node's key is not a member's as of height {context.ledger.height}: it waits to be admitted, and until"
        " then no member lets it in.",
        "The members decide: ask the one that invited you.",
    )


def _reason(motion: OpenMotion) -> str:
    return f" (reason: {motion.reason})" if motion.reason else ""


def gone(seat: Seat, roll: Roll) -> Note:
    """Return the note on a former member: the reason, the height, and its remaining options."""
    reason = next((_reason(outcome.motion) for outcome in roll.outcomes if outcome.motion.digest == seat.end), "")
    what = {
        "evidence": "This node was expelled: a proof that it lied is in the ledger",
        "expelled": f"This node was expelled by the members{reason}",
        "left": "This node has left the federation",
        "rekeyed": "This member has changed its key",
    }[seat.gone]
    if seat.gone == "rekeyed":
        return Note(
            NoteKind.FORMER_MEMBER,
            f"{what}: this key is no member's since height {seat.until}.",
            "Use the directory of the new key.",
        )
    back = "To come back, in this same directory: `collegium join INVITATION --new-key`."
    return Note(NoteKind.FORMER_MEMBER, f"{what}: it is no member since height {seat.until}.", f"{STILL} {back}")


def _run_out(context: Context, last_rounds: Mapping[str, Mapping[str, int]]) -> list[Note]:
    """Return notes on budgets that run out: one for all modalities with the same last round."""
    together: dict[str, list[str]] = {}
    dates: dict[str, str] = {}
    for modality, last in last_rounds.items():
        after = ", ".join(f"round {round_} of {name}" for name, round_ in sorted(last.items()))
        if len(set(last.values())) == 1:
            after = f"round {min(last.values())}"
        together.setdefault(after, []).append(modality)
        dates[after] = _date(context, last)
    return [
        Note(
            NoteKind.BUDGET_RUNS_OUT,
            f"The privacy budget of {', '.join(names)} runs out after {after}{dates[after]}, if nothing changes.",
            BOUNDS,
            ", ".join(names),
        )
        for after, names in together.items()
    ]


def _date(context: Context, last: Mapping[str, int]) -> str:
    """Return the day on which the first of these rounds closes if each takes the charter's pace; "" without a pace."""
    pace = context.charter.rules.pace / 1000
    if not pace:
        return ""
    left = min(round_ - context.ledger.components[name].round for name, round_ in last.items())
    day = datetime.fromtimestamp(time.time() + max(0, left) * pace, UTC).date()
    return f" (not before {day.isoformat()} at the charter's pace)"
