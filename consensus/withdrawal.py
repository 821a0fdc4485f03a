"""Withdrawals: the entries that they cover, and the rest of the frozen lists (design.md section 9, ADR 3 and 16).

refold   the covered entries go; the rule runs again over the others
rewind   all entries go, of all members, from the first round on that counted a covered update, in every component
         that may have learned from it. No update for the open round may count any more, so it is skipped (rounds.py)
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from ..crypto.errors import RemoteProtocolError
from ..protocol.charter import Charter
from ..protocol.membership import Action
from ..protocol.records import GENESIS, MODES, SCOPES, Withdrawal, WithdrawalStatement
from ..protocol.signing import open_signed
from . import membership
from .components import Round, chained
from .ledger import NOT_YET, ComponentLedger, Erasure, Ledger, Pending, Withdrawn

MAX_AT_A_HEIGHT = 16  # withdrawals and motions to withdraw, by one author; each is compared with every list


def check_terms(terms: WithdrawalStatement, components: Iterable[str] | None = None) -> None:
    """Check that a withdrawal's terms are consistent, and its components exist.

    Raises RemoteProtocolError("unknown-withdrawal" | "unknown-component").
    """
    parts, updates = list(terms.components), list(terms.updates)
    ordered = parts == sorted(set(parts)) and updates == sorted(set(updates))
    by_round = terms.scope == "rounds"
    ok = (
        terms.scope in SCOPES
        and terms.mode in MODES
        and ordered
        and bool(parts) == (terms.scope in ("components", "rounds"))
        and bool(updates) == (terms.scope == "updates")
        and (1 <= terms.first <= terms.last if by_round else terms.first == terms.last == 0)
    )
    if not ok:
        raise RemoteProtocolError("unknown-withdrawal", f"{terms.scope} by {terms.mode}", terms.author)
    if components is not None and not set(parts) <= set(components):
        raise RemoteProtocolError("unknown-component", ", ".join(sorted(set(parts) - set(components))), terms.author)


def placed(charter: Charter, ledger: Ledger, terms: WithdrawalStatement, height: int, carrier: bytes) -> Withdrawn:
    """Return what these checked terms withdraw from the ledger as it is."""
    closed = tuple(sorted((name, _last(charter, c, terms.author)) for name, c in ledger.components.items()))
    horizon = charter.rules.refold_horizon
    withdrawn = Withdrawn(
        terms.author,
        terms.through,
        "refold",
        height,
        carrier,
        closed,
        SCOPES[terms.scope],
        terms.components,
        terms.first,
        terms.last,
        terms.updates,
        since=tuple((name, max(ledger.components[name].reach, last - horizon + 1)) for name, last in closed),
    )
    mode = MODES[terms.mode]
    match mode:
        case "refold":
            return withdrawn
        case "rewind":
            return _rewinding(charter, ledger, withdrawn)
        case _:
            assert_never(mode)


def _last(charter: Charter, c: ComponentLedger, author: bytes) -> int:
    """Return the last round that a withdrawal covers, apart from the one in flight: the last closed round.

    A pending statistic that replaces a withdrawn one may be for a later round.
    """
    spec = charter.component(c.name)
    if spec is None or not spec.is_statistic:
        return c.round
    return max([c.round, *(p.round - 1 for p in c.pending if p.author == author)])


def expanded(charter: Charter, terms: WithdrawalStatement) -> tuple[WithdrawalStatement, ...]:
    """Return the terms to apply. Statistics learn from no state: there a rewind takes only the subject's own."""
    sums = tuple(spec.name for spec in charter.components if spec.is_statistic)
    if terms.mode != "rewind" or not sums:
        return (terms,)
    own, scope = replace(terms, mode="refold"), SCOPES[terms.scope]
    match scope:
        case "all":
            own = replace(own, scope="components", components=sums)
        case "components" | "rounds":
            own = replace(own, components=tuple(name for name in terms.components if name in sums))
        case "updates":
            pass
        case _:
            assert_never(scope)
    return (terms, own) if own.components or own.updates else (terms,)


def _rewinding(charter: Charter, ledger: Ledger, withdrawn: Withdrawn) -> Withdrawn:
    """Return the rewind to before the first covered update, in all components that may have learned from it."""
    learned: dict[str, int] = {}  # the heights at which components first counted a covered update
    for name, c in ledger.components.items():
        spec = charter.component(name)
        if spec is None or spec.is_statistic:
            continue
        heights = [r.height for r in c.rounds if any(withdrawn.covers(name, r.number, e) for e in r.entries)]
        if heights:
            learned[name] = min(heights)
    start = min(learned.values(), default=0)
    since = []
    for name in linked(charter, learned) if learned else ():
        rounds = ledger.components[name].rounds
        # Other components' rounds that closed at the height of the first covered one were trained before.
        later = [r.number for r in rounds if r.height > start or (r.height == start and learned.get(name) == start)]
        first = min(later, default=ledger.components[name].round + 1)
        since.append((name, max(first, dict(withdrawn.since)[name])))  # no further than this component's own horizon
    return replace(withdrawn, mode="rewind", since=tuple(sorted(since)))


def linked(charter: Charter, names: Iterable[str]) -> frozenset[str]:
    """Return these components and all that may be trained with them, directly or through others."""
    upstream = {spec.name: charter.learning.upstream(spec.name) for spec in charter.components if not spec.is_statistic}
    group, seen = set(names), frozenset[str]()
    while True:
        reached = seen.union(*(upstream[name] for name in group))
        more = {name for name, modalities in upstream.items() if modalities & reached}
        if more <= group and reached == seen:
            return frozenset(group)
        group, seen = group | more, reached


def reaches(ledger: Ledger, withdrawn: Withdrawn) -> bool:
    """Whether it covers any update in force or on its way into a round."""
    return any(
        any(withdrawn.covers(name, r.number, e) for r in c.rounds for e in r.entries)
        or any(withdrawn.bars(name, p.author, p.seq, p.round, p.update) for p in c.pending)
        for name, c in ledger.components.items()
    )


def _bars_anew(ledger: Ledger, withdrawn: Withdrawn) -> bool:
    """Whether it takes back what its author may have in flight for the open rounds of components that it names."""
    if withdrawn.scope not in ("components", "rounds") or withdrawn.mode != "refold":
        return False

    def bars(w: Withdrawn, c: ComponentLedger) -> bool:
        return w.bars(c.name, withdrawn.author, NOT_YET, c.round + 1, b"")

    hosted = [c for c in ledger.components.values() if withdrawn.author in c.hosts]
    return any(bars(withdrawn, c) and not any(bars(w, c) for w in ledger.withdrawn) for c in hosted)


def without(before: ComponentLedger, c: ComponentLedger, withdrawn: Withdrawn) -> ComponentLedger:
    """Return a component without the updates that a withdrawal covers.

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
    pending: tuple[Pending, ...] = tuple(
        p for p in c.pending if not withdrawn.bars(c.name, p.author, p.seq, p.round, p.update)
    )
    gone += [p.blob for p in c.pending if p not in pending]
    if not changed:  # no state held them: they go at once, without a new generation
        return replace(c, pending=pending) if gone else c
    generation = before.generation + 1
    erasures = (*c.erasures, Erasure(generation, tuple(sorted(set(gone))))) if gone else c.erasures
    return replace(
        c,
        generation=generation,
        rounds=chained(rounds, GENESIS),
        pending=pending,
        attests=tuple(item for item in c.attests if item[1] == generation),
        erasures=erasures,
    )


def check_withdrawal(body: Withdrawal, federation: bytes) -> WithdrawalStatement:
    """Check a withdrawal's owner signature and terms. Raises RemoteProtocolError."""
    statement = open_signed(WithdrawalStatement, body.statement, federation).value
    check_terms(statement)
    if statement.mode != "refold":
        raise RemoteProtocolError("unknown-withdrawal", "a rewind needs a motion", statement.author)
    return statement


def asked(charter: Charter, ledger: Ledger, body: Withdrawal, carrier: bytes) -> list[WithdrawalStatement]:
    """Return the terms of a record's withdrawal, one for each feed. Raises RemoteProtocolError."""
    statement = check_withdrawal(body, ledger.federation)
    if statement.author not in ledger.roll.seats:
        raise RemoteProtocolError("not-a-member", "the withdrawal's owner was never a member", carrier)
    check_terms(statement, ledger.components)
    statements = [
        terms
        for terms in of_all_keys(ledger, statement)
        if _covers_more(ledger, placed(charter, ledger, terms, ledger.height + 1, carrier))
    ]
    if not statements:
        raise RemoteProtocolError("withdrawn-already", "nothing of it is in force any more", carrier)
    return statements


def of_all_keys(ledger: Ledger, terms: WithdrawalStatement) -> list[WithdrawalStatement]:
    """Return the terms for this key and for its member's older ones, whose feeds are frozen."""
    older = membership.earlier(ledger.roll, terms.author)
    return [terms, *(replace(terms, author=k, through=ledger.heads.get(k, (0, GENESIS))[0]) for k in older)]


def proposed_withdrawals(
    charter: Charter, ledger: Ledger, action: Action, statement: bytes, height: int, carrier: bytes, motion: bytes = b""
) -> list[Withdrawn]:
    """Return what a motion to withdraw or to rewind would withdraw now. Raises RemoteProtocolError."""
    terms = membership.terms(action, statement, ledger.federation)
    check_terms(terms, ledger.components)
    if not motion and terms.through > ledger.heads.get(terms.author, (0, GENESIS))[0]:
        raise RemoteProtocolError("through-ahead", "it reaches beyond the end of its subject's feed", carrier)
    reached = [
        replace(placed(charter, ledger, of_key, height, carrier), motion=motion)
        for part in expanded(charter, terms)
        for of_key in of_all_keys(ledger, part)
    ]
    return [withdrawn for withdrawn in reached if reaches(ledger, withdrawn)]


def applied(before: Ledger, ledger: Ledger, withdrawn: Withdrawn) -> Ledger:
    """Drop the covered updates. Rounds beyond the refold horizon keep their lists (design.md section 9).

    `before` is the ledger before this block: several withdrawals in one block share one refold and one generation.
    """
    if not _covers_more(ledger, withdrawn):
        return ledger
    components = {name: without(before.components[name], c, withdrawn) for name, c in ledger.components.items()}
    return replace(ledger, components=components, withdrawn=(*ledger.withdrawn, withdrawn))


def _covers_more(ledger: Ledger, withdrawn: Withdrawn) -> bool:
    """Whether a withdrawal covers an update that those in force do not, or one still to come."""
    if reaches(ledger, withdrawn) or _bars_anew(ledger, withdrawn):
        return True
    if withdrawn.scope != "all" or withdrawn.mode != "refold":
        return False
    before = max((w.through for w in ledger.withdrawn if w.author == withdrawn.author and w.scope == "all"), default=-1)
    if before < 0:
        return True  # for what is in flight
    # Carried ahead of the feed: the covered updates are still to come.
    return (
        withdrawn.carrier != withdrawn.author
        and before <= ledger.heads.get(withdrawn.author, (0, GENESIS))[0] < withdrawn.through
    )
