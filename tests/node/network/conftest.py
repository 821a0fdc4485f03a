"""Networks on loopback. `run` runs an async test under trio; `node` opens a network that records what it hears."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from collegium.node.network import Callbacks, Network, NetworkConfig, open_network

from ...waiting import LIMIT, until

TOPIC = "test"
ECHO = "/test/echo/1"


async def echo(peer: bytes, payload: bytes) -> bytes:
    return payload


@dataclass
class Node:
    network: Network
    heard: list[tuple[bytes, bytes]] = field(default_factory=list)
    peers: list[tuple[bytes, bool]] = field(default_factory=list)
    friends: set[bytes] | None = None  # None: everyone

    @property
    def key(self) -> bytes:
        return self.network.public_key

    @property
    def address(self) -> str:
        return self.network.addresses()[0]

    @property
    def host(self) -> Any:
        return self.network._host

    async def joins(self, other: "Node") -> None:
        assert await self.network.connect(other.address) == other.key
        await until(lambda: self.key in other.network.neighbours())

    async def alive(self, other: "Node") -> None:
        """`other` still answers us."""
        assert await self.network.request(other.key, ECHO, b"alive?", timeout=LIMIT) == b"alive?"

    async def publishes_until(self, done: Callable[[], object], same: bytes = b"") -> None:
        """Publish, the same bytes or always others, until it is so: whoever joined a moment ago may miss the first."""
        end, number = trio.current_time() + LIMIT, 0
        while not done():
            assert trio.current_time() < end, f"{number} messages did not arrive"
            await self.network.publish(same or b"message %d" % number)
            number += 1
            await trio.sleep(0.05)


@asynccontextmanager
async def open_node(
    number: int,
    *,
    listen: str = "/ip4/127.0.0.1/tcp/0",
    friends: set[bytes] | None = None,
    handlers: Mapping[str, Callable[[bytes, bytes], Awaitable[bytes]]] | None = None,
    blobs: Mapping[bytes, tuple[Path, int]] | None = None,
    non_members: Mapping[bytes, Mapping[str, Callable[[bytes, bytes], Awaitable[bytes]]]] | None = None,
    **config: Any,
) -> AsyncIterator[Node]:
    node = Node(None, friends=friends)  # type: ignore[arg-type] # set below, once it is open
    async with open_network(
        NetworkConfig(seed=number.to_bytes(32, "big"), listen=(listen,), topic=TOPIC, **config),
        Callbacks(
            allowed=lambda key: node.friends is None or key in node.friends,
            on_gossip=lambda forwarder, data: node.heard.append((forwarder, data)),
            on_peer=lambda key, connected: node.peers.append((key, connected)),
            rpc_handlers={ECHO: echo, **(handlers or {})},
            blob_path=(blobs or {}).get,
            non_member_handlers=lambda key: (non_members or {}).get(key, {}),
        ),
    ) as network:
        node.network = network
        yield node


@pytest.fixture
def node() -> Callable[..., AbstractAsyncContextManager[Node]]:
    return open_node


@pytest.fixture
def wait() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def run() -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run_it(test: Callable[[], Awaitable[None]], seconds: float = 2 * LIMIT) -> None:
        async def limited() -> None:
            with trio.fail_after(seconds):
                await test()

        trio.run(limited)

    return run_it
