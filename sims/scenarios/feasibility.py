"""Whether correct code could satisfy a scenario at all: conditions on several keys together.

A scenario that correct code cannot satisfy would be reported as a broken promise. `check` refuses it by file and key.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...consensus.membership import MIN_VOTED
from ...crypto.errors import UsageError
from ...protocol.learning import AVERAGES
from .scenario import GROUPS, Event, Scenario, Who

FOR_EVER = 2**31
DOWN = ("crash", "lose", "restore")
HUNG = ("hang-learner",)  # they say that they contribute, and do not: rounds wait for them at first
MUTE = ("leave-off", "break-learner", "spend-budget", "withdraw", "no-data", *HUNG)  # there, and contribute nothing
# With these, or with somebody absent, some honest member that is up has no part in some round.
NOT_EVERYBODY = (*MUTE, "join", "leave", "expel", "rekey")


@dataclass(frozen=True, slots=True)
class _Span:
    """`who` is out of it while the closed rounds number from `since` to below `until`; `key` says so."""

    key: str
    who: Who
    since: int
    until: int


def tolerated_faults(nodes: int, fault_model: object) -> int:
    """Return how many members may be faulty: fewer than a third, or than half under the crash fault model."""
    return (nodes - 1) // (3 if fault_model == "byzantine" else 2)


def tolerated_liars(scenario: Scenario) -> int:
    """Return how many may lie: fewer than a third, and none under the crash fault model."""
    return tolerated_faults(scenario.nodes, "byzantine") if _model(scenario) == "byzantine" else 0


def group_size(scenario: Scenario, group: str) -> int:
    """Return how many nodes one of GROUPS is."""
    few = tolerated_liars(scenario) or (scenario.nodes - 1) // 2
    return {"all": scenario.nodes, "any": 1, "half": max(1, scenario.nodes // 2), "minority": max(1, few)}[group]


def check(scenario: Scenario, source: str) -> None:
    """Refuse scenarios that correct code cannot satisfy. Raises UsageError."""
    _check_names(scenario, source)
    _check_expectations(scenario, source)
    _check_events(scenario, source)
    _check_quorum(scenario, source)


def _model(scenario: Scenario) -> object:
    return scenario.charter.get("fault_model", "byzantine")


def _numbered(scenario: Scenario, *actions: str) -> Iterator[tuple[str, Event]]:
    return ((f"event {n}", event) for n, event in enumerate(scenario.events, 1) if event.do in actions)


def _nodes_named(scenario: Scenario, *actions: str) -> set[int | str]:
    return {who for _, event in _numbered(scenario, *actions) for who in event.node}


def _count(scenario: Scenario, whos: Iterable[Who]) -> int:
    """At most how many nodes these are: a group is chosen anew each time."""
    every = list(whos)
    names = {who for group in every for who in group if who not in GROUPS}
    drawn = sum(group_size(scenario, str(who)) for group in every for who in group if who in GROUPS)
    return min(scenario.nodes, len(names) + drawn)


def _check_names(scenario: Scenario, source: str) -> None:
    every = [who for event in scenario.events for who in event.node] + list(scenario.absent)
    cast = {who for who in every if who not in GROUPS}
    if len(cast) > scenario.nodes:
        raise UsageError(f"{source}: {len(cast)} nodes are named, and there are {scenario.nodes}", "Raise `nodes`.")
    for who in scenario.expect.expelled:
        if who not in cast & _nodes_named(scenario, "lie", "expel"):
            advice = "Use a name of a `lie` or an `expel`: no other node is ever expelled."
            raise UsageError(f"{source}: expect.expelled names {who!r}, whom nothing is done to", advice)
    for who in scenario.expect.counted:
        if who not in cast:
            raise UsageError(f"{source}: expect.counted names {who!r}, whom nothing is done to", "Name a role.")
    tolerated = tolerated_liars(scenario)
    liars = _count(scenario, (event.node for _, event in _numbered(scenario, "lie")))
    if liars > tolerated:
        advice = 'The promises hold for fewer than a third: raise `nodes`, or let fewer lie (and none under "crash").'
        raise UsageError(f"{source}: {liars} of {scenario.nodes} nodes lie, and {tolerated} may", advice)
    least = scenario.charter.get("min_updates", 1)
    if isinstance(least, int) and least > scenario.nodes:
        advice = "No round could ever close: lower charter.min_updates, or raise `nodes`."
        raise UsageError(f"{source}: charter.min_updates is {least}, and there are {scenario.nodes} nodes", advice)
    if scenario.charter.get("width", 8) not in (8, 16):
        raise UsageError(f"{source}: charter.width cannot be {scenario.charter['width']}", "Allowed is 8 or 16.")


def _check_expectations(scenario: Scenario, source: str) -> None:
    expect = scenario.expect
    out = [event.do for _, event in _numbered(scenario, *NOT_EVERYBODY)]
    if expect.everybody and (out or scenario.absent):
        advice = f"It goes with nobody absent and none of {', '.join(NOT_EVERYBODY)}."
        raise UsageError(f"{source}: expect.everybody cannot go with {(out or ['absent'])[0]}", advice)
    if expect.stale and scenario.charter.get("rule", "mean") not in AVERAGES:
        raise UsageError(
            f"{source}: expect.stale cannot be under a robust rule",
            'Only "mean" and "random-effects" take stale updates.',
        )
    if expect.stopped and not any(event.lasts or event.until for _, event in _numbered(scenario, "partition")):
        advice = "A partition that ends by `for` or `until` is looked at when it ends."
        raise UsageError(f"{source}: expect.stopped needs a partition", advice)
    for key, event in _numbered(scenario, *{event.do for event in scenario.events}):
        last = (event.at or event.delay)[1] + (event.lasts or (0, 0))[1]
        if last > expect.within:
            advice = "Let it happen and end earlier, or raise expect.within."
            raise UsageError(f"{source}: {key} may end after {last} ms, and expect.within is {expect.within}", advice)
    waits = [span for span in (*_faulty(scenario), *_mute(scenario, *HUNG)) if span.since < expect.rounds]
    deadline, training = scenario.charter.get("deadline", 0), scenario.pace.training[1]
    if expect.rounds and training > expect.within:
        advice = "Let it be over sooner, or raise expect.within."
        raise UsageError(f"{source}: pace.training may be {training} ms, and expect.within is {expect.within}", advice)
    if waits and isinstance(deadline, int) and deadline > expect.within:
        advice = "A round is closed without them at its deadline: lower it, or raise expect.within."
        raise UsageError(
            f"{source}: {waits[0].key}: charter.deadline is {deadline} ms, and expect.within is {expect.within}", advice
        )


def _check_events(scenario: Scenario, source: str) -> None:
    for key, event in _numbered(scenario, "restore"):
        backups = [e.node for _, e in _numbered(scenario, "backup") if _follows(event, e)]
        if not _is_covered(event.node, backups):
            advice = 'Write an event do = "backup" of the same node before it; do = "lose" leaves an empty disk.'
            raise UsageError(f"{source}: {key}.node has no backup to be restored", advice)
    for key, event in _numbered(scenario, "partition"):
        ends = event.lasts or event.until or any(_follows(e, event) for _, e in _numbered(scenario, "heal"))
        if not ends:
            advice = 'Allowed is `for`, `until`, or a later event do = "heal": in the end all have to be one again.'
            raise UsageError(f"{source}: {key} cuts nodes off for good", advice)


def _check_quorum(scenario: Scenario, source: str) -> None:
    """Refuse events that leave no quorum, or too few contributors, while another round is waited for."""
    nodes, least = scenario.nodes, int(str(scenario.charter.get("min_updates", min(2, scenario.nodes))))
    faulty, mute = [*_faulty(scenario), *_forgetful(scenario)], list(_mute(scenario))
    last = max([scenario.expect.rounds, *(max(event.after, event.until) for event in scenario.events)])
    for closed in range(last):
        left = [event.node for _, event in _numbered(scenario, "leave") if event.after <= closed]
        left += [event.node for _, event in _numbered(scenario, "expel") if event.after < closed]
        names = {who for group in left for who in group}
        out = [s for s in faulty if s.since <= closed < s.until and not names.issuperset(s.who)]
        members, count = nodes - _count(scenario, left), _count(scenario, (s.who for s in out))
        tolerated, when = tolerated_faults(members, _model(scenario)), f"after round {closed}" if closed else "at first"
        keys = ", ".join(dict.fromkeys(s.key for s in out))
        if count > max(0, tolerated):
            advice = (
                "No round closes then: raise `nodes`, or let the clock bring them back (`for`, or a start `at`), with"
                " their disks."
            )
            raise UsageError(
                f"{source}: {keys}: {when} {count} of {members} members lie or are out of reach, and {tolerated} may",
                advice,
            )
        out += [s for s in mute if s.since <= closed < s.until]
        there = nodes - _count(scenario, [*left, *(s.who for s in out)])
        there += sum(int(str(e.more.get("count", 1))) for _, e in _numbered(scenario, "join") if e.after <= closed)
        if there < least:
            advice = "No round closes then: lower charter.min_updates, or raise `nodes`."
            raise UsageError(f"{source}: {when} {there} members contribute, and charter.min_updates is {least}", advice)
        for key, event in _numbered(scenario, "expel", "rekey"):
            voted = event.do == "expel" or event.more.get("lost")
            if voted and event.after == closed and members < MIN_VOTED:
                advice = f"Allowed is that from {MIN_VOTED} members on."
                raise UsageError(f"{source}: {key}: {members} members cannot decide about one of them", advice)


def _faulty(scenario: Scenario) -> Iterator[_Span]:
    """Yield nodes that lie or cannot be reached, unless the clock alone brings them back."""
    for who in scenario.absent:
        yield from _until_back(scenario, "absent", who, None)
    for key, event in _numbered(scenario, "lie"):
        yield _Span(key, event.node, 0, FOR_EVER)
    for key, event in _numbered(scenario, *DOWN):
        for who in event.node if event.lasts is None else ():
            yield from _until_back(scenario, key, who, event)
    for key, event in _numbered(scenario, "partition"):
        here = _count(scenario, [event.node])
        rest: Who = tuple(f"another {n}" for n in range(scenario.nodes - here))
        until = event.until or min((e.after for _, e in _numbered(scenario, "heal") if _follows(e, event)), default=0)
        if event.lasts is None:
            yield _Span(key, event.node if here <= len(rest) else rest, event.after, until)
    for key, event in _numbered(scenario, "expel", "rekey"):  # the others decide that without them
        if event.do == "expel" or event.more.get("lost"):
            yield _Span(key, event.node, event.after, event.after + 1)


def _forgetful(scenario: Scenario) -> Iterator[_Span]:
    """Yield nodes that come back by the clock alone, and have to get their records and the ledger from the others."""
    for key, event in _numbered(scenario, "lose", "restore"):
        if event.lasts is not None:
            yield _Span(key, event.node, event.after, event.after + 1)


def _until_back(scenario: Scenario, key: str, who: int | str, event: Event | None) -> Iterator[_Span]:
    starts = [e for _, e in _numbered(scenario, "start") if event is None or _follows(e, event)]
    backs = [e.after for e in starts if _is_covered((who,), [e.node])] + (
        [event.until] if event and event.until else []
    )
    yield _Span(key, (who,), event.after if event else 0, min(backs, default=FOR_EVER))


def _mute(scenario: Scenario, *actions: str) -> Iterator[_Span]:
    for key, event in _numbered(scenario, *(actions or MUTE)):
        if event.do == "withdraw" and event.more.get("scope", "all") != "all":
            continue  # of a part: they go on contributing
        if event.lasts is None and not event.more.get("reserve"):  # a withdrawal opens it, and nobody knows when
            since = event.after + int(str(event.more.get("left", 0)))
            yield _Span(key, event.node, since, event.until or FOR_EVER)


def _follows(later: Event, earlier: Event) -> bool:
    """Whether an event comes after another one, whatever the seed; a round is taken to close after any time."""
    if later.at is not None:
        return earlier.at is not None and later.at[0] >= earlier.at[1]
    return earlier.at is not None or (later.after, later.delay[0]) >= (
        earlier.after,
        earlier.delay[1] if later.after == earlier.after else 0,
    )


def _is_covered(who: Who, groups: Sequence[Who]) -> bool:
    """Whether all of these are among the groups: a chosen one is another one each time."""
    names = {member for group in groups for member in group}
    return "all" in names or (set(who) <= names and not set(who) & set(GROUPS))
