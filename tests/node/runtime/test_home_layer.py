"""The home layer never leaves: every byte that a node says or serves, with it and without."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import zstandard

from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.core.messages import SyncRequest
from collegium.node.home.config import Privacy
from collegium.node.home.lock import hold
from collegium.node.learner.home_layer import learned
from collegium.node.learner.messages import Asks, Evaluate
from collegium.node.learner.session import build
from collegium.node.learner.worker import Worker
from collegium.node.network import Counters
from collegium.node.runtime import runtime as module
from collegium.node.runtime.runtime import Runtime
from collegium.node.runtime.serve import load
from collegium.node.store import Metric
from collegium.node.store.database import Store
from collegium.protocol import schema
from collegium.sims.learn.datasets import prepare_digits
from collegium.sims.processes.federation import Agreed, Settings, found

from ...waiting import LIMIT
from ..learner.asking import ask

ROUNDS = 4


class RecordingNetwork:
    """Nobody is there; whatever would be said is written down."""

    def __init__(self) -> None:
        self.counters = Counters(0, 0)
        self.said: list[bytes] = []

    def why(self, peer: bytes) -> str:
        return f"{peer.hex()[:4]} does not answer"

    def addresses(self) -> list[str]:
        return ["/ip4/127.0.0.1/tcp/4001"]

    def neighbours(self) -> frozenset[bytes]:
        return frozenset()

    def set_address_book(self, book: object) -> None:
        pass

    async def enforce_gate(self) -> None:
        pass

    async def publish(self, data: bytes) -> None:
        self.said.append(data)


class Ran:
    """A member alone that ran some rounds with a seeded learner: what it said and served, and its home."""

    def __init__(self, home: Any, monkeypatch: pytest.MonkeyPatch, **learning: object) -> None:
        network = RecordingNetwork()

        @asynccontextmanager
        async def opened(config: object, callbacks: object) -> AsyncIterator[RecordingNetwork]:
            yield network

        monkeypatch.setattr(module, "open_network", opened)
        config, charter, signed, identity = load(home, None)
        config = replace(config, learning=replace(config.learning, **learning))  # type: ignore[arg-type]  # by name
        with hold(home), Store.open(home.database, charter.federation) as store:
            runtime = Runtime(home, config, charter, signed, identity, store)
            assert runtime.learner._opening is not None
            runtime.learner._opening = replace(runtime.learner._opening, seed=5)
            self.opening, self.states = runtime.learner._opening, self._watched(runtime)
            trio.run(self._until_done, runtime, config.learning.home_layer)
            self.metrics: list[Metric] = store.metrics()
            request = schema.dump(SyncRequest(charter.federation, 0, (), b""))
            served = trio.run(runtime.dialogue.serve_sync, bytes(32), request)
            assert set(runtime.holdings.states.folder.iterdir())
            paths = [path for path in home.blobs.rglob("*") if path.is_file() and len(path.name) == 64]
            blobs = [runtime.holdings.blob_path(bytes.fromhex(path.name)) for path in paths]
        self.updates = {path.name for path in paths}
        payloads = [blob[0].read_bytes() for blob in blobs if blob is not None]
        self.payloads = [zstandard.ZstdDecompressor().decompress(data) for data in payloads]
        self.bytes = b"".join([*network.said, served, *payloads, *self.payloads])
        self.home = home

    @staticmethod
    def _watched(runtime: Runtime) -> list[dict[str, bytes]]:
        """The list of the states beside which a home layer was learned; it grows as they are."""
        request, states = runtime.learner.request, []

        async def watched(message: Asks[Any]) -> Any:
            answer = await request(message)
            if isinstance(message, Evaluate) and message.home_layer:
                states.append(message.states)
            return answer

        runtime.learner.request = watched  # type: ignore[method-assign]
        return states

    async def _until_done(self, runtime: Runtime, home_layer: bool) -> None:
        async def wait() -> None:
            with trio.fail_after(LIMIT):
                while not any(  # noqa: ASYNC110 - the store tells nobody
                    m.round == ROUNDS and m.home_layer is home_layer for m in runtime.store.metrics()
                ):
                    await trio.sleep(0.05)
            runtime.request_stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await runtime.run()


@pytest.fixture
def home(tmp_path: Path) -> Any:
    data = prepare_digits(tmp_path / "data", 4, 0.5, 1)[0]
    specs, learning = preset("digits", budget=None, rounds=ROUNDS, institutions=1)
    _, (one,) = found(
        tmp_path,
        [("one", data, 50.0)],
        Agreed("t", specs, learning, NO_SEED),
        Settings(ROUNDS, Privacy(policy="open")),
    )
    return one.home


def windows(values: np.ndarray[Any, Any]) -> list[bytes]:
    """Every four neighbouring numbers that are not all zero, as bytes, in the formats that they could leave in."""
    flat = values.reshape(-1)
    rows = [flat[at : at + 4] for at in range(0, flat.size - 3, 4)]
    return [row.astype(kind).tobytes() for kind in ("<f4", ">f4", "<f8", ">f8") for row in rows if row.all()]


def secrets(ran: Ran) -> list[bytes]:
    """Pieces of the last home layer, learned once more from the same data and states: the same bits."""
    worker = Worker()
    ask(worker, ran.opening)
    session = worker.session("")
    layer = learned(session, build(session, ran.states[-1]), ran.states[-1])
    return [piece for one in layer.values() for part in (one.weight, one.bias) for piece in windows(part.numpy())]


def test_no_byte_of_the_home_layer_leaves_or_is_stored_and_shared_updates_are_the_same_without_it(
    home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = replace(home, root=Path(shutil.copytree(home.root, tmp_path / "twin")))
    with_layer = Ran(home, monkeypatch)
    without = Ran(twin, monkeypatch, home_layer=False)
    assert len(with_layer.updates) == 2 * ROUNDS
    assert with_layer.updates == without.updates, "a seeded learner sends the same bits"

    secret = secrets(with_layer)
    assert len(secret) > 500
    assert not any(window in with_layer.bytes for window in secret)
    stored = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    assert not any(window in stored for window in secret)
    assert not home.private.exists()
    assert all(payload[-32:] in with_layer.bytes for payload in without.payloads), "what is said is looked at"

    shared, at_home = ({m.round for m in with_layer.metrics if m.home_layer is kind} for kind in (False, True))
    assert shared == {0, 1, 2, 3, 4}
    assert ROUNDS in at_home
    figures = [{(m.round, m.metric): m.value for m in ran.metrics if not m.home_layer} for ran in (with_layer, without)]
    assert figures[0] == figures[1]
    assert not without.states
    assert not any(m.home_layer for m in without.metrics)
    best = {m.home_layer: m.value for m in with_layer.metrics if (m.round, m.metric) == (ROUNDS, "brier")}
    assert best[True] < best[False]
