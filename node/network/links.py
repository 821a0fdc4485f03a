"""Connected and allowed peers, and the node's notices about them."""

from collections.abc import Callable

import structlog
import trio
from libp2p.abc import IMuxedConn, INetConn, INetStream, INetwork, INotifee
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from .identity import peer_id, public_key
from .non_members import NonMembers

log = structlog.get_logger(__name__)

CONNECTIONS_PER_PEER = 2  # two peers that dial each other at once keep both


class Links(INotifee):
    """The gate, and the table of neighbours.

    A peer is a neighbour from the moment that it was let in (inbound) or has shown that it let us in (outbound; see
    `confirm`), until its last connection is gone.
    """

    def __init__(
        self,
        swarm: Swarm,
        nursery: trio.Nursery,
        me: bytes,
        allowed: Callable[[bytes], bool],
        max_inbound: int,
        non_members: NonMembers,
    ) -> None:
        self._swarm = swarm
        self._nursery = nursery
        self._me = me
        self._allowed = allowed
        self._max_inbound = max_inbound
        self._non_members = non_members
        self._neighbours: set[bytes] = set()
        self._listeners: list[Callable[[bytes, bool], None]] = []
        self._closing = False
        self._add = swarm.add_conn
        swarm.add_conn = self._gate  # type: ignore[method-assign,assignment] # libp2p has no gate on peer ids
        swarm.register_notifee(self)

    @property
    def neighbours(self) -> frozenset[bytes]:
        """The connected members."""
        return frozenset(self._neighbours)

    def __contains__(self, peer: object) -> bool:
        return peer in self._neighbours

    def listen_to(self, listener: Callable[[bytes, bool], None]) -> None:
        """Call `listener(peer, connected)` on every change; what it raises is logged."""
        self._listeners.append(listener)

    def may(self, peer: bytes) -> bool:
        """Whether the node allows a connection with `peer`; a gate that fails is shut."""
        try:
            return peer != self._me and bool(self._allowed(peer))
        except Exception:
            log.exception("gate failed", peer=peer.hex()[:16])
            return False

    async def _gate(self, muxed: IMuxedConn, direction: str = "unknown") -> INetConn:
        peer = public_key(muxed.peer_id)
        refusal = None
        if self._closing:
            refusal = "closing"
        elif peer is None or not self.may(peer):
            if peer is not None and direction == "inbound" and peer != self._me and self._non_members.admits(peer):
                self._non_members.receive(peer, muxed)
                return muxed  # type: ignore[return-value] # unused: an inbound connection is only waited for
            refusal = "not-a-member"
        elif direction == "inbound" and peer not in self._neighbours and len(self._neighbours) >= self._max_inbound:
            refusal = "full"
        if refusal is not None:
            log.info("connection refused", peer=str(muxed.peer_id), direction=direction, reason=refusal)
            await muxed.secured_conn.close()  # type: ignore[attr-defined] # Yamux; the muxer has not started
            raise SwarmException(f"connection refused: {refusal}")
        for old in self._live_connections(muxed.peer_id)[: 1 - CONNECTIONS_PER_PEER or None]:
            self._nursery.start_soon(self._close, old)  # the newest win: the old may be dead without our knowing
        return await self._add(muxed, direction=direction)

    def _live_connections(self, peer: ID) -> list[INetConn]:
        return [connection for connection in self._swarm.get_connections(peer) if not connection.is_closed]

    def confirm(self, peer: bytes) -> bool:
        """An outbound connection has proved itself; whether it is still up."""
        if not self._live_connections(peer_id(peer)):
            return False
        if peer not in self._neighbours:
            self._neighbours.add(peer)
            self._tell(peer, True)
        return True

    def _tell(self, peer: bytes, connected: bool) -> None:
        log.info("neighbour", peer=peer.hex()[:16], connected=connected)
        for listener in self._listeners:
            try:
                listener(peer, connected)
            except Exception:
                log.exception("peer listener failed", peer=peer.hex()[:16])

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002 - libp2p's interface
        """libp2p has added a connection."""
        peer = public_key(conn.muxed_conn.peer_id)
        if peer is not None and conn.direction == Direction.INBOUND:  # type: ignore[attr-defined] # SwarmConn
            self.confirm(peer)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002 - libp2p's interface
        """libp2p has lost a connection."""
        peer = public_key(conn.muxed_conn.peer_id)
        if peer in self._neighbours and peer is not None and not self._live_connections(conn.muxed_conn.peer_id):
            self._neighbours.discard(peer)
            self._tell(peer, False)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Not of interest."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Not of interest."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Not of interest."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Not of interest."""

    async def drop(self, peer: bytes) -> None:
        """Close all connections with `peer`; a stuck one is given up by TCP later."""
        done = trio.Event()

        async def close() -> None:
            for connection in self._swarm.get_connections(peer_id(peer)):
                await self._close(connection)
            done.set()

        self._nursery.start_soon(close)
        with trio.move_on_after(2):
            await done.wait()

    async def _close(self, connection: INetConn) -> None:
        try:
            await connection.close()
        except Exception as error:  # noqa: BLE001 - it is being thrown away
            log.debug("close failed", error=repr(error))

    async def close(self) -> None:
        """Admit no more connections, and close all at once: libp2p alone takes 0.1 s for each."""
        self._closing = True
        await self._non_members.close()
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(self._close, connection)

    async def enforce(self) -> None:
        """Drop every connected peer that is not allowed any more."""
        keys = {public_key(peer) for peer in list(self._swarm.connections)}
        for peer in keys:
            if peer is not None and not self.may(peer):
                await self.drop(peer)
