"""Many nodes in one process under a seeded event queue and a virtual clock: the daemon's own core, unchanged.

A run is a function of its settings and the seed: `Cluster.trace` is the digest of every event and write. The network
delays, loses, duplicates and reorders; nodes crash, and restart from what their store had made durable; some lie
(liars.py). An observer looks at every step (invariants.py).
"""

import hashlib
import heapq
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeAlias, Unpack, assert_never

from ...consensus.components import Entry, State, origin, replay
from ...consensus.ledger import Ledger
from ...crypto.errors import RemoteProtocolError
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node.core import events as ev
from ...node.core.catchup import in_flight_messages
from ...node.core.contribution import Plan
from ...node.core.core import handle, load_node, start_node
from ...node.core.messages import SyncRequest
from ...node.core.state import NodeState, Options
from ...node.core.sync import answer
from ...node.core.timers import Timer
from ...node.core.updates import needed
from ...node.home.config import Timing
from ...protocol import schema
from ...protocol.blocks import NIL
from ...protocol.components import state_digest
from ...protocol.update import Integers, check_norm, least_lot, payload, payload_values, read_payload
from .lie import Lie
from .memory import MemoryStore
from .network import Disk, NetworkConditions
from .observer import Observer
from .promise import InvariantError
from .small import CharterOptions, small_charter, values_of

KEPT_STATES = 4  # of each component, as in node/runtime/folding.py
FOR_EVER = 2**31  # training runs


@dataclass(slots=True)
class Budget:
    """The training runs that an accountant still allows; `reserve` are those kept for rounds after a withdrawal."""

    left: int
    reserve: int = 0

    def fits(self, *, recovery: bool) -> int:
        """Return how many training runs fit into it now."""
        return self.left + (self.reserve if recovery else 0)

    def spend(self) -> None:
        """Count a training run, the reserve last."""
        if self.left:
            self.left -= 1
        else:
            self.reserve = max(0, self.reserve - 1)


def _answer(check: ev.CheckBudget, budget: Budget | None) -> ev.BudgetAnswer:
    """Allow what fits, with the charter's noise: no accountant here, ε is the number of runs, in thousandths."""
    names = [reach.modality for reach in check.modalities]
    fits = FOR_EVER if budget is None else budget.fits(recovery=check.recovery)
    if not fits:
        return ev.BudgetAnswer(check.run, False, "the budget is spent")
    epsilon = {
        reach.modality: (sum(draws.count for draws in reach.spent) + check.steps) // max(1, check.steps)
        for reach in check.modalities
    }
    return ev.BudgetAnswer(check.run, True, "", {}, epsilon, {} if budget is None else dict.fromkeys(names, fits))


# When, in which order, at which node (-1: none), in which of its lives, what. The order decides every comparison.
_Item: TypeAlias = tuple[int, int, int, int, Callable[[], None]]


class Node:
    """One simulated node: a core, its store, its timers."""

    def __init__(self, cluster: "Cluster", index: int, identity: Identity, options: Options) -> None:
        self.cluster, self.index, self.identity, self.options = cluster, index, identity, options
        self.store = MemoryStore()
        self.core: NodeState | None = None
        self.life = 0
        self.tempo = 1.0  # of its clock: its timers may run fast or slow
        self._offset = 0.0
        self.training: tuple[int, int] | None = None  # ms, where they differ from the others'
        self.lag = 0  # ms more for whatever it sends
        self.stays_down = False
        self.fails = ""  # why its training fails
        self.hung: list[ev.Train] | None = None  # its learner does not answer: the requests that wait
        self.lacks: frozenset[str] = frozenset()  # components that it would have no data for
        self.budget: Budget | None = None  # None: its accountant allows every training run
        self.charged: set[int] = set()  # training runs that were taken from it
        self.lie: Lie[Node] | None = None
        self.lied = False
        self.memory: dict[object, object] = {}  # a liar's memory
        self.timers: dict[Timer, int] = {}
        self.inbox: dict[int, list[ev.Event]] = {}  # by the time at which they arrive
        self.notices: list[ev.Notice] = []
        self.kept: dict[tuple[str, bytes], State] = {}  # by component and chain: states that it can send to a joiner
        self.taken: dict[tuple[str, bytes], State] = {}  # states that it took from others in place of history

    @property
    def now(self) -> int:
        """The time by this node's clock, in ms."""
        return round(self.cluster.now * self.tempo + self._offset)

    def set_clock(self, tempo: float, jump: int = 0) -> None:
        """From now on its clock runs so fast; first it jumps by so many milliseconds."""
        self._offset += self.cluster.now * (self.tempo - tempo) + jump
        self.tempo = tempo

    def tell_lies(self, lie: "Lie[Node] | None") -> None:
        """From now on it lies like this, or no more; invariants never rely on it again."""
        self.lie = lie
        self.lied = self.lied or lie is not None
        self._act(lie)

    def _act(self, lie: "Lie[Node] | None") -> None:
        if lie is not None and lie.acts is not None and self.lie is lie:
            if self.core is not None:
                lie.acts(self)
            self.cluster.schedule(lie.every, self, lambda: self._act(lie))

    def start(self) -> None:
        """Start from whatever the store holds."""
        self.life += 1
        self.stays_down = False
        self.timers.clear()
        self.inbox.clear()
        self.store.now = self.now
        try:
            self.core = load_node(self.cluster.charter, self.identity, self._options, self.store.snapshot())
        except Exception as error:
            raise InvariantError("G8", f"node {self.index} could not start again: {error!r}") from error
        kept = needed(self.core)  # the daemon sweeps as well
        for blob in [blob for blob in self.store.blobs if blob not in kept]:
            del self.store.blobs[blob]
        self.cluster.progressed = True
        self.cluster.witness(self, b"start")
        self._perform(start_node(self.core, self.now))
        for other in self.cluster.nodes:
            if other is not self and other.core is not None and self.cluster.linked(self.index, other.index):
                self.deliver(ev.PeerUp(other.identity.public_key))
                other.deliver(ev.PeerUp(self.identity.public_key))
        self.deliver(ev.LearnerReady((*self.options.hosted, *self.options.followed)))
        self._act(self.lie)

    def _options(self, ledger: Ledger) -> Options:
        self.options = self._holding(ledger.charter.specs)
        return self.options

    def _holding(self, specs: Collection[str]) -> Options:
        """Hold what opened since the founding too, as far as there is data for it here."""
        before = {*self.cluster.charter.specs, *self.options.hosted, *self.lacks}
        return replace(self.options, hosted=(*self.options.hosted, *(name for name in specs if name not in before)))

    def crash(self) -> None:
        """kill -9: everything that was not durable is gone."""
        self.core = None
        self.life += 1
        self.inbox.clear()
        self.cluster.progressed = True
        self.cluster.witness(self, b"crash")
        for other in self.cluster.nodes:
            if other is not self:
                other.deliver(ev.PeerDown(self.identity.public_key))

    def deliver(self, *events: ev.Event) -> None:
        """LearnerWorker events to the core as one batch and carry out what follows."""
        if self.core is not None:
            self.cluster.steps += len(events)
            for event in events:
                self.cluster.progressed |= isinstance(event, ev.Folded)
                self.cluster.witness(self, event)
            try:
                effects = handle(self.core, events, self.now)
            except Exception as error:
                raise InvariantError("G9", f"node {self.index} fell over {events!r:.200}: {error!r}") from error
            self._perform(effects)

    def later(self, delay: int, event: ev.Event) -> None:
        """Deliver an event to this life of the node after a delay, with what else arrives at that time."""
        grain = self.cluster.network.grain
        due = -(-(self.cluster.now + delay) // grain) * grain
        waiting = self.inbox.setdefault(due, [])
        waiting.append(event)
        if len(waiting) == 1:
            self.cluster.schedule(due - self.cluster.now, self, lambda: self.deliver(*self.inbox.pop(due)))

    def _perform(self, effects: list[ev.Effect]) -> None:
        puts = [effect.put for effect in effects if isinstance(effect, ev.Persist)]
        fate = self.cluster.crash_here(self)
        if fate == "before":
            puts = []
        elif fate == "torn":
            puts = puts[: self.cluster.random.randrange(len(puts) + 1)]
        self.store.now = self.now
        self.store.apply(puts)
        self.cluster.progressed |= any(isinstance(put, ev.PutBlock) for put in puts)
        self.cluster.observer.persisted(self, puts, whole=fate not in ("before", "torn"))
        if fate:  # "after": applied, then reported failure
            self.crash()
            return
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: ev.Effect) -> None:
        cluster, core = self.cluster, self.core
        if core is None:
            return
        match effect:
            case ev.Persist() | ev.CheckSpendStatement() | ev.Evaluate():
                pass  # stored before all else of its batch; nodes here claim no ε, and hold no student out
            case ev.Publish():
                cluster.observer.sent(self, effect.data)
                lies = self.lie.says(self, effect.data) if self.lie is not None and self.lie.says is not None else None
                cluster.broadcast(self, effect.data, effect.to, lies)
            case ev.Sync():
                cluster.sync(self, effect)
            case ev.SetTimer():
                delay = max(1, round(effect.delay / self.tempo))
                due = self.timers[effect.timer] = cluster.now + delay
                cluster.schedule(delay, self, lambda: self._fire(effect.timer, due))
            case ev.Pull():
                cluster.schedule(cluster.network.draw(cluster.random), self, lambda: self._pull(effect))
            case ev.Fold():
                self.later(0, self._fold(effect))
            case ev.FetchState():
                cluster.schedule(cluster.network.draw(cluster.random), self, lambda: self._take(effect))
            case ev.CheckBudget():
                self.later(0, _answer(effect, self.budget))
            case ev.Train():
                self._train(core, effect)
            case ev.Amended():
                self.later(0, self._configured(effect))
            case ev.OpenLearner():
                self.later(0, ev.LearnerReady((*core.hosted, *core.followed)))
            case ev.Erase():
                cluster.observer.erased(self, effect)
                for blob in effect.blobs:
                    self.store.blobs.pop(blob, None)
            case ev.Notice():
                self.notices.append(effect)
                cluster.observer.noticed(self, effect)
            case _:
                assert_never(effect)

    def _configured(self, effect: ev.Amended) -> ev.Configured:
        """As the daemon does."""
        self.options = options = self._holding(effect.charter.specs)
        return ev.Configured(options.hosted, options.followed, options.idle, options.plan.policies)

    def _train(self, core: NodeState, effect: ev.Train) -> None:
        if self.budget is not None and effect.run not in self.charged:
            self.charged.add(effect.run)
            self.budget.spend()
        if self.hung is not None:
            self.hung.append(effect)
            return
        if self.fails:
            self.later(0, ev.TrainingFailed(effect.run, self.fails))
            return
        blobs = {}
        for recipe in effect.recipes:
            spec = core.specs[recipe.component]
            values = values_of(core.me, recipe.component, recipe.round, spec)
            data = payload(core.federation, core.me, recipe.component, recipe.round, values)
            self.store.blobs[sha256(data)] = data
            blobs[recipe.component] = (sha256(data), len(data))
        took = self.cluster.random.randint(*(self.training or self.cluster.training))
        self.later(took, ev.Trained(effect.run, blobs))

    def wake_learner(self) -> None:
        """Its learner answers again, the waiting requests first."""
        asked, self.hung = self.hung or [], None
        for effect in asked:
            self._carry_out(effect)

    def _fire(self, timer: Timer, due: int) -> None:
        if self.timers.get(timer) == due:
            del self.timers[timer]
            self.deliver(ev.TimerFired(timer))

    def _pull(self, pull: ev.Pull) -> None:
        for other in self.cluster.nodes:
            data = other.store.blobs.get(pull.blob)
            if data is not None and other.core is not None and self.cluster.linked(self.index, other.index):
                if pull.header is not None and self.core is not None:
                    spec = self.core.specs[pull.header.component]
                    try:
                        least = least_lot(self.cluster.charter.learning)
                        check_norm(read_payload(data, pull.header, spec), pull.header, spec, least)
                    except RemoteProtocolError as error:
                        self.deliver(ev.BlobRefused(pull.blob, error.reason))
                        return
                self.store.blobs[pull.blob] = data
                self.deliver(ev.BlobStored(pull.blob))
                return
        self.deliver(ev.BlobRefused(pull.blob, "unavailable"))

    def _take(self, fetch: ev.FetchState) -> None:
        """Take a certified state from a member that can be reached and has it."""
        key = (fetch.component, fetch.chain)
        for other in self.cluster.nodes:
            state = other.kept.get(key)
            if state is not None and other.core is not None and self.cluster.reaches(self, other):
                if state_digest(fetch.component, state) != fetch.digest:
                    raise InvariantError("G1", f"a state of {fetch.component} is not the certified one")
                self.taken[key] = state
                self.deliver(ev.StateStored(*key))
                return
        self.deliver(ev.StateMissing(*key))

    def _fold(self, fold: ev.Fold) -> ev.Event:
        core = self.core
        assert core is not None
        spec = core.specs[fold.component]
        start, first = 0, origin(spec)
        for index, round_ in enumerate(fold.rounds if not fold.fresh else (), start=1):
            if (fold.component, round_.chain) in self.taken:
                start, first = index, self.taken[fold.component, round_.chain]
        todo = fold.rounds[start:]
        missing = tuple(e.blob for round_ in todo for e in round_.entries if e.blob not in self.store.blobs)
        if missing:
            return ev.FoldMissing(fold.component, missing)

        def values(entry: Entry) -> Integers:
            return payload_values(self.store.blobs[entry.blob], spec)

        state, saturated = replay(first, spec, todo, values)
        chain = fold.rounds[-1].chain if fold.rounds else NIL
        self.kept[fold.component, chain] = state
        for key in [kept for kept in self.kept if kept[0] == fold.component][:-KEPT_STATES]:
            del self.kept[key]
        digest = state_digest(fold.component, state)
        self.cluster.observer.folded(self, fold, digest)
        return ev.Folded(fold.component, fold.round, fold.generation, chain, digest, saturated)


class Cluster:
    """The nodes, the network between them, the clock, and the invariants."""

    def __init__(
        self,
        count: int,
        seed: int,
        observe: Callable[["Cluster"], Observer[Node]],
        *,
        network: NetworkConditions | None = None,
        training: tuple[int, int] = (5, 200),
        rounds: int = 5,
        disk: Disk | None = None,
        timing: Timing = Timing(400, 300, 500),  # noqa: B008 - it is frozen
        **charter: Unpack[CharterOptions],
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a simulation, labelled so
        self.network = network or NetworkConditions()
        self.training = training
        self.disk = disk or Disk()
        self.now = 0
        self.steps = 0
        self.progressed = True  # something was decided, folded, started or killed since the last check
        self._trace = hashlib.sha256()
        self.queue: list[_Item] = []
        self.numbers = 0
        self.cut_off: set[frozenset[int]] = set()
        self._by_key: dict[bytes, Node] = {}
        self.observer = observe(self)
        identities = [Identity.from_seed(sha256(f"node {seed} {n}".encode())) for n in range(count)]
        self.charter = small_charter(identities, **charter)
        names = tuple(spec.name for spec in self.charter.components)
        options = Options(
            hosted=names,
            plan=Plan(rounds=rounds),
            propose_ms=timing.propose_ms,
            idle_ms=timing.idle_ms,
            sync_ms=timing.sync_ms,
        )
        self.nodes = [Node(self, n, identity, replace(options)) for n, identity in enumerate(identities)]

    @property
    def federation(self) -> bytes:
        """The federation id of the charter in use."""
        return self.charter.federation

    # ---- running

    def schedule(self, delay: int, node: Node, action: Callable[[], None]) -> None:
        """Run an action in this life of a node after a delay."""
        self.numbers += 1
        heapq.heappush(self.queue, (self.now + delay, self.numbers, node.index, node.life, action))

    def at(self, delay: int, action: Callable[[], None]) -> None:
        """Do something after a delay, whatever becomes of any node."""
        self.numbers += 1
        heapq.heappush(self.queue, (self.now + delay, self.numbers, -1, 0, action))

    def witness(self, node: Node, what: ev.Event | bytes) -> None:
        """Add to the trace what happens to a node."""
        if isinstance(what, ev.Gossip | ev.SyncReply):
            what = type(what).__name__.encode() + what.peer + what.data
        elif not isinstance(what, bytes):
            what = repr(what).encode()
        self._trace.update(b"%d %d %d " % (self.now, node.index, len(what)) + what)

    @property
    def trace(self) -> str:
        """The digest of all that happened so far: equal runs have equal ones."""
        return self._trace.hexdigest()

    def start(self) -> None:
        """Start every node."""
        for node in self.nodes:
            node.start()

    def run(self, until: Callable[[], bool], limit_ms: int = 600_000) -> bool:
        """Run until the condition holds; False if virtual time ran out first."""
        while self.queue and self.now <= limit_ms:
            if until():
                return True
            self.now, _, node, life, action = heapq.heappop(self.queue)
            if node < 0 or self.nodes[node].life == life:
                action()
        return until()

    def all_closed(self, round_: int) -> bool:
        """Whether every living node has folded every component up to this round."""
        return all(
            node.core is None
            or all(
                node.core.folded.get(name, (0,))[0] >= round_ and node.core.ledger.components[name].round >= round_
                for name in node.core.held
                if not node.core.specs[name].is_statistic and name not in node.core.charter.retired
            )
            for node in self.nodes
        )

    # ---- network

    def linked(self, a: int, b: int) -> bool:
        """Whether two nodes can reach each other now."""
        return frozenset((a, b)) not in self.cut_off

    def node_of(self, key: bytes) -> Node | None:
        """Return the node with this key."""
        node = self._by_key.get(key)
        if node is None or node.identity.public_key != key:  # some have changed theirs
            self._by_key = {node.identity.public_key: node for node in self.nodes}
            node = self._by_key.get(key)
        return node

    def reaches(self, asker: Node, server: Node) -> bool:
        """Whether a node gets an answer of another one: it has to be, or have been, a member in the other's eyes."""
        if server.core is None or not self.linked(asker.index, server.index):
            return False
        return asker.identity.public_key in server.core.ledger.roll.seats

    def add(self, identity: Identity) -> Node:
        """Start one more node: a non-member until the members admit it."""
        options = replace(self.nodes[0].options)
        node = Node(self, len(self.nodes), identity, options)
        self.nodes.append(node)
        node.start()
        return node

    def broadcast(
        self, sender: Node, data: bytes, to: bytes | None = None, lies: list[tuple[int, bytes]] | None = None
    ) -> None:
        """Gossip to every other node, as the network allows; to one alone if it can be reached.

        `lies` are sent in place of it: (target's index, message).
        """
        key, network = sender.identity.public_key, self.network
        near = self.node_of(to) if to is not None else None
        same = ev.Gossip(key, data)
        for target in [near] if near is not None and self.linked(sender.index, near.index) else self.nodes:
            if target is sender or (self.cut_off and not self.linked(sender.index, target.index)):
                continue
            copies = [same]
            if lies is not None:
                copies = [ev.Gossip(key, lie) for index, lie in lies if index == target.index]
            for copy in copies:
                if network.loss and self.random.random() < network.loss:
                    continue
                for _ in range(2 if network.duplicate and self.random.random() < network.duplicate else 1):
                    target.later(network.draw(self.random) + sender.lag, copy)

    def sync(self, asker: Node, effect: ev.Sync) -> None:
        """Carry a sync request to a neighbour and its answer back."""
        server = self.node_of(effect.peer)
        if server is None or server.core is None or not self.reaches(asker, server):
            return
        if self.random.random() < self.network.loss:
            return
        request = schema.load(SyncRequest, effect.request, SyncRequest.LIMIT)
        ledger = server.core.ledger
        seat = ledger.roll.seats[asker.identity.public_key]
        upto = seat.until if seat.gone else None
        pending = in_flight_messages(server.core)
        data = answer(request, server.core.federation, server.store, ledger.members, pending, upto=upto)
        lie = server.lie
        for served in lie.serves(server, data) if lie is not None and lie.serves is not None else [data]:
            asker.later(2 * self.network.draw(self.random) + server.lag, ev.SyncReply(effect.peer, served))

    # ---- faults and invariants

    def crash_here(self, node: Node) -> str:
        """Decide whether this write is where the node is killed, and on which side of it."""
        if self.disk.crash and self.random.random() < self.disk.crash:
            self.schedule_restart(node)
            if self.disk.torn and self.random.random() < self.disk.torn:
                return "torn"
            return self.random.choice(("before", "after"))
        return ""

    def schedule_restart(self, node: Node) -> None:
        """Start a crashed node again after a while."""
        self.numbers += 1
        delay = self.random.randint(*self.disk.down)
        heapq.heappush(self.queue, (self.now + delay, self.numbers, node.index, node.life + 1, node.start))

    def lies(self, node: Node) -> bool:
        """Whether a node is a liar, for whose own records nothing is checked."""
        return node.lied

    def latest(self) -> Ledger | None:
        """The ledger of the honest node that is furthest; None if none runs."""
        cores = [node.core for node in self.honest() if node.core is not None]
        return max((core.ledger for core in cores), key=lambda ledger: ledger.height, default=None)

    def members(self) -> frozenset[bytes]:
        """Who is a member by that ledger; the founders, if none runs."""
        ledger = self.latest()
        return frozenset(ledger.members if ledger is not None else (member.key for member in self.charter.members))

    def honest(self) -> list[Node]:
        """The nodes that do not lie, running or not."""
        return [node for node in self.nodes if not self.lies(node)]
