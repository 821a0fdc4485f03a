"""Records with checked signatures that no block agreed on yet, by digest, up to two for each (author, seq)."""

from collections.abc import Iterable, Mapping

from ...crypto.errors import RemoteProtocolError
from ...protocol.blocks import Head
from ...protocol.records import GENESIS, Body, Record, body_of
from ...protocol.signing import Signed

Heads = Mapping[bytes, tuple[int, bytes]]


class Pool:
    """Each author's records after its last agreed head. Bounded: the next `per_author` seqs of each member's feed.

    The bound is on seqs and not on records, so that later ones that came first never keep the next one out.
    """

    def __init__(self, per_author: int) -> None:
        self.per_author = per_author
        self.records: dict[bytes, Signed[Record]] = {}
        self.by_seq: dict[bytes, dict[int, list[bytes]]] = {}
        self.touched: set[bytes] = set()  # authors with new records since this was last emptied
        self.version = 0  # grows with every record taken
        self._chains: dict[bytes, tuple[bytes, tuple[Signed[Record], ...]]] = {}  # author → (agreed head, what follows)

    def __len__(self) -> int:
        return len(self.records)

    def has_room(self, record: Signed[Record], last: int) -> bool:
        """Whether `add` would take or refuse a record rather than ignore it; `last` is the agreed seq of its author."""
        slots = self.by_seq.get(record.value.author, {})
        if record.value.seq > last + self.per_author:
            return len(slots) >= self.per_author  # refused by name; otherwise ignored: it comes again later
        return len(slots.get(record.value.seq, ())) < 2

    def add(self, record: Signed[Record], heads: Heads, *, agreed: bool = False) -> bool:
        """Take a record; True if it is new. `agreed`: a decided block needs it, so the bound does not apply.

        Raises RemoteProtocolError("quota-records") if too many records of its author are pending.
        """
        value = record.value
        last = heads.get(value.author, (0, GENESIS))[0]
        if record.digest in self.records or value.seq <= last:
            return False
        slots = self.by_seq.setdefault(value.author, {})
        if value.seq > last + self.per_author and not agreed:
            if len(slots) >= self.per_author:
                raise RemoteProtocolError("quota-records", f"{len(slots)} records wait for agreement", value.author)
            return False  # this node may be behind: anti-entropy brings it again
        same = slots.setdefault(value.seq, [])
        if len(same) >= 2 and not agreed:
            return False  # two are proof enough of a fork
        same.append(record.digest)
        self.records[record.digest] = record
        self._chains.pop(value.author, None)
        self.touched.add(value.author)
        self.version += 1
        return True

    def forget(self, author: bytes) -> None:
        """Forget the records of a former member."""
        for same in self.by_seq.pop(author, {}).values():
            for digest in same:
                del self.records[digest]
        self._chains.pop(author, None)
        self.touched.add(author)
        self.version += 1

    def chain(self, author: bytes, heads: Heads) -> tuple[Signed[Record], ...]:
        """Return the author's records that follow its agreed head without a gap; at a fork, the branch known first."""
        slots = self.by_seq.get(author)
        if not slots:
            return ()
        seq, head = heads.get(author, (0, GENESIS))
        cached = self._chains.get(author)
        if cached is not None and cached[0] == head:
            return cached[1]
        records: list[Signed[Record]] = []
        digest = head
        while True:
            seq += 1
            following = [self.records[d] for d in slots.get(seq, ()) if self.records[d].value.prev == digest]
            if not following:
                break
            records.append(following[0])
            digest = following[0].digest
        self._chains[author] = (head, tuple(records))
        return self._chains[author][1]

    def under(self, cut: Iterable[Head], heads: Heads) -> list[Signed[Record]] | None:
        """Return the records between the agreed heads and a cut, or None if one is missing here.

        Raises RemoteProtocolError("cut") if a head of the cut cannot extend the agreed one.
        """
        records: list[Signed[Record]] = []
        for head in cut:
            base, digest = heads.get(head.author, (0, GENESIS))[0], head.digest
            if head.seq <= base:
                raise RemoteProtocolError("cut", f"seq {head.seq} is not after the agreed {base}", head.author)
            for seq in range(head.seq, base, -1):
                record = self.records.get(digest)
                if record is None:
                    return None
                if record.value.author != head.author or record.value.seq != seq:
                    raise RemoteProtocolError("cut", "a head names another feed's record", head.author)
                records.append(record)
                digest = record.value.prev
        return records

    def missing(self, cut: Iterable[Head], heads: Heads) -> bytes | None:
        """Return the digest of the first missing record under a cut, following each feed backwards."""
        for head in cut:
            digest = head.digest
            for _ in range(head.seq - heads.get(head.author, (0, GENESIS))[0]):
                record = self.records.get(digest)
                if record is None:
                    return digest
                digest = record.value.prev
        return None

    def heads(self, agreed: Heads) -> dict[bytes, tuple[int, bytes]]:
        """Return the last connected head of every feed, agreed or not."""
        heads = dict(agreed)
        for author in self.by_seq:
            chain = self.chain(author, agreed)
            if chain:
                heads[author] = (chain[-1].value.seq, chain[-1].digest)
        return heads

    def settle(self, heads: Heads) -> None:
        """Forget records at or under the agreed heads."""
        for author, (agreed, _) in heads.items():
            slots = self.by_seq.get(author, {})
            old = [seq for seq in slots if seq <= agreed]
            if old:
                self._chains.pop(author, None)
            for seq in old:
                for digest in slots.pop(seq):
                    del self.records[digest]


def readable_body(record: Signed[Record]) -> Body | None:
    """Decode the body of a record in the pool; None if it is malformed (the ledger refuses it by name)."""
    try:
        return body_of(record.value)
    except RemoteProtocolError:
        return None
