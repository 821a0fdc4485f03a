"""Keeping neighbours without being told."""

from itertools import pairwise
from typing import Any

import trio
import trio.testing

from collegium.crypto.errors import UnreachableError
from collegium.node.network.dialer import FOUND_FOR, MAX_FOUND, MAX_FOUND_ADDRESSES, Dialer


def test_a_peer_that_restarts_on_its_address_is_dialled_again(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with node(1) as a:
            async with node(2) as b:
                address = b.address
                a.network.set_address_book({b.key: [address]})
                await wait(lambda: b.key in a.network.neighbours())
                key = b.key
            await wait(lambda: key not in a.network.neighbours())
            await trio.sleep(0.5)
            async with node(2, listen=address.split("/p2p/")[0]) as b:
                await wait(lambda: key in a.network.neighbours())
                await a.alive(b)
                assert [connected for _, connected in a.peers] == [True, False, True]

    run(test)


def test_a_dead_first_address_does_not_hide_a_good_second(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            dead = "/ip4/127.0.0.1/tcp/1/p2p/" + b.address.split("/p2p/")[1]
            a.network.set_address_book({b.key: [dead, b.address]})
            await wait(lambda: b.key in a.network.neighbours())

    run(test)


def clocked(test: Any) -> None:
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_addresses_are_tried_one_at_a_time() -> None:
    running, most, tried = [0], [0], []

    async def dial(address: str) -> bytes:
        running[0] += 1
        most[0] = max(most[0], running[0])
        tried.append(address)
        await trio.sleep(1)
        running[0] -= 1
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, lambda peer: True)
        dialer.set_book({b"a": ["1", "2", "3"]})
        with trio.move_on_after(3.2):
            await dialer.run()
        assert tried == ["1", "2", "3"]
        assert most == [1]

    clocked(test)


def test_who_is_announced_here_is_dialled_though_the_book_names_no_address() -> None:
    tried = []

    async def dial(address: str) -> bytes:
        tried.append(address)
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, lambda peer: True)
        dialer.set_book({b"a": [], b"b": ["old"]})
        dialer.found(b"a", ["here"])
        dialer.found(b"b", ["new", "old"])
        with trio.move_on_after(0.2):  # before the first of them is tried again
            await dialer.run()
        assert sorted(tried) == ["here", "new", "old"]

    clocked(test)


def test_failed_dials_back_off_to_a_minute_and_a_reset_ends_that() -> None:
    times: list[float] = []

    async def dial(address: str) -> bytes:
        times.append(trio.current_time())
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, lambda peer: True)
        dialer.set_book({b"a": ["1"], b"me": ["0"]})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            await trio.sleep(600)
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert 0.25 <= gaps[0] <= 0.6
            assert all(gap <= 61.5 for gap in gaps)
            assert all(gap >= 29 for gap in gaps[8:])
            assert 12 <= len(times) <= 40
            count = len(times)
            dialer.reset(b"a")
            await trio.sleep(0.1)
            assert len(times) == count + 1
            nursery.cancel_scope.cancel()

    clocked(test)


def test_no_more_than_wanted_are_dialled_and_others_when_they_fail() -> None:
    up: set[bytes] = set()

    async def dial(address: str) -> bytes:
        await trio.sleep(0.1)
        if address == "dead":
            raise UnreachableError(address)
        up.add(address.encode())
        return address.encode()

    async def test() -> None:
        dialer = Dialer(b"me", 3, dial, lambda: frozenset(up), lambda peer: peer != b"banned")
        good = {b"p%d" % k: [f"p{k}"] for k in range(5)}
        dialer.set_book({**good, b"x": ["dead"], b"y": ["dead"], b"banned": ["banned"]})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            await trio.sleep(30)
            assert len(up) == 3
            assert b"banned" not in up
            lost = up.pop()
            dialer.disconnected(lost)
            await trio.sleep(5)
            assert len(up) == 3
            nursery.cancel_scope.cancel()

    clocked(test)


def test_a_peer_that_hangs_up_at_once_is_not_dialled_in_a_loop() -> None:
    times: list[float] = []

    async def test() -> None:
        async def dial(address: str) -> bytes:
            times.append(trio.current_time())
            dialer.connected(b"a")
            dialer.disconnected(b"a")
            return b"a"

        dialer = Dialer(b"me", 3, dial, frozenset, lambda peer: True)
        dialer.set_book({b"a": ["a"]})
        with trio.move_on_after(60):
            await dialer.run()
        assert len(times) < 15

    clocked(test)


def flood(dialer: Dialer, count: int, name: str = "stranger") -> None:
    for n in range(count):
        dialer.found(b"%s %d" % (name.encode(), n), [f"{name} {n}"])


def test_g9_strangers_that_announce_themselves_keep_no_member_out() -> None:
    tried: list[str] = []

    async def dial(address: str) -> bytes:
        tried.append(address)
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, lambda peer: peer.startswith(b"member"))
        dialer.found(b"member 1", ["first"])
        flood(dialer, 5 * MAX_FOUND)
        dialer.found(b"member 2", ["after them"])
        flood(dialer, 5 * MAX_FOUND, "another")
        assert len(dialer._found) == MAX_FOUND
        with trio.move_on_after(0.2):
            await dialer.run()
        assert sorted(tried) == ["after them", "first"]
        assert dialer._peers.keys() == {b"member 1", b"member 2"}

    clocked(test)


def test_strangers_that_announced_themselves_are_forgotten_and_members_are_not() -> None:
    admitted = {b"member 0"}

    async def dial(address: str) -> bytes:
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, admitted.__contains__)
        flood(dialer, 10, "member")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            await trio.sleep(FOUND_FOR - 10)
            assert len(dialer._found) == 10
            admitted.add(b"member 1")  # in time
            await trio.sleep(20)
            assert dialer._found.keys() == {b"member 0", b"member 1"}
            nursery.cancel_scope.cancel()

    clocked(test)


def test_whoever_announces_many_addresses_for_a_member_costs_few_dials() -> None:
    tried: list[str] = []

    async def dial(address: str) -> bytes:
        tried.append(address)
        raise UnreachableError(address)

    async def test() -> None:
        dialer = Dialer(b"me", 6, dial, frozenset, lambda peer: True)
        dialer.set_book({b"member": ["its own"]})
        dialer.found(b"member", [f"dead {n}" for n in range(100)])
        with trio.move_on_after(0.2):
            await dialer.run()
        assert tried == [*(f"dead {n}" for n in range(MAX_FOUND_ADDRESSES)), "its own"]

    clocked(test)
