"""A host that differs from the certified state computes it again, and halts if it still differs (G1)."""

from dataclasses import replace
from typing import Any

import pytest

from collegium.node.core import events as ev
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants


def broken(cluster: Cluster, index: int, lies: int) -> Any:
    """Make a node's fold go wrong from round 2 on, `lies` times in all."""
    node = cluster.nodes[index]
    honest = node._fold
    left = [lies]

    def fold(effect: ev.Fold) -> ev.Event:
        event = honest(effect)
        if isinstance(event, ev.Folded) and effect.round >= 2 and left[0]:
            left[0] -= 1
            return replace(event, digest=bytes(32))
        return event

    node._fold = fold  # type: ignore[method-assign, assignment]
    return node


def told(node: Any, event: str) -> int:
    return sum(notice.event == event for notice in node.notices)


@pytest.mark.parametrize("seed", range(3))
def test_g1_a_host_that_keeps_differing_halts_once_and_loudly(seed: int) -> None:
    cluster = Cluster(4, seed, Invariants, rounds=12)
    cluster.observer.alarms = set()
    node = broken(cluster, 3, lies=10_000)
    cluster.start()
    others = cluster.nodes[:3]
    assert cluster.run(
        lambda: all(n.core is not None and n.core.ledger.components["head/task0"].round >= 12 for n in others)
    )
    assert told(node, "state-differs") == 1
    assert told(node, "component-halted") == 1
    assert node.core is not None
    assert "head/task0" in node.core.halted
    assert len(node.store.reservations) < 12  # it spends no more of its students' ε on a state that is not the others'


@pytest.mark.parametrize("seed", range(3))
def test_g1_a_host_that_was_wrong_once_mends_itself(seed: int) -> None:
    cluster = Cluster(4, seed, Invariants, rounds=8)
    cluster.observer.alarms = {"component-halted"}
    node = broken(cluster, 3, lies=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(8))
    assert told(node, "state-differs") == 1
    assert told(node, "state-mended") == 1
