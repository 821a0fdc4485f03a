"""The lies of faulty members: each by its name, with its aim (design.md section 2: fewer than a third may).

A liar runs the honest core, and this in between: `says` replaces its gossip, by target; `serves` replaces its
answers to anti-entropy; `acts` is called every so many milliseconds. Its key is its own, so it signs whatever it likes.

The module is long because it is one flat catalogue: a lie is a few lines, and nothing else depends on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...consensus.cut import order
from ...consensus.fold import apply_records, next_state
from ...consensus.ledger import members_digest
from ...consensus.rounds import close_rounds
from ...consensus.summary import state_digest
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.core import events as ev
from ...node.core.catchup import in_flight_messages
from ...node.core.messages import MESSAGE_LIMIT, SYNC_LIMIT, Acked, DecidedBlock, Kind, SyncResponse, message
from ...protocol import schema
from ...protocol.amendment import Amendment, Changes, Opening, amended
from ...protocol.blocks import (
    NIL,
    PRECOMMIT,
    PREVOTE,
    Block,
    Certificate,
    Head,
    Proposal,
    Vote,
    VoteSignature,
    block_id,
)
from ...protocol.membership import MIN_OPEN, Ballot, Motion
from ...protocol.records import GENESIS, PROVABLE, Ack, Attest, Evidence, Record, ack_message, kind_of, verify_ack
from ...protocol.signing import Signed, open_signed, sign
from ...protocol.update import UpdateHeader, payload, payload_values
from .cluster import Node
from .lie import Lie, Told

MAX_MADE_UP = 5  # blocks
STRANGERS = 20  # under one cut
MAX_FLOODED = 600  # records: then a flood ends, so that a run can
OTHER_FEDERATION = sha256(b"another federation of the same members")


def everybody(node: Node, *lies: bytes) -> Told:
    """Send the same lie to every node."""
    return [(n, lie) for n in range(len(node.cluster.nodes)) for lie in lies]


def own_record(node: Node, data: bytes) -> Signed[Record] | None:
    """Return the liar's own record in a message; None if it is something else."""
    if not data or data[0] != Kind.RECORD:
        return None
    record = open_signed(Record, data[1:], node.cluster.federation, trusted=True)
    return record if record.value.author == node.identity.public_key else None


def own_header(node: Node, data: bytes) -> UpdateHeader | None:
    """Return the liar's own update header in a message; None if it is something else."""
    if not data or data[0] != Kind.HEADER:
        return None
    value = open_signed(UpdateHeader, data[1:], node.cluster.federation, trusted=True).value
    return value if value.author == node.identity.public_key else None


def own_vote(node: Node, data: bytes) -> Vote | None:
    """Return the liar's vote in a message; None if it is something else."""
    if not data or data[0] != Kind.VOTE:
        return None
    return open_signed(Vote, data[1:], node.cluster.federation, trusted=True).value


def own_proposal(node: Node, data: bytes) -> tuple[Proposal, Block] | None:
    """Return the liar's proposal of a new block in a message; None if it is something else, or proposed again."""
    if not data or data[0] != Kind.PROPOSAL:
        return None
    value = open_signed(Proposal, data[1:], node.cluster.federation, trusted=True).value
    return None if value.valid_view else (value, schema.load(Block, value.block, len(value.block)))


def signed_message(node: Node, value: Record | Vote | Proposal | UpdateHeader) -> bytes:
    """Sign a statement as the liar, as a gossip message."""
    kinds = {Record: Kind.RECORD, Vote: Kind.VOTE, Proposal: Kind.PROPOSAL, UpdateHeader: Kind.HEADER}
    return message(kinds[type(value)], sign(node.identity, value).wire)


def instead(node: Node, record: Record, kind: str, body: bytes) -> bytes:
    """Write another record in this one's place, after the liar's earlier one."""
    before = node.memory.get(("record", record.seq - 1), record.prev)
    assert isinstance(before, bytes)
    lie = sign(node.identity, replace(record, prev=before, kind=kind, body=body))
    node.memory["record", record.seq] = lie.digest
    return message(Kind.RECORD, lie.wire)


def append(node: Node, kind: str, body: bytes) -> bytes | None:
    """Write a record into the liar's feed that its core did not write; return its message."""
    core = node.core
    if core is None or not core.signing:
        return None
    seq, prev = core.head
    record = sign(node.identity, Record(core.federation, core.me, seq + 1, prev, kind, body))
    core.head = (seq + 1, record.digest)
    core.pool.add(record, core.ledger.heads, agreed=True)
    node.store.apply([ev.PutRecord(record)])
    return message(Kind.RECORD, record.wire)


# ---- feeds


def _branch(node: Node, record: Record, salt: int, body: bytes = b"\xa0") -> bytes:
    return signed_message(node, replace(record, kind=f"noise-{salt}", body=body))


def forks(node: Node, data: bytes) -> Told | None:
    """Send every node another branch of its feed."""
    record = own_record(node, data)
    if record is not None and record.value.seq >= 3:
        return [(n, _branch(node, record.value, n)) for n in range(len(node.cluster.nodes))]
    return None


def forks_two_each(node: Node, data: bytes) -> Told | None:
    """Send each node two branches that no other node has: no two can take each other's."""
    record = own_record(node, data)
    if record is not None and record.value.seq >= 3:
        nodes = range(len(node.cluster.nodes))
        return [(n, _branch(node, record.value, 2 * n + k)) for n in nodes for k in (0, 1)]
    return None


def big_forks(node: Node, data: bytes) -> Told | None:
    """Fork with branches that are too large for an Evidence record."""
    record = own_record(node, data)
    if record is not None and record.value.seq >= 3:
        nodes = range(len(node.cluster.nodes))
        return [(n, _branch(node, record.value, k, bytes([n, k]) * 20_000)) for n in nodes for k in (0, 1)]
    return None


def malformed_bodies(node: Node, data: bytes) -> Told | None:
    """Write well-signed records of known kinds whose bodies are nonsense."""
    record = own_record(node, data)
    if record is None:
        return None
    kind = ("offer", "update", "attest", "evidence", "withdrawal")[record.value.seq % 5]
    return everybody(node, instead(node, record.value, kind, b"\xc1nonsense"))


def false_attest(node: Node, data: bytes) -> Told | None:
    """Attest another state than it holds."""
    record = own_record(node, data)
    if record is None or record.value.kind != "attest":
        return None
    body = replace(schema.load(Attest, record.value.body, 4096), digest=sha256(b"another state"))
    return everybody(node, signed_message(node, replace(record.value, kind=kind_of(body), body=schema.dump(body))))


def floods(node: Node) -> None:
    """Write valid records of no use, several times the charter's quota of a height."""
    done = node.memory.get("flooded", 0)
    assert isinstance(done, int)
    for _ in range(min(5 * node.cluster.charter.rules.records_per_height, MAX_FLOODED - done)):
        record = append(node, "noise", b"\xa0" * 100)
        if record is None:
            return
        done += 1
        node.cluster.broadcast(node, record)
    node.memory["flooded"] = done


def false_evidence(node: Node) -> None:
    """Accuse others by votes and records that they did sign, and that prove nothing."""
    core = node.core
    if core is None or not core.signing:
        return
    votes = [item for item in core.agreement.messages() if isinstance(item.value, Vote)] if core.agreement else []
    records = [r for r in node.store.records.values() if r.value.author != core.me and r.value.kind != "evidence"]
    accusations: tuple[tuple[str, Sequence[Signed[Vote] | Signed[Record]]], ...] = (
        ("double-vote", votes[:1] * 2),
        ("fork", records[:2]),
        ("fork", records[:1] * 2),
    )
    for number, (kind, pair) in enumerate(accusations):
        if len(pair) == 2 and number not in node.memory:
            node.memory[number] = record = append(
                node, "evidence", schema.dump(Evidence(kind, pair[0].wire, pair[1].wire))
            )
            if record is not None:
                node.cluster.broadcast(node, record)


def floods_motions(node: Node) -> None:
    """Propose motions about all members, vote both ways and on missing motions, carry ballots of strangers."""
    core = node.core
    done = node.memory.setdefault("motions", 0)
    assert isinstance(done, int)
    if core is None or not core.signing or done >= MAX_FLOODED:
        return
    others = [member for member in core.ledger.members if member != core.me]
    expiry = core.ledger.height + 2 * MIN_OPEN
    bodies: list[Motion | Ballot] = [Motion(a, key, b"", "", expiry) for key in others for a in ("expel", "suspend")]
    bodies += [Ballot(motion.digest, yes) for motion in core.ledger.roll.motions for yes in (1, 0, 1)]
    bodies += [Ballot(sha256(b"no motion %d" % done), 1), Ballot(core.head[1], 1)]
    for body in bodies:
        record = append(node, kind_of(body), schema.dump(body))
        if record is not None:
            node.cluster.broadcast(node, record)
    node.memory["motions"] = done + len(bodies)
    for motion in core.ledger.roll.motions:
        stranger = Identity.from_seed(sha256(b"stranger %d" % done))
        ballot = Record(
            core.federation, stranger.public_key, 1, GENESIS, "ballot", schema.dump(Ballot(motion.digest, 1))
        )
        node.cluster.broadcast(node, message(Kind.RECORD, sign(stranger, ballot).wire))


def amends_alone(node: Node) -> None:
    """Propose amendments that cannot be: of another federation or number, of nothing, of a shape; vote for each."""
    core = node.core
    done = node.memory.setdefault("amendments", 0)
    assert isinstance(done, int)
    if core is None or not core.signing or done >= MAX_FLOODED:
        return
    charter, me, expiry = core.charter, core.me, core.ledger.height + 2 * MIN_OPEN
    name, spec = next(iter(charter.specs.items()))
    other = replace(spec, tensors=tuple(replace(tensor, bound=7) for tensor in spec.tensors))
    taken = Changes(opening=(Opening((), (), (), (other,)),))
    honest = Changes(retire=(name,))
    for federation, number, changes in (
        (sha256(b"another"), charter.number + 1, honest),
        (charter.federation, charter.number + 2, honest),
        (charter.federation, max(1, charter.number), honest),
        (charter.federation, charter.number + 1, Changes()),
        (charter.federation, charter.number + 1, taken),
        (charter.federation, charter.number + 1, honest),  # valid: and nobody else wants it
    ):
        statement = schema.dump(Amendment(federation, number, changes))
        for subject in (charter.federation, me):
            body = Motion("amend", subject, statement, "", expiry)
            record = append(node, kind_of(body), schema.dump(body))
            if record is not None:
                node.cluster.broadcast(node, record)
        done += 2
    for motion in core.ledger.roll.motions:
        if motion.action == "amend":
            for yes in (1, 1):
                ballot = append(node, "ballot", schema.dump(Ballot(motion.digest, yes)))
                if ballot is not None:
                    node.cluster.broadcast(node, ballot)
    node.memory["amendments"] = done


# ---- agreement


def false_charter(node: Node, data: bytes) -> Told | None:
    """Propose blocks whose ledger has a charter in force that nobody voted for."""
    own, core = own_proposal(node, data), node.core
    if own is None or core is None:
        return None
    proposal, block = own
    records = core.pool.under(block.cut, core.ledger.heads)
    if records is None:
        return None
    name = next(iter(core.charter.specs))
    statement = Amendment(core.federation, core.charter.number + 1, Changes(retire=(name,)))
    try:
        state, _ = next_state(core.ledger, order(records), block.close)
        false = replace(state, charter=amended(core.charter, schema.dump(statement)))
    except RemoteProtocolError:
        return None
    lie = replace(proposal, block=schema.dump(replace(block, fold=state_digest(false))))
    return [(n, signed_message(node, lie)) for n in range(len(node.cluster.nodes))]


def double_votes(node: Node, data: bytes) -> Told | None:
    """Vote for the block to some, for nothing and for a made-up block to others."""
    vote = own_vote(node, data)
    if vote is None:
        return None
    lies: Told = []
    for n in range(len(node.cluster.nodes)):
        block = (vote.block, NIL, sha256(b"made up"))[n % 3]
        lies += [(n, signed_message(node, replace(vote, block=block))), (n, data)]
    return lies


def two_blocks(node: Node, data: bytes) -> Told | None:
    """Propose two blocks in a view; one is not what its records fold to, or names a feed that is not there."""
    own = own_proposal(node, data)
    if own is None:
        return None
    proposal, block = own
    other = replace(block, cut=block.cut[:1], close=(), tree_root=NIL)
    wire = signed_message(node, replace(proposal, valid_view=proposal.view, block=schema.dump(other)))
    return [(n, wire if n % 2 else data) for n in range(len(node.cluster.nodes))]


def _block_without(node: Node, block: Block, victim: bytes) -> Block | None:
    """Return the block that leaves a member's update out; None if there is none, or that would be no valid block."""
    core = node.core
    if core is None or block.height != core.ledger.height + 1:
        return None
    records = order(core.pool.under(block.cut, core.ledger.heads) or [])
    if not any(record.value.author == victim and record.value.kind == "update" for record in records):
        return None
    kept = [record for record in records if record.value.author != victim]
    try:
        return next_state(core.ledger, kept, block.close)[1]
    except RemoteProtocolError:
        return None


def hides_update(node: Node, data: bytes) -> Told | None:
    """As the proposer, close the round without an update that has arrived."""
    own = own_proposal(node, data)
    if own is None:
        return None
    proposal, block = own
    for head in block.cut:
        less = (
            _block_without(node, block, head.author)
            if head.author != node.identity.public_key and block.close
            else None
        )
        if less is not None:
            return everybody(node, signed_message(node, replace(proposal, block=schema.dump(less))))
    return None


def reorders(node: Node, data: bytes) -> Told | None:
    """As the proposer, list feeds and components in another order than the ledger's."""
    own = own_proposal(node, data)
    if own is None:
        return None
    proposal, block = own
    other = replace(block, cut=block.cut[::-1], close=block.close[::-1])
    return everybody(node, signed_message(node, replace(proposal, block=schema.dump(other))))


def breaks_chain(node: Node, data: bytes) -> Told | None:
    """As the proposer, put a record of its own under the cut that does not follow its feed."""
    own, core = own_proposal(node, data), node.core
    if own is None or core is None or own[1].height != core.ledger.height + 1:
        return None
    proposal, block = own
    seq = core.ledger.heads.get(core.me, (0, NIL))[0] + 1
    orphan = sign(node.identity, Record(core.federation, core.me, seq, sha256(b"nowhere"), "noise", b"\xa0"))
    records = core.pool.under(block.cut, core.ledger.heads) or []
    kept = [record for record in records if record.value.author != core.me]
    heads = {core.me: Head(core.me, seq, orphan.digest)} | {h.author: h for h in block.cut if h.author != core.me}
    # Everything else about the header is right: it matches the fold of the records.
    state = close_rounds(core.charter, apply_records(core.ledger, order([*kept, orphan])), (), block.height)
    state = replace(state, height=block.height)
    lie = replace(
        block,
        cut=tuple(head for _, head in sorted(heads.items())),
        close=(),
        tree_size=state.tree.size,
        tree_root=state.tree.root(),
        members=members_digest(state.members),
        fold=state_digest(state),
    )
    gossip = message(Kind.RECORD, orphan.wire)
    return everybody(node, gossip, signed_message(node, replace(proposal, block=schema.dump(lie))))


def splits(node: Node, data: bytes) -> Told | None:
    """As the proposer, give two valid blocks to two halves, and vote for each in front of its half."""
    nodes = range(len(node.cluster.nodes))
    own = own_proposal(node, data)
    if own is not None:
        proposal, block = own
        for head in block.cut:
            less = _block_without(node, block, head.author)
            if less is not None:
                node.memory["halves", proposal.height, proposal.view] = (block.id, less.id)
                other = signed_message(node, replace(proposal, block=schema.dump(less)))
                return [(n, other if n % 2 else data) for n in nodes]
    vote = own_vote(node, data)
    halves = node.memory.get(("halves", vote.height, vote.view)) if vote else None
    if vote is None or not isinstance(halves, tuple):
        return None
    return [(n, signed_message(node, replace(vote, block=halves[n % 2]))) for n in nodes]


def claims_prevotes(node: Node, data: bytes) -> Told | None:
    """As the proposer of a later view, propose another block as if it had been prevoted, with its own prevote alone."""
    vote = own_vote(node, data)
    if vote is not None and vote.step == PREVOTE:
        return []  # else its prevote for the other block were proof of a lie
    if not data or data[0] != Kind.PROPOSAL:
        return None
    proposal = open_signed(Proposal, data[1:], node.cluster.federation, trusted=True).value
    block = schema.load(Block, proposal.block, len(proposal.block))
    if proposal.author != node.identity.public_key or proposal.view == 0:
        return None
    for head in block.cut:
        less = _block_without(node, block, head.author)
        if less is not None:
            before = Vote(
                proposal.federation,
                proposal.author,
                proposal.height,
                proposal.view - 1,
                PREVOTE,
                block_id(schema.dump(less)),
            )
            again = replace(proposal, valid_view=proposal.view, block=schema.dump(less))
            return everybody(node, signed_message(node, before), signed_message(node, again))
    return None


def forgets_locks(node: Node) -> None:
    """Vote for every block that is proposed in whatever view, prevotes or none: nothing proves it."""
    agreement = node.core.agreement if node.core else None
    if agreement is None or agreement.mute:
        return
    for view, proposal in list(agreement.proposals.items()):
        for step in (PREVOTE, PRECOMMIT):
            key = (agreement.height, view, step)
            if key in node.memory:
                continue
            node.memory[key] = True
            identifier = block_id(proposal.value.block)
            vote = Vote(agreement.federation, node.identity.public_key, agreement.height, view, step, identifier)
            node.cluster.broadcast(node, signed_message(node, vote))


def _no_votes(node: Node, data: bytes) -> Told | None:
    return [] if data and data[0] == Kind.VOTE and own_vote(node, data) is not None else None


# ---- updates


def withheld_blob(node: Node, data: bytes) -> Told | None:
    """Sign an update whose bytes nobody can get."""
    header = own_header(node, data)
    if header is not None:
        node.store.blobs.pop(header.blob, None)
    return None


def says_it_trains(node: Node, data: bytes) -> Told | None:
    """Say that it trains, and say so again whenever it is suspended, and send no update."""
    header = own_header(node, data)
    if header is None:
        return None
    node.store.blobs.pop(header.blob, None)
    return []


def two_headers(node: Node, data: bytes) -> Told | None:
    """Sign another header for the same place to every second node."""
    header = own_header(node, data)
    if header is None:
        return None
    core = node.core
    if core is None or header.blob not in node.store.blobs:
        return None
    spec = core.specs[header.component]
    values = -payload_values(node.store.blobs[header.blob], spec)
    bytes_ = payload(core.federation, core.me, header.component, header.round, values)
    node.store.blobs[sha256(bytes_)] = bytes_
    other = signed_message(node, replace(header, blob=sha256(bytes_), size=len(bytes_)))
    return [(n, other if n % 2 else data) for n in range(len(node.cluster.nodes))]


def copied_payload(node: Node, data: bytes) -> Told | None:
    """Name the bytes of an honest member's update in its own header."""
    header = own_header(node, data)
    if header is None:
        return None
    waiting = node.core.in_flight.values() if node.core else ()
    others = [f.header.value for f in waiting if f.header.value.author != header.author]
    if not others:
        return []
    return everybody(node, signed_message(node, replace(header, blob=others[0].blob, size=others[0].size)))


def forged_acks(node: Node, data: bytes) -> Told | None:
    """Write an update record with forged acknowledgements of another member."""
    record = own_record(node, data)
    if record is None or record.value.kind != "update":
        return None
    body = bytearray(record.value.body)
    body[body.index(b"signature") + 20] ^= 1
    return everybody(node, instead(node, record.value, "update", bytes(body)))


def acks_unseen(node: Node) -> None:
    """Acknowledge every update at once, without having its bytes."""
    core = node.core
    if core is None:
        return
    for key, update in core.in_flight.items():
        if not update.stored and ("acked", key) not in node.memory:
            node.memory["acked", key] = True
            signature = node.identity.sign("ack", ack_message(core.federation, key))
            acked = Acked(core.federation, key, core.me, signature)
            node.cluster.broadcast(node, message(Kind.ACK, schema.dump(acked)), update.header.value.author)


# ---- bytes


def garbage(node: Node, data: bytes) -> Told | None:
    """Say damaged bytes, empty bytes and nonsense in place of everything."""
    source = node.cluster.random
    damaged = bytearray(data or b"x")
    damaged[source.randrange(len(damaged))] ^= 1 + source.randrange(255)
    return everybody(
        node, bytes(damaged), b"", data[: len(data) // 2], bytes([source.randrange(8)]) + source.randbytes(99)
    )


def oversized(node: Node) -> None:
    """Say messages beyond every limit, and a well-signed record that is too large to prove a fork of."""
    source = node.cluster.random
    for kind, size in (
        (Kind.RECORD, 80_000),
        (Kind.HEADER, 40_000),
        (Kind.ACK, 5000),
        (Kind.PROPOSAL, MESSAGE_LIMIT + 1),
        (Kind.VOTE, 5000),
    ):
        node.cluster.broadcast(node, message(kind, source.randbytes(size)))
    if node.core is not None:
        seq, prev = node.core.head
        record = Record(node.core.federation, node.core.me, seq + 1, prev, "noise", bytes(60_000))
        node.cluster.broadcast(node, signed_message(node, record))


def _open_message(data: bytes, federation: bytes) -> Record | UpdateHeader | Proposal | Vote:
    kind, wire = data[0], data[1:]
    if kind == Kind.RECORD:
        return open_signed(Record, wire, federation, trusted=True).value
    if kind == Kind.HEADER:
        return open_signed(UpdateHeader, wire, federation, trusted=True).value
    if kind == Kind.PROPOSAL:
        return open_signed(Proposal, wire, federation, trusted=True).value
    return open_signed(Vote, wire, federation, trusted=True).value


def replays_foreign(node: Node) -> None:
    """Repeat records of the same members from another federation."""
    core = node.core
    if core is None:
        return
    keys = {other.identity.public_key: other.identity for other in node.cluster.nodes}
    records = [message(Kind.RECORD, record.wire) for record in list(node.store.records.values())[-8:]]
    for data in (*records, *in_flight_messages(core)[:40]):
        if data[0] == Kind.ACK:
            ack = schema.load(Acked, data[1:], Acked.LIMIT)
            signature = keys[ack.host].sign("ack", ack_message(OTHER_FEDERATION, ack.header))
            assert verify_ack(OTHER_FEDERATION, ack.header, Ack(ack.host, signature))
            lie = schema.dump(replace(ack, federation=OTHER_FEDERATION, signature=signature))
        else:
            value = _open_message(data, core.federation)
            lie = sign(keys[value.author], replace(value, federation=OTHER_FEDERATION)).wire
        node.cluster.broadcast(node, bytes([data[0]]) + lie)


def replays_old(node: Node) -> None:
    """Repeat earlier messages of any node, at random."""
    core = node.core
    if core is None:
        return
    heard = node.memory.setdefault("heard", {})
    assert isinstance(heard, dict)
    heard.update(dict.fromkeys(in_flight_messages(core)))
    heard.update(dict.fromkeys(message(Kind.RECORD, record.wire) for record in node.store.records.values()))
    messages = list(heard)
    for data in node.cluster.random.sample(messages, min(12, len(messages))):
        node.cluster.broadcast(node, data)


# ---- anti-entropy


def _naming(node: Node, proposal: Proposal, block: Block, hidden: Sequence[Signed[Record]]) -> Told:
    """Propose the block with these records under its cut; they are served on request."""
    node.memory["hidden"] = tuple(record.wire for record in hidden)
    heads = {head.author: head for head in block.cut}
    heads |= {r.value.author: Head(r.value.author, r.value.seq, r.digest) for r in hidden}
    lie = replace(block, cut=tuple(head for _, head in sorted(heads.items())))
    return everybody(node, signed_message(node, replace(proposal, block=schema.dump(lie))))


def names_oversized(node: Node, data: bytes) -> Told | None:
    """As the proposer, name a record of its own that is too large for any block."""
    own, core = own_proposal(node, data), node.core
    if own is None or core is None:
        return None
    record = node.memory.get("oversized")
    if record is None and append(node, "noise", bytes(PROVABLE)) is not None:
        record = node.memory["oversized"] = core.pool.records[core.head[1]]
    return _naming(node, *own, [record]) if isinstance(record, Signed) else None


def names_strangers(node: Node, data: bytes) -> Told | None:
    """As the proposer, name records of authors that do not exist."""
    own = own_proposal(node, data)
    if own is None:
        return None
    proposal, block = own
    hidden = []
    for number in range(STRANGERS):
        who = Identity.from_seed(sha256(b"hidden %d %d %d" % (block.height, proposal.view, number)))
        hidden.append(sign(who, Record(block.federation, who.public_key, 1, GENESIS, "noise", bytes(100))))
    return _naming(node, proposal, block, hidden)


def _serves_hidden(node: Node, data: bytes) -> list[bytes]:
    response, hidden = schema.load(SyncResponse, data, SYNC_LIMIT), node.memory.get("hidden", ())
    assert isinstance(hidden, tuple)
    return [schema.dump(replace(response, records=(*response.records, *hidden)))]


def serves_garbage(node: Node, data: bytes) -> list[bytes]:
    """Answer anti-entropy with noise, with a cut-off answer, and beyond the limit."""
    source = node.cluster.random
    return [source.choice((source.randbytes(500), data[: len(data) // 2], b"", bytes(SYNC_LIMIT + 1)))]


def serves_old(_node: Node, data: bytes) -> list[bytes]:
    """Answer as if nothing had happened since the first height, however far it is."""
    response = schema.load(SyncResponse, data, SYNC_LIMIT)
    return [schema.dump(replace(response, height=min(1, response.height), blocks=(), records=(), messages=(), more=0))]


def serves_endless(node: Node, data: bytes) -> list[bytes]:
    """Answer that there is always more, with records that no node will ever need."""
    response = schema.load(SyncResponse, data, SYNC_LIMIT)
    core = node.core
    if core is None:
        return [data]
    count = node.memory.get("served", 10_000)
    assert isinstance(count, int)
    node.memory["served"] = count + 20
    junk = tuple(
        sign(node.identity, Record(core.federation, core.me, count + n, sha256(b"nowhere"), "noise", b"\xa0")).wire
        for n in range(20)
    )
    return [schema.dump(replace(response, records=(*response.records, *junk), more=1))]


def serves_false_blocks(node: Node, data: bytes) -> list[bytes]:
    """Answer with a block of its own making and a certificate that only it signed, several times over."""
    response = schema.load(SyncResponse, data, SYNC_LIMIT)
    core = node.core
    if core is None:
        return [data]
    if not core.pool.chain(core.me, core.ledger.heads) and len(node.memory) < MAX_MADE_UP:
        node.memory["made-up", core.ledger.height] = append(node, "noise", b"\xa0")
    records = core.pool.chain(core.me, core.ledger.heads)
    if not records:
        return [data]
    _, block = next_state(core.ledger, order(records), ())
    vote = sign(node.identity, Vote(core.federation, core.me, block.height, 0, PRECOMMIT, block.id))
    signatures = (VoteSignature(core.me, vote.signature),) * len(core.ledger.members)
    lies = tuple(DecidedBlock(schema.dump(block), Certificate(0, signatures[:n])) for n in (1, len(signatures)))
    wires = tuple(record.wire for record in records)
    forged = replace(response, blocks=response.blocks or lies[node.cluster.random.randrange(2) :])
    return [schema.dump(replace(forged, records=(*response.records, *wires)))]


def _marked(says: Callable[[Node, bytes], Told | None]) -> Callable[[Node, bytes], Told | None]:
    """Record that it sent its lie: else no evidence of one can exist."""

    def mark(node: Node, data: bytes) -> Told | None:
        lies = says(node, data)
        if lies:
            node.memory["told"] = True
        return lies

    return mark


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").splitlines()[0]


_SAYS = (
    false_charter,
    forks,
    forks_two_each,
    big_forks,
    double_votes,
    two_blocks,
    garbage,
    malformed_bodies,
    false_attest,
    withheld_blob,
    says_it_trains,
    two_headers,
    copied_payload,
    hides_update,
    reorders,
    breaks_chain,
    splits,
    claims_prevotes,
    forged_acks,
)
_ACTS = (
    (acks_unseen, 20),
    (false_evidence, 150),
    (floods, 100),
    (floods_motions, 200),
    (amends_alone, 400),
    (oversized, 300),
    (replays_foreign, 200),
    (replays_old, 100),
)
_SERVES = (serves_garbage, serves_old, serves_endless, serves_false_blocks)

LIES: dict[str, Lie[Node]] = {
    **{says.__name__: Lie(says.__name__, _first_line(says), says=_marked(says)) for says in _SAYS},
    **{acts.__name__: Lie(acts.__name__, _first_line(acts), acts=acts, every=every) for acts, every in _ACTS},
    **{serves.__name__: Lie(serves.__name__, _first_line(serves), serves=serves) for serves in _SERVES},
    **{
        says.__name__: Lie(says.__name__, _first_line(says), says=_marked(says), serves=_serves_hidden)
        for says in (names_oversized, names_strangers)
    },
    "forgets_locks": Lie("forgets_locks", _first_line(forgets_locks), says=_no_votes, acts=forgets_locks, every=10),
}
