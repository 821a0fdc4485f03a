"""The network of one node: a gated libp2p host with gossip, requests, bulk pulls and a dialer (design.md, 11)."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakSet

import structlog
import trio
from libp2p import new_host
from libp2p.abc import INetStream, IRawConnection
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key
from libp2p.custom_types import TProtocol
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.host.basic_host import BasicHost
from libp2p.io.trio import TrioTCPStream
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr  # type: ignore[import-untyped] # it ships no types

from ...crypto.errors import OperatorError, RefusedError, UnreachableError, UsageError
from .blobs import PROTOCOL as BLOB_PROTOCOL
from .blobs import BlobClient, BlobPath, BlobServer
from .counters import Counters
from .dialer import Dialer
from .gossip import Gossip, OnGossip
from .identity import KEY_SIZE, parse_address, peer_id, public_key
from .links import Links
from .listening import dialable, parse_listen
from .non_members import NonMemberHandlers, NonMembers
from .resolver import resolve
from .rpc import Handler, RpcClient, RpcServer
from .streams import CutError, SilentError, Streams
from .workarounds import install

log = structlog.get_logger(__name__)

HELLO_PROTOCOL = "/collegium/hello/1"  # the dialler opens it: negotiating it proves that the gate let us in
DIAL_TIMEOUT = 15.0  # seconds
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The parts of a host. Sizes are bytes, rates bytes a second."""

    seed: bytes  # 32-byte Ed25519 seed, as of PyNaCl's SigningKey; the peer id comes from it
    listen: tuple[str, ...]  # multiaddrs, as /ip4/127.0.0.1/tcp/0
    topic: str  # of gossip
    mdns: bool = False  # look for members on this LAN, and announce ourselves there
    max_neighbours: int = 6  # kept up by dialling; inbound members are accepted up to twice as many
    max_message: int = 65536  # gossip
    max_rpc: int = 8 << 20  # responses; requests are capped at 1 MiB
    max_concurrent_pulls: int = 4
    min_rate: int = 65536  # a range must arrive within its size / min_rate + 10 s


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a node does with what arrives. Without more than `allowed` it answers nobody, and only asks.

    `on_gossip` and `on_peer` are called synchronously and must not block; what they raise is logged.
    """

    allowed: Callable[[bytes], bool]  # gates connections by key, in both directions, before any protocol runs
    on_gossip: OnGossip = lambda _forwarder, _data: None
    on_peer: Callable[[bytes, bool], None] = lambda _key, _connected: None
    # By protocol, handler(peer, payload): a RemoteProtocolError goes back by its reason, the rest as "internal-error".
    rpc_handlers: Mapping[str, Handler] = field(default_factory=dict)
    blob_path: BlobPath = lambda _digest: None  # where a blob lies, and its size in bytes
    # What a key that is not allowed may use all the same, alone and for a short while.
    non_member_handlers: NonMemberHandlers = lambda _key: {}


class Network:
    """A running host; made only by `open_network`. Peers are named by their 32-byte Ed25519 public keys."""

    def __init__(
        self,
        config: NetworkConfig,
        host: BasicHost,
        nursery: trio.Nursery,
        callbacks: Callbacks,
    ) -> None:
        self._host = host
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        self._swarm: Any = swarm  # Any, because its interface omits half of the methods used here
        self.public_key = _own_key(host)
        self.counters = Counters()
        self._sockets: WeakSet[TrioTCPStream] = WeakSet()
        _watch_sockets(self._swarm, self._sockets, self.counters)
        self._streams = Streams(host, nursery)
        non_members = NonMembers(self._streams, nursery, HELLO_PROTOCOL, callbacks.non_member_handlers, config.max_rpc)
        self._links = Links(swarm, nursery, self.public_key, callbacks.allowed, 2 * config.max_neighbours, non_members)
        self._gossip = Gossip(host, config.topic, 2 * config.max_neighbours, config.max_message, callbacks.on_gossip)
        self._dialer = Dialer(self.public_key, config.max_neighbours, self.connect, self.neighbours, self._links.may)
        is_neighbour = self._links.__contains__
        self._rpc = RpcClient(self._streams, is_neighbour, config.max_rpc)
        self._blobs = BlobClient(self._streams, is_neighbour, config.max_concurrent_pulls, config.min_rate)
        self._links.listen_to(self._on_link_changed)
        self._links.listen_to(callbacks.on_peer)
        server = RpcServer(self._streams, callbacks.rpc_handlers, config.max_rpc)
        for protocol in callbacks.rpc_handlers:
            host.set_stream_handler(TProtocol(protocol), partial(server.serve, protocol))
        blobs = BlobServer(self._streams, callbacks.blob_path, config.min_rate)
        host.set_stream_handler(TProtocol(BLOB_PROTOCOL), blobs.serve)
        host.set_stream_handler(TProtocol(HELLO_PROTOCOL), self._streams_hello)

    def addresses(self) -> list[str]:
        """Multiaddrs with /p2p/<id> that others can dial, with the ports really bound."""
        return dialable(self._host.get_transport_addrs(), str(self._host.get_id()))

    def neighbours(self) -> frozenset[bytes]:
        """The members that we hold a connection with."""
        return self._links.neighbours

    def set_address_book(self, book: Mapping[bytes, Sequence[str]]) -> None:
        """Replace the known addresses of members, best first.

        The redial loop keeps up to `max_neighbours` of them connected, chosen at random, with exponential backoff
        and jitter from 0.5 s to 60 s for each.
        """
        self._dialer.set_book(book)

    def backoff_reset(self, peer: bytes | None = None) -> None:
        """Forget failed dials, of one peer or of all, and try again now."""
        self._dialer.reset(peer)

    async def connect(self, address: str) -> bytes:
        """Dial ".../p2p/<id>" now, and return the peer's key once it has let us in.

        Raises UsageError (no such address), UnreachableError (nobody there, or another identity) or RefusedError
        (one of the two gates), naming the address and why.
        """
        where, peer, key = parse_address(address)
        if key == self.public_key:
            raise UsageError(f"{address} is this node itself")
        if not self._links.may(key):
            raise RefusedError(f"{address} is not a member of this federation", "check the charter, or the invitation")
        if key in self._links:
            return key
        self._swarm._negative_peer_cache.evict(str(peer))
        with trio.move_on_after(DIAL_TIMEOUT):
            await self._dial(address, await resolve(where), peer)
            return await self._shake_hands(address, peer, key)
        raise UnreachableError(
            f"{address} does not answer within {DIAL_TIMEOUT:g} s", "Check the address, and firewalls on the way."
        )

    async def _dial(self, address: str, places: Sequence[Multiaddr], peer: ID) -> None:
        last: Exception | None = None
        for resolved in places:
            try:
                await self._swarm.dial_addr(resolved, peer)
            except Exception as error:  # noqa: BLE001 - libp2p raises what its parts raise; the next place may do
                last = error
            else:
                return
        raise UnreachableError(
            f"{address} cannot be reached: {'nothing to dial' if last is None else _cause(last)}",
            "Check that its daemon runs, that the address and port are its own, and firewalls on the way.",
        ) from last

    def why(self, peer: bytes) -> str:
        """Return why there is no connection with a peer, as far as this node's own dialling shows."""
        return self._dialer.why(peer)

    async def _shake_hands(self, address: str, peer: ID, key: bytes) -> bytes:
        refused = RefusedError(
            f"{address} closed the connection", "it does not count this node as a member (yet), or it is full"
        )
        try:
            stream = await self._streams.open(peer, HELLO_PROTOCOL, DIAL_TIMEOUT)
        except (CutError, SilentError) as error:
            await self._links.drop(key)
            raise refused from error
        self._streams.finish(stream)
        if not self._links.confirm(key):
            raise refused
        return key

    async def _streams_hello(self, stream: INetStream) -> None:
        self._streams.finish(stream)

    async def disconnect(self, peer: bytes) -> None:
        """Close all connections with `peer`; the redial loop may come back to it."""
        await self._links.drop(peer)

    async def enforce_gate(self) -> None:
        """Drop every connected peer that `allowed` refuses by now."""
        await self._links.enforce()

    async def publish(self, data: bytes) -> None:
        """Gossip `data` to all nodes: at most once each, without a guarantee of arrival.

        Waits only while 4 MiB are queued. Raises LocalProtocolError over `max_message` bytes.
        """
        await self._gossip.publish(data)

    async def request(
        self,
        peer: bytes,
        protocol: str,
        payload: bytes,
        *,
        limit: int | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - it is part of the interface: a stuck connection outlives a scope
    ) -> bytes:
        """Send one request and return the answer, at most `limit` (default and ceiling: `max_rpc`) bytes.

        Requests to one peer and protocol go one after the other on a stream that is kept. One that meets a dead
        stream is sent once more on a fresh one, so a handler may run twice.

        Raises UnreachableError (gone, cut, or no answer in `timeout` seconds) or RemoteProtocolError
        ("oversized-response", "busy", "internal-error", or the reason that the peer's handler gave).
        """
        return await self._rpc.request(peer, protocol, payload, limit, timeout)

    async def fetch(
        self, peer: bytes, digest: bytes, size: int, write: Callable[[bytes], None], offset: int = 0
    ) -> None:
        """Pull bytes [offset, size) of a blob, calling `write(chunk)` in order with what arrives.

        Raises UnreachableError when it is cut or slower than `min_rate` (resume at offset + what was written) and
        RemoteProtocolError ("blob-unknown", "blob-size", "busy", …). Checking the digest is the caller's.
        """
        await self._blobs.fetch(peer, digest, size, write, offset)

    def _on_link_changed(self, peer: bytes, connected: bool) -> None:
        if connected:
            self._dialer.connected(peer)
        else:
            self._rpc.forget(peer)
            self._dialer.disconnected(peer)

    def _on_peer_found(self, token: trio.lowlevel.TrioToken, info: PeerInfo) -> None:
        # Called in zeroconf's thread.
        key = public_key(info.peer_id)
        if key is not None:
            suffix = f"/p2p/{info.peer_id}"
            addresses = [str(address).removesuffix(suffix) + suffix for address in info.addrs]
            try:
                token.run_sync_soon(self._dialer.found, key, addresses)
            except trio.RunFinishedError:
                return

    async def _shut_down(self) -> None:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self._links.close()
                await self._host.close()  # before leaving run(), else sockets stay open
            for stream in list(self._sockets):
                stream.stream.socket.close()  # stuck ones: wakes their writers


@asynccontextmanager
async def open_network(config: NetworkConfig, callbacks: Callbacks) -> AsyncIterator[Network]:
    """Run a host until the block is left; it closes within two seconds.

    Raises UsageError when an address cannot be listened on, OperatorError when libp2p is not the tested release.
    """
    install()
    listen = parse_listen(config.listen)
    host = _make_host(config, listen)
    failure: Exception | None = None
    left = False
    async with trio.open_nursery() as nursery:
        network = Network(config, host, nursery, callbacks)
        on_discovered = partial(network._on_peer_found, trio.lowlevel.current_trio_token())
        peerDiscovery.register_peer_discovered_handler(
            on_discovered
        )  # before it runs: present peers are discovered at once
        try:
            async with host.run(listen), network._gossip.running(nursery):
                try:
                    if len(host.get_transport_addrs()) < len(listen):
                        raise UsageError(f"cannot listen on all of {', '.join(config.listen)}", "choose other ports")
                    nursery.start_soon(network._dialer.run)
                    yield network
                    left = True
                except Exception as error:  # noqa: BLE001 - raised below, outside of the nurseries that would wrap it
                    failure = error
                finally:
                    nursery.cancel_scope.cancel()
                    await network._shut_down()
        finally:
            peerDiscovery.unregister_peer_discovered_handler(on_discovered)
    if failure is not None:
        raise failure
    await trio.lowlevel.checkpoint()  # the caller's cancellation takes effect here
    if not left:
        raise OperatorError("the network service stopped", "this is a bug: restart the node, and report its log")


def _make_host(config: NetworkConfig, listen: list[Multiaddr]) -> BasicHost:
    if len(config.seed) != KEY_SIZE:
        raise UsageError(f"the seed has {len(config.seed)} bytes, not {KEY_SIZE}")
    if not os.environ.get("LIBP2P_DEBUG"):
        for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "libp2p"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs refused dials as errors, with tracebacks
    keys = create_new_key_pair(config.seed)
    host = new_host(
        key_pair=keys,
        listen_addrs=listen,
        enable_mDNS=config.mdns,
        # Noise alone: the default also offers plaintext and secio, with which a victim's public key is enough to
        # impersonate it.
        sec_opt={TProtocol(NOISE_ID): Noise(keys, noise_privkey=create_noise_key().private_key)},
        muxer_opt={TProtocol(YAMUX_ID): Yamux},
        connection_config=ConnectionConfig(min_connections=0, low_watermark=0, max_connections_per_peer=8),
    )
    assert isinstance(host, BasicHost)
    swarm = host.get_network()
    assert isinstance(swarm, Swarm)
    swarm.retry_config = RetryConfig(max_retries=0)  # the dialer has its own backoff
    swarm.auto_connector.maybe_connect = _do_nothing  # type: ignore[method-assign] # it dials every peer that it learns of
    swarm.set_resource_manager(None)  # its limits leak slots; ours are in links, limits and workarounds
    # Identify, its push and ping give peers nothing that the ledger lacks, and run in trio system tasks, where an
    # exception provoked by a peer ends the process.
    for protocol in host.get_mux().get_protocols():
        if protocol is not None:
            host.remove_stream_handler(protocol)
    swarm.notifees = [notifee for notifee in swarm.notifees if type(notifee).__name__ != "_IdentifyNotifee"]
    host._schedule_identify = lambda *_, **__: None  # type: ignore[method-assign] # see above
    return host


async def _do_nothing() -> None:
    pass


def _own_key(host: BasicHost) -> bytes:
    key = public_key(host.get_id())
    assert key is not None
    assert peer_id(key) == host.get_id()
    return key


def _watch_sockets(swarm: Any, sockets: WeakSet[TrioTCPStream], counters: Counters) -> None:
    def watch(stream: Any) -> None:
        stream.counters = counters
        sockets.add(stream)

    async def inbound(stream: TrioTCPStream, maddr: Multiaddr) -> None:
        watch(stream)
        await handle(stream, maddr)

    async def outbound(maddr: Multiaddr) -> IRawConnection:
        raw: Any = await dial(maddr)
        watch(raw.stream)
        return raw  # type: ignore[no-any-return] # libp2p's RawConnection

    handle = swarm._handle_inbound_connection
    swarm._handle_inbound_connection = inbound
    (transport,) = swarm.transport_manager.get_transports()  # TCP
    dial = transport.dial
    transport.dial = outbound


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__  # type: ignore[assignment]
    return str(error) or repr(error)
