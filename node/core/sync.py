"""Anti-entropy: the answer to a sync request. It compares head digests, so that forks cannot keep nodes apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ...crypto.errors import RemoteProtocolError
from ...protocol import schema
from ...protocol.blocks import Head
from ...protocol.records import GENESIS, Record
from ...protocol.signing import Signed
from .events import StoredBlock
from .messages import SYNC_TARGET, TAG_SIZE, DecidedBlock, SyncRequest, SyncResponse, tag

BLOCK_TARGET = 2 << 20  # an answer under SYNC_TARGET may grow by this much and stays under SYNC_LIMIT
FORK_DEPTH = 256  # records of one author that can wait for agreement (the pool's bound)


def is_part(size: int) -> bool:
    """Whether an answer of this many bytes is as large as one with `more` should be."""
    return size >= SYNC_TARGET // 2


class Reader(Protocol):
    """The store, as anti-entropy reads it."""

    def height(self) -> int:
        """Return the height of the last decided block."""
        ...

    def block(self, height: int) -> StoredBlock | None:
        """Return the decided block at a height."""
        ...

    def feed(self, author: bytes, after_seq: int, limit: int) -> list[Signed[Record]]:
        """Return stored records of an author with a later seq, by seq, both branches of a fork."""
        ...

    def record_at(self, author: bytes, seq: int) -> list[Signed[Record]]:
        """Return the stored records of an author at a seq."""
        ...


class Theirs:
    """The records that the asker has for certain: those before its heads, as far as they are known here."""

    def __init__(self, store: Reader, heads: Mapping[bytes, Head]) -> None:
        self.store = store
        self.next = {author: (head.seq, head.digest) for author, head in heads.items()}
        self.digests: set[bytes] = set()

    def has(self, record: Signed[Record]) -> bool:
        """Whether the asker's branch contains this record: a decided block may contain the other one."""
        author, seq = record.value.author, record.value.seq
        for _ in range(FORK_DEPTH):
            at, wanted = self.next.get(author, (0, GENESIS))
            if at < seq:
                break
            stored = next((r for r in self.store.record_at(author, at) if r.digest == wanted), None)
            if stored is None:
                break
            self.digests.add(wanted)
            self.next[author] = (at - 1, stored.value.prev)
        return record.digest in self.digests


def answer(
    request: SyncRequest,
    federation: bytes,
    store: Reader,
    members: Iterable[bytes],
    messages: Sequence[bytes],
    *,
    upto: int | None = None,
) -> bytes:
    """Return the encoded SyncResponse to a neighbour's request. `members` are the members whose feeds are not frozen.

    `upto`: the asker was a member until the block at this height: it gets the blocks up to then, and nothing else.

    Raises RemoteProtocolError("wrong-federation") if the asker belongs elsewhere.
    """
    if request.federation != federation:
        raise RemoteProtocolError("wrong-federation", request.federation.hex()[:16])
    height, size, more = store.height(), 0, False
    if upto is not None:
        height, members, messages = min(height, upto), (), ()
    blocks: list[DecidedBlock] = []
    records: dict[bytes, bytes] = {}
    heads = {head.author: head for head in request.heads}
    after: dict[bytes, int] = {}
    for author in members:
        head = heads.get(author)
        after[author] = head.seq if head is not None else 0
        here = store.record_at(author, head.seq) if head is not None and head.seq else []
        if head is not None and here and all(record.digest != head.digest for record in here):
            # Our branch differs from theirs at this seq: send it from before the earliest possible fork.
            after[author] = max(0, head.seq - FORK_DEPTH)
    theirs = Theirs(store, heads)
    for number in range(request.height + 1, height + 1):
        stored = store.block(number)
        if stored is None or size > SYNC_TARGET:
            more = stored is not None
            break
        for record in stored.records:
            if not more and not theirs.has(record):
                records[record.digest] = record.wire
                size += len(record.wire)
                more = size > SYNC_TARGET + BLOCK_TARGET
        if more:
            break  # too large for one answer: the records go first, the block follows when the asker has them
        decided = DecidedBlock(schema.dump(stored.block), stored.certificate)
        blocks.append(decided)
        size += len(decided.block) + 100 * len(stored.certificate.signatures)
    if not more:
        for author, seq in after.items():
            for record in store.feed(author, seq, 1024):
                if size > SYNC_TARGET:
                    more = True
                    break
                if record.digest not in records:
                    records[record.digest] = record.wire
                    size += len(record.wire)
    have = {request.have[i : i + TAG_SIZE] for i in range(0, len(request.have), TAG_SIZE)}
    sent: list[bytes] = []
    for item in () if more else messages:
        if tag(item) in have:
            continue
        size += len(item)
        if size > SYNC_TARGET + BLOCK_TARGET:
            break  # the first ones matter most: votes come before messages that gossip brings anyway
        sent.append(item)
        if len(sent) == 16_384:
            break
    return schema.dump(SyncResponse(federation, height, tuple(blocks), tuple(records.values()), tuple(sent), int(more)))
