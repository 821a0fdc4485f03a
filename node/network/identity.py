"""Names: a peer is its 32-byte Ed25519 public key everywhere outside this package."""

from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID
from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from ...crypto.errors import UsageError

KEY_SIZE = 32
_CACHE_SIZE = 4096
_keys: dict[bytes, bytes | None] = {}  # PeerID to key: decoding costs 30 us, and every frame's author is asked for


def peer_id(public_key: bytes) -> ID:
    """The libp2p PeerID of a 32-byte Ed25519 public key. Raises ValueError if it is no key."""
    return ID.from_pubkey(Ed25519PublicKey.from_bytes(public_key))


def public_key(peer: ID) -> bytes | None:
    """The 32-byte Ed25519 public key inside a PeerID, or None if it holds none (RSA and others do not)."""
    raw = peer.to_bytes()
    if raw in _keys:
        return _keys[raw]
    try:
        key = peer.extract_public_key()
        public = key.to_bytes() if isinstance(key, Ed25519PublicKey) else None
    except Exception:  # noqa: BLE001 - a PeerID is bytes from outside, and libp2p raises what its parsers raise
        public = None
    if len(_keys) >= _CACHE_SIZE:
        _keys.clear()
    _keys[raw] = public
    return public


def parse_address(address: str) -> tuple[Multiaddr, ID, bytes]:
    """Split ".../p2p/<id>" into where to dial and whom to expect there: (multiaddr without id, PeerID, public key).

    Raises UsageError, naming the address, when it is no TCP multiaddr that ends in an Ed25519 peer id.
    """
    try:
        whole = Multiaddr(address)
        name = whole.value_for_protocol("p2p")
        peer = ID.from_base58(str(name))
        where = whole.decapsulate(Multiaddr(f"/p2p/{name}"))
        where.value_for_protocol("tcp")
    except Exception as error:
        raise UsageError(
            f"{address!r} is not an address that can be dialled", "write it as /ip4/192.0.2.7/tcp/4001/p2p/<peer id>"
        ) from error
    key = public_key(peer)
    if key is None:
        raise UsageError(f"{address!r} does not end in the id of an Ed25519 key", "copy it from the peer's `status`")
    return where, peer, key
