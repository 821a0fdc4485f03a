"""Bytes on the wire."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Raw TCP bytes of one host, over all its connections, handshakes and overhead included."""

    received: int = 0
    sent: int = 0

    def snapshot(self) -> tuple[int, int]:
        """(received, sent), in bytes."""
        return self.received, self.sent
