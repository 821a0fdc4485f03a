"""Who knocks without a key: bounded in handshakes, failures and descriptors."""

import errno
import os
import socket
from typing import Any

import pytest
import trio

from collegium.crypto.errors import CollegiumError
from collegium.node import scarce
from collegium.node.network import arrivals, host
from collegium.node.network.arrivals import (
    FAILURES,
    KNOWN_FAILURES,
    MAX_ADDRESSES,
    MAX_PENDING,
    Addresses,
    Pending,
    SheddingListener,
)

from ...descriptors import limit, next_descriptor
from ...waiting import LIMIT


def test_each_arrival_over_the_limit_drops_another_handshake() -> None:
    """A burst comes in one pass of the scheduler: what is dropped has had no time to end."""

    async def test() -> None:
        pending = Pending()
        admitted = [pending.admit("198.51.100.7") for _ in range(10 * MAX_PENDING)]
        assert pending.count == MAX_PENDING
        assert [scope.cancel_called for _, scope in admitted] == [True] * (9 * MAX_PENDING) + [False] * MAX_PENDING
        for key, _ in admitted:
            pending.done("198.51.100.7", key)
        assert (pending.count, pending.by_host) == (0, {})

    trio.run(test)


def test_the_address_that_has_most_loses_first() -> None:
    async def test() -> None:
        pending = Pending()
        _, member = pending.admit("192.0.2.1")
        for _ in range(5 * MAX_PENDING):
            pending.admit("198.51.100.7")
        assert not member.cancel_called

    trio.run(test)


def test_an_address_whose_handshakes_only_fail_has_to_wait_and_others_do_not() -> None:
    addresses = Addresses()
    for _ in range(int(FAILURES)):
        assert addresses.may("198.51.100.7", 10.0)
        addresses.failed("198.51.100.7", 10.0)
    assert not addresses.may("198.51.100.7", 10.5)
    assert addresses.may("198.51.100.8", 10.5)
    assert addresses.may("198.51.100.7", 11.5), "and not for ever"


def test_an_address_from_which_a_member_came_may_fail_more_often() -> None:
    addresses = Addresses()
    addresses.succeeded("192.0.2.1")
    for _ in range(int(KNOWN_FAILURES)):
        assert addresses.may("192.0.2.1", 10.0)
        addresses.failed("192.0.2.1", 10.0)
    assert not addresses.may("192.0.2.1", 10.0)


def test_addresses_of_one_ipv6_network_are_one_and_the_table_is_bounded() -> None:
    addresses = Addresses()
    for n in range(int(FAILURES)):
        addresses.failed(f"2001:db8::{n:x}", 0.0)
    assert not addresses.may("2001:db8::ffff", 0.0)
    assert addresses.may("2001:db8:0:1::1", 0.0)
    for n in range(2 * MAX_ADDRESSES):
        addresses.failed(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", 0.0)
        addresses.succeeded(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}")
    assert len(addresses._buckets) <= MAX_ADDRESSES
    assert len(addresses._known) <= MAX_ADDRESSES


def test_handshakes_of_a_strangers_key_are_not_begun_for_ever(run: Any, node: Any) -> None:
    """Each costs milliseconds of the only thread; a connection that is turned away costs an accept."""

    async def test() -> None:
        async with node(1, friends=set()) as member, node(2) as stranger:
            began = 0
            upgrade = member.network._swarm.upgrade_inbound_raw_conn

            async def count(*args: Any) -> Any:
                nonlocal began
                began += 1
                return await upgrade(*args)

            member.network._swarm.upgrade_inbound_raw_conn = count
            started = trio.current_time()
            for _ in range(3 * int(FAILURES)):
                with pytest.raises(CollegiumError):
                    await stranger.network.connect(member.address)
            assert began <= FAILURES + arrivals.FAILURES_PER_SECOND * (trio.current_time() - started) + 1

    run(test)


def test_without_descriptors_a_door_sheds_connections_and_goes_on_when_there_are_some() -> None:
    async def test() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        door = SheddingListener(listener)
        accepted: list[trio.SocketStream] = []

        async def accept() -> None:
            while True:
                accepted.append(await door.accept())

        async with trio.open_nursery() as nursery, door:
            clients = [socket.socket() for _ in range(20)]
            nursery.start_soon(accept)
            with limit(next_descriptor()):  # not one more
                with pytest.raises(OSError, match="Too many open files"):
                    os.open(os.devnull, os.O_RDONLY)
                for client in clients:
                    client.connect(("127.0.0.1", port))
                with trio.fail_after(LIMIT):
                    while door.shed < len(clients):  # noqa: ASYNC110 - it looks at what announces nothing
                        await trio.sleep(0.01)
            for client in clients:
                client.settimeout(LIMIT)
                assert client.recv(1) == b"", "it was closed, and not left waiting"
                client.close()
            assert accepted == []
            with socket.create_connection(("127.0.0.1", port)), trio.fail_after(LIMIT):
                while not accepted:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.01)
            await accepted[0].aclose()
            nursery.cancel_scope.cancel()

    trio.run(test)


def test_the_last_descriptors_are_kept_for_disk_and_operator() -> None:
    async def test() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        door = SheddingListener(listener)
        accepted: list[trio.SocketStream] = []

        async def accept() -> None:
            while True:
                accepted.append(await door.accept())

        async with trio.open_nursery() as nursery, door:
            nursery.start_soon(accept)
            clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(60)]
            highest = max(client.fileno() for client in clients)
            with limit((highest + 40) * 4 // 3):  # of which a quarter, or RESERVED, is kept
                with trio.fail_after(LIMIT):
                    while len(accepted) + door.shed < len(clients):  # noqa: ASYNC110 - it announces nothing
                        await trio.sleep(0.01)
                assert accepted
                assert door.shed
                assert max(stream.socket.fileno() for stream in accepted) < arrivals.usable()
                assert scarce.can_open()
            for client in clients:
                client.close()
            for stream in accepted:
                await stream.aclose()
            nursery.cancel_scope.cancel()

    trio.run(test)


def test_a_dial_without_a_descriptor_is_a_dial_that_failed(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            with limit(next_descriptor()), pytest.raises(Exception, match="cannot be reached"):
                await a.network.connect(b.address)
            await a.joins(b)

    run(test)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_scarcity_is_known_by_its_number_below_other_errors_too(code: int) -> None:
    error = ValueError("of it")
    error.__cause__ = OSError(code, "no")
    assert scarce.is_scarce(error)
    assert not scarce.is_scarce(OSError(errno.ENOSPC, "no"))


def test_the_reason_of_a_failed_dial_is_the_innermost_one() -> None:
    """A group of one says "(1 sub-exception)", which tells nobody anything."""
    group = ExceptionGroup("all attempts failed", [OSError("connection refused")])
    error = ValueError("of it")
    error.__cause__ = group
    assert host._cause(error) == "connection refused"
    assert host._cause(ExceptionGroup("outer", [group])) == "connection refused"
