"""Limits on one peer's requests at a time."""

from dataclasses import dataclass, field

import trio

BURST = 200.0  # requests
RATE = 100.0  # requests a second


@dataclass(slots=True)
class TokenBucket:
    """`burst` at once, `rate` a second in the long run."""

    rate: float
    burst: float
    level: float
    at: float = 0.0

    def has(self, now: float) -> bool:
        """Whether there is a token at `now` (seconds, monotonic)."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        return self.level >= 1.0

    def take(self, now: float) -> bool:
        """Use one token, if there is one at `now` (seconds, monotonic)."""
        if not self.has(now):
            return False
        self.level -= 1.0
        return True


@dataclass(slots=True)
class _Use:
    streams: int = 0
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(RATE, BURST, BURST))


class PeerLimits:
    """Streams held open and requests a second, for each peer. State is kept for at most `remember` peers."""

    def __init__(self, max_streams: int, remember: int = 1024) -> None:
        self._max_streams = max_streams
        self._remember = remember
        self._peers: dict[bytes, _Use] = {}

    def enter(self, peer: bytes) -> bool:
        """Count one more stream of `peer`; False, and nothing counted, if it has its share already."""
        use = self._peers.setdefault(peer, _Use())
        if use.streams >= self._max_streams:
            return False
        use.streams += 1
        return True

    def leave(self, peer: bytes) -> None:
        """The stream has ended. The bucket is kept, so that reconnecting does not refill it."""
        self._peers[peer].streams -= 1
        if len(self._peers) > self._remember:
            self._peers = {key: use for key, use in self._peers.items() if use.streams}

    def take(self, peer: bytes) -> bool:
        """One request of `peer`, which holds a stream; False if it asks too often."""
        return self._peers[peer].bucket.take(trio.current_time())
