"""Only members get past the handshake, whoever dials."""

from typing import Any

import pytest
import trio

from collegium.crypto.errors import OperatorError, RefusedError, UnreachableError, UsageError
from collegium.node.network import workarounds


def test_a_stranger_is_refused_and_told_so(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, friends=set()) as member, node(2) as stranger:
            with pytest.raises(RefusedError, match=member.address.replace("/", "\\/")):
                await stranger.network.connect(member.address)
            assert not member.peers
            assert not member.network.neighbours()
            assert not stranger.network.neighbours()
            assert not stranger.peers

    run(test)


def test_a_stranger_is_not_dialled(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as stranger, node(2, friends=set()) as member:
            with pytest.raises(RefusedError, match="not a member"):
                await member.network.connect(stranger.address)
            member.network.set_address_book({stranger.key: [stranger.address]})
            await trio.sleep(0.3)
            assert not stranger.peers
            assert stranger.network.counters.received == 0

    run(test)


def test_who_is_no_longer_allowed_is_dropped(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await b.joins(a)
            await a.network.enforce_gate()
            assert b.key in a.network.neighbours()
            a.friends = set()
            await a.network.enforce_gate()
            await wait(lambda: not a.network.neighbours() and not b.network.neighbours())
            assert a.peers == [(b.key, True), (b.key, False)]

    run(test)


def test_inbound_members_are_accepted_up_to_twice_the_neighbours(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1, max_neighbours=1) as hub, node(2) as a, node(3) as b, node(4) as c:
            await a.joins(hub)
            await b.joins(hub)
            with pytest.raises(RefusedError):
                await c.network.connect(hub.address)

    run(test)


def test_another_identity_at_an_address_is_unreachable(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b, node(3) as c:
            wrong = b.address.split("/p2p/")[0] + "/p2p/" + c.address.split("/p2p/")[1]
            with pytest.raises(UnreachableError, match="does not correspond"):
                await a.network.connect(wrong)
            assert not a.network.neighbours()

    run(test)


@pytest.mark.parametrize("address", ["", "nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/1.2.3.4/udp/1/p2p/12D3KooW"])
def test_addresses_that_cannot_be_dialled_are_named(run: Any, node: Any, address: str) -> None:
    async def test() -> None:
        async with node(1) as a:
            with pytest.raises(UsageError):
                await a.network.connect(address)
            with pytest.raises(UsageError, match="itself"):
                await a.network.connect(a.address)

    run(test)


def test_a_port_in_use_is_named_with_advice(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a:
            taken = a.address.split("/p2p/")[0]
            with pytest.raises(UsageError, match=taken) as caught:
                async with node(2, listen=taken):
                    pass
            assert "choose another port" in caught.value.advice

    run(test)


def test_closing_leaves_no_socket(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a:
            async with node(2) as b:
                await b.joins(a)
                port = int(b.address.split("/")[4])
                sockets = [stream.stream.socket for stream in b.network._sockets]
            assert all(sock.fileno() == -1 for sock in sockets)
            with pytest.raises(OSError):  # noqa: PT011 - refused, in whatever words
                await trio.open_tcp_stream("127.0.0.1", port)

    run(test)


def test_what_the_body_raises_comes_out_bare(run: Any, node: Any) -> None:
    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            async with node(1):
                raise ZeroDivisionError

    run(test)


def test_another_libp2p_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workarounds, "_installed", [])
    monkeypatch.setattr(workarounds, "version", lambda name: "0.9.0")
    with pytest.raises(OperatorError, match=r"pip install libp2p==0\.8\.1"):
        workarounds.install()


def test_counters_are_raw_bytes_of_both_sides(run: Any, node: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            await a.joins(b)
            before, _ = b.network.counters.snapshot()
            await a.network.request(b.key, "/test/echo/1", bytes(500_000))
            after, sent = b.network.counters.snapshot()
            assert 500_000 < after - before < 600_000
            assert sent > 500_000
            await trio.sleep(0.2)
            assert abs(a.network.counters.sent - b.network.counters.received) < 20_000

    run(test)
