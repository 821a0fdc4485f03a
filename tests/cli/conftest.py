"""Commands are run in this process through `main`, as the console script does; a home is filled without a daemon."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collegium.cli.main import main
from collegium.node.core import events as ev
from collegium.node.home import Config, Home
from collegium.node.home import config as settings
from collegium.node.learner import client
from collegium.node.store import Store
from collegium.node.store.blobs import Blobs
from collegium.protocol import schema
from collegium.protocol.charter import SignedCharter, add_signature, dump_file
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

from ..firstweek.schools import Answer

Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.delenv("COLLEGIUM_HOME", raising=False)
    monkeypatch.delenv("COLLEGIUM_PASSPHRASE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("NO_COLOR", "1")

    def run_it(*words: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run_it


def fill(home: Home, cluster: Cluster, node: Node) -> None:
    """Make a node's directory that holds what the simulated node holds."""
    home.make()
    signed = SignedCharter(schema.dump(cluster.charter), ())
    for other in cluster.nodes:
        signed = add_signature(cluster.charter, signed, other.identity)
    home.charter.write_bytes(dump_file(signed))
    settings.create(home.config, Config())
    key = {"collegium-key": 1, "public_key": node.identity.public_key.hex(), "seed": node.identity.seed.hex()}
    home.key.write_text(json.dumps(key))
    home.key.chmod(0o600)
    with Store.open(home.database, cluster.charter.federation) as store:
        snapshot = node.store.snapshot()
        for stored in snapshot.blocks:
            store.apply([ev.PutRecord(record) for record in stored.records])
            store.apply([ev.PutBlock(stored.block, stored.certificate, tuple(r.digest for r in stored.records))])
        store.apply(list(snapshot.reservations))
    blobs = Blobs(home.blobs)
    for data in node.store.blobs.values():
        blobs.put(data)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Four members, two rounds, a withdrawal by the first and two rounds more."""
    cluster = Cluster(4, 5, Invariants, rounds=4)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    cluster.nodes[0].deliver(ev.RequestWithdrawal())

    def settled() -> bool:
        components = [c for node in cluster.nodes if node.core for c in node.core.ledger.components.values()]
        return all(c.certified and (c.certified.round, c.certified.generation) == (4, 1) for c in components)

    assert cluster.run(settled)
    return cluster


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path) -> Home:
    home = Home(tmp_path / "node")
    fill(home, cluster, cluster.nodes[1])
    return home


@pytest.fixture(scope="session")
def learner() -> Iterator[client.Worker]:
    """A running learner process that has nothing open yet."""
    with client.process() as process:
        yield process


@pytest.fixture
def one_worker(learner: client.Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command opens its data in one and the same learner process, whose start takes seconds."""

    @contextmanager
    def shared(_: object = ()) -> Iterator[client.Worker]:
        yield learner

    monkeypatch.setattr(client, "process", shared)
