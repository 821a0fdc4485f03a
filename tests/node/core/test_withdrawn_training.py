"""An update whose author withdraws, or is withdrawn, while it trains: it is never published (G7)."""

from dataclasses import replace

import pytest

from collegium.consensus import withdrawal
from collegium.crypto.hashing import sha256
from collegium.node.core import events as ev
from collegium.node.core.core import handle
from collegium.node.core.messages import Kind
from collegium.node.core.state import NodeState
from collegium.protocol.records import WithdrawalStatement
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants


def training() -> tuple[Cluster, NodeState, ev.Trained]:
    """A cluster, a member of it that is at a draw of which the cost is booked, and the learner's answer."""
    cluster = Cluster(4, 3, Invariants, rounds=6)
    cluster.start()
    core = cluster.nodes[0].core
    assert core is not None
    cluster.run(
        lambda: (
            core.ledger.components["head/task0"].round >= 1
            and core.run is not None
            and any(put.run == core.run.number for put in core.reservations)
        )
    )
    assert core.run is not None
    blobs = {recipe.component: (sha256(recipe.component.encode()), 130) for recipe in core.run.recipes}
    return cluster, core, ev.Trained(core.run.number, blobs)


def published(effects: list[ev.Effect]) -> list[ev.Effect]:
    """Headers that are sent, and those that are kept to be sent."""
    sent = [e for e in effects if isinstance(e, ev.Publish) and e.data[0] == Kind.HEADER]
    kept = [e for e in effects if isinstance(e, ev.Persist) and isinstance(e.put, ev.PutHeader)]
    return [*sent, *kept]


def test_what_is_trained_is_published_where_nobody_withdraws() -> None:
    cluster, core, trained = training()
    assert len(published(handle(core, [trained], cluster.now))) == 2 * len(trained.blobs)


def test_g7_an_author_that_withdraws_while_it_trains_publishes_nothing() -> None:
    cluster, core, trained = training()
    asked = handle(core, [ev.RequestWithdrawal()], cluster.now)
    assert not core.contributing
    assert published(asked) == published(handle(core, [trained], cluster.now)) == []


@pytest.mark.parametrize("mode", ["refold", "rewind"])
def test_g7_an_author_that_the_others_withdraw_while_it_trains_publishes_nothing(mode: str) -> None:
    """It goes on contributing: only what stands in the ledger keeps this update back."""
    cluster, core, trained = training()
    terms = WithdrawalStatement(cluster.charter.federation, core.me, "all", mode, 2**30)
    gone = withdrawal.placed(core.charter, core.ledger, terms, core.ledger.height, core.me)
    core.ledger = replace(core.ledger, withdrawn=(gone,))
    assert core.contributing
    assert published(handle(core, [trained], cluster.now)) == []
