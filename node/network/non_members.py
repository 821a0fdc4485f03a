"""Connections of non-members with one request each: an invited candidate, or a former member.

A non-member's connection never reaches the swarm: gossip, pulls and requests do not see it. It can negotiate only the
handlers that are given to this one non-member. There are few such connections, and each is closed after a short while.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from .rpc import Handler, RpcServer
from .streams import Streams

log = structlog.get_logger(__name__)

NonMemberHandlers = Callable[[bytes], Mapping[str, Handler]]  # by protocol; empty: not let in

MAX_NON_MEMBERS = 16  # connections, those included that are being closed
MAX_OF_ONE = 4  # of them with the same key
MAX_STREAMS = 8  # of one non-member, open or being negotiated
STAY = 120.0  # seconds
NEGOTIATION = 10  # seconds


class _Stream:
    """A muxed stream with what our readers and writers need of libp2p's NetStream, which wants a swarm's connection."""

    def __init__(self, stream: Any, connection: IMuxedConn) -> None:
        self._stream = stream
        self.muxed_conn = connection

    async def read(self, n: int | None = None) -> bytes:
        return await self._stream.read(n)  # type: ignore[no-any-return] # YamuxStream

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()

    async def reset(self) -> None:
        await self._stream.reset()


class NonMembers:
    """The non-members that are connected to one host."""

    def __init__(self, streams: Streams, nursery: trio.Nursery, hello: str, handlers: NonMemberHandlers, max_rpc: int):
        self._streams = streams
        self._nursery = nursery
        self._hello = hello
        self._handlers = handlers
        self._max_rpc = max_rpc
        self._here: dict[IMuxedConn, bytes] = {}

    def admits(self, peer: bytes) -> bool:
        """Whether a non-member may come in now; if its handlers cannot be had, it may not."""
        try:
            room = len(self._here) < MAX_NON_MEMBERS and list(self._here.values()).count(peer) < MAX_OF_ONE
            return room and bool(self._handlers(peer))
        except Exception:
            log.exception("the handlers of a non-member cannot be had", peer=peer.hex()[:16])
            return False

    def receive(self, peer: bytes, connection: IMuxedConn) -> None:
        """Serve a non-member in the background until it disconnects, or its time is over.

        The newest connection wins: an older one may have ended without this node knowing.
        """
        for older, key in self._here.items():
            if key == peer:
                self._nursery.start_soon(_close, older)
        self._here[connection] = peer
        self._nursery.start_soon(self._serve, peer, connection)

    async def close(self) -> None:
        """Send all non-members away."""
        for connection in list(self._here):
            await _close(connection)

    async def _serve(self, peer: bytes, connection: IMuxedConn) -> None:
        log.info("non-member", peer=peer.hex()[:16])
        server = RpcServer(self._streams, self._handlers(peer), self._max_rpc)
        try:
            with trio.move_on_after(STAY):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.start)
                    await connection.event_started.wait()
                    await self._accept(connection, server, nursery)
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - whatever a non-member provokes may cost it its stay, and no more
            log.info("non-member sent away", peer=peer.hex()[:16], reason=repr(error))
        finally:
            with trio.CancelScope(shield=True):
                await _close(connection)
            del self._here[connection]
        log.info("non-member gone", peer=peer.hex()[:16])

    async def _accept(self, connection: IMuxedConn, server: RpcServer, nursery: trio.Nursery) -> None:
        while not connection.is_closed:
            try:
                stream = await connection.accept_stream()
            except Exception as error:  # noqa: BLE001 - the connection ended, in whatever words
                log.debug("non-member's connection ended", error=repr(error))
                return
            if len(connection.streams) > MAX_STREAMS:  # type: ignore[attr-defined] # Yamux
                log.warning("non-member opens too many streams")
                return
            nursery.start_soon(self._serve_one, _Stream(stream, connection), server)

    async def _serve_one(self, stream: Any, server: RpcServer) -> None:
        async def hello(opened: INetStream) -> None:
            self._streams.finish(opened)

        offered: dict[Any, Any] = {TProtocol(self._hello): hello}
        for protocol in server.protocols:
            offered[TProtocol(protocol)] = lambda opened, name=protocol: server.serve(name, opened)
        try:
            _, handler = await Multiselect(offered).negotiate(MultiselectCommunicator(stream), NEGOTIATION)
            if handler is not None:
                await handler(stream)
        except MultiselectError as error:
            log.debug("non-member asked for nothing that it may have", error=repr(error))
            self._streams.discard(stream)
        except Exception as error:  # noqa: BLE001 - one stream of a non-member
            log.info("non-member's stream failed", error=repr(error))
            self._streams.discard(stream)


async def _close(connection: IMuxedConn) -> None:
    try:
        with trio.move_on_after(2):
            await connection.close()
            await connection.secured_conn.close()  # type: ignore[attr-defined] # Yamux
    except Exception as error:  # noqa: BLE001 - it is being thrown away
        log.debug("close failed", error=repr(error))
