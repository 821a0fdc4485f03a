"""Notes on who trains a component: what a round still tolerates, and what an operator can do about the own node."""

from dataclasses import replace
from pathlib import Path

import pytest

from collegium.node.store import Store
from collegium.node.views import Context
from collegium.node.views.note import Note, NoteKind
from collegium.node.views.training import remarks
from collegium.protocol.records import Idle
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .core.test_core import core_of, key

HEAD = "head/task0"


def told(folder: Path, rule: str, why: str, count: int) -> list[Note]:
    """What the first of 4 nodes tells its operator if the last `count` of them do not train, and say why."""
    cluster = Cluster(4, 3, Invariants, rounds=2, rule=rule)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    me, ledger = cluster.nodes[0], core_of(cluster.nodes[0]).ledger
    idle = {key(node) for node in cluster.nodes[4 - count :]}
    offers = {
        who: replace(offer, idle=(Idle(HEAD, why),) if who in idle else ()) for who, offer in ledger.offers.items()
    }
    charter = replace(cluster.charter, learning=replace(cluster.charter.learning, min_students=20))
    ledger = replace(ledger, charter=charter, offers=offers)
    with Store.open(folder / "node.db", charter.federation) as store:
        return remarks(Context(charter, ledger, store, me=key(me), hosted=(HEAD,)))


@pytest.mark.parametrize(("rule", "count"), [("trimmed_mean", 0), ("trimmed_mean", 1), ("mean", 1)])
def test_fewer_trainers_tolerate_fewer_lies_under_a_robust_rule(tmp_path: Path, rule: str, count: int) -> None:
    notes = [(note.kind, note.found) for note in told(tmp_path, rule, "budget-spent", count)]
    found = f"{HEAD}: 3 of 4 hosts train it, so a round tolerates 0 faulty updates."
    assert notes == ([(NoteKind.FEWER_FAULTS_TOLERATED, found)] if rule != "mean" and count else [])


def test_a_node_that_declares_few_students_is_told_the_lot_that_is_enough(tmp_path: Path) -> None:
    (note, _) = told(tmp_path, "mean", "too-few-students", 4)
    assert note.kind is NoteKind.NOT_TRAINED_HERE
    assert note.advice.startswith("That is at least 20 students: [learning] lot_size of 2, the share that a")
