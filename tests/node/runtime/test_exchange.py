"""States from a neighbour: only the certified one is stored, a cut copy goes on, and nothing else is handed out."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trio

from collegium.consensus.components import Round
from collegium.crypto.errors import RemoteProtocolError, UnreachableError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.runtime.exchange import Exchange, Held, state_name
from collegium.node.store.states import States, file_size
from collegium.protocol.components import state_digest
from collegium.sims.simulator.small import small_charter

T = "head/task0"
CHAIN = sha256(b"chain")
A, B = sha256(b"a"), sha256(b"b")
SPEC = small_charter([Identity.from_seed(sha256(b"x"))], dimension=5000).components[0]
HELD = Held({T: SPEC}, (T,), 1000)
STATE = np.arange(5000, dtype=np.int32)
FETCH = ev.FetchState(T, CHAIN, state_digest(T, STATE), (A, B))


class FakeNetwork:
    """Neighbours that hand out files, or stop in the middle."""

    def __init__(self, files: dict[bytes, bytes | Exception], cut: int = 0) -> None:
        self.files, self.cut = files, cut
        self.asked: list[tuple[bytes, int]] = []

    def neighbours(self) -> frozenset[bytes]:
        return frozenset(self.files)

    async def fetch(self, peer: bytes, name: bytes, size: int, write: Callable[[bytes], None], offset: int) -> None:
        assert name == state_name(T, CHAIN)
        assert size == file_size(5000)
        self.asked.append((peer, offset))
        data = self.files[peer]
        if isinstance(data, Exception):
            raise data
        if self.cut:
            write(data[offset : offset + self.cut])
            raise UnreachableError("cut")
        write(data[offset:])
        await trio.lowlevel.checkpoint()


def file_of(root: Path, state: Any = STATE) -> bytes:
    states = States(root)
    states.put(T, 7, CHAIN, state)
    file = states.find(T, CHAIN)
    assert file is not None
    return file[0].read_bytes()


def take(exchange: Exchange, network: FakeNetwork) -> bool:
    return trio.run(exchange.take, network, FETCH, 7)


def make(root: Path) -> tuple[Exchange, States]:
    states = States(root / "mine")
    return Exchange(states, lambda: HELD), states


def test_g1_only_the_certified_state_is_stored(tmp_path: Path) -> None:
    exchange, states = make(tmp_path)
    good, other = file_of(tmp_path / "a"), file_of(tmp_path / "b", STATE + 1)
    flipped = bytearray(good)
    flipped[100] ^= 1
    for wrong in (other, bytes(flipped), b"x" * len(good), good + b"more"):
        assert not take(exchange, FakeNetwork({A: wrong}))
        assert states.get(T, CHAIN) is None
    network = FakeNetwork({A: other, B: good})
    assert take(exchange, network)
    assert network.asked == [(A, 0), (B, 0)], "a wrong copy is thrown away, not gone on with"
    stored = states.get(T, CHAIN)
    assert stored is not None
    assert np.array_equal(stored, STATE)
    assert not list((tmp_path / "mine").rglob("*.part"))


def test_a_cut_copy_goes_on_where_it_stopped_and_after_a_restart(tmp_path: Path) -> None:
    exchange, states = make(tmp_path)
    good = file_of(tmp_path / "a")
    assert not take(exchange, FakeNetwork({A: good}, cut=8000))
    again = Exchange(States(tmp_path / "mine"), lambda: HELD)
    network = FakeNetwork({B: good})
    assert take(again, network)
    assert network.asked == [(B, 8000)]
    assert states.get(T, CHAIN) is not None


def test_nobody_has_it(tmp_path: Path) -> None:
    exchange, _ = make(tmp_path)
    network = FakeNetwork({A: RemoteProtocolError("blob-unknown"), B: UnreachableError("gone")})
    assert not take(exchange, network)
    assert not take(exchange, FakeNetwork({}))


def test_g7_a_copy_of_a_state_no_longer_in_force_is_pruned(tmp_path: Path) -> None:
    exchange, states = make(tmp_path)
    take(exchange, FakeNetwork({A: file_of(tmp_path / "a")}, cut=8000))
    assert list((tmp_path / "mine").rglob("*.part"))
    states.prune(T, (sha256(b"another chain"),))
    assert not list((tmp_path / "mine").rglob("*.part"))


def test_only_states_in_force_are_handed_out(tmp_path: Path) -> None:
    exchange, states = make(tmp_path)
    states.put(T, 7, CHAIN, STATE)
    rounds = (Round(7, 7, (), 0, CHAIN),)
    ledger: Any = SimpleNamespace(height=7, components={T: SimpleNamespace(rounds=rounds)})
    located = exchange.locate(ledger, state_name(T, CHAIN))
    assert located is not None
    assert located[1] == file_size(5000)
    assert exchange.locate(ledger, sha256(b"other")) is None
    later: Any = SimpleNamespace(height=8, components={T: SimpleNamespace(rounds=())})
    assert exchange.locate(later, state_name(T, CHAIN)) is None
