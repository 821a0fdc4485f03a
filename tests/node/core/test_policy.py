"""The strictest of charter and institution is in force (G6), modality by modality, and every draw counts for ever."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from collegium.consensus.components import origin
from collegium.consensus.ledger import Withdrawn, genesis
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import contribution as contributing
from collegium.node.core import events as ev
from collegium.node.core import spending, training
from collegium.node.core.core import handle, load_node, start_node
from collegium.node.core.messages import Kind
from collegium.node.core.offers import why_idle
from collegium.node.core.state import NodeState, Options
from collegium.node.core.timers import TrainDue
from collegium.node.privacy import policy as governing
from collegium.node.privacy.policy import Bound, InForce
from collegium.protocol.charter import Charter
from collegium.protocol.claims import NO_EPSILON, Claim, DpEvents, effective_noise
from collegium.protocol.components import state_digest
from collegium.protocol.learning import Modality, PrivacyFloor, Task
from collegium.protocol.records import GENESIS
from collegium.protocol.signing import open_signed
from collegium.protocol.update import UpdateHeader, check_header
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.memory import MemoryStore
from collegium.sims.simulator.small import small_charter

ME = Identity.from_seed(sha256(b"me"))
M = 1_000_000
NAMES = ("backbone", "encoder/essays", "encoder/marks", "head/pass", "head/style")


def wide(noises: Mapping[str, int] | None = None, policies: Mapping[str, str] | None = None) -> Charter:
    """Marks and essays feed the head "pass", essays alone "style"; everything with noise of its own."""
    small = small_charter([ME], min_updates=1)
    noises, policies = noises or {}, policies or {}
    names = [name for name in NAMES if policies.get(name.partition("/")[2]) != "never"]
    return replace(
        small,
        components=tuple(
            replace(small.components[0], name=name, noise_multiplier=noises.get(name, n * M))
            for n, name in enumerate(names, 1)
        ),
        learning=replace(
            small.learning,
            modalities=(Modality("essays", "text", 4, 1), Modality("marks", "tabular", 4, 1)),
            tasks=(
                Task("pass", "binary", 2, ("essays", "marks")),
                Task("style", "binary", 2, ("essays",)),
            ),
            floors=tuple(PrivacyFloor(n, policies.get(n, "dp"), 8000, 10_000) for n in ("essays", "marks")),
        ),
    )


def own(charter: Charter, **policies: str) -> tuple[InForce, ...]:
    return tuple(
        governing.in_force(floor, None, Bound(policies.get(floor.modality, "open"), 4000, 5000))
        for floor in charter.learning.floors
    )


def started(
    charter: Charter, plan: contributing.Plan | None = None, **snapshot: object
) -> tuple[NodeState, list[ev.Effect]]:
    """A core that is ready to train; what it does then."""
    options = Options(hosted=tuple(spec.name for spec in charter.components), plan=plan or contributing.Plan())
    core = load_node(charter, ME, options, ev.Snapshot(**snapshot))  # type: ignore[arg-type]  # passed through by name
    effects = start_node(core, 0)
    folds: list[ev.Event] = [
        ev.Folded(name, 0, 0, GENESIS, state_digest(name, origin(core.specs[name])), 0) for name in core.hosted
    ]
    return core, effects + handle(core, [ev.LearnerReady(core.hosted), *folds], 1)


def only(effects: Iterable[ev.Effect], kind: type) -> list[ev.Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def asked(effects: Iterable[ev.Effect]) -> ev.CheckBudget:
    (check,) = only(effects, ev.CheckBudget)
    assert isinstance(check, ev.CheckBudget)
    return check


def notices(effects: Iterable[ev.Effect], event: str) -> list[Mapping[str, object]]:
    return [effect.fields for effect in effects if isinstance(effect, ev.Notice) and effect.event == event]


def headers(effects: Iterable[ev.Effect], charter: Charter) -> list[UpdateHeader]:
    wires = [e.data[1:] for e in effects if isinstance(e, ev.Publish) and e.data[0] == Kind.HEADER]
    return [open_signed(UpdateHeader, wire, charter.federation).value for wire in wires]


def put_of(effects: Iterable[ev.Effect]) -> ev.PutReservation:
    (put,) = [e.put for e in effects if isinstance(e, ev.Persist) and isinstance(e.put, ev.PutReservation)]
    return put


def test_a_round_beyond_the_plan_is_asked_for_as_such() -> None:
    charter = wide()
    core, effects = started(charter)
    planned = charter.learning.planned_rounds
    assert asked(effects).rounds == planned
    assert core.run is not None
    for number, ahead in ((planned, 1), (planned + 1, 0), (planned + 9, 0)):
        later = replace(core.run, recipes=tuple(replace(recipe, round=number) for recipe in core.run.recipes))
        assert training._rounds_ahead(core, later) == ahead


# ---- what trains


def trained(cluster: Cluster, index: int) -> int:
    return len(cluster.nodes[index].store.reservations)


@pytest.mark.parametrize(("policy", "noise", "trains"), [("open", 0, True), ("dp", 0, False), ("never", 0, False)])
def test_g6_a_stricter_institution_does_not_train(policy: str, noise: int, trains: bool) -> None:
    cluster = Cluster(4, 3, Invariants, rounds=2, noise=noise)
    node = cluster.nodes[0]
    plan = replace(node.options.plan, policies=own(cluster.charter, **{"made-up": policy}))
    node.options = replace(node.options, plan=plan)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    assert (trained(cluster, 0) > 0) is trains
    assert trained(cluster, 1) > 0
    forbidden = [notice for notice in node.notices if notice.event == "training-forbidden"]
    assert bool(forbidden) is not trains


def test_g6_a_modality_under_never_is_not_hosted_and_not_in_the_draw() -> None:
    charter = wide()
    core, effects = started(charter, contributing.Plan(policies=own(charter, essays="never")))
    assert core.hosted == ("backbone", "encoder/marks", "head/pass", "head/style")
    assert list(core.withheld) == ["essays"]
    assert [fields["modality"] for fields in notices(effects, "modality-withheld")] == ["essays"]
    check = asked(effects)
    assert [reach.modality for reach in check.modalities] == ["marks"]
    assert "head/style" not in [part.component for part in check.parts], "nothing that may be used feeds it"
    assert not notices(effects, "training-forbidden"), "something remains"


def test_g6_data_that_reach_a_trained_head_through_followed_components_are_claimed() -> None:
    charter = wide()
    options = Options(hosted=("head/pass",), followed=("backbone", "encoder/essays", "encoder/marks"))
    core = load_node(charter, ME, options, ev.Snapshot())
    start_node(core, 0)
    folds: list[ev.Event] = [
        ev.Folded(name, 0, 0, GENESIS, state_digest(name, origin(core.specs[name])), 0) for name in core.held
    ]
    assert not only(handle(core, [ev.LearnerReady(core.held), *folds[1:]], 1), ev.CheckBudget), "one is not folded yet"
    check = asked(handle(core, folds[:1], 2))
    assert [reach.modality for reach in check.modalities] == ["essays", "marks"]
    assert all(reach.components == ("head/pass",) for reach in check.modalities)
    epsilon = dict.fromkeys(("essays", "marks"), 1000)
    (train,) = only(handle(core, [ev.BudgetAnswer(check.run, True, "", {}, epsilon, {})], 3), ev.Train)
    assert isinstance(train, ev.Train)
    assert [recipe.component for recipe in train.recipes] == ["head/pass"]
    assert train.context == (("backbone", GENESIS), ("encoder/essays", GENESIS), ("encoder/marks", GENESIS))


def test_g6_a_withheld_modality_is_not_followed_either() -> None:
    charter = wide()
    plan = contributing.Plan(policies=own(charter, essays="never"))
    options = Options(hosted=("head/pass",), followed=("encoder/essays", "encoder/marks"), plan=plan)
    core = load_node(charter, ME, options, ev.Snapshot())
    assert (core.hosted, core.followed, core.held) == (
        ("head/pass",), ("encoder/marks",), ("encoder/marks", "head/pass"),
    )  # fmt: skip


def test_what_is_hosted_and_not_in_the_draw_stands_beside_it_in_training() -> None:
    """Else every forward pass of a partial draw would have the first weights there."""
    charter = replace(wide(), learning=replace(wide().learning, recovery_share=0))
    core, _ = started(charter)
    core.acked[core.me, "backbone", 1] = bytes(32)  # its update of this round is out already
    core.run = None
    core.learn_partly = True
    core.out.clear()
    training.learn(core)
    check = asked(core.drain())
    epsilon = {reach.modality: 1000 for reach in check.modalities}
    (train,) = only(handle(core, [ev.BudgetAnswer(check.run, True, "", {}, epsilon, {})], 3), ev.Train)
    assert isinstance(train, ev.Train)
    assert "backbone" not in {recipe.component for recipe in train.recipes}
    assert train.context == (("backbone", GENESIS),)


def test_g6_a_modality_under_dp_whose_data_would_reach_what_has_no_noise_stays_out() -> None:
    charter = wide({"head/style": 0}, {"essays": "open", "marks": "open"})
    core, effects = started(charter, contributing.Plan(policies=own(charter, essays="dp")))
    assert "head/style carries no noise" in core.withheld["essays"]
    assert [reach.modality for reach in asked(effects).modalities] == ["marks"]
    core, _ = started(charter, contributing.Plan(policies=own(charter, marks="dp")))
    assert core.withheld == {}, "marks do not reach it"


def test_a_modality_whose_encoder_is_not_hosted_pays_nothing() -> None:
    charter = wide()
    plan = contributing.Plan(engage=("encoder/marks", "head/*"))
    options = Options(hosted=("encoder/marks", "head/pass"), plan=plan)
    used = governing.used(charter, options.hosted, (), contributing.engaged(plan, options.hosted))
    assert used == ("marks",)


# ---- what it costs


def test_g6_each_modality_is_asked_about_with_what_its_data_reach() -> None:
    charter = wide()
    _, effects = started(charter)
    check = asked(effects)
    essays, marks = check.modalities
    assert essays.components == ("backbone", "encoder/essays", "encoder/marks", "head/pass", "head/style")
    assert marks.components == ("backbone", "encoder/essays", "encoder/marks", "head/pass")
    assert (essays.epsilon, essays.delta, essays.spent) == (8000, 10_000, ())
    assert check.rounds == charter.learning.planned_rounds
    stricter = asked(started(charter, contributing.Plan(rounds=7, policies=own(charter, essays="dp")))[1])
    assert [(reach.epsilon, reach.delta) for reach in stricter.modalities] == [(4000, 5000), (8000, 10_000)]
    assert stricter.rounds == 7


def run_draw(charter: Charter) -> tuple[NodeState, ev.PutReservation, list[UpdateHeader]]:
    core, effects = started(charter)
    noises = {part.component: part.noise_multiplier + 7 for part in asked(effects).parts}
    noises["encoder/marks"] = 1  # whatever a worker answers
    answer = ev.BudgetAnswer(1, True, "", noises, {"essays": 300, "marks": 200}, {"essays": 2, "marks": 1000})
    effects = handle(core, [answer], 2)
    put = put_of(effects)
    again = handle(core, [answer], 2)
    assert not only(again, ev.Train) + only(again, ev.Persist), "a second answer reserves nothing"
    warned = notices(effects, "budget-runs-out")
    assert [(f["modality"], f["last_rounds"]) for f in warned] == [
        ("essays", dict.fromkeys(("backbone", "encoder/essays", "encoder/marks", "head/pass", "head/style"), 2))
    ]
    (train,) = only(effects, ev.Train)
    assert isinstance(train, ev.Train)
    assert [(r.component, r.noise_multiplier) for r in train.recipes] == [
        (part.component, part.noise_multiplier) for part in put.parts
    ]
    blobs = {name: (sha256(name.encode()), 100) for name in core.hosted}
    return core, put, headers(handle(core, [ev.Trained(1, blobs)], 3), charter)


def test_g6_what_is_reserved_is_what_is_trained_with_and_what_is_claimed() -> None:
    charter = wide()
    _, put, run = run_draw(charter)
    noises = {part.component: part.noise_multiplier for part in put.parts}
    assert noises["encoder/marks"] == 3 * M, "never less than the charter's"
    assert noises["encoder/essays"] == 2 * M + 7
    assert put.claims == (("essays", 300), ("marks", 200))
    assert len(run) == 5
    for head in run:
        check_header(head, charter)
        assert {entry.component: entry.noise_multiplier for entry in head.engaged} == noises
        essays, marks = head.claims
        reached = [noises[n] for n in ("backbone", "encoder/essays", "encoder/marks", "head/pass", "head/style")]
        assert essays.events == (DpEvents(100_000, effective_noise(reached), 4),)
        assert (marks.epsilon, marks.delta) == (200, 10_000)
        reached = [noises[n] for n in ("backbone", "encoder/essays", "encoder/marks", "head/pass")]
        assert marks.events == (DpEvents(100_000, effective_noise(reached), 4),)


def test_g6_a_restart_asks_with_what_was_reserved() -> None:
    charter = wide()
    _, put, _ = run_draw(charter)
    _, effects = started(charter, reservations=[put])
    check = asked(effects)
    assert check.run == 2
    assert [sum(d.count for d in reach.spent) for reach in check.modalities] == [4, 4]
    assert {part.component: part.last for part in check.parts} == {p.component: p.noise_multiplier for p in put.parts}


def test_g6_spend_statements_count_every_draw_under_its_own_noise() -> None:
    charter = wide()
    _, put, _ = run_draw(charter)
    learning = charter.learning
    less = replace(put, run=2, parts=put.parts[:1], claims=(("essays", 400),))
    essays = contributing.spend_statement([put, less], "essays", learning)
    assert sorted(d.noise_multiplier for d in essays) == sorted(
        [M + 7, effective_noise([M + 7, 2 * M + 7, 3 * M, 4 * M + 7, 5 * M + 7])]
    )
    assert contributing.spend_statement([less], "marks", learning) == (), "its data were not in that draw"
    style = replace(put, run=3, parts=(put.parts[4],), claims=(("essays", 1), ("marks", 1)))
    assert contributing.spend_statement([style], "marks", learning) == (), "the head of a task that reads no marks"
    beside = replace(put, run=3, parts=(put.parts[2],), claims=(("essays", 1), ("marks", 1)))
    (line,) = contributing.spend_statement([beside], "essays", learning)
    assert line.noise_multiplier == 3 * M, "the gradient of an encoder of marks comes back through the essays' logits"


@pytest.mark.parametrize(
    ("left", "recovers", "asks"), [(2, False, False), (1, False, True), (9, True, True)], ids=["enough", "last", "ends"]
)
def test_g6_what_may_be_the_last_run_is_told_with_its_update(left: int, recovers: bool, asks: bool) -> None:
    """The others then do not train a next round that cannot close: by the budget's end, or by that of the reserve."""
    charter = wide()
    core, _ = started(charter)
    if recovers:
        closed = tuple((name, 1 - contributing.RECOVERY_ROUNDS) for name in core.hosted)
        core.ledger = replace(core.ledger, withdrawn=(Withdrawn(sha256(b"other"), 1, "refold", 1, b"", closed),))
    effects = handle(core, [ev.BudgetAnswer(1, True, "", {}, {}, {"essays": left, "marks": 1000})], 2)
    assert only(effects, ev.Train)
    if not asks:
        assert only(effects, ev.CheckBudget) == []
        return
    check = asked(effects)
    assert (check.rounds, check.recovery) == (charter.learning.planned_rounds - 1, False)
    assert [sum(line.count for line in reach.spent) for reach in check.modalities] == [4, 4], "with this run"
    handle(core, [ev.BudgetAnswer(check.run, False, "the budget is spent")], 3)
    assert why_idle(core, "backbone") == "", "its update is still to come"
    assert core.run is not None
    effects = handle(core, [ev.Trained(1, {name: (sha256(name.encode()), 100) for name in core.hosted})], 4)
    assert len(headers(effects, charter)) == len(core.hosted)
    assert why_idle(core, "backbone") == "budget-spent"


def test_one_students_whole_cost_is_that_of_everything_it_reaches() -> None:
    charter = wide()
    _, put, _ = run_draw(charter)
    every = effective_noise([part.noise_multiplier for part in put.parts])
    both = contributing.whole([put], ["essays", "marks"], charter.learning)
    assert both == (DpEvents(100_000, every, 4),)
    assert contributing.whole([put], ["marks"], charter.learning) == contributing.spend_statement(
        [put], "marks", charter.learning
    )
    recalled = ev.PutReservation(
        2, (), 100_000, 0, (("essays", 1), ("marks", 1)),
        (("essays", DpEvents(100_000, 2 * M, 3)), ("marks", DpEvents(100_000, 3 * M, 4))),
    )  # fmt: skip
    (line,) = contributing.whole([recalled], ["essays", "marks"], charter.learning)
    assert line.noise_multiplier <= effective_noise([2 * M, 3 * M]), "never less than the truth"
    assert line.count == 7, "nothing says that any two were the same"


def test_a_budget_of_another_draw_reserves_nothing() -> None:
    core, _ = started(wide())
    for answer in (ev.BudgetAnswer(2, True, ""), ev.BudgetAnswer(0, False, "no")):
        effects = handle(core, [answer], 2)
        assert not only(effects, ev.Train)
        assert core.exhausted == ""
    effects = handle(
        core, [ev.BudgetAnswer(1, False, "essays: spent", {}, {"essays": 9000}), ev.TimerFired(TrainDue())], 3
    )
    assert not only(effects, ev.Train | ev.CheckBudget)  # type: ignore[arg-type]  # isinstance takes a union
    assert core.exhausted == "essays: spent"


# ---- what a lost disk had


def test_g6_a_node_whose_disk_was_lost_learns_from_its_own_updates_what_it_spent() -> None:
    cluster = Cluster(4, 4, Invariants, rounds=4, noise=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(4))
    node = cluster.nodes[0]

    def spent() -> int:
        return sum(
            d.count for d in contributing.spend_statement(node.store.reservations, "made-up", cluster.charter.learning)
        )

    before = spent()
    assert before == 4 * cluster.charter.learning.steps
    node.crash()
    node.store = MemoryStore()
    node.start()
    assert cluster.run(lambda: cluster.all_closed(4), 1_200_000)
    assert spent() == before
    assert any(put.recalled for put in node.store.reservations)


# ---- shards of the students


def by_shard(core: NodeState) -> list[dict[tuple[int, int], int]]:
    """What the students of each shard have spent: counts by rate and noise."""
    learning = core.charter.learning
    statements = (
        contributing.spend_statement(core.reservations, "made-up", learning, shard=s) for s in range(learning.shards)
    )
    return [{(d.sample_rate, d.noise_multiplier): d.count for d in statement} for statement in statements]


def test_g6_shards_take_turns_and_each_pays_for_its_own_runs() -> None:
    """Seven rounds and a statistic, three shards: 3, 2 and 2 rounds, and the release for each. A lost disk recalls it.

    After every step the simulator compares the claims with the runs on the disk (promises/spending.py).
    """
    cluster = Cluster(4, 4, Invariants, rounds=7, noise=1, shards=3, statistics=1)
    cluster.start()
    head = "head/task0"
    assert cluster.run(
        lambda: all(n.core is not None and n.core.ledger.components[head].round == 7 for n in cluster.nodes)
    )
    node = cluster.nodes[0]
    assert node.core is not None
    runs, steps = [put for put in node.core.reservations if put.steps > 1], cluster.charter.learning.steps
    assert [put.shard for put in runs] == [put.run % 3 for put in runs]
    (release,) = [put for put in node.core.reservations if put.steps == 1]
    assert release.shard == ev.EVERY_SHARD
    before = by_shard(node.core)
    assert sorted(spent[100_000, 1] for spent in before) == [2 * steps, 2 * steps, 3 * steps]
    assert [spent[M, 1] for spent in before] == [1, 1, 1]
    whole = contributing.whole(node.core.reservations, ["made-up"], cluster.charter.learning)
    assert {(d.sample_rate, d.count) for d in whole} == {(100_000, 3 * steps), (M, 1)}, "the worst off student's"
    assert not [n for peer in cluster.nodes for n in peer.notices if n.event == "spend-shrinks"]
    sums = [h.value for h in node.store.snapshot().headers if h.value.component.startswith("statistic/")]
    lost = contributing.recalled(next(h for h in sums if h.author == node.core.me), [], cluster.charter.learning)
    assert lost is not None
    assert lost.shard == ev.EVERY_SHARD, "it added up the students of all shards"
    node.crash()
    node.store = MemoryStore()
    node.start()
    assert cluster.run(lambda: node.core is not None and node.core.ledger.components[head].round == 7, 1_200_000)
    assert node.core is not None
    assert any(put.recalled for put in node.store.reservations)
    for has, had in zip(by_shard(node.core), before, strict=True):
        assert has.keys() == had.keys()
        assert all(has[key] >= had[key] for key in had), "never less than the truth"


def test_the_accountant_is_asked_about_a_shard() -> None:
    """Twenty rounds ahead are seven of a shard's; what it answers is told in rounds of all shards."""
    charter = wide()
    charter = replace(charter, learning=replace(charter.learning, shards=3, planned_rounds=20))
    core, effects = started(charter)
    assert asked(effects).rounds == 7
    handle(core, [ev.BudgetAnswer(1, True, "", {}, {}, {"essays": 4, "marks": 9})], 2)
    assert {name: left for name, (left, _) in core.forecast.items()} == {"essays": 10, "marks": 25}
    assert core.run is not None
    assert core.run.shard == 1


def test_g6_what_is_recalled_ends_the_draw_that_was_computed_without_it() -> None:
    charter = wide()
    _, _, run = run_draw(charter)
    lost, effects = started(charter)
    assert asked(effects).run == 1
    spending.recall_reservations(lost, run[0])
    assert lost.run is None
    effects = handle(lost, [ev.BudgetAnswer(1, True, "", {}, {"essays": 1, "marks": 1})], 3)
    assert not only(effects, ev.Train)
    again = asked(effects)
    assert [reach.spent for reach in again.modalities] == [claim.events for claim in run[0].claims]
    before = len(lost.reservations)
    spending.recall_reservations(lost, run[0])
    assert len(lost.reservations) == before, "once"


# ---- noise by use


def test_utilities_come_from_movement_and_are_bounded() -> None:
    assert contributing.utilities(["a", "b"], {}) == {"a": M, "b": M}
    assert contributing.utilities(["a", "b"], {"a": 5}) == {"a": M, "b": M}, "before all have moved"
    assert contributing.utilities(["a", "b"], {"a": 1, "b": 3}) == {"a": M // 2, "b": 3 * M // 2}
    extreme = contributing.utilities([str(n) for n in range(100)], {str(n): 10**9 if n == 0 else 1 for n in range(100)})
    assert (extreme["0"], extreme["1"]) == (16 * M, M // 16)


def test_claims_without_noise_say_so() -> None:
    charter = wide(dict.fromkeys(NAMES, 0), {"essays": "open", "marks": "open"})
    core, effects = started(charter)
    put = put_of(effects)
    assert put.claims == (("essays", NO_EPSILON), ("marks", NO_EPSILON))
    assert contributing.claims([put], put, core.policies, charter.learning) == (
        Claim("essays", (), NO_EPSILON, 0),
        Claim("marks", (), NO_EPSILON, 0),
    )


@pytest.mark.parametrize(
    ("taken", "opens"),
    [
        (Withdrawn(b"a", 9, "refold", 5, b"c", (("head/a", 3), ("head/b", 3))), {"head/a", "head/b"}),
        (Withdrawn(b"a", 9, "refold", 5, b"c", (("head/a", 3), ("head/b", 3)), "components", ("head/b",)), {"head/b"}),
        (
            Withdrawn(b"a", 9, "refold", 5, b"c", (("head/a", 3), ("head/b", 3)), "rounds", ("head/b",), 1, 2),
            {"head/b"},
        ),
        (
            Withdrawn(b"a", 9, "refold", 5, b"c", (("head/a", 3), ("head/b", 3)), "updates", updates=(b"u",)),
            {"head/a", "head/b"},
        ),
        (
            Withdrawn(b"a", 9, "rewind", 5, b"c", (("head/a", 3), ("head/b", 3)), since=(("head/a", 2),)),
            {"head/a"},
        ),
    ],
    ids=lambda value: value.scope + " " + value.mode if isinstance(value, Withdrawn) else "",
)
def test_g6_a_withdrawal_opens_the_reserve_for_5_rounds_of_what_it_takes_from(
    taken: Withdrawn, opens: set[str]
) -> None:
    ledger = replace(genesis(wide()), withdrawn=(taken,))
    for number, open_ in ((4, opens), (8, opens), (9, set[str]())):
        assert {name for name in ("head/a", "head/b") if contributing.recovering(ledger, {name: number})} == open_
    assert contributing.recovering(ledger, {"head/a": 8, "head/b": 8}), (
        "one of them is enough: one training run trains all"
    )
