"""What comes from a neighbour: cheap checks first, signatures only of what is news, an answer piece by piece.

An answer to a sync request holds up to 6 MiB of whatever a neighbour likes. So one that brings nothing is given up, and
the votes of others, timers and the operator have their turn between its pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...consensus.ledger import next_round
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import digest
from ...protocol import schema
from ...protocol.blocks import Block, Proposal, Vote, verify_certificate
from ...protocol.records import GENESIS, Record
from ...protocol.signing import SIGNATURE_SIZE, open_gossip
from ...protocol.update import UpdateHeader
from . import catchup
from . import events as ev
from .messages import SYNC_LIMIT, Kind, SyncResponse, message

if TYPE_CHECKING:
    from .core import Core

TIMER = "answer"
PIECE = 256  # messages, or signatures of blocks, that are taken of an answer at a time
MOST_REFUSED = 64  # messages of an answer; then the rest is not looked at
MOST_IDLE = 4096  # that are no news: some are honest, since other neighbours tell the same

HEIGHTS_AHEAD = 8  # of which votes are kept
WAITING_VOTES, WAITING_PROPOSALS = 40, 4  # of each member for each of these heights


@dataclass(slots=True)
class Answers:
    """Answers of neighbours that are being taken, in the order of arrival: at most one of each."""

    steps: dict[bytes, Iterator[int]] = field(default_factory=dict)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self.steps


def is_news(core: "Core", kind: int, wire: bytes) -> bool:
    """Whether a message may change anything here, by what costs little to ask. Its signature is not checked.

    Raises RemoteProtocolError, which blames whoever told it and not its author: nobody knows yet that it is theirs.
    """
    if kind == Kind.RECORD:
        return _record(core, wire)
    if kind == Kind.HEADER:
        return _header(core, wire)
    if kind in (Kind.PROPOSAL, Kind.VOTE):
        return _vote(core, Proposal if kind == Kind.PROPOSAL else Vote, wire)
    return True


def _record(core: "Core", wire: bytes) -> bool:
    if digest(Record.DOMAIN, wire[SIGNATURE_SIZE:]) in core.pool.records:
        return False
    record = open_gossip(Record, wire, core.federation, trusted=True)
    value = record.value
    if value.author not in core.ledger.members:
        if core.progress.behind(core.ledger.height):
            return False  # admitted by a block that this node does not have yet
        raise RemoteProtocolError("stranger", "the record's author is not a member")
    seq, head = core.ledger.heads.get(value.author, (0, GENESIS))
    if value.seq <= seq:
        return value.seq == seq and record.digest != head  # a fork of what is agreed
    return core.pool.has_room(record, seq) or core._wanted(record.digest)


def _header(core: "Core", wire: bytes) -> bool:
    name = digest(UpdateHeader.DOMAIN, wire[SIGNATURE_SIZE:])
    if name in core.flights:
        return False
    value = open_gossip(UpdateHeader, wire, core.federation, trusted=True).value
    if value.author == core.me:
        return True  # what it spent is recalled, whatever becomes of it
    if value.author not in core.ledger.members:
        if core.progress.behind(core.ledger.height):
            return False
        raise RemoteProtocolError("stranger", "the update's author is not a member")
    component = core.ledger.components.get(value.component)
    if component is None:
        raise RemoteProtocolError("unknown-component", value.component[:64])
    if name in core._counted or core._void(value, name):
        return False
    latest = next_round(core.specs[value.component], component, core.ledger.withdrawn, value.author)
    return value.round <= latest + 1  # else this node is behind: it comes again


def _vote(core: "Core", cls: type[Proposal] | type[Vote], wire: bytes) -> bool:
    name = digest(cls.DOMAIN, wire[SIGNATURE_SIZE:])
    agreement = core.agreement
    if agreement is not None and name in agreement.seen:
        return False
    value: Proposal | Vote = _peek(cls, wire, core.federation)
    height = core.ledger.height
    if value.author not in core.ledger.members or not height < value.height <= height + HEIGHTS_AHEAD:
        return False
    if value.author == core.me:
        return True  # it may be one that this disk has lost
    if value.height == height + 1 and agreement is not None:
        return agreement.is_news(value)
    return has_room(core, value, name)


def _peek(cls: type[Proposal] | type[Vote], wire: bytes, federation: bytes) -> Proposal | Vote:
    if cls is Proposal:
        return open_gossip(Proposal, wire, federation, trusted=True).value
    return open_gossip(Vote, wire, federation, trusted=True).value


def has_room(core: "Core", value: Proposal | Vote, name: bytes) -> bool:
    """Whether a vote for a later height is kept until then: it is new, and its author has not too many there."""
    same = [known for known in core.later.get(value.height, ()) if known.value.author == value.author]
    if any(known.digest == name for known in same):
        return False
    if isinstance(value, Proposal):
        return sum(isinstance(known.value, Proposal) for known in same) < WAITING_PROPOSALS
    return len(same) < WAITING_VOTES


def begin(core: "Core", event: ev.SyncReply) -> None:
    """Take a neighbour's answer, its first piece now. A second one at a time is not taken: it was not asked for."""
    if event.peer not in core.answers:
        core.answers.steps[event.peer] = _take(core, event.peer, event.data)
        if len(core.answers.steps) == 1:
            go_on(core)


def go_on(core: "Core") -> None:
    """Take the next piece of the oldest answer; ask for another turn if there is more."""
    steps = core.answers.steps
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
        core._refuse(error.peer or peer, error)
    if steps:
        core._emit(ev.SetTimer(TIMER, 0))


def _take(core: "Core", peer: bytes, data: bytes) -> Iterator[int]:
    """Take an answer, blocks first; yields what each step has cost. Raises RemoteProtocolError where it is given up."""
    response = schema.load(SyncResponse, data, SYNC_LIMIT)
    if response.federation != core.federation:
        raise RemoteProtocolError("wrong-federation", response.federation.hex()[:16], peer)
    before = (core.ledger.height, core.pool.version)
    core.progress.hear(peer, response.height)
    sent: dict[bytes, bytes] = {}
    wires = (*response.records, *(item[1:] for item in response.messages if item[0] == Kind.RECORD))
    for number, wire in enumerate(wires):
        sent[digest(Record.DOMAIN, wire[SIGNATURE_SIZE:])] = wire
        if number % PIECE == 0:
            yield PIECE // 8
    for decided in response.blocks:
        block = schema.load(Block, decided.block, len(decided.block))
        if block.height == core.ledger.height + 1:
            verify_certificate(block, decided.certificate, frozenset(core.ledger.members), core.ledger.fault_model)
            core._take_under(block, sent)
            if not core._adopt(block, decided.certificate):
                break
        yield 1 + len(decided.certificate.signatures)
    for identifier, block in core.judging.items():
        if identifier not in core.prepared:
            core._take_under(block, sent)
    refused = idle = 0
    rest = [item for item in response.messages if item[0] != Kind.RECORD]
    for item in (*(message(Kind.RECORD, wire) for wire in sent.values()), *rest):
        try:
            idle += not core._on_message(item)
        except RemoteProtocolError as error:
            core._refuse(error.peer or peer, error)
            refused += 1
        if refused > MOST_REFUSED or idle > MOST_IDLE:
            raise RemoteProtocolError("useless-answer", f"{refused} messages refused, {idle} no news", peer)
        yield 1
    core.answers.steps.pop(peer, None)  # whoever said all it had may be asked again
    _conclude(core, peer, response, before, len(data))


def _conclude(core: "Core", peer: bytes, response: SyncResponse, before: tuple[int, int], size: int) -> None:
    catchup.tell(core, peer, before[0])
    if response.more:
        if (core.ledger.height, core.pool.version) != before:  # else it leads us in circles
            core.progress.part(core._now, core.ledger.height - before[0], size)
            core._sync(peer)
        return
    core.progress.more = -catchup.PATIENCE
    if response.height <= core.ledger.height and peer in core.ledger.members:
        for other in () if core.reports else sorted(core.neighbours - {peer}):
            core._sync(other)
        core.reports.add(peer)
        core._maybe_sign()
