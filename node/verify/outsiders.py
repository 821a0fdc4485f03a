"""Make files for outsiders from one node's directory, beside a running daemon or without one (files.py).

The store is folded once, its signatures trusted; a proof is verified, as the outsider will, before it is handed out.
"""

import io
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, genesis
from ...crypto.errors import CorruptError, RemoteProtocolError, UsageError
from ...crypto.merkle import consistency_proof, inclusion_proof, leaf_hash
from ...protocol.charter import Charter
from ...protocol.records import Record
from ...protocol.signing import Signed
from ...protocol.update import UpdateHeader
from ..core.events import StoredBlock
from ..home.paths import Home
from ..store.database import Store
from . import files, heads
from .files import Consistency, ConsistencyFile, Inclusion, InclusionFile
from .heads import CosignedHead, Deciders
from .home import read_charter
from .ledger import Progress

SHORTEST_PREFIX = 6
RESTORE = "Restore a backup of this node's directory; `collegium ledger verify` says more."


@dataclass(frozen=True, slots=True)
class Source:
    """A ledger to make files of: the charter, its file's bytes, how to read the block at a height, the last height."""

    charter: Charter
    charter_file: bytes
    block: Callable[[int], StoredBlock | None]
    top: int
    name: str
    progress: Progress | None = None

    def history(self, until: int) -> Iterator[tuple[StoredBlock, Ledger]]:
        """Yield each block up to a height, and the ledger after it. Raises CorruptError."""
        ledger = genesis(self.charter)
        for height in range(1, until + 1):
            stored = self._block_at(height)
            try:
                ledger = fold_block(ledger, stored.block, stored.records, trusted=True)
            except RemoteProtocolError as error:
                raise CorruptError(f"{self.name} does not fold at height {height}: {error}", RESTORE) from error
            if self.progress is not None:
                self.progress("blocks", height, until)
            yield stored, ledger

    def walk(self, ledger: Ledger, at: Collection[int]) -> tuple[CosignedHead, ...]:
        """Return the walk of heads to these heights; `ledger` is that of the last of them, or later."""
        needed = heads.needed(ledger.roll, at)
        return heads.collect(self.charter, ledger.roll, map(self._block_at, needed), at)

    def height(self, asked: int | None) -> int:
        """Return a height that there is, by default the last one. Raises UsageError."""
        if not self.top:
            raise UsageError("Nothing is agreed on yet", "Start the node: collegium node start.")
        if asked is not None and not 1 <= asked <= self.top:
            raise UsageError(f"There is no block {asked}", f"The last one is {self.top}.")
        return self.top if asked is None else asked

    def _block_at(self, height: int) -> StoredBlock:
        stored = self.block(height)
        if stored is None:
            raise CorruptError(f"{self.name} has no block at height {height}", RESTORE)
        return stored


@contextmanager
def source_of(home: Home, progress: Progress | None = None) -> Iterator[Source]:
    """Open a node's directory for reading. Raises UsageError, CorruptError."""
    charter, _ = read_charter(home.charter)
    with Store.open_readonly(home.database) as store:
        if store.federation != charter.federation:
            raise UsageError(
                f"{home.database} belongs to another federation than {home.charter}", "Put back this node's charter."
            )
        name = f"The database {home.database}"
        yield Source(charter, home.charter.read_bytes(), store.block, store.height(), name, progress)


def export(source: Source, until: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a ledger file, height by height."""
    last = source.height(until)
    yield files.opening(files.LEDGER, source.charter_file, last)
    deciders = Deciders.of(member.key for member in source.charter.members)
    for stored, ledger in source.history(last):
        changed = stored.block.members != deciders.digest
        yield files.ledger_frames(stored, ledger.members if changed else ())
        deciders = Deciders.of(ledger.members) if changed else deciders


def prove(source: Source, reference: str, at: int | None = None) -> tuple[bytes, InclusionFile]:
    """Return a proof that one record is in the tree at a height, and the result of its verification.

    `reference` is a prefix of the record's digest. Raises UsageError if it names none, or more than one.
    """
    prefix = reference.lower()
    if len(prefix) < SHORTEST_PREFIX or prefix.strip("0123456789abcdef"):
        advice = f"Give at least {SHORTEST_PREFIX} hexadecimal digits; `collegium ledger log` lists records."
        raise UsageError(f"{reference!r} is not the beginning of a record's digest", advice)
    last = source.height(at)
    leaves: list[bytes] = []
    records: list[tuple[int, Signed[Record]]] = []
    ledger = genesis(source.charter)
    for stored, ledger in source.history(last):  # noqa: B007 - the last one is used
        for record in stored.records:
            if record.digest.hex().startswith(prefix):
                records.append((len(leaves), record))
            leaves.append(leaf_hash(record.digest))
    if len(records) > 1:
        raise UsageError(f"{reference} is the beginning of more than one digest", "Give more digits.")
    if not records:
        raise UsageError(
            f"No record agreed on up to height {last} begins with {reference}", "`collegium ledger log` lists them."
        )
    ((index, record),) = records
    claim = Inclusion(last, index, tuple(inclusion_proof(leaves, index)), record.wire)
    data = files.proof(source.charter_file, claim, source.walk(ledger, (last,)))
    checked = files.verify_file(io.BytesIO(data), "the proof")
    assert isinstance(checked, InclusionFile)
    return data, checked


def consistency(source: Source, first: int, second: int) -> tuple[bytes, ConsistencyFile]:
    """Return a proof that the tree at one height appends to that at an earlier one, and its verification."""
    if first >= second:
        raise UsageError(f"Height {first} is not before height {second}", "Name the earlier height first.")
    last = source.height(second)
    leaves: list[bytes] = []
    size = 0
    ledger = genesis(source.charter)
    for stored, ledger in source.history(last):  # noqa: B007 - as above
        leaves += [leaf_hash(record.digest) for record in stored.records]
        if stored.block.height == source.height(first):
            size = len(leaves)
    claim = Consistency(first, last, tuple(consistency_proof(leaves, size)))
    data = files.proof(source.charter_file, claim, source.walk(ledger, (first, last)))
    checked = files.verify_file(io.BytesIO(data), "the proof")
    assert isinstance(checked, ConsistencyFile)
    return data, checked


def headers_of(home: Home) -> tuple[Signed[UpdateHeader], ...]:
    """Return the update headers that this node signed or acknowledged."""
    with Store.open_readonly(home.database) as store:
        return store.headers()
