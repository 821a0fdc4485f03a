"""Records verified a second, against PyNaCl's bare verify of the same bytes; then what outsiders check."""

from collections.abc import Callable, Sequence

import nacl.signing
from rich.console import Console

from ...consensus import fold
from ...crypto.errors import UsageError
from ...crypto.hashing import domain_tag, sha256
from ...crypto.identity import Identity
from ...node.core.events import StoredBlock
from ...node.verify import verify_ledger
from ...protocol import schema
from ...protocol.records import Attest, Record, Update, body_of, verify_ack
from ...protocol.signing import open_signed, sign
from ..simulator.cluster import Cluster
from ..simulator.invariants import Invariants
from . import outsiders
from .rows import Row, at_least, interleaved


def measure(quick: bool) -> Sequence[Row]:
    """Open signed records one by one; verify a whole ledger from its charter."""
    count = 500 if quick else 3000
    identity = Identity.from_seed(sha256(b"bench"))
    federation = bytes(32)
    key = nacl.signing.VerifyKey(identity.public_key)
    wires, bare = [], []
    for seq in range(1, count + 1):
        body = schema.dump(Attest("head/task", seq, 0, bytes(32)))
        record = sign(identity, Record(federation, identity.public_key, seq, bytes(32), "attest", body))
        wires.append(record.wire)
        bare.append((_framed(record.payload), record.signature))
    cluster = Cluster(4, 1, Invariants, rounds=5 if quick else 25)
    cluster.start()
    cluster.run(lambda: cluster.all_closed(5 if quick else 25))
    store = cluster.nodes[0].store
    blocks = [block for height in range(1, store.height() + 1) if (block := store.block(height))]
    signatures = _signatures(blocks)
    times = interleaved(
        {
            "bare": lambda: [key.verify(message, signature) for message, signature in bare],
            "open": lambda: [open_signed(Record, wire, federation) for wire in wires],
            "ledger": lambda: _cold(lambda: verify_ledger(cluster.charter, blocks)),
        },
        3 if quick else 5,
    )
    bare_rate = count / times["bare"]
    return [
        at_least("records opened and verified a second", count / times["open"], bare_rate, 0.7),
        at_least(
            f"whole ledger of {len(blocks)} blocks verified from its charter, signatures a second",
            signatures / times["ledger"],
            bare_rate,
            0.7,
        ),
        *_of_outsiders(quick),
    ]


def _of_outsiders(quick: bool) -> Sequence[Row]:
    """Measure the rest, or say that this is no checkout."""
    try:
        return outsiders.measure(quick)
    except UsageError as error:
        Console(stderr=True).print(f"left out: {error.message} ({error.advice})", style="yellow")
        return ()


def _cold(verify: Callable[[], object]) -> None:
    """Verify as a third party does, that saw none of it before."""
    for cached in (fold._open_header, fold._valid_acks, verify_ack):
        cached.cache_clear()
    verify()


def _framed(payload: bytes) -> bytes:
    return domain_tag("record") + payload


def _signatures(blocks: Sequence[StoredBlock]) -> int:
    """Count the distinct signatures that a verifier has to check: records, headers, acks and precommits."""
    total = 0
    for block in blocks:
        total += len(block.certificate.signatures) + len(block.records)
        for record in block.records:
            body = body_of(record.value)
            if isinstance(body, Update):
                total += 1 + len(body.acks)
    return total
