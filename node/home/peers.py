"""Addresses that the operator added by command, in a file of their own: only the operator writes config.toml."""

import json
from collections.abc import Sequence

from ...crypto.errors import CorruptError, UsageError
from ..store.files import read_limited, write_atomic
from .addresses import check_peer
from .paths import Home

PEERS_LIMIT = 256
_FILE_LIMIT = PEERS_LIMIT * 512


def load_peers(home: Home) -> tuple[str, ...]:
    """Return the added addresses, in order; none if the file is missing. Raises CorruptError naming it."""
    try:
        data = read_limited(home.peers, _FILE_LIMIT)
    except FileNotFoundError:
        return ()
    try:
        fields = json.loads((data or b"").decode())
        peers = fields["peers"] if fields.keys() == {"peers"} else None
        if not isinstance(peers, list) or len(peers) > PEERS_LIMIT:
            raise ValueError("not a list of addresses")
        for address in peers:
            problem = check_peer(address)
            if problem:
                raise ValueError(problem)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        advice = "Remove it and add the addresses again (`collegium peer add`)."
        raise CorruptError(f"{home.peers} is damaged ({error})", advice) from error
    return tuple(peers)


def save_peers(home: Home, addresses: Sequence[str]) -> None:
    """Replace the added addresses, each once; the file holds the old or the new list after a crash.

    Raises UsageError for an invalid address or too many of them, DiskFullError.
    """
    unique = list(dict.fromkeys(addresses))
    if len(unique) > PEERS_LIMIT:
        raise UsageError(f"{len(unique)} addresses are too many", f"At most {PEERS_LIMIT} are kept.")
    for address in unique:
        problem = check_peer(address)
        if problem:
            raise UsageError(problem, "Write it as /ip4/192.0.2.7/tcp/4001/p2p/<peer id>.")
    write_atomic(home.peers, (json.dumps({"peers": unique}, indent=2) + "\n").encode())


def edit_peers(home: Home, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> tuple[str, ...]:
    """Add and remove addresses; return the new list. Raises UsageError for removing one that is not in it."""
    peers = load_peers(home)
    for address in remove:
        if address not in peers:
            raise UsageError(f"{address} is not among the added addresses", "`collegium peer` lists them.")
    save_peers(home, [*(peer for peer in peers if peer not in remove), *add])
    return load_peers(home)
