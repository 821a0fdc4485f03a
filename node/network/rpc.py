"""Requests and responses over streams that are kept, one for each peer and protocol."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio
from libp2p.abc import INetStream

from ...crypto.errors import CollegiumError, LocalProtocolError, RemoteProtocolError, UnreachableError
from .identity import peer_id, public_key
from .limits import PeerLimits
from .streams import ERROR, OK, CutError, SilentError, Streams, error_frame, frame, read_frame, reason_of

log = structlog.get_logger(__name__)

Handler = Callable[[bytes, bytes], Awaitable[bytes]]

MAX_REQUEST = 1 << 20  # bytes
MIN_STREAMS_PER_PEER = 8
HALF_FRAME = 10.0  # seconds for the rest of a request whose first byte has come
BUSY_PAUSE = 0.05  # seconds a refused stream is made to wait, so that refusals are cheap


@dataclass(slots=True)
class _Kept:
    lock: trio.Lock = field(default_factory=trio.Lock)
    stream: INetStream | None = None


class RpcClient:
    """Sends requests, one at a time on each kept stream."""

    def __init__(self, streams: Streams, is_neighbour: Callable[[bytes], bool], max_rpc: int) -> None:
        self._streams = streams
        self._is_neighbour = is_neighbour
        self._max_rpc = max_rpc
        self._kept: dict[tuple[bytes, str], _Kept] = {}

    async def request(self, peer: bytes, protocol: str, payload: bytes, limit: int | None, seconds: float) -> bytes:
        """See Network.request."""
        if len(payload) > MAX_REQUEST:
            raise LocalProtocolError(f"a request of {len(payload)} bytes; at most {MAX_REQUEST}")
        kept = self._kept.setdefault((peer, protocol), _Kept())
        cap = self._max_rpc if limit is None else min(limit, self._max_rpc)
        what = f"{protocol} to {peer.hex()[:16]}"
        deadline = trio.current_time() + seconds
        with trio.move_on_at(deadline):
            async with kept.lock:
                for fresh in (False, True):
                    if kept.stream is None:
                        fresh = True  # noqa: PLW2901 - nothing was kept, so this is the one try
                    try:
                        return await self._exchange(kept, peer, protocol, payload, cap, deadline)
                    except CutError as error:
                        if fresh:
                            raise UnreachableError(f"{what} was cut: {error}", "it is tried again later") from error
                    except SilentError as error:
                        raise UnreachableError(f"{what}: no answer in {seconds:g} s ({error})") from error
        raise UnreachableError(f"{what}: no answer in {seconds:g} s", "check that the peer is up and reachable")

    async def _exchange(
        self, kept: _Kept, peer: bytes, protocol: str, payload: bytes, cap: int, deadline: float
    ) -> bytes:
        if not self._is_neighbour(peer):
            self._drop(kept)
            raise UnreachableError(f"{peer.hex()[:16]} is not connected")
        good = False
        try:
            if kept.stream is None:
                kept.stream = await self._streams.open(peer_id(peer), protocol, deadline - trio.current_time())
            stream = kept.stream
            await self._streams.write(stream, frame(OK, payload), deadline - trio.current_time())
            status, body = await read_frame(stream, cap, "oversized-response", math.inf)
            good = status == OK or reason_of(body) != "busy"
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.reason, error.detail, peer) from None
        finally:
            if not good:
                self._drop(kept)  # a late answer must not meet the next request
        if status == ERROR:
            raise RemoteProtocolError(reason_of(body), f"answer to {protocol}", peer)
        return body

    def _drop(self, kept: _Kept) -> None:
        if kept.stream is not None:
            self._streams.discard(kept.stream)
            kept.stream = None

    def forget(self, peer: bytes) -> None:
        """The peer is gone: its streams are dead."""
        for key in [key for key in self._kept if key[0] == peer]:
            kept = self._kept[key]
            if not kept.lock.locked():
                del self._kept[key]


class RpcServer:
    """Answers requests; a peer holds a bounded number of streams and has a bounded rate."""

    def __init__(self, streams: Streams, handlers: Mapping[str, Handler], max_rpc: int) -> None:
        self._streams = streams
        self._handlers = handlers
        self._max_rpc = max_rpc
        self.limits = PeerLimits(max(MIN_STREAMS_PER_PEER, 2 * len(handlers)))

    @property
    def protocols(self) -> tuple[str, ...]:
        """The answer of a handler."""
        return tuple(self._handlers)

    async def serve(self, protocol: str, stream: INetStream) -> None:
        """Serve one inbound stream until the peer ends it or breaks a rule."""
        peer = public_key(stream.muxed_conn.peer_id)
        if peer is None or not self.limits.enter(peer):
            await self._write(stream, error_frame("busy"))
            self._streams.finish(stream)
            return
        try:
            while True:
                await self._serve_one(protocol, peer, stream)
        except (CutError, SilentError, RemoteProtocolError) as error:
            log.debug("rpc stream ended", peer=peer.hex()[:16], protocol=protocol, error=str(error))
        finally:
            self.limits.leave(peer)
            self._streams.discard(stream)

    async def _serve_one(self, protocol: str, peer: bytes, stream: INetStream) -> None:
        # An idle stream costs a task and a buffer of 256 KiB at most, and `limits` bounds their number.
        _, payload = await read_frame(stream, MAX_REQUEST, "oversized-request", HALF_FRAME)
        if not self.limits.take(peer):
            await trio.sleep(BUSY_PAUSE)
            await self._write(stream, error_frame("busy"))
            return
        try:
            answer = frame(OK, await self._handlers[protocol](peer, payload))
            if len(answer) > self._max_rpc + 16:
                raise LocalProtocolError(f"an answer of {len(answer)} bytes; at most {self._max_rpc}")
        except RemoteProtocolError as error:
            answer = error_frame(error.reason)
        except Exception as error:
            expected = isinstance(error, CollegiumError)
            log.error(
                "rpc handler failed", peer=peer.hex()[:16], protocol=protocol, error=repr(error), exc_info=not expected
            )
            answer = error_frame("internal-error")
        await self._write(stream, answer)

    async def _write(self, stream: INetStream, data: bytes) -> None:
        await self._streams.write(stream, data, 10.0 + len(data) / 65536)
