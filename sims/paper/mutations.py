"""Mutations of the files that outsiders check, and whether the verifiers catch them (docs/provenance.md).

Mutation `n` of a seed is a function of both. Every class of bytes is hit: the framing, records, order, certificates,
members, proofs; as raw bytes, and as fields that are encoded canonically again, so that no codec stands in for a check.

One thing is left out because it is no forgery: a certificate from which signatures beyond the quorum are taken is
another valid certificate of the same block (members hold different ones from the start).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ...crypto import identity
from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...crypto.merkle import EMPTY, leaf_hash
from ...node.verify import files, outsiders
from ...node.verify.outsiders import Source
from ...protocol import codec
from .verifying import Verifier

Random = random.Random


def originals(source: Source) -> dict[str, bytes]:
    """Return one intact file of each kind; the proofs reach across all changes of members."""
    first = source.block(1)
    if first is None:
        raise UsageError("An empty ledger cannot be tampered with", "Let it grow first.")
    return {
        files.LEDGER: b"".join(outsiders.export(source)),
        files.INCLUSION: outsiders.prove(source, first.records[0].digest.hex())[0],
        files.CONSISTENCY: outsiders.consistency(source, 2, source.top)[0],
    }


# ---- a file in parts


@dataclass(slots=True)
class FileParts:
    """A file's first line and frames; `heads` and `records` are indices of frames, by height for a ledger."""

    magic: bytes
    frames: list[bytes]
    heads: list[int] = field(default_factory=list)
    records: list[list[int]] = field(default_factory=list)
    claim: int = 0

    def join(self) -> bytes:
        """Return the file."""
        return self.magic + b"".join(map(files.frame, self.frames))

    def decoded(self, index: int) -> Any:
        """Return a frame's content."""
        return msgpack.unpackb(self.frames[index], raw=False)

    def put(self, index: int, value: object) -> None:
        """Let a frame say something else, canonically."""
        self.frames[index] = codec.encode(value)


def parts_of(data: bytes) -> FileParts:
    """Take an intact file apart."""
    end = data.index(b"\n") + 1
    parts = FileParts(data[:end], [])
    while end < len(data):
        size = int.from_bytes(data[end : end + 4], "big")
        parts.frames.append(data[end + 4 : end + 4 + size])
        end += 4 + size
    if files.MAGIC[parts.magic] != files.LEDGER:
        parts.claim = 1
        parts.heads = list(range(2, len(parts.frames)))
        return parts
    index, size = 1, 0
    while index < len(parts.frames):
        block = parts.decoded(index)["block"]
        grown, size = block["tree_size"] - size, block["tree_size"]
        parts.heads.append(index)
        parts.records.append(list(range(index + 1, index + 1 + grown)))
        index += 1 + grown
    return parts


# ---- mutations of bytes: data to data


def _flip(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << source.randrange(8),)) + data[at + 1 :]


def _replace(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + source.randbytes(1) + data[at + 1 :]


def _insert(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data) + 1)
    return data[:at] + source.randbytes(source.randint(1, 5)) + data[at:]


def _delete(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + data[at + source.randint(1, 5) :]


def _truncate(data: bytes, source: Random) -> bytes:
    return data[: source.randrange(len(data))]


def _append(data: bytes, source: Random) -> bytes:
    return data + source.randbytes(source.randint(1, 70))


def _repeat(data: bytes, source: Random) -> bytes:
    start = source.randrange(len(data))
    end = start + source.randint(1, 200)
    return data[:end] + data[start:end] + data[end:]


# ---- mutations of frames and of what they say: they change the parts


def _swap_frames(parts: FileParts, source: Random) -> None:
    a, b = source.sample(range(len(parts.frames)), 2)
    parts.frames[a], parts.frames[b] = parts.frames[b], parts.frames[a]


def _drop_frame(parts: FileParts, source: Random) -> None:
    del parts.frames[source.randrange(len(parts.frames))]


def _repeat_frame(parts: FileParts, source: Random) -> None:
    at = source.randrange(len(parts.frames))
    parts.frames.insert(source.randrange(len(parts.frames) + 1), parts.frames[at])


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The scalars of a decoded frame."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*path, key))
    else:
        yield path


def _changed_value(value: Any, source: Random) -> Any:
    if isinstance(value, int):
        return source.choice((value + 1, abs(value - 1), value ^ 1 << source.randrange(16), source.randrange(1 << 40)))
    if isinstance(value, str):
        return source.choice((value + "x", value[:-1], value.upper(), ""))
    if not value:
        return b"\x00"
    return source.choice((_flip(value, source), value[:-1], value + b"\x00", bytes(len(value))))


def _change_a_field(value: Any, source: Random) -> Any:
    places = list(_places(value))
    if not places:  # an offer of nothing, say
        return value
    if places == [()]:  # another mutation made a number of it
        return _changed_value(value, source)
    *path, last = source.choice(places)
    inner = value
    for key in path:
        inner = inner[key]
    inner[last] = _changed_value(inner[last], source)
    return value


def _change_field(parts: FileParts, source: Random) -> None:
    """A field of the opening, a head or a claim."""
    at = source.choice([0, *([parts.claim] if parts.claim else []), *parts.heads, *parts.heads])
    parts.put(at, _change_a_field(parts.decoded(at), source))


def _change_charter(parts: FileParts, source: Random) -> None:
    opening = parts.decoded(0)
    outer = msgpack.unpackb(opening["charter"], raw=False)
    if source.random() < 0.5:
        inner = _change_a_field(msgpack.unpackb(outer["charter"], raw=False), source)
        outer["charter"] = codec.encode(inner)
    elif source.random() < 0.5:
        del outer["signatures"][source.randrange(len(outer["signatures"]))]
    else:
        source.shuffle(outer["signatures"])
    parts.put(0, {**opening, "charter": codec.encode(outer)})


def _wire(parts: FileParts, source: Random) -> tuple[bytes, Callable[[bytes], None]]:
    """Some record, and how to put another one in its place."""
    if parts.records:
        at = source.choice([index for height in parts.records for index in height])

        def put(wire: bytes) -> None:
            parts.frames[at] = wire

        return parts.frames[at], put
    claim = parts.decoded(parts.claim)

    def put_claim(wire: bytes) -> None:
        parts.put(parts.claim, {**claim, "record": wire})

    return claim.get("record", b""), put_claim


def _change_record(parts: FileParts, source: Random) -> None:
    """A field of a record, or of its body."""
    wire, put = _wire(parts, source)
    if not wire:
        return
    value = msgpack.unpackb(wire[64:], raw=False)
    if source.random() < 0.5:
        value = _change_a_field(value, source)
    else:
        value["body"] = codec.encode(_change_a_field(msgpack.unpackb(value["body"], raw=False), source))
    put(wire[:64] + codec.encode(value))


def _resign_record(parts: FileParts, source: Random) -> None:
    """A record by a new key as its author, with a valid signature."""
    wire, put = _wire(parts, source)
    if not wire:
        return
    stranger = identity.Identity.from_seed(source.randbytes(32))
    value = msgpack.unpackb(wire[64:], raw=False)
    payload = codec.encode(value if source.random() < 0.5 else {**value, "author": stranger.public_key})
    put(stranger.sign("record", payload) + payload)


def _reorder_records(parts: FileParts, source: Random) -> None:
    rows = [height for height in parts.records if len(height) > 1]
    if not rows:
        return
    row = source.choice(rows)
    a, b = source.sample(row, 2)
    parts.frames[a], parts.frames[b] = parts.frames[b], parts.frames[a]
    if source.random() < 0.5:
        _recount(parts)


def _drop_record(parts: FileParts, source: Random) -> None:
    """A record goes, and every header after it says so."""
    if not parts.records:
        return
    height = source.choice([n for n, row in enumerate(parts.records) if row])
    gone = parts.records[height].pop(source.randrange(len(parts.records[height])))
    wire = parts.frames[gone]
    if source.random() < 0.3:  # to another height
        parts.records[(height + 1) % len(parts.records)].append(gone)
        _recount(parts)
        wire = b""
    order = [0]
    for at, row in zip(parts.heads, parts.records, strict=True):
        order += [at, *row]
    if wire:
        _recount(parts)
    parts.frames = [parts.frames[index] for index in order]


def _recount(parts: FileParts) -> None:
    """Recompute what headers say of their records, and the links between them: all but the signatures."""
    tree, prev = EMPTY, bytes(32)
    for at, row in zip(parts.heads, parts.records, strict=True):
        head = parts.decoded(at)
        wires = [parts.frames[index] for index in row]
        tree = tree.extend(leaf_hash(digest("record", wire[64:])) for wire in wires)
        last = {}
        for wire in wires:
            value = msgpack.unpackb(wire[64:], raw=False)
            last_record = {"author": value["author"], "digest": digest("record", wire[64:]), "seq": value["seq"]}
            last[value["author"]] = last_record
        block = {**head["block"], "cut": [last[key] for key in sorted(last)], "prev": prev}
        head["block"] = {**block, "tree_root": tree.root(), "tree_size": tree.size}
        prev = digest("block", codec.encode(head["block"]))
        parts.put(at, head)


def _change_certificate(parts: FileParts, source: Random) -> None:
    """Signatures changed, taken below a quorum, swapped, doubled, by a non-member, or of another height."""
    at = source.choice(parts.heads)
    head = parts.decoded(at)
    entries = head["certificate"]["signatures"]
    kind = source.randrange(6)
    if kind == 0:
        del entries[: -(len(entries) // 2) or None]  # half of a quorum is none
    elif kind == 1:
        a, b = entries[0], entries[-1]
        a["signature"], b["signature"] = b["signature"], a["signature"]
    elif kind == 2:
        entries.insert(0, entries[0])
    elif kind == 3:
        source.shuffle(entries)
    elif kind == 4:
        stranger = identity.Identity.from_seed(source.randbytes(32))
        entries[0] = {"author": stranger.public_key, "signature": stranger.sign("vote", source.randbytes(40))}
        entries.sort(key=lambda entry: bytes(entry["author"]))
    else:
        head["certificate"] = parts.decoded(source.choice(parts.heads))["certificate"]
    parts.put(at, head)


def _change_members(parts: FileParts, source: Random) -> None:
    """The list of the next deciding members."""
    at = source.choice(parts.heads)
    head = parts.decoded(at)
    members = head["members"]
    kind = source.randrange(5)
    if kind == 0:
        members.append(source.randbytes(32))
    elif kind == 1:
        members.sort(reverse=True)
    elif kind == 2:
        head["members"] = members[:-1]
    elif kind == 3:
        head["members"] = sorted([*members, *members[:1]])
    else:
        head["members"] = parts.decoded(source.choice(parts.heads))["members"]
    if source.random() < 0.5 and head["members"]:
        head["block"]["members"] = digest("members", *sorted(head["members"]))
    parts.put(at, head)


def _change_claim(parts: FileParts, source: Random) -> None:
    """A proof's path or place."""
    if not parts.claim:
        return
    claim = parts.decoded(parts.claim)
    path = claim["path"]
    kind = source.randrange(6)
    if kind == 0 and len(path) > 1:
        a, b = source.sample(range(len(path)), 2)
        path[a], path[b] = path[b], path[a]
    elif kind == 1 and path:
        del path[source.randrange(len(path))]
    elif kind == 2:
        path.insert(source.randint(0, len(path)), source.randbytes(32))
    elif kind == 3 and path:
        at = source.randrange(len(path))
        path[at] = _flip(path[at], source)
    else:
        name = source.choice([name for name in claim if name not in ("path", "record")])
        claim[name] = max(0, claim[name] + source.choice((-2, -1, 1, 2, 1 << 32)))
    parts.put(parts.claim, claim)


def _loosen(parts: FileParts, source: Random) -> None:
    """The same values, not in their shortest form, or keys in another order, or a key that is there twice."""
    at = source.choice([0, *([parts.claim] if parts.claim else []), *parts.heads])
    value = parts.decoded(at)
    kind = source.randrange(4)
    first = next(iter(value))
    if kind == 0:
        packed = msgpack.packb(dict(reversed(list(value.items()))), use_bin_type=True)
    elif kind == 1:
        packed = b"\xde\x00" + bytes((len(value),)) + parts.frames[at][1:]  # map 16 where fixmap does
    elif kind == 2:
        entry = codec.encode(first) + codec.encode(value[first])
        packed = bytes((0x80 | len(value) + 1,)) + entry + parts.frames[at][1:]
    else:
        packed = msgpack.packb({name: _loose_value(inner) for name, inner in value.items()}, use_bin_type=True)
    parts.frames[at] = packed


def _loose_value(value: Any) -> Any:
    if type(value) is int:
        return float(value) if value > 1 else bool(value)
    if isinstance(value, dict):
        return {name: _loose_value(inner) for name, inner in value.items()}
    return [_loose_value(inner) for inner in value] if isinstance(value, list) else value


def _swap_heads(parts: FileParts, source: Random) -> None:
    """One height's head in the place of another's."""
    a, b = source.sample(parts.heads, 2)
    parts.frames[a] = parts.frames[b]


BYTES: Sequence[Callable[[bytes, Random], bytes]] = (_flip, _replace, _insert, _delete, _truncate, _append, _repeat)
PARTS: Sequence[Callable[[FileParts, Random], None]] = (
    _swap_frames,
    _drop_frame,
    _repeat_frame,
    _change_field,
    _change_charter,
    _change_record,
    _resign_record,
    _reorder_records,
    _drop_record,
    _change_certificate,
    _change_members,
    _change_claim,
    _loosen,
    _swap_heads,
)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One changed file: of which kind, and how."""

    kind: str
    name: str
    data: bytes


def mutation(originals: Mapping[str, bytes], seed: int, number: int) -> Mutation:
    """Return a changed file; try again where a mutation changed nothing."""
    source = Random(f"{seed} {number}")
    while True:
        kind = source.choice([files.LEDGER, *originals])
        data = originals[kind]
        if source.random() < 0.4:
            change = source.choice(BYTES)
            changed, name = change(data, source), change.__name__
        else:
            parts = parts_of(data)
            change_parts = source.choice(PARTS)
            change_parts(parts, source)
            changed, name = parts.join(), change_parts.__name__
        if changed != data:
            return Mutation(kind, name.strip("_"), changed)


@dataclass(slots=True)
class Tally:
    """How many of each class were tried, and the missed ones: (verifier, number, class, result)."""

    tried: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, int, str, str]] = field(default_factory=list)


def tamper(
    originals: Mapping[str, bytes], verifiers: Mapping[str, Verifier], *, count: int, seed: int = 0, first: int = 0
) -> Tally:
    """Try `count` mutations on every verifier. Missed are those that it accepts or that crash it."""
    tally = Tally()
    for number in range(first, first + count):
        mutated = mutation(originals, seed, number)
        tally.tried[f"{mutated.kind}: {mutated.name}"] += 1
        for name, verify in verifiers.items():
            try:
                why = "accepted" if verify(mutated.data) is None else ""
            except Exception as error:  # noqa: BLE001 - a verifier that falls over has not caught it
                why = f"fell over: {type(error).__name__}: {error}"
            if why:
                tally.missed.append((name, number, f"{mutated.kind}: {mutated.name}", why))
    return tally
