"""What is shown agrees with the ledger, and names who was missing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from collegium.consensus.ledger import Ledger
from collegium.crypto.errors import UsageError
from collegium.node import views
from collegium.node.core import events as ev
from collegium.node.core.state import NodeState
from collegium.node.home.paths import GOOD_FREE
from collegium.node.privacy.policy import Bound, InForce, in_force
from collegium.node.store import Metric, Store
from collegium.node.views import Context, InFlight, Live, membership
from collegium.node.views.ledger import component_of
from collegium.node.views.notes import older
from collegium.protocol.charter import Charter
from collegium.protocol.claims import DpEvents
from collegium.protocol.records import IDLE, Idle, WithdrawalStatement
from collegium.sims.simulator.cluster import Cluster, Node
from collegium.sims.simulator.invariants import Invariants

ROUNDS = 4


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Four nodes, two components; one is cut off for a while, and another withdraws."""
    cluster = Cluster(4, 11, Invariants, rounds=ROUNDS, components=2)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    cluster.nodes[3].crash()
    assert cluster.run(lambda: cluster.all_closed(2))
    cluster.nodes[3].start()
    cluster.nodes[0].deliver(ev.RequestWithdrawal())

    def settled() -> bool:
        components = [c for node in cluster.nodes if node.core for c in node.core.ledger.components.values()]
        return all(
            c.generation == 1 and c.certified and (c.certified.round, c.certified.generation) == (ROUNDS, 1)
            for c in components
        )

    assert cluster.run(settled)
    return cluster


def fill(store: Store, node: Node) -> None:
    """Put into the real store what the simulated one holds."""
    snapshot = node.store.snapshot()
    for stored in snapshot.blocks:
        store.apply([ev.PutRecord(record) for record in stored.records])
        store.apply([ev.PutBlock(stored.block, stored.certificate, tuple(r.digest for r in stored.records))])
    store.apply([ev.PutRecord(record) for record in snapshot.records])
    store.apply([*snapshot.reservations, *(ev.PutPublished(draw) for draw in snapshot.published)])


@pytest.fixture
def context(cluster: Cluster, tmp_path: Path) -> Iterator[Context]:
    node = cluster.nodes[1]
    with Store.open(tmp_path / "node.db", cluster.charter.federation) as store:
        fill(store, node)
        for notice in node.notices:
            if notice.event == "round-closed":
                facts = {name: hexed(value) for name, value in notice.fields.items()}
                component, round_, height = str(facts["component"]), int(str(facts["round"])), int(str(facts["height"]))
                store.put_round_notes([(component, round_, height, facts)])
        yield views.offline(cluster.charter, store, me=node.identity.public_key, hosted=("head/task0",))


def hexed(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(hexed(key)): hexed(item) for key, item in value.items()}
    return [hexed(item) for item in value] if isinstance(value, list | tuple) else value


def live(cluster: Cluster) -> Live:
    others = frozenset(node.identity.public_key for node in cluster.nodes[2:])
    sent = InFlight(cluster.nodes[2].identity.public_key, "head/task0", ROUNDS + 1, 2, True, "")
    return Live(
        started=1.8e9,
        addresses=("/ip4/127.0.0.1/tcp/4001",),
        neighbours=others,
        max_neighbours=6,
        received=10,
        sent=20,
        signing=False,
        reports=1,
        contributing=False,
        exhausted="ε is spent",
        forecast={"made-up": (3, {"head/task0": 7})},
        learner="failed",
        learner_detail="no such folder",
        learner_device="cpu",
        learner_left_out=0,
        learner_progress=(0, 0),
        learner_cut={},
        learner_warnings=(),
        training=None,
        view=0,
        folded={"head/task0": (ROUNDS, 1, b"c" * 32, b"d" * 32)},
        in_flight=(sent,),
        refused={"norm-above": 3},
    )


def under(context: Context, charter: Charter) -> Context:
    """The same ledger with another charter in force."""
    return replace(context, ledger=replace(context.ledger, charter=charter))


def private(context: Context) -> Charter:
    """The same charter with a budget of ε = 4 at δ = 1e-5, a quarter of it kept for recovery."""
    learning = context.charter.learning
    floors = (replace(learning.floors[0], policy="dp", epsilon=4000, delta=10_000),)
    return replace(context.charter, learning=replace(learning, floors=floors, recovery_share=250_000))


def name_of(cluster: Cluster, index: int) -> str:
    member = cluster.charter.member(cluster.nodes[index].identity.public_key)
    assert member is not None
    return member.name


T = TypeVar("T")


def known(value: T | None) -> T:
    assert value is not None
    return value


def test_every_view_is_json(context: Context, cluster: Cluster) -> None:
    for shown in (context, replace(context, live=live(cluster))):
        for value in (
            views.status(shown),
            views.peers(shown),
            views.components(shown),
            views.rounds(shown),
            views.round_detail(shown, "head/task0", 2),
            views.ledger_log(shown),
            views.ledger_show(shown, "1"),
            views.privacy(shown, own(shown)),
            views.privacy_log(shown),
            views.unlearn(shown),
        ):
            json.dumps(value, allow_nan=False)


def test_the_offline_ledger_is_the_nodes_own(context: Context, cluster: Cluster) -> None:
    core = cluster.nodes[1].core
    assert core is not None
    assert context.ledger == core.ledger
    assert context.published == cluster.nodes[1].store.published
    assert context.published


def test_status_says_what_holds_the_node_up(context: Context, cluster: Cluster) -> None:
    without = views.status(context)
    assert without["running"] is False
    assert without["live"] is None
    shown = views.status(replace(context, live=live(cluster)))
    text = " ".join(shown["notes"])
    for part in ("signs nothing yet: 1 of the 2", "ε is spent", "does not contribute", "no such folder"):
        assert part in text
    facts = shown["live"]
    assert facts is not None
    assert [m["name"] for m in facts["connected"]] == sorted([name_of(cluster, 2), name_of(cluster, 3)])
    assert [m["name"] for m in facts["not_connected"]] == [name_of(cluster, 0)]


def test_one_note_names_all_components_of_which_the_states_are_uncertified(context: Context) -> None:
    assert not [note for note in views.status(context)["notes"] if "uncertified" in note]
    components = {name: replace(c, hosts=tuple(sorted(c.hosts)[:2])) for name, c in context.ledger.components.items()}
    few = replace(context, ledger=replace(context.ledger, components=components))
    shown = views.status(few)
    (note,) = [note for note in shown["notes"] if "uncertified" in note]
    assert note.startswith(f"{', '.join(sorted(components))} have 2 hosts each: their states are uncertified. From 4 ")
    assert all(finding["advice"] for finding in shown["findings"]), shown["findings"]
    assert [f"{finding['found']} {finding['advice']}" for finding in shown["findings"]] == shown["notes"]


def test_every_note_says_what_to_do(context: Context, cluster: Cluster) -> None:
    for learner in ("failed", "waiting", "ready"):
        state = replace(live(cluster), learner=learner, goal=9, taking=("head/task0",), data_missing="no such file")
        for finding in views.status(replace(context, live=state))["findings"]:
            assert finding["advice"], finding


def test_an_older_home_is_told_to_forget_again_who_can_still_be_trained_on() -> None:
    (behind,), both = older({"update": 3}, False), older({"update": 3, "withdrawal": 1}, True)
    assert "3 records of its own came back" in behind.found
    assert "4 records of its own came back" in both[0].found
    assert "trains nothing" in both[1].found
    assert "`collegium unlearn resume`" in both[1].advice
    assert older({}, False) == []
    assert older({}, True) == both[1:], "after a restart, when nothing comes back any more, it still trains nothing"


def test_what_the_charter_makes_so_is_a_fact_and_no_note(tmp_path: Path) -> None:
    small = Cluster(3, 1, Invariants, rounds=1)  # no lost member can be spared, and no state can be certified
    small.start()
    assert small.run(lambda: small.all_closed(1))
    with Store.open(tmp_path / "node.db", small.charter.federation) as store:
        for stored in small.nodes[0].store.snapshot().blocks:
            store.apply([ev.PutRecord(record) for record in stored.records])
            store.apply([ev.PutBlock(stored.block, stored.certificate, tuple(r.digest for r in stored.records))])
        shown = views.status(views.offline(small.charter, store))
    assert shown["federation"]["tolerated_losses"] == 0
    assert {c["label"] for c in shown["components"]} == {"uncertified"}
    assert shown["notes"] == []


def test_peers_tell_who_is_who(context: Context, cluster: Cluster) -> None:
    peers = {peer["name"]: peer for peer in views.peers(replace(context, live=live(cluster)))["peers"]}
    assert peers[name_of(cluster, 0)]["state"] == "withdrew"
    assert peers[name_of(cluster, 1)]["me"] is True
    assert peers[name_of(cluster, 1)]["connected"] is None
    assert peers[name_of(cluster, 2)]["connected"] is True
    assert peers[name_of(cluster, 0)]["connected"] is False
    assert peers[name_of(cluster, 2)]["components"] == ["head/task0", "head/task1"]


def test_who_withdrew_a_part_is_a_member(context: Context, cluster: Cluster) -> None:
    ledger = context.ledger
    part = tuple(replace(w, scope="rounds", components=("head/task0",), first=1, last=1) for w in ledger.withdrawn)
    peers = views.peers(replace(context, ledger=replace(ledger, withdrawn=part)))["peers"]
    assert {peer["state"] for peer in peers} == {"member"}


def test_components_tell_who_the_open_round_waits_for(context: Context, cluster: Cluster) -> None:
    first, second = views.components(replace(context, live=live(cluster)))
    assert (first["round"], first["generation"], first["label"]) == (ROUNDS, 1, "certified")
    assert (first["hosted_here"], second["hosted_here"]) == (True, False)
    assert first["digest"] == (b"d" * 32).hex()
    opened = first["open_round"]
    assert isinstance(opened, dict)
    assert [m["name"] for m in opened["on_the_way"]] == [name_of(cluster, 2)]
    assert name_of(cluster, 2) not in [m["name"] for m in opened["waiting_for"]]
    assert opened["waiting_for"] == [], "all have trained for as many rounds as they planned"
    assert {(m["name"], m["why"]) for m in first["not_training"]} >= {(name_of(cluster, 3), "plan-done")}
    assert first["trainers"] == 0


def test_rounds_name_the_counted_the_missing_and_the_withdrawn(context: Context, cluster: Cluster) -> None:
    rounds = {r["round"]: r for r in views.rounds(context, "head/task0")}
    assert sorted(rounds) == list(range(1, ROUNDS + 1))
    assert [m["name"] for m in rounds[1]["withdrawn"]] == [name_of(cluster, 0)]
    assert name_of(cluster, 0) not in [m["name"] for m in rounds[1]["counted"]]
    missing = rounds[2]["missing"]
    assert missing is not None
    (gone,) = missing
    assert gone["name"] == name_of(cluster, 3)
    assert "no update" in gone["why"]


def test_a_round_shows_weights_that_add_up_and_the_evaluation(context: Context) -> None:
    context.store.put_metrics(
        [
            Metric(2, 0, "task0", "auc", 0.75, 40, 1.0),
            Metric(2, 0, "task0", "auc", 0.8, 40, 1.0, home_layer=True),
            Metric(2, 0, "task0", "auc", float("nan"), None, 1.0, "sex=f"),
            Metric(2, 0, "task0", "auc", float("nan"), 60, 1.0, "sex=m"),
            Metric(2, 0, "task1", "auc", 0.5, 40, 1.0),
        ]
    )
    assert "evaluation" not in views.round_detail(context, "head/task0", 2), "it is this institution's own"
    shown = views.round_detail(context, "head/task0", 2, local=True)
    assert sum(entry["weight"] or 0.0 for entry in shown["counted"]) == pytest.approx(1, abs=1e-5)
    shared = {"task": "task0", "metric": "auc", "generation": 0, "home_layer": False, "too_few": False, "group": None}
    shared |= {"in_force": False, "unit": None}  # of the lists before the withdrawal
    assert shown["evaluation"] == [
        {**shared, "value": 0.75, "count": 40},
        {**shared, "value": 0.8, "count": 40, "home_layer": True},
        {**shared, "value": None, "count": None, "group": "sex=f", "too_few": True},
        {**shared, "value": None, "count": 60, "group": "sex=m"},
    ]
    assert len(shown["deciding_members"]) >= 3


def test_a_round_that_this_node_did_not_see_close_is_told_from_the_ledger(cluster: Cluster, tmp_path: Path) -> None:
    with Store.open(tmp_path / "bare.db", cluster.charter.federation) as store:
        fill(store, cluster.nodes[1])
        context = views.offline(cluster.charter, store)
        assert views.rounds(context)[0]["missing"] is None
        (gone,) = [
            m for m in views.round_detail(context, "head/task0", 2)["missing"] if m["name"] == name_of(cluster, 3)
        ]
        assert gone["why"]


def test_g6_a_component_that_too_few_can_train_is_said_to_wait_and_why(context: Context, cluster: Cluster) -> None:
    me, *others = sorted(context.ledger.members, key=lambda key: key != context.me)
    spent, unable = (Idle("head/task0", why) for why in ("budget-spent", "no-data"))

    def saying(*reasons: tuple[Idle, ...]) -> Context:
        offers = {
            key: replace(context.ledger.offers[key], idle=idle)
            for key, idle in zip((me, *others), ((), *reasons), strict=True)
        }
        return replace(context, ledger=replace(context.ledger, offers=offers))

    alone = saying((spent,), (unable,), (spent,))
    (waits,) = views.status(alone)["training"]["waiting"]
    assert (waits["component"], waits["trainers"], waits["needed"]) == ("head/task0", 1, 2)
    names = [context.member(key)["name"] for key in others]
    budget = f"{', '.join(sorted((names[0], names[2])))}: {IDLE['budget-spent']}"
    assert waits["why"] == f"1 of 2 trainers; {names[1]}: {IDLE['no-data']}; {budget}"
    with pytest.raises(UsageError) as caught:
        views.round_detail(alone, "head/task0", ROUNDS + 1)
    assert caught.value.advice == f"Closed are 1 to {ROUNDS}. Round {ROUNDS + 1} waits: {waits['why']}."
    two = saying((), (unable,), (spent,))
    assert views.status(two)["training"]["waiting"] == [], "two of two"
    with pytest.raises(UsageError) as caught:
        views.round_detail(two, "head/task0", ROUNDS + 1)
    assert caught.value.advice == f"Closed are 1 to {ROUNDS}."


def test_wrong_names_are_usage_errors(context: Context) -> None:
    for wrong in (
        lambda: views.rounds(context, "head/none"),
        lambda: views.round_detail(context, "head/task0", 99),
        lambda: views.ledger_show(context, "999"),
        lambda: views.ledger_show(context, "0"),
        lambda: views.ledger_show(context, "xyzxyz"),
        lambda: views.ledger_show(context, "ab"),
        lambda: views.ledger_show(context, "f" * 64),
        lambda: views.find_member(context, "nobody"),
        lambda: views.find_member(context, "member"),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_the_log_is_in_ledger_order_and_filters(context: Context, cluster: Cluster) -> None:
    everything = views.ledger_log(context, limit=1000)
    places = [(r["height"], r["position"]) for r in everything]
    assert places == sorted(places)
    assert len(everything) == context.ledger.tree.size
    assert views.ledger_log(context, limit=3) == everything[-3:]
    kinds = {str(r["kind"]) for r in everything}
    assert kinds == {"offer", "update", "attest", "withdrawal"}
    author = cluster.nodes[2].identity.public_key
    mine = views.ledger_log(context, author=author, kind="update", component="head/task1", limit=1000)
    assert {(r["author"]["name"], r["kind"], component_of(r["about"])) for r in mine} == {
        (name_of(cluster, 2), "update", "head/task1")
    }
    late = views.ledger_log(context, since=context.ledger.height, limit=1000)
    assert {r["height"] for r in late} == {context.ledger.height}


def test_the_log_says_what_a_motion_and_a_ballot_are(tmp_path: Path) -> None:
    cluster = Cluster(4, 5, Invariants, rounds=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    subject = cluster.nodes[3].identity.public_key
    cluster.nodes[0].deliver(ev.ProposeMotion("suspend", subject, b"", "it is silent", 1000))

    def core(index: int) -> NodeState:
        record = cluster.nodes[index].core
        assert record is not None
        return record

    assert cluster.run(lambda: bool(core(1).ledger.roll.motions))
    (motion,) = core(1).ledger.roll.motions
    cluster.nodes[1].deliver(ev.Cast(motion.digest, yes=False))
    assert cluster.run(lambda: bool(core(1).ledger.roll.outcomes))
    with Store.open(tmp_path / "node.db", cluster.charter.federation) as store:
        fill(store, cluster.nodes[1])
        context = Context(cluster.charter, core(1).ledger, store)
        moved, cast = (views.ledger_log(context, kind=kind)[0]["about"] for kind in ("motion", "ballot"))
    assert moved == {
        "action": "suspend",
        "subject": {"name": name_of(cluster, 3), "key": subject.hex()},
        "reason": "it is silent",
        "expires_after_height": motion.expiry,
    }
    assert cast == {"motion": motion.digest.hex(), "vote": "no"}


def test_who_is_to_be_expelled_is_told_so_and_why(tmp_path: Path) -> None:
    cluster = Cluster(4, 5, Invariants, rounds=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    subject = cluster.nodes[3].identity.public_key

    def ledgers() -> list[Ledger]:
        return [node.core.ledger for node in cluster.nodes if node.core is not None]

    cluster.nodes[0].deliver(ev.ProposeMotion("expel", subject, b"", "it sends noise", 1000))
    assert cluster.run(lambda: all(ledger.roll.motions for ledger in ledgers()))
    with Store.open(tmp_path / "node.db", cluster.charter.federation) as store:
        texts = views.status(Context(cluster.charter, ledgers()[3], store, me=subject))["notes"]
        assert any("The members vote on it" in note and "(reason: it sends noise)" in note for note in texts), texts
        (motion,) = ledgers()[0].roll.motions
        for other in cluster.nodes[1:3]:
            other.deliver(ev.Cast(motion.digest, yes=True))
        assert cluster.run(lambda: ledgers()[0].roll.seats[subject].gone == "expelled")
        (note,) = views.status(Context(cluster.charter, ledgers()[0], store, me=subject))["notes"]
    assert note.startswith("This node was expelled by the members (reason: it sends noise): it is no member since")


def test_a_block_and_a_record_are_found_by_their_beginnings(context: Context) -> None:
    block = views.ledger_show(context, "2")
    assert block["type"] == "block"
    assert views.ledger_show(context, block["id"][:12]) == block
    record = block["records"][0]
    shown = views.ledger_show(context, record["digest"][:16])
    assert shown["type"] == "record"
    assert (shown["seq"], shown["height"]) == (record["seq"], 2)


def test_members_are_found_by_name_and_by_key(context: Context, cluster: Cluster) -> None:
    key = cluster.nodes[2].identity.public_key
    assert views.find_member(context, name_of(cluster, 2)) == key
    assert views.find_member(context, key.hex()[:10]) == key


def own(context: Context, policy: str = "dp", epsilon: int = 8000) -> tuple[InForce, ...]:
    return tuple(in_force(floor, None, Bound(policy, epsilon, 10_000)) for floor in context.charter.learning.floors)


def put(number: int, round_: int, epsilon: int, steps: int = 4, noise: int = 1_500_000) -> ev.PutReservation:
    parts = (ev.Noised("head/task0", round_, noise),)
    return ev.PutReservation(number, parts, 100_000, steps, (("made-up", epsilon),))


def test_privacy_shows_the_log_and_the_strictest_budget(context: Context) -> None:
    noised = tuple(replace(spec, noise_multiplier=1_500_000) for spec in context.charter.components)
    charter = replace(private(context), components=noised)
    context = replace(under(context, charter), published=frozenset({101}))
    context.store.apply([put(101, 1, 900), put(102, 2, 1300)])
    shown = views.privacy(context, own(context))
    (line,) = shown["modalities"]
    assert (line["epsilon_budget"], line["epsilon_before_recovery"], line["epsilon_from"]) == (4.0, 3.0, "charter")
    assert (line["policy"], line["policy_from"], line["withheld"]) == ("dp", "charter", None)
    assert line["reaches"] == ["head/task0"]
    (stricter,) = views.privacy(context, own(context, "never"))["modalities"]
    assert (stricter["policy"], stricter["policy_from"]) == ("never", "institution")
    assert "never" in known(stricter["withheld"])
    (tighter,) = views.privacy(context, own(context, epsilon=2000))["modalities"]
    assert (tighter["epsilon_budget"], tighter["epsilon_from"], tighter["delta_from"]) == (
        2.0,
        "institution",
        "charter",
    )
    published = {d["run"]: d["published"] for d in shown["reservations"]}
    assert (published[101], published[102]) == (True, False)


def test_epsilon_spent_is_that_of_the_last_reservation(tmp_path: Path, cluster: Cluster) -> None:
    with Store.open(tmp_path / "draws.db", cluster.charter.federation) as store:
        context = views.offline(cluster.charter, store)
        context = under(context, private(context))
        store.apply([put(1, 1, 900), put(2, 2, 1300)])
        (line,) = views.privacy(context, own(context))["modalities"]
        assert line["epsilon_spent"] == 1.3


def test_a_policy_that_the_charter_does_not_carry_out_is_pointed_out(context: Context) -> None:
    assert "no noise" in str(views.privacy(context, own(context))["notes"])
    assert views.privacy(context, own(context, "open"))["notes"] == []


def test_the_forecast_counts_rounds_that_fit_and_names_the_last(cluster: Cluster, tmp_path: Path) -> None:
    with Store.open(tmp_path / "draws.db", cluster.charter.federation) as store:
        context = views.offline(cluster.charter, store)
        assert views.forecast(context, own(context, "open"))["modalities"] == {}  # nothing asks for an ε
        context = under(context, private(context))
        assert views.forecast(context, own(context))["modalities"] == {"made-up": None}  # nothing was drawn
        assert views.retraining_cost(context, own(context), 5) == []
        store.apply([put(1, 6, 900, steps=20)])
        forecast = views.forecast(context, own(context))
        left = known(forecast["modalities"]["made-up"])
        assert 0 < left["rounds_left"] < left["rounds_left_in_recovery"]
        assert left["last_rounds"] == {"head/task0": 6 + left["rounds_left"]}
        spent = known(known(forecast["student"])["epsilon"])
        assert spent == known(left["epsilon_now"]) > 0
        (cost,) = views.retraining_cost(context, own(context), 5)
        assert (cost["modality"], cost["rounds"], cost["epsilon_now"]) == ("made-up", 5, spent)
        assert spent < known(cost["epsilon_then"]) < known(cost["epsilon_budget"]), "training again is charged"
        (most,) = views.retraining_cost(context, own(context), 100_000)
        assert most["rounds"] == left["rounds_left_in_recovery"], "and no more than the whole ε"
        assert known(most["epsilon_then"]) <= known(most["epsilon_budget"])
        fewer = known(views.forecast(context, own(context, epsilon=2000))["modalities"]["made-up"])
        assert fewer["rounds_left"] < left["rounds_left"]
        for policy in ("never", "open"):
            free = replace(private(context).learning.floors[0], policy="open")
            loose = replace(context.charter, learning=replace(context.charter.learning, floors=(free,)))
            later = views.forecast(under(context, loose), own(under(context, loose), policy))
            assert known(later["student"])["epsilon"] == spent, "what was spent stays spent"
        lost = ev.PutReservation(
            2, put(2, 8, 0).parts, 100_000, 0, (("made-up", 950),), (("made-up", DpEvents(100_000, 9_000_000, 1)),)
        )
        store.apply([lost])
        later = views.forecast(context, own(context))
        assert known(known(later["student"])["epsilon"]) > spent, "what was recalled counts"
        again = known(later["modalities"]["made-up"])
        assert again["last_rounds"] == {"head/task0": 8 + again["rounds_left"]}, "rounds of a recalled draw are over"
        (drawn, recalled) = views.privacy(context, own(context))["reservations"]
        assert [(d["published"], d["recalled"]) for d in (drawn, recalled)] == [(False, False), (True, True)]


def test_a_spent_budget_is_told_and_what_to_do(cluster: Cluster, tmp_path: Path) -> None:
    with Store.open(tmp_path / "draws.db", cluster.charter.federation) as store:
        context = views.offline(cluster.charter, store)
        noised = tuple(replace(spec, noise_multiplier=1_500_000) for spec in context.charter.components)
        context = under(context, replace(private(context), components=noised))
        store.apply([put(1, 1, 1900)])
        assert views.privacy(context, own(context, epsilon=3000))["notes"] == []
        (note,) = views.privacy(context, own(context, epsilon=1000))["notes"]
        assert "ε 1.9 is spent of 1 (institution, of which 0.75 before recovery)" in note
        assert "stays spent" in note
        (note,) = views.privacy(context, own(context, epsilon=2000))["notes"]
        assert "ε 1.9 is spent of 2 (institution, of which 1.5 before recovery)" in note
        assert "in no planned round any more. The rest is kept for the recovery rounds" in note, "it may train there"
        assert "stays spent" not in note


def test_the_log_has_every_members_claims_and_own_draws_that_nobody_saw(context: Context, cluster: Cluster) -> None:
    context.store.apply([put(101, 1, 900)])
    lines = views.privacy_log(context)
    names = {line["member"]["name"] for line in lines if line["published"]}
    assert names == {name_of(cluster, n) for n in range(4)}
    both = [line for line in lines if line["published"] and len(line["rounds"]) == 2]
    assert both, "two components of one training run are one line"
    assert all(len(set(line["rounds"].values())) == 1 for line in both)
    (lost,) = [line for line in lines if not line["published"] and line["epsilon"] is not None]
    assert (lost["epsilon"], lost["steps"], lost["height"]) == (0.9, 4, None)
    other = views.privacy_log(context, member=cluster.nodes[2].identity.public_key)
    assert {line["member"]["name"] for line in other} == {name_of(cluster, 2)}
    assert len(views.privacy_log(context, limit=3)) == 3


def test_the_status_says_after_which_round_a_budget_runs_out(context: Context, cluster: Cluster) -> None:
    spent = live(cluster)
    assert spent.exhausted
    assert not any("runs out" in note for note in views.status(replace(context, live=spent))["notes"]), "it has"
    going = replace(spent, exhausted="")
    notes = views.status(replace(context, live=going))["notes"]
    assert any("made-up runs out after round 7, if nothing changes" in note for note in notes)
    planned = context.charter.learning.planned_rounds
    both = replace(going, forecast={"essays": (2, {"head/task0": 7, "b": 7}), "marks": (2, {"head/task0": 7})})
    (note,) = [note for note in views.status(replace(context, live=both))["notes"] if "runs out" in note]
    assert "essays, marks runs out after round 7," in note
    as_planned = replace(going, forecast={"made-up": (40, {"head/task0": planned})})
    assert not any("runs out" in note for note in views.status(replace(context, live=as_planned))["notes"])
    soon = replace(going, forecast={"made-up": (2, {"head/task0": planned})})
    assert any("runs out" in note for note in views.status(replace(context, live=soon))["notes"])


def test_a_plan_adds_to_what_is_spent(context: Context) -> None:
    charter = private(context)
    noises = {"head/task0": 1_500_000, "head/task1": 1_500_000}
    plan: Any = {"rounds": 10, "steps": 4, "sample_rate": 100_000, "noises": noises}
    (fresh,) = views.privacy_plan(charter, own(under(context, charter)), **plan)["modalities"]
    spent = [put(1, 1, 900)]
    (more,) = views.privacy_plan(charter, own(under(context, charter)), **plan, spent=spent)["modalities"]
    assert 0 < known(fresh["epsilon"]) < known(more["epsilon"])
    assert fresh["components"] == ["head/task0", "head/task1"]
    values = [known(point["epsilon"]) for point in fresh["by_round"]]
    assert values == sorted(values)
    assert [point["rounds"] for point in fresh["by_round"]] == [0, 1, 2, 5, 10]
    assert views.privacy_plan(charter, own(context, "never"), **plan)["modalities"] == []


def test_unlearn_shows_how_far_it_got(context: Context, cluster: Cluster) -> None:
    shown = views.unlearn(context)
    (withdrawal,) = shown["withdrawals"]
    assert withdrawal["member"]["name"] == name_of(cluster, 0)
    assert withdrawal["state"] == "refolded, certified, erased"
    assert all(c["label"] == "certified" and c["settled"] and c["generation"] == 1 for c in withdrawal["components"])
    ledger = context.ledger
    few = {name: replace(c, hosts=ledger.members[:2]) for name, c in ledger.components.items()}
    among_two = replace(context, ledger=replace(ledger, components=few))
    (withdrawal,) = views.unlearn(among_two)["withdrawals"]
    words = {c["component"]: c["label"] for c in views.status(among_two)["components"]}
    assert {c["component"]: c["label"] for c in withdrawal["components"]} == words, "one word, one meaning"
    assert set(words.values()) == {"uncertified"}
    assert withdrawal["state"] == "refolded, uncertified: too few hosts, erased"


def test_a_full_disk_and_a_state_that_differs_are_notes(context: Context, cluster: Cluster) -> None:
    def kinds(**facts: Any) -> set[str]:
        state = replace(live(cluster), **facts)
        return {finding["kind"] for finding in views.status(replace(context, live=state))["findings"]}

    assert "disk-nearly-full" in kinds(free=GOOD_FREE - 1)
    assert not kinds(free=GOOD_FREE) & {"disk-nearly-full", "state-differs"}
    assert "state-differs" in kinds(halted=("head/task0",))


def test_a_budget_that_runs_out_says_not_before_which_day_at_the_charters_pace(
    context: Context, cluster: Cluster
) -> None:
    name = "head/task0"
    last = context.ledger.components[name].round + 2
    state = replace(live(cluster), exhausted="", forecast={"made-up": (2, {name: last})})

    def found(pace_days: int) -> str:
        charter = context.charter
        paced = replace(charter, rules=replace(charter.rules, pace=pace_days * 86_400_000))
        shown = views.status(replace(under(context, paced), live=state))
        return next(note for note in shown["notes"] if "runs out" in note)

    assert f"runs out after round {last}, if nothing changes" in found(0)
    day = (datetime.now(UTC) + timedelta(days=14)).date()
    days = {f"(not before {(day + timedelta(days=late)).isoformat()} at the charter's pace)" for late in (-1, 0)}
    assert any(one in found(7) for one in days)


def test_a_scope_that_is_unknown_here_is_named_as_it_stands_in_an_inert_record() -> None:
    terms = WithdrawalStatement(bytes(32), bytes(32), "half", "refold", 1)
    assert "does not know (half)" in membership.scope(terms)
    assert membership.scope(replace(terms, scope="rounds", components=("head/a",), first=1, last=2)) == (
        "rounds 1 to 2 of head/a"
    )
