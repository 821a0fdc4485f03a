"""Non-members, let in for one protocol alone, and gone soon (G9)."""

import contextlib
from typing import Any

import pytest
import trio

from collegium.crypto.errors import RefusedError, RemoteProtocolError, UnreachableError
from collegium.crypto.identity import Identity
from collegium.node.network import non_members
from collegium.node.network.blobs import PROTOCOL as BLOB
from collegium.node.network.identity import peer_id

from ...waiting import LIMIT

JOIN = "/test/join/1"
ECHO = "/test/echo/1"
VISITOR = Identity.from_seed((2).to_bytes(32, "big")).public_key


async def welcome(peer: bytes, payload: bytes) -> bytes:
    if payload == b"refuse":
        raise RemoteProtocolError("not-today")
    return b"welcome " + payload


def test_a_non_member_gets_its_protocol_and_nothing_else(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host, node(2) as visitor:
            assert visitor.key == VISITOR
            await visitor.network.connect(host.address)
            assert await visitor.network.request(host.key, JOIN, b"x") == b"welcome x"
            with pytest.raises(RemoteProtocolError, match="not-today"):
                await visitor.network.request(host.key, JOIN, b"refuse")
            for protocol in (ECHO, BLOB, "/meshsub/1.1.0", "/ipfs/id/1.0.0"):
                with pytest.raises(UnreachableError):
                    await visitor.network.request(host.key, protocol, b"x", timeout=LIMIT)
            assert not host.peers, "the node was told of a neighbour"
            assert not host.network.neighbours()
            for number in range(20):
                await host.network.publish(b"for members %d" % number)
            await visitor.network.publish(b"from a non-member")
            await trio.sleep(0.5)
            assert not visitor.heard
            assert not host.heard
            assert await visitor.network.request(host.key, JOIN, b"y") == b"welcome y"

    run(test)


def test_other_strangers_stay_outside(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host, node(3) as stranger:
            with pytest.raises(RefusedError):
                await stranger.network.connect(host.address)

    run(test)


def test_a_non_member_is_not_dialled(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host, node(2) as visitor:
            with pytest.raises(RefusedError, match="not a member"):
                await host.network.connect(visitor.address)

    run(test)


def test_a_non_member_overstays_its_time(run: Any, node: Any, wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_members, "STAY", 0.5)

    async def test() -> None:
        async with node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host, node(2) as visitor:
            await visitor.network.connect(host.address)
            await wait(lambda: not visitor.network.neighbours())
            monkeypatch.setattr(non_members, "STAY", LIMIT)
            await visitor.network.connect(host.address)
            assert await visitor.network.request(host.key, JOIN, b"x") == b"welcome x"

    run(test)


def test_a_non_member_that_opens_streams_without_end_is_sent_away(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with (
            node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host,
            node(2) as visitor,
            node(3) as friend,
        ):
            await visitor.network.connect(host.address)
            with contextlib.suppress(Exception):
                for _ in range(50):
                    await visitor.network._swarm.new_stream(peer_id(host.key))
            await wait(lambda: not visitor.network.neighbours())
            host.friends = None
            await friend.joins(host)
            await friend.alive(host)

    run(test)


def test_non_members_are_few(run: Any, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_members, "MAX_NON_MEMBERS", 0)

    async def test() -> None:
        async with node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host, node(2) as visitor:
            with pytest.raises(RefusedError):
                await visitor.network.connect(host.address)

    run(test)


def test_a_non_member_that_comes_again_replaces_its_own_older_connection(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with (
            node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host,
            node(2) as older,
            node(2) as newer,
        ):
            await older.network.connect(host.address)
            await newer.network.connect(host.address)
            assert await newer.network.request(host.key, JOIN, b"x") == b"welcome x"
            await wait(lambda: not older.network.neighbours())
            assert await newer.network.request(host.key, JOIN, b"y") == b"welcome y"

    run(test)


def test_connections_of_one_non_member_are_few_even_while_they_are_closed(
    run: Any, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(non_members, "MAX_OF_ONE", 1)

    async def test() -> None:
        async with (
            node(1, friends=set(), non_members={VISITOR: {JOIN: welcome}}) as host,
            node(2) as first,
            node(2) as second,
        ):
            await first.network.connect(host.address)
            with pytest.raises(RefusedError):
                await second.network.connect(host.address)
            assert await first.network.request(host.key, JOIN, b"x") == b"welcome x"

    run(test)
