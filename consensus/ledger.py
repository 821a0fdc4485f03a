"""The ledger fold: agreed records to ledger state. It reads records only; every member computes the same (G1, G4).

The transition rules all live here. Within one block, in this order:

    1 records   by author key, then seq: heads move, tree grows, offers and attests count, updates become pending,
                motions open, ballots count, withdrawal statements and evidence are noted
    2 evidence  its author leaves the members and the hosts, its pending updates drop, its feed freezes
    3 motions   decided ones take effect (membership.py), with the same consequences for whoever goes
    4 withdraw  entries and pending updates that it covers go; the component's epoch grows by one (withdrawal.py)
    5 hosts     before a component's first close, or with none left, its active hosts are the members that offer it
                (those of a statistic at any time: whoever comes late contributes late)
    6 close     eligible updates freeze into the next round; then the hosts of the next round freeze
    7 certify   a quorum of a component's active hosts attests one digest

The members after a block decide the next one: its header names them.

A record whose body is malformed or breaks a bound is inert: it stays in the feed and is refused by name.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from ..crypto.errors import RemoteProtocolError
from ..crypto.hashing import digest
from ..crypto.merkle import EMPTY, Frontier, leaf_hash
from ..protocol import schema
from ..protocol.blocks import Block, Close, Head, Vote, quorum
from ..protocol.charter import Charter
from ..protocol.codec import decode, encode
from ..protocol.components import ComponentSpec
from ..protocol.membership import Ballot, Motion
from ..protocol.records import (
    BODY_LIMIT,
    GENESIS,
    PROVABLE,
    Attest,
    Evidence,
    Offer,
    Record,
    Update,
    Withdrawal,
    WithdrawalStatement,
    body_of,
    check_chain,
    check_size,
    is_fork,
    verify_ack,
)
from ..protocol.schema import MOST_HOSTS
from ..protocol.signing import Signed, open_signed
from ..protocol.update import UpdateHeader, check_header
from . import membership, rules, trainers, withdrawal
from .components import Entry, Round, chained
from .membership import Outcome, Roll
from .withdrawal import Erasure, Withdrawn

KEEP_ATTESTED = 8  # rounds for which late attestations still count


@dataclass(frozen=True, slots=True)
class Pending:
    """An update in the ledger that no round has counted yet."""

    update: bytes
    author: bytes
    seq: int
    round: int
    epoch: int
    blob: bytes
    size: int
    variance: int
    acks: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Certified:
    """A state digest that a quorum of the component's active hosts attested."""

    round: int
    epoch: int
    digest: bytes


@dataclass(frozen=True)
class ComponentLedger:
    """One component in the ledger: `round` is the last closed one."""

    name: str
    round: int = 0
    epoch: int = 0
    hosts: tuple[bytes, ...] = ()
    rounds: tuple[Round, ...] = ()
    pending: tuple[Pending, ...] = ()
    attests: tuple[tuple[int, int, bytes, bytes], ...] = ()  # (round, epoch, host, digest), sorted
    certified: Certified | None = None
    erasures: tuple[Erasure, ...] = ()

    @property
    def chain(self) -> bytes:
        """The running digest of the frozen lists; it names the state after the last closed round."""
        return self.rounds[-1].chain if self.rounds else GENESIS

    @cached_property
    def counted(self) -> dict[bytes, bytes]:
        """The updates that closed rounds count, by the digest of their bytes."""
        return {entry.blob: entry.update for round_ in self.rounds for entry in round_.entries}

    @cached_property
    def empty(self) -> int:
        """How many closed rounds count nothing (any more)."""
        return sum(not round_.entries for round_ in self.rounds)

    @cached_property
    def _eligible(self) -> dict[tuple[int, int], tuple[Entry, ...]]:
        return {}  # what `eligible` found, by the staleness and the number of acknowledgements that it asked for


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that is inert, with the reason's stable name."""

    author: bytes
    seq: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger state after a block."""

    federation: bytes
    fault_model: str
    height: int
    block: bytes
    members: tuple[bytes, ...]
    heads: Mapping[bytes, tuple[int, bytes]]
    offers: Mapping[bytes, Offer]
    components: Mapping[str, ComponentLedger]
    withdrawn: tuple[Withdrawn, ...] = ()
    expelled: tuple[bytes, ...] = ()  # by evidence or by motion
    roll: Roll = field(default_factory=lambda: Roll({}))
    tree: Frontier = EMPTY
    refusals: tuple[Refusal, ...] = field(default=(), compare=False)  # of the last block only

    @property
    def quorum(self) -> int:
        """How many members decide the next height."""
        return quorum(len(self.members), self.fault_model)

    def host_quorum(self, component: ComponentLedger) -> int:
        """How many of a component's active hosts acknowledge and certify."""
        return quorum(max(1, len(component.hosts)), self.fault_model)

    def certifiable(self, component: ComponentLedger) -> bool:
        """Whether the component has enough hosts for its certificates to mean anything (DESIGN.md section 7)."""
        return len(component.hosts) >= (4 if self.fault_model == "byzantine" else 2)


def genesis(charter: Charter) -> Ledger:
    """Return the ledger before the first block."""
    return Ledger(
        federation=charter.federation,
        fault_model=charter.rules.fault_model,
        height=0,
        block=GENESIS,
        members=tuple(member.key for member in charter.members),
        heads={},
        offers={},
        components={spec.name: ComponentLedger(spec.name) for spec in charter.components},
        roll=membership.founding(charter),
    )


def members_digest(members: Iterable[bytes]) -> bytes:
    """Return the digest by which a header names the members that decide the next height."""
    return digest("members", *sorted(members))


def state_digest(ledger: Ledger) -> bytes:
    """Return the digest of a ledger state (G1), by which a header names it."""
    return summary_digest(summary(ledger))


def summary_digest(data: bytes) -> bytes:
    """Return the digest of a summary."""
    return digest("ledger", data)


def summary(ledger: Ledger) -> bytes:
    """Return everything in a ledger state that later blocks depend on, as canonical bytes (`Summary` reads them)."""
    components = [
        [
            c.name,
            c.round,
            c.epoch,
            list(c.hosts),
            c.chain,
            [[p.update, p.seq, sorted(p.acks)] for p in c.pending],
            [list(item) for item in c.attests],
            [] if c.certified is None else [c.certified.round, c.certified.epoch, c.certified.digest],
            [[e.epoch, list(e.blobs)] for e in c.erasures],
        ]
        for _, c in sorted(ledger.components.items())
    ]
    return encode(
        [
            ledger.height,
            [[author, seq, head] for author, (seq, head) in sorted(ledger.heads.items())],
            list(ledger.members),
            [
                [author, list(offer.components), [[entry.component, entry.why] for entry in offer.idle]]
                for author, offer in sorted(ledger.offers.items())
            ],
            components,
            [w.summary() for w in ledger.withdrawn],
            list(ledger.expelled),
            *membership.summary(ledger.roll),
        ]
    )


@dataclass(frozen=True, slots=True)
class ComponentSummary:
    """One component in a summary."""

    name: str
    round: int
    epoch: int
    hosts: tuple[bytes, ...]
    chain: bytes
    attests: tuple[tuple[int, int, bytes, bytes], ...]
    certified: Certified | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What an outsider reads in a ledger state that a cosigned header names: not all of it."""

    height: int
    components: Mapping[str, ComponentSummary]
    withdrawn: tuple[Withdrawn, ...]
    successors: Mapping[bytes, bytes]
    names: Mapping[bytes, str]  # of the seats that changed since the charter

    @classmethod
    def read(cls, data: bytes, limit: int) -> "Summary":
        """Read what `summary` wrote. Raises RemoteProtocolError("invalid" | what a malformed encoding raises)."""
        raw: Any = decode(data, limit)
        try:
            height, _heads, _members, _offers, components, withdrawn, _expelled, *roll = raw
            found = {}
            for name, number, epoch, hosts, chain, _pending, attests, certified, _erasures in components:
                done = Certified(*certified) if certified else None
                listed = tuple((r, e, host, state) for r, e, host, state in attests)
                found[name] = ComponentSummary(name, number, epoch, tuple(hosts), chain, listed, done)
            seats = roll[0] if roll else []
            successors = {key: after for key, _, _, _, _, _, after in seats if after}
            names = {key: name for key, name, *_ in seats}
            return cls(height, found, tuple(Withdrawn.read(row) for row in withdrawn), successors, names)
        except (TypeError, ValueError) as error:
            raise RemoteProtocolError("invalid", "it is no summary of a ledger") from error


def order(records: Iterable[Signed[Record]]) -> list[Signed[Record]]:
    """Return one block's records in the order of the ledger: author key, then seq."""
    return sorted(records, key=lambda record: (record.value.author, record.value.seq))


def check_record(record: Signed[Record], federation: bytes) -> None:
    """Check that a fork of this record could be proved: it is small enough, or it is true evidence.

    Raises RemoteProtocolError("oversized-record" | "false-evidence" | what a malformed body raises).
    """
    check_size(record)
    if len(record.wire) > PROVABLE:
        body = body_of(record.value)
        if not isinstance(body, Evidence):
            raise RemoteProtocolError("oversized-record", f"{len(record.wire)} bytes", record.value.author)
        check_evidence(body, federation)


def check_cut(charter: Charter, ledger: Ledger, records: Sequence[Signed[Record]]) -> None:
    """Check that a block's records extend the last agreed heads, within the quotas.

    Raises RemoteProtocolError("frozen-feed" | "stranger" | "gap" | "fork" | "quota-records" | "quota-bytes" |
    "oversized-record").
    """
    heads: dict[bytes, tuple[int, bytes]] = {}
    count: dict[bytes, int] = {}
    size: dict[bytes, int] = {}
    for record in records:
        author = record.value.author
        if author in ledger.expelled:
            raise RemoteProtocolError("frozen-feed", "the author was expelled", author)
        if author not in ledger.members:
            if author in ledger.roll.seats:
                raise RemoteProtocolError("frozen-feed", "the author is no longer a member", author)
            raise RemoteProtocolError("stranger", "the author is not a member", author)
        check_record(record, ledger.federation)
        check_chain(heads.get(author, ledger.heads.get(author, (0, GENESIS))), record)
        heads[author] = (record.value.seq, record.digest)
        count[author] = count.get(author, 0) + 1
        size[author] = size.get(author, 0) + len(record.wire)
        if count[author] > charter.rules.records_per_height:
            raise RemoteProtocolError("quota-records", f"{count[author]} records at one height", author)
        if size[author] > charter.rules.bytes_per_height:
            raise RemoteProtocolError("quota-bytes", f"{size[author]} bytes at one height", author)


def apply_records(
    charter: Charter, ledger: Ledger, records: Sequence[Signed[Record]], *, trusted: bool = False
) -> Ledger:
    """Apply a block's records (steps 1 to 5 above); `records` are in ledger order and passed check_cut.

    `trusted` skips the signatures inside update records: for blocks that this node itself decided and stored.
    """
    heads, offers = dict(ledger.heads), ledger.offers
    components, roll = dict(ledger.components), ledger.roll
    height = ledger.height + 1
    withdrawals: list[tuple[WithdrawalStatement, bytes]] = []
    guilty: set[bytes] = set()
    refusals: list[Refusal] = []
    withdrawing: dict[bytes, int] = {}
    leaves = []
    for record in records:
        value = record.value
        heads[value.author] = (value.seq, record.digest)
        leaves.append(leaf_hash(record.digest))
        try:
            body = body_of(value)
            if isinstance(body, Withdrawal) or (isinstance(body, Motion) and body.action in membership.WITHDRAWALS):
                withdrawing[value.author] = withdrawing.get(value.author, 0) + 1
                if withdrawing[value.author] > withdrawal.MOST_AT_A_HEIGHT:
                    raise RemoteProtocolError("quota-withdrawals", "too many at one height", value.author)
            if isinstance(body, Offer):
                offers = {**offers, value.author: trainers.checked(body, components, value.author)}
            elif isinstance(body, Update):
                _add_update(charter, roll, ledger.withdrawn, components, value, body, trusted)
            elif isinstance(body, Attest):
                _add_attest(components, value.author, body)
            elif isinstance(body, Evidence):
                convict = membership.present(roll, check_evidence(body, ledger.federation))
                if convict not in ledger.members:
                    raise RemoteProtocolError("convicted-already", "it is no member", convict)
                guilty.add(convict)
            elif isinstance(body, Withdrawal):
                now = replace(ledger, heads=heads, components=components)
                withdrawals += [(terms, value.author) for terms in _withdrawals(charter, now, body, value.author)]
            elif isinstance(body, Motion):
                membership.check_motion(
                    roll, ledger.members, ledger.offers, ledger.federation, height, value.author, body
                )
                if body.action in membership.WITHDRAWALS:
                    now = replace(ledger, heads=heads, components=components)
                    if not moved_out(charter, now, body.action, body.statement, height, value.author):
                        raise RemoteProtocolError("withdrawn-already", "nothing of it is in force", value.author)
                roll = membership.add_motion(roll, body, value.author, value.seq, record.digest, height)
            elif isinstance(body, Ballot):
                roll = membership.add_ballot(roll, body, value.author)
        except RemoteProtocolError as error:
            refusals.append(Refusal(value.author, value.seq, value.kind, error.reason))
    state = replace(
        ledger,
        heads=heads,
        offers=offers,
        components={name: _in_order(component, ledger.components[name]) for name, component in components.items()},
        roll=roll,
        refusals=tuple(refusals),
        tree=ledger.tree.extend(leaves),
    )
    state = _expel(state, guilty, height)
    state = _carry_motions(charter, ledger, state, height)
    for terms, carrier in withdrawals:
        state = _withdraw(ledger, state, withdrawal.placed(charter, state, terms, height, carrier))
    if state.offers is ledger.offers and state.members is ledger.members:
        return state
    return _gather_hosts(charter, state)


def _add_update(
    charter: Charter,
    roll: Roll,
    withdrawn: Iterable[Withdrawn],
    components: dict[str, ComponentLedger],
    record: Record,
    body: Update,
    trusted: bool,
) -> None:
    header = _open_header(body.header, record.federation, trusted)
    value = header.value
    if value.author != record.author:
        raise RemoteProtocolError("not-the-author", "the header is another member's", record.author)
    spec = check_header(value, charter)
    component = components[value.component]
    acks = _receipts(record.body, record.federation, header.digest, trusted)
    if len(acks) != len(body.acks):
        raise RemoteProtocolError("false-receipt", "an acknowledgement's signature does not match", record.author)
    if any(header.digest in round_.updates for round_ in component.rounds[-KEEP_ATTESTED:]):
        raise RemoteProtocolError("counted-already", value.component, record.author)
    if spec.additive and has_contributed(roll, component, value.author):
        raise RemoteProtocolError("counted-already", f"{value.component}: once a member", record.author)
    if is_stale(charter, spec, value.round, component.round):
        raise RemoteProtocolError("stale", f"round {value.round} after {component.round}", record.author)
    if value.round > next_round(spec, component, withdrawn, value.author):
        # Nobody trains before the round before was agreed on; such entries would stay in the ledger for ever.
        raise RemoteProtocolError("round-ahead", f"round {value.round} after {component.round}", record.author)
    if any(w.bars(value.component, value.author, record.seq, value.round, header.digest) for w in withdrawn):
        # What was withdrawn, or was in flight then, must not come back: its bytes are being erased.
        raise RemoteProtocolError("withdrawn", f"{value.component} round {value.round}", record.author)
    if value.epoch > component.epoch:
        raise RemoteProtocolError("epoch-ahead", str(value.epoch), record.author)
    known = next((p for p in component.pending if p.update == header.digest), None)
    if known is None and any(
        p.author == value.author and (p.round == value.round or spec.additive) for p in component.pending
    ):
        raise RemoteProtocolError("second-header", f"{value.component} round {value.round}", record.author)
    pending = Pending(
        header.digest,
        value.author,
        record.seq,
        value.round,
        value.epoch,
        value.blob,
        value.size,
        rules.noise_variance(value, spec),
        acks | known.acks if known else acks,
    )
    others = component.pending if known is None else tuple(p for p in component.pending if p is not known)
    components[value.component] = replace(component, pending=(*others, pending))


def has_contributed(roll: Roll, component: ComponentLedger, author: bytes) -> bool:
    """Whether a closed round counts a statistic of this member, under this key or an earlier one."""
    keys = {author, *membership.earlier(roll, author)}
    return any(entry.author in keys for round_ in component.rounds for entry in round_.entries)


def is_stale(charter: Charter, spec: ComponentSpec, round_: int, closed: int) -> bool:
    """Whether an update for a round can no longer count after `closed` rounds. A statistic is never stale."""
    return not spec.additive and round_ + charter.rules.max_staleness < closed + 1


def next_round(spec: ComponentSpec, component: ComponentLedger, withdrawn: Iterable[Withdrawn], author: bytes) -> int:
    """Return the latest round that an update may be for: the one after the last closed.

    What replaces a withdrawn statistic has a number that was never in flight, though no round may have closed since.
    """
    last = component.round
    if spec.additive:
        last = max([last, *(dict(w.rounds).get(component.name, 0) + 1 for w in withdrawn if w.author == author)])
    return last + 1


# The same update record is folded into a candidate, a proposal and a decision: its signatures are checked once.
@lru_cache(maxsize=4096)
def _open_header(wire: bytes, federation: bytes, trusted: bool) -> Signed[UpdateHeader]:
    return open_signed(UpdateHeader, wire, federation, trusted=trusted)


@lru_cache(maxsize=4096)
def _receipts(body: bytes, federation: bytes, header: bytes, trusted: bool) -> frozenset[bytes]:
    """Return the hosts whose acknowledgements in an update record are true."""
    update = schema.load(Update, body, BODY_LIMIT)
    return frozenset(ack.host for ack in update.acks if trusted or verify_ack(federation, header, ack))


def _in_order(component: ComponentLedger, before: ComponentLedger) -> ComponentLedger:
    """Return a component with what its records added in its place: sorted once a block, not once a record."""
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
    if body.round > component.round or body.epoch > component.epoch:
        raise RemoteProtocolError("attest-ahead", f"{body.component} round {body.round}", author)
    if body.round + KEEP_ATTESTED <= component.round or body.epoch < component.epoch:
        return  # honest and late: of no use any more
    if any(item[:3] == (body.round, body.epoch, author) for item in component.attests):
        raise RemoteProtocolError("attested-already", f"{body.component} round {body.round}", author)
    attests = (*component.attests, (body.round, body.epoch, author, body.digest))
    components[body.component] = replace(component, attests=attests)


def check_evidence(body: Evidence, federation: bytes) -> bytes:
    """Return the author that this evidence convicts. Raises RemoteProtocolError("false-evidence")."""
    if body.kind == "fork":
        a, b = open_signed(Record, body.a, federation), open_signed(Record, body.b, federation)
        if is_fork(a, b):
            return a.value.author
    elif body.kind == "double-vote":
        x, y = open_signed(Vote, body.a, federation), open_signed(Vote, body.b, federation)
        where = [(v.value.author, v.value.height, v.value.view, v.value.step) for v in (x, y)]
        if where[0] == where[1] and x.value.block != y.value.block:
            return x.value.author
    raise RemoteProtocolError("false-evidence", body.kind)


def check_withdrawal(body: Withdrawal, federation: bytes) -> WithdrawalStatement:
    """Check a withdrawal's owner signature and words. Raises RemoteProtocolError."""
    statement = open_signed(WithdrawalStatement, body.statement, federation).value
    withdrawal.check_terms(statement)
    if statement.mode != "refold":
        raise RemoteProtocolError("unknown-withdrawal", "to rewind is for the members to decide", statement.author)
    return statement


def _withdrawals(charter: Charter, ledger: Ledger, body: Withdrawal, carrier: bytes) -> list[WithdrawalStatement]:
    """Return what a record withdraws, feed by feed. Raises RemoteProtocolError."""
    statement = check_withdrawal(body, ledger.federation)
    if statement.author not in ledger.roll.seats:
        raise RemoteProtocolError("stranger", "the withdrawal's owner was never a member", carrier)
    withdrawal.check_terms(statement, ledger.components)
    found = [
        terms
        for terms in of_all_keys(ledger, statement)
        if _matters(ledger, withdrawal.placed(charter, ledger, terms, ledger.height + 1, carrier))
    ]
    if not found:
        raise RemoteProtocolError("withdrawn-already", "nothing more is in force", carrier)
    return found


def of_all_keys(ledger: Ledger, terms: WithdrawalStatement) -> list[WithdrawalStatement]:
    """Whoever moved to a new key withdraws what its older keys contributed with it: their feeds are frozen."""
    older = membership.earlier(ledger.roll, terms.author)
    return [terms, *(replace(terms, author=k, through=ledger.heads.get(k, (0, GENESIS))[0]) for k in older)]


def moved_out(
    charter: Charter, ledger: Ledger, action: str, statement: bytes, height: int, carrier: bytes, motion: bytes = b""
) -> list[Withdrawn]:
    """Return what a motion to withdraw or to rewind would take out as things stand. Raises RemoteProtocolError."""
    terms = membership.terms(action, statement, ledger.federation)
    withdrawal.check_terms(terms, ledger.components)
    if not motion and terms.through > ledger.heads.get(terms.author, (0, GENESIS))[0]:
        raise RemoteProtocolError("through-ahead", "it reaches beyond what its subject has said so far", carrier)
    placed = [
        replace(withdrawal.placed(charter, ledger, each, height, carrier), motion=motion)
        for part in withdrawal.expanded(charter, terms)
        for each in of_all_keys(ledger, part)
    ]
    return [found for found in placed if withdrawal.reaches(ledger, found)]


def _expel(ledger: Ledger, guilty: set[bytes], height: int) -> Ledger:
    guilty = guilty & set(ledger.members)
    if not guilty:
        return ledger
    state = _without(ledger, guilty)
    roll = membership.unseat(ledger.roll, guilty, "evidence", height)
    return replace(state, expelled=tuple(sorted({*ledger.expelled, *guilty})), roll=roll)


def _without(ledger: Ledger, gone: Collection[bytes]) -> Ledger:
    """Take members out: closed rounds stand, what is pending of theirs drops."""
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
    """Decide what is decided, one motion after the other, each on the members that the one before it left."""
    while True:
        found = membership.next_outcome(
            ledger.roll, ledger.members, ledger.offers, ledger.federation, ledger.fault_model, height
        )
        if found is None:
            return ledger
        motion, taken = found.motion, list[Withdrawn]()
        if found.result == "passed" and motion.action in membership.WITHDRAWALS:
            taken = moved_out(charter, ledger, motion.action, motion.statement, height, motion.author, motion.digest)
            if not taken:
                found = replace(found, result="void", why="withdrawn-already")
        ledger = replace(ledger, roll=membership.close(ledger.roll, found))
        for each in taken:
            ledger = _withdraw(before, ledger, each)
        if found.result == "passed" and not taken:
            ledger = _carry(ledger, found)


def _carry(ledger: Ledger, outcome: Outcome) -> Ledger:
    """Let a motion that passed take effect: the members that it leaves decide from the next height on."""
    motion, height, roll = outcome.motion, outcome.height, ledger.roll
    if motion.action == "admit":
        person = membership.applicant(motion, ledger.federation)
        members = tuple(sorted((*ledger.members, person.author)))
        return replace(ledger, members=members, roll=membership.seat(roll, person, motion, height))
    if motion.action == "rekey":
        new = membership.new_key(motion, ledger.federation)
        return _moved(ledger, membership.move(roll, motion.subject, new, motion, height), motion.subject, new)
    if motion.action == "suspend":
        hosts = {n: tuple(h for h in c.hosts if h != motion.subject) for n, c in ledger.components.items()}
        return replace(
            ledger,
            offers={author: offer for author, offer in ledger.offers.items() if author != motion.subject},
            components={name: replace(c, hosts=hosts[name]) for name, c in ledger.components.items()},
        )
    if motion.action == "suspend-training":
        return replace(
            ledger, offers={**ledger.offers, motion.subject: trainers.silenced(ledger.offers[motion.subject])}
        )
    gone = "left" if motion.action == "leave" else "expelled"
    state = _without(ledger, {motion.subject})
    expelled = {*ledger.expelled, motion.subject} if gone == "expelled" else ledger.expelled
    return replace(
        state,
        expelled=tuple(sorted(expelled)),
        roll=membership.unseat(roll, {motion.subject}, gone, height, motion.digest),
    )


def _moved(ledger: Ledger, roll: Roll, old: bytes, new: bytes) -> Ledger:
    """Let a member's new key sit where the old one sat. What the old one has pending drops: it is trained again."""
    state = _without(ledger, {old})
    components = {
        name: replace(c, hosts=tuple(sorted((*c.hosts, new)))) if old in ledger.components[name].hosts else c
        for name, c in state.components.items()
    }
    offers = dict(state.offers)
    if old in ledger.offers:
        offers[new] = ledger.offers[old]
    return replace(state, members=tuple(sorted((*state.members, new))), offers=offers, components=components, roll=roll)


def _withdraw(before: Ledger, ledger: Ledger, found: Withdrawn) -> Ledger:
    """Drop what a withdrawal covers. Rounds beyond the refold horizon keep what they froze (DESIGN.md section 9).

    `before` is the ledger before this block: several withdrawals in one block share one refold and one epoch.
    """
    if not _matters(ledger, found):
        return ledger
    components = {name: withdrawal.without(before.components[name], c, found) for name, c in ledger.components.items()}
    return replace(ledger, components=components, withdrawn=(*ledger.withdrawn, found))


def _matters(ledger: Ledger, found: Withdrawn) -> bool:
    """Whether a withdrawal covers anything that the ones in force do not, or keeps anything from coming."""
    if withdrawal.reaches(ledger, found):
        return True
    if found.scope != "all" or found.mode != "refold":
        return False
    before = max((w.through for w in ledger.withdrawn if w.author == found.author and w.scope == "all"), default=-1)
    if before < 0:
        return True  # for what is in flight
    # Carried ahead of the feed: what it covers is still to come.
    return found.carrier != found.author and before <= ledger.heads.get(found.author, (0, GENESIS))[0] < found.through


def _gather_hosts(charter: Charter, ledger: Ledger) -> Ledger:
    components = {
        name: replace(c, hosts=_offering(ledger, name)) if _gathers(charter, c, ledger.offers) else c
        for name, c in ledger.components.items()
    }
    return replace(ledger, components=components)


def _gathers(charter: Charter, c: ComponentLedger, offers: Mapping[bytes, Offer]) -> bool:
    """Whether whoever offers a component becomes its host at once, and not only when its next round closes.

    That is so before the first close, for statistics, and while too few of the hosts train for a round to close at all:
    hosts whose budgets are spent would else keep a new member from ever training (ADR 18).
    """
    spec = charter.component(c.name)
    assert spec is not None
    return c.round == 0 or spec.additive or len(trainers.trainers(offers, c.hosts, c.name)) < spec.min_updates


def active_hosts(charter: Charter, before: Ledger, after: Ledger, name: str) -> tuple[bytes, ...]:
    """Return the hosts of a component while the block between two ledgers closed a round of it."""
    c = before.components[name]
    return (after.components[name] if _gathers(charter, c, after.offers) else c).hosts


def _offering(ledger: Ledger, name: str) -> tuple[bytes, ...]:
    found = sorted(m for m in ledger.members if m in ledger.offers and name in ledger.offers[m].components)
    return tuple(found[:MOST_HOSTS])


def eligible(charter: Charter, ledger: Ledger, name: str) -> tuple[Entry, ...]:
    """Return what the next round of a component would freeze, sorted by author (DESIGN.md section 7).

    Counted: the freshest update of each active host, at most S rounds stale (robust rules: not stale at all), with acks
    from a quorum of the active hosts. A statistic is never stale, and each member has one at most.
    """
    c = ledger.components[name]
    spec = charter.component(name)
    assert spec is not None
    limit = charter.rules.max_staleness if spec.rule == "mean" else 0
    need = ledger.host_quorum(c)
    known = c._eligible.get((limit, need))
    if known is not None:
        return known
    hosts = _as_set(c.hosts)
    best: dict[bytes, Pending] = {}
    for p in c.pending:
        staleness = 0 if spec.additive else c.round + 1 - p.round
        if p.author in hosts and 0 <= staleness <= limit and _in_common(p.acks, hosts) >= need:
            rival = best.get(p.author)
            if rival is None or p.round > rival.round:
                best[p.author] = p
    found = c._eligible[limit, need] = tuple(
        Entry(p.update, p.author, p.blob, p.size, 0 if spec.additive else c.round + 1 - p.round, p.variance, p.seq)
        for _, p in sorted(best.items())
    )
    return found


# Asked again after every record: with n hosts, n sets of n acknowledgements.
_as_set: Callable[[tuple[bytes, ...]], frozenset[bytes]] = lru_cache(maxsize=64)(frozenset)


@lru_cache(maxsize=4096)
def _in_common(acks: frozenset[bytes], hosts: frozenset[bytes]) -> int:
    return len(acks & hosts)


def closable(charter: Charter, ledger: Ledger, name: str) -> bool:
    """Whether a component has at least `min_updates` eligible updates for its next round."""
    spec = charter.component(name)
    return spec is not None and len(eligible(charter, ledger, name)) >= spec.min_updates


def close_rounds(charter: Charter, ledger: Ledger, closes: Sequence[Close], height: int) -> Ledger:
    """Close rounds and certify (steps 6 and 7). Raises RemoteProtocolError("close-order" | "not-closable")."""
    names = [close.component for close in closes]
    if names != sorted(set(names)):
        raise RemoteProtocolError("close-order", ", ".join(names))
    components = dict(ledger.components)
    for close in closes:
        c = components.get(close.component)
        if c is None or close.round != c.round + 1 or not closable(charter, ledger, close.component):
            raise RemoteProtocolError("not-closable", f"{close.component} round {close.round}")
        spec = charter.component(close.component)
        assert spec is not None
        entries = eligible(charter, ledger, close.component)
        (round_,) = chained([Round(close.round, height, entries, rules.faults(len(entries)), GENESIS)], c.chain)
        counted = {entry.author: entry for entry in entries}
        pending = tuple(
            p
            for p in c.pending
            # What a counted author sent before its counted update, and what grew too stale, can never count again.
            if not is_stale(charter, spec, p.round, close.round)
            and (p.author not in counted or (p.round > close.round - counted[p.author].staleness and not spec.additive))
        )
        components[close.component] = replace(
            c,
            round=close.round,
            rounds=(*c.rounds, round_),
            pending=pending,
            hosts=_offering(ledger, close.component),
            attests=tuple(item for item in c.attests if item[0] + KEEP_ATTESTED > close.round),
        )
    state = replace(ledger, components=components)
    return replace(state, components={name: _certify(state, c) for name, c in state.components.items()})


def _certify(ledger: Ledger, c: ComponentLedger) -> ComponentLedger:
    votes: dict[tuple[int, int, bytes], int] = {}
    for round_, epoch, host, state in c.attests:
        if host in c.hosts:
            votes[round_, epoch, state] = votes.get((round_, epoch, state), 0) + 1
    done = [key for key, count in votes.items() if count >= ledger.host_quorum(c) and key[1] == c.epoch]
    if not done:
        return c
    round_, epoch, state = max(done)
    if c.certified is not None and (c.certified.epoch, c.certified.round) >= (epoch, round_):
        return c
    erasures = tuple(erasure for erasure in c.erasures if erasure.epoch > epoch)
    return replace(c, certified=Certified(round_, epoch, state), erasures=erasures)


def next_state(
    charter: Charter,
    ledger: Ledger,
    records: Sequence[Signed[Record]],
    closes: Sequence[Close],
    *,
    trusted: bool = False,
) -> tuple[Ledger, Block]:
    """Fold one block: return the state after it and the block itself, with everything in it recomputed.

    `records` in ledger order. Raises RemoteProtocolError if the cut or a close breaks a rule.
    """
    if not records and not closes:
        raise RemoteProtocolError("empty", "a block needs at least one record or close")
    check_cut(charter, ledger, records)
    height = ledger.height + 1
    state = close_rounds(charter, apply_records(charter, ledger, records, trusted=trusted), closes, height)
    state = replace(state, height=height)
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


def fold_block(
    charter: Charter, ledger: Ledger, block: Block, records: Sequence[Signed[Record]], *, trusted: bool = False
) -> Ledger:
    """Fold an agreed or proposed block; its header must equal what is recomputed (G2, G4).

    `trusted` first skips the signatures inside update records. An agreed block may hold a liar's record with a false
    one, which is inert: then the header differs and everything is checked as it was when the block was decided.

    Raises RemoteProtocolError("height" | "prev" | "header-differs") or what next_state raises.
    """
    if trusted:
        try:
            return _fold(charter, ledger, block, records, trusted=True)
        except RemoteProtocolError:
            pass
    return _fold(charter, ledger, block, records, trusted=False)


def _fold(
    charter: Charter, ledger: Ledger, block: Block, records: Sequence[Signed[Record]], *, trusted: bool
) -> Ledger:
    if block.height != ledger.height + 1:
        raise RemoteProtocolError("height", f"{block.height} after {ledger.height}")
    if block.prev != ledger.block:
        raise RemoteProtocolError("prev", f"height {block.height} does not follow the agreed block")
    state, mine = next_state(charter, ledger, order(records), block.close, trusted=trusted)
    if mine != block:
        raise RemoteProtocolError("header-differs", f"height {block.height} is not what its records fold to")
    return state
