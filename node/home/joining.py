"""A joining node's facts: the member that invited it, or the member whose lost key it replaces."""

import json
from dataclasses import dataclass

from ...crypto.errors import CorruptError
from ..store.files import read_limited, write_atomic
from .paths import Home

_FILE_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Joining:
    """`member`, dialled at `addresses`, invited this node, which applied under the name `name`.

    `replaces` is the member key that this institution lost, or empty.
    """

    name: str
    member: bytes = b""
    addresses: tuple[str, ...] = ()
    replaces: bytes = b""


def load(home: Home) -> Joining | None:
    """Return these facts; None if this node did not join by invitation. Raises CorruptError naming the file."""
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
    """Write these facts; after a crash the file holds the old or the new ones."""
    value = {
        "name": joining.name,
        "member": joining.member.hex(),
        "addresses": list(joining.addresses),
        "replaces": joining.replaces.hex(),
    }
    write_atomic(home.joining, (json.dumps(value, indent=2) + "\n").encode())
