"""Host names, resolved by the system: /etc/hosts, .local and its other configured sources.

libp2p asks name servers alone and does not use these.
"""

import socket

import trio
from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from ...crypto.errors import UnreachableError

TIMEOUT = 5.0  # seconds
MAX_ANSWERS = 8  # addresses of one name that are tried
_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


async def resolve(address: Multiaddr) -> list[Multiaddr]:
    """Return the addresses to dial in place of one by name; one by number is its own.

    Raises UnreachableError if the system knows no such host, or does not answer in time.
    """
    kind = address.protocols()[0].name
    if kind not in _FAMILIES:
        return [address]
    name, port = str(address.value_for_protocol(kind)), str(address.value_for_protocol("tcp"))
    try:
        with trio.fail_after(TIMEOUT):
            answers = await trio.socket.getaddrinfo(name, int(port), _FAMILIES[kind], socket.SOCK_STREAM)
    except trio.TooSlowError:
        raise UnreachableError(
            f"no answer within {TIMEOUT:g} s to who {name} is", "Check the name server of this machine."
        ) from None
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreachableError(
            f"this machine knows no host {name} ({why})",
            "Check the name, or add it to the name server or to /etc/hosts.",
        ) from error
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    resolved = [
        f"/{kinds[family]}/{str(at[0]).partition('%')[0]}/tcp/{port}" for family, *_, at in answers if family in kinds
    ]
    if not resolved:
        raise UnreachableError(f"{name} has no address that this node can dial", "Check the name.")
    return [Multiaddr(text) for text in list(dict.fromkeys(resolved))[:MAX_ANSWERS]]
