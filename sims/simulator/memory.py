"""A store in memory with the durability of the real one: applied writes survive a crash, nothing else does."""

from collections.abc import Sequence
from typing import assert_never

from ...node.core import events as ev
from ...protocol.records import Record
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader


class MemoryStore:
    """Durable state of one simulated node."""

    def __init__(self) -> None:
        self.records: dict[bytes, Signed[Record]] = {}
        self._feeds: dict[bytes, dict[int, list[Signed[Record]]]] = {}  # author → seq → branches
        self.decided: dict[int, ev.PutBlock] = {}
        self.now = 0  # by its node's clock, in ms
        self._times: dict[int, int] = {}  # when each height was decided
        self.agreed: set[bytes] = set()
        self.messages: dict[tuple[int, bytes], None] = {}  # in order
        self.headers: dict[tuple[bytes, str, int], Signed[UpdateHeader]] = {}
        self.reservations: list[ev.PutReservation] = []
        self.published: set[int] = set()
        self.flags: dict[str, int] = {}
        self.blobs: dict[bytes, bytes] = {}

    def apply(self, puts: Sequence[ev.Put]) -> None:
        """Make these durable, in order."""
        for put in puts:
            match put:
                case ev.PutRecord():
                    if put.record.digest not in self.records:
                        self.records[put.record.digest] = put.record
                        author, seq = put.record.value.author, put.record.value.seq
                        self._feeds.setdefault(author, {}).setdefault(seq, []).append(put.record)
                case ev.PutBlock():
                    self.decided[put.block.height] = put
                    self._times[put.block.height] = self.now
                    self.agreed.update(put.records)
                    self.messages = {m: None for m in self.messages if m[0] > put.block.height}
                case ev.PutMessage():
                    self.messages[put.height, put.data] = None
                case ev.PutHeader():
                    value = put.header.value
                    self.headers.setdefault((value.author, value.component, value.round), put.header)
                case ev.PutReservation():
                    self.reservations.append(put)
                case ev.PutPublished():
                    self.published.add(put.run)
                case ev.PutFlag():
                    self.flags[put.name] = put.value
                case _:
                    assert_never(put)

    def snapshot(self) -> ev.Snapshot:
        """Return the snapshot for a restart."""
        return ev.Snapshot(
            blocks=[stored for height in sorted(self.decided) if (stored := self.block(height))],
            records=[record for digest, record in self.records.items() if digest not in self.agreed],
            messages=list(self.messages),
            headers=list(self.headers.values()),
            reservations=list(self.reservations),
            published=frozenset(self.published),
            flags=dict(self.flags),
            clock=self.now,
            ages={height: max(0, self.now - time) for height, time in self._times.items()},
        )

    def height(self) -> int:
        """Return the height of the last decided block."""
        return max(self.decided, default=0)

    def block(self, height: int) -> ev.StoredBlock | None:
        """Return the decided block at a height."""
        put = self.decided.get(height)
        if put is None:
            return None
        return ev.StoredBlock(put.block, put.certificate, tuple(self.records[d] for d in put.records))

    def feed(self, author: bytes, after_seq: int, limit: int) -> list[Signed[Record]]:
        """Return stored records of an author with a later seq, by seq."""
        slots = self._feeds.get(author)
        if not slots:
            return []
        return [record for seq in sorted(s for s in slots if s > after_seq) for record in slots[seq]][:limit]

    def record_at(self, author: bytes, seq: int) -> list[Signed[Record]]:
        """Return the stored records of an author at a seq."""
        return list(self._feeds.get(author, {}).get(seq, ()))
