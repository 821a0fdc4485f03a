"""How soon real daemons are level again: after kill -9, after a healed partition, and as a late member.

Separate processes over real libp2p, with a learner that makes its updates up. A node is level when it has folded a
round in which its own update is counted.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, TypeVar

from ...crypto.errors import OperatorError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.control.client import Client
from ...node.core.events import Put, PutBlock, PutFlag, PutHeader, PutMessage, PutPublished, PutRecord
from ...node.home import config as settings
from ...node.home.config import Privacy, Timing
from ...node.store.blobs import Blobs
from ...node.store.database import Store
from ...node.store.states import States
from ...node.views.shapes import LiveShown
from ...protocol import schema
from ..processes.federation import SYNTHETIC, Agreed, Daemon, Institution, Places, Settings, found
from ..processes.observe import View, fold_ledger, look
from ..processes.relays import Relays
from ..simulator.cluster import Cluster, Node
from ..simulator.small import small_charter
from .rows import Row

NODES = 4
COMPONENT = "head/task0"
DIMENSION = 2000
DEADLINE_MS = 2000
MISSED = 3  # rounds that the others close without the killed one: then they no longer wait for it
WAIT_SECONDS = 180.0
KEPT_ROUNDS = 8  # of a made history: the newest, whose update bytes the nodes hold
UNWATCHED = ("persisted", "sent", "noticed", "folded", "witness")  # what a simulated cluster reports to its watchers
T = TypeVar("T")


def measure(quick: bool) -> Sequence[Row]:
    """Kill and part one federation; then let a member come late to another one, which has a history."""
    kills, parted, blocks = (1, 3.0, 100) if quick else (3, 20.0, 1000)
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder, _disturbed(Path(folder)) as (run, relays):
        killed = [_kill(run, 1 + number % (NODES - 1)) for number in range(kills)]
        rows = [
            Row(f"{_KILLED}, from the start of its process, s", median(seconds for seconds, _, _ in killed)),
            Row(f"{_KILLED}: heights closed meanwhile", median(heights for _, heights, _ in killed)),
            Row(f"{_KILLED}: heights that it was behind", median(behind for _, _, behind in killed)),
        ]
        for parts in ([(0, 1, 2), (3,)],) if quick else ([(0, 1, 2), (3,)], [(0, 1), (2, 3)]):
            seconds, heights, behind = _part(run, relays, parts, parted)
            what = f"after {parted:g} s in parts of {' and '.join(str(len(part)) for part in parts)}, all level"
            rows += [
                Row(f"{what}, from healing, s", seconds),
                Row(f"{what}: heights closed meanwhile", heights),
                Row(f"{what}: heights between first and last at healing", behind),
            ]
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        return [*rows, *_start_late(Path(folder), blocks)]


_KILLED = f"kill -9, {MISSED} rounds missed, level again"


class _Run:
    """A federation of daemons and what their stores show."""

    def __init__(self, root: Path, count: int, rounds: int, ways: Sequence[int] = ()) -> None:
        template = small_charter(
            [Identity.from_seed(sha256(bytes([n]))) for n in range(count)], dimension=DIMENSION, clip_norm=20_000_000
        )
        self.charter, self.institutions = found(
            root,
            [(f"node-{n}", root, 1.0) for n in range(count)],
            Agreed("bench", template.components, template.learning, template.seed, deadline_ms=DEADLINE_MS),
            Settings(rounds, Privacy(policy="open"), learner=SYNTHETIC),
            Places(ways=ways),
        )
        self.daemons = [Daemon(institution) for institution in self.institutions]
        self.views = [View() for _ in self.institutions]

    def until(self, what: str, done: Callable[[], T | None]) -> T:
        """Look until `done` returns something true; return that."""
        began = time.monotonic()
        while True:
            self.views = [look(i, v) for i, v in zip(self.institutions, self.views, strict=True)]
            if value := done():
                return value
            for daemon in self.daemons:
                if reason := daemon.dead():
                    raise OperatorError(f"the daemon of {daemon.institution.name} ended: {reason}")
            if time.monotonic() - began > WAIT_SECONDS:
                raise OperatorError(f"waited {WAIT_SECONDS:g} s for {what}; heights {[v.height for v in self.views]}")
            time.sleep(0.1)

    def newest(self) -> int:
        """The newest round that any node has closed."""
        return max((round_ for view in self.views for _, round_ in view.notes), default=0)

    def level(self, since: int, nodes: Sequence[int]) -> tuple[float, int] | None:
        """When all of `nodes` had folded the first round after `since` that counts them all, and its height."""
        keys = {self.institutions[n].identity.public_key.hex() for n in nodes}
        for (_, round_), note in sorted(self.views[0].notes.items()):
            counted: Any = note.get("counted", ())
            stale: Any = note.get("stale", ())
            if round_ > since and keys <= set(counted) - set(stale):
                folded = [self.views[n].notes.get((COMPONENT, round_), {}).get("folded_at") for n in (0, *nodes)]
                if None not in folded:
                    return max(float(str(at)) for at in folded), int(str(note["height"]))
        return None

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.stop()


@contextmanager
def _disturbed(root: Path) -> Iterator[tuple[_Run, Relays]]:
    """Run a federation whose nodes reach each other through relays."""
    processes: list[Daemon] = []

    def pid(node: int) -> int | None:
        process = processes[node].process
        return None if process is None else process.pid

    relays = Relays(NODES, pid)
    run = _Run(root, NODES, 0, relays.ports)
    processes += run.daemons
    relays.serve([_port(institution) for institution in run.institutions])
    try:
        for daemon in run.daemons:
            daemon.start()
        run.until("the first rounds", lambda: run.level(2, range(NODES)))
        yield run, relays
    finally:
        run.stop()
        relays.close()


def _port(institution: Institution) -> int:
    return int(settings.load(institution.home.config).node.listen[0].rpartition("/")[2])


def _kill(run: _Run, victim: int) -> tuple[float, int, int]:
    """Return seconds and heights from the victim's start until it is level, and how many heights it had missed."""
    run.daemons[victim].kill()
    since = run.until("news", run.newest) + MISSED
    run.until("the others to go on", lambda: run.newest() >= since)
    height, behind = run.views[0].height, run.views[0].height - run.views[victim].height
    since, began = run.newest(), time.time()
    run.daemons[victim].start()
    at, then = run.until("the killed one to be level", lambda: run.level(since, [victim]))
    return at - began, then - height, behind


def _part(run: _Run, relays: Relays, parts: Sequence[Sequence[int]], seconds: float) -> tuple[float, int, int]:
    """Return seconds and heights from healing until all are level, and how far apart they were."""
    before = run.newest()
    run.until("all nodes to be counted", lambda: run.level(before, range(NODES)))
    relays.cut(*parts)
    time.sleep(seconds)
    since = run.until("news", run.newest)
    heights, began = [view.height for view in run.views], time.time()
    relays.heal()
    at, then = run.until("all to be level", lambda: run.level(since, range(NODES)))
    return at - began, then - max(heights), max(heights) - min(heights)


# ---- a late member


def _start_late(root: Path, blocks: int) -> Sequence[Row]:
    """A founding member whose daemon starts for the first time when there are so many blocks; no node trains then."""
    run = _Run(root, NODES + 1, blocks)
    for institution, node in zip(run.institutions, _history(run, blocks), strict=False):
        _write(institution, node)
    try:
        for daemon in run.daemons[:NODES]:
            daemon.start()
        height = run.until("the old members to be at rest", lambda: _rest(run))
        late, began = run.institutions[NODES], time.time()
        run.daemons[NODES].start()

        def level() -> object:
            note = run.views[NODES].notes.get((COMPONENT, blocks), {})
            return run.views[NODES].height >= height and note.get("folded_at")

        seconds = float(str(run.until("the late one to be level", level))) - began
        received = _live_status(late)["bytes_received"]
    finally:
        run.stop()
    before = time.perf_counter()
    ledger = fold_ledger(run.institutions[0], run.charter)
    local = time.perf_counter() - before
    what = f"a late member, {ledger.height:,} blocks"
    disk = _agreed_bytes(run.institutions[0])
    return [
        Row(
            f"{what}: s from the start of its process, against folding them from disk", seconds, local, seconds / local
        ),
        Row(f"{what}: blocks a second", ledger.height / seconds, ledger.height / local, local / seconds),
        Row(f"{what}: bytes received, against blocks and records on disk", received, disk, received / disk),
    ]


def _live_status(institution: Institution) -> LiveShown:
    live = Client(institution.home).status()["live"]
    assert live is not None  # its daemon answered
    return live


def _agreed_bytes(institution: Institution) -> int:
    with Store.open_readonly(institution.home.database) as store:
        return sum(
            len(schema.dump(stored.block))
            + len(schema.dump(stored.certificate))
            + sum(len(r.wire) for r in stored.records)
            for stored in store.snapshot().blocks
        )


def _rest(run: _Run) -> int:
    """The height of the old members if they are connected and nothing has happened for two seconds; else 0."""
    before = [view.height for view in run.views[:NODES]]
    try:
        ready = all(_live_status(i)["signing"] for i in run.institutions[:NODES])
    except OperatorError:
        return 0
    time.sleep(2.0)
    run.views = [look(i, v) for i, v in zip(run.institutions, run.views, strict=True)]
    after = [view.height for view in run.views[:NODES]]
    return after[0] if ready and after == before and len(set(after)) == 1 else 0


def _history(run: _Run, rounds: int) -> Sequence[Node]:
    """Play the federation without its last member in the simulator, unwatched: so many rounds, each of a block."""
    quiet: Any = SimpleNamespace(**dict.fromkeys(UNWATCHED, lambda *_, **__: None))
    cluster = Cluster(NODES + 1, 1, lambda _: quiet, rounds=rounds, timing=Timing(1000, 1000, 60_000))
    cluster.charter = run.charter
    cluster.witness = quiet.witness  # type: ignore[method-assign]  # the trace is not used
    for node, institution in zip(cluster.nodes, run.institutions, strict=True):
        node.identity = institution.identity
        node.taken = node.kept  # it folds from its newest state, not from the first
    for node in cluster.nodes[:NODES]:
        node.start()
    if not cluster.run(lambda: cluster.all_closed(rounds), rounds * 10_000):
        raise OperatorError(f"no {rounds} rounds in the simulator")
    return cluster.nodes[:NODES]


def _write(institution: Institution, node: Node) -> None:
    """Write a simulated node's data into a home: all of its store, the newest states and updates."""
    core, snapshot = node.core, node.store.snapshot()
    assert core is not None
    puts: list[Put] = []
    for block in snapshot.blocks:
        puts += map(PutRecord, block.records)
        puts.append(PutBlock(block.block, block.certificate, tuple(record.digest for record in block.records)))
    puts += [*map(PutRecord, snapshot.records), *(PutMessage(*item) for item in snapshot.messages)]
    puts += [*map(PutHeader, snapshot.headers), *snapshot.reservations, *map(PutPublished, sorted(snapshot.published))]
    puts += [PutFlag(name, value) for name, value in snapshot.flags.items()]
    with Store.open(institution.home.database, core.federation) as store:
        for at in range(0, len(puts), 1000):
            store.apply(puts[at : at + 1000])
    rounds = core.ledger.components[COMPONENT].rounds
    wanted = {entry.blob for round_ in rounds[-KEPT_ROUNDS:] for entry in round_.entries}
    for name, data in node.store.blobs.items():
        if name in wanted:
            Blobs(institution.home.blobs).put(data)
    for round_ in rounds[-KEPT_ROUNDS:]:
        if (COMPONENT, round_.chain) in node.kept:
            state = node.kept[COMPONENT, round_.chain]
            States(institution.home.states).put(COMPONENT, round_.number, round_.chain, state)
