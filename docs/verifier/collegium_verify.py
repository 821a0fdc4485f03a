#!/usr/bin/env python3
"""Check what a Collegium federation hands to outsiders, without Collegium. Needs pynacl and msgpack, nothing else.

    python collegium_verify.py FILE [--charter CHARTER] [--pin HEIGHT:BLOCKID]

FILE comes from `collegium ledger export`, `prove` or `consistency`. Trust begins at the charter in it: compare the
federation id that is printed with one that you got elsewhere, or give your own copy by --charter.

Checked, for every kind of file: every byte is the only encoding of what it says; all founders signed the charter; each
tree head is signed by a quorum of the members of its height, who are the charter's, or those that the last certified
change of members named. Then, by kind:

    ledger       heights without a gap, each block linked to the one before; every record signed by a member of its
                 height, chained to its author's last one, in the agreed order; cuts, tree sizes and roots (RFC 6962)
                 recomputed; in updates the author's signature and every host's receipt; each amendment of the charter
                 and the quorum of votes behind it, from which the charter in force is put together again: compare its
                 digest with that of `collegium charter history`
    inclusion    one record, its signature, and its path to the root of a certified tree
    consistency  that a certified tree appends to an older certified one

Not checked: what the records amount to. Which updates a round counts, who may join or must go, and what a model's state
is follow from rules (`fold`, `close`) that only `collegium ledger verify` applies; here the members' quorum is taken at
its word for them. A ledger that was cut off at a block is a shorter ledger: compare the height, or pin a block id.

Exit codes: 0 accepted, 1 rejected, 2 the command is wrong. The formats: ../provenance.md.
"""

import argparse
import hashlib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgpack
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError


class RejectedError(Exception):
    """The file does not hold. The only error that a file can cause."""


def need(holds: bool, why: str) -> None:
    """Reject the file unless this holds."""
    if not holds:
        raise RejectedError(why)


# ---- hashes and signatures: every purpose has its own domain


def tag(domain: str) -> bytes:
    return b"collegium/1" + bytes((len(domain),)) + domain.encode()


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 over the domain's tag and, for each part, its length (8 bytes, big-endian) and its bytes."""
    return hashlib.sha256(tag(domain) + b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def signed(key: bytes, domain: str, message: bytes, signature: bytes) -> bool:
    """Whether this Ed25519 signature is by `key` (32 bytes) over the domain's tag and the message."""
    try:
        crypto_sign_open(signature + tag(domain) + message, key)
    except CryptoError:
        return False
    return True


# ---- canonical MessagePack: shapes, then the same bytes again


class Many(NamedTuple):
    """A list of so many items of one shape."""

    item: Any
    low: int
    high: int


ANY = None
B32, B64, NAME = (bytes, 32, 32), (bytes, 64, 64), (str, 1, 128)
U32, U63 = (int, 0, 2**32 - 1), (int, 0, 2**63 - 1)
MEMBERS = 1024
OPENING = {"charter": (bytes, 1, 2**20 + 2**16), "heads": U63}
SIGNED_CHARTER = {
    "charter": (bytes, 1, 2**20),
    "signatures": Many({"member": B32, "signature": B64}, 0, MEMBERS),
}
CHARTER = {
    "version": (int, 1, 1),
    "name": NAME,
    "created": U32,
    "seed": B32,
    "members": Many({"key": B32, "name": NAME, "addresses": Many((str, 1, 256), 0, 8)}, 1, MEMBERS),
    "rules": {
        "fault_model": NAME,
        "round_deadline": U63,
        "max_staleness": U63,
        "records_per_height": (int, 1, 2**16),
        "bytes_per_height": (int, 2**16, 2**26),
        "refold_horizon": U63,
        "pace": U63,
        "start": U32,
    },
    "components": ANY,
    "learning": ANY,
}
BLOCK = {
    "federation": B32,
    "height": U63,
    "prev": B32,
    "cut": Many({"author": B32, "seq": U63, "digest": B32}, 0, MEMBERS),
    "close": Many({"component": NAME, "round": U63}, 0, 256),
    "tree_size": U63,
    "tree_root": B32,
    "members": B32,
    "fold": B32,
}
CERTIFICATE = {"view": U32, "signatures": Many({"author": B32, "signature": B64}, 1, MEMBERS)}
HEAD = {"block": BLOCK, "certificate": CERTIFICATE, "members": Many(B32, 0, MEMBERS)}
RECORD = {"federation": B32, "author": B32, "seq": U63, "prev": B32, "kind": NAME, "body": (bytes, 0, 2**16)}
WIRE = 64 + 2**16 + 512  # the longest record: its signature and its canonical bytes
INCLUSION = {"height": U63, "index": U63, "path": Many(B32, 0, 128), "record": (bytes, 65, WIRE)}
CONSISTENCY = {"first": U63, "second": U63, "path": Many(B32, 0, 128)}
UPDATE = {"header": (bytes, 65, 2**15), "acks": Many({"host": B32, "signature": B64}, 0, 256)}
HEADER = dict.fromkeys(("engaged", "claims"), ANY) | {"federation": B32, "author": B32, "component": NAME, "base": B32}
HEADER |= {"blob": B32, "generation": U32, "manifest": B32} | dict.fromkeys(
    ("round", "size", "steps", "sample_rate", "lot"), U63
)


SHARD = {"shard": (int, 1, 63)}
MOTION = {"action": NAME, "subject": B32, "statement": (bytes, 0, 24 << 10), "reason": (str, 0, 512), "expiry": U63}
BALLOT = {"motion": B32, "yes": (int, 0, 1)}
FOR_ALL = ("admit", "amend", "rewind")
ABOUT_ONE = ("expel", "leave", "rekey", "suspend", "suspend-training", "withdraw")
# Characters that a reason may not have: they cannot be seen, or they hide or reverse their neighbours.
HIDDEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    "\\u2800\\u3164\\ud800-\\udfff\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\U00013430-\\U0001343f\\U00016fe4\\U0001bca0-\\U0001bca3"
    "\\U0001d159\\U0001d173-\\U0001d17a\\U000e0000-\\U000e01ff]"
)
STATED = ("admit", "amend", "rekey", "rewind", "withdraw")
REKEYING = {"federation": B32, "author": B32, "old": B32}
APPLICATION = {"federation": B32, "author": B32, "name": NAME, "addresses": Many((str, 1, 256), 0, 8), "token": B32}
WITHDRAWAL = {
    "federation": B32, "author": B32, "scope": NAME, "mode": NAME, "through": U63, "components": Many(NAME, 0, 256),
    "first": U63, "last": U63, "updates": Many(B32, 0, 64),
}  # fmt: skip
LIMITS = ("round_deadline", "max_staleness", "records_per_height", "bytes_per_height", "refold_horizon", "pace")
RECIPE = ("steps", "sample_rate", "recovery_share", "planned_rounds", "min_students")
OPENS = {part: Many(ANY, 0, 64) for part in ("modalities", "tasks", "floors", "components")}
CHANGES = {
    "opening": Many(OPENS, 0, 1),
    "retire": Many(NAME, 0, 256),
    "closing": Many({"component": NAME, "rule": NAME, "min_updates": (int, 1, 2**16)}, 0, 256),
    "limits": Many(dict.fromkeys(LIMITS, U63), 0, 1),
    "recipe": Many(dict.fromkeys(RECIPE, U63), 0, 1),
}
AMENDMENT = {"federation": B32, "number": (int, 1, 4096), "changes": CHANGES}


def fits(value: Any, shape: Any) -> bool:
    """Whether a decoded value has exactly this shape: a bool is no int, keys are all there and in order of bytes."""
    if shape is ANY:
        return True
    if isinstance(shape, dict):
        same = type(value) is dict and list(value) == sorted(shape)
        return same and all(fits(value[name], shape[name]) for name in shape)
    if isinstance(shape, Many):
        return (
            type(value) is list
            and shape.low <= len(value) <= shape.high
            and all(fits(item, shape.item) for item in value)
        )
    kind, low, high = shape
    if type(value) is not kind:
        return False
    return bool(low <= (value if kind is int else len(value.encode() if kind is str else value)) <= high)


def encode(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def decode(data: bytes, shape: Any, what: str, later: Any = None) -> Any:
    """Return what these bytes say. Rejects another shape, and any encoding but the canonical one.

    `later` are keys that a map may have besides: they came later, and are left out where they say nothing.
    """
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
        if type(value) is dict and later:
            shape = shape | {key: later[key] for key in later if key in value}
        canonical = fits(value, shape) and encode(value) == data
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise RejectedError(f"{what} cannot be decoded: {error}") from error
    need(canonical, f"{what} is not the canonical encoding of what belongs there")
    return value


# ---- the Merkle tree of RFC 6962, with the verifiers of RFC 9162


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows, kept as the roots of its perfect subtrees, largest first."""

    def __init__(self) -> None:
        self.size, self.nodes = 0, list[bytes]()

    def append(self, entry: bytes) -> None:
        carry = self.size
        while carry & 1:
            entry, carry = node(self.nodes.pop(), entry), carry >> 1
        self.nodes.append(entry)
        self.size += 1

    def root(self) -> bytes:
        if not self.nodes:
            return hashlib.sha256().digest()
        result = self.nodes[-1]
        for left in self.nodes[-2::-1]:
            result = node(left, result)
        return result


def climb(fn: int, sn: int, path: list[bytes], start: bytes) -> tuple[int, bytes, bytes]:
    """RFC 9162 sections 2.1.3.2 and 2.1.4.2: return what is left of sn, the older root, the newer root."""
    old = new = start
    for sibling in path:
        need(sn > 0, "the proof is too long")
        if fn & 1 or fn == sn:
            old, new = node(sibling, old), node(sibling, new)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn, old, new


def included(entry: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    if index >= size:
        return False
    left, _, reached = climb(index, size - 1, path, entry)
    return left == 0 and reached == root


def consistent(old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: list[bytes]) -> bool:
    if old_size in (0, new_size):
        return not path and (old_root == new_root if old_size == new_size else old_root == Tree().root())
    if old_size > new_size or not path:
        return False
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    whole = old_size & (old_size - 1) == 0  # the old tree is one subtree of the new one: its root starts the path
    left, old, new = climb(fn, sn, path if whole else path[1:], old_root if whole else path[0])
    return left == 0 and old == old_root and new == new_root


# ---- a file: one line, then frames of 4 bytes of length and so many bytes


class File:
    """Reads frames; none is larger than its limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        line = stream.readline(32)
        kinds = {b"collegium/1 %s\n" % kind.encode(): kind for kind in ("ledger", "inclusion", "consistency")}
        need(line in kinds, "this is no file of a format that is known here")
        self.kind = kinds[line]

    def read(self, size: int, what: str) -> bytes:
        data = self.stream.read(size)
        need(len(data) == size, f"the file is cut off within {what}")
        return data

    def frame(self, what: str, limit: int) -> bytes:
        size = int.from_bytes(self.read(4, what), "big")
        need(size <= limit, f"{what} is larger than {limit} bytes")
        return self.read(size, what)

    def end(self) -> None:
        need(not self.stream.read(1), "the file goes on after its end")


class Federation:
    """The charter, and who decides the next height, walked from the charter's members."""

    def __init__(self, file: bytes) -> None:
        outer = decode(file, SIGNED_CHARTER, "the charter file")
        self.charter = decode(outer["charter"], CHARTER, "the charter")
        self.id = digest("charter", outer["charter"])
        self.members = [member["key"] for member in self.charter["members"]]
        self.pins: dict[int, bytes] = {}
        self.signatures = 0
        self.height, self.block, self.size, self.root = 0, bytes(32), 0, Tree().root()
        need(self.members == sorted(set(self.members)), "the charter's members are not in order")
        need(self.charter["rules"]["fault_model"] in ("byzantine", "crash"), "the charter has no fault model")
        need([entry["member"] for entry in outer["signatures"]] == self.members, "not all founders signed the charter")
        for entry in outer["signatures"]:
            self.check(entry["member"], "charter", self.id, entry["signature"], "the charter")

    def check(self, key: bytes, domain: str, message: bytes, signature: bytes, what: str) -> None:
        need(signed(key, domain, message, signature), f"{what}: the signature of {key.hex()[:16]} does not match")
        self.signatures += 1

    def name(self, key: bytes) -> str:
        names = {member["key"]: member["name"] for member in self.charter["members"]}
        return str(names.get(key, "whoever joined with the key")) + f" {key.hex()[:16]}"

    def quorum(self, n: int | None = None) -> int:
        n = len(self.members) if n is None else n
        return 2 * n // 3 + 1 if self.charter["rules"]["fault_model"] == "byzantine" else n // 2 + 1

    def follow(self, head: Any) -> bool:
        """Take the next head: check that a quorum of the deciding members signed it. Returns if it changes them."""
        block, certificate = head["block"], head["certificate"]
        where = f"height {block['height']}"
        name = digest("block", encode(block))
        need(block["federation"] == self.id, f"{where} is of another federation")
        need(block["height"] > self.height, f"{where} follows height {self.height}")
        if block["height"] == self.height + 1:
            need(block["prev"] == self.block, f"{where} does not follow the block before it")
        same = block["tree_size"] == self.size and self.height > 0
        need(block["tree_size"] >= self.size and (not same or block["tree_root"] == self.root), f"{where}: it shrinks")
        need(self.pins.pop(block["height"], name) == name, f"{where} is not the block that is pinned")
        authors = [entry["author"] for entry in certificate["signatures"]]
        need(authors == sorted(set(authors)), f"{where}: signatures are out of order")
        need(set(authors) <= set(self.members), f"{where} is signed by somebody who is no member")
        need(len(authors) >= self.quorum(), f"{where}: {len(authors)} of {len(self.members)} members are no quorum")
        vote = {"author": b"", "block": name, "federation": self.id, "height": block["height"], "step": 2}
        for entry in certificate["signatures"]:
            vote |= {"author": entry["author"], "view": certificate["view"]}
            self.check(entry["author"], "vote", encode(vote), entry["signature"], where)
        changed = bool(block["members"] != digest("members", *self.members))
        if changed:
            self.members = head["members"]
            need(self.members == sorted(set(self.members)), f"{where}: the new members are not in order")
            need(block["members"] == digest("members", *self.members), f"{where} names other members than are listed")
        else:
            need(not head["members"], f"{where} lists members though they stay the same")
        self.height, self.block, self.size, self.root = block["height"], name, block["tree_size"], block["tree_root"]
        return changed

    def record(self, wire: bytes, what: str) -> tuple[Any, bytes]:
        """Check a record's own signature; return it and its digest, which is its leaf in the tree."""
        need(len(wire) > 64, f"{what} is too short")
        record = decode(wire[64:], RECORD, what)
        need(record["federation"] == self.id, f"{what} is of another federation")
        self.check(record["author"], "record", wire[64:], wire[:64], what)
        return record, digest("record", wire[64:])

    def update(self, author: bytes, body: bytes) -> str | None:
        """Return the component of an update whose author and hosts signed it; None for one that no rule can count."""
        try:
            update = decode(body, UPDATE, "an update")
            header = decode(update["header"][64:], HEADER, "an update's header", SHARD)
            need(header["federation"] == self.id and header["author"] == author, "the header is another's")
            self.check(author, "update", update["header"][64:], update["header"][:64], "an update's header")
            receipt = digest("ack-message", self.id, digest("update", update["header"][64:]))
            for ack in update["acks"]:
                self.check(ack["host"], "ack", receipt, ack["signature"], "a receipt")
            need(
                len({ack["host"] for ack in update["acks"]}) == len(update["acks"]),
                "a host's acknowledgement is there twice",
            )
        except RejectedError:
            return None  # a member may write nonsense; all members ignore it alike
        return str(header["component"])


# ---- amendments: the charter in force follows from the founding one and the votes of its members


class InForce:
    """The charter in force, from motions and ballots in the order of the ledger.

    All motions are followed, since those that are open bound how many more their author may open, and a member's new
    key takes over its votes. What only the rounds or offers tell is not: a motion is open here until it is decided or
    expires, though it is about a host that offers nothing, a name that is taken, or contributions withdrawn before.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation, self.number = federation, 0
        self.charter = dict(federation.charter)
        self.open: dict[bytes, dict[str, Any]] = {}
        self.members = set(federation.members)
        self.seats = set(federation.members)  # keys of members of all times
        self.keys: dict[bytes, int] = {}  # how many a member had before this one

    def read(self, record: Any, name: bytes, height: int) -> None:
        """Take a motion or a ballot. What no member can take is ignored by all alike."""
        try:
            if record["kind"] == "ballot":
                ballot = decode(record["body"], BALLOT, "a ballot")
                self.vote(self.open.get(ballot["motion"]), record["author"], "yes" if ballot["yes"] else "no")
            elif record["kind"] == "motion":
                self.propose(decode(record["body"], MOTION, "a motion"), record["author"], name, height)
        except RejectedError:
            return

    def vote(self, motion: dict[str, Any] | None, author: bytes, side: str) -> None:
        if motion is not None and author not in motion["yes"] | motion["no"] and author in self.voters(motion):
            motion[side].add(author)

    def voters(self, motion: dict[str, Any]) -> set[bytes]:
        """The members that have a vote on a motion: all, or all but the one that it is about, or that one alone."""
        if motion["action"] in FOR_ALL:
            return self.members
        own = {motion["subject"]} & self.members
        return own if motion["author"] == motion["subject"] else self.members - own

    def propose(self, motion: Any, author: bytes, name: bytes, height: int) -> None:
        action, own = motion["action"], motion["subject"] == author
        need(action in (*FOR_ALL, *ABOUT_ONE), "nobody knows how to do it")
        need(height + 20 <= motion["expiry"] <= height + 100_000, "it is open for too long, or not long enough")
        need(not HIDDEN.search(motion["reason"]), "its reason cannot be seen")
        need((action in STATED) == bool(motion["statement"]), "it has a statement that it does not need, or none")
        what = ("action", "subject", "statement")
        same = next((m for m in self.open.values() if all(m[key] == motion[key] for key in what)), None)
        mine = sum(m["author"] == author for m in self.open.values())
        need(same is not None or mine < 4, "its author has four others that are open")
        need(action == "amend" or len(motion["statement"]) <= 4096, "its statement is too long")
        need(own or action != "leave", "nobody leaves for another")
        need(not own or action not in ("expel", "suspend", "suspend-training"), "it is about its author")
        need(own or action not in ABOUT_ONE or len(self.members) >= 3, "too few could decide about one")
        need(not own or action != "rekey" or self.keys.get(author, 0) < 8, "too many keys")
        more = self.stated(motion)
        need(not self.void({**motion, **more}), "it cannot be carried out")
        if same is not None:  # to propose it again is a vote
            self.vote(same, author, "yes")
            return
        if action == "amend":
            self.amended(more["changes"])  # rejects what cannot be
        self.open[name] = {**motion, **more, "author": author, "yes": {author}, "no": set[bytes]()}

    def stated(self, motion: Any) -> dict[str, Any]:
        """What the statement of a motion says: an amendment, a new key, an application, or what is withdrawn."""
        action, wire, id_ = motion["action"], motion["statement"], self.federation.id
        if action not in STATED:
            return {}
        if action == "amend":
            said = decode(wire, AMENDMENT, "an amendment")
            need(said["federation"] == id_ == motion["subject"], "it is of another federation")
            return {"number": said["number"], "changes": said["changes"]}
        if action in ("withdraw", "rewind"):
            said = decode(wire, WITHDRAWAL, "a withdrawal")
            mode = "refold" if action == "withdraw" else "rewind"
            need(
                said["federation"] == id_ and said["author"] == motion["subject"] and said["mode"] == mode,
                "other terms",
            )
            return {}
        domain, shape, who = (
            ("rekeying", REKEYING, "old") if action == "rekey" else ("application", APPLICATION, "author")
        )
        need(len(wire) > 64, "a statement is too short")
        said = decode(wire[64:], shape, "a statement")
        need(said["federation"] == id_ and said[who] == motion["subject"], "it is about another")
        need(signed(said["author"], domain, wire[64:], wire[:64]), "a statement is badly signed")
        return {"key": said["author"]}

    def void(self, motion: dict[str, Any]) -> bool:
        """Whether a motion cannot be carried out any more, as far as it is followed here."""
        action, subject = motion["action"], motion["subject"]
        if action == "amend":
            return bool(motion["number"] != self.number + 1)
        if action in ("withdraw", "rewind", "admit"):
            return bool((subject in self.seats) == (action == "admit"))
        taken = action == "rekey" and motion["key"] in self.seats
        last = action in ("leave", "expel") and len(self.members) == 1
        return bool(subject not in self.members or taken or last)

    def decide(self, height: int) -> None:
        """After a block: motions one after the other, each by the members that follow from the one before."""
        after = set(self.federation.members)
        ended = {m["subject"] for m in self.open.values() if m["action"] in ("expel", "leave", "rekey")}
        self.members -= self.members - after - ended  # who was caught lying went before
        while True:
            name = next((name for name, m in self.open.items() if self.ended(m, height) is not None), None)
            if name is None:
                break
            motion = self.open.pop(name)
            if self.ended(motion, height):
                self.carry(motion)
        self.members = after  # certified: whatever was not followed here
        self.seats |= after

    def ended(self, motion: dict[str, Any], height: int) -> bool | None:
        """Whether a motion passes now; None: it stays open."""
        if self.void(motion):
            return False
        may = self.voters(motion)
        enough = self.federation.quorum(max(1, len(may)))
        if len(motion["yes"] & may) >= enough:
            return True
        return False if len(may - motion["no"]) < enough or height >= motion["expiry"] else None

    def carry(self, motion: dict[str, Any]) -> None:
        """Do what a motion that passed says to the charter, the members, and the votes on others."""
        action, subject = motion["action"], motion["subject"]
        if action == "amend":
            self.charter, self.number = self.amended(motion["changes"]), self.number + 1
        elif action == "admit":
            self.members, self.seats = self.members | {subject}, self.seats | {subject}
        elif action in ("leave", "expel"):
            self.members = self.members - {subject}
        elif action == "rekey":
            new = motion["key"]
            self.keys[new] = self.keys.get(subject, 0) + 1
            self.members, self.seats = self.members - {subject} | {new}, self.seats | {new}
            for other in self.open.values():
                for side in ("yes", "no"):
                    other[side] = {new if key == subject else key for key in other[side]}
                if other["subject"] == subject and other["action"] in ("expel", "suspend", "suspend-training"):
                    other["subject"] = new

    def amended(self, changes: Any) -> dict[str, Any]:
        """Return the charter with these changes. Rejects what would change a thing that exists into another."""
        was = self.charter
        specs = {spec["name"]: dict(spec) for spec in was["components"]}
        gone = set(was.get("gone", ())) | set(changes["retire"])
        voted = {entry["component"]: entry["rule"] for entry in was.get("voted", ())}
        retire, named = changes["retire"], [entry["component"] for entry in changes["closing"]]
        need(retire == sorted(set(retire)) and named == sorted(set(named)), "it names something twice, or out of order")
        need(set(retire) <= set(specs) - set(was.get("gone", ())), "it retires what is not there")
        for entry in changes["closing"]:
            need(entry["component"] in set(specs) - gone, "it is about a component that is not there")
            spec = specs[entry["component"]]
            need(spec["rule"] != "sum", "the rule of a statistic is a sum")
            spec["min_updates"] = entry["min_updates"]
            if entry["rule"] != spec["rule"] or entry["component"] in voted:
                voted[entry["component"]] = entry["rule"]
        rules, learning = dict(was["rules"]), dict(was["learning"])
        for limits in changes["limits"]:
            need(limits["refold_horizon"] >= rules["refold_horizon"], "the refold horizon would shrink")
            rules |= limits
        for recipe in changes["recipe"]:
            learning |= recipe
        peak = max(was.get("peak_rate", was["learning"]["sample_rate"]), learning["sample_rate"])
        for opening in changes["opening"]:
            for spec in opening["components"]:
                need(type(spec) is dict and spec.get("name") not in specs, "it opens what is there")
                specs[spec["name"]] = spec
            for part in ("modalities", "tasks", "floors"):
                learning[part] = [*learning[part], *opening[part]]
        made = {**was, "rules": rules, "learning": learning, "components": [specs[name] for name in sorted(specs)]}
        made |= {"gone": sorted(gone), "voted": [{"component": name, "rule": voted[name]} for name in sorted(voted)]}
        need(made != {"gone": [], "voted": []} | was, "it changes nothing")
        return made | {"founding": self.federation.id, "passed": self.number + 1, "peak_rate": peak}

    def line(self) -> str:
        if not self.number:
            return "charter in force: the founding one"
        encoded = encode({key: self.charter[key] for key in sorted(self.charter)})
        return f"charter in force: {digest('charter-in-force', encoded).hex()} after {self.number} amendments"


# ---- the three kinds of file


def ledger(file: File, federation: Federation, heads: int) -> str:
    """Check a whole ledger, block by block; return what it holds."""
    tree, feeds, in_force = Tree(), dict[bytes, tuple[int, bytes]](), InForce(federation)
    updates, inert = Counter[tuple[bytes, str]](), 0
    for height in range(1, heads + 1):
        where = f"height {height}"
        head = decode(file.frame(where, 2**19), HEAD, where)
        block, authors = head["block"], set(federation.members)
        need(block["height"] == height, f"{where} is missing")
        federation.follow(head)
        moved: dict[bytes, tuple[int, bytes]] = {}
        before = b""
        need(block["tree_size"] > tree.size or bool(block["close"]), f"{where} is empty")
        while tree.size < block["tree_size"]:
            what = f"record {tree.size + 1} ({where})"
            record, name = federation.record(file.frame(what, WIRE), what)
            author = record["author"]
            need(author in authors, f"{what}: its author is no member")
            need(author >= before, f"{what} is out of order")
            seq, last = moved.get(author, feeds.get(author, (0, bytes(32))))
            need(record["seq"] == seq + 1 and record["prev"] == last, f"{what} does not follow its author's last one")
            moved[author], before = (record["seq"], name), author
            tree.append(leaf(name))
            in_force.read(record, name, height)
            if record["kind"] == "update":
                component = federation.update(author, record["body"])
                inert += component is None
                if component is not None:
                    updates[author, component] += 1
        cut = [{"author": key, "digest": name, "seq": seq} for key, (seq, name) in moved.items()]
        need(block["cut"] == cut, f"{where}: the cut is not that of its records")
        need(block["tree_root"] == tree.root(), f"{where}: the tree's root is another")
        closed = [close["component"] for close in block["close"]]
        need(closed == sorted(set(closed)), f"{where}: closed rounds are out of order")
        feeds |= moved
        in_force.decide(height)
    lines = [f"updates of {federation.name(key)} to {name}: {count}" for (key, name), count in sorted(updates.items())]
    return "\n".join([in_force.line(), *lines, f"badly signed updates, which all members ignore: {inert}"])


def walk(file: File, federation: Federation, heads: int, at: tuple[int, ...]) -> dict[int, Any]:
    """Follow the heads that change the members, and those that a proof is about; return the latter's blocks."""
    blocks = {}
    for number in range(1, heads + 1):
        head = decode(file.frame(f"head {number}", 2**19), HEAD, f"head {number}")
        changed, height = federation.follow(head), head["block"]["height"]
        need(changed or height in at, f"height {height} belongs to no proof")
        if height in at:
            blocks[height] = head["block"]
    need(set(blocks) == set(at), "the walk of heads does not reach the height that the proof is about")
    return blocks


def inclusion(file: File, federation: Federation, heads: int) -> str:
    """Check that a record is in the tree of a certified head; return what it is."""
    claim = decode(file.frame("the proof", WIRE + 8192), INCLUSION, "the proof")
    block = walk(file, federation, heads, (claim["height"],))[claim["height"]]
    record, name = federation.record(claim["record"], "the record")
    need(
        included(leaf(name), claim["index"], block["tree_size"], claim["path"], block["tree_root"]),
        "the record is not in the tree",
    )
    by = federation.name(record["author"])
    return f"record: {name.hex()}, {record['kind']} {record['seq']} of {by}, leaf {claim['index']}"


def consistency(file: File, federation: Federation, heads: int) -> str:
    """Check that a certified tree appends to an older one; return which."""
    claim = decode(file.frame("the proof", WIRE + 8192), CONSISTENCY, "the proof")
    need(claim["first"] < claim["second"], "the heights are not in order")
    blocks = walk(file, federation, heads, (claim["first"], claim["second"]))
    old, new = blocks[claim["first"]], blocks[claim["second"]]
    holds = consistent(old["tree_size"], new["tree_size"], old["tree_root"], new["tree_root"], claim["path"])
    need(holds, "the newer tree does not append to the older one")
    return f"extends: height {claim['first']}, {old['tree_size']} records, root {old['tree_root'].hex()}"


def verify(stream: BinaryIO, charter: bytes | None = None, pins: dict[int, bytes] | None = None) -> list[str]:
    """Check one file and return what is to be said of it. Raises RejectedError, and nothing else for any bytes."""
    file = File(stream)
    opening = decode(file.frame("the opening", 2**21), OPENING, "the opening")
    federation = Federation(opening["charter"])
    federation.pins = dict(pins or {})
    need(charter is None or federation.id == Federation(charter).id, "it is of another federation than your charter")
    check = {"ledger": ledger, "inclusion": inclusion, "consistency": consistency}[file.kind]
    report = check(file, federation, opening["heads"])
    file.end()
    need(not federation.pins, f"a pinned height is not in it: {', '.join(map(str, sorted(federation.pins)))}")
    return [
        f"accepted: {file.kind} of {federation.charter['name']!r}",
        f"federation: {federation.id.hex()}",
        f"trusted height: {federation.height}",
        f"block id: {federation.block.hex()}",
        f"tree: {federation.size} records, root {federation.root.hex()}",
        f"members after it: {len(federation.members)}",
        f"signatures checked: {federation.signatures}",
        *report.splitlines(),
    ]


def main() -> int:
    """Read the command line; print what was found."""
    parser = argparse.ArgumentParser(description="Check a ledger or a proof of a Collegium federation.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--charter", type=Path, help="your own copy of the charter file")
    parser.add_argument("--pin", action="append", default=[], metavar="HEIGHT:ID", help="a known block id")
    words = parser.parse_args()
    try:
        pins = {int(height): bytes.fromhex(name) for height, name in (pin.split(":") for pin in words.pin)}
        charter = words.charter.read_bytes() if words.charter else None
        with words.file.open("rb") as stream:
            print("\n".join(verify(stream, charter, pins)))
    except RejectedError as error:
        print(f"REJECTED: {words.file}: {error}")
        return 1
    except (OSError, ValueError) as error:
        print(f"cannot check {words.file}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
