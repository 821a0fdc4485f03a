"""Checks of multiaddrs from operators, with problems as sentences.

Only the address itself is checked here; node/network finds out whether a peer can be reached there.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence

from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ADDRESS_LIMIT = 256  # bytes, as in a charter


def check_listen(address: object) -> str:
    """Return the problem with an address to listen on, or "": /ip4|ip6/<address>/tcp/<port>."""
    names = _names(address)
    if names in (["ip4", "tcp"], ["ip6", "tcp"]):
        return _many_hosts(str(address))
    return f"{address!r} is not an address to listen on, such as /ip4/192.168.1.20/tcp/4001"


def check_advertised(address: object) -> str:
    """Return the problem with an advertised address, or "": /ip4|ip6|dns…/<host>/tcp/<port>.

    Nobody can dial the wildcard, a group of hosts, or port 0.
    """
    names = _names(address)
    if names is None or len(names) != 2 or names[0] not in _HOSTS or names[1] != "tcp":
        return f"{address!r} is not an address that others can dial, such as /dns4/node.example.org/tcp/4001"
    if port(str(address)) == 0:
        return f"{address}: nobody can dial port 0; give a fixed port, such as 4001"
    host = _ip(str(address))
    if host is not None and host.is_unspecified:
        return f"{address}: nobody can dial {host}; give this machine's own address or its name, as others see it"
    return _many_hosts(str(address))


def _many_hosts(address: str) -> str:
    """Return the problem with a multicast or broadcast address, or ""."""
    host = _ip(address)
    mapped = getattr(host, "ipv4_mapped", None) or host
    if mapped is not None and (mapped.is_multicast or str(mapped) == "255.255.255.255"):
        return f"{address}: {host} is no single host; give this machine's own address or its name"
    return ""


def is_loopback(address: str) -> bool:
    """Whether an address is the dialler's own machine: 127.0.0.1, ::1, localhost."""
    address = address.partition("/p2p/")[0]
    names = _names(address)
    if not names or names[0] not in _HOSTS:
        return False
    host = _ip(address)
    if host is not None:
        mapped = getattr(host, "ipv4_mapped", None)
        return (mapped or host).is_loopback
    name = address.split("/")[2].rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def port(address: str) -> int:
    """Return the TCP port of an address that has one."""
    return int(address.split("/")[4])


def wildcard(address: str) -> bool:
    """Whether an address to listen on stands for all of this machine's: 0.0.0.0 or ::."""
    host = _ip(address)
    return host is not None and host.is_unspecified


def own_hosts(family: socket.AddressFamily) -> list[str]:
    """Return the address of this machine that the default route uses, if there is one, and loopback after it."""
    # Connecting a UDP socket sends nothing; it asks the kernel.
    outside, loopback = ("192.0.2.1", "127.0.0.1") if family == socket.AF_INET else ("2001:db8::1", "::1")
    hosts = []
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((outside, 9))
        hosts.append(str(probe.getsockname()[0]))
    return list(dict.fromkeys([*hosts, loopback]))


def free_loopback() -> str:
    """Return a loopback address with a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"


def own_problem(listen: Sequence[str], advertise: Sequence[str]) -> tuple[str, str]:
    """Return (problem, advice) for a node's listening and advertised addresses; ("", "") if they are right."""
    for address in advertise:
        problem = check_advertised(address)
        if problem:
            return problem, "Give --advertise /ip4/<this machine's address>/tcp/<port>, or /dns4/<its name>/tcp/<port>."
    if advertise:
        return "", ""
    for address in listen:
        if port(address) == 0:
            return f"{address}: port 0 is another one at every start", "Give a fixed port, such as 4001."
        if wildcard(address):
            family = "ip4" if address.startswith("/ip4/") else "ip6"
            here = own_hosts(socket.AF_INET if family == "ip4" else socket.AF_INET6)[0]
            return (
                f"{address} is where to listen, and nobody can dial it",
                f"Say what the others shall dial: --advertise /{family}/{here}/tcp/{port(address)}, or this"
                f" machine's name: --advertise /dns4/<name>/tcp/{port(address)}.",
            )
    return "", ""


def members_problems(members: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return the problems that keep members of a charter from dialling each other by its addresses.

    `members` are names with addresses. Loopback addresses are fine if all are of that kind.
    """
    problems = [
        f"{name}: {problem}" for name, own in members for address in own if (problem := check_advertised(address))
    ]
    owners: dict[str, list[str]] = {}
    for name, own in members:
        for address in dict.fromkeys(own):
            owners.setdefault(address, []).append(name)
    problems += [
        f"{' and '.join(sorted(names))} have the same address, {a}" for a, names in owners.items() if len(names) > 1
    ]
    good = [(name, [a for a in own if not check_advertised(a)]) for name, own in members]
    local = [name for name, own in good if own and all(map(is_loopback, own))]
    if any(not is_loopback(address) for _, own in good for address in own):
        problems += [
            f"{name} has only an address of its own machine, and others are on other machines" for name in local
        ]
    if len(members) > 1:
        problems += [f"{name} has no address" for name, own in members if not own]
    return problems


def published(own: Sequence[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return this node's addresses for its offer: those that others can dial.

    Loopback is offered only if there is no other address, and all known addresses of others are on this machine too.
    """
    outside = [address for address in own if not is_loopback(address)]
    if outside:
        return tuple(outside)
    return tuple(own) if all(is_loopback(address) for address in others) else ()


def peer_id(key: bytes) -> str:
    """Return the libp2p peer id of a 32-byte Ed25519 public key, which an address of a peer ends with."""
    number = int.from_bytes(b"\x24\x08\x01\x12\x20" + key)
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" + digits  # the identity multihash begins with a zero byte


def with_peer(address: str, key: bytes) -> str:
    """Return an address that ends with the peer id of a member's key."""
    return f"{address.partition('/p2p/')[0]}/p2p/{peer_id(key)}"


def check_peer(address: object) -> str:
    """Return the problem with a peer's address, or "": an advertised one followed by /p2p/<peer id>."""
    names = _names(address)
    if names is not None and len(names) == 3 and names[0] in _HOSTS and names[1:] == ["tcp", "p2p"]:
        if check_advertised(str(address).partition("/p2p/")[0]):
            return f"{address}: nobody can dial that; ask for the address by which others reach this peer"
        return ""
    return f"{address!r} is not the address of a peer, such as /ip4/192.0.2.7/tcp/4001/p2p/<peer id>"


def _names(address: object) -> list[str] | None:
    if not isinstance(address, str) or len(address.encode("utf-8", "replace")) > ADDRESS_LIMIT:
        return None
    if not address.startswith("/") or "//" in address:  # the library takes them, and we split at slashes
        return None
    try:
        parsed = Multiaddr(address)
        return [protocol.name for protocol in parsed.protocols()]
    except Exception:  # noqa: BLE001 - the library raises its parsers' errors; each means: not an address
        return None


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the host of an address if it is a number; None for a name."""
    parts = address.split("/")
    return ipaddress.ip_address(parts[2]) if parts[1] in ("ip4", "ip6") else None
