"""Rounds: a component's hosts, the eligible updates of its next round, closing it, certifying its state.

A component's active hosts acknowledge updates and attest states. They are frozen at each close, so that all nodes count
the same quorum. Eligibility is decided once, when a round closes, and never judged again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile

from ..crypto.errors import RemoteProtocolError
from ..protocol.blocks import Close
from ..protocol.charter import Charter
from ..protocol.components import ComponentSpec
from ..protocol.learning import AVERAGES
from ..protocol.records import GENESIS, Offer
from ..protocol.schema import MAX_HOSTS
from . import membership, rules, trainers
from .components import Entry, Round, chained
from .ledger import NOT_YET, Certified, ComponentLedger, Ledger, Pending, Withdrawn
from .membership import Roll

KEEP_ATTESTED = 8  # rounds for which late attestations still count

# called after every record: with n hosts, n sets of n acknowledgements
_as_set: Callable[[tuple[bytes, ...]], frozenset[bytes]] = lru_cache(maxsize=64)(frozenset)


def gather_hosts(charter: Charter, ledger: Ledger) -> Ledger:
    """Make members that offer a component its hosts, where that need not wait for its next close."""
    components = {
        name: replace(c, hosts=_offering(ledger, name)) if _gathers(charter, c, ledger.offers) else c
        for name, c in ledger.components.items()
    }
    return replace(ledger, components=components)


def _gathers(charter: Charter, c: ComponentLedger, offers: Mapping[bytes, Offer]) -> bool:
    """Whether a member that offers a component becomes its host at once, before its next round closes.

    True before the first close, for statistics, and while too few hosts train for a round to close: otherwise hosts
    with spent budgets would keep a new member from ever training (ADR 18).
    """
    spec = charter.component(c.name)
    assert spec is not None
    return c.round == 0 or spec.is_statistic or len(trainers.trainers(offers, c.hosts, c.name)) < spec.min_updates


def active_hosts(charter: Charter, before: Ledger, after: Ledger, name: str) -> tuple[bytes, ...]:
    """Return the hosts of a component while the block between two ledgers closed a round of it."""
    c = before.components[name]
    return (after.components[name] if _gathers(charter, c, after.offers) else c).hosts


def _offering(ledger: Ledger, name: str) -> tuple[bytes, ...]:
    offering = sorted(m for m in ledger.members if m in ledger.offers and name in ledger.offers[m].components)
    return tuple(offering[:MAX_HOSTS])


def eligible(charter: Charter, ledger: Ledger, name: str) -> tuple[Entry, ...]:
    """Return the entries that the next round of a component would freeze, sorted by author (design.md section 7).

    Counted: the freshest update of each active host, at most S rounds stale (robust rules: not stale at all), with acks
    from a quorum of the active hosts. A statistic is never stale, and each member has one at most.
    """
    c = ledger.components[name]
    spec = charter.component(name)
    assert spec is not None
    limit = charter.rules.max_staleness if charter.rule(name) in AVERAGES else 0
    need = ledger.host_quorum(c)
    cached = c._eligible.get((limit, need))
    if cached is not None:
        return cached
    hosts = _as_set(c.hosts)
    best: dict[bytes, Pending] = {}
    for p in c.pending:
        staleness = 0 if spec.is_statistic else c.round + 1 - p.round
        if p.author in hosts and 0 <= staleness <= limit and _in_common(p.acks, hosts) >= need:
            rival = best.get(p.author)
            if rival is None or p.round > rival.round:
                best[p.author] = p
    entries = c._eligible[limit, need] = tuple(
        Entry(p.update, p.author, p.blob, p.size, 0 if spec.is_statistic else c.round + 1 - p.round, p.variance, p.seq)
        for _, p in sorted(best.items())
    )
    return entries


@lru_cache(maxsize=4096)
def _in_common(acks: frozenset[bytes], hosts: frozenset[bytes]) -> int:
    return len(acks & hosts)


def closable(charter: Charter, ledger: Ledger, name: str) -> bool:
    """Whether a component has a next round, and at least `min_updates` eligible updates for it."""
    spec = charter.component(name)
    return spec is not None and name not in charter.retired and len(eligible(charter, ledger, name)) >= spec.min_updates


def possible_authors(charter: Charter, ledger: Ledger, name: str) -> frozenset[bytes]:
    """Return the hosts whose updates the next round of a component can count, by their own statements in the ledger.

    These are the hosts that declare training, less those whose update for it a withdrawal bars, and the authors of the
    updates that are there already. While they are fewer than `min_updates`, a training run would be for nothing.
    """
    there = {entry.author for entry in eligible(charter, ledger, name)}
    declared = trainers.trainers(ledger.offers, ledger.components[name].hosts, name)
    return declared - _barred_hosts(ledger, name) | there


def _barred_hosts(ledger: Ledger, name: str) -> frozenset[bytes]:
    """Return the hosts that took back their update for the open round of a component: they may send no other for it."""
    c = ledger.components[name]
    # Withdrawals stand in the order of their heights, so the last closed round of each is no later than the next one's.
    recent = takewhile(lambda w: w.closed(name) >= c.round, reversed(ledger.withdrawn))
    return frozenset(host for w in recent for host in c.hosts if w.bars(name, host, NOT_YET, c.round + 1, b""))


def skip_rounds(charter: Charter, ledger: Ledger) -> Ledger:
    """Let open rounds count nothing for which, after withdrawals, too few can send an update (step 9, ADR 27)."""
    components = {
        name: skipped(charter, c, ledger.height) if _is_stuck(charter, ledger, name) else c
        for name, c in ledger.components.items()
    }
    return replace(ledger, components=components)


def _is_stuck(charter: Charter, ledger: Ledger, name: str) -> bool:
    """Whether a round waits in vain for hosts that may send no update for it, and could close the next with them."""
    spec = charter.component(name)
    if spec is None or spec.is_statistic or name in charter.retired:
        return False
    barred = _barred_hosts(ledger, name)
    if not barred:
        return False
    able = possible_authors(charter, ledger, name)
    return len(able) < spec.min_updates <= len(able | barred)


def skipped(charter: Charter, c: ComponentLedger, height: int) -> ComponentLedger:
    """Return a component after one more round, which counts nothing."""
    spec = charter.component(c.name)
    assert spec is not None
    (round_,) = chained([Round(c.round + 1, height, (), 0, GENESIS)], c.chain)
    pending = tuple(p for p in c.pending if not is_stale(charter, spec, p.round, c.round + 1))
    return replace(c, round=c.round + 1, rounds=(*c.rounds, round_), pending=pending)


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
        rule = c.rules[-1][1] if c.rules else ""
        closed = Round(close.round, height, entries, rules.faults(len(entries)), GENESIS, rule)
        (round_,) = chained([closed], c.chain)
        counted = {entry.author: entry for entry in entries}
        pending = tuple(
            p
            for p in c.pending
            # Earlier updates of a counted author, and those that became too stale, can never count.
            if not is_stale(charter, spec, p.round, close.round)
            and (
                p.author not in counted
                or (p.round > close.round - counted[p.author].staleness and not spec.is_statistic)
            )
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
    votes: dict[tuple[int, bytes], int] = {}
    for round_, _generation, host, state in c.attests:
        if host in c.hosts:
            votes[round_, state] = votes.get((round_, state), 0) + 1
    done = [key for key, count in votes.items() if count >= ledger.host_quorum(c)]
    if not done:
        return c
    round_, state = max(done)
    if c.certified is not None and (c.certified.generation, c.certified.round) >= (c.generation, round_):
        return c
    erasures = tuple(erasure for erasure in c.erasures if erasure.generation > c.generation)
    return replace(c, certified=Certified(round_, c.generation, state), erasures=erasures)


def has_contributed(roll: Roll, component: ComponentLedger, author: bytes) -> bool:
    """Whether a closed round counts a statistic of this member, by this key or an earlier one."""
    keys = {author, *membership.earlier(roll, author)}
    return any(entry.author in keys for round_ in component.rounds for entry in round_.entries)


def is_stale(charter: Charter, spec: ComponentSpec, round_: int, closed: int) -> bool:
    """Whether an update for a round can no longer count after `closed` rounds. A statistic is never stale."""
    return not spec.is_statistic and round_ + charter.rules.max_staleness < closed + 1


def next_round(spec: ComponentSpec, component: ComponentLedger, withdrawn: Iterable[Withdrawn], author: bytes) -> int:
    """Return the latest round that an update may be for: the one after the last closed.

    A replacement of a withdrawn statistic has a round number that was never in flight, even if no round closed since.
    """
    last = component.round
    if spec.is_statistic:
        last = max([last, *(dict(w.rounds).get(component.name, 0) + 1 for w in withdrawn if w.author == author)])
    return last + 1
