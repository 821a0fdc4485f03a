"""The checks of the promises fail where a promise is broken: a ledger or a node of a calm run, with one thing changed.

tests/sims/scenarios/test_mutations.py breaks the code; this breaks what the checks read, one check at a time.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from collegium.consensus.components import Entry, Round
from collegium.consensus.ledger import Ledger, genesis
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.promise import InvariantError
from collegium.sims.simulator.promises import counts, removals, votes
from collegium.sims.simulator.promises.observed import Observed

TASK, SUM = "head/task0", "statistic/task0"
Change = Callable[[tuple[Entry, ...]], tuple[Entry, ...]]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    made = Cluster(4, 3, Invariants, rounds=2, statistics=1)
    made.start()
    assert made.run(lambda: made.all_closed(2))
    return made


def ledger_of(cluster: Cluster) -> Ledger:
    ledger = cluster.latest()
    assert ledger is not None
    return ledger


def changed(ledger: Ledger, name: str, change: Change) -> Ledger:
    """The ledger with another list of entries in the first round of a component."""
    component = ledger.components[name]
    first: Round = component.rounds[0]
    rounds = (replace(first, entries=change(first.entries)), *component.rounds[1:])
    return replace(ledger, components={**ledger.components, name: replace(component, rounds=rounds)})


def seen(cluster: Cluster) -> Observed:
    """What the run observed, as if no round had been checked yet."""
    assert isinstance(cluster.observer, Invariants)
    observed = cluster.observer._seen
    observed.rounds, observed.counted = {}, {}
    return observed


def stranger(entry: Entry) -> Entry:
    return replace(entry, update=bytes(32))


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (TASK, lambda entries: (*entries, entries[-1]), "counts an author twice, or out of order"),
        (TASK, lambda entries: entries[::-1], "counts an author twice, or out of order"),
        (TASK, lambda entries: (stranger(entries[0]), *entries[1:]), "counts an unsigned update"),
        (TASK, lambda entries: (replace(entries[0], staleness=1), *entries[1:]), "counts an update of round"),
        (SUM, lambda entries: (*entries, entries[0]), "counts a member twice"),
    ],
    ids=["twice", "out-of-order", "unsigned", "stale", "statistic-twice"],
)
def test_a_round_that_counts_what_it_may_not_is_seen(cluster: Cluster, name: str, change: Change, what: str) -> None:
    now, before = ledger_of(cluster), genesis(cluster.charter)
    counts.traced(seen(cluster), before, now)
    with pytest.raises(InvariantError, match=what):
        counts.traced(seen(cluster), before, changed(now, name, change))


def test_what_is_frozen_stays_as_it_is(cluster: Cluster) -> None:
    now = ledger_of(cluster)
    counts.extended(now, now)
    for change, what in (
        (lambda entries: entries[::-1], "gained or reordered"),
        (lambda entries: (*entries, stranger(entries[0])), "gained or reordered"),
        (lambda entries: entries[1:], "lost an update that was not withdrawn"),
    ):
        with pytest.raises(InvariantError, match=what):
            counts.extended(now, changed(now, TASK, change))
    author, (seq, head) = next(iter(now.heads.items()))
    for again in ((seq - 1, head), (seq, bytes(32))):
        with pytest.raises(InvariantError, match="an agreed head went from"):
            counts.extended(now, replace(now, heads={**now.heads, author: again}))


def test_a_member_without_a_seat_and_bytes_that_go_early_are_seen(cluster: Cluster) -> None:
    now = ledger_of(cluster)
    votes.seated(now)
    with pytest.raises(InvariantError, match="without a seat"):
        votes.seated(replace(now, members=now.members[1:]))
    removals.awaited(now, now)
