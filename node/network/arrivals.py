"""Connections from peers that are not identified yet: they may cost this node little, and keep no member out.

What bounds them, in this order: descriptors (`SheddingListener` reserves the last ones for disk and operator),
failed handshakes of one address (`Addresses`), and handshakes in flight (`Pending`). All of it comes before the first
byte of a handshake, so a refusal costs an accept and a close.
"""

import ipaddress
import os
import resource
from collections import OrderedDict
from contextlib import suppress

import structlog
import trio

from ..scarce import is_scarce
from .limits import TokenBucket

log = structlog.get_logger(__name__)

MAX_PENDING = 64  # handshakes in flight; an honest one takes milliseconds
RESERVED = 128  # descriptors that no inbound connection may use, or a quarter of a smaller limit
PAUSE = 0.1  # seconds before the next accept, when the system has no room for one
FAILURES, FAILURES_PER_SECOND = 32.0, 1.0  # of an address that never authenticated
KNOWN_FAILURES, KNOWN_FAILURES_PER_SECOND = 256.0, 16.0  # of one that a member shares, maybe with others
MAX_ADDRESSES = 1024


class Pending:
    """Inbound handshakes in flight, oldest first, by remote host."""

    def __init__(self) -> None:
        self.by_host: dict[str, OrderedDict[int, trio.CancelScope]] = {}
        self.count = 0

    def admit(self, host: str) -> tuple[int, trio.CancelScope]:
        """Make room by dropping the oldest handshake of the host that has most, then add one."""
        if self.count >= MAX_PENDING:
            busiest, scopes = max(self.by_host.items(), key=lambda item: len(item[1]))
            key, scope = next(iter(scopes.items()))
            self.done(busiest, key)  # now: it ends some passes of the scheduler later, and others come meanwhile
            scope.cancel()
        scope = trio.CancelScope()
        self.by_host.setdefault(host, OrderedDict())[id(scope)] = scope
        self.count += 1
        return id(scope), scope

    def done(self, host: str, key: int) -> None:
        """Forget a handshake that succeeded, failed or was dropped; twice is no error."""
        scopes = self.by_host.get(host)
        if scopes is not None and scopes.pop(key, None) is not None:
            self.count -= 1
            if not scopes:
                del self.by_host[host]


class Addresses:
    """How many handshakes of each address came to nothing: from one that only fails, none is begun any more.

    An address that has authenticated before may fail more often, since a school's machines share one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, bool] = OrderedDict()
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def may(self, host: str, now: float) -> bool:
        """Whether a handshake with this host may begin at `now` (seconds, monotonic)."""
        bucket = self._buckets.get(_net(host))
        return bucket is None or bucket.has(now)

    def failed(self, host: str, now: float) -> None:
        """A handshake failed, by a fault of its own or because the key has no seat."""
        net = _net(host)
        bucket = self._buckets.get(net)
        if bucket is None:
            familiar = net in self._known
            burst, rate = (KNOWN_FAILURES, KNOWN_FAILURES_PER_SECOND) if familiar else (FAILURES, FAILURES_PER_SECOND)
            bucket = self._buckets[net] = TokenBucket(rate, burst, burst, now)
        self._buckets.move_to_end(net)
        bucket.take(now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)

    def succeeded(self, host: str) -> None:
        """Somebody was let in from this host."""
        net = _net(host)
        if net not in self._known:
            self._buckets.pop(net, None)
        self._known[net] = True
        self._known.move_to_end(net)
        if len(self._known) > MAX_ADDRESSES:
            self._known.popitem(last=False)


def _net(host: str) -> str:
    """Return the address, or of IPv6 the /64, which one customer has to itself."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            mapped = address.ipv4_mapped
            return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return host


class Arrivals:
    """One host's record of arrivals."""

    def __init__(self) -> None:
        self.pending = Pending()
        self.addresses = Addresses()


class SheddingListener(trio.abc.Listener[trio.SocketStream]):
    """A listening socket that sheds connections when descriptors run short, and never fails for want of them."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._spare = _spare()
        self.socket = listener.socket
        self.shed = 0

    async def accept(self) -> trio.SocketStream:
        """Return the next connection. Raises trio.ClosedResourceError."""
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as error:
                if not is_scarce(error):
                    raise
                log.warning("no descriptor for a connection", reason=os.strerror(error.errno or 0))
                await self._shed()
                continue
            if stream.socket.fileno() < usable():
                return stream
            stream.socket.close()
            self._count()

    async def _shed(self) -> None:
        """Take the next connection with the spare descriptor and close it, so that the queue advances."""
        if self._spare is not None:
            os.close(self._spare)
            with trio.move_on_after(PAUSE), suppress(OSError):
                (await self._listener.accept()).socket.close()
                self._count()
            self._spare = _spare()
        await trio.sleep(PAUSE)

    def _count(self) -> None:
        self.shed += 1
        log.warning("connection shed", reason="descriptors run short")

    async def aclose(self) -> None:
        """Close the socket."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        await self._listener.aclose()


def usable() -> int:
    """Return the first descriptor that is kept for others than inbound connections; the kernel gives the lowest."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 1 << 30
    return limit - min(RESERVED, limit // 4)


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
