"""Withdrawals of students' updates that are still to come: scheduled.json, by `unlearn subject --at`.

A request names nobody: it has the student's tag in excluded.json, since the student is left out from the moment of the
request, and the updates that saw the student, which no later one can join. So nothing has to be looked up when its time
has come, and no id is on the disk.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from ...crypto.errors import CorruptError
from ..store.errors import disk_errors
from ..store.files import read_limited, write_atomic
from .paths import Home

LIMIT = 64 << 20  # bytes
FAR = 2**40  # seconds: no time is later
RESTORE = "Restore a backup of it: it says which updates are to be withdrawn."


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The request for one id: withdraw these `updates` (header digests) `at` a Unix time, in seconds.

    `student` is the tag of the first id that the same command gave for the same student: requests of one student are
    cancelled together. `pause`: pause the node's training then. `cancelled`: a cancellation is under way.
    `consent`: nobody asked, a consent has ended; only a new consent takes it back.
    """

    tag: bytes
    student: bytes
    at: int
    asked: int
    updates: tuple[bytes, ...]
    pause: bool = False
    cancelled: bool = False
    consent: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """All requests to come, by time, and how many are over: carried out, replaced or cancelled."""

    requests: tuple[Scheduled, ...] = ()
    over: int = 0

    @property
    def total(self) -> int:
        """How many there ever were: the database knows this number, so that a lost file is noticed."""
        return len(self.requests) + self.over

    def of(self, tags: Collection[bytes]) -> tuple[Scheduled, ...]:
        """Return the requests for these ids."""
        return tuple(request for request in self.requests if request.tag in tags)

    def of_students(self, tags: Collection[bytes]) -> tuple[Scheduled, ...]:
        """Return the requests of the students who have these ids, for their other ids as well."""
        students = {request.student for request in self.of(tags)}
        return tuple(request for request in self.requests if request.student in students)

    def put(self, requests: Iterable[Scheduled]) -> "Schedule":
        """Return a schedule with these requests, each in place of an earlier one for its id."""
        new = {request.tag: request for request in requests}
        kept = [request for request in self.requests if request.tag not in new]
        ordered = sorted((*kept, *new.values()), key=lambda request: (request.at, request.asked, request.tag))
        return Schedule(tuple(ordered), self.over + len(self.requests) - len(kept))

    def without(self, tags: Collection[bytes]) -> "Schedule":
        """Return a schedule in which the requests for these ids are over."""
        kept = tuple(request for request in self.requests if request.tag not in tags)
        return Schedule(kept, self.over + len(self.requests) - len(kept))

    def at_once(self, tags: Collection[bytes], now: int) -> "Schedule":
        """Return a schedule in which the requests for these ids are due, and cannot be cancelled any more."""
        return self.changed(tags, lambda request: replace(request, at=min(now, request.at)))

    def changed(self, tags: Collection[bytes], change: Callable[[Scheduled], Scheduled]) -> "Schedule":
        """Return a schedule with the requests for these ids changed."""
        requests = [change(request) if request.tag in tags else request for request in self.requests]
        return Schedule(tuple(requests), self.over)


def load_schedule(home: Home) -> Schedule:
    """Read the requests to come. Raises CorruptError: what is lost here would not be withdrawn."""
    path = home.scheduled
    with disk_errors(path):
        try:
            data = read_limited(path, LIMIT)
        except FileNotFoundError:
            return Schedule()
    try:
        content = json.loads(data or b"")
        return Schedule(tuple(map(_request, content["requests"])), _count(content["over"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is damaged", RESTORE) from error


def save_schedule(home: Home, schedule: Schedule) -> None:
    """Write the requests to come; durable on return."""
    requests = [
        {
            "tag": request.tag.hex(),
            "student": request.student.hex(),
            "at": request.at,
            "asked": request.asked,
            "updates": [update.hex() for update in request.updates],
            "pause": request.pause,
            "cancelled": request.cancelled,
            "consent": request.consent,
        }
        for request in schedule.requests
    ]
    text = json.dumps({"over": schedule.over, "requests": requests}, indent=1) + "\n"
    write_atomic(home.scheduled, text.encode())


def _request(raw: dict[str, object]) -> Scheduled:
    updates = raw["updates"]
    if not isinstance(updates, list):
        raise ValueError("updates")
    return Scheduled(
        _digest(raw["tag"]),
        _digest(raw["student"]),
        _count(raw["at"]),
        _count(raw["asked"]),
        tuple(map(_digest, updates)),
        pause=raw["pause"] is True,
        cancelled=raw["cancelled"] is True,
        consent=raw.get("consent") is True,
    )


def _digest(value: object) -> bytes:
    digest = bytes.fromhex(str(value))
    if len(digest) != 32:
        raise ValueError("no digest")
    return digest


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < FAR:
        raise ValueError("no number")
    return value
