"""What a node knows on its way in: who invited it, or which member's place it is to take under a new key."""

import json
from dataclasses import dataclass

from ...crypto.errors import CorruptError
from ..store.files import read_limited, write_atomic
from .paths import Home

_FILE_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Joining:
    """`member` invited this node, which asked to be called `name`, and is found at `addresses`.

    With `replaces` this node is an institution whose key was lost; that member's key it is.
    """

    name: str
    member: bytes = b""
    addresses: tuple[str, ...] = ()
    replaces: bytes = b""


def load(home: Home) -> Joining | None:
    """Return what is known; None if this node did not come by an invitation. Raises CorruptError naming the file."""
    try:
        data = read_limited(home.joining, _FILE_LIMIT)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads((data or b"").decode())
        addresses = fields["addresses"]
        if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
            raise ValueError("not a list of addresses")
        return Joining(
            str(fields["name"]),
            bytes.fromhex(fields["member"]),
            tuple(addresses),
            bytes.fromhex(fields["replaces"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(f"{home.joining} is damaged ({error})", "Remove it, and join again.") from error


def save(home: Home, joining: Joining) -> None:
    """Keep it; the file holds the old or the new after a crash."""
    value = {
        "name": joining.name,
        "member": joining.member.hex(),
        "addresses": list(joining.addresses),
        "replaces": joining.replaces.hex(),
    }
    write_atomic(home.joining, (json.dumps(value, indent=2) + "\n").encode())
