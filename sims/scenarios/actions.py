"""The actions of scenarios: `do = "crash"` and the like, each with its keys.

An action returns how to undo it, if it can last (`for`, `until`). Add one to ACTIONS and the loader accepts it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from ...consensus.ledger import Ledger
from ...consensus.membership import action_of
from ...crypto.hashing import sha256
from ...crypto.identity import Identity
from ...node import toml
from ...node.core import events as ev
from ...node.core.motions import undecided
from ...node.core.state import NodeState
from ...node.privacy.policy import INSTITUTION, InForce
from ...protocol import schema
from ...protocol.blocks import quorum
from ...protocol.membership import Application, Rekeying, token_digest
from ...protocol.records import MODES, SCOPES
from ...protocol.signing import sign
from ..simulator.cluster import Budget, Node
from ..simulator.liars import LIES
from ..simulator.memory import MemoryStore
from ..simulator.promise import InvariantError
from . import amending
from . import reading as read
from .stage import Stage

More = Mapping[str, object]
Undo = Callable[[], None]
MOTION_HEIGHTS = 1000
LOOK_MS = 100
NETWORK: Mapping[str, toml.Check[Any]] = {
    "delay": read.span(0, 60_000),
    "loss": toml.between(0.0, 0.9),  # of more, nothing may ever arrive
    "duplicate": read.share,
    "reorder": read.share,
    "late": read.span(0, 600_000),
    "spread": toml.between(0.0, 5.0),
}


@dataclass(frozen=True, slots=True)
class Action:
    """`run(stage, nodes, keys)`. `whom`: whether it is done to nodes; `needs`: the keys that must be there."""

    about: str
    run: Callable[[Stage, Sequence[Node], More], Undo | None]
    keys: Mapping[str, toml.Check[Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    whom: bool = True
    lasts: bool = True


def _partition(stage: Stage, nodes: Sequence[Node], more: More) -> Undo:
    cluster = stage.cluster
    here = {node.index for node in nodes}
    rest = [node for node in cluster.nodes if node.index not in here]
    cut = {frozenset((node.index, other.index)) for node in nodes for other in rest}
    cluster.cut_off |= cut
    stage.cuts.append(cut)
    if more.get("noticed"):
        _tell(nodes, rest, ev.PeerDown)
    ledger, members = cluster.latest(), cluster.members()
    most = 1 if ledger is None else ledger.height + 1  # votes on their way may still decide one
    needed = quorum(len(members), cluster.charter.rules.fault_model)
    sides = [[node for node in side if node.identity.public_key in members] for side in (nodes, rest)]
    lost = [side for side in sides if len(side) < needed]

    def undo() -> None:
        for side in lost:
            for node in side:
                if not node.lied and node.store.height() > most:
                    raise InvariantError("G2", f"node {node.index} went on to {node.store.height()} without a quorum")
        stage.stopped += len(lost)
        stage.cuts = [other for other in stage.cuts if other is not cut]
        cluster.cut_off -= cut.difference(*stage.cuts)  # another partition may still part some of them
        if more.get("noticed"):
            _tell(nodes, rest, ev.PeerUp)

    return undo


def _tell(nodes: Sequence[Node], rest: Sequence[Node], event: type[ev.PeerUp | ev.PeerDown]) -> None:
    for node in nodes:
        for other in rest:
            if event is ev.PeerDown or (node.core is not None and other.core is not None):
                node.deliver(event(other.identity.public_key))
                other.deliver(event(node.identity.public_key))


def _heal(stage: Stage, _nodes: Sequence[Node], _more: More) -> None:
    stage.cluster.cut_off.clear()
    stage.cuts.clear()


def _crash(stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    for node in nodes:
        node.crash()
        node.stays_down = True
    return lambda: _start(stage, nodes, {})


def _start(_stage: Stage, nodes: Sequence[Node], _more: More) -> None:
    for node in nodes:
        if node.core is not None:
            node.crash()
        node.start()


def _lose(stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    for node in nodes:
        node.crash()
        node.stays_down = True
        node.store = MemoryStore()
        stage.cluster.observer.set_back(node)
    return lambda: _start(stage, nodes, {})


def _backup(stage: Stage, nodes: Sequence[Node], _more: More) -> None:
    for node in nodes:
        stage.backups[node.index] = copy.deepcopy(node.store)


def _restore(stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    for node in nodes:
        node.crash()
        node.stays_down = True
        node.store = copy.deepcopy(stage.backups.get(node.index) or MemoryStore())
        stage.cluster.observer.set_back(node)
    return lambda: _start(stage, nodes, {})


def _withdraw(stage: Stage, nodes: Sequence[Node], more: More) -> None:
    if more.get("by_motion") or more.get("mode") == "rewind":
        for node in nodes:
            _propose_withdrawal(stage, node.identity.public_key, more)
    elif more.get("scope", "all") != "all":
        for node in nodes:
            _withdraw_part(stage, node, more)
    else:
        stage.withdrawn.update(node.index for node in nodes)
        for node in nodes:
            node.deliver(ev.RequestWithdrawal())


def _open(core: NodeState) -> ev.RequestWithdrawal | None:
    """Return the request for a node's own updates for the open rounds, or None: as of a student whom only they saw."""
    components = core.ledger.components
    names = {u.header.digest for u in core.in_flight.of(core.me) if u.header.value.round > components[u.key[1]].round}
    return ev.RequestWithdrawal("updates", updates=tuple(sorted(names))) if names else None


def _scope(ledger: Ledger, key: bytes, more: More) -> ev.RequestWithdrawal | None:
    """Return the scope: of the first component in which an update of this key counts, or None."""
    for name, c in sorted(ledger.components.items()):
        counted = [(r.number, e.update) for r in c.rounds for e in r.entries if e.author == key]
        if not counted:
            continue
        scope = SCOPES[str(more.get("scope", "all"))]  # reading the scenario has checked it
        match scope:
            case "all":
                return ev.RequestWithdrawal()
            case "components":
                return ev.RequestWithdrawal("components", (name,))
            case "rounds":
                return ev.RequestWithdrawal("rounds", (name,), counted[0][0], counted[-1][0])
            case "updates":
                return ev.RequestWithdrawal("updates", updates=tuple(sorted(update for _, update in counted[-2:])))
            case _:
                assert_never(scope)
    return None


def _withdraw_part(stage: Stage, node: Node, more: More) -> None:
    before = sum(record.value.kind == "withdrawal" for record in node.store.records.values())

    def signed() -> bool:
        if sum(record.value.kind == "withdrawal" for record in node.store.records.values()) > before:
            return True
        if node.core is not None and node.core.signing:
            asked = _open(node.core) if more.get("open") else _scope(node.core.ledger, node.core.me, more)
            if asked is not None:
                node.deliver(asked)
                return bool(more.get("open"))
        return False

    stage.until(signed, LOOK_MS)


def _propose_withdrawal(stage: Stage, key: bytes, more: More) -> None:
    mode = MODES[str(more.get("mode", "refold"))]
    action = action_of(mode)

    def nudge() -> bool:
        nodes = [(node, node.core) for node in stage.members() if node.core is not None]
        if any(w.author == key and w.motion and w.mode == mode for _, core in nodes for w in core.ledger.withdrawn):
            return True
        proposers = [(node, core) for node, core in nodes if core.me != key]
        for node, core in proposers[:1]:
            asked = _scope(core.ledger, key, more)
            if asked is not None and not any((m.action, m.subject) == (action, key) for m in core.ledger.roll.motions):
                terms = asked.terms(core.federation, key, mode, core.ledger.heads.get(key, (0, b""))[0])
                node.deliver(ev.ProposeMotion(action, key, schema.dump(terms), "", MOTION_HEIGHTS))
        for node, core in nodes:
            for motion in undecided(core.ledger, core.me):
                if (motion.action, motion.subject) == (action, key):
                    node.deliver(ev.Cast(motion.digest, True))
        return False

    stage.until(nudge, LOOK_MS)


def _leave_off(_stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    def contribute(on: bool) -> None:
        for node in nodes:
            node.deliver(ev.SetContributing(on))

    contribute(False)
    return lambda: contribute(True)


def _slow(_stage: Stage, nodes: Sequence[Node], more: More) -> Undo:
    before = [(node.training, node.lag) for node in nodes]
    for node in nodes:
        if "training" in more:
            node.training = more["training"]  # type: ignore[assignment]  # checked when the scenario was read
        node.lag = int(str(more.get("lag", node.lag)))

    def undo() -> None:
        for node, (training, lag) in zip(nodes, before, strict=True):
            node.training, node.lag = training, lag

    return undo


def _clock(_stage: Stage, nodes: Sequence[Node], more: More) -> Undo:
    for node in nodes:
        node.set_clock(float(str(more.get("tempo", node.tempo))), int(str(more.get("jump", 0))))

    def undo() -> None:
        for node in nodes:
            node.set_clock(1.0)

    return undo


def _lie(_stage: Stage, nodes: Sequence[Node], more: More) -> Undo:
    for node in nodes:
        node.tell_lies(LIES[str(more["lie"])])

    def undo() -> None:
        for node in nodes:
            node.tell_lies(None)

    return undo


def _network(stage: Stage, _nodes: Sequence[Node], more: More) -> Undo:
    before = stage.cluster.network
    stage.cluster.network = replace(before, **more)  # type: ignore[arg-type]  # checked when the scenario was read

    def undo() -> None:
        stage.cluster.network = before

    return undo


def _break_learner(_stage: Stage, nodes: Sequence[Node], more: More) -> Undo:
    for node in nodes:
        node.fails = str(more.get("reason", "the worker answered nonsense"))

    def undo() -> None:
        for node in nodes:
            node.fails = ""

    return undo


def _hang_learner(_stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    for node in nodes:
        node.hung = []

    def undo() -> None:
        for node in nodes:
            node.wake_learner()

    return undo


def _no_data(stage: Stage, nodes: Sequence[Node], _more: More) -> Undo:
    def restart(why: str) -> None:
        for node in nodes:
            node.options = replace(node.options, idle=why)
        _start(stage, nodes, {})

    restart("no-data")
    return lambda: restart("")


def _spend_budget(_stage: Stage, nodes: Sequence[Node], more: More) -> None:
    for node in nodes:
        node.budget = Budget(int(str(more.get("left", 0))), int(str(more.get("reserve", 0))))


def _join(stage: Stage, _nodes: Sequence[Node], more: More) -> None:
    for _ in range(int(str(more.get("count", 1)))):
        number = len(stage.cluster.nodes)
        newcomer = Identity.from_seed(sha256(f"newcomer {stage.seed} {number}".encode()))
        stage.cluster.add(newcomer)
        key, token = newcomer.public_key, token_digest(sha256(b"door"))
        application = Application(stage.cluster.federation, key, f"newcomer-{number}", (), token)
        stage.insist(ev.ProposeMotion("admit", key, sign(newcomer, application).wire, "", MOTION_HEIGHTS))


def _leave(stage: Stage, nodes: Sequence[Node], _more: More) -> None:
    for node in nodes:
        stage.insist(ev.ProposeMotion("leave", node.identity.public_key, b"", "", MOTION_HEIGHTS), proposer=node)


def _expel(stage: Stage, nodes: Sequence[Node], _more: More) -> None:
    for node in nodes:
        stage.insist(ev.ProposeMotion("expel", node.identity.public_key, b"", "", MOTION_HEIGHTS))


def _rekey(stage: Stage, nodes: Sequence[Node], more: More) -> None:
    for node in nodes:
        _take_key(stage, node, lost=bool(more.get("lost")))


def _take_key(stage: Stage, node: Node, *, lost: bool) -> None:
    """As the daemon does it: the new key's holder restarts as soon as its own ledger has it as a member."""
    old = node.identity.public_key
    new = Identity.from_seed(sha256(b"new key after " + old))
    statement = sign(new, Rekeying(stage.cluster.federation, new.public_key, old)).wire
    if lost:
        _lose(stage, [node], {})
        node.identity = new
        node.start()

    def taken() -> bool:
        if node.core is None or new.public_key not in node.core.ledger.members:
            return False
        node.crash()
        node.identity = new
        node.start()
        return True

    stage.insist(ev.ProposeMotion("rekey", old, statement, "", MOTION_HEIGHTS), proposer=None if lost else node)
    stage.until(taken, LOOK_MS)


def _amend(stage: Stage, nodes: Sequence[Node], more: More) -> None:
    for node in nodes:
        amending.insist(stage, node, str(more["what"]))


def _own_policy(_stage: Stage, nodes: Sequence[Node], _more: More) -> None:
    """Let them have a policy of their own: noise, whatever the charter says. They start again with it."""
    for node in nodes:
        policies = (InForce("made-up", "dp", 2**31, 10_000, (INSTITUTION, INSTITUTION, INSTITUTION)),)
        node.options = replace(node.options, plan=replace(node.options.plan, policies=policies))
    _start(_stage, nodes, {})


ACTIONS: dict[str, Action] = {
    "amend": Action(
        "they propose to amend the charter (`what`), and the others vote for it, until it is in force",
        _amend,
        {"what": toml.one_of(*amending.KINDS)},
        ("what",),
        lasts=False,
    ),
    "own-policy": Action("their own policy asks for noise; they start again with it", _own_policy, lasts=False),
    "partition": Action(
        "cut these off from the others; with noticed = true the connections are seen to break",
        _partition,
        {"noticed": toml.flag},
    ),
    "heal": Action("all can reach all again", _heal, whom=False, lasts=False),
    "crash": Action("kill -9; they stay down until `for` or `until` has passed, or a start", _crash),
    "start": Action("start, or restart, from what is on disk", _start, lasts=False),
    "lose": Action("kill them, and their disks are empty when they start again; the key is left", _lose),
    "backup": Action("keep a copy of their disks", _backup, lasts=False),
    "restore": Action("kill them, and their disks are the last backup when they start again", _restore),
    "withdraw": Action(
        "they withdraw their contributions, or a part (`scope`; open = true: their updates for the open rounds);"
        " by_motion = true, mode = rewind: others propose it",
        _withdraw,
        {
            "scope": toml.one_of(*SCOPES),
            "open": toml.flag,
            "mode": toml.one_of(*MODES),
            "by_motion": toml.flag,
        },
        lasts=False,
    ),
    "leave-off": Action("they contribute nothing", _leave_off),
    "slow": Action(
        "they train for `training` milliseconds, and whatever they send takes `lag` more",
        _slow,
        {"training": read.span(0, 3_600_000), "lag": toml.whole(0, 600_000)},
    ),
    "clock": Action(
        "their clocks run `tempo` times as fast, and first jump by `jump` milliseconds",
        _clock,
        {"tempo": toml.between(0.01, 100.0), "jump": toml.whole(-(10**9), 10**9)},
    ),
    "lie": Action("they lie: `lie` names how (liars.py)", _lie, {"lie": toml.one_of(*LIES)}, ("lie",)),
    "network": Action("the network changes: the keys of [network]", _network, NETWORK, whom=False),
    "break-learner": Action("their training fails", _break_learner, {"reason": read.text}),
    "hang-learner": Action(
        "their learner answers no more, so they say that they train and send nothing", _hang_learner
    ),
    "no-data": Action("they start again without a data folder: they host and train nothing", _no_data),
    "join": Action(
        "`count` newcomers apply, one member proposes each, and the others vote for them",
        _join,
        {"count": toml.whole(1, 64)},
        whom=False,
        lasts=False,
    ),
    "leave": Action("they leave the federation", _leave, lasts=False),
    "expel": Action("a member proposes to expel them, and the others vote for it", _expel, lasts=False),
    "rekey": Action(
        "they replace their key by themselves; with lost = true key and disk are gone, and the others vote for it",
        _rekey,
        {"lost": toml.flag},
        lasts=False,
    ),
    "spend-budget": Action(
        "their accountant allows no training run any more, or `left`, and `reserve` more in recovery rounds",
        _spend_budget,
        {"left": toml.whole(0, 10_000), "reserve": toml.whole(0, 10_000)},
        lasts=False,
    ),
}
