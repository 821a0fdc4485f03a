"""What must never happen, checked after every step of every simulated node (DESIGN.md sections 2 and 12).

Each check names its promise. A liar's own words bind nobody, so of liars only that the honest stay whole is checked.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, TypeVar

from ..consensus.components import Round, origin, replay
from ..consensus.ledger import Ledger, fold_block, genesis
from ..consensus.ledger import state_digest as ledger_digest
from ..node.core import events as ev
from ..node.core.messages import Acked, Kind
from ..protocol import schema
from ..protocol.blocks import NIL, PRECOMMIT, PREVOTE, Proposal, Vote, block_id, quorum
from ..protocol.components import state_digest
from ..protocol.records import Update, body_of
from ..protocol.signing import open_signed
from ..protocol.update import UpdateHeader, payload_values

if TYPE_CHECKING:
    from .cluster import Cluster, Node

K = TypeVar("K", bound=Hashable)
ALARMS = frozenset({"state-differs", "component-halted", "cannot-propose"})


class InvariantError(AssertionError):
    """A promise was broken: `promise` is its name, as "G2"."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Invariants:
    """What was seen of every node so far, and the checks against it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.alarms = set(ALARMS)
        self.checked = 0
        self._blocks: dict[int, bytes] = {}
        self._ledgers: dict[int, bytes] = {}
        self._states: dict[tuple[str, bytes], bytes] = {}
        self._records: dict[tuple[bytes, int], bytes] = {}
        self._votes: dict[tuple[bytes, int, int, int], bytes] = {}
        self._acks: dict[tuple[int, bytes, str, int], bytes] = {}
        self._before: dict[int, Ledger] = {}

    # ---- after each step

    def persisted(self, node: Node, puts: list[ev.Put]) -> None:
        """Check what a step made durable."""
        self.checked += 1
        if self.cluster.lies(node):
            return
        me = node.identity.public_key
        for put in puts:
            if isinstance(put, ev.PutBlock):
                self._once("G2", self._blocks, put.block.height, put.block.id, "two blocks at height")
            elif isinstance(put, ev.PutRecord) and put.record.value.author == me:
                self._once("G8", self._records, (me, put.record.value.seq), put.record.digest, "two records with seq")
            elif isinstance(put, ev.PutMessage) and put.data[0] == Kind.VOTE:
                vote = open_signed(Vote, put.data[1:], self.cluster.federation, trusted=True).value
                if vote.author == me:
                    key = (me, vote.height, vote.view, vote.step)
                    self._once("G8", self._votes, key, vote.block, "two votes at (height, view, step)")
                    if vote.step == PRECOMMIT and vote.block != NIL:
                        self._defensible(node, vote)
            elif isinstance(put, ev.PutHeader):
                value = put.header.value
                place = (node.index, value.author, value.component, value.round)
                self._once("G5", self._acks, place, put.header.digest, "two headers acknowledged for")
        self._extended(node)

    def _once(self, promise: str, known: dict[K, bytes], key: K, value: bytes, what: str) -> None:
        if known.setdefault(key, value) != value:
            raise InvariantError(promise, f"{what} {key[1:] if isinstance(key, tuple) else key}")

    def _defensible(self, node: Node, vote: Vote) -> None:
        """A precommit on disk has its block and the prevotes for it on disk: after a crash the lock can be kept."""
        federation = self.cluster.federation
        stored = [data for height, data in node.store.messages if height == vote.height]
        if vote.height <= node.store.height():
            return
        votes = [open_signed(Vote, data[1:], federation, trusted=True).value for data in stored if data[0] == Kind.VOTE]
        blocks = {
            block_id(open_signed(Proposal, data[1:], federation, trusted=True).value.block)
            for data in stored
            if data[0] == Kind.PROPOSAL
        }
        same = {v.author for v in votes if (v.view, v.step, v.block) == (vote.view, PREVOTE, vote.block)}
        assert node.core is not None
        if vote.block not in blocks or len(same) < node.core.ledger.quorum:
            raise InvariantError("G2", f"a precommit at {vote.height} without its block and prevotes on disk")

    def _extended(self, node: Node) -> None:
        """Agreed heads only extend, frozen lists never gain or reorder, equal heights have equal ledgers (G1)."""
        core = node.core
        if core is None:
            return
        now, before = core.ledger, self._before.get(node.index)
        if before is now:
            return
        self._before[node.index] = now
        found = ledger_digest(now)
        if self._ledgers.setdefault(now.height, found) != found:
            raise InvariantError("G1", f"ledger states differ at height {now.height}")
        if before is None or before.height > now.height:
            return  # a restored backup starts from an earlier height
        for author, (seq, head) in before.heads.items():
            again = now.heads.get(author, (0, NIL))
            if again[0] < seq or (again[0] == seq and again[1] != head):
                raise InvariantError("G2", f"an agreed head went from seq {seq} to {again[0]}")
        for name, component in before.components.items():
            after = now.components[name].rounds
            for old, new in zip(component.rounds, after, strict=False):
                kept = [entry for entry in old.entries if entry in new.entries]
                if list(new.entries) != kept:
                    raise InvariantError("G4", f"the frozen list of {name} round {old.number} gained or reordered")
        self._kept(node, before)

    def _kept(self, node: Node, before: Ledger) -> None:
        """Counted updates have acks of a host quorum, and honest ackers hold the bytes."""
        core = node.core
        assert core is not None
        for name, component in core.ledger.components.items():
            for round_ in component.rounds[before.components[name].round :]:
                hosts = set(before.components[name].hosts) or set(core.ledger.components[name].hosts)
                for entry in round_.entries:
                    held = [n for n in self.cluster.honest() if entry.blob in n.store.blobs]
                    liars = len(hosts) - len([n for n in self.cluster.honest() if n.identity.public_key in hosts])
                    if len(held) + liars < quorum(max(1, len(hosts)), core.ledger.fault_model):
                        raise InvariantError("G4", f"{name} round {round_.number}: {len(held)} hosts hold an update")

    def said(self, node: Node, data: bytes) -> None:
        """G6, G8: what leaves an honest node is on its disk before."""
        if self.cluster.lies(node) or not data:
            return
        kind, wire, me, store = data[0], data[1:], node.identity.public_key, node.store
        if kind == Kind.RECORD:
            known = any(r.wire == wire for r in store.record_at(me, node.core.head[0] if node.core else 0))
            if not known and not any(record.wire == wire for record in store.records.values()):
                raise InvariantError("G8", "a record left before it was on disk")
        elif kind in (Kind.VOTE, Kind.PROPOSAL):
            height = _height(data, self.cluster.federation)
            if height > store.height() and (height, data) not in store.messages:
                raise InvariantError("G8", "a vote or proposal left before it was on disk")
        elif kind == Kind.ACK:
            header = schema.load(Acked, wire, Acked.LIMIT).header
            found = next((h for h in store.headers.values() if h.digest == header), None)
            if found is None or found.value.blob not in store.blobs:
                raise InvariantError("G8", "an acknowledgement left before header and bytes were on disk")
        elif kind == Kind.HEADER:
            self._charged(node, open_signed(UpdateHeader, wire, self.cluster.federation, trusted=True).value)

    def _charged(self, node: Node, value: UpdateHeader) -> None:
        """G6: the draw behind an update is on disk, and its claim covers every draw that is."""
        if value.author != node.identity.public_key:
            return
        draws = node.store.draws
        part = [d for d in draws if any((p.component, p.round) == (value.component, value.round) for p in d.parts)]
        if not part:
            raise InvariantError("G6", f"{value.component} round {value.round} left without a draw on disk")
        for claim in value.claims:
            told = sum(entry.count for entry in claim.draws)
            spent = sum(d.steps for d in draws if d.draw <= part[-1].draw and any(p.noise_multiplier for p in d.parts))
            if told < spent:
                raise InvariantError("G6", f"a claim of {told} steps where {spent} were drawn")

    def folded(self, node: Node, fold: ev.Fold, found: bytes) -> None:
        """G1: equal frozen lists give equal states."""
        chain = fold.rounds[-1].chain if fold.rounds else NIL
        if self._states.setdefault((fold.component, chain), found) != found and not self.cluster.lies(node):
            raise InvariantError("G1", f"{fold.component} differs at node {node.index}")

    def noticed(self, node: Node, notice: ev.Notice) -> None:
        """No alarm is raised at an honest node."""
        if notice.level == "error" and notice.event in self.alarms and not self.cluster.lies(node):
            raise InvariantError("G1", f"{notice.event} {dict(notice.fields)}")

    # ---- at the end

    def final(self) -> None:
        """Equal ledgers and states; both equal a fold from scratch, as a joiner or an auditor does it (G1, G7)."""
        nodes = [node for node in self.cluster.honest() if node.core is not None]
        if not nodes:
            return
        digests = {ledger_digest(node.core.ledger) for node in nodes if node.core}
        if len(digests) != 1:
            raise InvariantError("G1", "honest nodes at rest hold different ledgers")
        node = nodes[0]
        assert node.core is not None
        ledger = genesis(self.cluster.charter)
        for stored in node.store.snapshot().blocks:
            ledger = fold_block(self.cluster.charter, ledger, stored.block, stored.records)
        if ledger != node.core.ledger:
            raise InvariantError("G1", "the incremental ledger is not the fold from scratch")
        for node in nodes:
            self._refolded(node)
            self._erased(node)

    def _refolded(self, node: Node) -> None:
        core = node.core
        assert core is not None
        for name in core.held:
            component, spec = core.ledger.components[name], core.specs[name]
            rounds = [Round(r.number, 0, r.entries, r.faults, b"") for r in component.rounds]
            found = {}
            for entry in (entry for round_ in rounds for entry in round_.entries):
                if entry.blob not in node.store.blobs:
                    raise InvariantError("G8", f"node {node.index} lost the bytes of a counted update of {name}")
                found[entry.blob] = payload_values(node.store.blobs[entry.blob], spec)
            state, _ = replay(origin(spec), spec, rounds, lambda entry, found=found: found[entry.blob])  # type: ignore[misc]
            done = core.folded.get(name)
            if done is None or done[3] != state_digest(name, state):
                raise InvariantError("G7", f"{name} at node {node.index} is not the fold of what is in force")

    def _erased(self, node: Node) -> None:
        """G7: what was withdrawn is gone from every disk but its owner's once the new epoch is certified."""
        core = node.core
        assert core is not None
        if any(component.erasures for component in core.ledger.components.values()):
            return
        withdrawn = {w.author: w.through for w in core.ledger.withdrawn}
        for record in node.store.records.values():
            body = body_of(record.value) if record.value.kind == "update" else None
            if isinstance(body, Update) and record.value.seq <= withdrawn.get(record.value.author, 0):
                header = open_signed(UpdateHeader, body.header, self.cluster.federation, trusted=True).value
                if header.blob in node.store.blobs and header.author != node.identity.public_key:
                    raise InvariantError("G7", f"node {node.index} still holds withdrawn bytes of {header.component}")


def _height(data: bytes, federation: bytes) -> int:
    if data[0] == Kind.VOTE:
        return open_signed(Vote, data[1:], federation, trusted=True).value.height
    return open_signed(Proposal, data[1:], federation, trusted=True).value.height
