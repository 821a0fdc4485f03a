"""Private components never leave: every byte that a node says or serves, with them and without."""

import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import zstandard
from safetensors.numpy import load_file

from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.core.messages import SyncRequest
from collegium.node.home.config import Privacy
from collegium.node.home.lock import hold
from collegium.node.learner.messages import Asks, Personalise
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

ROUNDS, EVERY = 4, 2


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
            self.trained = self._watched(runtime)
            trio.run(self._until_done, runtime, config.learning.private)
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
    def _watched(runtime: Runtime) -> list[int]:
        """The list of the rounds after which private components were trained; it grows as they are."""
        request, requests = runtime.learner.request, []

        async def watched(message: Asks[Any]) -> Any:
            answer = await request(message)
            if isinstance(message, Personalise):
                requests.append(runtime.jobs._personalised[1])
            return answer

        runtime.learner.request = watched  # type: ignore[method-assign]
        return requests

    async def _until_done(self, runtime: Runtime, private: bool) -> None:
        async def wait() -> None:
            with trio.fail_after(LIMIT):
                while not any(  # noqa: ASYNC110 - the store tells nobody
                    m.round == ROUNDS and m.personal is private for m in runtime.store.metrics()
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
    return [row.astype(kind).tobytes() for kind in ("<f4", ">f4", "<f8", ">f8", "<f2") for row in rows if row.all()]


def test_no_byte_of_private_components_leaves_and_shared_updates_are_the_same_without_them(
    home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = replace(home, root=Path(shutil.copytree(home.root, tmp_path / "twin")))
    with_private = Ran(home, monkeypatch, private=True, personalise_every=EVERY)
    without = Ran(twin, monkeypatch)
    assert len(with_private.updates) == 2 * ROUNDS
    assert with_private.updates == without.updates, "a seeded learner sends the same bits"

    (path,) = home.private.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.private.stat().st_mode) == 0o700
    secret = [window for tensor in load_file(path).values() for window in windows(tensor)]
    assert len(secret) > 500
    assert not any(window in with_private.bytes for window in secret)
    assert path.read_bytes()[:64] not in with_private.bytes
    assert all(payload[-32:] in with_private.bytes for payload in without.payloads), "what is said is looked at"
    assert not twin.private.exists()

    shared, personal = ({m.round: m for m in with_private.metrics if m.personal is kind} for kind in (False, True))
    assert sorted(shared) == [0, 1, 2, 3, 4]
    assert personal.keys() >= {3, 4}
    assert not personal.keys() & {0, 1}, "not trained yet"
    # Every second round; the last training may be under way when this one has seen enough.
    assert [round_ // EVERY for round_ in with_private.trained] in ([1], [1, 2])
    assert not without.trained
    assert {m.round: m.value for m in without.metrics} == {n: m.value for n, m in shared.items()}
    assert not any(m.personal for m in without.metrics)
