"""The daemon's core under a seeded network: network, crashes, partitions, liars, withdrawals (G1, G2, G3, G7, G8, G9).

Every test takes its seed as a parameter, so a failure names it. The soak forms run more seeds of the same scenarios.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard

from collegium.consensus.components import Round, origin, replay
from collegium.consensus.fold import fold_block
from collegium.consensus.ledger import genesis
from collegium.consensus.summary import state_digest as ledger_digest
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.core.in_flight import InFlightUpdate
from collegium.node.core.messages import SYNC_LIMIT, Kind, SyncResponse
from collegium.node.core.timers import PaceDue, RoundDeadline, Timer
from collegium.protocol import names as grammar
from collegium.protocol import schema
from collegium.protocol.blocks import NIL, PRECOMMIT, Block, Proposal, Vote
from collegium.protocol.charter import Charter
from collegium.protocol.components import base_digest, base_vector, state_digest
from collegium.protocol.records import Attest, Update, body_of
from collegium.protocol.signing import open_signed
from collegium.protocol.update import UpdateHeader, payload_values
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.liars import LIES
from collegium.sims.simulator.lie import Lie
from collegium.sims.simulator.network import Disk, NetworkConditions
from collegium.sims.simulator.small import small_charter

CALM = NetworkConditions()
STORM = NetworkConditions(delay=(1, 300), loss=0.15, duplicate=0.15)
MODELS = ("byzantine", "crash")
LIMIT = 900_000


def soak(seeds: range) -> list[object]:
    """Seeds of the long form; the short one is the seed that stands before them."""
    return [pytest.param(seed, marks=pytest.mark.soak) for seed in seeds]


def running(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.nodes if node.core is not None]


def honest(cluster: Cluster) -> list[Node]:
    return [node for node in running(cluster) if not cluster.lies(node)]


def closed(cluster: Cluster, rounds: int) -> bool:
    """Every honest node is up and has folded every component up to this round."""
    nodes = [node for node in cluster.nodes if not cluster.lies(node)]
    return all(
        node.core is not None
        and all(
            node.core.ledger.components[name].round >= rounds and node.core.folded.get(name, (0,))[0] >= rounds
            for name in node.core.hosted
        )
        for node in nodes
    )


def current(node: Node) -> bool:
    core = node.core
    assert core is not None
    return all(
        name in core.folded and core.folded[name][:3] == (c.round, c.generation, c.chain)
        for name, c in core.ledger.components.items()
    )


def level(cluster: Cluster) -> bool:
    """All honest nodes stand at one height with folded states."""
    nodes = honest(cluster)
    heights = {node.core.ledger.height for node in nodes if node.core is not None}
    return len(heights) == 1 and all(current(node) for node in nodes)


def check_equal(cluster: Cluster) -> None:
    """G1: equal ledgers and states; the incremental fold is the fold from scratch."""
    cluster.disk = Disk()
    assert cluster.run(lambda: len(running(cluster)) == len(cluster.nodes) and level(cluster), cluster.now + LIMIT)
    nodes = honest(cluster)
    assert len({ledger_digest(node.core.ledger) for node in nodes if node.core}) == 1
    assert len({str(sorted(node.core.folded.items())) for node in nodes if node.core}) == 1
    node = nodes[0]
    assert node.core is not None
    ledger = genesis(cluster.charter)
    for stored in node.store.snapshot().blocks:
        ledger = fold_block(ledger, stored.block, stored.records)
    assert ledger == node.core.ledger
    check_certificates(cluster)


def check_certificates(cluster: Cluster) -> None:
    """Every honest host still has the bytes of all counted updates, but who took a state in their place."""
    for node in honest(cluster):
        assert node.core is not None
        if any(notice.event == "taking-state" for notice in node.notices):
            continue
        for component in node.core.ledger.components.values():
            for round_ in component.rounds:
                for entry in round_.entries:
                    assert entry.blob in node.store.blobs, f"node {node.index} lost counted bytes"


def play(cluster: Cluster, rounds: int, limit: int = LIMIT) -> None:
    cluster.start()
    assert cluster.run(lambda: closed(cluster, rounds), limit), [
        (node.index, node.core and node.core.ledger.height, node.notices[-3:]) for node in cluster.nodes
    ]
    check_equal(cluster)


@pytest.mark.parametrize("seed", [1, *soak(range(100, 105))])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_rounds_close_in_calm_weather_one_height_each(count: int, model: str, seed: int) -> None:
    """G1, G3: also where no lost member can be spared."""
    cluster = Cluster(count, seed, Invariants, rounds=3, fault_model=model, min_updates=min(2, count))
    play(cluster, 3)
    node = cluster.nodes[0]
    assert node.core is not None
    for round_ in node.core.ledger.components["head/task0"].rounds:
        assert len(round_.entries) == count, "somebody was left out although nobody was slow"


@pytest.mark.parametrize("seed", [1, *soak(range(100, 130))])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [3, 4])
def test_rounds_close_in_a_storm(count: int, model: str, seed: int) -> None:
    """G1, G2, G3 under loss, duplication and reordering."""
    play(Cluster(count, seed, Invariants, network=STORM, rounds=3, fault_model=model, components=2), 3)


@pytest.mark.parametrize("seed", [3, *soak(range(100, 110))])
@pytest.mark.parametrize("model", MODELS)
def test_seven_nodes_in_a_storm_with_crashes(model: str, seed: int) -> None:
    play(Cluster(7, seed, Invariants, network=STORM, rounds=2, disk=Disk(0.003), fault_model=model), 2)


@pytest.mark.parametrize("seed", [1, *soak(range(100, 140))])
@pytest.mark.parametrize("model", MODELS)
def test_crashes_before_and_after_writes(model: str, seed: int) -> None:
    """G8: killed on either side of a write; the cluster's invariants watch records, votes and blocks."""
    play(Cluster(4, seed, Invariants, rounds=3, disk=Disk(0.02), fault_model=model), 3)


@pytest.mark.parametrize("seed", [1, *soak(range(100, 120))])
@pytest.mark.parametrize(("model", "count", "minority"), [("byzantine", 4, 1), ("byzantine", 7, 2), ("crash", 5, 2)])
def test_a_partition_and_its_healing(model: str, count: int, minority: int, seed: int) -> None:
    """G2, G3: the quorum's side goes on, the other side decides nothing, and both are one after healing."""
    cluster = Cluster(count, seed, Invariants, rounds=6, fault_model=model, deadline=1000)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 1), LIMIT)
    few = set(range(minority))
    cluster.cut_off = {frozenset((a, b)) for a in few for b in range(count) if b not in few}
    many = [node for node in cluster.nodes if node.index not in few]
    stuck = max(node.core.ledger.height for node in cluster.nodes[:minority] if node.core)
    assert cluster.run(
        lambda: all(node.core is not None and node.core.ledger.components["head/task0"].round >= 3 for node in many),
        cluster.now + LIMIT,
    )
    assert max(node.core.ledger.height for node in cluster.nodes[:minority] if node.core) <= stuck + 1
    cluster.cut_off = set()
    assert cluster.run(lambda: closed(cluster, 6), cluster.now + LIMIT)
    check_equal(cluster)


@pytest.mark.parametrize("seed", [1])
def test_a_split_without_a_quorum_decides_nothing_and_goes_on_when_healed(seed: int) -> None:
    cluster = Cluster(4, seed, Invariants, rounds=4)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 1), LIMIT)
    assert cluster.run(lambda: level(cluster), LIMIT)
    cluster.cut_off = {frozenset((a, b)) for a in (0, 1) for b in (2, 3)}
    before = max(node.core.ledger.height for node in running(cluster) if node.core)
    cluster.run(lambda: False, cluster.now + 60_000)
    assert max(node.core.ledger.height for node in running(cluster) if node.core) <= before + 1
    cluster.cut_off = set()
    assert cluster.run(lambda: closed(cluster, 4), cluster.now + LIMIT)
    check_equal(cluster)


@pytest.mark.parametrize("seed", [1, *soak(range(2, 3))])
def test_a_lost_member_costs_a_deadline_and_no_more(seed: int) -> None:
    """G3: n = 4, one never starts."""
    cluster = Cluster(4, seed, Invariants, rounds=3, deadline=1000)
    for node in cluster.nodes[:3]:
        node.start()

    def done() -> bool:
        return all(
            node.core is not None and node.core.folded.get("head/task0", (0,))[0] >= 3 for node in cluster.nodes[:3]
        )

    assert cluster.run(done, LIMIT)
    assert cluster.now < 3 * (1000 + 4000), f"{cluster.now} ms for three rounds"


def test_no_part_of_a_node_relies_on_the_grammar_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """One name is the start of the other, with ":" and "/"; deadlines and paces fire for each (G3)."""
    monkeypatch.setattr(grammar, "plain", lambda _: True)
    names = {"head/task0": "head/task0:1", "head/task1": "head/task0:1/1:b"}

    def oddly_named(identities: list[Identity], **options: Any) -> Charter:
        charter = small_charter(identities, **options)
        specs = (replace(spec, name=names[spec.name]) for spec in charter.components)
        return replace(
            charter,
            components=tuple(
                replace(spec, base=base_digest(base_vector(charter.seed, spec.name, spec.tensors))) for spec in specs
            ),
            learning=replace(
                charter.learning,
                tasks=tuple(replace(task, name=names[f"head/{task.name}"][5:]) for task in charter.learning.tasks),
            ),
        )

    monkeypatch.setattr("collegium.sims.simulator.cluster.small_charter", oddly_named)
    cluster = Cluster(4, 1, Invariants, network=STORM, rounds=3, components=2, deadline=1000, pace=3000)
    timers: set[Timer] = set()
    started = cluster.nodes[:3]
    for node in started:  # the fourth never starts
        node.start()

    def done() -> bool:
        timers.update(timer for node in started for timer in node.timers)
        return all(
            node.core is not None and all(node.core.folded.get(name, (0,))[0] >= 3 for name in names.values())
            for node in started
        )

    assert cluster.run(done, LIMIT)
    assert {timer.component for timer in timers if isinstance(timer, RoundDeadline)} == {*names.values()}
    assert {timer.component for timer in timers if isinstance(timer, PaceDue)} == {*names.values()}


@pytest.mark.parametrize("seed", [1, *soak(range(100, 110))])
def test_a_joiner_catches_up_to_the_same_state(seed: int) -> None:
    """G1: it folds a history that it did not take part in, bytes and all."""
    cluster = Cluster(4, seed, Invariants, rounds=6, deadline=800)
    for node in cluster.nodes[:3]:
        node.start()
    assert cluster.run(
        lambda: all(n.core and n.core.ledger.components["head/task0"].round >= 3 for n in cluster.nodes[:3])
    )
    late = cluster.nodes[3]
    late.start()
    assert cluster.run(lambda: closed(cluster, 6), cluster.now + LIMIT)
    check_equal(cluster)
    assert late.core is not None
    last = late.core.ledger.components["head/task0"].rounds[-1]
    assert late.identity.public_key in {entry.author for entry in last.entries}, "it never came to contribute"


@pytest.mark.parametrize("seed", [1, *soak(range(2, 3))])
def test_a_joiner_is_sent_the_history_once(seed: int) -> None:
    """Not once by every neighbour: the others are asked when the first has brought it up to date."""
    cluster = Cluster(4, seed, Invariants, rounds=8)
    late = cluster.nodes[3]
    for node in cluster.nodes[:3]:
        node.start()
    assert cluster.run(lambda: all(node.core and node.core.ledger.height >= 8 for node in cluster.nodes[:3]), LIMIT)
    sent: list[int] = []
    deliver = late.deliver

    def watched(*events: ev.Event) -> None:
        for event in events:
            if isinstance(event, ev.SyncReply):
                blocks = schema.load(SyncResponse, event.data, SYNC_LIMIT).blocks
                sent.extend(schema.load(Block, item.block, len(item.block)).height for item in blocks)
        deliver(*events)

    late.deliver = watched  # type: ignore[method-assign]
    late.start()
    assert cluster.run(lambda: late.core is not None and late.core.signing, cluster.now + LIMIT)
    assert sent[:8] == list(range(1, 9))
    assert len(sent) == len(set(sent)), sent


@pytest.mark.parametrize("seed", [1, *soak(range(2, 3))])
def test_a_joiner_fetches_no_bytes_of_the_middle_of_its_history(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in several answers; where the first of them ends nobody keeps a state."""
    monkeypatch.setattr("collegium.node.core.sync.SYNC_TARGET", 20_000)
    monkeypatch.setattr("collegium.node.core.progress.WORTH_REPORTING", 2)
    cluster = Cluster(5, seed, Invariants, rounds=12)
    late = cluster.nodes[4]
    for node in cluster.nodes[:4]:
        node.start()
    assert cluster.run(lambda: cluster.all_closed(12), LIMIT)
    late.start()
    assert cluster.run(lambda: late.core is not None and cluster.all_closed(12), cluster.now + LIMIT)
    assert any(notice.event == "taking-state" for notice in late.notices)
    first = cluster.nodes[0].core
    assert first is not None
    middle = {entry.blob for round_ in first.ledger.components["head/task0"].rounds[:8] for entry in round_.entries}
    assert not middle & late.store.blobs.keys()


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("network", [CALM, STORM])
def test_no_work_no_heights(network: NetworkConditions, seed: int) -> None:
    """design.md section 7: an idle federation stays at its height."""
    cluster = Cluster(4, seed, Invariants, network=network, rounds=2)
    play(cluster, 2)
    cluster.run(lambda: False, cluster.now + 60_000)
    before = {node.core.ledger.height for node in running(cluster) if node.core}
    cluster.run(lambda: False, cluster.now + 600_000)
    assert {node.core.ledger.height for node in running(cluster) if node.core} == before
    assert len(before) == 1


@pytest.mark.parametrize("seed", [2])
def test_slow_learners_count_with_staleness(seed: int) -> None:
    """Training longer than the deadline: the rounds of the others go on, the late updates count one round later."""
    cluster = Cluster(4, seed, Invariants, rounds=6, deadline=600, training=(5, 1500))
    play(cluster, 4)
    node = cluster.nodes[0]
    assert node.core is not None
    rounds = node.core.ledger.components["head/task0"].rounds
    assert any(entry.staleness == 1 for round_ in rounds for entry in round_.entries)


@pytest.mark.parametrize("seed", [1])
def test_a_component_that_cannot_close_does_not_stop_the_others(seed: int) -> None:
    """G3, G6: of two components three nodes host only one; the fourth alone cannot close the other: it pays nothing."""
    cluster = Cluster(4, seed, Invariants, rounds=3, components=2, deadline=1000)
    for node in cluster.nodes[:3]:
        node.options = replace(node.options, hosted=("head/task0",))
    cluster.start()
    me = cluster.nodes[3].identity.public_key

    def done() -> bool:
        core = cluster.nodes[0].core
        return core is not None and core.ledger.components["head/task0"].round >= 3

    assert cluster.run(done, LIMIT)
    core = cluster.nodes[0].core
    assert core is not None
    rounds = core.ledger.components["head/task0"].rounds
    assert cluster.run(lambda: cluster.now > 60_000, 61_000) or True
    counted = {number.number for number in rounds if me in {entry.author for entry in number.entries}}
    assert len(counted) == 3, "it waits for nothing"
    parts = [part for put in cluster.nodes[3].store.reservations for part in put.parts]
    assert {part.component for part in parts} == {"head/task0"}


def with_follower(seed: int, *, follows: bool = True, **more: object) -> Cluster:
    """Five nodes and two components; the last node trains the first only and follows the second."""
    cluster = Cluster(5, seed, Invariants, components=2, **more)  # type: ignore[arg-type]  # passed through by name
    if follows:
        last = cluster.nodes[4]
        last.options = replace(last.options, hosted=("head/task0",), followed=("head/task1",))
    return cluster


@pytest.mark.parametrize("seed", [1, *soak(range(100, 110))])
@pytest.mark.parametrize("network", [CALM, STORM])
def test_g1_a_follower_folds_the_same_bits_and_says_nothing_of_them(network: NetworkConditions, seed: int) -> None:
    cluster = with_follower(seed, network=network, rounds=4)
    follower = cluster.nodes[4]
    trains: list[ev.Train] = []
    carry_out = follower._carry_out

    def spy(effect: ev.Effect) -> None:
        if isinstance(effect, ev.Train):
            core = follower.core
            assert core is not None
            followed = core.ledger.components["head/task1"]
            assert core.folded["head/task1"][:3] == (followed.round, followed.generation, followed.chain), (
                "it waits for it"
            )
            assert effect.context == (("head/task1", followed.chain),)
            trains.append(effect)
        carry_out(effect)

    follower._carry_out = spy  # type: ignore[method-assign]
    play(cluster, 4)
    assert len(trains) == 4
    assert {recipe.component for train in trains for recipe in train.recipes} == {"head/task0"}
    core, me = follower.core, follower.identity.public_key
    assert core is not None
    assert core.ledger.offers[me].components == ("head/task0",)
    spoke_of = set()
    for record in cluster.nodes[0].store.records.values():
        body = body_of(record.value)
        if record.value.author == me and isinstance(body, Attest):
            spoke_of.add(body.component)
        if isinstance(body, Update):
            update = open_signed(UpdateHeader, body.header, cluster.charter.federation, trusted=True).value
            if me in {update.author, *(ack.host for ack in body.acks)}:
                spoke_of.add(update.component)
    assert spoke_of == {"head/task0"}
    assert me not in core.ledger.components["head/task1"].hosts
    assert core.ledger.components["head/task1"].certified is not None


@pytest.mark.parametrize("seed", [3])
def test_g3_a_follower_delays_no_round(seed: int) -> None:
    took = []
    for follows in (False, True):
        cluster = with_follower(seed, follows=follows, rounds=6, deadline=60_000)
        play(cluster, 6)
        rounds = [component.rounds for component in cluster.nodes[0].core.ledger.components.values()]  # type: ignore[union-attr]
        assert [[len(round_.entries) for round_ in numbers] for numbers in rounds] == [
            [5] * 6,
            [4 if follows else 5] * 6,
        ]
        took.append(cluster.now)
    assert took[1] < took[0] + 6 * 200, "one pull a round more"


@pytest.mark.parametrize("seed", [1, *soak(range(100, 110))])
def test_g7_a_follower_refolds_and_keeps_none_of_the_withdrawn_bytes(seed: int) -> None:
    cluster = with_follower(seed, rounds=5)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 3), LIMIT)
    leaver = cluster.nodes[1]
    leaver.deliver(ev.RequestWithdrawal())
    gone = leaver.identity.public_key
    assert cluster.run(lambda: closed(cluster, 5) and level(cluster), cluster.now + LIMIT)
    cluster.run(lambda: False, cluster.now + 20_000)
    check_refolded(cluster, gone)
    assert gone not in authors_on_disk(cluster.nodes[4])


@pytest.mark.parametrize("seed", [1, *soak(range(100, 120))])
def test_a_restored_backup_signs_nothing_twice(seed: int) -> None:
    """G8: the disk goes back in time; what peers know of this node binds it."""
    cluster = Cluster(4, seed, Invariants, rounds=6)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 1), LIMIT)
    node = cluster.nodes[seed % 4]
    backup = copy.deepcopy(node.store)
    assert cluster.run(lambda: closed(cluster, 3), LIMIT)
    cluster.run(lambda: False, cluster.now + 37 * seed)
    cluster.schedule_restart(node)
    node.crash()
    node.store = backup
    assert cluster.run(lambda: closed(cluster, 6), cluster.now + LIMIT)
    check_equal(cluster)


# ---- withdrawal


def authors_on_disk(node: Node) -> set[bytes]:
    return {zstandard.ZstdDecompressor().decompress(data)[32:64] for data in node.store.blobs.values()}


def check_refolded(cluster: Cluster, gone: bytes) -> None:
    """G7: nothing of the author counts, and the state is the survivors' fold."""
    for node in honest(cluster):
        core = node.core
        assert core is not None
        for name, component in core.ledger.components.items():
            assert component.rounds
            assert all(entry.author != gone for round_ in component.rounds for entry in round_.entries)
            spec = core.specs[name]
            rounds = [Round(r.number, 0, r.entries, r.faults, b"", r.rule) for r in component.rounds]
            values = {e.blob: payload_values(node.store.blobs[e.blob], spec) for r in rounds for e in r.entries}
            state, _ = replay(origin(spec), spec, rounds, lambda entry, values=values: values[entry.blob])  # type: ignore[misc]
            assert np.any(state != 0)
            assert core.folded[name][3] == state_digest(name, state)


@pytest.mark.parametrize("seed", [1, *soak(range(100, 120))])
@pytest.mark.parametrize("case", ["calm", "storm", "partition", "crashes", "while-training"])
def test_a_withdrawal_in_the_middle(case: str, seed: int) -> None:
    """G7: every host refolds, the bytes go after certification, the generation grows once."""
    network = STORM if case == "storm" else CALM
    training = (900, 1500) if case == "while-training" else (5, 200)
    cluster = Cluster(
        4,
        seed,
        Invariants,
        network=network,
        rounds=6,
        deadline=1500,
        disk=Disk(0.005 if case == "crashes" else 0.0),
        training=training,
    )
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 3), LIMIT)
    leaver = cluster.nodes[seed % 4]
    gone = leaver.identity.public_key
    if case == "while-training":
        assert cluster.run(lambda: leaver.core is not None and leaver.core.run is not None, cluster.now + LIMIT)
    if case == "partition":
        cluster.cut_off = {frozenset((leaver.index, n)) for n in range(4) if n != leaver.index}
    if leaver.core is None:
        assert cluster.run(lambda: leaver.core is not None and leaver.core.signing, cluster.now + LIMIT)
    leaver.deliver(ev.RequestWithdrawal())
    while not any(record.value.kind == "withdrawal" for record in leaver.store.records.values()):
        # Killed before the write, or waiting for reports: the operator sees no answer and asks again.
        assert cluster.run(lambda: leaver.core is not None and leaver.core.signing, cluster.now + LIMIT)
        leaver.deliver(ev.RequestWithdrawal())
    if case == "partition":
        cluster.run(lambda: False, cluster.now + 5000)
        cluster.cut_off = set()

    def refolded() -> bool:
        return all(
            node.core is not None
            and node.core.ledger.withdrawn != ()
            and all(
                c.round >= 6 and c.certified is not None and c.certified.generation == c.generation and not c.erasures
                for c in node.core.ledger.components.values()
            )
            for node in cluster.nodes
        )

    assert cluster.run(refolded, cluster.now + LIMIT), [n.notices[-4:] for n in cluster.nodes]
    check_equal(cluster)
    check_refolded(cluster, gone)
    for node in cluster.nodes:
        assert node.core is not None
        assert all(c.generation == 1 for c in node.core.ledger.components.values())
        assert node is leaver or gone not in authors_on_disk(node), f"node {node.index} still holds withdrawn bytes"


def test_a_withdrawal_before_the_node_may_sign_is_not_forgotten() -> None:
    """G7, G8: it waits on disk, across a crash, until peers have reported."""
    cluster = Cluster(4, 1, Invariants, rounds=4)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 2), LIMIT)
    leaver = cluster.nodes[0]
    leaver.crash()
    cluster.cut_off = {frozenset((0, n)) for n in range(1, 4)}
    leaver.start()
    leaver.deliver(ev.RequestWithdrawal())
    leaver.crash()
    cluster.cut_off = set()
    leaver.start()
    assert cluster.run(
        lambda: all(n.core is not None and n.core.ledger.withdrawn for n in cluster.nodes) and closed(cluster, 4),
        cluster.now + LIMIT,
    )
    check_equal(cluster)
    check_refolded(cluster, leaver.identity.public_key)


def test_a_round_closes_at_its_deadline_though_every_record_is_agreed_already() -> None:
    """G3: a withdrawal and a motion bring the others' records under blocks that close nothing; then nobody has more."""
    cluster = Cluster(4, 1, Invariants, rounds=4, deadline=8000)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 2), LIMIT)
    leaver, silent, *others = cluster.nodes
    silent.hung = []  # it says that it trains, so that the others wait for it
    cluster.run(lambda: False, cluster.now + 2500)
    leaver.deliver(ev.RequestWithdrawal())
    cluster.run(lambda: False, cluster.now + 2500)
    leaver.deliver(ev.ProposeMotion("expel", others[0].identity.public_key, b"", "a motion gets a block", 100))
    cluster.run(lambda: False, cluster.now + 2000)
    for node in others:
        assert node.core is not None
        assert len(node.core.ledger.components["head/task0"].pending) == 2
        assert len(node.core.pool) == 0
    assert cluster.run(lambda: closed(cluster, 4), cluster.now + LIMIT)
    check_equal(cluster)


def test_who_withdrew_and_contributes_again_is_counted_only_later() -> None:
    """G7: the round in flight at the withdrawal stays without it, and it spends no budget on that round."""
    cluster = Cluster(4, 5, Invariants, rounds=8, deadline=1000)
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 2), LIMIT)
    leaver = cluster.nodes[0]
    leaver.deliver(ev.RequestWithdrawal())
    assert cluster.run(lambda: leaver.core is not None and bool(leaver.core.ledger.withdrawn), cluster.now + LIMIT)
    leaver.deliver(ev.SetContributing(True))
    assert cluster.run(lambda: closed(cluster, 8), cluster.now + LIMIT)
    assert leaver.core is not None
    last = dict(leaver.core.ledger.withdrawn[0].rounds)["head/task0"]
    mine = [
        r.number
        for r in leaver.core.ledger.components["head/task0"].rounds
        if leaver.identity.public_key in {entry.author for entry in r.entries}
    ]
    assert mine
    assert min(mine) >= last + 2
    check_equal(cluster)


# ---- liars


def with_liars(cluster: Cluster, liars: set[int], lie: Lie[Node]) -> None:
    for index in liars:
        cluster.nodes[index].tell_lies(lie)


@pytest.mark.soak  # the scenarios of the gate have each lie already
@pytest.mark.parametrize("seed", [1, *range(100, 110)])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_one_liar_of_four(lie: Lie[Node], seed: int) -> None:
    """G1, G2, G3, G9: the honest ones agree, go on, and fold to one state."""
    cluster = Cluster(4, seed, Invariants, rounds=3, deadline=1000)
    with_liars(cluster, {seed % 4}, lie)
    play(cluster, 3)


def test_nonsense_in_its_own_feed_ends_no_node() -> None:
    """G9: a body that cannot be read, as a faulty release may have signed it, is inert to its author as well."""
    cluster = Cluster(4, 100, Invariants, rounds=3, deadline=1000)
    with_liars(cluster, {0}, LIES["malformed_bodies"])
    play(cluster, 3)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, *range(100, 105)])
@pytest.mark.parametrize("name", ["double_votes", "forks_two_each", "two_blocks", "splits", "forgets_locks"])
def test_two_liars_of_seven_in_a_storm(name: str, seed: int) -> None:
    cluster = Cluster(7, seed, Invariants, network=STORM, rounds=2, deadline=1500)
    with_liars(cluster, {1, 4}, LIES[name])
    play(cluster, 2)


@pytest.mark.parametrize("name", ["forks", "double_votes"])
def test_a_proven_liar_is_expelled(name: str) -> None:
    cluster = Cluster(4, 2, Invariants, rounds=4, deadline=1000)
    with_liars(cluster, {2}, LIES[name])
    play(cluster, 4)
    node = cluster.nodes[0]
    assert node.core is not None
    assert node.core.ledger.expelled == (cluster.nodes[2].identity.public_key,)
    # One proof suffices: a liar must not make everybody's feeds grow.
    evidence = [r for r in node.store.records.values() if r.value.kind == "evidence"]
    assert len(evidence) <= 3 * 3


def test_words_of_another_federation_mean_nothing_here() -> None:
    """G9: everything said in one federation, replayed into another with the same members."""
    other = Cluster(4, 1, Invariants, rounds=3, min_updates=3)
    heard: list[bytes] = []
    with_liars(other, {0, 1, 2, 3}, Lie("listens", "", says=lambda _node, data: heard.append(data)))
    other.start()
    other.run(lambda: all(n.core is not None and n.core.ledger.height >= 3 for n in other.nodes))
    assert len(heard) > 50
    cluster = Cluster(4, 1, Invariants, rounds=3)
    assert cluster.charter.federation != other.charter.federation
    cluster.start()
    for data in heard:
        cluster.nodes[0].deliver(ev.Gossip(cluster.nodes[1].identity.public_key, data))
    core = cluster.nodes[0].core
    assert core is not None
    assert {reason for _, reason in core.refusals} == {"wrong-federation"}
    assert cluster.run(lambda: closed(cluster, 3), LIMIT)
    check_equal(cluster)


@pytest.mark.parametrize("seed", [1, *soak(range(100, 110))])
def test_a_restart_tolerates_a_liars_false_acks(seed: int) -> None:
    """G8: an agreed, inert record with forged acks must not keep nodes from starting again."""
    cluster = Cluster(4, seed, Invariants, rounds=4, deadline=1000)

    with_liars(cluster, {3}, LIES["forged_acks"])
    cluster.start()
    assert cluster.run(lambda: closed(cluster, 2), LIMIT)
    cluster.run(lambda: False, cluster.now + 5000)
    refused = {n.fields["reason"] for n in cluster.nodes[0].notices if n.event == "record-refused"}
    core = cluster.nodes[0].core
    assert core is not None
    # Unless its own store gave the true record to somebody first: then it forked its feed.
    assert refused == {"false-ack"} or core.ledger.expelled
    for node in cluster.nodes[:3]:
        node.crash()
        node.start()
    assert cluster.run(lambda: closed(cluster, 4), cluster.now + LIMIT)
    check_equal(cluster)


def test_every_persisted_precommit_has_its_value_and_proof_on_disk() -> None:
    """design.md section 12: after any crash the lock can be defended."""
    cluster = Cluster(4, 9, Invariants, network=STORM, rounds=3, disk=Disk(0.01))
    cluster.start()
    precommits = 0

    def check() -> bool:
        nonlocal precommits
        for node in cluster.nodes:
            opened = [(h, m[0], m[1:]) for h, m in node.store.messages]
            federation = cluster.charter.federation
            votes = [open_signed(Vote, w, federation, trusted=True).value for _, kind, w in opened if kind == Kind.VOTE]
            blocks = {
                schema.load(Block, p.block, len(p.block)).id
                for p in (
                    open_signed(Proposal, w, federation, trusted=True).value for _, k, w in opened if k == Kind.PROPOSAL
                )
            }
            for vote in votes:
                if vote.step == PRECOMMIT and vote.block != NIL and vote.author == node.identity.public_key:
                    polka = [v for v in votes if v.step != PRECOMMIT and v.view == vote.view and v.block == vote.block]
                    assert vote.block in blocks
                    assert len(polka) >= 3
                    precommits += 1
        return closed(cluster, 3)

    assert cluster.run(check, LIMIT)
    assert precommits


def _in_flight(node: Node, *, posted: bool) -> list[InFlightUpdate]:
    """The own updates that no block has, in the node's feed already or not yet."""
    core = node.core
    assert core is not None
    agreed = {p.update for c in core.ledger.components.values() for p in c.pending} | core.counted
    return [f for f in core.in_flight.of(core.me) if bool(f.posted) is posted and f.header.digest not in agreed]


@pytest.mark.parametrize("posted", [False, True])
def test_g7_what_is_withdrawn_in_flight_never_counts(posted: bool) -> None:
    """Not posted yet, it is dropped for good, over a restart too; posted, the withdrawal follows it into the ledger."""
    cluster = Cluster(5, 3, Invariants, rounds=30)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(3))
    node = cluster.nodes[0]
    assert cluster.run(lambda: any(len(f.acks) > 1 or posted for f in _in_flight(node, posted=posted)))
    sent = _in_flight(node, posted=posted)[0]
    update, blob = sent.header.digest, sent.header.value.blob
    node.deliver(ev.RequestWithdrawal("updates", updates=(update,)))
    cluster.run(lambda: False, cluster.now + 50)
    node.crash()
    node.start()
    core = node.core
    assert core is not None
    until = core.ledger.height + 5
    assert cluster.run(lambda: all(n.core is not None and n.core.ledger.height >= until for n in cluster.nodes))
    for member in cluster.nodes:
        assert member.core is not None
        assert not any(update in r.updates for c in member.core.ledger.components.values() for r in c.rounds)
        assert blob not in member.store.blobs or not posted, "its bytes went with the withdrawal"
        told = {w.scope: w for w in member.core.ledger.withdrawn}
        assert told.keys() == ({"updates", "rounds"} if posted else {"rounds"})  # which round it sends no other for
        assert (told["rounds"].first, told["rounds"].last) == (sent.header.value.round,) * 2
