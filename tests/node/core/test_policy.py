"""The strictest of charter and institution is in force (G6): a node whose policy is stricter does not train."""

import pytest

from collegium.node.core.contribution import Plan, forbidden, least_delta
from collegium.sims.cluster import Cluster


def trained(cluster: Cluster, index: int) -> int:
    return len(cluster.nodes[index].store.draws)


@pytest.mark.parametrize(("policy", "noise", "trains"), [("open", 0, True), ("dp", 0, False), ("never", 0, False)])
def test_g6_a_stricter_institution_does_not_train(policy: str, noise: int, trains: bool) -> None:
    cluster = Cluster(4, 3, rounds=2, noise=noise)
    node = cluster.nodes[0]
    from dataclasses import replace

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
