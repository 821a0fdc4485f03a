"""Which alarms are due: a function of the notes now, and of what was reported before."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypedDict

from ..views.note import Level, Note
from .record import Raised


class Change(StrEnum):
    """What happened to a problem. The values are part of the interface."""

    BEGINS = "begins"
    ENDS = "ends"
    TEST = "test"


class Message(TypedDict):
    """What a command gets on its standard input, and a webhook in the body of its POST request, as JSON."""

    alarm: str  # a Change
    kind: str  # a NoteKind, or "test"
    level: str  # a Level
    found: str  # the sentence that `node status` prints
    advice: str
    since: str  # ISO 8601, UTC
    node: str  # [node] name of config.toml
    federation: str  # the charter's name


@dataclass(frozen=True, slots=True)
class Due:
    """A message to an operator, and the record once it arrived; None: the problem is over and forgotten."""

    change: Change
    raised: Raised
    after: Raised | None


def key(problem: Note | Raised) -> tuple[str, str]:
    """What makes two notes the same problem: the words may change while it lasts."""
    return problem.kind, problem.subject


def watched(raised: Iterable[Raised], notes: Sequence[Note], now: float) -> tuple[Raised, ...]:
    """Return the problems to keep: of the notes that ask for an operator, and those whose end is to be reported."""
    before = {key(one): one for one in raised}
    present = {
        key(note): before.get(key(note)) or Raised(note.kind, note.subject, now, note.found, note.advice)
        for note in notes
        if note.level != Level.INFO
    }
    ended = {k: one for k, one in before.items() if k not in present and one.reported}
    return tuple({**ended, **present}.values())


def due(raised: Sequence[Raised], notes: Sequence[Note], now: float, after_seconds: int) -> list[Due]:
    """Return the messages that are due."""
    present = {key(note) for note in notes}
    messages = []
    for problem in raised:
        if key(problem) not in present:
            messages.append(Due(Change.ENDS, problem, None))
        elif not problem.reported and now - problem.since >= after_seconds:
            messages.append(Due(Change.BEGINS, problem, replace(problem, reported=True)))
    return messages


def message(change: Change, raised: Raised, node: str, federation: str) -> Message:
    """Return the message on a problem."""
    return Message(
        alarm=change.value,
        kind=raised.kind.value,
        level=raised.kind.level.value,
        found=raised.found,
        advice=raised.advice,
        since=_moment(raised.since),
        node=node,
        federation=federation,
    )


def trial(node: str, federation: str, now: float) -> Message:
    """Return a message that says nothing but that it arrives."""
    text = "This is a test of the alarms; nothing is wrong."
    return Message(
        alarm=Change.TEST.value,
        kind="test",
        level=Level.INFO.value,
        found=text,
        advice="",
        since=_moment(now),
        node=node,
        federation=federation,
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
