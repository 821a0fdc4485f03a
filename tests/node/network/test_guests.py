"""Guests: no member, let in for one protocol alone, and gone soon (G9)."""

import contextlib
from typing import Any

import pytest
import trio

from collegium.crypto.errors import RefusedError, RemoteProtocolError, UnreachableError
from collegium.crypto.identity import Identity
from collegium.node.network import guests
from collegium.node.network.blobs import PROTOCOL as BLOB
from collegium.node.network.identity import peer_id

from ...waiting import LIMIT

DOOR = "/test/door/1"
ECHO = "/test/echo/1"
GUEST = Identity.from_seed((2).to_bytes(32, "big")).public_key


async def door(peer: bytes, payload: bytes) -> bytes:
    if payload == b"refuse":
        raise RemoteProtocolError("not-today")
    return b"welcome " + payload


def test_a_guest_gets_its_protocol_and_nothing_else(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(2) as guest:
            assert guest.key == GUEST
            await guest.network.connect(host.address)
            assert await guest.network.request(host.key, DOOR, b"x") == b"welcome x"
            with pytest.raises(RemoteProtocolError, match="not-today"):
                await guest.network.request(host.key, DOOR, b"refuse")
            for protocol in (ECHO, BLOB, "/meshsub/1.1.0", "/ipfs/id/1.0.0"):
                with pytest.raises(UnreachableError):
                    await guest.network.request(host.key, protocol, b"x", timeout=LIMIT)
            assert not host.peers, "the node was told of a neighbour"
            assert not host.network.neighbours()
            for number in range(20):
                await host.network.publish(b"for members %d" % number)
            await guest.network.publish(b"from a guest")
            await trio.sleep(0.5)
            assert not guest.heard
            assert not host.heard
            assert await guest.network.request(host.key, DOOR, b"y") == b"welcome y"

    run(test)


def test_other_strangers_stay_outside(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(3) as stranger:
            with pytest.raises(RefusedError):
                await stranger.network.connect(host.address)

    run(test)


def test_a_guest_is_not_dialled(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(2) as guest:
            with pytest.raises(RefusedError, match="not a member"):
                await host.network.connect(guest.address)

    run(test)


def test_a_guest_overstays_its_time(run: Any, node: Any, wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "STAY", 0.5)

    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(2) as guest:
            await guest.network.connect(host.address)
            await wait(lambda: not guest.network.neighbours())
            monkeypatch.setattr(guests, "STAY", LIMIT)
            await guest.network.connect(host.address)
            assert await guest.network.request(host.key, DOOR, b"x") == b"welcome x"

    run(test)


def test_a_guest_that_opens_streams_without_end_is_sent_away(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(2) as guest, node(3) as friend:
            await guest.network.connect(host.address)
            with contextlib.suppress(Exception):
                for _ in range(50):
                    await guest.network._swarm.new_stream(peer_id(host.key))
            await wait(lambda: not guest.network.neighbours())
            host.friends = None
            await friend.joins(host)
            await friend.alive(host)

    run(test)


def test_guests_are_few(run: Any, node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "MAX_GUESTS", 0)

    async def test() -> None:
        async with node(1, friends=set(), guests={GUEST: {DOOR: door}}) as host, node(2) as guest:
            with pytest.raises(RefusedError):
                await guest.network.connect(host.address)

    run(test)
