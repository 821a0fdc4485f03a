"""Bulk bytes by digest: 1 MiB ranges on one stream, resumable from any offset.

    request  = frame(OK, digest: 32 bytes | offset: u64 | length: u32)
    response = frame(OK, total size: u64), then min(length, total - offset) raw bytes
             | frame(ERROR, reason)

The puller checks the whole against its digest. These functions transfer bytes and guarantee their order, no more.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import structlog
import trio
from libp2p.abc import INetStream

from ...crypto.errors import LocalProtocolError, RemoteProtocolError, UnreachableError
from ..scarce import is_scarce
from .identity import peer_id, public_key
from .limits import PeerLimits
from .streams import (
    ERROR,
    FRAME_TIMEOUT,
    OK,
    READ_SIZE,
    CutError,
    SilentError,
    Streams,
    error_frame,
    frame,
    read_frame,
    read_some,
    reason_of,
)

log = structlog.get_logger(__name__)

PROTOCOL = "/collegium/blob/1"
RANGE = 1 << 20  # bytes
STREAMS_PER_PEER = 4
IDLE = 60.0  # seconds a puller may pause between ranges

_REQUEST = struct.Struct(">32sQI")
_SIZE = struct.Struct(">Q")

BlobPath = Callable[[bytes], tuple[Path, int] | None]


class BlobClient:
    """Pulls blobs, `max_pulls` at a time over all peers."""

    def __init__(self, streams: Streams, is_neighbour: Callable[[bytes], bool], max_pulls: int, min_rate: int) -> None:
        self._streams = streams
        self._is_neighbour = is_neighbour
        self._slots = trio.Semaphore(max_pulls)
        self._min_rate = min_rate

    async def fetch(self, peer: bytes, digest: bytes, size: int, write: Callable[[bytes], None], offset: int) -> None:
        """See Network.fetch."""
        if len(digest) != 32 or not 0 <= offset <= size:
            raise LocalProtocolError(f"no such range: digest of {len(digest)} bytes, offset {offset} of {size}")
        if offset == size:
            return
        async with self._slots:
            if not self._is_neighbour(peer):
                raise UnreachableError(f"{peer.hex()[:16]} is not connected")
            stream: INetStream | None = None
            done = False
            try:
                stream = await self._streams.open(peer_id(peer), PROTOCOL)
                while offset < size:
                    length = min(RANGE, size - offset)
                    await self._range(stream, digest, size, write, offset, length)
                    offset += length
                done = True
            except (CutError, SilentError) as error:
                what = f"the pull of {digest.hex()[:16]} from {peer.hex()[:16]} was cut: {error}"
                raise UnreachableError(what, "it resumes where it stopped, from any peer that has it") from error
            except RemoteProtocolError as error:
                raise RemoteProtocolError(error.reason, error.detail, peer) from None
            finally:
                if stream is not None:
                    (self._streams.finish if done else self._streams.discard)(stream)

    async def _range(
        self, stream: INetStream, digest: bytes, size: int, write: Callable[[bytes], None], offset: int, length: int
    ) -> None:
        await self._streams.write(stream, frame(OK, _REQUEST.pack(digest, offset, length)))
        with trio.move_on_after(length / self._min_rate + 10.0):
            status, body = await read_frame(stream, 4096, "blob-header", FRAME_TIMEOUT)
            if status == ERROR:
                raise RemoteProtocolError(reason_of(body), digest.hex()[:16])
            if len(body) != _SIZE.size:
                raise RemoteProtocolError("blob-header", digest.hex()[:16])
            (total,) = _SIZE.unpack(body)
            if total != size:
                raise RemoteProtocolError("blob-size", f"it says {total} bytes, the update says {size}")
            while length:
                piece = await read_some(stream, min(length, READ_SIZE))
                length -= len(piece)
                write(piece)
            return
        raise SilentError("slower than the least rate")


class BlobServer:
    """Serves files; reads happen in a thread, so that a slow disk delays no vote."""

    def __init__(self, streams: Streams, blob_path: BlobPath, min_rate: int) -> None:
        self._streams = streams
        self._blob_path = blob_path
        self._min_rate = min_rate
        self.limits = PeerLimits(STREAMS_PER_PEER)

    async def serve(self, stream: INetStream) -> None:
        """Serve ranges on one inbound stream until the peer ends it, pauses for 60 s, or breaks a rule."""
        peer = public_key(stream.muxed_conn.peer_id)
        if peer is None or not self.limits.enter(peer):
            await self._streams.write(stream, error_frame("busy"))
            self._streams.finish(stream)
            return
        try:
            while True:
                with trio.move_on_after(IDLE):
                    _, body = await read_frame(stream, _REQUEST.size, "oversized-request", FRAME_TIMEOUT)
                    await self._range(stream, body)
                    continue
                return
        except (CutError, SilentError, RemoteProtocolError) as error:
            log.debug("blob stream ended", peer=peer.hex()[:16], error=str(error))
        finally:
            self.limits.leave(peer)
            self._streams.discard(stream)

    async def _range(self, stream: INetStream, body: bytes) -> None:
        if len(body) != _REQUEST.size:
            raise RemoteProtocolError("blob-request")
        digest, offset, length = _REQUEST.unpack(body)
        blob = self._blob_path(digest)
        if blob is None:
            await self._streams.write(stream, error_frame("blob-unknown"))
            return
        path, total = blob
        if offset > total or length > RANGE:
            await self._streams.write(stream, error_frame("blob-range"))
            return
        length = min(length, total - offset)
        try:
            data = await trio.to_thread.run_sync(_read, path, offset, length)
        except OSError as error:
            if is_scarce(error):
                await self._streams.write(stream, error_frame("busy"))
                return
            log.error("blob cannot be read", digest=digest.hex()[:16], path=str(path), error=repr(error))
            data = b""
        if len(data) != length:
            await self._streams.write(stream, error_frame("blob-unknown"))
            return
        limit = length / self._min_rate + 10.0
        await self._streams.write(stream, frame(OK, _SIZE.pack(total)) + data, limit)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
