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


def test_g7_an_update_that_was_withdrawn_before_it_was_posted_does_not_come_back_with_a_restart() -> None:
    """Its header is on the disk, and no acknowledgement of another host yet."""
    cluster, core, trained = training()
    node = cluster.nodes[0]
    before = set(core.in_flight)
    node.deliver(trained)
    mine = {update for update in core.in_flight if update not in before}
    assert mine <= {header.digest for header in node.store.snapshot().headers}
    assert len(mine) == len(trained.blobs)
    node.deliver(ev.RequestWithdrawal("updates", updates=tuple(sorted(mine))))
    node.crash()
    node.start()
    assert node.core is not None
    assert not mine & set(node.core.in_flight)


@pytest.mark.parametrize("case", ["open", "closed since", "a statistic"])
def test_only_an_open_round_is_given_up(case: str) -> None:
    """An own update that is taken back before it is posted: the others learn of it where they may wait for another."""
    cluster, core, trained = training()
    handle(core, [trained], cluster.now)
    mine = {u.header.digest: u.header.value for u in core.in_flight.of(core.me) if not u.posted}
    (name,) = {value.component for value in mine.values()}
    component = core.ledger.components[name]
    if case == "closed since":
        later = {**core.ledger.components, name: replace(component, round=component.round + 1)}
        core.ledger = replace(core.ledger, components=later)
    if case == "a statistic":
        core.specs = {**core.specs, name: replace(core.specs[name], rule="sum")}
    handle(core, [ev.RequestWithdrawal("updates", updates=tuple(sorted(mine)))], cluster.now)
    records = [r.value for r in core.pool.chain(core.me, core.ledger.heads) if r.value.kind == "withdrawal"]
    assert len(records) == (1 if case == "open" else 0)


@pytest.mark.parametrize("mode", ["refold", "rewind"])
def test_g7_an_author_that_the_others_withdraw_while_it_trains_publishes_nothing(mode: str) -> None:
    """It goes on contributing: only what stands in the ledger keeps this update back."""
    cluster, core, trained = training()
    terms = WithdrawalStatement(cluster.charter.federation, core.me, "all", mode, 2**30)
    gone = withdrawal.placed(core.charter, core.ledger, terms, core.ledger.height, core.me)
    core.ledger = replace(core.ledger, withdrawn=(gone,))
    assert core.contributing
    assert published(handle(core, [trained], cluster.now)) == []


def test_g6_what_is_trained_after_a_withdrawal_is_a_new_training_run_and_is_charged() -> None:
    """No update is made again from an old run: its noise, less one student, would publish the student's gradient."""
    cluster = Cluster(4, 3, Invariants, rounds=8, noise=1_000_000)
    cluster.start()
    node = cluster.nodes[0]
    assert cluster.run(lambda: cluster.all_closed(2))
    assert node.core is not None
    before = counted(node.core)
    node.deliver(ev.RequestWithdrawal("updates", updates=tuple(sorted(before.values()))))
    assert cluster.run(lambda: cluster.all_closed(6))
    after = counted(node.core)
    assert not set(after.values()) & set(before.values())
    assert set(after) - set(before), "it goes on"
    runs: dict[tuple[str, int], list[int]] = {}
    for put in node.store.reservations:
        for part in put.parts:
            assert part.noise_multiplier == 1_000_000
            runs.setdefault((part.component, part.round), []).append(put.run)
    assert all(key in runs for key in after), "each was reserved, so it is charged"
    numbers = [run for each in runs.values() for run in each]
    assert len(numbers) == len(set(numbers)), "no run is used for two rounds, or for one round twice"
    charged = [dict(put.claims)["made-up"] for put in node.store.reservations]
    assert charged == sorted(set(charged)), "and each run costs more ε"


def counted(core: NodeState) -> dict[tuple[str, int], bytes]:
    """The core's own updates that count, by component and round."""
    components = core.ledger.components.values()
    return {
        (c.name, r.number): e.update for c in components for r in c.rounds for e in r.entries if e.author == core.me
    }


def test_what_is_withdrawn_already_is_not_signed_for_again() -> None:
    """By the daemon, for a withdrawal that was put off, and by its operator at the same moment."""
    cluster = Cluster(4, 3, Invariants, rounds=8)
    cluster.start()
    node = cluster.nodes[0]
    assert cluster.run(lambda: cluster.all_closed(2))
    assert node.core is not None
    asked = ev.RequestWithdrawal("updates", updates=tuple(sorted(counted(node.core).values())))
    handle(node.core, [asked, asked], cluster.now)
    records = node.core.pool.chain(node.core.me, node.core.ledger.heads)
    assert [record.value.kind for record in records].count("withdrawal") == 1
