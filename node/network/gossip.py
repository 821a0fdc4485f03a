"""Announcements to all nodes: GossipSub 1.1, batched, paced, deduplicated. It may lose messages; anti-entropy does not.

    pubsub message = version: u8 = 1 | (length: u32 big endian | message: length bytes) …

The outbound queue leaves as one pubsub message, so a burst costs a few deliveries, not hundreds:
libp2p's queues are 32 deep and drop what does not fit (rpc_queue.py:39, pubsub.py:124).
"""

import hashlib
import struct
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from libp2p.abc import IHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from ...crypto.errors import LocalProtocolError
from .identity import public_key

log = structlog.get_logger(__name__)

OnGossip = Callable[[bytes, bytes], None]

VERSION = 1
OVERHEAD = 5  # bytes: version, and the length of the first message
QUEUE_BYTES = 4 << 20  # outbound; then publish() waits
INBOX_BYTES = 16 << 20  # inbound, not yet handed over; then messages are dropped
LINGER = 0.004  # seconds
PAUSE = 0.002  # seconds after each pubsub message of a burst
PACE = 8 << 20  # bytes/s that a burst may add to a mesh in which each message is forwarded several times
QUEUE_DEPTH = 8  # of 32: how full a neighbour's libp2p queue may be before the next message waits
SEEN = 16384
SEEN_SECONDS = 120.0

_LENGTH = struct.Struct(">I")


def pack(messages: list[bytes]) -> bytes:
    """Join messages into one pubsub message."""
    return bytes([VERSION]) + b"".join(_LENGTH.pack(len(message)) + message for message in messages)


def unpack(data: bytes) -> list[bytes] | None:
    """Split a pubsub message; None if it is malformed, and then none of it counts."""
    if len(data) < OVERHEAD or data[0] != VERSION:
        return None
    messages, at = [], 1
    while at < len(data):
        if at + _LENGTH.size > len(data):
            return None
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            return None
        messages.append(data[at : at + length])
        at += length
    return messages


class Seen:
    """SHA-256 of the messages of the last two minutes, at most 16,384 of them."""

    def __init__(self) -> None:
        self._at: OrderedDict[bytes, float] = OrderedDict()

    def first_time(self, message: bytes, now: float) -> bool:
        """Whether `message` is new at `now` (seconds, monotonic); from then on it is not."""
        digest = hashlib.sha256(message).digest()
        before = self._at.get(digest)
        if before is not None and now - before < SEEN_SECONDS:
            return False
        self._at[digest] = now
        self._at.move_to_end(digest)
        if len(self._at) > SEEN:
            self._at.popitem(last=False)
        return True


class Gossip:
    """One topic of one host. Make it before the host listens, so that no neighbour is missed."""

    def __init__(self, host: IHost, topic: str, degree: int, max_message: int, on_gossip: OnGossip) -> None:
        # All neighbours are in the mesh (low = high), and are grafted when they subscribe, not at the next heartbeat.
        self._router = GossipSub(
            [PROTOCOL_ID_V11],
            degree=min(degree, 4),
            degree_low=min(degree, 3),
            degree_high=min(degree, 5),
            heartbeat_interval=1,
            spam_protection_enabled=False,  # ten messages a second, our own included
            adaptive_gossip_enabled=False,  # stretches the heartbeat to 30 s
            eclipse_protection_enabled=False,  # wants three IP ranges; membership is what protects here
        )
        self._pubsub = Pubsub(host, self._router, allowed_topics={topic})
        self._pubsub.counter = time.time_ns()  # else messages after a restart count as already seen
        self._me = host.get_id()
        self._topic = topic
        self._max_message = max_message
        self._on_gossip = on_gossip
        self._seen = Seen()
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._inbox: deque[tuple[ID, list[bytes]]] = deque()
        self._inbox_bytes = 0
        self._more_out = trio.Event()
        self._room_out = trio.Event()
        self._more_in = trio.Event()

    async def publish(self, data: bytes) -> None:
        """Queue one message for all nodes; waits only while 4 MiB are queued. Raises LocalProtocolError if too long."""
        if len(data) > self._max_message:
            raise LocalProtocolError(f"a gossip message of {len(data)} bytes; at most {self._max_message}")
        while self._outbox_bytes > QUEUE_BYTES:
            self._room_out = trio.Event()
            await self._room_out.wait()
        self._seen.first_time(data, trio.current_time())
        self._outbox.append(data)
        self._outbox_bytes += len(data) + _LENGTH.size
        self._more_out.set()
        await trio.lowlevel.checkpoint()

    def _validate(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        # Runs inside libp2p's delivery, once for each new message whose author's signature is good. It takes the
        # message over here, since the subscription channel holds 32 and does not say who forwarded.
        if forwarder == self._me:
            return True
        if len(message.data) > self._max_message + OVERHEAD or list(message.topicIDs) != [self._topic]:
            return False
        messages = unpack(message.data)
        if messages is None:
            return False
        if self._inbox_bytes > INBOX_BYTES:
            log.warning("gossip inbox is full", forwarder=str(forwarder))
            return False
        self._inbox.append((forwarder, messages))
        self._inbox_bytes += len(message.data)
        self._more_in.set()
        return True

    async def _deliver(self) -> None:
        while True:
            await self._more_in.wait()
            self._more_in = trio.Event()
            while self._inbox:
                forwarder, messages = self._inbox.popleft()
                key = public_key(forwarder)
                for message in messages:
                    self._inbox_bytes -= len(message) + _LENGTH.size
                    if key is not None and self._seen.first_time(message, trio.current_time()):
                        self._hand_over(key, message)
                self._inbox_bytes -= 1
                await trio.lowlevel.checkpoint()

    def _hand_over(self, forwarder: bytes, message: bytes) -> None:
        try:
            self._on_gossip(forwarder, message)
        except Exception:
            log.exception("gossip handler failed", forwarder=forwarder.hex()[:16])

    async def _send(self) -> None:
        while True:
            await self._more_out.wait()
            self._more_out = trio.Event()
            await trio.sleep(LINGER)  # batches what comes at once: each message costs milliseconds
            while self._outbox:
                data = pack(self._take())
                try:
                    await self._pubsub.publish(self._topic, data)
                except Exception:
                    log.exception("publishing failed")
                await trio.sleep(PAUSE + len(data) / PACE)
                with trio.move_on_after(0.25):  # a neighbour that does not take bytes may not stop the others
                    while self._crowded():  # noqa: ASYNC110 - libp2p's queues announce nothing
                        await trio.sleep(PAUSE)

    def _crowded(self) -> bool:
        return any(len(queue) > QUEUE_DEPTH for queue in self._pubsub.peer_queues.values())

    def _take(self) -> list[bytes]:
        messages: list[bytes] = []
        size = 0
        while self._outbox and (not messages or size + len(self._outbox[0]) + _LENGTH.size <= self._max_message):
            messages.append(self._outbox.popleft())
            size += len(messages[-1]) + _LENGTH.size
        self._outbox_bytes -= size
        self._room_out.set()
        return messages

    async def _drain(self) -> None:
        subscription = await self._pubsub.subscribe(self._topic)
        while True:
            await subscription.get()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(60)
            self._router.recent_message_deliveries.clear()  # grows by a float a message for ever (gossipsub.py:1089)

    @asynccontextmanager
    async def running(self, nursery: trio.Nursery) -> AsyncIterator[None]:
        """Run on a host that listens; the loops run in `nursery`, which the caller cancels."""
        async with background_trio_service(self._pubsub), background_trio_service(self._router):
            await self._pubsub.wait_until_ready()
            self._pubsub.set_topic_validator(self._topic, self._validate, False)
            for task in (self._deliver, self._send, self._drain, self._sweep):
                nursery.start_soon(task)
            yield
