"""Requests to and of single neighbours: parts of the history, and messages for one of them."""

from collections.abc import Callable

import structlog
import trio

from ...crypto.errors import RemoteProtocolError, UnreachableError
from ...protocol import schema
from ..core import events as ev
from ..core.catchup import in_flight_messages
from ..core.messages import SYNC_LIMIT, SyncRequest
from ..core.state import NodeState
from ..core.sync import answer
from ..network import Network
from ..patience import in_thread
from ..store.database import Store
from .admission import SYNC_PROTOCOL

log = structlog.get_logger(__name__)

TELL_PROTOCOL = "/collegium/tell/1"


class Dialogue:
    """What a node asks its neighbours one by one, and answers them.

    `turn` is held while the core changes and its changes go to disk: no answer is given in between (G8).
    """

    network: Network  # once it is open

    def __init__(self, core: NodeState, store: Store, turn: trio.Lock, submit: Callable[[ev.Event], None]) -> None:
        self._core, self._store, self._turn, self._submit = core, store, turn, submit
        self._asking: set[bytes] = set()

    async def serve_sync(self, _peer: bytes, data: bytes) -> bytes:
        """Answer a neighbour's request for a part of the history."""
        request = schema.load(SyncRequest, data, SyncRequest.LIMIT)
        members = self._core.ledger.members
        async with self._turn:
            pending = in_flight_messages(self._core)
        return await in_thread(answer, request, self._core.federation, self._store, members, pending)

    async def sync(self, effect: ev.Sync) -> None:
        """Ask a neighbour for a part of the history, unless a request to it is under way."""
        if effect.peer in self._asking:
            return
        self._asking.add(effect.peer)
        try:
            data = await self.network.request(effect.peer, SYNC_PROTOCOL, effect.request, limit=SYNC_LIMIT, timeout=30)
            self._submit(ev.SyncReply(effect.peer, data))
        except (UnreachableError, RemoteProtocolError) as error:
            log.debug("sync failed", peer=effect.peer, error=str(error))
        finally:
            self._asking.discard(effect.peer)

    async def tell(self, effect: ev.Publish) -> None:
        """Send a message to the one neighbour that it is for; if that fails, gossip it."""
        assert effect.to is not None
        try:
            await self.network.request(effect.to, TELL_PROTOCOL, effect.data, limit=16)
        except (UnreachableError, RemoteProtocolError):
            await self.network.publish(effect.data)
