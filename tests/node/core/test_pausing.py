"""A node that its operator pauses: it trains nothing, and nobody waits for it."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from collegium.consensus import trainers
from collegium.node.core import events as ev
from collegium.node.core import offers, pacing
from collegium.node.core.core import handle, load_node
from collegium.node.core.offers import own_reason, why_idle
from collegium.node.core.reasons import Reason
from collegium.node.core.state import NodeState
from collegium.node.core.timers import PaceDue
from collegium.node.home.quiet import QuietHours
from collegium.node.store import Store
from collegium.node.views import Context
from collegium.node.views.context import local
from collegium.node.views.training import remarks, waiting
from collegium.protocol.records import IDLE, PAUSED
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

from .test_core import core_of, key
from .test_removals import trained_by

HEAD = "head/task0"


def closed(node: Node) -> int:
    return core_of(node).ledger.components[HEAD].round


def test_a_paused_node_trains_nothing_across_a_restart_and_nobody_waits_for_it() -> None:
    cluster = Cluster(4, 7, Invariants, rounds=40)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    first, node = cluster.nodes[0], cluster.nodes[3]
    node.deliver(ev.SetPaused(True))
    assert cluster.run(lambda: trainers.idle(core_of(first).ledger.offers, key(node), HEAD) == PAUSED)
    assert cluster.run(lambda: core_of(node).run is None), "what was under way ends: its cost is spent already"
    last, before, then = trained_by(node), closed(first), cluster.now
    assert cluster.run(lambda: closed(first) > before + 4)
    assert cluster.now - then < cluster.charter.rules.round_deadline, "no round waited for it"
    assert cluster.run(lambda: closed(node) > before + 4), "it folds"
    node.crash()
    node.start()
    assert cluster.run(lambda: core_of(node).signing and closed(node) > before + 6)
    assert core_of(node).paused, "a restart changes nothing of that"
    assert trained_by(node) == last
    node.deliver(ev.SetPaused(False))
    assert cluster.run(lambda: trained_by(node) > last)
    assert cluster.run(lambda: trainers.trains(core_of(first).ledger.offers, key(node), HEAD)), "it is waited for again"
    assert not node.store.snapshot().flags["paused"]


def test_quiet_hours_are_a_pause_by_the_clock_and_a_restart_in_them_leaves_nothing_behind() -> None:
    cluster = Cluster(4, 7, Invariants, rounds=40)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    first, node = cluster.nodes[0], cluster.nodes[3]
    node.deliver(ev.SetQuiet(True))
    assert cluster.run(lambda: trainers.idle(core_of(first).ledger.offers, key(node), HEAD) == PAUSED)
    assert cluster.run(lambda: core_of(node).run is None)
    last, before, then = trained_by(node), closed(first), cluster.now
    assert cluster.run(lambda: closed(first) > before + 4)
    assert cluster.now - then < cluster.charter.rules.round_deadline, "no round waited for it"
    assert own_reason(core_of(node), HEAD) is Reason.QUIET_HOURS
    assert closed(node) > before, "it folds"
    node.crash()
    node.options = replace(node.options, quiet=True)
    node.start()
    assert cluster.run(lambda: core_of(node).signing)
    assert trained_by(node) == last
    node.deliver(ev.SetQuiet(False))
    assert own_reason(core_of(node), HEAD) is None, "rounds wait for it at once, not only after its next update"
    assert cluster.run(lambda: trained_by(node) > last)
    assert cluster.run(lambda: trainers.trains(core_of(first).ledger.offers, key(node), HEAD))


def test_the_operator_is_told_the_reason_that_others_are_not() -> None:
    cluster = Cluster(4, 7, Invariants, rounds=2)
    state = core_of_new(cluster)
    state.learner = (HEAD,)

    def after(*events: ev.Event) -> tuple[Reason | None, str]:
        handle(state, events, 1)
        return own_reason(state, HEAD), why_idle(state, HEAD)

    assert after() == (None, "")
    assert after(ev.LearnerLost()) == (Reason.LEARNER_LOST, PAUSED)
    assert after(ev.LearnerReady((HEAD,))) == (None, ""), "offered before it trains"
    assert after(ev.LearnerReads()) == (Reason.READING, PAUSED)
    assert after(ev.LearnerReady(())) == (Reason.NOT_IN_DATA, PAUSED)
    assert after(ev.SetQuiet(True)) == (Reason.QUIET_HOURS, PAUSED)
    assert after(ev.SetPaused(True)) == (Reason.BY_OPERATOR, PAUSED), "what an operator did goes before the clock"
    state.paused = state.quiet = False
    state.removals_unknown = True
    assert after() == (Reason.REMOVALS_UNKNOWN, PAUSED)
    state.removals_unknown = False
    state.halted.add(HEAD)
    assert after() == (Reason.STATE_DIFFERS, PAUSED)
    state.halted.clear()
    offers.stop(state, Reason.BUDGET_SPENT)
    assert after(ev.LearnerLost()) == (Reason.BUDGET_SPENT, "budget-spent"), "what others were told stays"


def test_g3_a_component_has_one_pace_timer_and_an_early_or_stale_one_ends_no_rest() -> None:
    """A catch-up decides thousands of closes: none leaves a timer of its own behind, and a rest always ends."""
    cluster = Cluster(4, 7, Invariants, pace=1000, rounds=2)
    state = core_of_new(cluster)
    for now in (0, 10, 20):
        state.now = now
        pacing.begin(state, HEAD)
    timers = [effect for effect in state.drain() if isinstance(effect, ev.SetTimer)]
    assert {effect.timer for effect in timers} == {PaceDue(HEAD)}
    state.now = 1000
    pacing.end(state, HEAD)
    assert HEAD in state.resting, "that was the first close's"
    assert [effect.delay for effect in state.drain() if isinstance(effect, ev.SetTimer)] == [20], "it comes again"
    state.now = 1020
    pacing.end(state, HEAD)
    assert HEAD not in state.resting


def core_of_new(cluster: Cluster) -> NodeState:
    node = cluster.nodes[0]
    return load_node(cluster.charter, node.identity, node.options, ev.Snapshot())


def test_the_quiet_hours_of_one_of_two_stop_the_rounds_and_both_are_told_whose_they_are(tmp_path: Path) -> None:
    cluster = Cluster(2, 7, Invariants, rounds=40)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    first, node = cluster.nodes
    node.deliver(ev.SetQuiet(True))
    assert cluster.run(lambda: trainers.idle(core_of(first).ledger.offers, key(node), HEAD) == PAUSED)

    def told(at: Node, hours: QuietHours) -> str:
        with Store.open(tmp_path / f"{at.index}.db", cluster.charter.federation) as store:
            context = Context(cluster.charter, core_of(at).ledger, store, me=key(at), quiet=hours)
            shown = waiting(context, HEAD)
            assert shown is not None
            assert any(shown["why"].removeprefix("1 of 2 trainers; ") in note.found for note in remarks(context))
        return shown["why"]

    name = core_of(first).ledger.roll.seats[key(node)].name
    assert told(first, QuietHours()) == f"1 of 2 trainers; {name}: {IDLE[PAUSED]}"
    assert "quiet hours" in IDLE[PAUSED]
    now = datetime.now()
    hours = QuietHours([f"{now - timedelta(hours=1):%H:00}-{now + timedelta(hours=2):%H:00}"])
    until = local(now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=2))
    assert told(node, hours) == f"1 of 2 trainers; this node: its quiet hours last until {until}"
