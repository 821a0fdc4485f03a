"""Everything that touches libp2p: gated connections, gossip, requests, bulk pulls, and keeping neighbours.

Nothing outside this package imports libp2p, and nothing that leaves it names a peer by anything but its 32-byte
Ed25519 public key.
"""

from .counters import Counters
from .host import Callbacks, Network, NetworkConfig, open_network

__all__ = ["Callbacks", "Counters", "Network", "NetworkConfig", "open_network"]
