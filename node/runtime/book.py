"""The address book: peers to dial and to let in, from the members' seats and offers and the operator's peers."""

from contextlib import suppress

from ...crypto.errors import UsageError
from ..core.state import NodeState
from ..home import joining
from ..home.addresses import published
from ..home.config import Config
from ..home.paths import Home
from ..home.peers import load_peers
from ..network import Network
from ..network.identity import parse_address, peer_id
from ..patience import unless_scarce


class AddressBook:
    """The addresses of all allowed peers, by key."""

    def __init__(self, home: Home, config: Config, core: NodeState) -> None:
        self.home, self.config, self.core = home, config, core
        self._book: dict[bytes, tuple[str, ...]] = {}
        self._named: tuple[str, ...] = ()
        self._introducers: frozenset[bytes] = frozenset()

    def refresh(self, network: Network) -> None:
        """Rebuild the address book from the operator's peers and the members' seats and offers."""
        core, me = self.core, self.core.me
        book: dict[bytes, list[str]] = {key: list(seat.addresses) for key, seat in core.ledger.roll.seats.items()}
        for author, offer in core.ledger.offers.items():
            book.setdefault(author, [])[:0] = offer.addresses
        named = self._read_named()
        for address in named:
            key = _key_of(address)
            if key is not None:
                book.setdefault(key, []).insert(0, address)
        # A node that is behind may know none of today's members: until then the operator's peers are let in.
        self._introducers = frozenset(key for address in named if (key := _key_of(address)) is not None)
        gone = me in core.ledger.roll.seats and me not in core.ledger.members
        addresses_of = {
            key: tuple(dict.fromkeys(_with_peer(address, key) for address in addresses))
            for key, addresses in book.items()
            if key != me and addresses and self.allows(key) and not gone
        }
        if addresses_of != self._book:
            self._book = addresses_of
            network.set_address_book(addresses_of)

    def own(self, network: Network) -> tuple[str, ...]:
        """Return the addresses in this node's offer."""
        others = (a for key, seat in self.core.ledger.roll.seats.items() if key != self.core.me for a in seat.addresses)
        return published(network.addresses(), others)[:8]

    def changed(self, network: Network) -> tuple[str, ...]:
        """Return this node's addresses if this machine's have changed, else ().

        They change when a laptop comes to another network, or with a new lease.
        A machine without a network has none but its own; it offers nothing new until it is on one again.
        """
        new, offered = self.own(network), self.core.options.addresses
        return () if self.config.node.advertise or new == offered or set(new) < set(offered) else new

    def _read_named(self) -> tuple[str, ...]:
        """Return the operator's addresses; without a free file descriptor, as last read."""
        with unless_scarce():
            invitation = joining.load(self.home)
            self._named = (
                *self.config.peers.addresses,
                *load_peers(self.home),
                *(invitation.addresses if invitation else ()),
            )
        return self._named

    def allows(self, key: bytes) -> bool:
        """Whether a connection with this key is allowed."""
        return key in self.core.ledger.members or (not self.core.signing and key in self._introducers)


def _key_of(address: str) -> bytes | None:
    with suppress(UsageError):
        return parse_address(address)[2]
    return None


def _with_peer(address: str, key: bytes) -> str:
    return address if "/p2p/" in address else f"{address}/p2p/{peer_id(key)}"
