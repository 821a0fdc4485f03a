"""Quiet hours: whether this node rests now, until when, and which of the charter's rounds come due meanwhile."""

from datetime import UTC, datetime

from ..home.quiet import QuietHours
from .context import Context, local, moment
from .note import Note, NoteKind
from .shapes import QuietShown

ALIGN = "Other hours, or another start of the rounds (their pace runs from when one closes), would let it take part."


def quiet_hours(context: Context) -> QuietShown | None:
    """Return this node's quiet hours, and what they are to the rounds of a week; None if it has none."""
    hours = context.quiet
    if not hours:
        return None
    change = hours.change(datetime.now())
    missed, due = missed_rounds(hours, context.charter.rules.pace / 1000, _first(context))
    return {
        "spans": list(hours.spans),
        "now": context.is_quiet(),
        "changes_at": None if change is None else moment(change.timestamp()),
        "rounds_due": due,
        "rounds_missed": missed,
    }


def missed_rounds(hours: QuietHours, pace: float, first: float | None) -> tuple[int, int]:
    """Return how many of the rounds due within a week, one every `pace` seconds, are in quiet hours, and of how many.

    `first`: the Unix time at which the next one is due; None: now.
    """
    begin = datetime.now() if first is None else datetime.fromtimestamp(first, UTC).astimezone().replace(tzinfo=None)
    return hours.missed(max(begin, datetime.now()), pace)


def quiet_notes(context: Context) -> list[Note]:
    """Return the notes on quiet hours: that they are on, and that every round comes due in them."""
    shown = quiet_hours(context)
    if shown is None:
        return []
    notes = resting(context.quiet)
    if shown["rounds_due"] and shown["rounds_missed"] == shown["rounds_due"]:
        sentence = (
            f"At the charter's pace every round of the next 7 days ({shown['rounds_due']}) comes due in this node's"
            " quiet hours, and closes without it where enough others train then."
        )
        notes.append(Note(NoteKind.QUIET_MISSES_ROUNDS, sentence, ALIGN))
    return notes


def resting(hours: QuietHours) -> list[Note]:
    """Return the note that quiet hours are on; an empty list if they are not."""
    now = datetime.now()
    change = hours.change(now)
    if change is None or not hours.at(now):
        return []
    sentence = f"This node is in its quiet hours: it trains nothing until {local(change)}. It votes and folds."
    return [Note(NoteKind.QUIET_HOURS, sentence, "It goes on by itself.")]


def _first(context: Context) -> float | None:
    """Return when the charter's pace makes the next round due, by this node's clock."""
    decided = [context.store.decided(c.rounds[-1].height) for c in context.ledger.components.values() if c.rounds]
    times = [time + context.charter.rules.pace / 1000 for time in decided if time is not None]
    return min(times) if times else float(context.charter.rules.start) or None
