"""What a node offers and does not train: few students, a learner that fails and comes back, a restart."""

from dataclasses import replace

from collegium.node.core import events as ev
from collegium.node.core.contribution import Plan
from collegium.node.core.core import load_node
from collegium.node.core.offers import why_idle
from collegium.node.core.state import Options
from collegium.sims.simulator.cluster import Budget, Cluster, Node
from collegium.sims.simulator.invariants import Invariants

T = "head/task0"


def test_who_declares_too_few_students_hosts_and_draws_nobody() -> None:
    """By L over the sampling rate, never by a count: one student more or less would be seen (G6)."""
    cluster = Cluster(4, 1, Invariants, rounds=2)
    charter = replace(cluster.charter, learning=replace(cluster.charter.learning, min_students=20))
    few, enough = (
        load_node(charter, cluster.nodes[0].identity, Options((T,), plan=Plan(lot=lot)), ev.Snapshot())
        for lot in (1999, 2000)  # at a rate of .1
    )
    assert (why_idle(few, T), why_idle(enough, T)) == ("too-few-students", "")
    assert few.hosted == (T,)
    assert not few.fed
    assert enough.fed == [T]


def test_g6_a_learner_that_is_lost_is_told_by_one_word_and_comes_back_before_it_trains() -> None:
    """The round then waits for its update. After a training run the round might be closed, and its ε spent in vain."""
    cluster = Cluster(4, 2, Invariants, rounds=30)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1), 60_000)
    node, other = cluster.nodes[0], cluster.nodes[1]

    def said() -> list[str]:
        assert other.core is not None
        return [entry.why for entry in other.core.ledger.offers[node.identity.public_key].idle]

    node.hung = []
    assert cluster.run(lambda: bool(node.hung), cluster.now + 60_000), "what was under way is over"
    node.deliver(ev.LearnerLost())
    assert cluster.run(lambda: said() == ["paused"], cluster.now + 60_000)
    node.crash()
    node.start()
    assert node.hung is not None, "its learner is there again, and no training run of it ends"
    assert cluster.run(lambda: said() == [], cluster.now + 60_000)


def test_g3_rounds_go_on_when_a_withdrawal_opens_what_all_budgets_keep_for_it() -> None:
    """Everybody has said that its budget is spent: nobody may wait for the others to say otherwise first."""
    cluster = Cluster(5, 1, Invariants, rounds=30, noise=1_000_000)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2), 60_000)
    for node in cluster.nodes:
        node.budget = Budget(0)

    def said() -> list[str]:
        return [why_idle(node.core, T) for node in cluster.nodes if node.core is not None]

    assert cluster.run(lambda: said() == ["budget-spent"] * 5, cluster.now + 120_000)
    for node in cluster.nodes:
        node.budget = None  # the share that is kept for recovery
    gone, first = cluster.nodes[4], cluster.nodes[0].core
    assert first is not None
    before = first.ledger.components[T].round
    gone.deliver(ev.RequestWithdrawal())
    assert cluster.run(lambda: first.ledger.components[T].round >= before + 2, cluster.now + 300_000)


def test_g6_who_is_alone_waits_spends_nothing_and_offers_again_once_its_learner_is_back() -> None:
    """A failing learner is no reason to offer, and a good one need not train first: nobody waits for it in vain."""
    cluster = Cluster(4, 3, Invariants, rounds=30)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1), 60_000)
    node, *others = cluster.nodes

    def said(who: Node) -> list[str]:
        assert others[0].core is not None
        return [entry.why for entry in others[0].core.ledger.offers[who.identity.public_key].idle]

    def offers() -> int:
        return sum(record.value.kind == "offer" for record in node.store.feed(node.identity.public_key, 0, 10_000))

    for other in others:
        other.deliver(ev.SetPaused(True))
    assert cluster.run(lambda: all(said(other) == ["paused"] for other in others), cluster.now + 60_000)
    cluster.run(lambda: False, cluster.now + 10_000)
    assert node.core is not None
    assert node.core.run is None
    spent, offered, closed = len(node.store.reservations), offers(), node.core.ledger.components[T].round
    node.deliver(ev.LearnerLost())
    assert cluster.run(lambda: said(node) == ["paused"], cluster.now + 60_000)
    cluster.run(lambda: False, cluster.now + 30_000)
    assert offers() == offered + 1
    node.deliver(ev.LearnerReady((T,)))
    assert cluster.run(lambda: said(node) == [], cluster.now + 60_000), "it would go on"
    cluster.run(lambda: False, cluster.now + 30_000)
    assert len(node.store.reservations) == spent, "one of two trainers"
    others[0].deliver(ev.SetPaused(False))
    assert cluster.run(lambda: cluster.all_closed(closed + 2), cluster.now + 120_000), "two of two"


def test_a_training_that_outlasts_the_deadline_is_nothing_to_wait_for_and_the_operator_is_told() -> None:
    cluster = Cluster(4, 2, Invariants, rounds=30)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1), 60_000)
    node, other = cluster.nodes[0], cluster.nodes[1]

    def said() -> list[str]:
        assert other.core is not None
        return [entry.why for entry in other.core.ledger.offers[node.identity.public_key].idle]

    def told() -> list[object]:
        return [n.fields["components"] for n in node.notices if n.event == "training-outlasts-deadline"]

    node.hung = []
    assert cluster.run(lambda: bool(node.hung), cluster.now + 60_000)
    node.deliver(ev.LearnerLost())
    assert cluster.run(lambda: said() == ["paused"], cluster.now + 60_000)
    took = cluster.charter.rules.round_deadline + 1
    node.training = (took, took)  # it trains again, and each round would wait for it until the deadline
    node.wake_learner()
    assert cluster.run(lambda: bool(told()), cluster.now + 60_000)
    assert told()[0] == [T]
    assert node.core is not None
    assert (why_idle(node.core, T), said()) == ("paused", ["paused"])
    node.training = None
    assert cluster.run(lambda: said() == [], cluster.now + 60_000), "one in time takes it back"
