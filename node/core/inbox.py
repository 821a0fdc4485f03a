"""Input from neighbours: cheap checks first, signatures only of news, an answer piece by piece.

An answer to a sync request holds up to 6 MiB of a neighbour's choice. So one without news is given up, and other votes,
timers and the operator have their turn between its pieces.
"""

from collections.abc import Iterator
from typing import assert_never

from ...consensus.agreement import Message
from ...consensus.rounds import next_round
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol import schema
from ...protocol.blocks import Block, Proposal, Vote, verify_certificate
from ...protocol.records import GENESIS, Record
from ...protocol.signing import SIGNATURE_SIZE, open_gossip
from ...protocol.update import UpdateHeader
from . import catchup, feeds, heights, updates
from . import events as ev
from .messages import SYNC_LIMIT, Acked, Kind, SyncResponse, kind_of_message, message, open_message
from .progress import PATIENCE
from .state import NodeState
from .timers import NextPiece

PIECE = 256  # messages, or signatures of blocks, in one piece of an answer
MAX_REFUSED = 64  # messages of an answer; the rest is ignored
MAX_IDLE = 4096  # messages without news; some are honest, since other neighbours send the same


def is_news(state: NodeState, kind: Kind, wire: bytes) -> bool:
    """Whether a message may change anything here, by cheap checks only. Its signature is not checked.

    Raises RemoteProtocolError, which blames the sender and not the author: the author is not verified yet.
    """
    match kind:
        case Kind.RECORD:
            return _record(state, wire)
        case Kind.HEADER:
            return _header(state, wire)
        case Kind.PROPOSAL | Kind.VOTE:
            return _vote(state, Proposal if kind is Kind.PROPOSAL else Vote, wire)
        case Kind.ACK:
            return True
        case _:
            assert_never(kind)


def _record(state: NodeState, wire: bytes) -> bool:
    if digest(Record.DOMAIN, wire[SIGNATURE_SIZE:]) in state.pool.records:
        return False
    record = open_gossip(Record, wire, state.federation, trusted=True)
    value = record.value
    if value.author not in state.ledger.members:
        if state.progress.behind(state.ledger.height):
            return False  # admitted by a block that this node does not have yet
        raise RemoteProtocolError("not-a-member", "the record's author is not a member")
    seq, head = state.ledger.heads.get(value.author, (0, GENESIS))
    if value.seq <= seq:
        return value.seq == seq and record.digest != head  # a fork of what is agreed
    return state.pool.has_room(record, seq) or feeds.is_wanted(state, record.digest)


def _header(state: NodeState, wire: bytes) -> bool:
    name = digest(UpdateHeader.DOMAIN, wire[SIGNATURE_SIZE:])
    if name in state.in_flight:
        return False
    value = open_gossip(UpdateHeader, wire, state.federation, trusted=True).value
    if value.author == state.me:
        return True  # its spending is recalled in any case
    if value.author not in state.ledger.members:
        if state.progress.behind(state.ledger.height):
            return False
        raise RemoteProtocolError("not-a-member", "the update's author is not a member")
    component = state.ledger.components.get(value.component)
    if component is None:
        raise RemoteProtocolError("unknown-component", value.component[:64])
    if name in state.counted or updates.is_void(state, value, name):
        return False
    latest = next_round(state.specs[value.component], component, state.ledger.withdrawn, value.author)
    return value.round <= latest + 1  # otherwise this node is behind: it comes again


def _vote(state: NodeState, cls: type[Proposal] | type[Vote], wire: bytes) -> bool:
    name = digest(cls.DOMAIN, wire[SIGNATURE_SIZE:])
    agreement = state.agreement
    if agreement is not None and name in agreement.seen:
        return False
    value: Proposal | Vote = _peek(cls, wire, state.federation)
    height = state.ledger.height
    if value.author not in state.ledger.members or not height < value.height <= height + heights.HEIGHTS_AHEAD:
        return False
    if value.author == state.me:
        return True  # this disk may have lost it
    if value.height == height + 1 and agreement is not None:
        return agreement.is_news(value)
    return heights.has_room(state, value, name)


def _peek(cls: type[Proposal] | type[Vote], wire: bytes, federation: bytes) -> Proposal | Vote:
    if cls is Proposal:
        return open_gossip(Proposal, wire, federation, trusted=True).value
    return open_gossip(Vote, wire, federation, trusted=True).value


def begin(state: NodeState, event: ev.SyncReply) -> None:
    """Start a neighbour's answer with its first piece. A second one at a time was not requested, and is dropped."""
    if event.peer not in state.answers:
        state.answers.steps[event.peer] = _take(state, event.peer, event.data)
        if len(state.answers.steps) == 1:
            go_on(state)


def go_on(state: NodeState) -> None:
    """Take the next piece of the oldest answer; set a timer for the piece after it if there is one."""
    steps = state.answers.steps
    if not steps:
        return
    peer = next(iter(steps))
    weight = 0
    try:
        for cost in steps[peer]:
            weight += cost
            if weight >= PIECE:
                break
        else:
            steps.pop(peer, None)
    except RemoteProtocolError as error:
        steps.pop(peer, None)
        state.refuse(error.peer or peer, error)
    if steps:
        state.emit(ev.SetTimer(NextPiece(), 0))


def _take(state: NodeState, peer: bytes, data: bytes) -> Iterator[int]:
    """Take an answer, blocks first; yields the cost of each step. Raises RemoteProtocolError where it is given up."""
    response = schema.load(SyncResponse, data, SYNC_LIMIT)
    if response.federation != state.federation:
        raise RemoteProtocolError("wrong-federation", response.federation.hex()[:16], peer)
    before = (state.ledger.height, state.pool.version)
    state.progress.hear(peer, response.height)
    sent: dict[bytes, bytes] = {}
    wires = (*response.records, *(item[1:] for item in response.messages if item[0] == Kind.RECORD))
    for number, wire in enumerate(wires):
        sent[digest(Record.DOMAIN, wire[SIGNATURE_SIZE:])] = wire
        if number % PIECE == 0:
            yield PIECE // 8
    for decided in response.blocks:
        block = schema.load(Block, decided.block, len(decided.block))
        if block.height == state.ledger.height + 1:
            verify_certificate(block, decided.certificate, frozenset(state.ledger.members), state.ledger.fault_model)
            feeds.take_under(state, block, sent)
            if not heights.adopt(state, block, decided.certificate):
                break
        yield 1 + len(decided.certificate.signatures)
    for identifier, block in state.judging.items():
        if identifier not in state.prepared:
            feeds.take_under(state, block, sent)
    refused = idle = 0
    rest = [item for item in response.messages if item[0] != Kind.RECORD]
    for item in (*(message(Kind.RECORD, wire) for wire in sent.values()), *rest):
        try:
            idle += not on_message(state, item)
        except RemoteProtocolError as error:
            state.refuse(error.peer or peer, error)
            refused += 1
        if refused > MAX_REFUSED or idle > MAX_IDLE:
            raise RemoteProtocolError("useless-answer", f"{refused} messages refused, {idle} no news", peer)
        yield 1
    state.answers.steps.pop(peer, None)  # an answer without `more` is complete: the neighbour may be asked again
    _conclude(state, peer, response, before, len(data))


def _conclude(state: NodeState, peer: bytes, response: SyncResponse, before: tuple[int, int], size: int) -> None:
    catchup.tell(state, peer, before[0])
    if response.more:
        if (state.ledger.height, state.pool.version) != before:  # otherwise requests could go in circles
            state.progress.part(state.now, state.ledger.height - before[0], size)
            catchup.sync(state, peer)
        return
    state.progress.more = -PATIENCE
    if response.height <= state.ledger.height and peer in state.ledger.members:
        for other in () if state.reports else sorted(state.neighbours - {peer}):
            catchup.sync(state, other)
        state.reports.add(peer)
        heights.maybe_sign(state)


def on_message(state: NodeState, data: bytes) -> bool:
    """Take a neighbour's message; False if it was no news, by checks that are cheaper than its signature."""
    if not data:
        raise RemoteProtocolError("malformed", "an empty message")
    kind, wire = kind_of_message(data), data[1:]
    if not is_news(state, kind, wire):
        return False
    match kind:
        case Kind.RECORD:
            feeds.on_record(state, wire)
        case Kind.HEADER:
            updates.on_header(state, open_gossip(UpdateHeader, wire, state.federation))
        case Kind.ACK:
            updates.on_ack(state, schema.load(Acked, wire, Acked.LIMIT))
        case Kind.PROPOSAL:
            heights.on_vote(state, _open_vote(state, Proposal, wire))
        case Kind.VOTE:
            heights.on_vote(state, _open_vote(state, Vote, wire))
        case _:
            assert_never(kind)
    return True


def _open_vote(state: NodeState, cls: type[Proposal] | type[Vote], wire: bytes) -> Message:
    """Decode a proposal or vote, checking its signature only if it is news."""
    name = digest(cls.DOMAIN, wire[SIGNATURE_SIZE:])
    if state.agreement is not None and name in state.agreement.seen:
        return state.agreement.seen[name]
    return open_message(cls, wire, state.federation)
