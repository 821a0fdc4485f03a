"""Students who are left out of all training from now on, and the updates that saw them.

The students drawn for an update are on disk before the update leaves (students.py). So the node knows which updates saw
a student, and opens the worker again without that student.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence

import trio

from ...consensus.ledger import Ledger
from ...consensus.membership import earlier
from ...crypto.errors import CorruptError
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..core import events as ev
from ..core.state import NodeState
from ..home import keys
from ..home.paths import Home
from ..patience import in_thread
from ..store.database import Store
from ..store.errors import disk_errors
from ..store.files import sync_folder
from .students import NONE, RESTORE, Excluded, Manifests, Seen, exclude, load_excluded

LEFT_OUT = "left-out"  # the flag of how many students are left out, and forgotten by private components


class Exclusion:
    """The students left out here. `reopen` restarts the learner without them; it returns when that is done."""

    def __init__(self, home: Home, store: Store, core: NodeState, reopen: Callable[[], Awaitable[None]]) -> None:
        self.home, self.store, self.core = home, store, core
        self.manifests = Manifests(home)
        self.everybody: frozenset[str] | None = None  # in the data, left out or not; reported by the learner
        self._reopen = reopen
        self._excluding = trio.Lock()
        if not self.load()[1]:  # after a crash in between
            self._forget_private()

    async def exclude(self, *subjects: str) -> Seen:
        """Leave students out of all training from now on; return the updates that saw any of them.

        The worker restarts once, without them, so its work in progress is discarded. Private components' states are
        deleted. Raises CorruptError.
        """
        async with self._excluding:  # one at a time: each waits for the end of the discarded training run
            excluded, forgotten = await in_thread(self.load)
            if not (forgotten and all(map(excluded.has, subjects))):
                await self._begin_without(subjects)
            return await self.look(*subjects)

    async def look(self, *subjects: str) -> Seen:
        """Return the node's knowledge of students; changes nothing. Raises CorruptError."""
        # Updates in flight first: those that a block takes meanwhile are stored when the stored ones are read.
        in_flight = [update.header for update in self.core.in_flight.of(self.core.me)]
        return await in_thread(self._seen, subjects, in_flight, self.core.ledger)

    async def _begin_without(self, subjects: Sequence[str]) -> None:
        await in_thread(exclude, self.home, *subjects)
        run = self.core.run
        await self._reopen()
        await in_thread(self._forget_private)
        # Wait until the core has the worker's last answers.
        while run is not None and self.core.run is not None and self.core.run.number == run.number:  # noqa: ASYNC110
            await trio.sleep(0.05)

    def load(self) -> tuple[Excluded, bool]:
        """Return the students left out, and whether private components have forgotten them. Raises CorruptError."""
        found, noted = load_excluded(self.home), self.store.flags().get(LEFT_OUT, 0)
        if len(found.tags) < noted:
            path = self.home.root / "excluded.json"
            raise CorruptError(f"{path} is lost or old: it names {len(found.tags)} students of {noted}", RESTORE)
        return found, len(found.tags) == noted

    def _forget_private(self) -> None:
        """Delete the private components' states that learned from students now left out; note that it is done."""
        folder = self.home.private
        with disk_errors(folder):
            if folder.is_dir():
                for path in folder.iterdir():
                    path.unlink()
                sync_folder(folder)
        self.store.apply([ev.PutFlag(LEFT_OUT, len(self.load()[0].tags))])

    def _seen(self, subjects: Sequence[str], in_flight: Collection[Signed[UpdateHeader]], ledger: Ledger) -> Seen:
        own = {header.digest: header.value.manifest for header in (*in_flight, *self._own_headers())}
        mine, components = self._own_keys(ledger), ledger.components.values()
        counted = {e.update for c in components for r in c.rounds for e in r.entries if e.author in mine}
        counted |= {p.update for c in components for p in c.pending if p.author in mine}
        here, drawn = set(self.manifests.roots()), [self.manifests.of(subject) for subject in subjects]
        saw, excluded = set[bytes]().union(*drawn), self.load()[0]
        unknown = frozenset(update for update in counted | own.keys() if own.get(update, NONE) not in here)
        seen = unknown.union(update for update, root in own.items() if root in saw)
        in_data = None if self.everybody is None else self.everybody.issuperset(subjects)
        return Seen(seen, unknown, in_data, all(drawn), all(map(excluded.has, subjects)))

    def _own_keys(self, ledger: Ledger) -> set[bytes]:
        """Return this node's keys, with former ones: after a return with a new key the roll does not link them."""
        here = (self.core.me, *keys.former(self.home))
        return {each for key in here for each in (key, *earlier(ledger.roll, key))}

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
