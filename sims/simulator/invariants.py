"""The promises, checked after every step of every simulated node (design.md sections 2 and 12).

Each check names its promise. Of liars it is only checked that they do no harm to honest nodes.
"""

from ...consensus.fold import fold_block
from ...consensus.ledger import genesis
from ...consensus.summary import state_digest as ledger_digest
from ...node.core import events as ev
from ...node.core.messages import Acked, Kind
from ...protocol import schema
from ...protocol.blocks import NIL, PRECOMMIT, PREVOTE, Proposal, Vote
from ...protocol.signing import open_gossip
from ...protocol.update import UpdateHeader
from .cluster import Cluster, Node
from .promise import InvariantError
from .promises import amending, counts, removals, spending, votes
from .promises.observed import Observed

ALARMS = frozenset({"state-differs", "component-halted", "cannot-propose"})


class Invariants:
    """The checks of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.alarms = set(ALARMS)
        self.checked = 0
        self._seen = Observed(cluster)

    def set_back(self, node: Node) -> None:
        """A disk went back in time or is lost."""
        self._seen.set_back(node)

    def persisted(self, node: Node, puts: list[ev.Put], *, whole: bool = True) -> None:
        """Check a step's durable writes; not `whole`: it was killed in the middle of the write."""
        self.checked += 1
        if self.cluster.lies(node):
            return
        me = node.identity.public_key
        for put in puts:
            if isinstance(put, ev.PutBlock):
                self._seen.once("G2", self._seen.blocks, put.block.height, put.block.id, "two blocks at height")
                votes.certified(self._seen, put)
                counts.looked_at(self._seen, node, put)
                spending.paced(self._seen, node, put)
            elif isinstance(put, ev.PutRecord) and put.record.value.author == me:
                self._seen.once(
                    "G8", self._seen.records, (me, put.record.value.seq), put.record.digest, "two records with seq"
                )
            elif isinstance(put, ev.PutMessage) and put.data[0] == Kind.VOTE:
                vote = open_gossip(Vote, put.data[1:], self.cluster.federation, trusted=True).value
                if vote.author == me:
                    key = (me, vote.height, vote.view, vote.step)
                    self._seen.once("G8", self._seen.votes, key, vote.block, "two votes at (height, view, step)")
                    if vote.step == PRECOMMIT and vote.block != NIL:
                        votes.defensible(self._seen, node, vote)
                    elif vote.step == PREVOTE and vote.block != NIL:
                        votes.locked(self._seen, node, vote)
            elif isinstance(put, ev.PutReservation) and not put.recalled:
                if node.options.idle:
                    raise InvariantError("G6", f"node {node.index} trains, and says that it is {node.options.idle}")
                for part in put.parts:
                    if not spending.rested(self._seen, node, part.component, part.round):
                        raise InvariantError("pace", f"node {node.index} trains round {part.round} too early")
                    spending.accompanied(self._seen, node, part)
            elif isinstance(put, ev.PutHeader):
                value = put.header.value
                slot = (node.index, value.author, value.component, value.round)
                self._seen.once("G5", self._seen.acks, slot, put.header.digest, "two headers acknowledged for")
        if not whole:
            return  # its core is ahead of its disk, and is gone
        self._check_extended(node)
        if self.checked % 8 == 0:
            self._bounded(node)

    def _check_extended(self, node: Node) -> None:
        """Agreed heads only extend, frozen lists never gain or reorder, equal heights have equal ledgers (G1)."""
        core = node.core
        if core is None:
            return
        now, before = core.ledger, self._seen.before.get(node.index)
        if before is now:
            return
        self._seen.before[node.index] = now
        self._seen.note_members(frozenset(now.members))
        digest = ledger_digest(now)
        if self._seen.ledgers.setdefault(now.height, digest) != digest:
            raise InvariantError("G1", f"ledger states differ at height {now.height}")
        for other in self.cluster.honest():
            seat = now.roll.seats.get(other.identity.public_key)
            if seat is not None and seat.gone == "evidence":
                raise InvariantError("G8", f"node {other.index} is expelled for a lie that it never sent")
        votes.seated(now)
        amending.in_force(self._seen, now)
        removals.forgotten(now)
        counts.traced(self._seen, before or genesis(self.cluster.charter), now)
        if before is None or before.height > now.height:
            return  # a restored backup starts from an earlier height
        amending.closed_by(self._seen, before, now)
        counts.extended(before, now)
        votes.voted(self._seen, before, now)
        removals.awaited(before, now)
        votes.suspended(before, now)
        counts.kept(self._seen, node, before)

    def erased(self, node: Node, erase: ev.Erase) -> None:
        """G7: a host keeps withdrawn bytes until the state without them is certified."""
        core = node.core
        assert core is not None
        waiting = {
            blob for n in core.hosted for erasure in core.ledger.components[n].erasures for blob in erasure.blobs
        }
        if not self.cluster.lies(node) and waiting.intersection(erase.blobs):
            raise InvariantError("G7", f"node {node.index} erases withdrawn bytes before the new state is certified")

    def sent(self, node: Node, data: bytes) -> None:
        """G6, G8: what leaves an honest node is on its disk before."""
        if self.cluster.lies(node) or not data:
            return
        kind, wire, me, store = data[0], data[1:], node.identity.public_key, node.store
        if kind == Kind.RECORD:
            listed = any(r.wire == wire for r in store.record_at(me, node.core.head[0] if node.core else 0))
            if not listed and not any(record.wire == wire for record in store.records.values()):
                raise InvariantError("G8", "a record left before it was on disk")
        elif kind in (Kind.VOTE, Kind.PROPOSAL):
            height = _height(data, self.cluster.federation)
            if height > store.height() and (height, data) not in store.messages:
                raise InvariantError("G8", "a vote or proposal left before it was on disk")
        elif kind == Kind.ACK:
            header = schema.load(Acked, wire, Acked.LIMIT).header
            stored = next((h for h in store.headers.values() if h.digest == header), None)
            if stored is None or stored.value.blob not in store.blobs:
                raise InvariantError("G8", "an acknowledgement left before header and bytes were on disk")
        elif kind == Kind.HEADER:
            value = open_gossip(UpdateHeader, wire, self.cluster.federation, trusted=True).value
            spending.charged(self._seen, node, value)
            if value.author == me and node.core is not None:
                amending.own_policy(node, value)
                amending.true_steps(node, value)

    def folded(self, node: Node, fold: ev.Fold, digest: bytes) -> None:
        """G1: equal frozen lists give equal states."""
        chain = fold.rounds[-1].chain if fold.rounds else NIL
        if self._seen.states.setdefault((fold.component, chain), digest) != digest and not self.cluster.lies(node):
            raise InvariantError("G1", f"{fold.component} differs at node {node.index}")

    def noticed(self, node: Node, notice: ev.Notice) -> None:
        """No alarm is raised at an honest node, and nobody is dropped in silence (G3)."""
        if notice.event == "round-closed" and node.core is not None:
            missing, counted = notice.fields["missing"], notice.fields["counted"]
            assert isinstance(missing, dict)
            assert isinstance(counted, list)
            ledger, hosts = node.core.ledger, set[bytes]()
            component = ledger.components[str(notice.fields["component"])]
            if notice.fields["height"] == ledger.height:  # else it catches up, and others may be hosts by now
                hosts = set(component.hosts)
            if node.core.specs[component.name].is_statistic:  # a counted member is not missing
                counted = [entry.author for round_ in component.rounds for entry in round_.entries]
            if not all(missing.values()) or not hosts <= {*missing, *counted}:
                raise InvariantError("G3", f"node {node.index} does not report the missing members, or why")
        if notice.level == "error" and notice.event in self.alarms and not self.cluster.lies(node):
            raise InvariantError("G1", f"{notice.event} {dict(notice.fields)}")

    def final(self) -> None:
        """Equal ledgers and states; both equal a fold from scratch, as a joiner or an auditor does it (G1, G7)."""
        running = [node for node in self.cluster.honest() if node.core is not None]
        nodes = [node for node in running if node.identity.public_key in self.cluster.members()]
        if not nodes:
            return
        digests = {ledger_digest(node.core.ledger) for node in nodes if node.core}
        if len(digests) != 1:
            raise InvariantError("G1", "honest nodes at rest hold different ledgers")
        node = nodes[0]
        assert node.core is not None
        ledger = genesis(self.cluster.charter)
        for stored in node.store.snapshot().blocks:
            ledger = fold_block(ledger, stored.block, stored.records)
        if ledger != node.core.ledger:
            raise InvariantError("G1", "the incremental ledger is not the fold from scratch")
        for node in nodes:
            if not node.taken:  # a node that took a certified state in place of history lacks its bytes
                removals.refolded(node)
                counts.added_up(node)
            removals.final(self._seen, node)
            amending.held(node)

    def _bounded(self, node: Node) -> None:
        """G9: whatever others send, a node holds no more than the charter and its own limits allow."""
        core = node.core
        if core is None:
            return
        rules, members = core.charter.rules, len(core.ledger.roll.seats)  # of all times
        places = members * len(core.specs) * (rules.max_staleness + 3)
        votes = sum(len(cast) for cast in core.agreement.votes.by_step.values()) if core.agreement else 0
        views = {view for view, _ in core.agreement.votes.by_step} if core.agreement else set()
        blocks = len(core.agreement.blocks) if core.agreement else 0
        statements = core.charter.learning.shards + 1  # of a member and modality: one a shard, and one for statistics
        waiting = max((len(slots) for who, slots in core.pool.by_seq.items() if who != core.me), default=0)
        for what, size, most in (
            ("records of a member that wait", waiting, 6 * rules.records_per_height + 64),
            ("authors whose records wait", len(core.pool.by_seq.keys() - core.ledger.roll.seats.keys()), 0),
            ("updates in flight", len(core.in_flight), 2 * places),
            ("refusals", len(core.refusals), 1025),
            ("heights with early votes", len(core.later), 9),
            (
                "votes",
                votes,
                2 * members * (len(views) + 1) * (blocks + 2),
            ),
            ("messages on disk", len(node.store.messages), 4 * (members + 1) * (len(views) + 2)),
            ("spend statements", len(core.spend_statements), members * len(core.policies) * statements),
        ):
            if size > most:
                raise InvariantError("G9", f"node {node.index} holds {size} {what}, and {most} should do")


def _height(data: bytes, federation: bytes) -> int:
    if data[0] == Kind.VOTE:
        return open_gossip(Vote, data[1:], federation, trusted=True).value.height
    return open_gossip(Proposal, data[1:], federation, trusted=True).value.height
