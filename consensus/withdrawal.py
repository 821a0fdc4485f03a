"""Withdrawals: what they cover, and what is left of the frozen lists (DESIGN.md section 9, ADR 3 and 16).

refold   the covered entries go; the rule runs again over everyone else's
rewind   from the first round on that counted a covered update, all that anybody contributed goes, in every component
         that may have learned from it; one more round, in which nothing counts, is put after what was closed, so
         that whoever had sent its update for that may send another for the next
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..crypto.errors import RemoteProtocolError
from ..protocol.charter import Charter
from ..protocol.records import GENESIS, SCOPES, WithdrawalStatement
from .components import Entry, Round, chained

if TYPE_CHECKING:
    from .ledger import ComponentLedger, Ledger, Pending

MOST_AT_A_HEIGHT = 16  # records of one author that withdraw or move to withdraw; each is held against every list


# Asked again for every entry of every list.
@lru_cache(maxsize=1024)
def _map(pairs: tuple[tuple[str, int], ...]) -> dict[str, int]:
    return dict(pairs)


@dataclass(frozen=True, slots=True)
class Erasure:
    """Blobs to delete everywhere once a state of at least this epoch is certified."""

    epoch: int
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A withdrawal in force: what it covers in this author's feed up to `through` no longer counts.

    `rounds`: by component, the last round that was closed when it took effect. `since`: by component, the first round
    that it reaches; what is older is beyond the charter's `refold_horizon`. `motion`: the one that decided it, or b"".
    """

    author: bytes
    through: int
    mode: str
    height: int
    carrier: bytes
    rounds: tuple[tuple[str, int], ...] = ()
    scope: str = "all"
    components: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    updates: tuple[bytes, ...] = ()
    since: tuple[tuple[str, int], ...] = ()
    motion: bytes = b""

    def covers(self, component: str, number: int, entry: Entry) -> bool:
        """Whether it takes this entry out of round `number` of a component."""
        since, last = _map(self.since).get(component), _map(self.rounds).get(component, 0)
        if since is None or not since <= number <= last:
            return False
        return self.mode == "rewind" or self._counts(component, number, entry)

    def bars(self, component: str, author: bytes, seq: int, number: int, update: bytes) -> bool:
        """Whether an update that no round counted may not come, or come again: what was in flight then is void too."""
        last = _map(self.rounds).get(component, 0)
        if self.mode == "rewind":
            return component in _map(self.since) and number <= last + 1
        if author != self.author or not names(self, component, number, update):
            return False
        return seq <= self.through or number <= last + 1

    def _counts(self, component: str, number: int, entry: Entry) -> bool:
        return (
            entry.author == self.author and entry.seq <= self.through and names(self, component, number, entry.update)
        )

    def summary(self) -> list[object]:
        """Return what later blocks depend on, for the ledger's digest."""
        scope = [self.scope, list(self.components), self.first, self.last, list(self.updates)]
        pairs = [[list(pair) for pair in self.rounds], [list(pair) for pair in self.since]]
        return [self.author, self.through, self.mode, self.motion, *pairs, *scope]

    @classmethod
    def read(cls, row: Any) -> "Withdrawn":
        """Read what `summary` gave; its height and carrier are not in there. Raises TypeError or ValueError."""
        author, through, mode, motion, rounds, since, scope, components, first, last, updates = row
        pairs = [tuple((str(name), int(number)) for name, number in each) for each in (rounds, since)]
        return cls(
            author=bytes(author),
            through=int(through),
            mode=mode,
            height=0,
            carrier=b"",
            rounds=pairs[0],
            scope=scope,
            components=tuple(components),
            first=int(first),
            last=int(last),
            updates=tuple(updates),
            since=pairs[1],
            motion=bytes(motion),
        )


def names(terms: WithdrawalStatement | Withdrawn, component: str, number: int, update: bytes) -> bool:
    """Whether a scope names this update, which counts in, or is for, round `number` of a component."""
    if terms.scope == "updates":
        return update in terms.updates
    if terms.scope != "all" and component not in terms.components:
        return False
    return terms.scope != "rounds" or terms.first <= number <= terms.last


def check_terms(terms: WithdrawalStatement, known: Iterable[str] | None = None) -> None:
    """Check that a withdrawal says one thing, about components that there are.

    Raises RemoteProtocolError("unknown-withdrawal" | "unknown-component").
    """
    parts, updates = list(terms.components), list(terms.updates)
    ordered = parts == sorted(set(parts)) and updates == sorted(set(updates))
    by_round = terms.scope == "rounds"
    ok = (
        terms.scope in SCOPES
        and terms.mode in ("refold", "rewind")
        and ordered
        and bool(parts) == (terms.scope in ("components", "rounds"))
        and bool(updates) == (terms.scope == "updates")
        and (1 <= terms.first <= terms.last if by_round else terms.first == terms.last == 0)
    )
    if not ok:
        raise RemoteProtocolError("unknown-withdrawal", f"{terms.scope} by {terms.mode}", terms.author)
    if known is not None and not set(parts) <= set(known):
        raise RemoteProtocolError("unknown-component", ", ".join(sorted(set(parts) - set(known))), terms.author)


def placed(charter: Charter, ledger: "Ledger", terms: WithdrawalStatement, height: int, carrier: bytes) -> Withdrawn:
    """Return what these terms reach as the ledger stands."""
    closed = tuple(sorted((name, _last(charter, c, terms.author)) for name, c in ledger.components.items()))
    horizon = charter.rules.refold_horizon
    found = Withdrawn(
        terms.author,
        terms.through,
        "refold",
        height,
        carrier,
        closed,
        terms.scope,
        terms.components,
        terms.first,
        terms.last,
        terms.updates,
        since=tuple((name, max(1, last - horizon + 1)) for name, last in closed),
    )
    return found if terms.mode == "refold" else _rewinding(charter, ledger, found)


def _last(charter: Charter, c: "ComponentLedger", author: bytes) -> int:
    """Return the last round that a withdrawal closes to its author, but for the one in flight: the last closed one.

    Of a statistic, one that replaced a withdrawn one and was pending may be for a later round.
    """
    spec = charter.component(c.name)
    if spec is None or not spec.additive:
        return c.round
    return max([c.round, *(p.round - 1 for p in c.pending if p.author == author)])


def expanded(charter: Charter, terms: WithdrawalStatement) -> tuple[WithdrawalStatement, ...]:
    """Return what terms come to. A sum learned from nobody: of statistics a rewind takes the subject's own only."""
    sums = tuple(spec.name for spec in charter.components if spec.additive)
    if terms.mode != "rewind" or not sums:
        return (terms,)
    own = replace(terms, mode="refold")
    if terms.scope == "all":
        own = replace(own, scope="components", components=sums)
    elif terms.scope != "updates":
        own = replace(own, components=tuple(name for name in terms.components if name in sums))
    return (terms, own) if own.components or own.updates else (terms,)


def _rewinding(charter: Charter, ledger: "Ledger", found: Withdrawn) -> Withdrawn:
    """Return the rewind to before the first update that `found` covers, over all that may have learned from it."""
    learned: dict[str, int] = {}  # the heights at which components first counted a covered update
    for name, c in ledger.components.items():
        spec = charter.component(name)
        if spec is None or spec.additive:
            continue
        heights = [r.height for r in c.rounds if any(found.covers(name, r.number, e) for e in r.entries)]
        if heights:
            learned[name] = min(heights)
    start = min(learned.values(), default=0)
    since = []
    for name in linked(charter, learned) if learned else ():
        rounds = ledger.components[name].rounds
        # What others closed at the height at which the first one was counted was trained before.
        later = [r.number for r in rounds if r.height > start or (r.height == start and learned.get(name) == start)]
        first = min(later, default=ledger.components[name].round + 1)
        since.append((name, max(first, dict(found.since)[name])))  # no further than this component's own horizon
    return replace(found, mode="rewind", since=tuple(sorted(since)))


def linked(charter: Charter, names: Iterable[str]) -> frozenset[str]:
    """Return these components and all that may be trained together with them, directly or by way of others."""
    upstream = {spec.name: charter.learning.upstream(spec.name) for spec in charter.components if not spec.additive}
    found, seen = set(names), frozenset[str]()
    while True:
        reached = seen.union(*(upstream[name] for name in found))
        more = {name for name, modalities in upstream.items() if modalities & reached}
        if more <= found and reached == seen:
            return frozenset(found)
        found, seen = found | more, reached


def reaches(ledger: "Ledger", withdrawn: Withdrawn) -> bool:
    """Whether anything that is in force, or on its way into a round, is covered."""
    return any(
        any(withdrawn.covers(name, r.number, e) for r in c.rounds for e in r.entries)
        or any(withdrawn.bars(name, p.author, p.seq, p.round, p.update) for p in c.pending)
        for name, c in ledger.components.items()
    )


def without(before: "ComponentLedger", c: "ComponentLedger", withdrawn: Withdrawn) -> "ComponentLedger":
    """Return a component without what a withdrawal covers.

    `before` is the component before this block: several withdrawals in one block share one refold and one epoch.
    """
    gone: list[bytes] = []
    rounds: list[Round] = []
    for round_ in c.rounds:
        keep = tuple(e for e in round_.entries if not withdrawn.covers(c.name, round_.number, e))
        gone += [entry.blob for entry in round_.entries if entry not in keep]
        rounds.append(replace(round_, entries=keep) if len(keep) < len(round_.entries) else round_)
    voided = withdrawn.mode == "rewind" and c.name in dict(withdrawn.since)
    changed = bool(gone) or voided
    if voided and c.round == before.round:
        rounds.append(Round(c.round + 1, withdrawn.height, (), 0, GENESIS))
    pending: tuple[Pending, ...] = tuple(
        p for p in c.pending if not withdrawn.bars(c.name, p.author, p.seq, p.round, p.update)
    )
    gone += [p.blob for p in c.pending if p not in pending]
    if not changed:  # what no state held goes at once, with whatever held it for the round
        return replace(c, pending=pending) if gone else c
    epoch = before.epoch + 1
    erasures = (*c.erasures, Erasure(epoch, tuple(sorted(set(gone))))) if gone else c.erasures
    return replace(
        c,
        round=len(rounds),
        epoch=epoch,
        rounds=chained(rounds, GENESIS),
        pending=pending,
        attests=tuple(item for item in c.attests if item[1] == epoch),
        erasures=erasures,
    )
