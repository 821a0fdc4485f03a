"""G7 on a home that has forgotten who is left out: it trains nothing until its operator has mended that."""

import copy

import pytest

from collegium.consensus import trainers
from collegium.node.core import events as ev
from collegium.node.core.core import handle, load_node
from collegium.node.core.messages import Kind, message
from collegium.protocol import schema
from collegium.protocol.records import PAUSED, Record, Scope, Withdrawal, WithdrawalStatement
from collegium.protocol.signing import sign
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.memory import MemoryStore

from .test_core import core_of, key
from .test_withdrawn_training import published, training

ROUNDS = 30
HEAD = "head/task0"


def trained_by(node: Node) -> int:
    """The last round for which a node has made an update."""
    return max((slot[2] for slot in core_of(node).acked if slot[0] == key(node)), default=0)


def put_back(scope: Scope, before: bool) -> tuple[Cluster, Node]:
    """A cluster whose last node withdrew its first update or everything, and whose disk was then lost, or set back."""
    cluster = Cluster(4, 7, Invariants, rounds=ROUNDS)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    node = cluster.nodes[3]
    old = copy.deepcopy(node.store) if before else MemoryStore()
    own = [h.digest for h in node.store.snapshot().headers if h.value.author == key(node)]
    node.deliver(ev.RequestWithdrawal(scope, updates=tuple(own[:1]) if scope == "updates" else ()))
    others = [core_of(member) for member in cluster.nodes[:3]]
    assert cluster.run(lambda: all(core.ledger.withdrawn for core in others))
    node.crash()
    node.store = old
    node.start()
    assert cluster.run(lambda: core_of(node).signing)
    return cluster, node


@pytest.mark.parametrize("before", [True, False], ids=["set-back", "lost"])
def test_g7_a_home_that_forgot_a_removal_trains_nothing_until_it_is_told_to(before: bool) -> None:
    cluster, node = put_back("updates", before)
    last, closed = trained_by(node), core_of(cluster.nodes[0]).ledger.components["head/task0"].round
    assert core_of(node).removals_unknown
    first = core_of(cluster.nodes[0])
    asked = cluster.run(lambda: trainers.idle(first.ledger.offers, key(node), HEAD) == PAUSED)
    assert asked, "the others need not wait until they suspend it"
    assert cluster.run(lambda: core_of(cluster.nodes[0]).ledger.components["head/task0"].round > closed + 3)
    assert trained_by(node) == last, "the others go on without it"
    node.crash()
    node.start()
    assert core_of(node).removals_unknown, "a restart changes nothing of that"
    node.deliver(ev.ResumeTraining())
    assert cluster.run(lambda: trained_by(node) > last)
    assert not load_node(cluster.charter, node.identity, node.options, node.store.snapshot()).removals_unknown


def test_g7_a_run_under_way_is_dropped_when_a_forgotten_removal_comes_to_light() -> None:
    """It began before the only member who has the record was back, and may have drawn the removed student."""
    cluster, core, trained = training()
    rounds = core.ledger.components[HEAD].rounds
    own = tuple(entry.update for entry in rounds[0].entries if entry.author == core.me)
    seq, head = core.head
    terms = WithdrawalStatement(core.federation, core.me, "updates", "refold", seq, updates=own)
    body = schema.dump(Withdrawal(sign(core.identity, terms).wire))
    record = sign(core.identity, Record(core.federation, core.me, seq + 1, head, "withdrawal", body))
    handle(core, [ev.Gossip(key(cluster.nodes[1]), message(Kind.RECORD, record.wire))], cluster.now)
    assert core.removals_unknown
    assert published(handle(core, [trained], cluster.now)) == []


def test_g7_who_withdrew_everything_contributes_nothing_after_its_disk_was_set_back() -> None:
    cluster, node = put_back("all", before=True)
    last, closed = trained_by(node), core_of(cluster.nodes[0]).ledger.components["head/task0"].round
    assert cluster.run(lambda: core_of(cluster.nodes[0]).ledger.components["head/task0"].round > closed + 2)
    assert trained_by(node) == last
    assert not core_of(node).contributing


def test_g7_a_disk_that_knows_of_its_own_withdrawal_trains_on() -> None:
    cluster = Cluster(4, 7, Invariants, rounds=ROUNDS)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    node = cluster.nodes[3]
    own = [h.digest for h in node.store.snapshot().headers if h.value.author == key(node)]
    node.deliver(ev.RequestWithdrawal("updates", updates=tuple(own[:1])))
    assert cluster.run(lambda: bool(core_of(node).ledger.withdrawn))
    last = trained_by(node)
    node.crash()
    node.start()
    assert cluster.run(lambda: trained_by(node) > last)
    assert not core_of(node).removals_unknown
