"""The promises, checked after every step of every simulated node (design.md sections 2 and 12).

Each check names its promise. Of liars it is only checked that they do no harm to honest nodes.

It is one long class because every check reads what the others noted: who voted, acknowledged, published and spent what.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

import numpy as np

from ...consensus.components import Entry, Round, origin, replay
from ...consensus.fold import fold_block
from ...consensus.ledger import Ledger, Withdrawn, genesis
from ...consensus.membership import ended, present
from ...consensus.summary import state_digest as ledger_digest
from ...consensus.trainers import trains
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...crypto.identity import verify
from ...node.core import events as ev
from ...node.core.messages import Acked, Kind
from ...protocol import schema
from ...protocol.blocks import NIL, PRECOMMIT, PREVOTE, Proposal, Vote, block_id
from ...protocol.components import state_digest
from ...protocol.records import Record, Update, body_of, verify_ack
from ...protocol.signing import open_gossip
from ...protocol.update import UpdateHeader, payload_values
from .cluster import Cluster, Node
from .promise import InvariantError

MAX_OPEN = 4  # motions of one member that are open
CLOCK_GRAIN = 60  # ms: timers of a clock that runs fast are rounded
MAX_COMPUTED = 256  # parameters: more are not added up again in plain integers
K = TypeVar("K", bound=Hashable)
ALARMS = frozenset({"state-differs", "component-halted", "cannot-propose"})


class Invariants:
    """The observations of every node so far, and the checks against them."""

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
        self._lost: set[int] = set()  # nodes whose disks were lost or set back: their acknowledgements are void
        self._members: dict[bytes, frozenset[bytes]] = {}  # by the digest that headers name them by
        self._next_members: dict[int, bytes] = {0: b""}
        self._verified: set[bytes] = set()
        self._feeds: dict[bytes, tuple[int, bytes]] = {}
        # Component and round → node → when the node decided the close, by its own clock.
        self._closed: dict[tuple[str, int], dict[int, int]] = {}
        self._agreed = 0  # heights whose records were looked at
        self._updates: dict[bytes, UpdateHeader] = {}  # agreed, by the header's digest
        self._agreed_acks: dict[bytes, set[bytes]] = {}  # hosts whose true acknowledgements are agreed
        self._claims: dict[tuple[int, str, str], dict[int, int]] = {}  # steps by round: of a node, whatever its key
        self._rounds: dict[str, int] = {}  # closed rounds that were looked at
        self._counted: dict[bytes, int] = {}

    def set_back(self, node: Node) -> None:
        """A disk went back in time or is lost: its acknowledgements may be forgotten, its signed records not."""
        self._lost.add(node.index)
        self._before.pop(node.index, None)
        self._acks = {key: value for key, value in self._acks.items() if key[0] != node.index}

    # ---- after each step

    def persisted(self, node: Node, puts: list[ev.Put], *, whole: bool = True) -> None:
        """Check a step's durable writes; not `whole`: it was killed in the middle of the write."""
        self.checked += 1
        if self.cluster.lies(node):
            return
        me = node.identity.public_key
        for put in puts:
            if isinstance(put, ev.PutBlock):
                self._once("G2", self._blocks, put.block.height, put.block.id, "two blocks at height")
                self._certified(put)
                self._looked_at(node, put)
                self._paced(node, put)
            elif isinstance(put, ev.PutRecord) and put.record.value.author == me:
                self._once("G8", self._records, (me, put.record.value.seq), put.record.digest, "two records with seq")
            elif isinstance(put, ev.PutMessage) and put.data[0] == Kind.VOTE:
                vote = open_gossip(Vote, put.data[1:], self.cluster.federation, trusted=True).value
                if vote.author == me:
                    key = (me, vote.height, vote.view, vote.step)
                    self._once("G8", self._votes, key, vote.block, "two votes at (height, view, step)")
                    if vote.step == PRECOMMIT and vote.block != NIL:
                        self._defensible(node, vote)
                    elif vote.step == PREVOTE and vote.block != NIL:
                        self._locked(node, vote)
            elif isinstance(put, ev.PutReservation) and not put.recalled:
                if node.options.idle:
                    raise InvariantError("G6", f"node {node.index} trains, and says that it is {node.options.idle}")
                for part in put.parts:
                    if not self._rested(node, part.component, part.round):
                        raise InvariantError("pace", f"node {node.index} trains round {part.round} too early")
            elif isinstance(put, ev.PutHeader):
                value = put.header.value
                place = (node.index, value.author, value.component, value.round)
                self._once("G5", self._acks, place, put.header.digest, "two headers acknowledged for")
        if not whole:
            return  # its core is ahead of its disk, and is gone
        self._extended(node)
        if self.checked % 8 == 0:
            self._bounded(node)

    def _once(self, promise: str, known: dict[K, bytes], key: K, value: bytes, what: str) -> None:
        if known.setdefault(key, value) != value:
            raise InvariantError(promise, f"{what} {key[1:] if isinstance(key, tuple) else key}")

    def _defensible(self, node: Node, vote: Vote) -> None:
        """A precommit on disk has its block and the prevotes for it on disk: after a crash the lock can be kept."""
        federation = self.cluster.federation
        stored = [data for height, data in node.store.messages if height == vote.height]
        if vote.height <= node.store.height():
            return
        votes = [open_gossip(Vote, data[1:], federation, trusted=True).value for data in stored if data[0] == Kind.VOTE]
        blocks = {
            block_id(open_gossip(Proposal, data[1:], federation, trusted=True).value.block)
            for data in stored
            if data[0] == Kind.PROPOSAL
        }
        same = {v.author for v in votes if (v.view, v.step, v.block) == (vote.view, PREVOTE, vote.block)}
        assert node.core is not None
        if vote.block not in blocks or len(same) < self._needed(len(node.core.ledger.members)):
            raise InvariantError("G2", f"a precommit at {vote.height} without its block and prevotes on disk")

    def _needed(self, count: int) -> int:
        """How many of so many decide: written down again here, so that a wrong quorum is seen."""
        return 2 * count // 3 + 1 if self.cluster.charter.rules.fault_model == "byzantine" else count // 2 + 1

    def _note_members(self, members: frozenset[bytes]) -> bytes:
        name = digest("members", *sorted(members))
        self._members[name] = members
        return name

    def _locked(self, node: Node, vote: Vote) -> None:
        """Who precommitted a block prevotes another only after a quorum has prevoted that one since (lines 22, 28)."""
        agreement = node.core.agreement if node.core is not None else None
        if agreement is None or agreement.height != vote.height:
            return
        mine = [
            (view, block)
            for (author, height, view, step), block in self._votes.items()
            if (author, height, step) == (vote.author, vote.height, PRECOMMIT) and block != NIL and view < vote.view
        ]
        locked, block = max(mine, default=(0, vote.block))
        if block == vote.block:
            return
        for view in range(locked, vote.view):
            votes = agreement.votes.get((view, PREVOTE), {})
            same = {author for author, found in votes if found == vote.block}
            if len(same) >= self._needed(len(agreement.members)):
                return
        raise InvariantError("G2", f"a prevote at height {vote.height} against the lock of view {locked}")

    def _certified(self, put: ev.PutBlock) -> None:
        """A quorum of different members of the height before signed the block."""
        block, certificate = put.block, put.certificate
        self._next_members[block.height] = block.members
        before = self._next_members.get(block.height - 1)
        members = self._members.get(before) if before else frozenset(m.key for m in self.cluster.charter.members)
        key = block.id + bytes(str(certificate), "utf-8")
        if members is None or key in self._verified:
            return
        self._verified.add(key)
        authors = {entry.author for entry in certificate.signatures} & members
        if len(authors) < self._needed(len(members)) or len(authors) < len(certificate.signatures):
            raise InvariantError("G2", f"height {block.height} is decided by {len(authors)} of {len(members)} members")
        for entry in certificate.signatures:
            vote = Vote(block.federation, entry.author, block.height, certificate.view, PRECOMMIT, block.id)
            if not verify(entry.author, Vote.DOMAIN, schema.dump(vote), entry.signature):
                raise InvariantError("G2", f"height {block.height} is decided by a false signature")

    def _looked_at(self, node: Node, put: ev.PutBlock) -> None:
        """Agreed feeds have no gaps and no branches, and no member gets more into a height than the charter allows."""
        if put.block.height != self._agreed + 1:
            return
        self._agreed += 1
        count: dict[bytes, int] = {}
        rules, federation = self.cluster.charter.rules, self.cluster.federation
        for record in (node.store.records[key] for key in put.records):
            value = record.value
            count[value.author] = count.get(value.author, 0) + 1
            if (value.seq - 1, value.prev) != self._feeds.get(value.author, (0, NIL)):
                raise InvariantError("G4", f"agreed record {value.seq} does not follow its feed")
            self._feeds[value.author] = (value.seq, record.digest)
            body = _update_in(value)
            if body is None:
                continue
            try:
                header = open_gossip(UpdateHeader, body.header, federation)
            except RemoteProtocolError:
                continue  # inert
            if header.value.author == value.author:
                self._updates[header.digest] = header.value
                hosts = {ack.host for ack in body.acks if verify_ack(federation, header.digest, ack)}
                self._agreed_acks.setdefault(header.digest, set()).update(hosts)
        if max(count.values(), default=0) > rules.records_per_height:
            raise InvariantError("G9", f"{max(count.values())} records of one member at height {put.block.height}")

    def _paced(self, node: Node, put: ev.PutBlock) -> None:
        """The charter's pace: a quorum less the liars waited for it, each by its own clock."""
        for name, number in ((close.component, close.round) for close in put.block.close):
            if (name, number) not in self._closed:
                honest = self.cluster.honest()
                waited = sum(self._rested(each, name, number, known=True) for each in honest)
                liars = len(self.cluster.nodes) - len(honest)
                if (self.cluster.charter.rules.pace or number == 1) and waited < self._needed(
                    len(self.cluster.nodes)
                ) - liars:
                    raise InvariantError("pace", f"{name} closes round {number} when {waited} members allow it")
            self._closed.setdefault((name, number), {}).setdefault(node.index, node.now)

    def _rested(self, node: Node, name: str, number: int, *, known: bool = False) -> bool:
        """Whether the round before closed long enough ago for a node; `known`: False if it never saw that close."""
        spec = self.cluster.charter.component(name)
        if number == 1:
            return node.now >= 1000 * self.cluster.charter.rules.start - CLOCK_GRAIN
        since = self._closed.get((name, number - 1), {}).get(node.index)
        if since is None or (spec is not None and spec.is_statistic and not known):
            return not known
        return node.now - since >= self.cluster.charter.rules.pace - CLOCK_GRAIN

    def _traced(self, before: Ledger, now: Ledger) -> None:
        """G4, G5: what newly closed rounds count is signed, agreed, acknowledged, fresh enough, and counts once."""
        for name, component in now.components.items():
            spec = self.cluster.charter.component(name)
            stale = self.cluster.charter.rules.max_staleness if spec is not None and spec.rule == "mean" else 0
            is_statistic = spec is not None and spec.is_statistic
            if is_statistic:
                self._once_a_member(name, now)
            for round_ in component.rounds[self._rounds.get(name, 0) :]:
                hosts = self._hosts_at_close(before, now, name) - set(now.expelled)
                self._rounds[name] = round_.number
                where = f"{name} round {round_.number}"
                authors = [entry.author for entry in round_.entries]
                if authors != sorted(set(authors)):
                    raise InvariantError("G4", f"{where} counts an author twice, or out of order")
                for entry in round_.entries:
                    header = self._updates.get(entry.update)
                    if header is None or (header.author, header.component, header.blob) != (
                        entry.author,
                        name,
                        entry.blob,
                    ):
                        raise InvariantError("G4", f"{where} counts an unsigned update")
                    behind = 0 if is_statistic else round_.number - header.round
                    if entry.staleness != behind or not 0 <= entry.staleness <= stale:
                        raise InvariantError("G5", f"{where} counts an update of round {header.round}")
                    if self._counted.setdefault(entry.update, round_.number) != round_.number:
                        raise InvariantError("G4", f"{where} counts an update of round {header.round} again")
                    held = self._agreed_acks[entry.update] & hosts
                    if before.height + 1 == now.height and len(held) < self._needed(max(1, len(hosts))):
                        raise InvariantError("G4", f"{where} counts an update with {len(held)} acknowledgements")

    def _hosts_at_close(self, before: Ledger, now: Ledger, name: str) -> set[bytes]:
        """Return the hosts whose acknowledgements count in a block that closed a round: frozen at the close before.

        Those that offer it gather at any time before the first close, for a statistic, and while too few train.
        """
        c, spec = before.components[name], self.cluster.charter.component(name)
        assert spec is not None
        train = sum(1 for host in c.hosts if trains(now.offers, host, name))
        if c.round == 0 or spec.is_statistic or train < spec.min_updates:
            return set(now.components[name].hosts)
        return set(c.hosts)

    def _once_a_member(self, name: str, now: Ledger) -> None:
        """G4: no statistic counts a member twice, under whatever key."""
        authors = [entry.author for round_ in now.components[name].rounds for entry in round_.entries]
        people = [present(now.roll, author) for author in authors]
        if len(set(people)) < len(people):
            raise InvariantError("G4", f"{name} counts a member twice")

    def _forgotten(self, now: Ledger) -> None:
        """G7: no frozen list still has what a withdrawal in force covers, but beyond the horizon."""
        for found in now.withdrawn:
            for name, last in found.rounds:
                since = dict(found.since).get(name)
                for round_ in now.components[name].rounds[since - 1 : last] if since is not None else ():
                    if any(_is_taken(found, name, round_.number, entry) for entry in round_.entries):
                        raise InvariantError("G7", f"{name} round {round_.number} still counts a withdrawn update")
                # Their rounds are numbered otherwise.
                sums = {spec.name for spec in self.cluster.charter.components if spec.is_statistic}
                for round_ in now.components[name].rounds[last:] if since is not None and name not in sums else ():
                    # What was on its way then had learned from what was withdrawn, or was that.
                    flown = [entry for entry in round_.entries if round_.number - entry.staleness <= last + 1]
                    if any(_is_taken(found, name, round_.number - e.staleness, replace(e, seq=0)) for e in flown):
                        raise InvariantError("G7", f"{name} round {round_.number} counts an update that was in flight")
            if found.mode == "rewind" and not found.motion:
                raise InvariantError("G7", "a rewind that no motion decided")

    def _bounded(self, node: Node) -> None:
        """G9: whatever others send, a node holds no more than the charter and its own limits allow."""
        core = node.core
        if core is None:
            return
        rules, members = self.cluster.charter.rules, len(core.ledger.roll.seats)  # of all times
        places = members * len(core.specs) * (rules.max_staleness + 3)
        votes = sum(len(found) for found in core.agreement.votes.values()) if core.agreement else 0
        views = {view for view, _ in core.agreement.votes} if core.agreement else set()
        blocks = len(core.agreement.blocks) if core.agreement else 0
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
            ("spend statements", len(core.spend_statements), members * len(core.policies)),
        ):
            if size > most:
                raise InvariantError("G9", f"node {node.index} holds {size} {what}, and {most} should do")

    def _extended(self, node: Node) -> None:
        """Agreed heads only extend, frozen lists never gain or reorder, equal heights have equal ledgers (G1)."""
        core = node.core
        if core is None:
            return
        now, before = core.ledger, self._before.get(node.index)
        if before is now:
            return
        self._before[node.index] = now
        self._note_members(frozenset(now.members))
        found = ledger_digest(now)
        if self._ledgers.setdefault(now.height, found) != found:
            raise InvariantError("G1", f"ledger states differ at height {now.height}")
        for other in self.cluster.honest():
            seat = now.roll.seats.get(other.identity.public_key)
            if seat is not None and seat.gone == "evidence":
                raise InvariantError("G8", f"node {other.index} is expelled for a lie that it never sent")
        self._seated(now)
        self._forgotten(now)
        self._traced(before or genesis(self.cluster.charter), now)
        if before is None or before.height > now.height:
            return  # a restored backup starts from an earlier height
        for author, (seq, head) in before.heads.items():
            again = now.heads.get(author, (0, NIL))
            if again[0] < seq or (again[0] == seq and again[1] != head):
                raise InvariantError("G2", f"an agreed head went from seq {seq} to {again[0]}")
        for name, component in before.components.items():
            after = now.components[name].rounds
            for old, new in zip(component.rounds, after, strict=False):
                if old.entries == new.entries:
                    continue
                kept = [entry for entry in old.entries if entry in new.entries]
                if list(new.entries) != kept:
                    raise InvariantError("G4", f"the frozen list of {name} round {old.number} gained or reordered")
                if any(
                    not any(_is_taken(found, name, old.number, entry) for found in now.withdrawn)
                    for entry in old.entries
                    if entry not in kept
                ):
                    raise InvariantError(
                        "G4", f"the frozen list of {name} round {old.number} lost an update that was not withdrawn"
                    )
        self._voted(before, now)
        self._awaited(before, now)
        self._suspended(before, now)
        self._kept(node, before)

    def _seated(self, now: Ledger) -> None:
        """G2, G9: seats make members, hosts are members, no member votes both ways or has many open motions."""
        seats = {key for key, seat in now.roll.seats.items() if not seat.gone}
        if seats != set(now.members) or any(not seats.issuperset(c.hosts) for c in now.components.values()):
            raise InvariantError("G2", f"at height {now.height} a key is a member or a host without a seat")
        moved: dict[bytes, int] = {}
        for motion in now.roll.motions:
            moved[motion.author] = moved.get(motion.author, 0) + 1
            if motion.yes & motion.no:
                raise InvariantError("G2", f"at height {now.height} a member votes both ways")
        if max(moved.values(), default=0) > MAX_OPEN:
            raise InvariantError("G9", f"{max(moved.values())} motions of one member are open")

    def _voted(self, before: Ledger, now: Ledger) -> None:
        """A motion passes by the votes of a quorum of those whom it is not about, or is one's own affair (G2)."""
        passed = [o.motion for o in ended(before.roll, now.roll) if o.result == "passed"]
        if now.height != before.height + 1 or len(passed) != 1:
            return  # several in a block: each is decided by the members that the one before it left
        (motion,) = passed
        subject = set() if motion.action in ("admit", "rewind") else {motion.subject}
        if motion.author in subject or not set(before.members) - set(now.members) <= subject:
            return
        may = set(before.members) - subject
        if len(motion.yes & may) < self._needed(len(may)):
            raise InvariantError("G2", f"{len(motion.yes & may)} of {len(may)} members {motion.action} somebody")

    def _awaited(self, before: Ledger, now: Ledger) -> None:
        """G7: withdrawn bytes may go only after a state of the generation without them is certified."""
        for name, component in now.components.items():
            gone = [each.generation for each in before.components[name].erasures if each not in component.erasures]
            if gone and (component.certified is None or component.certified.generation < max(gone)):
                raise InvariantError(
                    "G7", f"withdrawn bytes of {name} may go before generation {max(gone)} is certified"
                )

    def erased(self, node: Node, erase: ev.Erase) -> None:
        """G7: a host keeps withdrawn bytes until the state without them is certified."""
        core = node.core
        assert core is not None
        waiting = {blob for n in core.hosted for each in core.ledger.components[n].erasures for blob in each.blobs}
        if not self.cluster.lies(node) and waiting.intersection(erase.blobs):
            raise InvariantError("G7", f"node {node.index} erases withdrawn bytes before the new state is certified")

    def _suspended(self, before: Ledger, now: Ledger) -> None:
        """G3: a suspended member hosts nothing, or trains nothing, from that block on until it offers again."""
        if now.height != before.height + 1:
            return
        for motion in (o.motion for o in ended(before.roll, now.roll) if o.result == "passed"):
            offer = now.offers.get(motion.subject)
            if motion.action == "suspend" and (
                offer is not None or any(motion.subject in c.hosts for c in now.components.values())
            ):
                raise InvariantError("G3", "a host that was suspended is one all the same")
            if motion.action == "suspend-training" and offer is not None:
                idle = {entry.component for entry in offer.idle}
                if not idle.issuperset(offer.components):
                    raise InvariantError("G3", "a trainer that was suspended is one all the same")

    def _kept(self, node: Node, before: Ledger) -> None:
        """Counted updates have acks of a host quorum, and honest ackers hold the bytes."""
        core = node.core
        assert core is not None
        for name, component in core.ledger.components.items():
            for round_ in component.rounds[before.components[name].round :]:
                hosts = self._hosts_at_close(before, core.ledger, name)
                for entry in round_.entries:
                    held = [n for n in self.cluster.honest() if entry.blob in n.store.blobs]
                    bound = [n for n in self.cluster.honest() if n.index not in self._lost]
                    # Liars, lost disks, and nodes that are further on and may have erased it again.
                    on = [n for n in bound if n.core is not None and n.core.ledger.height > core.ledger.height]
                    others = len(hosts - {n.identity.public_key for n in (*(n for n in bound if n not in on), *held)})
                    if len(held) + others < self._needed(max(1, len(hosts))):
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
            self._charged(node, open_gossip(UpdateHeader, wire, self.cluster.federation, trusted=True).value)

    def _charged(self, node: Node, value: UpdateHeader) -> None:
        """G6: the training run behind an update is on disk, and its claim covers every training run that is."""
        if value.author != node.identity.public_key:
            return
        reservations = node.store.reservations
        part = [
            d for d in reservations if any((p.component, p.round) == (value.component, value.round) for p in d.parts)
        ]
        if not part:
            raise InvariantError("G6", f"{value.component} round {value.round} left without a training run on disk")
        for claim in value.claims:
            told = sum(entry.count for entry in claim.events)
            spent = sum(
                d.steps for d in reservations if d.run <= part[-1].run and any(p.noise_multiplier for p in d.parts)
            )
            if told < spent:
                raise InvariantError("G6", f"a claim of {told} steps where {spent} were taken")
            claims = self._claims.setdefault((node.index, claim.modality, value.component), {})
            claims[value.round] = told
            if told < max(claims[round_] for round_ in claims if round_ <= value.round):
                raise InvariantError("G6", f"a claim of {told} steps after a larger one")

    def folded(self, node: Node, fold: ev.Fold, found: bytes) -> None:
        """G1: equal frozen lists give equal states."""
        chain = fold.rounds[-1].chain if fold.rounds else NIL
        if self._states.setdefault((fold.component, chain), found) != found and not self.cluster.lies(node):
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

    # ---- at the end

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
            ledger = fold_block(self.cluster.charter, ledger, stored.block, stored.records)
        if ledger != node.core.ledger:
            raise InvariantError("G1", "the incremental ledger is not the fold from scratch")
        for node in nodes:
            if not node.taken:  # a node that took a certified state in place of history lacks its bytes
                self._refolded(node)
                self._added_up(node)
            self._erased(node)

    def _added_up(self, node: Node) -> None:
        """G4: the states are what design.md section 8 says of the counted updates, computed again in plain integers."""
        core = node.core
        assert core is not None
        for name in core.held:
            component, spec = core.ledger.components[name], core.specs[name]
            if spec.rule != "mean" or spec.dimension > MAX_COMPUTED:
                continue
            state = [0] * spec.dimension
            for round_ in component.rounds:
                weights = _weights([(entry.variance, entry.staleness) for entry in round_.entries])
                rows = [payload_values(node.store.blobs[entry.blob], spec).tolist() for entry in round_.entries]
                for place in range(spec.dimension if weights else 0):
                    total = 256 * sum(a * int(row[place]) for a, row in zip(weights, rows, strict=True))
                    state[place] += round(Fraction(total, sum(weights)))  # half to even
            if core.folded[name][3] != state_digest(name, np.array(state, dtype=np.int32)):
                raise InvariantError("G4", f"{name} is not what its counted updates add up to")

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
        """G7: what was withdrawn is gone from every disk but its owner's once the new generation is certified."""
        core = node.core
        assert core is not None
        if any(component.erasures for component in core.ledger.components.values()):
            return
        counted = {e.blob for c in core.ledger.components.values() for r in c.rounds for e in r.entries}
        counted |= {p.blob for c in core.ledger.components.values() for p in c.pending}
        for record in node.store.records.values():
            body = _update_in(record.value)
            if body is None:
                continue
            signed = open_gossip(UpdateHeader, body.header, self.cluster.federation, trusted=True)
            header, seq = signed.value, record.value.seq
            where = (header.component, header.author, seq, header.round, signed.digest)
            # What stale updates left is not withdrawn; a round after a rewind may hold what others have in flight.
            if header.blob in counted or not any(w.bars(*where) for w in core.ledger.withdrawn):
                continue
            if header.blob in node.store.blobs and header.author != node.identity.public_key:
                raise InvariantError("G7", f"node {node.index} still holds withdrawn bytes of {header.component}")


def _is_taken(found: Withdrawn, name: str, number: int, entry: Entry) -> bool:
    """Whether a withdrawal is about this entry, by the words of design.md section 9; a rewind takes everybody's."""
    if found.mode == "rewind":
        return True
    if entry.author != found.author or entry.seq > found.through:
        return False
    if found.scope == "updates":
        return entry.update in found.updates
    if found.scope != "all" and name not in found.components:
        return False
    return found.scope != "rounds" or found.first <= number <= found.last


def _weights(entries: Sequence[tuple[int, int]]) -> list[int]:
    """Return the weights of `mean` for (variance, staleness): `v₀ = max(1, lower median)`, at least half a share."""
    if not entries:
        return []
    n = len(entries)
    middle = max(1, sorted(variance for variance, _ in entries)[(n - 1) // 2])
    shares = [2**16 * middle // (middle + variance) for variance, _ in entries]
    whole = [2**15 * share // sum(shares) + 2**15 // n for share in shares]
    return [max(1, a // 2**staleness) for a, (_, staleness) in zip(whole, entries, strict=True)]


def _update_in(record: Record) -> Update | None:
    try:
        body = body_of(record)
    except RemoteProtocolError:
        return None
    return body if isinstance(body, Update) else None


def _height(data: bytes, federation: bytes) -> int:
    if data[0] == Kind.VOTE:
        return open_gossip(Vote, data[1:], federation, trusted=True).value.height
    return open_gossip(Proposal, data[1:], federation, trusted=True).value.height
