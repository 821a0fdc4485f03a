"""Names are asked of the system, and a connection that does not come says why."""

import socket
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr  # type: ignore[import-untyped]

from collegium.crypto.errors import UnreachableError
from collegium.node.network import resolver
from collegium.node.network.resolver import resolve


def test_a_name_that_only_the_system_knows_is_dialled(run: Any, node: Any, wait: Any) -> None:
    """localhost is in /etc/hosts; libp2p asks name servers, which do not know it."""

    async def test() -> None:
        async with node(1) as a, node(2) as b:
            address = b.address.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
            assert address != b.address
            assert await a.network.connect(address) == b.key
            await a.network.disconnect(b.key)
            await wait(lambda: b.key not in a.network.neighbours())
            a.network.set_address_book({b.key: [address]})
            await wait(lambda: b.key in a.network.neighbours())
            assert a.network.why(b.key) in ("not dialled yet", "being dialled")

    run(test)


def test_why_there_is_no_connection_is_known(run: Any, node: Any, wait: Any) -> None:
    async def test() -> None:
        async with node(1) as a, node(2) as b:
            assert "no address of it is known" in a.network.why(b.key)
            suffix = b.address.split("/p2p/")[1]
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))  # nobody listens on it, and nobody else gets it
                closed = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
                a.network.set_address_book({b.key: [f"{closed}/p2p/{suffix}"]})
                await wait(lambda: "cannot be reached" in a.network.why(b.key))
                assert closed in a.network.why(b.key)
            a.network.set_address_book({b.key: [f"/dns4/no.such.host.invalid/tcp/1/p2p/{suffix}"]})
            a.network.backoff_reset()
            await wait(lambda: "knows no host no.such.host.invalid" in a.network.why(b.key), 20)

    run(test)


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", never)
    monkeypatch.setattr(resolver, "TIMEOUT", 0.05)
    with pytest.raises(UnreachableError, match="no answer within"):
        trio.run(resolve, Multiaddr("/dns4/slow.example.org/tcp/1"))


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(*_: object) -> list[Any]:
        v4 = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{n}", 4001)) for n in (1, 1, *range(2, 20))]
        return [*v4[:3], (socket.AF_INET6, 1, 6, "", ("fe80::1%eth0", 4001, 0, 2)), *v4[3:]]

    monkeypatch.setattr(trio.socket, "getaddrinfo", answers)
    addresses = [str(address) for address in trio.run(resolve, Multiaddr("/dns/x.org/tcp/4001"))]
    assert addresses[:3] == ["/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.2/tcp/4001", "/ip6/fe80::1/tcp/4001"]
    assert len(addresses) == resolver.MAX_ANSWERS
    plain = Multiaddr("/ip4/192.0.2.9/tcp/4001")
    assert trio.run(resolve, plain) == [plain]
