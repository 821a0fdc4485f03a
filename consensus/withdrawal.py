"""Withdrawals: what they cover, and what is left of the frozen lists (design.md section 9, ADR 3 and 16).

refold   the covered entries go; the rule runs again over everyone else's
rewind   from the first round on that counted a covered update, all that anybody contributed goes, in every component
         that may have learned from it; one more round, in which nothing counts, is put after what was closed, so
         that whoever had sent its update for that may send another for the next
"""

from collections.abc import Iterable
from dataclasses import replace

from ..crypto.errors import RemoteProtocolError
from ..protocol.charter import Charter
from ..protocol.records import GENESIS, SCOPES, Withdrawal, WithdrawalStatement
from ..protocol.signing import open_signed
from . import membership
from .components import Round, chained
from .ledger import ComponentLedger, Erasure, Ledger, Pending, Withdrawn

MAX_AT_A_HEIGHT = 16  # records of one author that withdraw or move to withdraw; each is held against every list


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


def placed(charter: Charter, ledger: Ledger, terms: WithdrawalStatement, height: int, carrier: bytes) -> Withdrawn:
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


def _last(charter: Charter, c: ComponentLedger, author: bytes) -> int:
    """Return the last round that a withdrawal closes to its author, but for the one in flight: the last closed one.

    Of a statistic, one that replaced a withdrawn one and was pending may be for a later round.
    """
    spec = charter.component(c.name)
    if spec is None or not spec.is_statistic:
        return c.round
    return max([c.round, *(p.round - 1 for p in c.pending if p.author == author)])


def expanded(charter: Charter, terms: WithdrawalStatement) -> tuple[WithdrawalStatement, ...]:
    """Return what terms come to. A sum learned from nobody: of statistics a rewind takes the subject's own only."""
    sums = tuple(spec.name for spec in charter.components if spec.is_statistic)
    if terms.mode != "rewind" or not sums:
        return (terms,)
    own = replace(terms, mode="refold")
    if terms.scope == "all":
        own = replace(own, scope="components", components=sums)
    elif terms.scope != "updates":
        own = replace(own, components=tuple(name for name in terms.components if name in sums))
    return (terms, own) if own.components or own.updates else (terms,)


def _rewinding(charter: Charter, ledger: Ledger, found: Withdrawn) -> Withdrawn:
    """Return the rewind to before the first update that `found` covers, over all that may have learned from it."""
    learned: dict[str, int] = {}  # the heights at which components first counted a covered update
    for name, c in ledger.components.items():
        spec = charter.component(name)
        if spec is None or spec.is_statistic:
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
    upstream = {spec.name: charter.learning.upstream(spec.name) for spec in charter.components if not spec.is_statistic}
    found, seen = set(names), frozenset[str]()
    while True:
        reached = seen.union(*(upstream[name] for name in found))
        more = {name for name, modalities in upstream.items() if modalities & reached}
        if more <= found and reached == seen:
            return frozenset(found)
        found, seen = found | more, reached


def reaches(ledger: Ledger, withdrawn: Withdrawn) -> bool:
    """Whether anything that is in force, or on its way into a round, is covered."""
    return any(
        any(withdrawn.covers(name, r.number, e) for r in c.rounds for e in r.entries)
        or any(withdrawn.bars(name, p.author, p.seq, p.round, p.update) for p in c.pending)
        for name, c in ledger.components.items()
    )


def without(before: ComponentLedger, c: ComponentLedger, withdrawn: Withdrawn) -> ComponentLedger:
    """Return a component without what a withdrawal covers.

    `before` is the component before this block: several withdrawals in one block share one refold and one generation.
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
    generation = before.generation + 1
    erasures = (*c.erasures, Erasure(generation, tuple(sorted(set(gone))))) if gone else c.erasures
    return replace(
        c,
        round=len(rounds),
        generation=generation,
        rounds=chained(rounds, GENESIS),
        pending=pending,
        attests=tuple(item for item in c.attests if item[1] == generation),
        erasures=erasures,
    )


def check_withdrawal(body: Withdrawal, federation: bytes) -> WithdrawalStatement:
    """Check a withdrawal's owner signature and words. Raises RemoteProtocolError."""
    statement = open_signed(WithdrawalStatement, body.statement, federation).value
    check_terms(statement)
    if statement.mode != "refold":
        raise RemoteProtocolError("unknown-withdrawal", "to rewind is for the members to decide", statement.author)
    return statement


def asked(charter: Charter, ledger: Ledger, body: Withdrawal, carrier: bytes) -> list[WithdrawalStatement]:
    """Return what a record withdraws, feed by feed. Raises RemoteProtocolError."""
    statement = check_withdrawal(body, ledger.federation)
    if statement.author not in ledger.roll.seats:
        raise RemoteProtocolError("not-a-member", "the withdrawal's owner was never a member", carrier)
    check_terms(statement, ledger.components)
    found = [
        terms
        for terms in of_all_keys(ledger, statement)
        if _matters(ledger, placed(charter, ledger, terms, ledger.height + 1, carrier))
    ]
    if not found:
        raise RemoteProtocolError("withdrawn-already", "nothing more is in force", carrier)
    return found


def of_all_keys(ledger: Ledger, terms: WithdrawalStatement) -> list[WithdrawalStatement]:
    """Whoever moved to a new key withdraws what its older keys contributed with it: their feeds are frozen."""
    older = membership.earlier(ledger.roll, terms.author)
    return [terms, *(replace(terms, author=k, through=ledger.heads.get(k, (0, GENESIS))[0]) for k in older)]


def proposed_withdrawals(
    charter: Charter, ledger: Ledger, action: str, statement: bytes, height: int, carrier: bytes, motion: bytes = b""
) -> list[Withdrawn]:
    """Return what a motion to withdraw or to rewind would take out as things stand. Raises RemoteProtocolError."""
    terms = membership.terms(action, statement, ledger.federation)
    check_terms(terms, ledger.components)
    if not motion and terms.through > ledger.heads.get(terms.author, (0, GENESIS))[0]:
        raise RemoteProtocolError("through-ahead", "it reaches beyond what its subject has said so far", carrier)
    reached = [
        replace(placed(charter, ledger, each, height, carrier), motion=motion)
        for part in expanded(charter, terms)
        for each in of_all_keys(ledger, part)
    ]
    return [found for found in reached if reaches(ledger, found)]


def applied(before: Ledger, ledger: Ledger, found: Withdrawn) -> Ledger:
    """Drop what a withdrawal covers. Rounds beyond the refold horizon keep what they froze (design.md section 9).

    `before` is the ledger before this block: several withdrawals in one block share one refold and one generation.
    """
    if not _matters(ledger, found):
        return ledger
    components = {name: without(before.components[name], c, found) for name, c in ledger.components.items()}
    return replace(ledger, components=components, withdrawn=(*ledger.withdrawn, found))


def _matters(ledger: Ledger, found: Withdrawn) -> bool:
    """Whether a withdrawal covers anything that the ones in force do not, or keeps anything from coming."""
    if reaches(ledger, found):
        return True
    if found.scope != "all" or found.mode != "refold":
        return False
    before = max((w.through for w in ledger.withdrawn if w.author == found.author and w.scope == "all"), default=-1)
    if before < 0:
        return True  # for what is in flight
    # Carried ahead of the feed: what it covers is still to come.
    return found.carrier != found.author and before <= ledger.heads.get(found.author, (0, GENESIS))[0] < found.through
