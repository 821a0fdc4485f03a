"""Students without a consent: what saw them before is withdrawn in one batch, at the next time of a timetable.

The learner reads nobody who does not consent (node/data/consent.py). So these students are out without an entry in
excluded.json, and whoever consents again is in again. At the moment of a lapse nothing happens that others could see:
the request waits, as one of `unlearn subject --at` does, in scheduled.json (ADR 35).
"""

from collections.abc import Collection, Mapping

from ...crypto.hashing import digest
from ..home.scheduled import Schedule, Scheduled
from .students import Excluded


def those(subjects: Collection[str]) -> int:
    """Return a number that stands for exactly these students, for a flag of the database: 63 bits of a digest."""
    return int.from_bytes(digest("without-consent", *(name.encode() for name in sorted(subjects)))[:8], "big") >> 1


def renewed(
    schedule: Schedule,
    excluded: Excluded,
    here: Collection[str],
    saw: Mapping[str, Collection[bytes]],
    at: int,
    now: int,
) -> Schedule:
    """Return the schedule for a reading of the data: `here` consent, and `saw` has the updates of those who do not.

    A request that a lapse made ends with a new consent. A new one is for the time `at`; one that waits keeps its time,
    and gets the updates that were on their way. Requests that a person made are left as they are.
    """
    waiting = {request.tag: request for request in schedule.requests}
    back = {tag for tag in map(excluded.tag, here) if tag in waiting and waiting[tag].consent}
    requests = []
    for subject, updates in saw.items():
        tag = excluded.tag(subject)
        before = waiting.get(tag)
        if before is not None and not before.consent:
            continue
        every = tuple(sorted({*updates, *(before.updates if before else ())}))
        if every and (before is None or every != before.updates):
            due, asked = (before.at, before.asked) if before else (at, now)
            requests.append(Scheduled(tag, tag, due, asked, every, consent=True))
    changed = schedule.without(back) if back else schedule
    return changed.put(requests) if requests else changed
