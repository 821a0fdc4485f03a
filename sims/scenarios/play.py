"""Play a scenario with a seed, check the invariants and its expectations, and return the outcome."""

import random
import time
from dataclasses import dataclass, replace
from typing import Any

from ...consensus.ledger import Ledger
from ...consensus.membership import present
from ...node.core import events as ev
from ...node.core.state import NodeState
from ...node.home.config import Timing
from ..simulator.cluster import Cluster, Node
from ..simulator.invariants import Invariants
from ..simulator.promise import InvariantError
from .actions import ACTIONS, Undo
from .feasibility import group_size
from .scenario import GROUPS, Event, Scenario, Who
from .stage import Stage

SETTLE_MS = 300_000  # how long it may take until all are level, once everything is over
IDLE_MS = 30_000  # how long nothing may happen where there is no work
PROVE_MS = 5000  # how long it may take until the last lie is proved


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one run. `promise` is empty if all held, else "G1" … "G9", "expect.KEY", "scenario" or "error"."""

    scenario: str
    seed: int
    promise: str
    what: str
    trace: str  # digest of every event and write: two runs of one (scenario, seed) have the same
    virtual_ms: int
    steps: int
    heights: int
    seconds: float

    @property
    def held(self) -> bool:
        """Whether every invariant and expectation held."""
        return not self.promise


def play(scenario: Scenario, seed: int) -> Outcome:
    """Run a scenario once."""
    began = time.perf_counter()
    run = Play(scenario, seed)
    promise = what = ""
    try:
        run.run()
    except InvariantError as error:
        promise, what = error.promise, error.what
    except Exception as error:  # noqa: BLE001 - a bug of core or simulator: reported with its seed, like a broken promise
        promise, what = "error", f"{type(error).__name__}: {error}"
    cluster = run.cluster
    heights = max(node.store.height() for node in cluster.nodes)
    seconds = time.perf_counter() - began
    return Outcome(scenario.name, seed, promise, what, cluster.trace, cluster.now, cluster.steps, heights, seconds)


class Play(Stage):
    """A scenario under way."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        charter: dict[str, Any] = {"min_updates": min(2, scenario.nodes), **scenario.charter}
        pace = scenario.pace
        cluster = Cluster(
            scenario.nodes,
            seed,
            Invariants,
            network=scenario.conditions,
            training=pace.training,
            rounds=scenario.rounds,
            disk=scenario.disk,
            timing=Timing(pace.propose, pace.idle, pace.sync),
            **charter,
        )
        cluster.observer.alarms -= set(scenario.expect.alarms)
        super().__init__(cluster, seed)
        self.scenario = scenario
        # Not the cluster's: what happens when, and to whom, does not depend on the network.
        self.random = random.Random(f"{seed} {scenario.nodes}")  # noqa: S311 - a simulation, labelled so
        self.roles = self._cast()
        self.waiting = [event for event in scenario.events if event.after]
        self.undoing: list[tuple[int, Undo]] = []  # (round, what ends then)
        self.running = len(scenario.events)  # events that are not over

    # ---- whom and when

    def _cast(self) -> dict[str, int]:
        named = [who for event in self.scenario.events for who in event.node] + list(self.scenario.absent)
        free = [n for n in range(self.scenario.nodes) if n not in named]
        self.random.shuffle(free)
        roles: dict[str, int] = {}
        for who in named:
            if isinstance(who, str) and who not in GROUPS and who not in roles:
                roles[who] = free.pop()
        return roles

    def whom(self, who: Who) -> list[Node]:
        """Return the meant nodes; a group is chosen anew each time."""
        nodes = self.cluster.nodes
        if who == ("all",):
            return list(nodes)
        if len(who) == 1 and who[0] in GROUPS:
            count = group_size(self.scenario, str(who[0]))
            return sorted(self.random.sample(nodes, count), key=lambda node: node.index)
        return [nodes[one if isinstance(one, int) else self.roles[one]] for one in who]

    def _draw_between(self, span: tuple[int, int]) -> int:
        return self.random.randint(*span)

    def _do(self, event: Event) -> None:
        undo = ACTIONS[event.do].run(self, self.whom(event.node), event.more)
        self.cluster.progressed = True
        if undo is not None and event.lasts is not None:
            self.cluster.at(self._draw_between(event.lasts), lambda: self._end_event(undo))
        elif undo is not None and event.until:
            self.undoing.append((event.until, undo))
        else:
            self.running -= 1

    def _end_event(self, undo: Undo) -> None:
        undo()
        self.running -= 1
        self.cluster.progressed = True

    def _last_closed(self) -> int:
        """Return the last round that some honest node has closed in every component."""
        return max((_round(node) for node in self.honest() if node.core is not None), default=0)

    def _trigger(self) -> None:
        """Do what waits for a round; a node killed before it signed its withdrawal requests it again."""
        for node in (self.cluster.nodes[index] for index in self.withdrawn):
            signed = any(record.value.kind == "withdrawal" for record in node.store.records.values())
            if node.core is not None and node.core.signing and not signed:
                node.deliver(ev.RequestWithdrawal())
        closed = self._last_closed()
        for event in [event for event in self.waiting if event.after <= closed]:
            self.waiting.remove(event)
            delay = self._draw_between(event.delay)
            if delay:
                self.cluster.at(delay, lambda event=event: self._do(event))  # type: ignore[misc]  # bound at once
            else:
                self._do(event)
        for entry in [entry for entry in self.undoing if entry[0] <= closed]:
            self.undoing.remove(entry)
            self._end_event(entry[1])

    # ---- the run

    def run(self) -> None:
        """Play it to its end. Raises InvariantError, for an expectation with the promise "expect.KEY"."""
        cluster, expect = self.cluster, self.scenario.expect
        absent = {node.index for node in self.whom(self.scenario.absent)}
        for event in self.scenario.events:
            if event.at is not None:
                cluster.at(self._draw_between(event.at), lambda event=event: self._do(event))  # type: ignore[misc]
        for node in cluster.nodes:
            node.stays_down = node.index in absent
            if node.index not in absent:
                node.start()
        if not cluster.run(self._is_done, expect.within):
            raise InvariantError("expect.rounds", self._progress_text())
        self._come_to_rest()
        cluster.observer.final()
        self._check()

    def _is_done(self) -> bool:
        if not self.cluster.progressed:
            return False
        self.cluster.progressed = False
        self._trigger()
        rounds = self.scenario.expect.rounds
        return not self.running and all(
            node.stays_down or (node.core is not None and _last_folded(node) >= rounds) for node in self.members()
        )

    def _come_to_rest(self) -> None:
        """No more crashes: all stand at one height, folded, with withdrawals certified and erased."""
        cluster = self.cluster
        cluster.disk = replace(cluster.disk, crash=0.0)
        limit = cluster.now + SETTLE_MS
        if not cluster.run(self._level, limit):
            raise InvariantError("G3", f"they do not come to one height: {self._progress_text()}")
        if self.scenario.expect.idle:
            cluster.run(lambda: False, cluster.now + 5000)  # messages in flight
            before = self._heights()
            cluster.run(lambda: False, cluster.now + IDLE_MS)
            if self._heights() != before:
                raise InvariantError("expect.idle", f"without work the heights went from {before} to {self._heights()}")

    def _heights(self) -> list[int]:
        return [node.core.ledger.height for node in self.members() if node.core is not None]

    def _level(self) -> bool:
        nodes = [node for node in self.members() if not node.stays_down]
        return (
            all(node.core is not None and _current(node) for node in nodes)
            and len(set(self._heights())) == 1
            and self._is_withdrawn()
        )

    def _is_withdrawn(self) -> bool:
        """Whether every withdrawal has taken effect everywhere."""
        keys = {self.cluster.nodes[index].identity.public_key for index in self.withdrawn}
        return all(
            keys <= {present(node.core.ledger.roll, withdrawal.author) for withdrawal in node.core.ledger.withdrawn}
            for node in self.members()
            if node.core is not None
        )

    def _progress_text(self) -> str:
        """Report every node's progress."""
        nodes = []
        for node in self.cluster.nodes:
            last = node.notices[-1].event if node.notices else "nothing"
            at = f"height {node.core.ledger.height} round {_last_folded(node)}" if node.core else "down"
            nodes.append(f"{'liar ' if node.lied else ''}{node.index}: {at}, last said {last}")
        undone = f"; {self.running} events are not over" if self.running else ""
        return f"after {self.cluster.now} ms: " + "; ".join(nodes) + undone

    # ---- expectations

    def _check(self) -> None:
        expect = self.scenario.expect
        honest = self.honest()
        self._check_expelled()
        core = next(node.core for node in self.members() if node.core is not None)
        refused = {reason for node in honest if node.core for _, reason in node.core.refusals}
        notices = [notice for node in honest for notice in node.notices]
        refused |= {str(notice.fields.get("reason")) for notice in notices if "reason" in notice.fields}
        for reason in expect.refused:
            if reason not in refused:
                raise InvariantError("expect.refused", f"no honest node refused anything as {reason!r}")
        for event in expect.notices:
            if event not in {notice.event for notice in notices}:
                raise InvariantError("expect.notices", f"no honest node gave the notice {event!r}")
        rounds = [round_ for component in core.ledger.components.values() for round_ in component.rounds]
        sums = {
            name: {
                present(core.ledger.roll, entry.author)
                for round_ in core.ledger.components[name].rounds
                for entry in round_.entries
            }
            for name, spec in core.specs.items()
            if spec.is_statistic
        }
        if expect.everybody:
            every = {node.identity.public_key for node in honest if not node.stays_down}
            for name, authors in sums.items():
                if not every <= authors:
                    raise InvariantError("expect.everybody", f"a node was left out of {name}")
            for round_ in (r for name, c in core.ledger.components.items() if name not in sums for r in c.rounds):
                if not every <= {entry.author for entry in round_.entries}:
                    raise InvariantError("expect.everybody", f"a node was left out of round {round_.number}")
        last = {name: c.rounds[-1] for name, c in core.ledger.components.items() if c.rounds}
        for node in self.whom(expect.counted):
            for name, round_ in last.items():
                if node.identity.public_key not in sums.get(name, {entry.author for entry in round_.entries}):
                    raise InvariantError("expect.counted", f"the last round of {name} is without node {node.index}")
        if expect.stale and not any(entry.staleness for round_ in rounds for entry in round_.entries):
            raise InvariantError("expect.stale", "no update counted a round late")
        if expect.stopped and not self.stopped:
            raise InvariantError("expect.stopped", "no side was without a quorum")
        if expect.used:
            self._check_used(core.ledger)

    def _check_used(self, ledger: Ledger) -> None:
        """Every training run that an honest node paid for was for rounds that have closed."""
        for node in self.honest():
            for part in (part for run in node.store.reservations for part in run.parts):
                if part.round > ledger.components[part.component].round:
                    what = f"node {node.index} trained round {part.round} of {part.component}, which did not close"
                    raise InvariantError("expect.used", what)

    def _check_expelled(self) -> None:
        named = self.whom(self.scenario.expect.expelled)

        def still() -> list[Node]:
            ledger = self.cluster.latest()
            return [node for node in named if ledger and node.identity.public_key not in ledger.expelled]

        if self.cluster.run(
            lambda: not still(), self.cluster.now + PROVE_MS
        ):  # what it did last may just have been seen
            return
        idle = [node.index for node in still() if node.lied and "told" not in node.memory]
        if idle:
            raise InvariantError("scenario", f"nodes {idle} were to be expelled, and had no occasion to lie")
        raise InvariantError("expect.expelled", f"nodes {[node.index for node in still()]} are still members")


def _round(node: Node) -> int:
    assert node.core is not None
    return min(node.core.ledger.components[name].round for name in _trained_components(node.core))


def _trained_components(core: NodeState) -> list[str]:
    """Return the components that go from round to round: all but the statistics, and those that are retired."""
    return [n for n, spec in core.specs.items() if not spec.is_statistic and n not in core.charter.retired]


def _last_folded(node: Node) -> int:
    """Return the last round that a node has closed and folded in every component that it holds."""
    if node.core is None:
        return 0
    held = [name for name in _trained_components(node.core) if name in node.core.held]
    done = [node.core.folded.get(name, (0, 0, b"", b""))[0] for name in held]
    return min(_round(node), *done)


def _current(node: Node) -> bool:
    core = node.core
    assert core is not None
    if any(component.erasures for component in core.ledger.components.values()):
        return False
    return all(
        core.folded.get(name, (0, 0, b"", b""))[:3] == (c.round, c.generation, c.chain)
        for name, c in core.ledger.components.items()
        if name in core.held
    )
