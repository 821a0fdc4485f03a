"""The ledger fold: agreed records to ledger state. It reads records only; every member computes the same (G1, G4).

**Why a fold.** Members never send each other their ledger state. They agree on a list of blocks (agreement.py), and
each member computes the state alone:

    state(0) = genesis(the founding charter)
    state(h) = fold_block(state(h - 1), block h, the records of block h)

The function is pure: the result depends on the arguments and on nothing else. Equal blocks therefore give equal
states, and agreement on blocks is agreement on all their consequences: members, hosts, closed rounds, withdrawals.
Textbooks call this state machine replication (Lamport 1978; Schneider 1990). A balance computed from a list of
bookings is the everyday case. Three things come without more code: a late member folds the blocks it missed, a restart
folds the blocks on its disk, and an auditor folds from the charter on and trusts nobody.

**What is deterministic.** Each header carries a digest of the state after its block (summary.py). A node that computes
another digest finds the block invalid before it votes ("header-differs"). To come out equal on every machine, the fold
has

- no clock: time is the height. Deadlines are judged outside, before a vote (node/core/candidates.py);
- no randomness and no floating point: charter and records hold integers, and division is of integers;
- one order: records by author key, then sequence number (cut.py), whatever their order of arrival; and a sort wherever
  the order of a set or map could matter;
- no other input: no configuration, disk or network. The result does not depend on whose node computes it;
- errors as results: a record with a malformed body, or against a bound, is *inert*. It stays in its feed, everybody
  refuses it by the same name, and the block is valid all the same. A broken chain, quota or close makes a block
  invalid.

A change of a rule here changes the protocol: nodes of the old and the new version disagree from the first block that
they fold differently.

**Why no update bytes are read here.** The bytes of an update are large and lie with the hosts of its component; a
school without that modality never has them. A fold over bytes would depend on which files a disk holds. So this fold
sees the signed header, and signed acknowledgements of hosts that hold the bytes and checked them. The states of
components come from a second fold (components.py), which runs at hosts and followers; its digest returns as an
`Attest` record, and a quorum of equal digests certifies it (step 7). ε is not computed here either: it needs floating
point (design.md section 4).

All transition rules are here. Within one block, in this order:

    1 records   by author key, then seq: heads move, tree grows, offers and attests count, updates become pending,
                motions open, ballots count, withdrawal statements and evidence are noted
    2 evidence  its author leaves the members and the hosts, its pending updates drop, its feed freezes
    3 motions   decided ones take effect (membership.py), with the same consequences for a member that goes
    4 withdraw  entries and pending updates that it covers go; the component's generation grows by one (withdrawal.py)
    5 hosts     before a component's first close, and while too few hosts train for a round to close, its active hosts
                are the members that offer it (those of a statistic at any time: a late member contributes late)
    6 close     eligible updates freeze into the next round; then the hosts of the next round freeze
    7 certify   a quorum of a component's active hosts attests one digest
    8 amend     an amendment that passed in step 3 is in force from the next block on; pending updates are judged by it
    9 skip      an open round that, after withdrawals, too few can send an update for counts nothing (ADR 27)

The members after a block decide the next one: its header names them.

A record whose body is malformed or breaks a bound is inert: it stays in the feed and is refused by name.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import assert_never

from ..crypto.errors import LocalProtocolError, RemoteProtocolError
from ..crypto.merkle import leaf_hash
from ..protocol import schema
from ..protocol.amendment import amended
from ..protocol.blocks import Block, Close, Head
from ..protocol.charter import Charter
from ..protocol.membership import ACTIONS, Ballot, Motion
from ..protocol.records import (
    BODY_LIMIT,
    Attest,
    Body,
    Evidence,
    Offer,
    Record,
    Update,
    Withdrawal,
    WithdrawalStatement,
    body_of,
    verify_ack,
)
from ..protocol.signing import Signed, open_signed
from ..protocol.update import UpdateHeader, check_header
from . import membership, rules, trainers, withdrawal
from .cut import check_cut, check_evidence, order
from .ledger import ComponentLedger, Ledger, Pending, Refusal, Withdrawn, members_digest
from .membership import Outcome, Roll
from .rounds import (
    KEEP_ATTESTED,
    close_rounds,
    gather_hosts,
    has_contributed,
    is_stale,
    next_round,
    skip_rounds,
    skipped,
)
from .summary import state_digest


@dataclass(slots=True)
class _Draft:
    """A block's ledger while its records are applied one by one, and the consequences that follow after all of them."""

    before: Ledger
    trusted: bool
    heads: dict[bytes, tuple[int, bytes]]
    offers: Mapping[bytes, Offer]
    components: dict[str, ComponentLedger]
    roll: Roll
    guilty: set[bytes] = field(default_factory=set)
    withdrawals: list[tuple[WithdrawalStatement, bytes]] = field(default_factory=list)
    withdrawing: Counter[bytes] = field(default_factory=Counter)

    @property
    def charter(self) -> Charter:
        return self.before.charter

    @property
    def height(self) -> int:
        return self.before.height + 1

    @property
    def now(self) -> Ledger:
        """The ledger before this block, with the changes by its updates and attestations so far."""
        return replace(self.before, heads=self.heads, components=self.components)


def apply_records(ledger: Ledger, records: Sequence[Signed[Record]], *, trusted: bool = False) -> Ledger:
    """Apply a block's records (steps 1 to 5 above); `records` are in ledger order and passed check_cut.

    `trusted` skips the signatures inside update records: for blocks that this node itself decided and stored.
    """
    charter = ledger.charter
    draft = _Draft(ledger, trusted, dict(ledger.heads), ledger.offers, dict(ledger.components), ledger.roll)
    refusals: list[Refusal] = []
    for record in records:
        value = record.value
        draft.heads[value.author] = (value.seq, record.digest)
        try:
            _apply(draft, record, body_of(value))
        except RemoteProtocolError as error:
            refusals.append(Refusal(value.author, value.seq, value.kind, error.reason))
    state = replace(
        ledger,
        heads=draft.heads,
        offers=draft.offers,
        components={name: _in_order(c, ledger.components[name]) for name, c in draft.components.items()},
        roll=draft.roll,
        refusals=tuple(refusals),
        tree=ledger.tree.extend([leaf_hash(record.digest) for record in records]),
    )
    state = _expel(state, draft.guilty, draft.height)
    state = _carry_motions(charter, ledger, state, draft.height)
    for terms, carrier in draft.withdrawals:
        state = withdrawal.applied(ledger, state, withdrawal.placed(charter, state, terms, draft.height, carrier))
    if state.offers is ledger.offers and state.members is ledger.members:
        return state
    return gather_hosts(charter, state)


def _apply(draft: _Draft, record: Signed[Record], body: Body | None) -> None:
    """Apply one record. Raises RemoteProtocolError, by name, if it is inert."""
    author = record.value.author
    match body:
        case Offer():
            draft.offers = {**draft.offers, author: trainers.checked(body, draft.components, author)}
        case Update():
            _add_update(draft, record.value, body)
        case Attest():
            _add_attest(draft.components, author, body)
        case Evidence():
            convict = membership.present(draft.roll, check_evidence(body, draft.before.federation))
            if convict not in draft.before.members:
                raise RemoteProtocolError("convicted-already", "it is no member", convict)
            draft.guilty.add(convict)
        case Withdrawal():
            _count_withdrawing(draft, author)
            draft.withdrawals += [(terms, author) for terms in withdrawal.asked(draft.charter, draft.now, body, author)]
        case Motion():
            _add_motion(draft, record, body)
        case Ballot():
            draft.roll = membership.add_ballot(draft.roll, body, author)
        case None:
            pass  # of an unknown kind: it stays in the feed
        case _:
            assert_never(body)


def _count_withdrawing(draft: _Draft, author: bytes) -> None:
    draft.withdrawing[author] += 1
    if draft.withdrawing[author] > withdrawal.MAX_AT_A_HEIGHT:
        raise RemoteProtocolError("quota-withdrawals", "too many at one height", author)


def _add_motion(draft: _Draft, record: Signed[Record], body: Motion) -> None:
    before, author = draft.before, record.value.author
    withdraws = body.action in membership.WITHDRAWALS
    if withdraws:
        _count_withdrawing(draft, author)
    membership.check_motion(draft.roll, before.members, before.offers, before.charter, draft.height, author, body)
    if withdraws and not withdrawal.proposed_withdrawals(
        draft.charter, draft.now, ACTIONS[body.action], body.statement, draft.height, author
    ):
        raise RemoteProtocolError("withdrawn-already", "nothing of it is in force", author)
    draft.roll = membership.add_motion(draft.roll, body, author, record.value.seq, record.digest, draft.height)


def _add_update(draft: _Draft, record: Record, body: Update) -> None:
    charter, components, withdrawn, trusted = draft.charter, draft.components, draft.before.withdrawn, draft.trusted
    header = _open_header(body.header, record.federation, trusted)
    value = header.value
    if value.author != record.author:
        raise RemoteProtocolError("not-the-author", "the header is another member's", record.author)
    spec = check_header(value, charter)
    component = components[value.component]
    acks = _valid_acks(record.body, record.federation, header.digest, trusted)
    if len(acks) != len(body.acks):
        raise RemoteProtocolError("false-ack", "an acknowledgement's signature does not match", record.author)
    if any(header.digest in round_.updates for round_ in component.rounds[-KEEP_ATTESTED:]):
        raise RemoteProtocolError("counted-already", value.component, record.author)
    if spec.is_statistic and has_contributed(draft.roll, component, value.author):
        raise RemoteProtocolError("counted-already", f"{value.component}: once a member", record.author)
    if is_stale(charter, spec, value.round, component.round):
        raise RemoteProtocolError("stale", f"round {value.round} after {component.round}", record.author)
    if value.round > next_round(spec, component, withdrawn, value.author):
        # No honest member trains before the previous round closed; such entries would stay in the ledger for ever.
        raise RemoteProtocolError("round-ahead", f"round {value.round} after {component.round}", record.author)
    if any(w.bars(value.component, value.author, record.seq, value.round, header.digest) for w in withdrawn):
        # An update that was withdrawn, or in flight then, must not come back: its bytes are being erased.
        raise RemoteProtocolError("withdrawn", f"{value.component} round {value.round}", record.author)
    if value.generation > component.generation:
        raise RemoteProtocolError("generation-ahead", str(value.generation), record.author)
    earlier = next((p for p in component.pending if p.update == header.digest), None)
    if earlier is None and any(
        p.author == value.author and (p.round == value.round or spec.is_statistic) for p in component.pending
    ):
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", record.author)
    pending = Pending(
        header.digest,
        value.author,
        record.seq,
        value.round,
        value.generation,
        value.blob,
        value.size,
        rules.noise_variance(value, spec),
        acks | earlier.acks if earlier else acks,
        value,
    )
    others = component.pending if earlier is None else tuple(p for p in component.pending if p is not earlier)
    components[value.component] = replace(component, pending=(*others, pending))


# The same update record is folded into a candidate, a proposal and a decision: its signatures are checked once.
@lru_cache(maxsize=4096)
def _open_header(wire: bytes, federation: bytes, trusted: bool) -> Signed[UpdateHeader]:
    return open_signed(UpdateHeader, wire, federation, trusted=trusted)


@lru_cache(maxsize=4096)
def _valid_acks(body: bytes, federation: bytes, header: bytes, trusted: bool) -> frozenset[bytes]:
    """Return the hosts whose acknowledgements in an update record have valid signatures."""
    update = schema.load(Update, body, BODY_LIMIT)
    return frozenset(ack.host for ack in update.acks if trusted or verify_ack(federation, header, ack))


def _in_order(component: ComponentLedger, before: ComponentLedger) -> ComponentLedger:
    """Return a component with its new entries sorted: once a block, not once a record."""
    if component is before:
        return component
    pending = sorted(component.pending, key=lambda p: (p.author, p.round, p.update))
    return replace(component, pending=tuple(pending), attests=tuple(sorted(component.attests)))


def _add_attest(components: dict[str, ComponentLedger], author: bytes, body: Attest) -> None:
    component = components.get(body.component)
    if component is None:
        raise RemoteProtocolError("unknown-component", body.component, author)
    if author not in component.hosts:
        raise RemoteProtocolError("not-a-host", body.component, author)
    if body.round > component.round or body.generation > component.generation:
        raise RemoteProtocolError("attest-ahead", f"{body.component} round {body.round}", author)
    if body.round + KEEP_ATTESTED <= component.round or body.generation < component.generation:
        return  # late, though honest: it no longer counts
    if any(item[:3] == (body.round, body.generation, author) for item in component.attests):
        raise RemoteProtocolError("attested-already", f"{body.component} round {body.round}", author)
    attests = (*component.attests, (body.round, body.generation, author, body.digest))
    components[body.component] = replace(component, attests=attests)


def _expel(ledger: Ledger, guilty: set[bytes], height: int) -> Ledger:
    guilty = guilty & set(ledger.members)
    if not guilty:
        return ledger
    state = _without_members(ledger, guilty)
    roll = membership.unseat(ledger.roll, guilty, "evidence", height)
    return replace(state, expelled=tuple(sorted({*ledger.expelled, *guilty})), roll=roll)


def _without_members(ledger: Ledger, gone: Collection[bytes]) -> Ledger:
    """Remove members: closed rounds keep their updates, their pending updates drop."""
    components = {
        name: replace(
            c,
            hosts=tuple(host for host in c.hosts if host not in gone),
            pending=tuple(p for p in c.pending if p.author not in gone),
        )
        for name, c in ledger.components.items()
    }
    return replace(
        ledger,
        members=tuple(member for member in ledger.members if member not in gone),
        offers={author: offer for author, offer in ledger.offers.items() if author not in gone},
        components=components,
    )


def _carry_motions(charter: Charter, before: Ledger, ledger: Ledger, height: int) -> Ledger:
    """Apply decided motions one after the other, each to the members that result from the one before."""
    while True:
        coming = ledger.voted or ledger.charter
        outcome = membership.next_outcome(ledger.roll, ledger.members, ledger.offers, coming, height)
        if outcome is None:
            return ledger
        motion, taken = outcome.motion, list[Withdrawn]()
        if outcome.result == "passed" and motion.action in membership.WITHDRAWALS:
            taken = withdrawal.proposed_withdrawals(
                charter, ledger, motion.action, motion.statement, height, motion.author, motion.digest
            )
            if not taken:
                outcome = replace(outcome, result="void", why="withdrawn-already")
        ledger = replace(ledger, roll=membership.close(ledger.roll, outcome))
        for withdrawn in taken:
            ledger = withdrawal.applied(before, ledger, withdrawn)
        if outcome.result == "passed" and not taken:
            ledger = _carry(ledger, outcome)


def _carry(ledger: Ledger, outcome: Outcome) -> Ledger:
    """Apply a motion that passed: the resulting members decide from the next height on."""
    motion, height, roll, subject = outcome.motion, outcome.height, ledger.roll, outcome.motion.subject
    match motion.action:
        case "admit":
            person = membership.applicant(motion, ledger.federation)
            members = tuple(sorted((*ledger.members, person.author)))
            return replace(ledger, members=members, roll=membership.seat(roll, person, motion, height))
        case "rekey":
            new = membership.new_key(motion, ledger.federation)
            return _rekeyed(ledger, membership.rekeyed(roll, subject, new, motion, height), subject, new)
        case "amend":
            voted = amended(ledger.voted or ledger.charter, motion.statement)
            return replace(ledger, voted=voted, passed=(*ledger.passed, motion.statement))
        case "suspend":
            return replace(
                ledger,
                offers={author: offer for author, offer in ledger.offers.items() if author != subject},
                components={
                    name: replace(c, hosts=tuple(h for h in c.hosts if h != subject))
                    for name, c in ledger.components.items()
                },
            )
        case "suspend-training":
            return replace(ledger, offers={**ledger.offers, subject: trainers.silenced(ledger.offers[subject])})
        case "leave":
            gone = membership.unseat(roll, {subject}, "left", height, motion.digest)
            return replace(_without_members(ledger, {subject}), roll=gone)
        case "expel":
            gone = membership.unseat(roll, {subject}, "expelled", height, motion.digest)
            expelled = tuple(sorted({*ledger.expelled, subject}))
            return replace(_without_members(ledger, {subject}), expelled=expelled, roll=gone)
        case "withdraw" | "rewind":
            raise LocalProtocolError(f"a motion to {motion.action} takes effect as a withdrawal")
        case _:
            assert_never(motion.action)


def _rekeyed(ledger: Ledger, roll: Roll, old: bytes, new: bytes) -> Ledger:
    """Give a member's seat to its new key. Pending updates of the old key drop: they are trained again."""
    state = _without_members(ledger, {old})
    components = {
        name: replace(c, hosts=tuple(sorted((*c.hosts, new)))) if old in ledger.components[name].hosts else c
        for name, c in state.components.items()
    }
    offers = dict(state.offers)
    if old in ledger.offers:
        offers[new] = ledger.offers[old]
    return replace(state, members=tuple(sorted((*state.members, new))), offers=offers, components=components, roll=roll)


def _amended(ledger: Ledger) -> Ledger:
    """Put the amendments of this block in force, for the next one (step 8): no round that closed is touched (G10)."""
    charter, before = ledger.voted, ledger.charter
    if charter is None:
        return ledger
    components = {
        name: _under(before, charter, ledger.components.get(name) or ComponentLedger(name), ledger.height)
        for name in charter.specs
    }
    opened = ledger.opened | (charter.specs.keys() - before.specs.keys())
    amendments = (*ledger.amendments, *((ledger.height, statement) for statement in ledger.passed))
    return replace(
        ledger, charter=charter, voted=None, passed=(), components=components, opened=opened, amendments=amendments
    )


def _under(before: Charter, charter: Charter, c: ComponentLedger, height: int) -> ComponentLedger:
    """Return a component under a new charter. An update in flight is judged by the charter at its close.

    Under a recipe that allows less, updates for the open round may be void, and nobody sends two for one round. So a
    round that counts nothing follows, as after a rewind.
    """
    if _tightened(before, charter) and c.name in before.specs and not charter.specs[c.name].is_statistic:
        c = skipped(charter, c, height)
    pending = tuple(p for p in c.pending if _is_allowed(p.header, charter) and not _is_outdated(charter, c, p))
    rules, reach = c.rules, c.reach
    if c.name in before.specs and charter.rule(c.name) != before.rule(c.name):
        rules = (*rules, (c.round + 1, charter.rule(c.name)))
    if charter.rules.refold_horizon != before.rules.refold_horizon:
        reach = max(reach, c.round - before.rules.refold_horizon + 1)
    if len(pending) == len(c.pending) and rules is c.rules and reach == c.reach:
        return c
    # A copy without what `eligible` remembered by the older charter's numbers.
    return replace(c, pending=pending, rules=rules, reach=reach)


def _tightened(before: Charter, charter: Charter) -> bool:
    """Whether an update that the charter before allowed may be void."""
    old, new = before.learning, charter.learning
    return new.steps < old.steps or new.sample_rate < old.sample_rate or new.min_students > old.min_students


def _is_allowed(header: UpdateHeader, charter: Charter) -> bool:
    try:
        check_header(header, charter)
    except RemoteProtocolError:
        return False
    return True


def _is_outdated(charter: Charter, c: ComponentLedger, p: Pending) -> bool:
    return is_stale(charter, charter.specs[c.name], p.round, c.round)


def next_state(
    ledger: Ledger,
    records: Sequence[Signed[Record]],
    closes: Sequence[Close],
    *,
    trusted: bool = False,
) -> tuple[Ledger, Block]:
    """Fold one block: return the state after it, and the block with all its fields recomputed.

    `records` in ledger order. Raises RemoteProtocolError if the cut or a close breaks a rule.
    """
    if not records and not closes:
        raise RemoteProtocolError("empty", "a block needs at least one record or close")
    check_cut(ledger.charter, ledger, records)
    height = ledger.height + 1
    state = close_rounds(ledger.charter, apply_records(ledger, records, trusted=trusted), closes, height)
    state = _amended(replace(state, height=height))
    if state.withdrawn:
        state = skip_rounds(state.charter, state)
    heads = {record.value.author: Head(record.value.author, record.value.seq, record.digest) for record in records}
    block = Block(
        federation=ledger.federation,
        height=height,
        prev=ledger.block,
        cut=tuple(head for _, head in sorted(heads.items())),
        close=tuple(closes),
        tree_size=state.tree.size,
        tree_root=state.tree.root(),
        members=members_digest(state.members),
        fold=state_digest(state),
    )
    return replace(state, block=block.id), block


def fold_block(ledger: Ledger, block: Block, records: Sequence[Signed[Record]], *, trusted: bool = False) -> Ledger:
    """Fold an agreed or proposed block; its header must equal the recomputed one (G2, G4).

    `trusted` first skips the signatures inside update records. An agreed block may hold an inert record with a false
    signature: then the header differs, and the block is folded again with all checks, as when it was decided.

    Raises RemoteProtocolError("height" | "prev" | "header-differs") or what next_state raises.
    """
    if trusted:
        try:
            return _fold(ledger, block, records, trusted=True)
        except RemoteProtocolError:
            pass
    return _fold(ledger, block, records, trusted=False)


def _fold(ledger: Ledger, block: Block, records: Sequence[Signed[Record]], *, trusted: bool) -> Ledger:
    if block.height != ledger.height + 1:
        raise RemoteProtocolError("height", f"{block.height} after {ledger.height}")
    if block.prev != ledger.block:
        raise RemoteProtocolError("prev", f"height {block.height} does not follow the agreed block")
    state, mine = next_state(ledger, order(records), block.close, trusted=trusted)
    if mine != block:
        raise RemoteProtocolError("header-differs", f"height {block.height} is not what its records fold to")
    return state
