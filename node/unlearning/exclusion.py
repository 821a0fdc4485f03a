"""Students who are left out of all training from now on, and the updates that saw them.

The students drawn for an update are on disk before the update leaves (students.py). So the node knows which updates saw
a student, and opens the worker again without that student.

A withdrawal may be put off to a time (home/scheduled.py). The student is left out at once all the same. So the updates
that saw the student are known then, and the id is not needed any more.

Whoever does not consent is left out by the learner (consent.py); the withdrawal is put off in the same way.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

import structlog
import trio

from ...consensus.ledger import Ledger
from ...consensus.membership import earlier
from ...crypto.errors import CorruptError, RefusedError
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..core import events as ev
from ..core.state import NodeState
from ..core.withdrawing import pending_updates
from ..home import keys
from ..home.paths import Home
from ..home.scheduled import RESTORE as RESTORE_SCHEDULE
from ..home.scheduled import Schedule, Scheduled, load_schedule, save_schedule
from ..home.timetable import Timetable, timetable
from ..patience import in_thread
from ..store.database import Store
from ..store.errors import disk_errors
from ..store.files import sync_folder
from .consent import renewed, those
from .requests import at_one_height, rounds_in_reach, sought_updates
from .students import (
    NONE,
    RESTORE,
    Excluded,
    Manifests,
    Seen,
    exclude,
    exclude_for_good,
    load_excluded,
    readmit,
    tag,
    with_salt,
)

LEFT_OUT = "left-out"  # the flag of how many students were ever left out, and forgotten by private adapters
SCHEDULED = "scheduled"  # the flag of how many withdrawals were ever put off
REFUSED = "without-consent"  # the flag that stands for who did not consent, forgotten by private adapters
WEEKLY = Timetable(2, 0, weekday=6)  # when lapsed consents are withdrawn if config.toml names no time for withdrawals
LOOK_EVERY = 5.0  # seconds between looks for a withdrawal whose time has come

log = structlog.get_logger(__name__)


class Exclusion:
    """The students left out here, and withdrawals to come. `reopen` restarts the learner without those students; it
    returns when that is done. `times` (home/timetable.py) are those of withdrawals after a lapsed consent."""

    def __init__(
        self, home: Home, store: Store, core: NodeState, reopen: Callable[[], Awaitable[None]], times: str = ""
    ) -> None:
        self.home, self.store, self.core = home, store, core
        self.times = timetable(times) or WEEKLY
        self.manifests = Manifests(home)
        self.everybody: frozenset[str] | None = None  # in the data, left out or not; reported by the learner
        self._consents: tuple[frozenset[str], frozenset[str]] | None = (
            None  # read and not dealt with: who has none, has
        )
        self._reopen = reopen
        self._excluding = trio.Lock()
        self.schedule = load_schedule(home)
        if self.schedule.total < store.flags().get(SCHEDULED, 0):
            raise CorruptError(f"{home.scheduled} is lost or old: it lacks requests to withdraw", RESTORE_SCHEDULE)
        (home.private / "private.safetensors").unlink(missing_ok=True)  # heads of releases without a home layer
        if not self.load()[1]:  # after a crash in between
            self._forget_private()
        self._end_cancelled()

    async def exclude(self, *subjects: str) -> Seen:
        """Leave students out of all training from now on; return the updates that saw any of them.

        The worker restarts once, without them, so its work in progress is discarded. Private adapters are
        deleted. A withdrawal that was put off for one of them is due now. Raises CorruptError.
        """
        async with self._excluding:  # one at a time: each waits for the end of the discarded training run
            excluded = await self._leave_out(subjects)
            tags = set(map(excluded.tag, subjects))
            await in_thread(exclude_for_good, self.home, tags)
            if self.schedule.of(tags):
                await in_thread(self._keep, self.schedule.at_once(tags, int(time.time())))
            return await self.look(*subjects)

    async def put_off(self, at: int, pause: bool, *students: Sequence[str]) -> Seen:
        """Leave students out from now on, each by all its ids, and withdraw the updates that saw them `at` a Unix time.

        `pause`: pause training then. In place of an earlier request for one of the ids. After a crash on the way the
        students are left out provisionally, and `cancel` lets them in again. Raises CorruptError.
        """
        subjects = [subject for ids in students for subject in ids]
        async with self._excluding:
            excluded, now = await self._leave_out(subjects, provisional=True), int(time.time())
            requests = []
            for ids in students:
                for subject in ids:
                    updates = tuple(sought_updates(self.core, await self.look(subject)).whole)
                    requests.append(Scheduled(excluded.tag(subject), excluded.tag(ids[0]), at, now, updates, pause))
            await in_thread(self._keep, self.schedule.put(requests))
            return await self.look(*subjects)

    async def cancel(self, *subjects: str) -> tuple[int, int]:
        """Take back withdrawals that were put off, for all ids of these students.

        Return of how many students, and how many are let in again. Also lets in whom a crash left out before the
        withdrawal was noted. Raises RefusedError, and changes nothing, if one has none to come; CorruptError.
        """
        async with self._excluding:
            excluded, now = (await in_thread(self.load))[0], time.time()
            tags = set(map(excluded.tag, subjects))
            unfinished = tags.intersection(excluded.provisional).difference(r.tag for r in self.schedule.requests)
            asked = self.schedule.of_students(tags)
            if any(request.consent for request in asked):
                raise RefusedError(
                    "this student's consent has ended, and no command takes that back",
                    "Correct the columns of consents in the data folder: the next look at them lets the student in.",
                )
            open_ = {request.tag for request in asked if request.at > now}
            if not tags <= open_ | unfinished:
                missing = tags - open_ - unfinished
                number = 1 + next(n for n, subject in enumerate(subjects) if excluded.tag(subject) in missing)
                which = f"id {number} of {len(subjects)}" if len(subjects) > 1 else "this id"
                raise RefusedError(
                    f"no withdrawal is to come for {which}",
                    "`collegium unlearn status` lists those to come by their times. One whose time has come, or that"
                    " was carried out, cannot be taken back.",
                )
            await in_thread(self._keep, self.schedule.changed(open_, lambda request: replace(request, cancelled=True)))
            owner = {request.tag: request.student for request in self.schedule.of(open_)} | {t: t for t in unfinished}
            back = {student for tag, student in owner.items() if tag in excluded.provisional}
            await in_thread(readmit, self.home, unfinished)
            await in_thread(self._end_cancelled)
            if back:
                await self._reopen()
            return len(set(owner.values())), len(back)

    async def carry_out(self, submit: Callable[[ev.Event], None]) -> None:
        """Withdraw what is due, until cancelled; each batch at one height, as far as a height takes it."""
        while True:
            if self._consents is not None:
                async with self._excluding:
                    consents, self._consents = self._consents, None
                    await self._request_lapsed(*consents)
            if self._due():
                async with self._excluding:
                    await self._withdraw_due(submit)
            await trio.sleep(LOOK_EVERY)

    def read(
        self, everybody: Collection[str] | None, refused: Collection[str] | None, unclear: Collection[str] = ()
    ) -> None:
        """Take note of whom the learner has read: all ids, those who do not consent, and those whose cells do not say.

        None: this learner does not say it. Private adapters that may have learned from others than those who consent
        now are forgotten.
        """
        self.everybody = None if everybody is None else frozenset(everybody)
        if refused is None or everybody is None:
            return
        self._consents = (frozenset(refused), frozenset(everybody).difference(refused, unclear))
        if self.store.flags().get(REFUSED, those(())) != those(refused):
            self._forget_private()
            self.store.apply([ev.PutFlag(REFUSED, those(refused))])

    async def _request_lapsed(self, refused: Collection[str], here: Collection[str]) -> None:
        """Note what is to be withdrawn because nobody consents to it any more, and what after all is not."""
        if not (refused or self.schedule.requests):
            return
        in_flight = [update.header for update in self.core.in_flight.of(self.core.me)]
        excluded, saw = await in_thread(with_salt, self.home), await in_thread(self._seen_by_each, refused, in_flight)
        seen = Seen(frozenset[bytes]().union(*saw.values()), frozenset(), None)
        whole, now = set(sought_updates(self.core, seen).whole), time.time()
        saw = {subject: updates & whole for subject, updates in saw.items()}
        at = int(self.times.next(datetime.fromtimestamp(now)).timestamp())
        schedule = renewed(self.schedule, excluded, here, saw, at, int(now))
        if schedule != self.schedule:
            await in_thread(self._keep, schedule)

    def _seen_by_each(
        self, subjects: Collection[str], in_flight: Collection[Signed[UpdateHeader]]
    ) -> dict[str, frozenset[bytes]]:
        """Return the own updates that saw each of these students; each manifest is read once."""
        updates: dict[bytes, set[bytes]] = {}
        for update, root in self._own_manifests(in_flight).items():
            updates.setdefault(root, set()).add(update)
        saw: dict[str, set[bytes]] = {subject: set() for subject in subjects}
        for root, of_run in updates.items():
            manifest = self.manifests.get(root)
            drawn = None if manifest is None else set(manifest.tags)
            for subject in subjects:
                if manifest is None or drawn is None or tag(manifest.salt, subject) in drawn:
                    saw[subject] |= of_run
        return {subject: frozenset(of_student) for subject, of_student in saw.items()}

    def _due(self) -> list[Scheduled]:
        """Return the requests whose time has come, and those that would soon be beyond the refold horizon."""
        now = time.time()
        return [r for r in self.schedule.requests if r.at <= now or rounds_in_reach(self.core, r.updates) == 0]

    async def _withdraw_due(self, submit: Callable[[ev.Event], None]) -> None:
        due = self._due()
        if any(request.pause for request in due):  # it was said so, whatever is left to withdraw by now
            submit(ev.SetPaused(True))
            tags = {request.tag for request in due}
            await in_thread(self._keep, self.schedule.changed(tags, lambda request: replace(request, pause=False)))
            due = self._due()
        wanted = frozenset(update for request in due for update in request.updates)
        whole = sought_updates(self.core, Seen(wanted, frozenset(), None)).whole
        over = {request.tag for request in due if not set(whole).intersection(request.updates)}
        if over:
            log.info("withdrawals that were put off are carried out", ids=len(over))
            await in_thread(exclude_for_good, self.home, over)
            await in_thread(self._keep, self.schedule.without(over))
        if not whole or not self.core.may_append() or pending_updates(self.core).intersection(whole):
            return
        tags = {request.tag for request in due}.difference(over)
        await in_thread(self._keep, self.schedule.at_once(tags, int(time.time())))
        await in_thread(exclude_for_good, self.home, tags)
        requests = at_one_height(whole)
        log.info(
            "a withdrawal that was put off begins", ids=len(tags), updates=sum(len(each.updates) for each in requests)
        )
        for each in requests:
            submit(each)

    def _keep(self, schedule: Schedule) -> None:
        """Write what is to come; durable on return."""
        save_schedule(self.home, schedule)
        self.store.apply([ev.PutFlag(SCHEDULED, schedule.total)])
        self.schedule = schedule

    def _end_cancelled(self) -> None:
        """Let the students of cancelled requests in again, and end these."""
        cancelled = {request.tag for request in self.schedule.requests if request.cancelled}
        if cancelled:
            readmit(self.home, cancelled)
            self._keep(self.schedule.without(cancelled))

    async def _leave_out(self, subjects: Sequence[str], *, provisional: bool = False) -> Excluded:
        excluded, forgotten = await in_thread(self.load)
        if not (forgotten and all(map(excluded.has, subjects))):
            await in_thread(lambda: exclude(self.home, *subjects, provisional=provisional))
            await self._begin_without()
            excluded = (await in_thread(self.load))[0]
        return excluded

    async def look(self, *subjects: str) -> Seen:
        """Return the node's knowledge of students; changes nothing. Raises CorruptError."""
        # Updates in flight first: those that a block takes meanwhile are stored when the stored ones are read.
        in_flight = [update.header for update in self.core.in_flight.of(self.core.me)]
        return await in_thread(self._seen, subjects, in_flight, self.core.ledger)

    async def _begin_without(self) -> None:
        """Open the worker again, without those who are left out."""
        run = self.core.run
        await self._reopen()
        await in_thread(self._forget_private)
        # Wait until the core has the worker's last answers.
        while run is not None and self.core.run is not None and self.core.run.number == run.number:  # noqa: ASYNC110
            await trio.sleep(0.05)

    def load(self) -> tuple[Excluded, bool]:
        """Return the students left out, and whether private adapters have forgotten them. Raises CorruptError."""
        excluded, noted = load_excluded(self.home), self.store.flags().get(LEFT_OUT, 0)
        if excluded.total < noted:
            path = self.home.root / "excluded.json"
            raise CorruptError(f"{path} is lost or old: it names {excluded.total} students of {noted}", RESTORE)
        return excluded, excluded.total == noted

    def _forget_private(self) -> None:
        """Delete the private adapters that learned from students now left out; note that it is done."""
        folder = self.home.private
        with disk_errors(folder):
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                sync_folder(folder)
        self.store.apply([ev.PutFlag(LEFT_OUT, self.load()[0].total)])

    def _seen(self, subjects: Sequence[str], in_flight: Collection[Signed[UpdateHeader]], ledger: Ledger) -> Seen:
        own = self._own_manifests(in_flight)
        mine, components = self._own_keys(ledger), ledger.components.values()
        counted = {e.update for c in components for r in c.rounds for e in r.entries if e.author in mine}
        counted |= {p.update for c in components for p in c.pending if p.author in mine}
        here, drawn = set(self.manifests.roots()), [self.manifests.of(subject) for subject in subjects]
        saw, excluded = set[bytes]().union(*drawn), self.load()[0]
        unknown = frozenset(update for update in counted | own.keys() if own.get(update, NONE) not in here)
        seen = unknown.union(update for update, root in own.items() if root in saw)
        in_data = None if self.everybody is None else self.everybody.issuperset(subjects)
        to_come = {request.at for request in self.schedule.of(set(map(excluded.tag, subjects)))}
        left_out = all(map(excluded.has, subjects))
        return Seen(seen, unknown, in_data, all(drawn), left_out, tuple(sorted(to_come)))

    def _own_keys(self, ledger: Ledger) -> set[bytes]:
        """Return this node's keys, with former ones: after a return with a new key the roll does not link them."""
        here = (self.core.me, *keys.former(self.home))
        return {each for key in here for each in (key, *earlier(ledger.roll, key))}

    def _own_manifests(self, in_flight: Collection[Signed[UpdateHeader]]) -> dict[bytes, bytes]:
        """Return the root of the manifest of each own update, by its header's digest."""
        return {header.digest: header.value.manifest for header in (*in_flight, *self._own_headers())}

    def _own_headers(self) -> list[Signed[UpdateHeader]]:
        mine = self._own_keys(self.core.ledger)
        return [header for header in self.store.headers() if header.value.author in mine]

    def forget_manifests(self, in_flight: Collection[bytes]) -> None:
        """Delete the manifests of training runs without an update in force, in flight or still to come."""
        components = self.core.ledger.components
        here = {p.update for c in components.values() for p in c.pending}.union(in_flight)
        here |= {e.update for c in components.values() for r in c.rounds for e in r.entries}
        own = self._own_headers()
        ahead = [h for h in own if h.value.round > components[h.value.component].round]
        live = {h.value.manifest for h in (*ahead, *(h for h in own if h.digest in here))}
        self.manifests.delete({h.value.manifest for h in own} - live)
