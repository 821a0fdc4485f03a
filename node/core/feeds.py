"""Records and feeds: admission to the pool, forks, and evidence of forks."""

from ...consensus import membership
from ...consensus.cut import check_record
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol import schema
from ...protocol.blocks import Block
from ...protocol.records import GENESIS, PROVABLE, Evidence, Record
from ...protocol.signing import SIGNATURE_SIZE, Signed, open_gossip
from . import events as ev
from . import spending, updates
from .state import NodeState


def on_record(state: NodeState, wire: bytes) -> None:
    """Take a record from a neighbour if it is a member's and the next of its feed, or near that."""
    if digest(Record.DOMAIN, wire[SIGNATURE_SIZE:]) in state.pool.records:
        return
    record = open_gossip(Record, wire, state.federation)
    author = record.value.author
    check_record(record, state.federation)
    if author not in state.ledger.members:
        if state.progress.behind(state.ledger.height):
            return  # admitted by a block that this node does not have yet
        raise RemoteProtocolError("not-a-member", "the record's author is not a member", author)
    seq, head = state.ledger.heads.get(author, (0, GENESIS))
    if record.value.seq <= seq:
        if record.value.seq == seq and record.digest != head:
            raise RemoteProtocolError("fork", f"seq {seq} is agreed, and another record", author)
        return
    if state.pool.add(record, state.ledger.heads, agreed=is_wanted(state, record.digest)):
        note_fork(state, record)
        state.emit(ev.Persist(ev.PutRecord(record)))
        if author == state.me:
            _adopt_own(state, record)
            spending.recall_record(state, record)
        updates.note_update(state, record)


def is_wanted(state: NodeState, identifier: bytes) -> bool:
    """Whether a proposed block cannot be judged without this record (a third branch of a fork, say)."""
    return any(
        state.pool.missing(block.cut, state.ledger.heads) == identifier
        for key, block in state.judging.items()
        if key not in state.prepared
    )


def note_fork(state: NodeState, record: Signed[Record]) -> None:
    """Keep two records with one sequence number, if possible two that fit into a proof."""
    value = record.value
    same = state.pool.by_seq[value.author][value.seq]
    if len(same) < 2:
        return
    a, b = state.pool.records[same[0]], state.pool.records[same[1]]
    proof = state.proofs.get(value.author)
    if proof is None or (not provable(*proof) and provable(a, b)):
        state.proofs[value.author] = (a, b)


def _adopt_own(state: NodeState, record: Signed[Record]) -> None:
    """Continue this node's feed after an own record from a peer, signed before the disk was lost or set back."""
    heads = state.pool.heads(state.ledger.heads)
    state.head = max(state.head, heads.get(state.me, (0, GENESIS)))
    state.notice("own-record-recovered", "warning", seq=record.value.seq)


def take_under(state: NodeState, block: Block, sent: dict[bytes, bytes]) -> None:
    """Take the records under a decided or proposed cut from an answer, even beside other branches of their feeds."""
    for head in block.cut:
        if head.author not in state.ledger.members:
            continue  # the fold refuses the block by name; non-members' records would stay for ever
        agreed = state.ledger.heads.get(head.author, (0, GENESIS))[0]
        wanted = head.digest
        for _ in range(min(head.seq - agreed, state.charter.rules.records_per_height)):
            record = state.pool.records.get(wanted)
            if record is None and wanted in sent:
                record = open_gossip(Record, sent.pop(wanted), state.federation)
                if record.value.author != head.author:
                    break
                try:
                    check_record(record, state.federation)
                except RemoteProtocolError as error:
                    state.refuse(head.author, error)
                    break
                if state.pool.add(record, state.ledger.heads, agreed=True):
                    note_fork(state, record)
                    state.emit(ev.Persist(ev.PutRecord(record)))
                    spending.recall_record(state, record)
            if record is None or record.value.author != head.author:
                break
            wanted = record.value.prev


def convict(state: NodeState) -> None:
    """Put proofs of forks into the ledger."""
    published = {record.value.body for record in state.pool.chain(state.me, state.ledger.heads)}
    for author, (a, b) in state.proofs.items():
        if membership.present(state.ledger.roll, author) not in state.ledger.members:
            continue
        if author == state.me or not provable(a, b):
            continue
        evidence = Evidence("fork", a.wire, b.wire)
        if schema.dump(evidence) not in published:
            state.notice("fork", "error", member=author, seq=a.value.seq)
            state.append(evidence)


def provable(a: Signed[Record], b: Signed[Record]) -> bool:
    """Whether two records with one sequence number fit into a record of evidence."""
    return max(len(a.wire), len(b.wire)) <= PROVABLE
