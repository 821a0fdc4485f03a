"""Multiaddrs as an operator writes them: whether they are any, said in a sentence.

Only the form is checked here; node/network says whether somebody can be reached there.
"""

from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
ADDRESS_LIMIT = 256  # bytes, as in a charter


def check_listen(address: object) -> str:
    """Return what is wrong with an address to listen on, or "": /ip4|ip6/<address>/tcp/<port>."""
    names = _names(address)
    if names in (["ip4", "tcp"], ["ip6", "tcp"]):
        return ""
    return f"{address!r} is not an address to listen on, such as /ip4/192.168.1.20/tcp/4001"


def check_advertised(address: object) -> str:
    """Return what is wrong with an address that others are told of, or "": /ip4|ip6|dns…/<host>/tcp/<port>."""
    names = _names(address)
    if names is not None and len(names) == 2 and names[0] in _HOSTS and names[1] == "tcp":
        return ""
    return f"{address!r} is not an address that others can dial, such as /dns4/node.example.org/tcp/4001"


def check_peer(address: object) -> str:
    """Return what is wrong with a peer's address, or "": an advertised one followed by /p2p/<peer id>."""
    names = _names(address)
    if names is not None and len(names) == 3 and names[0] in _HOSTS and names[1:] == ["tcp", "p2p"]:
        return ""
    return f"{address!r} is not the address of a peer, such as /ip4/192.0.2.7/tcp/4001/p2p/<peer id>"


def _names(address: object) -> list[str] | None:
    if not isinstance(address, str) or len(address.encode("utf-8", "replace")) > ADDRESS_LIMIT:
        return None
    try:
        parsed = Multiaddr(address)
        return [protocol.name for protocol in parsed.protocols()]
    except Exception:  # noqa: BLE001 - the library raises what its parsers raise, and all of it means: no address
        return None
