"""The strictest of charter and institution is in force (G6): a node whose policy is stricter does not train."""

from dataclasses import replace

import pytest

from collegium.node.core.contribution import Plan, forbidden, least_delta
from collegium.sims.cluster import Cluster
from collegium.sims.memory import MemoryStore


def trained(cluster: Cluster, index: int) -> int:
    return len(cluster.nodes[index].store.draws)


@pytest.mark.parametrize(("policy", "noise", "trains"), [("open", 0, True), ("dp", 0, False), ("never", 0, False)])
def test_g6_a_stricter_institution_does_not_train(policy: str, noise: int, trains: bool) -> None:
    cluster = Cluster(4, 3, rounds=2, noise=noise)
    node = cluster.nodes[0]
    node.options = replace(node.options, plan=replace(node.options.plan, policy=policy))
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    assert (trained(cluster, 0) > 0) is trains
    assert trained(cluster, 1) > 0
    told = [notice for notice in node.notices if notice.event == "training-forbidden"]
    assert bool(told) is not trains


def test_the_smaller_delta_counts() -> None:
    charter = Cluster(2, 0).charter
    assert least_delta(charter, Plan(delta=7)) == 7
    assert forbidden(Plan(policy="open"), charter, charter.components) == ""


def test_g6_a_node_whose_disk_was_lost_learns_from_its_own_updates_what_it_spent() -> None:
    cluster = Cluster(4, 4, rounds=4, noise=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(4))
    node = cluster.nodes[0]
    spent = sum(put.draws.count for put in node.store.draws)
    assert spent == 4 * cluster.charter.learning.steps
    node.crash()
    node.store = MemoryStore()
    node.start()
    assert cluster.run(lambda: cluster.all_closed(4), 1_200_000)
    assert sum(put.draws.count for put in node.store.draws) == spent
