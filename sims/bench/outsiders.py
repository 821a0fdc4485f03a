"""The cost of an outsider's check of a file: against bare signature checks, in memory, in bytes; and its refusals."""

import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgpack
import nacl.signing

from ...consensus import fold
from ...crypto.errors import OperatorError
from ...crypto.hashing import digest, domain_tag
from ...crypto.merkle import consistency_proof, inclusion_proof, leaf_hash
from ...node.core.events import StoredBlock
from ...node.verify import files, heads
from ...node.verify.files import Consistency, Inclusion
from ...protocol import records, schema, signing
from ...protocol.blocks import PRECOMMIT, Vote
from ...protocol.records import ack_message
from ..paper import mutations, verifying
from ..paper.paper_federation import PaperFederation
from ..paper.sample_ledger import sample_ledger
from .rows import Row, at_least

PRODUCT, INDEPENDENT = "collegium ledger verify", "docs/verifier"
COMPONENTS = 6  # as a model of three modalities and two tasks has
READS = 64  # between two slices of the bare checks
CHILDREN = {  # no more imported than a verifier needs
    PRODUCT: "from collegium.node.verify import verify_file; check = lambda file: verify_file(file, 'it')",
    INDEPENDENT: f"""
import sys
sys.path.insert(0, {str(verifying.VERIFIER.parent)!r})
from collegium_verify import verify as check
""",
}
# Peak memory from /proc: getrusage counts the parent's, too.
CHILD = """
import sys
with open(sys.argv[1], "rb") as file:
    check(file)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
Check = tuple[bytes, bytes, bytes]  # key, message, signature


def measure(quick: bool) -> Sequence[Row]:
    """Verify files of a long ledger by both verifiers; tamper with those of a short one."""
    least, most, mutations = (200, 2_000, 300) if quick else (10_000, 100_000, 10_000)
    both = verifiers()
    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        short, long = (Path(folder) / f"{count}.ledger" for count in (least, most))
        history = write_ledgers(short, least, long, most)
        rows = []
        for name, verify in both.items():
            ours, bare, count = paced(long, verify)
            title = f"{name}: a file of {most:,} records verified, signatures a second of CPU"
            rows.append(at_least(title, count / ours, count / bare, 0.7))
        for name in both:
            small, large = peak(name, short), peak(name, long)
            title = f"{name}: peak memory, MB, {most:,} records against {least:,}"
            rows.append(Row(title, large / 1e6, small / 1e6, large / small, "report"))
        rows.append(Row(f"the same file, bytes a record, {most:,} records", long.stat().st_size / most, goal="report"))
    return [*rows, *proof_sizes(history), caught(mutations)]


def verifiers() -> dict[str, Callable[[BinaryIO], object]]:
    """Return the measurements. Raises UsageError outside of a checkout: the second one is no part of the package."""
    return {PRODUCT: _product, INDEPENDENT: verifying.load_independent().verify}


def _product(stream: BinaryIO) -> object:
    return files.verify_file(stream, "the file")


# ---- long ledgers


@dataclass(slots=True)
class History:
    """The cost of proofs of a long ledger."""

    federation: PaperFederation
    leaves: list[bytes]
    blocks: dict[int, StoredBlock]  # of two heights
    record: bytes


def write_ledgers(short: Path, least: int, long: Path, most: int) -> History:
    """Write a ledger of at least so many records, and its beginning."""
    federation = PaperFederation(components=COMPONENTS)
    body = long.with_suffix(".body")
    leaves: list[bytes] = []
    count, cut, size, middle = 0, 0, 0, None
    with body.open("wb") as file:
        for stored in federation.rounds(most):
            count += 1
            file.write(files.ledger_frames(stored, ()))
            leaves += [leaf_hash(record.digest) for record in stored.records]
            if middle is None and len(leaves) >= least:
                cut, size, middle = count, file.tell(), stored
    assert middle is not None
    with body.open("rb") as file:
        for path, heights, length in ((short, cut, size), (long, count, body.stat().st_size)):
            file.seek(0)
            with path.open("wb") as target:
                target.write(files.opening(files.LEDGER, federation.charter_file, heights))
                shutil.copyfileobj(_Prefix(file, length), target)
    body.unlink()
    blocks = {middle.block.height: middle, stored.block.height: stored}
    return History(federation, leaves, blocks, middle.records[0].wire)


class _Prefix:
    """The first bytes of a file, to be copied."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def read(self, size: int = -1, /) -> bytes:
        """Read on, up to the end of the prefix."""
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def proof_sizes(history: History) -> list[Row]:
    """Prove a record, and the growth from one height to the other."""
    federation, leaves = history.federation, history.leaves
    first, last = sorted(history.blocks)
    index = history.blocks[first].block.tree_size - len(history.blocks[first].records)
    size = len(federation.charter_file)
    rows = []
    claims: list[tuple[str, Inclusion | Consistency, tuple[int, ...]]] = [
        ("inclusion", Inclusion(last, index, tuple(inclusion_proof(leaves, index)), history.record), (last,)),
        (
            "consistency",
            Consistency(first, last, tuple(consistency_proof(leaves, history.blocks[first].block.tree_size))),
            (first, last),
        ),
    ]
    for name, claim, at in claims:
        walk = heads.collect(federation.charter, federation.ledger.roll, history.blocks.values(), at)
        data = files.proof(federation.charter_file, claim, walk)
        files.verify_file(io.BytesIO(data), name)
        title = f"bytes of a proof of {name} in {len(leaves):,} records, 4 members, {size:,} of them the charter"
        rows.append(Row(title, len(data), goal="report"))
    return rows


# ---- speed


class Paced:
    """A stream that, every so many reads, lets something else run first, whose time is kept apart."""

    def __init__(self, file: BinaryIO, other: Callable[[], object]) -> None:
        self._file, self._other = file, other
        self._reads, self.apart = 0, 0.0

    def readline(self, limit: int) -> bytes:
        """Read the first line."""
        return self._file.readline(limit)

    def read(self, size: int) -> bytes:
        """Read on."""
        self._reads += 1
        if self._reads % READS == 0:
            before = time.process_time()
            self._other()
            self.apart += time.process_time() - before
        return self._file.read(size)


def paced(path: Path, verify: Callable[[BinaryIO], object]) -> tuple[float, float, int]:
    """Verify a file, and check its signatures barely, in turns; return the seconds of each and how many signatures.

    A noisy machine then disturbs both alike. Caches are cold: nothing of the file was seen before.
    """
    forget()
    bare = _Bare(path)
    with path.open("rb") as file:
        stream = Paced(file, bare.slice)
        before = time.process_time()
        verify(cast("BinaryIO", stream))
        ours = time.process_time() - before - stream.apart
    bare.slice(None)
    return ours, bare.seconds, bare.count


class _Bare:
    """Checks the signatures of a file by PyNaCl alone; reading and framing them is not counted."""

    def __init__(self, path: Path) -> None:
        self._checks = signatures(path)
        self.seconds, self.count = 0.0, 0

    def slice(self, size: int | None = 2 * READS) -> None:
        """Check so many more; all that are left."""
        for checks in iter(lambda: list(islice(self._checks, size or 4096)), []):
            keys = [(nacl.signing.VerifyKey(key), message, signature) for key, message, signature in checks]
            before = time.process_time()
            for key, message, signature in keys:
                key.verify(message, signature)
            self.seconds += time.process_time() - before
            self.count += len(keys)
            if size is not None:
                return


def signatures(path: Path) -> Iterator[Check]:
    """Yield every signature that a verifier of a ledger file has to check: (key, message, signature)."""
    parts = iter(_frames(path))
    opening = msgpack.unpackb(next(parts))
    outer = msgpack.unpackb(opening["charter"])
    federation = digest("charter", outer["charter"])
    for entry in outer["signatures"]:
        yield entry["member"], domain_tag("charter") + federation, entry["signature"]
    size = 0
    for data in parts:
        head = msgpack.unpackb(data)
        block, certificate = head["block"], head["certificate"]
        name = digest("block", msgpack.packb(block))
        for entry in certificate["signatures"]:
            vote = Vote(federation, entry["author"], block["height"], certificate["view"], PRECOMMIT, name)
            yield entry["author"], domain_tag("vote") + schema.dump(vote), entry["signature"]
        for _ in range(block["tree_size"] - size):
            wire = next(parts)
            record = msgpack.unpackb(wire[64:])
            yield record["author"], domain_tag("record") + wire[64:], wire[:64]
            if record["kind"] == "update":
                update = msgpack.unpackb(record["body"])
                header = update["header"]
                yield record["author"], domain_tag("update") + header[64:], header[:64]
                message = domain_tag("ack") + ack_message(federation, digest("update", header[64:]))
                for ack in update["acks"]:
                    yield ack["host"], message, ack["signature"]
        size = block["tree_size"]


def _frames(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.readline()
        while length := file.read(4):
            yield file.read(int.from_bytes(length, "big"))


def forget() -> None:
    """Empty every cache that a third party's process would begin without."""
    for cached in (fold._open_header, fold._valid_acks, records.verify_ack, records._decoded, signing._opened):
        cached.cache_clear()


# ---- memory


def peak(name: str, path: Path) -> float:
    """Verify a file in a process of its own; return its peak memory in bytes."""
    words = [sys.executable, "-c", CHILDREN[name] + CHILD, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - this program, files of ours
    if done.returncode:
        raise OperatorError(f"{name} ended with {done.returncode}: {done.stderr.strip()[-500:]}", "Run it alone.")
    return float(done.stdout) * 1024


# ---- mutations


def caught(count: int) -> Row:
    """Tamper with the three files of the sample ledger; both verifiers have to refuse each."""
    module = verifying.load_independent()
    originals = mutations.originals(sample_ledger())
    with verifying.remembered(module):
        tally = mutations.tamper(
            originals, {PRODUCT: verifying.product, INDEPENDENT: verifying.independent(module)}, count=count
        )
    missed = len({number for _, number, _, _ in tally.missed})
    title = f"mutations of {len(tally.tried)} classes that both verifiers refuse"
    return Row(title, count - missed, count, (count - missed) / count, "100 %", missed == 0)
