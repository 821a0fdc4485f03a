"""Reading and writing libp2p streams with caps and time limits, and the frame that both protocols use.

    frame = length: u32 big endian | status: u8 | body: length bytes

The cap is checked before a byte of the body is awaited, so a peer cannot make us allocate more than it may send.
"""

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from ...crypto.errors import RemoteProtocolError

log = structlog.get_logger(__name__)

HEADER = struct.Struct(">IB")
OK, ERROR = 0, 1
MAX_REASON = 128
READ_SIZE = 256 << 10
OPEN_TIMEOUT = 15.0
FRAME_TIMEOUT = 10.0  # seconds for the rest of a frame, once its first byte has come


class CutError(Exception):
    """The stream ended, was reset, or its connection died."""


class SilentError(Exception):
    """A time limit passed."""


async def read_some(stream: INetStream, limit: int) -> bytes:
    """At least one and at most `limit` bytes. Raises CutError at the end of the stream."""
    try:
        data = await stream.read(limit)
    except Exception as error:
        raise CutError(repr(error)) from error
    if not data:
        raise CutError("end of stream")
    return data


async def read_exactly(stream: INetStream, size: int) -> bytes:
    """Exactly `size` bytes; the caller has checked that `size` is sane. Raises CutError."""
    first = await read_some(stream, min(size, READ_SIZE)) if size else b""
    if len(first) == size:
        return first
    buffer = bytearray(first)
    while len(buffer) < size:
        buffer += await read_some(stream, min(size - len(buffer), READ_SIZE))
    return bytes(buffer)


async def read_frame(stream: INetStream, cap: int, oversized: str, body_timeout: float) -> tuple[int, bytes]:
    """One frame as (status, body). The wait for its first byte is the caller's to limit.

    Raises RemoteProtocolError(oversized) if it announces over `cap` bytes, SilentError if it then stops, CutError.
    """
    head = await read_some(stream, HEADER.size)
    with trio.move_on_after(body_timeout):
        if len(head) < HEADER.size:
            head += await read_exactly(stream, HEADER.size - len(head))
        length, status = HEADER.unpack(head)
        if length > cap:
            raise RemoteProtocolError(oversized, f"{length} bytes, at most {cap}")
        return status, await read_exactly(stream, length)
    raise SilentError("half a frame")


def frame(status: int, body: bytes) -> bytes:
    """Encode one frame."""
    return HEADER.pack(len(body), status) + body


def error_frame(reason: str) -> bytes:
    """Encode a refusal; `reason` is a kebab-case name."""
    return frame(ERROR, reason.encode()[:MAX_REASON])


def reason_of(body: bytes) -> str:
    """The name in an error frame; whatever a peer sends becomes a short printable name."""
    text = body[:MAX_REASON].decode("ascii", "replace")
    clean = "".join(c if c.isalnum() or c == "-" else "-" for c in text if c.isascii())
    return clean or "unnamed-error"


class Streams:
    """Opens, writes and discards streams so that no stuck connection holds up the caller.

    libp2p shields its clean-up from cancellation, and a frame is always written whole, so either can take as long
    as TCP takes to give up (15 s). They run as tasks of the host; the caller leaves when its time is over.
    """

    def __init__(self, host: IHost, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery

    async def open(self, peer: ID, protocol: str, timeout: float = OPEN_TIMEOUT) -> INetStream:  # noqa: ASYNC109
        """A new negotiated stream. Raises CutError or SilentError."""
        stream: INetStream = await self._detached(
            lambda: self._host.new_stream(peer, [TProtocol(protocol)]), timeout, self.discard
        )
        return stream

    async def write(self, stream: INetStream, data: bytes, timeout: float = FRAME_TIMEOUT) -> None:  # noqa: ASYNC109
        """Write all of `data`. Raises CutError or SilentError; then the stream is useless: discard it."""
        if len(data) <= 4096 and not stream.muxed_conn._write_lock.locked():  # type: ignore[attr-defined] # Yamux
            # Small and nothing is queued: no task needed. A full socket is still bounded, by the frame time limit.
            with trio.move_on_after(timeout) as scope:
                await _or_cut(stream.write(data))
            if scope.cancelled_caught:
                raise SilentError("write")
            return
        await self._detached(lambda: stream.write(data), timeout, None)

    def discard(self, stream: INetStream) -> None:
        """Reset a stream in the background."""
        self._nursery.start_soon(self._reset, stream)

    def finish(self, stream: INetStream) -> None:
        """Close a stream that has served its purpose, in the background."""
        self._nursery.start_soon(self._close, stream)

    async def _reset(self, stream: INetStream) -> None:
        try:
            await stream.reset()
        except Exception as error:  # noqa: BLE001 - it is being thrown away
            log.debug("reset failed", error=repr(error))

    async def _close(self, stream: INetStream) -> None:
        try:
            await stream.close()
        except Exception as error:  # noqa: BLE001 - it is being thrown away
            log.debug("close failed", error=repr(error))

    async def _detached(
        self, action: Callable[[], Awaitable[Any]], limit: float, unwanted: Callable[[Any], None] | None
    ) -> Any:
        done = trio.Event()
        outcome: list[Any] = []
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    outcome.extend((True, await action()))
                except Exception as error:  # noqa: BLE001 - handed to the caller below
                    outcome.extend((False, error))
            if done.is_set() and unwanted is not None and outcome and outcome[0]:
                unwanted(outcome[1])  # it came after all, and nothing waits for it
            done.set()

        self._nursery.start_soon(run)
        try:
            with trio.move_on_after(limit):
                await done.wait()
        finally:
            if not done.is_set():
                done.set()
                scope.cancel()
        if not outcome:
            raise SilentError("no progress")
        good, value = outcome
        if not good:
            raise CutError(repr(value)) from value
        return value


async def _or_cut(action: Awaitable[None]) -> None:
    try:
        await action
    except Exception as error:
        raise CutError(repr(error)) from error
