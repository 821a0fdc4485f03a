"""A student's deletion receipt: no update of this institution that is in force was trained on them (design.md section
9).

It opens the ledger state that a cosigned header names, with every frozen list. For each update of the institution on
the lists it has the signed header, whose `manifest` commits to a salt and to the tree of sampled students; and a proof
that the student's leaf in that tree is empty. The student's id is not in it: the person who checks it supplies the id.
With a salt anybody could try ids. So all that is not in the ledger is sealed under a key that is not in the file, and
padded to a power of two: two receipts of one student share nothing that the ledger does not show to every member.

    collegium/1 absence, Opening, Absence, the walk of heads
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, BinaryIO

from ...consensus.ledger import Ledger, genesis
from ...consensus.membership import earlier, present
from ...crypto import sealing, sparse
from ...crypto.errors import RefusedError, RemoteProtocolError, UsageError, VerificationError
from ...protocol import schema
from ...protocol.blocks import Block
from ...protocol.charter import Charter
from ...protocol.schema import Bytes32, Size
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_signed
from ...protocol.update import UpdateHeader
from ..unlearning.students import NONE, Manifest, manifest_root, tag
from . import files, heads
from .certificate import LIMIT, State, keys_of, opened, state_of
from .heads import CosignedHead, Walk
from .outsiders import Source

ADVICE = "Ask the institution for another receipt: `unlearn subject`."
END, NOBODY = b"\x01", b"\x02"  # what follows the sealed content; NOBODY: the institution had no record of the id


@dataclass(frozen=True, slots=True)
class Absent:
    """One update in force, by its signed header, and an empty place in the tree that it names."""

    header: Annotated[bytes, Size(SIGNATURE_SIZE + 1, SIGNATURE_SIZE + UpdateHeader.LIMIT)]
    salt: Bytes32
    tree: Bytes32
    path: Annotated[tuple[Annotated[bytes, Size(0, 32)], ...], Size(0, sparse.DEPTH)]


@dataclass(frozen=True, slots=True)
class Absence:
    """The claim: of `member`'s updates in force after the block at `state.height` none used the student's data."""

    member: Bytes32
    state: State
    sealed: Annotated[bytes, Size(40, LIMIT)]


@dataclass(frozen=True, slots=True)
class Shown:
    """The sealed content: END or NOBODY and zeros follow it, up to a power of two or the limit, to hide its length."""

    absent: Annotated[tuple[Absent, ...], Size(0, 2**20)]


@dataclass(frozen=True, slots=True)
class DeletionReceipt:
    """A checked receipt. `updates` are those in force; `withdrawn` counts those that were withdrawn one by one.

    `name` is the member's in the ledger. With no update in force it holds for every student, and anybody can make it.
    `id_known` is False where the institution says that neither its data nor a recorded training run had the id.
    """

    charter: Charter
    walk: Walk
    block: Block
    member: bytes
    name: str
    updates: Mapping[bytes, UpdateHeader]
    withdrawn: int
    id_known: bool = True

    @property
    def result(self) -> str:
        """Return "verified", or "nothing-in-force": then it shows nothing about this student."""
        return "verified" if self.updates else "nothing-in-force"

    def as_map(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "type": files.ABSENCE,
            "name": self.charter.name,
            "federation": self.charter.federation.hex(),
            "institution": self.member.hex(),
            "institution_name": self.name,
            "verified": bool(self.updates),
            "result": self.result,
            "id_known": self.id_known,
            "height": self.block.height,
            "block": self.block.id.hex(),
            "updates_in_force": len(self.updates),
            "last_rounds": {
                name: max(h.round for h in self.updates.values() if h.component == name)
                for name in sorted({h.component for h in self.updates.values()})
            },
            "withdrawn_updates": self.withdrawn,
        }


@dataclass(frozen=True, slots=True)
class Today:
    """Another ledger of the federation, compared with a receipt: its height, and updates that count only since."""

    height: int
    updates: int


def today(receipt: DeletionReceipt, source: Source) -> Today:
    """Hold a checked receipt against a ledger that the verifier trusts. Raises VerificationError if they differ."""
    height = receipt.block.height
    stored = source.block(height) if height <= source.top else None
    if stored is not None and stored.block.id != receipt.block.id:
        raise VerificationError(
            f"height {height}: the receipt names block {receipt.block.id.hex()[:16]}, this node's ledger has"
            f" {stored.block.id.hex()[:16]}",
            "One of the two is of another past: compare the block's id with other members.",
        )
    ledger: Ledger = genesis(source.charter)
    for _, ledger in source.history(source.top):  # noqa: B007 - the last one is used
        pass
    now = present(ledger.roll, receipt.member)
    keys = {now, *earlier(ledger.roll, now)}
    rounds = (round_ for c in ledger.components.values() for round_ in c.rounds)
    counted = {entry.update for round_ in rounds for entry in round_.entries if entry.author in keys}
    return Today(source.top, len(counted - set(receipt.updates)) if stored is not None else 0)


def make(
    source: Source,
    member: bytes,
    subject: str,
    key: bytes,
    headers: Iterable[Signed[UpdateHeader]],
    manifest: Callable[[bytes], Manifest | None],
    former: Iterable[bytes] = (),
    *,
    id_known: bool = True,
) -> Iterator[bytes]:
    """Yield the bytes of a receipt, as of the last block, sealed under `key`. `headers` are the institution's own.

    `former` are keys of the institution that the ledger does not link to `member`: what they sent is not in the
    receipt, but may stand in its way. With `id_known` False it says that nobody here has this id. Raises RefusedError
    if an update in force saw the student, or if nobody wrote down whom it saw.
    """
    last = source.height(None)
    ledger: Ledger = genesis(source.charter)
    for _, ledger in source.history(last):  # noqa: B007 - the last one is used
        pass
    keys = {member, *earlier(ledger.roll, member)}
    own = keys.union(earlier_key for old in former for earlier_key in (old, *earlier(ledger.roll, old)))
    by_digest = {header.digest: header for header in headers}
    absent = []
    for c in ledger.components.values():
        for round_ in c.rounds:
            for entry in (entry for entry in round_.entries if entry.author in own):
                where = f"the update of {c.name} that counts in round {round_.number}"
                if entry.author not in keys:
                    where += f" under the former key {entry.author.hex()[:16]}"
                header = by_digest.get(entry.update)
                if header is None or header.value.manifest == NONE:
                    raise RefusedError(f"{where} has no manifest: its students are unknown", "Withdraw it.")
                listed = manifest(header.value.manifest)
                if listed is None:
                    raise RefusedError(f"the manifest of {where} is not here", "Restore the folder manifests.")
                if listed.has(subject):
                    raise RefusedError(
                        f"{where} was trained on this student and is in force",
                        "Wait until its withdrawal is agreed on (`collegium unlearn status`), or it is beyond the"
                        " refold horizon.",
                    )
                if entry.author not in keys:
                    continue  # the check cannot see that it is this institution's
                leaves = listed.leaves()
                path = tuple(sparse.absence(leaves, tag(listed.salt, subject)))
                absent.append(Absent(header.wire, listed.salt, sparse.root(leaves), path))
    if member not in ledger.roll.seats:
        raise RefusedError("this node's key has no seat in the federation", "Wait until it is admitted: `node status`.")
    walk = source.walk(ledger, (last,))
    empty = Absence(member, state_of(ledger), sealing.seal(key, b""))
    room = LIMIT - len(schema.dump(empty)) - 8  # its length takes some bytes more
    claim = replace(empty, sealed=sealing.seal(key, _padded(tuple(absent), room, END if id_known else NOBODY)))
    yield files.opening(files.ABSENCE, source.charter_file, len(walk))
    yield files.frame(schema.dump(claim))
    for head in walk:
        yield files.frame(schema.dump(head))


def _padded(absent: tuple[Absent, ...], room: int = LIMIT, end: bytes = END) -> bytes:
    content = schema.dump(Shown(absent)) + end
    if len(content) > room:
        raise RefusedError(f"{len(absent)} updates are in force: that is more than a receipt holds")
    return content.ljust(min(1 << len(content).bit_length(), room), b"\x00")


def check(
    file: BinaryIO,
    source: str,
    subject: str,
    key: bytes,
    *,
    charter: Charter | None = None,
    pins: Mapping[int, bytes] | None = None,
) -> DeletionReceipt:
    """Check a receipt for the student with this id, sealed under `key`. Raises CorruptError or VerificationError."""
    frames = files.Frames(file, source)
    if frames.kind() != files.ABSENCE:
        raise UsageError(f"{source} is no receipt", "Verify it without --subject.")
    start = frames.load(files.Opening, "the opening", files.OPENING_LIMIT)
    own = files.charter_of(start.charter, source)
    if charter is not None and charter.federation != own.federation:
        raise VerificationError(f"{source}: it is of federation {own.name}, not of {charter.name}", ADVICE)
    claim = frames.load(Absence, "the claim", LIMIT)
    try:
        listed = (frames.load(CosignedHead, f"head {n}", files.HEAD_LIMIT) for n in range(1, start.heads + 1))
        walk = heads.check(own, listed, (claim.state.height,), pins=pins)
        frames.end()
        held = _hold(own, walk, claim, subject, _opened_proofs(claim, key))
        return replace(held, id_known=_unsealed(claim, key)[-1:] != NOBODY)
    except VerificationError as error:
        raise VerificationError(f"{source}: {error.message}", error.advice) from error
    except RemoteProtocolError as error:
        raise VerificationError(f"{source}: {error.reason}: {error.detail}", ADVICE) from error


def _unsealed(claim: Absence, key: bytes) -> bytes:
    plain = sealing.unseal(key, claim.sealed)
    if plain is None:
        raise VerificationError("the key is not the one of this receipt", "It was shown once, when it was written.")
    return plain.rstrip(b"\x00")


def _opened_proofs(claim: Absence, key: bytes) -> tuple[Absent, ...]:
    return schema.load(Shown, _unsealed(claim, key)[:-1], LIMIT).absent


def _hold(charter: Charter, walk: Walk, claim: Absence, subject: str, absent: Iterable[Absent]) -> DeletionReceipt:
    block = walk.blocks[claim.state.height]
    now, lists = opened(charter, block, claim.state)
    seats = {member.key: member.name for member in charter.members} | dict(now.names)
    if claim.member not in seats:
        raise VerificationError("the institution that it names has no seat in this federation", ADVICE)
    if claim.member in now.successors:
        raise VerificationError("the institution had changed its key by then: it names too few updates", ADVICE)
    keys = keys_of(now, claim.member)
    wanted = {e.update for rounds in lists.values() for r in rounds for e in r.entries if e.author in keys}
    seen: dict[bytes, UpdateHeader] = {}
    for proof in absent:
        header = open_signed(UpdateHeader, proof.header, charter.federation)
        if header.digest not in wanted or header.digest in seen:
            raise VerificationError("it shows an update that is not in force, or one twice", ADVICE)
        where = f"{header.value.component} round {header.value.round}"
        if manifest_root(proof.salt, proof.tree) != header.value.manifest:
            raise VerificationError(f"{where}: salt and tree are not those that the update names", ADVICE)
        if not sparse.verify_absence(proof.tree, tag(proof.salt, subject), proof.path):
            raise VerificationError(
                f"{where}: it does not show that this student was not sampled",
                "It is another student's deletion receipt, or a false one. Write the id as the institution's data"
                " have it.",
            )
        seen[header.digest] = header.value
    if missing := wanted - set(seen):
        raise VerificationError(f"{len(missing)} updates of this institution are in force and not shown", ADVICE)
    single = sum(len(w.updates) for w in now.withdrawn if w.author in keys and w.scope == "updates")
    return DeletionReceipt(charter, walk, block, claim.member, seats[claim.member], seen, single)


def made_and_checked(parts: Iterable[bytes], subject: str, key: bytes, source: str) -> tuple[bytes, DeletionReceipt]:
    """Return a receipt's bytes, checked as the student will check them."""
    content = b"".join(parts)
    return content, check(io.BytesIO(content), source, subject, key)
