"""The core's part in membership: what a node that goes no longer says, what it asks for, when motions are work."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from collegium.consensus.components import Entry, Round
from collegium.consensus.ledger import Certified, ComponentLedger
from collegium.crypto.hashing import sha256
from collegium.node.core import catchup
from collegium.node.core import events as ev
from collegium.node.core.catchup import sync_request
from collegium.node.core.core import handle
from collegium.node.core.messages import SyncRequest
from collegium.node.core.progress import Progress
from collegium.protocol import schema
from collegium.protocol.membership import Ballot
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.liars import append

LIMIT = 600_000


def run(cluster: Cluster, until: Callable[[], bool]) -> None:
    assert cluster.run(until, cluster.now + LIMIT)


def key(node: Node) -> bytes:
    return node.identity.public_key


def left(cluster: Cluster, node: Node) -> bool:
    return all(n.core is None or key(node) not in n.core.ledger.members for n in cluster.nodes)


@pytest.fixture
def grown() -> Cluster:
    """Four members, two rounds, and the last of them has left."""
    cluster = Cluster(4, 6, Invariants, rounds=2)
    cluster.start()
    run(cluster, lambda: cluster.all_closed(2))
    cluster.nodes[3].deliver(ev.ProposeMotion("leave", key(cluster.nodes[3]), b"", "", 100))
    run(cluster, lambda: left(cluster, cluster.nodes[3]))
    return cluster


def test_frozen_feeds_are_not_asked_for(grown: Cluster) -> None:
    """Else a federation in which 256 keys have come and gone could ask for nothing any more."""
    core = grown.nodes[0].core
    assert core is not None
    assert key(grown.nodes[3]) in core.ledger.heads
    request = schema.load(SyncRequest, sync_request(core), SyncRequest.LIMIT)
    assert {head.author for head in request.heads} == set(core.ledger.members)


def test_g6_who_has_left_publishes_nothing_that_was_still_training(grown: Cluster) -> None:
    node = grown.nodes[3]
    core = node.core
    assert core is not None
    draw = max((put.run for put in core.reservations), default=0)
    assert draw
    core.run = SimpleNamespace(number=draw, recipes=())  # type: ignore[assignment]  # as if it were under way
    effects = handle(core, [ev.Trained(draw, {"head/task0": (sha256(b"x"), 3)})], grown.now)
    assert not [effect for effect in effects if isinstance(effect, ev.Publish | ev.Persist)]
    assert handle(core, [ev.RequestWithdrawal()], grown.now)
    assert not [r for r in core.pool.chain(core.me, core.ledger.heads) if r.value.kind == "withdrawal"]


def test_records_of_who_left_are_forgotten(grown: Cluster) -> None:
    core = grown.nodes[0].core
    assert core is not None
    assert key(grown.nodes[3]) not in core.pool.by_seq


def test_a_motion_does_not_wait_for_a_slow_round() -> None:
    """A round's deadline may be days; that is no reason to keep a lost member in so long."""
    cluster = Cluster(5, 3, Invariants, rounds=3, deadline=86_400_000)
    cluster.start()
    run(cluster, lambda: cluster.all_closed(1))
    lost = cluster.nodes[4]
    lost.crash()
    cluster.run(lambda: False, cluster.now + 10_000)
    started = cluster.now
    core = cluster.nodes[3].core
    assert core is not None
    cluster.nodes[0].deliver(ev.ProposeMotion("expel", key(lost), b"", "", 100))
    run(cluster, lambda: all(n.core is None or n.core.ledger.roll.motions for n in cluster.nodes))
    for node in cluster.nodes[1:4]:
        node.deliver(ev.Cast(core.ledger.roll.motions[0].digest, True))
    run(cluster, lambda: left(cluster, lost))
    assert cluster.now - started < 60_000
    run(
        cluster, lambda: all(n.core is None or n.core.ledger.components["head/task0"].round == 3 for n in cluster.nodes)
    )


def test_g9_inert_motions_close_no_more_heights_than_any_record() -> None:
    """A liar may write them without end; each of them would be a block of its own."""

    def heights(lie: str) -> int:
        cluster = Cluster(4, 3, Invariants, rounds=1)
        cluster.start()
        run(cluster, lambda: cluster.all_closed(1))
        liar, core = cluster.nodes[3], cluster.nodes[0].core
        assert core is not None
        before = core.ledger.height
        liar.lied = True
        for n in range(100):
            body = schema.dump(Ballot(sha256(b"no motion %d" % n), 1)) if lie == "ballot" else b"\xa0"
            record = append(liar, lie, body)
            assert record is not None
            cluster.broadcast(liar, record)
            cluster.run(lambda: False, cluster.now + 100)
        return core.ledger.height - before

    assert heights("ballot") <= heights("noise") + 1


def test_g3_a_host_that_was_cut_off_offers_again_by_itself() -> None:
    cluster = Cluster(5, 9, Invariants, rounds=40, training=(200, 600))
    cluster.start()
    run(cluster, lambda: cluster.all_closed(1))
    silent = cluster.nodes[4]
    cluster.cut_off = {frozenset((4, n)) for n in range(4)}
    core = cluster.nodes[0].core
    assert core is not None
    run(cluster, lambda: key(silent) not in core.ledger.offers)
    cluster.cut_off = set()
    for node in cluster.nodes[:4]:
        node.deliver(ev.PeerUp(key(silent)))
        silent.deliver(ev.PeerUp(key(node)))
    run(cluster, lambda: key(silent) in core.ledger.offers)
    run(cluster, lambda: key(silent) in core.ledger.components["head/task0"].hosts)


# ---- which states are taken


def component(rounds: int, certified: int | None) -> ComponentLedger:
    made = tuple(
        Round(n, n, (Entry(sha256(b"u%d" % n), sha256(b"a"), sha256(b"b%d" % n), 1, 0, 1),), 0, sha256(b"c%d" % n))
        for n in range(1, rounds + 1)
    )
    state = None if certified is None else Certified(certified, 0, sha256(b"state"))
    hosts = tuple(sha256(b"h%d" % n) for n in range(4))
    return replace(ComponentLedger("x"), round=rounds, rounds=made, certified=state, hosts=hosts)


def asked(c: ComponentLedger, missing: int, **facts: Any) -> list[ev.FetchState]:
    """What a node asks for that lacks the bytes of the first so many rounds."""
    bodies: list[ev.FetchState] = []
    core: Any = SimpleNamespace(
        ledger=SimpleNamespace(certifiable=lambda _: facts.get("certifiable", True)),
        doubted=facts.get("doubted", set()),
        halted=facts.get("halted", set()),
        progress=facts.get("progress", Progress()),
        me=sha256(b"h0"),
        notice=lambda *_, **__: None,
        emit=bodies.append,
    )
    blobs = [entry.blob for round_ in c.rounds[:missing] for entry in round_.entries]
    assert catchup.take_state(core, c, blobs) == bool(bodies)
    return bodies


def test_the_certified_state_is_taken_in_place_of_a_long_history() -> None:
    (fetch,) = asked(component(20, 19), 20)
    assert (fetch.component, fetch.chain, fetch.digest) == ("x", sha256(b"c19"), sha256(b"state"))
    assert sha256(b"h0") not in fetch.sources


@pytest.mark.parametrize(
    ("c", "missing", "facts"),
    [
        pytest.param(component(20, 19), catchup.REPLAYED, {}, id="a few rounds are replayed"),
        pytest.param(component(20, None), 20, {}, id="nothing is certified"),
        pytest.param(replace(component(20, 19), generation=1), 20, {}, id="certified before a withdrawal"),
        pytest.param(component(20, 19), 20, {"certifiable": False}, id="too few hosts"),
        pytest.param(component(20, 19), 20, {"doubted": {"x"}}, id="this node differed: from the bytes"),
        pytest.param(component(20, 19), 20, {"halted": {"x"}}, id="this node still differs: an operator's act"),
        pytest.param(component(20, 19), 20, {"progress": Progress(tried={"x": sha256(b"c19")})}, id="nobody has it"),
    ],
)
def test_otherwise_it_is_computed_from_the_bytes(c: ComponentLedger, missing: int, facts: dict[str, Any]) -> None:
    assert not asked(c, missing, **facts)


def test_a_newer_certified_state_is_tried_after_an_older_one_was_gone() -> None:
    progress = Progress(tried={"x": sha256(b"c18")})
    assert asked(component(20, 19), 20, progress=progress)
