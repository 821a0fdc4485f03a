"""Repairs of py-libp2p 0.8.1, without which any peer that can connect can kill or starve the process (G9).

Every repair names the file and line of libp2p that it repairs, and has a test that fails without it
(`tests/node/network/test_hostile.py`). They replace private parts of exactly one release, so `install` refuses
any other: a new release must be read, measured and tested before this table is changed.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import structlog
import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.network import swarm as swarm_module
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub import gossipsub as gossipsub_module
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from libp2p.tools.anyio_service.trio_manager import TrioManager
from libp2p.tools.anyio_service.utils import get_task_name
from libp2p.transport.tcp import tcp as tcp_module
from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from ...crypto.errors import OperatorError
from .arrivals import Arrivals, SheddingListener

log = structlog.get_logger(__name__)

LIBP2P_VERSION = "0.8.1"
MAX_STREAMS_PER_CONNECTION = 64  # we open one per protocol, and a few for pulls
FRAME_WRITE_TIMEOUT = 15.0  # seconds; the same as TCP_USER_TIMEOUT
MAX_RECEIVE_WINDOW = 4 << 20  # bytes a stream may buffer for a slow reader: 100 Mbit/s at 300 ms


@dataclass(frozen=True, slots=True)
class Workaround:
    """One repair: its name, the lines of libp2p that it repairs, what happens without it, and how to apply it."""

    name: str
    where: str
    without_it: str
    apply: Callable[[], None]


def _close_quietly_later(connection: Any) -> None:
    async def close() -> None:
        try:
            with trio.move_on_after(FRAME_WRITE_TIMEOUT):
                await connection.close()
        except Exception as error:  # noqa: BLE001 - it is being thrown away; a system task must never raise
            log.debug("close failed", error=repr(error))

    trio.lowlevel.spawn_system_task(close)


def _guard_multiselect() -> None:
    async def read(self: MultiselectCommunicator) -> str:
        try:
            return await original(self)
        except UnicodeDecodeError as error:
            raise MultiselectCommunicatorError("protocol name is not UTF-8") from error

    original = MultiselectCommunicator.read
    MultiselectCommunicator.read = read  # type: ignore[method-assign] # the repair


def _guard_stream_handlers() -> None:
    async def handle(self: BasicHost, stream: INetStream) -> None:
        peer = str(stream.muxed_conn.peer_id)
        # libp2p never bounds the streams that a peer opens, so one member could fill our memory with them.
        if len(getattr(stream.muxed_conn, "streams", ())) > MAX_STREAMS_PER_CONNECTION:
            log.warning("too many streams", peer=peer)
            await _reset(stream)
            return
        try:
            await original(self, stream)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may cost this stream and no more
            log.warning("stream handler failed", peer=peer, error=repr(error))
            await _reset(stream)

    original = BasicHost._swarm_stream_handler
    BasicHost._swarm_stream_handler = handle  # type: ignore[method-assign,assignment] # the repair


async def _reset(stream: INetStream) -> None:
    try:
        await stream.reset()
    except Exception as error:  # noqa: BLE001 - the stream is dead already
        log.debug("reset failed", error=repr(error))


def _guard_gossip_streams() -> None:
    async def read(self: Pubsub, stream: INetStream) -> None:
        try:
            await original(self, stream)
        except (StreamError, ParseError, IncompleteReadError):
            raise  # the end of the stream, which libp2p handles
        except Exception as error:  # noqa: BLE001 - DecodeError, and whatever else a control message provokes
            # The whole connection goes: subscriptions are announced once on a stream, so after a reset of one of
            # several the mesh would stay one-sided.
            log.warning("bad gossip", peer=str(stream.muxed_conn.peer_id), error=repr(error))
            _close_quietly_later(stream.muxed_conn)
            await _reset(stream)
            self._handle_dead_peer(stream.muxed_conn.peer_id)

    def dead(self: Pubsub, peer: ID) -> None:
        try:
            original_dead(self, peer)
        except Exception as error:  # noqa: BLE001 - else the loop that forgets dead peers ends for good
            log.error("forgetting a peer failed", peer=str(peer), error=repr(error))

    original, original_dead = Pubsub.continuously_read_stream, Pubsub._handle_dead_peer
    Pubsub.continuously_read_stream = read  # type: ignore[method-assign] # the repair
    Pubsub._handle_dead_peer = dead  # type: ignore[method-assign,assignment] # the repair


def _guard_tasks() -> None:
    def run_task(
        self: TrioManager,
        task: Callable[..., Awaitable[Any]],
        *args: Any,
        daemon: bool = False,
        name: str | None = None,
        _internal: bool = False,
    ) -> None:
        label = get_task_name(task, name)

        async def guarded(*inner: Any) -> None:
            while True:
                try:
                    await task(*inner)
                except Exception as error:  # noqa: BLE001 - one failed task may not stop the service it belongs to
                    log.error("libp2p task failed", task=label, error=repr(error))
                else:
                    return
                if not daemon:
                    return
                await trio.sleep(1.0)  # a loop (the gossip heartbeat): start it again, without spinning

        original(self, task if _internal else guarded, *args, daemon=daemon, name=label, _internal=_internal)

    original: Callable[..., None] = TrioManager.run_task
    TrioManager.run_task = run_task  # type: ignore[method-assign,assignment] # the repair


def _bound_inbound() -> None:
    async def handle(self: Swarm, stream: ReadWriteCloser, maddr: Multiaddr) -> None:
        arrivals: Arrivals = self.__dict__.setdefault("_collegium_arrivals", Arrivals())
        remote = stream.get_remote_address()
        host = remote[0] if remote else ""
        if not arrivals.addresses.may(host, trio.current_time()):
            log.info("connection turned away", host=host, reason="too many of its handshakes came to nothing")
            await stream.close()
            return
        key, scope = arrivals.pending.admit(host)
        raw = RawConnection(stream, False)
        muxed: IMuxedConn | None = None
        try:
            with scope:
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
        except Exception as error:  # noqa: BLE001 - a non-member's handshake may fail in any way
            arrivals.addresses.failed(host, trio.current_time())
            log.debug("inbound handshake failed", host=host, error=repr(error))
        finally:
            arrivals.pending.done(host, key)
            if muxed is None:
                with trio.move_on_after(1) as cleanup:
                    cleanup.shield = True
                    await raw.close()
        if muxed is not None:
            arrivals.addresses.succeeded(host)
            await muxed.event_closed.wait()  # type: ignore[attr-defined] # Yamux; trio closes the socket when this returns

    Swarm._handle_inbound_connection = handle  # type: ignore[method-assign,assignment] # the repair


def _mind_descriptors() -> None:
    async def listeners(host: str | None, port: int) -> list[SheddingListener]:
        return [SheddingListener(listener) for listener in await original(host, port)]

    original = tcp_module._open_reuseport_listeners
    tcp_module._open_reuseport_listeners = listeners  # type: ignore[assignment] # they are listeners all the same


class WindowOvershootError(trio.TooSlowError):
    """A peer sent more than its window. A TooSlowError, because on that one Yamux closes the connection."""


def _enforce_windows() -> None:
    # Yamux subtracts from `recv_window`, logs if it is negative, and goes on (yamux.py:1546, and the same at :1303
    # and :1409). The frame loop has one exception that closes the connection, TooSlowError (yamux.py:1625).
    def get(self: YamuxStream) -> int:
        return int(self.__dict__["recv_window"])

    def put(self: YamuxStream, value: int) -> None:
        if value < 0:
            log.warning("window overshoot", peer=str(self.conn.peer_id), by=-value)
            raise WindowOvershootError(f"window overshoot by {-value} bytes")
        self.__dict__["recv_window"] = value

    YamuxStream.recv_window = property(get, put)  # type: ignore[assignment] # the repair


def _lazy_window_updates() -> None:
    async def update(self: YamuxStream, *, bytes_read: int = 0) -> None:  # noqa: ARG001 - libp2p's signature
        total = 0
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            owed = self.target_recv_window - (self.recv_window + buffered)
            if owed > 0 and owed >= self.target_recv_window // 2:
                total = self._grow_to_delta(buffered)
                if self.target_recv_window < MAX_RECEIVE_WINDOW:
                    total += self._apply_autotune_epoch(buffered)
        if total > 0:
            await self.send_window_update(total)

    YamuxStream._auto_tune_and_send_window_update = update  # type: ignore[method-assign] # the repair


def _whole_frames() -> None:
    async def write(self: Yamux, data: bytes) -> None:
        async with self._write_lock:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FRAME_WRITE_TIMEOUT) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                _close_quietly_later(self.secured_conn)
                raise RawConnError("the peer does not take bytes")
        await trio.lowlevel.checkpoint()

    Yamux._write_frame = write  # type: ignore[method-assign] # the repair


def _socket_options() -> None:
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 3),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 15_000),
    ]

    def init(self: TrioTCPStream, stream: trio.SocketStream) -> None:
        original(self, stream)
        for level, name, value in options:
            if hasattr(socket, name):  # TCP_USER_TIMEOUT is Linux only, TCP_KEEPIDLE has another name on macOS
                stream.setsockopt(level, getattr(socket, name), value)

    original = TrioTCPStream.__init__
    TrioTCPStream.__init__ = init  # type: ignore[method-assign] # the repair


def _count_bytes() -> None:
    async def read(self: TrioTCPStream, n: int | None = None) -> bytes:
        data = await original_read(self, n)
        counters = self.__dict__.get("counters")
        if counters is not None:
            counters.received += len(data)
        return data

    async def write(self: TrioTCPStream, data: bytes) -> None:
        await original_write(self, data)
        counters = self.__dict__.get("counters")
        if counters is not None:
            counters.sent += len(data)

    original_read, original_write = TrioTCPStream.read, TrioTCPStream.write
    TrioTCPStream.read = read  # type: ignore[method-assign] # adds to the host's own attributes of the stream
    TrioTCPStream.write = write  # type: ignore[method-assign] # likewise


def _dial_at_once() -> None:
    swarm_module._HAPPY_EYEBALLS_DELAY = 0.0


def _no_sender_records() -> None:
    def attach(_host: object) -> tuple[bytes, bool]:
        return b"", False

    def accept(_rpc: object, _host: object, _peer: object) -> bool:
        return True

    for module in (pubsub_module, gossipsub_module):
        module.env_to_send_in_RPC = attach  # type: ignore[attr-defined] # the repair
        module.maybe_consume_signed_record = accept  # type: ignore[attr-defined] # the repair


WORKAROUNDS: tuple[Workaround, ...] = (
    Workaround(
        "multiselect-utf8",
        "protocol_muxer/multiselect_communicator.py:58",
        "a protocol name that is not UTF-8 escapes negotiation as UnicodeDecodeError and kills the process",
        _guard_multiselect,
    ),
    Workaround(
        "stream-handlers",
        "host/basic_host.py:1554",
        "any exception in a stream handler kills the process; streams per connection are unbounded",
        _guard_stream_handlers,
    ),
    Workaround(
        "gossip-streams",
        "pubsub/pubsub.py:562",
        "garbage protobuf on the gossip stream kills the process, or leaves a dead peer in the mesh",
        _guard_gossip_streams,
    ),
    Workaround(
        "tasks",
        "pubsub/validators.py:63, pubsub/pubsub.py:1641, tools/anyio_service/trio_manager.py:373",
        "a gossip message with a malformed key, or a validator that raises, ends a task and with it the process",
        _guard_tasks,
    ),
    Workaround(
        "inbound",
        "network/swarm.py:1980, :2044, :2060",
        "each inbound connection holds its slot until the swarm stops: after 250 the host refuses all; and 250 idle "
        "sockets keep newcomers out for 11 s",
        _bound_inbound,
    ),
    Workaround(
        "descriptors",
        "transport/tcp/tcp.py:197",
        "connections take the last descriptor: disk and operator have none, and what they do fails",
        _mind_descriptors,
    ),
    Workaround(
        "window-overshoot",
        "stream_muxer/yamux/yamux.py:1546",
        "a sender that ignores its window is logged, not stopped: 411 MB of memory",
        _enforce_windows,
    ),
    Workaround(
        "window-updates",
        "stream_muxer/yamux/yamux.py:410",
        "a window update for each small read: a 4 KiB reader is ten times slower; windows grow to 16 MiB a stream",
        _lazy_window_updates,
    ),
    Workaround(
        "whole-frames",
        "stream_muxer/yamux/yamux.py:874",
        "a cancelled write leaves half a frame on the connection, and the next one breaks it for every stream",
        _whole_frames,
    ),
    Workaround(
        "dead-peers",
        "io/trio.py:24, host/basic_host.py:1063",
        "a half-open connection is never noticed, and opening a stream on it hangs past every timeout",
        _socket_options,
    ),
    Workaround(
        "sender-records",
        "pubsub/utils.py:11, pubsub/gossipsub.py:930, :1005",
        "every gossip message carries its forwarder's signed addresses: 250 bytes and a millisecond each, for what the "
        "members' own signed offers say",
        _no_sender_records,
    ),
    Workaround("counters", "io/trio.py:31", "no measure of what crosses the wire", _count_bytes),
    Workaround("dial-at-once", "network/swarm.py:925", "every dial waits 250 ms", _dial_at_once),
)

_installed: list[str] = []


def install() -> None:
    """Apply every repair once in this process; later calls do nothing.

    Raises OperatorError when the installed libp2p is not the release that the repairs were written for.
    """
    if _installed:
        return
    installed = version("libp2p")
    if installed != LIBP2P_VERSION:
        raise OperatorError(
            f"libp2p {installed} is installed, and this program repairs private parts of {LIBP2P_VERSION} only",
            f"install it with: pip install libp2p=={LIBP2P_VERSION}",
        )
    for workaround in WORKAROUNDS:
        workaround.apply()
        _installed.append(workaround.name)
