"""Addresses of our own: taking ports without sharing them, and listing addresses that others can dial."""

import socket
from collections.abc import Iterable

from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from ...crypto.errors import UsageError
from ..home.addresses import own_hosts


def parse_listen(addresses: Iterable[str]) -> list[Multiaddr]:
    """The multiaddrs to listen on; each must be /ip4|ip6/<address>/tcp/<port>, and its port free.

    Raises UsageError naming the address.
    """
    parsed = []
    for address in addresses:
        family, host, port = _split(address)
        if port:
            _check_free(address, family, host, port)
        parsed.append(Multiaddr(address))
    return parsed


def _split(address: str) -> tuple[socket.AddressFamily, str, int]:
    try:
        maddr = Multiaddr(address)
        names = [protocol.name for protocol in maddr.protocols()]
        if names not in (["ip4", "tcp"], ["ip6", "tcp"]):
            raise ValueError(names)
        family = socket.AF_INET if names[0] == "ip4" else socket.AF_INET6
        return family, str(maddr.value_for_protocol(names[0])), int(str(maddr.value_for_protocol("tcp")))
    except Exception as error:
        raise UsageError(
            f"{address!r} is not an address to listen on", "write it as /ip4/127.0.0.1/tcp/4001; port 0 takes any"
        ) from error


def _check_free(address: str, family: socket.AddressFamily, host: str, port: int) -> None:
    # libp2p binds with SO_REUSEPORT (transport/tcp/tcp.py:84), so two daemons would silently share a port, each
    # getting half of the connections. A bind without it shows that.
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {address}: {error.strerror or error}",
                "stop what uses the port (another daemon?), or choose another port or address under `listen`",
            ) from error


def dialable(addresses: Iterable[Multiaddr], peer: str) -> list[str]:
    """Addresses that others can dial: ".../p2p/<id>" for each bound address, 0.0.0.0 and :: replaced by own ones."""
    texts: dict[str, None] = {}
    for address in addresses:
        text = str(address)
        for wildcard, prefix, family in (
            ("/ip4/0.0.0.0/", "/ip4/", socket.AF_INET),
            ("/ip6/::/", "/ip6/", socket.AF_INET6),
        ):
            if text.startswith(wildcard):
                rest = text.removeprefix(wildcard)
                texts |= {f"{prefix}{host}/{rest}/p2p/{peer}": None for host in own_hosts(family)}
                break
        else:
            texts[f"{text}/p2p/{peer}"] = None
    return list(texts)
