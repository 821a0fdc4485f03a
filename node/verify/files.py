"""Files for outsiders: a whole ledger, one record's inclusion, one tree's consistency with an older one.

A file is a line that names its kind, then frames: 4 bytes of length, big-endian, and canonical bytes
(docs/provenance.md).

    ledger       Opening, then for each height a CosignedHead and as many records as its tree grew by
    inclusion    Opening, Inclusion, the walk of heads
    consistency  Opening, Consistency, the walk of heads

It is read frame by frame, each checked against its limit before it is read, and verified as it comes: a block's
records take memory, its ledger does not. Damage is a CorruptError, a failed check a VerificationError; both name the
file.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, BinaryIO, TypeVar

from ...crypto.errors import CorruptError, RefusedError, RemoteProtocolError, UsageError
from ...crypto.errors import VerificationError as Failed
from ...crypto.merkle import leaf_hash, verify_consistency, verify_inclusion
from ...protocol import schema
from ...protocol.blocks import Block
from ...protocol.charter import CHARTER_LIMIT, Charter, load_file
from ...protocol.records import Record
from ...protocol.schema import U63, Bytes32, Size
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_signed
from ..core.events import StoredBlock
from . import heads
from .heads import CosignedHead, Deciders, Walk
from .ledger import Progress, Report, verify_ledger

LEDGER, INCLUSION, CONSISTENCY = "ledger", "inclusion", "consistency"
WITHDRAWAL, ABSENCE = "withdrawal", "absence"  # certificate.py, deletion_receipt.py
MAGIC = {f"collegium/1 {kind}\n".encode(): kind for kind in (LEDGER, INCLUSION, CONSISTENCY, WITHDRAWAL, ABSENCE)}
LONGEST_MAGIC = max(map(len, MAGIC))
CHARTER_FILE_LIMIT = CHARTER_LIMIT + 65_536
OPENING_LIMIT = CHARTER_FILE_LIMIT + 1024
HEAD_LIMIT = 512 << 10
RECORD_LIMIT = SIGNATURE_SIZE + Record.LIMIT
CLAIM_LIMIT = RECORD_LIMIT + 8192
ADVICE = "Get an intact copy from its author, or have it made again (`ledger export`, `prove`, `consistency`)."

T = TypeVar("T")
Path_ = Annotated[tuple[Bytes32, ...], Size(0, 128)]


@dataclass(frozen=True, slots=True)
class Opening:
    """The charter file, and how many heads follow."""

    charter: Annotated[bytes, Size(1, CHARTER_FILE_LIMIT)]
    heads: U63


@dataclass(frozen=True, slots=True)
class Inclusion:
    """This record is leaf `index` of the tree that the block at `height` heads (RFC 6962 section 2.1.1)."""

    height: U63
    index: U63
    path: Path_
    record: Annotated[bytes, Size(SIGNATURE_SIZE + 1, RECORD_LIMIT)]


@dataclass(frozen=True, slots=True)
class Consistency:
    """The tree at height `second` appends to the tree at height `first` (RFC 6962 section 2.1.2)."""

    first: U63
    second: U63
    path: Path_


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A verified ledger."""

    charter: Charter
    report: Report

    def as_map(self) -> dict[str, object]:
        """Return what was verified as JSON; as in proofs, `membership_changes` counts heights."""
        seats = self.report.ledger.roll.seats.values()
        changes = {height for seat in seats for height in (seat.since, seat.until)} - {0}
        report = {"type": LEDGER, "name": self.charter.name, **self.report.as_map()}
        return {**report, "membership_changes": len(changes)}


@dataclass(frozen=True, slots=True)
class InclusionFile:
    """A verified proof that `record` is leaf `index` of the tree of `block`."""

    charter: Charter
    walk: Walk
    block: Block
    index: int
    record: Signed[Record]

    def as_map(self) -> dict[str, object]:
        """Return what was verified as JSON."""
        value = self.record.value
        record = {
            "digest": self.record.digest.hex(),
            "author": value.author.hex(),
            "seq": value.seq,
            "kind": value.kind,
            "position": self.index,
        }
        return {"type": INCLUSION, **_walk_facts(self.charter, self.walk, self.block), "record": record}


@dataclass(frozen=True, slots=True)
class ConsistencyFile:
    """A verified proof that the tree of `second` appends to the tree of `first`."""

    charter: Charter
    walk: Walk
    first: Block
    second: Block
    path: tuple[bytes, ...]

    def as_map(self) -> dict[str, object]:
        """Return what was verified as JSON."""
        older = {
            "height": self.first.height,
            "block": self.first.id.hex(),
            "tree_size": self.first.tree_size,
            "tree_root": self.first.tree_root.hex(),
        }
        return {"type": CONSISTENCY, **_walk_facts(self.charter, self.walk, self.second), "extends": older}


def _walk_facts(charter: Charter, walk: Walk, block: Block) -> dict[str, object]:
    return {
        "name": charter.name,
        "federation": charter.federation.hex(),
        "height": block.height,
        "block": block.id.hex(),
        "tree_size": block.tree_size,
        "tree_root": block.tree_root.hex(),
        "members": sorted(member.hex() for member in walk.members),
        "membership_changes": len(walk.changes),
        "signatures": walk.signatures,
    }


# ---- writing


def frame(data: bytes) -> bytes:
    """Return one frame."""
    return len(data).to_bytes(4, "big") + data


def opening(kind: str, charter: bytes, count: int) -> bytes:
    """Return how a file of this kind begins; `charter` is the charter file's bytes."""
    return f"collegium/1 {kind}\n".encode() + frame(schema.dump(Opening(charter, count)))


def ledger_frames(stored: StoredBlock, members: tuple[bytes, ...]) -> bytes:
    """Return the frames of one height; `members` are the deciding members from then on if they change, else empty."""
    head = frame(schema.dump(CosignedHead(stored.block, stored.certificate, members)))
    return b"".join((head, *(frame(record.wire) for record in stored.records)))


def proof(charter: bytes, claim: Inclusion | Consistency, walk: Iterable[CosignedHead]) -> bytes:
    """Return a proof file."""
    kind = INCLUSION if isinstance(claim, Inclusion) else CONSISTENCY
    frames = [frame(schema.dump(head)) for head in walk]
    return b"".join((opening(kind, charter, len(frames)), frame(schema.dump(claim)), *frames))


# ---- reading


class Frames:
    """The frames of one file, in order. Every error is a CorruptError that names the file."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        self._file, self.source = file, source

    def kind(self) -> str:
        """Read the first line."""
        line = self._file.readline(LONGEST_MAGIC)
        if not line:
            raise CorruptError(f"{self.source} is empty", ADVICE)
        if line in MAGIC:
            return MAGIC[line]
        if line.startswith(b"collegium/"):
            raise CorruptError(
                f"{self.source} is of another format than this version reads: {line[:40]!r}",
                "Verify it with the version of Collegium that it names, or a later one.",
            )
        raise CorruptError(
            f"{self.source} is no ledger file and no proof",
            "Name a file made by collegium ledger export, prove or consistency.",
        )

    def next(self, what: str, limit: int) -> bytes:
        """Read one frame of at most `limit` bytes."""
        size = int.from_bytes(self._read(4, what), "big")
        if size > limit:
            raise CorruptError(f"{self.source} is damaged: {what} has {size} bytes, {limit} are allowed", ADVICE)
        return self._read(size, what)

    def load(self, cls: type[T], what: str, limit: int) -> T:
        """Read one frame of this shape."""
        data = self.next(what, limit)
        try:
            return schema.load(cls, data, limit)
        except RemoteProtocolError as error:
            raise CorruptError(f"{self.source} is damaged: {what} is {error.reason}: {error.detail}", ADVICE) from error

    def end(self) -> None:
        """Refuse anything that follows."""
        if self._file.read(1):
            raise CorruptError(f"{self.source} goes on after its end", ADVICE)

    def _read(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise CorruptError(f"{self.source} is cut off: it ends within {what}", ADVICE)
        return data


def verify_file(
    file: BinaryIO,
    source: str,
    *,
    charter: Charter | None = None,
    pins: Mapping[int, bytes] | None = None,
    progress: Progress | None = None,
) -> LedgerFile | InclusionFile | ConsistencyFile:
    """Verify one file by its own kind, from the charter in it, which has to be `charter` if one is given.

    `source` names it in errors; `pins` are block ids by height that must be among its heads.
    Raises CorruptError (damaged, cut off, another format) or VerificationError (it does not hold).
    """
    frames = Frames(file, source)
    kind = frames.kind()
    if kind in (WITHDRAWAL, ABSENCE):
        what = "withdrawal certificate" if kind == WITHDRAWAL else "student's deletion receipt"
        raise UsageError(f"{source} is a {what}", "Verify it: collegium unlearn verify FILE.")
    start = frames.load(Opening, "the opening", OPENING_LIMIT)
    try:
        own = charter_of(start.charter, source)
        if charter is not None and charter.federation != own.federation:
            raise Failed(
                f"it is of federation {own.federation.hex()[:16]} ({own.name}), not of "
                f"{charter.federation.hex()[:16]} ({charter.name})",
                "Ask for a file of the federation that you mean.",
            )
        if kind == LEDGER:
            return _ledger(frames, own, start.heads, pins, progress)
        if kind == INCLUSION:
            return _inclusion(frames, own, start.heads, pins)
        return _consistency(frames, own, start.heads, pins)
    except Failed as error:
        raise Failed(f"{source}: {error.message}", error.advice) from error


def charter_of(data: bytes, source: str) -> Charter:
    """Read the charter; every founding member must have signed it, in the order of their keys."""
    try:
        charter, signed = load_file(data, f"the charter in {source}")
    except CorruptError:
        raise
    except (UsageError, RefusedError) as error:
        raise Failed(error.message, error.advice) from error
    if [entry.member for entry in signed.signatures] != [member.key for member in charter.members]:
        raise Failed("its charter is not signed by every founding member", ADVICE)
    return charter


def _ledger(
    frames: Frames, charter: Charter, count: int, pins: Mapping[int, bytes] | None, progress: Progress | None
) -> LedgerFile:
    step = None if progress is None else lambda what, done, _: progress(what, done, count)
    blocks = _blocks(frames, charter, count)
    report = verify_ledger(charter, blocks, pins=pins, progress=step, brief=True, opened=True)
    frames.end()
    return LedgerFile(charter, report)


def _blocks(frames: Frames, charter: Charter, count: int) -> Iterator[StoredBlock]:
    """Yield the blocks as they are read: the one before is verified when the next one is asked for."""
    deciders = Deciders.of(member.key for member in charter.members)
    size = 0
    for height in range(1, count + 1):
        where = f"height {height}"
        head = frames.load(CosignedHead, where, HEAD_LIMIT)
        grown = head.block.tree_size - size
        # No quota lets a height have more: a claim of more is refused before it is read.
        if not 0 <= grown <= len(deciders.members) * charter.rules.records_per_height:
            raise Failed(f"{where}: quota-records: the tree grows by {grown} records", ADVICE)
        most = len(deciders.members) * charter.rules.bytes_per_height
        records: list[Signed[Record]] = []
        for number in range(1, grown + 1):
            wire = frames.next(f"record {number} of {where}", RECORD_LIMIT)
            most -= len(wire)
            if most < 0:
                raise Failed(f"{where}: quota-bytes: its records are larger than the charter allows", ADVICE)
            records.append(_open_record(frames, wire, charter, f"record {number} of {where}"))
        try:
            deciders = deciders.after(head.block, head.members)
        except RemoteProtocolError as error:
            raise Failed(f"{where}: {error.reason}: {error.detail}", heads.ADVICE) from error
        size = head.block.tree_size
        yield StoredBlock(head.block, head.certificate, tuple(records))


def _open_record(frames: Frames, wire: bytes, charter: Charter, what: str) -> Signed[Record]:
    """Decode a record and check its signature."""
    try:
        return open_signed(Record, wire, charter.federation)
    except RemoteProtocolError as error:
        if error.reason in ("wrong-federation", "bad-signature"):
            raise Failed(f"{what}: {error.reason}: {error.detail}", heads.ADVICE) from error
        raise CorruptError(f"{frames.source} is damaged: {what} is {error.reason}: {error.detail}", ADVICE) from error


def _walk(frames: Frames, charter: Charter, count: int, at: tuple[int, ...], pins: Mapping[int, bytes] | None) -> Walk:
    def read() -> Iterator[CosignedHead]:
        for number in range(1, count + 1):
            yield frames.load(CosignedHead, f"head {number}", HEAD_LIMIT)

    walk = heads.check(charter, read(), at, pins=pins)
    frames.end()
    return walk


def _inclusion(frames: Frames, charter: Charter, count: int, pins: Mapping[int, bytes] | None) -> InclusionFile:
    claim = frames.load(Inclusion, "the proof", CLAIM_LIMIT)
    walk = _walk(frames, charter, count, (claim.height,), pins)
    block = walk.blocks[claim.height]
    try:
        record = open_signed(Record, claim.record, charter.federation)
    except RemoteProtocolError as error:
        raise Failed(f"the record: {error.reason}: {error.detail}", ADVICE) from error
    if not verify_inclusion(leaf_hash(record.digest), claim.index, block.tree_size, claim.path, block.tree_root):
        raise Failed(f"the record is not leaf {claim.index} of the tree at height {block.height}", ADVICE)
    return InclusionFile(charter, walk, block, claim.index, record)


def _consistency(frames: Frames, charter: Charter, count: int, pins: Mapping[int, bytes] | None) -> ConsistencyFile:
    claim = frames.load(Consistency, "the proof", CLAIM_LIMIT)
    if claim.first >= claim.second:
        raise Failed(f"height {claim.first} is not before height {claim.second}", ADVICE)
    walk = _walk(frames, charter, count, (claim.first, claim.second), pins)
    first, second = walk.blocks[claim.first], walk.blocks[claim.second]
    if not verify_consistency(first.tree_size, second.tree_size, first.tree_root, second.tree_root, claim.path):
        raise Failed(f"the tree at height {second.height} does not append to that at {first.height}", ADVICE)
    return ConsistencyFile(charter, walk, first, second, claim.path)
