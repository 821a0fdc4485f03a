"""A daemon as the control API sees one: a real core and store, a network that does as it is told."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import RefusedError, UnreachableError
from collegium.crypto.hashing import sha256
from collegium.node.core import events as ev
from collegium.node.core.state import NodeState
from collegium.node.home import Config, Home
from collegium.node.home.scheduled import Scheduled
from collegium.node.network import Counters
from collegium.node.runtime.admission import Admission
from collegium.node.store import Store
from collegium.node.unlearning.students import Seen
from collegium.protocol import schema
from collegium.protocol.charter import Charter, SignedCharter
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWS2fAoTAt1d9dsQ8NbBFh6P8S6pSafbM5v9V7a1zkonXB"


class FakeNetwork:
    def __init__(self, members: list[bytes]) -> None:
        self.counters = Counters(7, 9)
        self.members = members
        self.answer = "member"
        self.dialled: list[str] = []

    def why(self, peer: bytes) -> str:
        return f"{peer.hex()[:4]} does not answer"

    def addresses(self) -> list[str]:
        return [ADDRESS]

    def neighbours(self) -> frozenset[bytes]:
        return frozenset(self.members[1:])

    async def connect(self, address: str) -> bytes:
        self.dialled.append(address)
        if self.answer == "down":
            raise UnreachableError(f"{address} cannot be reached: refused", "check that it is up, and the address")
        if self.answer == "stranger":
            raise RefusedError(f"{address} is not a member of this federation", "check the charter")
        return self.members[1]


class FakeLearner:
    state = "ready"
    detail = ""
    device = "cpu"
    left_out = 2
    consents: dict[str, int] | None = None
    progress = (0, 0)
    students: int | None = None

    def __init__(self) -> None:
        self.cut: dict[str, int] = {}
        self.labelled: dict[str, int] = {}


class FakeDaemon:
    def __init__(self, home: Home, charter: Charter, core: NodeState, store: Store) -> None:
        self.home, self.charter, self.core, self.store = home, charter, core, store
        self.founding = charter
        self.config = Config()
        self.network = FakeNetwork([core.me, *(m.key for m in charter.members if m.key != core.me)])
        core.options = replace(core.options, addresses=(ADDRESS,))
        self.learner = FakeLearner()
        self.admission = Admission(self, core.identity, SignedCharter(schema.dump(charter), ()))
        self.started = 1.8e9
        self.title = self.data_missing = ""
        self.submitted: list[ev.Event] = []
        self.stops = 0
        self.refreshed = 0
        self.excluded: list[str] = []
        self.scheduled: tuple[Scheduled, ...] = ()
        self.seen = Seen(frozenset(), frozenset(), None)

    def submit(self, event: ev.Event) -> None:
        self.submitted.append(event)

    async def look(self, *subjects: str) -> Seen:
        return self.seen

    async def exclude(self, *subjects: str) -> Seen:
        self.excluded.extend(subjects)
        return self.seen

    async def put_off(self, at: int, pause: bool, /, *students: Sequence[str]) -> Seen:
        updates = tuple(sorted(self.seen.updates))
        for ids in students:
            made = (Scheduled(sha256(s.encode()), sha256(ids[0].encode()), at, 0, updates, pause) for s in ids)
            self.scheduled = (*self.scheduled, *made)
        return await self.exclude(*(subject for ids in students for subject in ids))

    async def cancel(self, *subjects: str) -> tuple[int, int]:
        self.scheduled = ()
        return len(subjects), len(subjects)

    def request_stop(self) -> None:
        self.stops += 1

    def refresh_peers(self) -> None:
        self.refreshed += 1


def fill(store: Store, node: Node) -> None:
    for stored in node.store.snapshot().blocks:
        store.apply([ev.PutRecord(record) for record in stored.records])
        store.apply([ev.PutBlock(stored.block, stored.certificate, tuple(r.digest for r in stored.records))])


@pytest.fixture(scope="session")
def grown_cluster() -> Cluster:
    cluster = Cluster(4, 3, Invariants, rounds=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    return cluster


@pytest.fixture
def daemon(grown_cluster: Cluster, tmp_path: Path) -> Iterator[FakeDaemon]:
    node = grown_cluster.nodes[0]
    assert node.core is not None
    home = Home(tmp_path / "home")
    home.make()
    with Store.open(home.database, grown_cluster.charter.federation) as store:
        fill(store, node)
        yield FakeDaemon(home, grown_cluster.charter, node.core, store)
