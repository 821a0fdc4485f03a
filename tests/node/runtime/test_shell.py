"""The shell around the core: disk before network, what the learner is really asked, bytes checked before an ack."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import trio
import trio.testing

from collegium.crypto.errors import OperatorError, RefusedError, RemoteProtocolError, UnreachableError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core.messages import SyncRequest
from collegium.node.core.timers import SyncDue
from collegium.node.home.config import Models
from collegium.node.learner.coding import decode_request
from collegium.node.learner.frames import read_frame
from collegium.node.learner.messages import DecideRun, PrivateAdapter, Train
from collegium.node.network import Callbacks, NetworkConfig, open_network
from collegium.node.network.identity import peer_id
from collegium.node.runtime import runtime as shell
from collegium.node.store.errors import DiskFullError
from collegium.protocol import schema
from collegium.protocol.claims import NO_EPSILON, Claim
from collegium.protocol.learning import PrivacyFloor
from collegium.protocol.update import Engaged, UpdateHeader, payload
from collegium.sims.processes.federation import Agreed, Daemon, Settings, found
from collegium.sims.processes.observe import snapshot
from collegium.sims.simulator.small import small_charter

from ...waiting import wait_for
from ..home.test_models import DATASET, charter

RECORDER = (sys.executable, str(Path(__file__).with_name("recording_learner.py")))
NOISE = 2_500_000  # millionths


def test_g8_nothing_of_a_batch_is_carried_out_if_it_cannot_be_stored(
    runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[ev.Effect] = []

    async def carry_out(effect: ev.Effect) -> None:
        carried.append(effect)

    def full(puts: object) -> None:
        raise DiskFullError(tmp_path)

    effects = [ev.Publish(b"said"), ev.Persist(ev.PutFlag("flag", 1)), ev.Publish(b"said too")]
    monkeypatch.setattr(shell, "handle", lambda state, events, now: effects)
    runtime._carry_out = carry_out
    runtime.store.apply = full
    runtime.submit(ev.SetContributing(True))
    with pytest.raises(DiskFullError):
        trio.run(runtime._work)
    assert carried == []


def test_g9_who_is_no_member_any_more_is_dropped_as_soon_as_a_block_says_so(
    runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open connection outlives what was allowed when it was made."""
    asked: list[int] = []

    class Network:
        def set_address_book(self, book: object) -> None:
            pass

        async def enforce_gate(self) -> None:
            asked.append(runtime.core.ledger.height)

    def decide(state: object, events: list[ev.Event], now: int) -> list[ev.Effect]:
        if len(events) == 1:  # the second time; the first one changes nothing
            runtime.core.ledger = replace(runtime.core.ledger, height=7)
        return []

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime._work)
            for _ in range(2):
                runtime.submit(ev.TimerFired(SyncDue()))
            await trio.testing.wait_all_tasks_blocked()
            assert asked == []
            runtime.submit(ev.TimerFired(SyncDue()))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    runtime.network = Network()
    monkeypatch.setattr(shell, "handle", decide)
    trio.run(both)
    assert asked == [7]


def test_g8_a_neighbour_is_answered_only_from_what_is_on_disk(runtime: Any) -> None:
    stored = trio.Event()
    order: list[str] = []

    async def slow(effects: object) -> None:
        await trio.sleep(0.3)
        order.append("stored")
        stored.set()

    async def nothing(effect: object) -> None:
        pass

    runtime._store_puts, runtime._carry_out = slow, nothing
    request = schema.dump(SyncRequest(runtime.core.federation, 0, (), b""))

    async def ask() -> None:
        await trio.sleep(0.1)
        await runtime.dialogue.serve_sync(bytes(32), request)
        order.append("answered")

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime._work)
            runtime.submit(ev.SetContributing(True))
            await ask()
            nursery.cancel_scope.cancel()

    trio.run(both)
    assert order == ["stored", "answered"]


@pytest.mark.parametrize("failure", [UnreachableError("no connection"), RemoteProtocolError("refused", "not served")])
def test_g3_what_one_neighbour_does_not_take_is_gossiped(runtime: Any, failure: Exception) -> None:
    """An acknowledgement that reaches nobody would keep its update out of the round."""
    sent: list[tuple[bytes | None, bytes]] = []

    class Network:
        down = False

        async def request(self, peer: bytes, protocol: str, data: bytes, *, limit: int) -> bytes:
            if self.down:
                raise failure
            sent.append((peer, data))
            return b""

        async def publish(self, data: bytes) -> None:
            sent.append((None, data))

    network = runtime.dialogue.network = Network()
    peer = bytes([7]) * 32
    trio.run(runtime.dialogue.tell, ev.Publish(b"ack", to=peer))
    assert sent == [(peer, b"ack")], "to one alone, and not to everybody"
    network.down = True
    trio.run(runtime.dialogue.tell, ev.Publish(b"another", to=peer))
    assert sent[1:] == [(None, b"another")]


def test_g6_the_learner_is_told_whose_data_it_must_not_use(runtime: Any, tmp_path: Path) -> None:
    runtime.jobs.config = replace(runtime.config, data=replace(runtime.config.data, path=tmp_path))
    opening = runtime.jobs._opening()
    assert opening.withheld == ("made-up",), "dp by its own config, and the charter has no noise"
    assert opening.hosted == ("head/task0",)
    assert opening.seed is None
    assert (opening.private, opening.private_adapter) == (None, None)
    assert opening.cache == str(runtime.home.root / "cache" / "embeddings.db")
    assert opening.purge is True, "who left the data leaves the cache"


def test_the_learner_is_told_of_models_and_private_components(runtime: Any, tmp_path: Path) -> None:
    config = replace(runtime.config, models=Models((("minilm", tmp_path / "m"),)))
    learning = replace(config.learning, private_adapter="dora", private_rank=3)
    runtime.jobs.config = replace(config, data=replace(config.data, path=tmp_path), learning=learning)
    opening = runtime.jobs._opening()
    assert opening.models == {"minilm": str(tmp_path / "m")}
    assert opening.private == str(runtime.home.root / "private")
    assert opening.private_adapter == PrivateAdapter("dora", 3)


def test_an_amendments_model_that_is_not_here_stops_nothing(
    runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the node held goes on: the learner could not open with the new modality."""
    (tmp_path / "dataset.toml").write_text(DATASET)
    submitted: list[ev.Event] = []
    monkeypatch.setattr(runtime, "submit", submitted.append)
    runtime.config = replace(runtime.config, data=replace(runtime.config.data, path=tmp_path))
    trio.run(runtime._configure, charter("essay"))
    assert submitted == []
    monkeypatch.setattr(shell, "check_models", lambda *_: None)
    amended = runtime.core.charter
    trio.run(runtime._configure, amended)
    assert [type(event) for event in submitted] == [ev.Configured]


def test_g5_bytes_over_the_norm_bound_are_refused_before_an_ack(runtime: Any) -> None:
    spec = runtime.charter.components[0]
    author = runtime.identity.public_key
    values = np.full(spec.dimension, 127, dtype=spec.integer_type)
    data = payload(runtime.core.federation, author, spec.name, 1, values)
    blob = runtime.holdings.blobs.put(data)
    header = UpdateHeader(
        federation=runtime.core.federation, author=author, component=spec.name, round=1, generation=0, base=bytes(32),
        blob=blob, size=len(data), steps=1, sample_rate=1000, lot=100_000,
        engaged=(Engaged(spec.name, bytes(32), 0, 1000, 1000),), claims=(Claim("made-up", (), NO_EPSILON, 0),),
    )  # fmt: skip
    with pytest.raises(RemoteProtocolError, match="norm-above"):
        runtime.holdings._check_bytes(ev.Pull(blob, len(data), header, ()))


R = TypeVar("R")


def asked(path: Path, kind: type[R]) -> list[R]:
    requests: list[R] = []
    with path.open("rb") as stream:
        while (body := read_frame(stream)) is not None:
            _, request = decode_request(body)
            if isinstance(request, kind):
                requests.append(request)
    return requests


def test_g6_the_learner_is_asked_for_the_charters_noise_and_every_draw_counts(tmp_path: Path) -> None:
    """A member alone trains until its budget of 12 steps is spent; kill -9 in between gives nothing back."""
    template = small_charter([Identity.from_seed(bytes(32))], dimension=500, min_updates=1, noise=NOISE)
    template = replace(template, components=(replace(template.components[0], clip_norm=20_000_000),))
    learning = replace(template.learning, floors=(PrivacyFloor("made-up", "dp", 8000, 10_000),))
    record = tmp_path / "asked"
    charter, institutions = found(
        tmp_path,
        [("one", tmp_path, 100.0)],
        Agreed("t", template.components, learning, template.seed),
        Settings(rounds=0, learner=(*RECORDER, str(record))),
    )
    daemon, steps = Daemon(institutions[0]), learning.steps

    def draws() -> Sequence[ev.PutReservation]:
        try:
            return snapshot(institutions[0]).reservations
        except OperatorError:  # there is no database yet
            return ()

    def drawn(goal: int) -> bool:
        return len(draws()) >= goal or daemon.dead() is not None

    try:
        for goal in (1, 12 // steps):
            daemon.start()
            wait_for(partial(drawn, goal), daemon.dead)
            assert daemon.dead() is None, daemon.dead()
            time.sleep(2)
            daemon.kill()
    finally:
        daemon.kill()
    trained = asked(record, Train)
    assert trained
    assert all(request.engaged["head/task0"].noise == NOISE / 1e6 for request in trained)
    assert all(request.steps == charter.learning.steps for request in trained)
    # A spent budget goes on being spent after a restart; a draw may be paid for and not made when the power fails.
    assert sum(put.steps for put in draws()) == 12
    assert len(draws()) - 1 <= len(trained) <= len(draws())
    assert [sum(line.count for line in q.modalities[0].spent) for q in asked(record, DecideRun)][: len(draws())] == [
        n * steps for n in range(len(draws()))
    ]


def test_g9_a_stranger_who_knows_the_address_is_refused(tmp_path: Path) -> None:
    template = small_charter([Identity.from_seed(bytes(32))], dimension=100, min_updates=1)
    charter, institutions = found(
        tmp_path,
        [("one", None, 1.0)],
        Agreed("t", template.components, template.learning, template.seed),
        Settings(rounds=0),
    )
    daemon = Daemon(institutions[0])
    stranger = Identity.from_seed(sha256(b"stranger"))
    member = charter.members[0].key

    async def dial() -> str:
        config = NetworkConfig(seed=stranger.seed, listen=("/ip4/127.0.0.1/tcp/0",), topic="t")
        async with open_network(config, Callbacks(lambda key: key == member)) as network:
            for _ in range(3000):
                try:
                    await network.connect(f"{charter.members[0].addresses[0]}/p2p/{peer_id(member)}")
                except RefusedError:
                    return "refused"
                except OperatorError:  # the daemon is still starting
                    await trio.sleep(0.1)
                else:
                    return "let in"
            return "never answered"

    daemon.start()
    try:
        assert trio.run(dial) == "refused"
    finally:
        daemon.kill()
    log = institutions[0].home.log.read_text()
    assert stranger.public_key.hex()[:16] in log or "connection refused" in log
