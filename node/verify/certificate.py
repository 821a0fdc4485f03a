"""A withdrawal's certificate: one file that shows, offline, what was removed and that nothing else was (G7).

It holds the cosigned heads before the first withdrawal of a member and after the last, with a proof that the second
tree appends to the first; the ledger states that both headers name, with every frozen list; and the signed statement
or the motion behind each withdrawal, with a proof that it is in the second tree. It cannot show that an institution
deleted its own data: it is about published contributions.

The module is long because making and checking are together: a change of the file's format changes both.

    collegium/1 withdrawal, Opening, Removal, the walk of heads, then `updates` frames of surviving update bytes
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, BinaryIO

from zstandard import ZstdError

from ...consensus.components import Entry, Round, chained, fold_round, origin
from ...consensus.ledger import Ledger, Withdrawn, genesis, names
from ...consensus.membership import WITHDRAWALS, earlier, present, terms
from ...consensus.summary import ComponentSummary, Summary, summary, summary_digest
from ...consensus.withdrawal import expanded
from ...crypto.errors import RemoteProtocolError, UsageError, VerificationError
from ...crypto.hashing import sha256
from ...crypto.merkle import consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion
from ...protocol import schema
from ...protocol.amendment import read
from ...protocol.blocks import Block, quorum
from ...protocol.charter import Charter
from ...protocol.components import ComponentSpec, state_digest
from ...protocol.membership import ACTIONS, Motion
from ...protocol.records import GENESIS, Record, Withdrawal, WithdrawalStatement, body_of
from ...protocol.schema import MAX_HOSTS, U32, U63, Bytes32, Name, Size
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_signed
from ...protocol.update import Integers, max_frame_size, payload_values
from ..store.blobs import BLOB_LIMIT
from . import files, heads
from .bytes import Bytes
from .heads import CosignedHead, Walk
from .outsiders import Source
from .states import label

LIMIT = 64 << 20
ADVICE = "Ask its author for another one: collegium unlearn certificate."


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a frozen list. `variance` in decimal digits: it may exceed 64 bits."""

    update: Bytes32
    author: Bytes32
    blob: Bytes32
    size: U63
    staleness: U32
    variance: Annotated[str, Size(1, 64)]
    seq: U63


@dataclass(frozen=True, slots=True)
class Frozen:
    """One frozen list."""

    number: U63
    faults: U32
    entries: Annotated[tuple[Listed, ...], Size(0, MAX_HOSTS)]


@dataclass(frozen=True, slots=True)
class Lists:
    """All frozen lists of one component."""

    component: Name
    rounds: Annotated[tuple[Frozen, ...], Size(0, 2**20)]


@dataclass(frozen=True, slots=True)
class State:
    """A ledger state as a header names it, opened: its summary, and the lists behind every component's chain."""

    height: U63
    summary: Annotated[bytes, Size(1, LIMIT)]
    lists: Annotated[tuple[Lists, ...], Size(0, 256)]


@dataclass(frozen=True, slots=True)
class Word:
    """The record behind a withdrawal, and where it is in the tree: a signed statement, or a motion that passed."""

    record: Annotated[bytes, Size(SIGNATURE_SIZE + 1, files.RECORD_LIMIT)]
    index: U63
    path: files.Path_


@dataclass(frozen=True, slots=True)
class Removal:
    """The claim: `member`'s contributions that its withdrawals name were counted before and are not after."""

    member: Bytes32
    before: State
    after: State
    words: Annotated[tuple[Word, ...], Size(1, 1024)]
    path: files.Path_
    updates: U63


@dataclass(frozen=True, slots=True)
class Gone:
    """One component: what its lists lost by the member's withdrawals, and what its state is now.

    `removed`: updates of the member; `others`: of others, by a rewind; `kept`: named, and beyond the refold horizon.
    `refolded`: whether the surviving bytes were there and fold to the certified digest.
    """

    component: str
    generation: int
    round: int
    removed: int
    others: int
    kept: int
    label: str
    certified_round: int | None
    digest: bytes | None
    attested: int
    needed: int
    refolded: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked certificate. It holds if there are no `problems`."""

    charter: Charter
    walk: Walk
    before: Block
    after: Block
    member: bytes
    withdrawn: tuple[Withdrawn, ...]
    components: tuple[Gone, ...]
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    def as_map(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "type": files.WITHDRAWAL,
            "name": self.charter.name,
            "federation": self.charter.federation.hex(),
            "member": self.member.hex(),
            "verified": self.verified,
            "problems": list(self.problems),
            "before": {"height": self.before.height, "block": self.before.id.hex()},
            "height": self.after.height,
            "block": self.after.id.hex(),
            "withdrawals": [
                {"mode": w.mode, "scope": w.scope, "through": w.through, "motion": w.motion.hex() or None}
                for w in self.withdrawn
            ],
            "components": [
                {
                    "component": c.component,
                    "generation": c.generation,
                    "round": c.round,
                    "removed_updates": c.removed,
                    "rewound_updates_of_others": c.others,
                    "updates_beyond_refold_horizon": c.kept,
                    "label": c.label,
                    "certified_round": c.certified_round,
                    "digest": None if c.digest is None else c.digest.hex(),
                    "attested": c.attested,
                    "needed": c.needed,
                    "refolded": c.refolded,
                }
                for c in self.components
            ],
        }


# ---- making


def make(source: Source, member: bytes, data: Bytes | None = None) -> Iterator[bytes]:
    """Yield the bytes of a certificate of all that a member withdrew; with `data` the surviving updates as well.

    Raises UsageError if it withdrew nothing, or if bytes are missing here.
    """
    last = source.height(None)
    before, ledger = genesis(source.charter), genesis(source.charter)
    for _, ledger in source.history(last):  # noqa: B007 - the last one has this member's keys
        pass
    member = present(ledger.roll, member)
    keys, ledger = {member, *earlier(ledger.roll, member)}, before
    seen, leaves = False, list[bytes]()
    records: list[tuple[int, Signed[Record]]] = []
    for stored, after in source.history(last):
        fresh = [w for w in after.withdrawn if w.author in keys and w not in ledger.withdrawn]
        if fresh and not seen:
            before, seen = ledger, True
        for record in stored.records:
            if record.value.kind == "motion" or (fresh and record.value.kind == "withdrawal"):
                records.append((len(leaves), record))
            leaves.append(leaf_hash(record.digest))
        ledger = after
    motions = {w.motion for w in ledger.withdrawn if w.author in keys}
    if not seen:
        raise UsageError(
            f"The ledger up to height {last} has no withdrawal of {member.hex()[:16]}",
            "`collegium unlearn status` lists them.",
        )
    if before.height == 0:
        raise UsageError("It was withdrawn before anything was agreed on", "There is nothing that could be shown gone.")
    words = [
        Word(record.wire, index, tuple(inclusion_proof(leaves, index)))
        for index, record in records
        if record.digest in motions or _owner(record) in keys
    ]
    survivors = sorted({e.blob for c in ledger.components.values() for r in c.rounds for e in r.entries})
    claim = Removal(
        member,
        state_of(before),
        state_of(ledger),
        tuple(words),
        tuple(consistency_proof(leaves, before.tree.size)),
        len(survivors) if data is not None else 0,
    )
    walk = source.walk(ledger, (before.height, ledger.height))
    yield files.opening(files.WITHDRAWAL, source.charter_file, len(walk))
    yield files.frame(schema.dump(claim))
    for head in walk:
        yield files.frame(schema.dump(head))
    for blob in survivors if data is not None else ():
        content = data.get(blob) if data is not None else None
        if content is None:
            raise UsageError(
                f"The bytes of update {blob.hex()[:16]} are not here", "Make it at a host, or leave --with-updates out."
            )
        yield files.frame(content)


def _owner(record: Signed[Record]) -> bytes:
    """Whose withdrawal a record carries; b"" if none."""
    body = body_of(record.value) if record.value.kind == "withdrawal" else None
    if not isinstance(body, Withdrawal):
        return b""
    return schema.load(WithdrawalStatement, body.statement[SIGNATURE_SIZE:], WithdrawalStatement.LIMIT).author


def state_of(ledger: Ledger) -> State:
    """Return a ledger state opened."""
    lists = []
    for name, c in sorted(ledger.components.items()):
        rounds = [
            Frozen(
                r.number,
                r.faults,
                tuple(
                    Listed(e.update, e.author, e.blob, e.size, e.staleness, str(e.variance), e.seq) for e in r.entries
                ),
            )
            for r in c.rounds
        ]
        lists.append(Lists(name, tuple(rounds)))
    return State(ledger.height, summary(ledger), tuple(lists))


# ---- checking


def check(
    file: BinaryIO,
    source: str,
    *,
    charter: Charter | None = None,
    pins: Mapping[int, bytes] | None = None,
    data: Bytes | None = None,
) -> Checked:
    """Check a certificate, from the charter in it, which has to be `charter` if one is given.

    `data` may hold surviving updates besides those in the file: then their fold is held against the certified digests.
    Raises CorruptError (damaged) or VerificationError (it does not hold); pending work is in `problems`.
    """
    frames = files.Frames(file, source)
    kind = frames.kind()
    if kind == files.ABSENCE:
        raise UsageError(f"{source} is a student's deletion receipt", "Give the student's id: --subject ID.")
    if kind != files.WITHDRAWAL:
        raise UsageError(f"{source} is no withdrawal certificate", "Verify it: collegium ledger verify FILE.")
    start = frames.load(files.Opening, "the opening", files.OPENING_LIMIT)
    own = files.charter_of(start.charter, source)
    if charter is not None and charter.federation != own.federation:
        raise VerificationError(
            f"{source}: it is of federation {own.federation.hex()[:16]} ({own.name}), not of {charter.name}",
            "Ask for a certificate of the federation that you mean.",
        )
    claim = frames.load(Removal, "the claim", LIMIT)
    try:
        at = (claim.before.height, claim.after.height)
        if not at[0] < at[1]:
            raise VerificationError(f"height {at[0]} is not before height {at[1]}", ADVICE)
        listed = (frames.load(CosignedHead, f"head {n}", files.HEAD_LIMIT) for n in range(1, start.heads + 1))
        walk = heads.check(own, listed, at, pins=pins)
        # Its bytes are held against the header below, with all of the ledger's state.
        in_force = read(Summary.read(claim.after.summary, LIMIT).charter, own)
        bytes_ = _Both(_carried(frames, in_force, claim), data)
        frames.end()
        return _hold(own, walk, claim, bytes_)
    except VerificationError as error:
        raise VerificationError(f"{source}: {error.message}", error.advice) from error
    except RemoteProtocolError as error:
        raise VerificationError(f"{source}: {error.reason}: {error.detail}", ADVICE) from error


@dataclass(frozen=True, slots=True)
class _Both:
    """Bytes that the file carries, and others."""

    carried: Mapping[bytes, bytes]
    others: Bytes | None

    def get(self, digest: bytes) -> bytes | None:
        carried = self.carried.get(digest)
        return self.others.get(digest) if carried is None and self.others is not None else carried


def _carried(frames: files.Frames, charter: Charter, claim: Removal) -> dict[bytes, bytes]:
    """Read the update bytes in the file: those that a list names, each once."""
    named = {
        e.blob: spec
        for lists in claim.after.lists
        for spec in [charter.component(lists.component)]
        for r in lists.rounds
        for e in r.entries
    }
    if claim.updates not in (0, len(named)):
        raise VerificationError(f"it carries {claim.updates} updates, its lists name {len(named)}", ADVICE)
    blobs: dict[bytes, bytes] = {}
    for number in range(1, claim.updates + 1):
        content = frames.next(f"update {number}", BLOB_LIMIT)
        spec = named.get(sha256(content))
        if spec is None or len(content) > max_frame_size(spec) or sha256(content) in blobs:
            raise VerificationError(f"update {number} in it is not one that its lists name", ADVICE)
        blobs[sha256(content)] = content
    return blobs


def _hold(charter: Charter, walk: Walk, claim: Removal, data: _Both) -> Checked:
    before, after = walk.blocks[claim.before.height], walk.blocks[claim.after.height]
    path = claim.path
    if not verify_consistency(before.tree_size, after.tree_size, before.tree_root, after.tree_root, path):
        raise VerificationError(f"the tree at {after.height} does not append to that at {before.height}", ADVICE)
    then, old = opened(charter, before, claim.before)
    now, new = opened(charter, after, claim.after)
    earlier, charter = read(then.charter, charter), read(now.charter, charter)
    keys = keys_of(now, claim.member)
    mine = tuple(w for w in now.withdrawn if w.author in keys)
    if not mine:
        raise VerificationError("no withdrawal of this member is in force", ADVICE)
    if any(w in then.withdrawn for w in mine):
        raise VerificationError(f"height {before.height} is not before the first withdrawal of this member", ADVICE)
    _words(charter, after, claim, now, mine)
    problems: list[str] = []
    components = []
    for name in sorted(now.components):
        if name not in then.components and name in earlier.specs:
            raise VerificationError(f"{name}: unknown-component: it was not there before", ADVICE)
        gone = _component(
            charter, now.components[name], now.withdrawn, mine, old.get(name, ()), new[name], data, problems
        )
        if gone.removed or gone.others or gone.kept:
            components.append(gone)
    return Checked(charter, walk, before, after, claim.member, mine, tuple(components), tuple(problems))


def keys_of(now: Summary, member: bytes) -> set[bytes]:
    """The member's key, and those that became it."""
    keys = {member}
    while more := {old for old, new in now.successors.items() if new in keys} - keys:
        keys |= more
    return keys


def opened(charter: Charter, block: Block, state: State) -> tuple[Summary, dict[str, tuple[Round, ...]]]:
    """Read a ledger state and hold it against the header that names it, and the lists against their chains."""
    if summary_digest(state.summary) != block.fold:
        raise VerificationError(f"height {block.height}: the ledger state is not the one that the header names", ADVICE)
    claimed = Summary.read(state.summary, LIMIT)
    in_force = read(claimed.charter, charter)
    lists = {}
    for part in state.lists:
        voted = claimed.rules.get(part.component, ())
        rounds = [
            Round(
                r.number,
                0,
                tuple(
                    Entry(e.update, e.author, e.blob, e.size, e.staleness, _whole(e.variance), e.seq) for e in r.entries
                ),
                r.faults,
                GENESIS,
                max(((first, rule) for first, rule in voted if first <= r.number), default=(0, ""))[1],
            )
            for r in part.rounds
        ]
        lists[part.component] = chained(rounds, GENESIS)
    if [part.component for part in state.lists] != sorted(claimed.components) or set(lists) - {
        spec.name for spec in in_force.components
    }:
        raise VerificationError(f"height {block.height}: not every component's lists are there once", ADVICE)
    for name, c in claimed.components.items():
        end = lists[name][-1].chain if lists[name] else GENESIS
        if end != c.chain or [r.number for r in lists[name]] != list(range(1, c.round + 1)):
            raise VerificationError(f"height {block.height}, {name}: the lists are not those agreed on", ADVICE)
    return claimed, lists


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or (text[0] == "0" and text != "0"):
        raise VerificationError(f"{text[:20]!r} is not a whole number", ADVICE)
    return int(text)


def _words(charter: Charter, after: Block, claim: Removal, now: Summary, mine: tuple[Withdrawn, ...]) -> None:
    """Hold every withdrawal in force against a record under the new tree: its owner's words, or a motion."""
    statements: list[WithdrawalStatement] = []
    moved: dict[bytes, WithdrawalStatement] = {}
    for word in claim.words:
        record = open_signed(Record, word.record, charter.federation)
        fits = verify_inclusion(leaf_hash(record.digest), word.index, after.tree_size, word.path, after.tree_root)
        if not fits:
            raise VerificationError(f"record {record.digest.hex()[:16]} is not in the tree at {after.height}", ADVICE)
        body = body_of(record.value)
        if isinstance(body, Withdrawal):
            statements.append(open_signed(WithdrawalStatement, body.statement, charter.federation).value)
        elif isinstance(body, Motion) and body.action in WITHDRAWALS:
            moved[record.digest] = terms(ACTIONS[body.action], body.statement, charter.federation)
        else:
            raise VerificationError(f"record {record.digest.hex()[:16]} is neither a withdrawal nor a motion", ADVICE)
    for withdrawal in mine:
        if withdrawal.motion:
            behind = list(expanded(charter, moved[withdrawal.motion])) if withdrawal.motion in moved else []
        else:
            behind = statements
        if not any(_has_terms(words, withdrawal, now) for words in behind):
            raise VerificationError(
                f"no statement or motion for a withdrawal by {withdrawal.mode} ({withdrawal.scope})", ADVICE
            )


def _has_terms(words: WithdrawalStatement, withdrawal: Withdrawn, now: Summary) -> bool:
    scope = (words.scope, words.components, words.first, words.last, words.updates, words.mode)
    if scope != (
        withdrawal.scope,
        withdrawal.components,
        withdrawal.first,
        withdrawal.last,
        withdrawal.updates,
        withdrawal.mode,
    ):
        return False
    if words.author == withdrawal.author:
        return words.through == withdrawal.through
    return withdrawal.author in keys_of(now, words.author)  # an older key's feed, up to its end


def _component(
    charter: Charter,
    c: ComponentSummary,
    every: tuple[Withdrawn, ...],
    mine: tuple[Withdrawn, ...],
    old: tuple[Round, ...],
    new: tuple[Round, ...],
    data: _Both,
    problems: list[str],
) -> Gone:
    removed = others = kept = 0
    keys = {w.author for w in mine}
    for round_ in new:
        was = old[round_.number - 1].entries if round_.number <= len(old) else round_.entries
        if any(w.covers(c.name, round_.number, e) for w in mine for e in round_.entries):
            raise VerificationError(f"{c.name} round {round_.number}: it still counts a withdrawn update", ADVICE)
        gone = [e for e in was if e not in round_.entries]
        if [e for e in was if e not in gone] != list(round_.entries):
            raise VerificationError(f"{c.name} round {round_.number}: the list gained or reordered", ADVICE)
        if any(not any(w.covers(c.name, round_.number, e) for w in every) for e in gone):
            raise VerificationError(
                f"{c.name} round {round_.number}: an update is missing that was not withdrawn", ADVICE
            )
        removed += sum(e.author in keys for e in gone)
        others += sum(e.author not in keys and any(w.covers(c.name, round_.number, e) for w in mine) for e in gone)
        kept += sum(any(_is_named(w, c.name, round_.number, e) for w in mine) for e in round_.entries)
    certified = c.certified if c.certified is not None and c.certified.generation == c.generation else None
    needed = quorum(max(1, len(c.hosts)), charter.rules.fault_model)
    enough = len(c.hosts) >= (4 if charter.rules.fault_model == "byzantine" else 2)
    attested = 0
    if certified is not None:
        key = (certified.round, certified.generation, certified.digest)
        attested = sum((r, e, d) == key and host in c.hosts for r, e, host, d in c.attests)
    elif c.generation:
        problems.append(
            f"{c.name} generation {c.generation}: not-certified: the hosts have not attested the refold yet"
        )
    spec = charter.component(c.name)
    assert spec is not None  # lists are held against the charter's components
    folded = _refold(spec, new[: certified.round], data) if certified is not None else None
    if folded is not None and certified is not None and folded != certified.digest:
        raise VerificationError(
            f"{c.name} round {certified.round}: the surviving updates fold to {folded.hex()}, certified is"
            f" {certified.digest.hex()}",
            "Do not use this state. Have it verified at other hosts.",
        )
    return Gone(
        c.name,
        c.generation,
        c.round,
        removed,
        others,
        kept,
        label(certified is not None, enough),
        None if certified is None else certified.round,
        None if certified is None else certified.digest,
        attested,
        needed,
        folded is not None,
    )


def _is_named(withdrawal: Withdrawn, component: str, number: int, entry: Entry) -> bool:
    """Whether a withdrawal is about an entry that it does not reach."""
    mine = entry.author == withdrawal.author and entry.seq <= withdrawal.through
    return (
        mine
        and number <= dict(withdrawal.rounds).get(component, 0)
        and names(withdrawal, component, number, entry.update)
    )


def _refold(spec: ComponentSpec, rounds: tuple[Round, ...], data: _Both) -> bytes | None:
    """Return the digest of the fold of these lists; None if bytes are missing."""
    state = origin(spec)
    for round_ in rounds:
        values: dict[bytes, Integers] = {}
        for entry in round_.entries:
            frame = data.get(entry.blob)
            if frame is None or sha256(frame) != entry.blob:
                return None
            try:
                values[entry.blob] = payload_values(frame, spec)
            except (ZstdError, ValueError) as error:
                raise VerificationError(
                    f"{spec.name} round {round_.number}: blob-frame: {entry.blob.hex()} is no update: {error}", ADVICE
                ) from error
        state, _ = fold_round(state, spec, round_, lambda entry, frames=values: frames[entry.blob])  # type: ignore[misc]
    return state_digest(spec.name, state)
