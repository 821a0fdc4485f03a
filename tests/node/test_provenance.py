"""The contributors to a state: figures held against an independent count over the same ledger."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from collegium.consensus.components import Entry, Round, State
from collegium.crypto.errors import UsageError, VerificationError
from collegium.crypto.hashing import sha256
from collegium.crypto.identity import Identity
from collegium.node.core import events as ev
from collegium.node.provenance import Coalitions, Figures, blame, coalitions_of, leave_one_out, shapley
from collegium.node.provenance.blame import WEIGHTS, Blame
from collegium.node.provenance.influence import most_coalitions
from collegium.node.provenance.plot import html, png
from collegium.node.verify import Report, verify_ledger
from collegium.protocol import schema
from collegium.protocol.learning import Learning, Modality, Task
from collegium.protocol.membership import Rekeying
from collegium.protocol.signing import sign
from collegium.protocol.update import Integers, payload_values
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.liars import LIES
from collegium.sims.simulator.small import small_charter

from .memory import Memory

NAME = "head/task0"


def grown(rounds: int = 4, seed: int = 7, prepare: Callable[[Cluster], None] | None = None, **more: object) -> Cluster:
    cluster = Cluster(4, seed, Invariants, rounds=rounds, **more)  # type: ignore[arg-type]  # passed through by name
    if prepare is not None:
        prepare(cluster)
    cluster.start()
    return cluster


def until(cluster: Cluster, done: Callable[[], bool]) -> None:
    assert cluster.run(done, cluster.now + 600_000)


def seen(cluster: Cluster, node: int = 1) -> tuple[Report, Memory]:
    cluster.run(lambda: False, cluster.now + 5000)
    blocks = list(cluster.nodes[node].store.snapshot().blocks)
    return verify_ledger(cluster.charter, blocks), Memory(dict(cluster.nodes[node].store.blobs))


def by_name(blamed: Blame) -> dict[str, Any]:
    return {member["name"]: member for member in blamed["members"]}


@pytest.fixture(scope="module")
def withdrawn() -> Cluster:
    """Two rounds of four, then member 0 withdraws, then two rounds more; noises differ, so weights do."""

    def differ(cluster: Cluster) -> None:
        for number, node in enumerate(cluster.nodes):
            node.options = replace(node.options, plan=replace(node.options.plan, lot=1000 * (1 + 4 * number)))

    cluster = grown(noise=1_000_000, prepare=differ)
    until(cluster, lambda: cluster.all_closed(2))
    cluster.nodes[0].deliver(ev.RequestWithdrawal())
    until(cluster, lambda: cluster.all_closed(4))
    return cluster


def test_shares_are_what_a_count_over_the_lists_gives(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    blamed = blame(report, NAME, data)
    members = by_name(blamed)
    spec, rounds = withdrawn.charter.components[0], report.ledger.components[NAME].rounds
    shares: dict[bytes, float] = {}
    norms: dict[bytes, int] = {}
    for round_ in rounds:
        # The formula of design.md section 8, written out.
        v = [entry.variance for entry in round_.entries]
        v0 = max(1, sorted(v)[(len(v) - 1) // 2])
        w = [(v0 << 16) // (v0 + value) for value in v]
        a = [
            max(1, ((pair << 15) // sum(w) + (1 << 15) // len(v)) >> entry.staleness)
            for pair, entry in zip(w, round_.entries, strict=True)
        ]
        for entry, weight in zip(round_.entries, a, strict=True):
            values = payload_values(data.blobs[entry.blob], spec)
            shares[entry.author] = shares.get(entry.author, 0.0) + weight / sum(a) / len(rounds)
            norms[entry.author] = norms.get(entry.author, 0) + sum(int(x) ** 2 for x in values)
    for number, node in enumerate(withdrawn.nodes):
        member, key = members[f"member {number}"], node.identity.public_key
        assert member["key"] == key.hex()
        assert member["weight_share"] == pytest.approx(shares.get(key, 0.0))
        assert member["squared_norm"] == norms.get(key, 0)
        assert member["norm_share"] == pytest.approx(norms.get(key, 0) / sum(norms.values()))
        counted = [entry for round_ in rounds for entry in round_.entries if entry.author == key]
        assert member["rounds"] == len(counted)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert len({round(share, 6) for share in shares.values()}) == 3


def test_a_withdrawn_contribution_is_told_and_not_counted(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    members = by_name(blame(report, NAME, data))
    gone = members["member 0"]
    assert (gone["state"], gone["rounds"], gone["weight_share"], gone["squared_norm"]) == ("withdrew", 0, 0.0, 0)
    key = withdrawn.nodes[0].identity.public_key
    assert gone["withdrawn"] == sum(
        e.author == key for (name, _), r in report.frozen.items() if name == NAME for e in r.entries
    )
    assert gone["withdrawn"]
    assert gone["missing"] == {"withdrew": report.ledger.components[NAME].round - gone["withdrawn"]}
    assert {m["withdrawn"] for name, m in members.items() if name != "member 0"} == {0}


def test_who_withdrew_a_single_update_is_a_member_and_why_it_is_missing_later_is_as_seen() -> None:
    cluster = grown(rounds=9)
    until(cluster, lambda: cluster.all_closed(2))
    node, key = cluster.nodes[3], cluster.nodes[3].identity.public_key
    assert node.core is not None
    entries = node.core.ledger.components[NAME].rounds[0].entries
    (update,) = [entry.update for entry in entries if entry.author == key]
    node.deliver(ev.RequestWithdrawal("updates", updates=(update,)))
    until(cluster, lambda: cluster.all_closed(4))
    node.crash()
    until(cluster, lambda: all(n.core is not None and n.core.folded.get(NAME, (0,))[0] >= 6 for n in cluster.nodes[:3]))
    report, data = seen(cluster)
    assert [w.scope for w in report.ledger.withdrawn] == ["updates"]
    missed = [n for (_, n), r in report.frozen.items() if key not in {e.author for e in r.entries}]
    assert len(missed) >= 2
    notes = {missed[0]: {key.hex(): "no connection from here"}}
    member_3 = by_name(blame(report, NAME, data, notes=notes))["member 3"]
    assert (member_3["state"], member_3["withdrawn"]) == ("member", 1)
    assert member_3["missing"] == {"no connection from here": 1, "no update in the ledger": len(missed) - 1}


def test_who_withdrew_everything_and_goes_on_is_a_member_again() -> None:
    cluster = grown(rounds=8)
    until(cluster, lambda: cluster.all_closed(2))
    node, key = cluster.nodes[3], cluster.nodes[3].identity.public_key
    node.deliver(ev.RequestWithdrawal())
    until(cluster, lambda: cluster.all_closed(4))
    node.deliver(ev.SetContributing(True))
    until(cluster, lambda: cluster.all_closed(8))
    report, data = seen(cluster)
    (withdrawal,) = report.ledger.withdrawn
    member_3 = by_name(blame(report, NAME, data))["member 3"]
    assert member_3["state"] == "member"
    missed = [r for r in report.frozen.values() if key not in {e.author for e in r.entries}]
    assert member_3["missing"] == {"withdrew": len(missed)}
    assert member_3["rounds"] >= 2
    assert all(round_.height >= withdrawal.height for round_ in missed)


def test_what_a_rewind_voids_nobody_withdrew() -> None:
    cluster = grown(rounds=4)
    until(cluster, lambda: cluster.all_closed(2))
    subject = cluster.nodes[3].identity.public_key
    assert cluster.nodes[0].core is not None
    terms = ev.RequestWithdrawal().terms(
        cluster.federation, subject, "rewind", cluster.nodes[0].core.ledger.heads[subject][0]
    )
    cluster.nodes[0].deliver(ev.ProposeMotion("rewind", subject, schema.dump(terms), "", 1000))
    until(cluster, lambda: all(n.core is not None and n.core.ledger.roll.motions for n in cluster.nodes))
    (motion,) = cluster.nodes[0].core.ledger.roll.motions
    for node in cluster.nodes[1:3]:
        node.deliver(ev.Cast(motion.digest, True))
    until(cluster, lambda: all(n.core is not None and n.core.ledger.withdrawn for n in cluster.nodes))
    report, data = seen(cluster)
    members = by_name(blame(report, NAME, data))
    assert {member["state"] for member in members.values()} == {"member"}
    assert all(member["missing"]["rewound"] == 1 for member in members.values())
    assert not any("withdrew" in member["missing"] for member in members.values())


def test_a_statistic_is_shared_by_all_that_it_adds_up_and_waits_for_nobody_twice() -> None:
    cluster = grown(rounds=3, statistics=1, seed=4)
    late = cluster.nodes[3]
    late.crash()
    name = "statistic/task0"
    others = cluster.nodes[:3]
    until(cluster, lambda: all(n.core is not None and n.core.folded.get(name, (0,))[0] >= 1 for n in others))
    late.start()
    until(cluster, lambda: all(n.core is not None and n.core.folded.get(name, (0,))[0] >= 2 for n in cluster.nodes))
    report, data = seen(cluster)
    blamed = blame(report, name, data)
    assert [len(r.entries) for r in report.ledger.components[name].rounds] == [3, 1]
    assert blamed["weight_is"] == WEIGHTS["sum"]
    assert {member["weight_share"] for member in blamed["members"]} == {0.25}
    assert not any(member["missing"] for member in blamed["members"])


def test_epsilon_is_that_of_the_last_claim(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    members = by_name(blame(report, NAME, data))
    for number, node in enumerate(withdrawn.nodes):
        own = [u for u in report.updates.values() if u.header.author == node.identity.public_key]
        last = max(own, key=lambda u: u.seq).header.claims[0]
        claims: Any = members[f"member {number}"]["epsilon"]
        (claimed,) = claims
        assert claimed["modality"] == "made-up"
        assert claimed["epsilon"] == (None if last.epsilon == 2**32 - 1 else last.epsilon / 1000)


def test_bytes_that_are_not_here_are_counted_and_left_out(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    whole = blame(report, NAME, data)
    first = report.ledger.components[NAME].rounds[0].entries[0]
    del data.blobs[first.blob]
    blamed = blame(report, NAME, data)
    assert (whole["updates_without_bytes"], blamed["updates_without_bytes"]) == (0, 1)
    name = report.ledger.roll.seats[first.author].name
    before, after = by_name(whole)[name], by_name(blamed)[name]
    assert after["updates_without_bytes"] == 1
    assert after["squared_norm"] < before["squared_norm"]
    assert after["weight_share"] == before["weight_share"]  # weights of the mean need no bytes
    data.blobs.clear()
    bare = blame(report, NAME, data)
    assert {m["norm_share"] for m in by_name(bare).values() if m["rounds"]} == {None}


def test_damaged_bytes_are_named(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    first = report.ledger.components[NAME].rounds[0].entries[0]
    data.blobs[first.blob] = data.blobs[first.blob][:-1] + b"x"
    with pytest.raises(VerificationError, match="blob-digest"):
        blame(report, NAME, data)


def test_an_unknown_component_is_refused(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    with pytest.raises(UsageError, match="There is no component 'head/none'"):
        blame(report, "head/none", data)


def test_a_robust_rule_needs_the_bytes_for_its_shares() -> None:
    cluster = grown(rounds=2, rule="multi_krum")
    until(cluster, lambda: cluster.all_closed(2))
    report, data = seen(cluster)
    blamed = blame(report, NAME, data)
    members = by_name(blamed)
    chosen = dict.fromkeys(members, 0.0)
    for round_ in report.ledger.components[NAME].rounds:
        # Krum by hand: of four with f = 1, the three whose two nearest others are nearest.
        rows = [
            payload_values(data.blobs[entry.blob], cluster.charter.components[0]).astype(int)
            for entry in round_.entries
        ]
        f = round_.faults
        keep = len(rows) - f
        scores = []
        for index, row in enumerate(rows):
            away = sorted(int(((row - other) ** 2).sum()) for n, other in enumerate(rows) if n != index)
            scores.append((sum(away[: keep - 1]), index))
        for _, index in sorted(scores)[:keep]:
            chosen[report.ledger.roll.seats[round_.entries[index].author].name] += 1 / keep / 2
    assert {name: member["weight_share"] for name, member in members.items()} == pytest.approx(chosen)
    first = report.ledger.components[NAME].rounds[0].entries[0]
    del data.blobs[first.blob]
    assert (blame(report, NAME, data)["rounds_weighed"], blamed["rounds_weighed"]) == (1, 2)


def test_random_effects_say_how_much_institutions_differ_and_whom_they_hear(withdrawn: Cluster) -> None:
    """The same rounds as if an amendment had set the rule: it needs the bytes, and its figures are in weights."""
    report, data = seen(withdrawn)
    c = report.ledger.components[NAME]
    assert blame(report, NAME, data)["tensors"] == []
    effects = replace(c, rounds=tuple(replace(round_, rule="random-effects") for round_ in c.rounds))
    report = replace(report, ledger=replace(report.ledger, components={NAME: effects}))
    blamed = blame(report, NAME, data)
    (tensor,) = blamed["tensors"]
    shares = {member["key"]: member["weight_share"] for member in tensor["members"]}
    members = {member["key"]: member["weight_share"] for member in blamed["members"] if member["rounds"]}
    assert shares == pytest.approx(members)
    assert len({round(share, 6) for share in shares.values()}) > 1
    spec = withdrawn.charter.components[0]
    noises = [sorted(entry.variance for entry in round_.entries) for round_ in c.rounds]
    assert tensor["tensor"] == spec.tensors[0].name
    assert tensor["least_noise"] == pytest.approx(noises[0][0] * spec.grid_step**2)
    assert tensor["most_noise"] == pytest.approx(noises[0][-1] * spec.grid_step**2)
    assert tensor["tau2"] >= 0.0
    del data.blobs[c.rounds[0].entries[0].blob]
    assert blame(report, NAME, data)["rounds_weighed"] == len(c.rounds) - 1


def test_what_is_refused_is_told_by_name() -> None:
    def lying(cluster: Cluster) -> None:
        cluster.nodes[3].tell_lies(LIES["forged_acks"])

    cluster = grown(rounds=3, seed=1, prepare=lying, deadline=1000)
    honest = cluster.nodes[:3]
    until(cluster, lambda: all(n.core and n.core.folded.get(NAME, (0,))[0] >= 2 for n in honest))
    report, data = seen(cluster)
    liar = by_name(blame(report, NAME, data))["member 3"]
    refused = report.refusals.get("false-ack", 0)
    assert refused
    assert liar["refused"] == {"false-ack": refused}
    assert liar["rounds"] == 0
    key = cluster.nodes[3].identity.public_key
    waited = sum(key in active for active in report.active.values())
    assert sum(liar["missing"].values()) == waited
    assert by_name(blame(report, NAME, data))["member 0"]["refused"] == {}


def test_a_silent_host_is_missing_and_then_suspended() -> None:
    cluster = grown(rounds=14, seed=2)
    until(cluster, lambda: cluster.all_closed(2))
    silent = cluster.nodes[3]
    silent.crash()
    until(cluster, lambda: cluster.all_closed(9))
    report, data = seen(cluster)
    key, name = silent.identity.public_key, "member 3"
    member = by_name(blame(report, NAME, data))[name]
    (outcome,) = [o for o in report.ledger.roll.outcomes if o.motion.action == "suspend"]
    frozen = [report.frozen[NAME, n] for n in range(1, report.ledger.components[NAME].round + 1)]
    counted = sum(e.author == key for r in frozen for e in r.entries)
    after = sum(r.height > outcome.height for r in frozen)
    assert (member["rounds"], member["suspended"]) == (counted, after)
    assert after >= 2
    assert sum(member["missing"].values()) == len(frozen) - counted - after
    notes = {counted + 1: {key.hex(): "no connection from here"}}
    noted = by_name(blame(report, NAME, data, notes=notes))[name]
    assert noted["missing"]["no connection from here"] == 1


def test_a_member_shows_under_its_present_key() -> None:
    cluster = grown(rounds=6, seed=3)
    until(cluster, lambda: cluster.all_closed(2))
    node, new = cluster.nodes[2], Identity.from_seed(sha256(b"new key"))
    old = node.identity.public_key
    statement = sign(new, Rekeying(cluster.federation, new.public_key, old)).wire
    node.deliver(ev.ProposeMotion("rekey", old, statement, "", 1000))
    others = [n for n in cluster.nodes if n is not node]
    until(cluster, lambda: all(n.core and new.public_key in n.core.ledger.members for n in others))
    report, data = seen(cluster)
    members = by_name(blame(report, NAME, data))
    assert len(members) == 4
    member = members["member 2"]
    assert (member["key"], member["earlier_keys"]) == (new.public_key.hex(), [old.hex()])
    assert member["state"] == "member"
    rounds = report.ledger.components[NAME].rounds
    assert member["rounds"] == sum(e.author in (old, new.public_key) for r in rounds for e in r.entries)
    assert member["rounds"]


# ---- pictures


def test_pictures_hold_any_name_and_fetch_nothing(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    blamed = blame(report, NAME, data)
    for member, name in zip(blamed["members"], ("a$x_$b$", "<script>alert(1)</script>", "ü & co", "d"), strict=True):
        member["name"] = name
    assert png(blamed).startswith(b"\x89PNG")
    page = html(blamed)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<rect") == 8
    assert not any(word in page.replace("http://www.w3.org/2000/svg", "") for word in ("http", "src=", "@import"))


# ---- influence


def test_leaving_out_is_folding_the_others_alone(withdrawn: Cluster) -> None:
    """The state without a member, and how far it is away, by replaying the lists by hand."""
    from collegium.consensus.components import origin, replay

    report, data = seen(withdrawn)
    c, spec = report.ledger.components[NAME], withdrawn.charter.components[0]
    coalitions = coalitions_of(report, spec, c, c.rounds, data)
    assert coalitions.players == tuple(sorted(n.identity.public_key for n in withdrawn.nodes[1:]))
    given: list[State] = []

    def worth(states: Sequence[State]) -> list[Figures]:
        given.extend(states)
        return [np.array([float(state.sum()), 0.0]) for state in states]

    removals = leave_one_out(coalitions, coalitions.players, worth)
    for removal in removals:
        rounds = [replace(r, entries=tuple(e for e in r.entries if e.author != removal.member)) for r in c.rounds]
        alone, _ = replay(origin(spec), spec, rounds, lambda e: payload_values(data.blobs[e.blob], spec))
        whole, _ = replay(origin(spec), spec, c.rounds, lambda e: payload_values(data.blobs[e.blob], spec))
        assert removal.without.tolist() == [float(alone.sum()), 0.0]
        assert removal.with_it.tolist() == [float(whole.sum()), 0.0]
        assert removal.distance == pytest.approx(float(np.linalg.norm((whole - alone) / 256 * spec.grid_step)))
        assert removal.distance > 0
        assert removal.updates == sum(e.author == removal.member for r in c.rounds for e in r.entries)
    assert len(given) == 4  # everybody, and each of the three left out: once
    (nobody,) = leave_one_out(coalitions, [withdrawn.nodes[0].identity.public_key], worth)
    assert (nobody.updates, nobody.distance) == (0, 0.0)


def test_missing_bytes_leave_nobody_out(withdrawn: Cluster) -> None:
    report, data = seen(withdrawn)
    c = report.ledger.components[NAME]
    entry = c.rounds[1].entries[0]
    del data.blobs[entry.blob]
    with pytest.raises(VerificationError, match=f"round 2, update of {entry.author.hex()[:16]}: blob-missing"):
        coalitions_of(report, withdrawn.charter.components[0], c, c.rounds, data)


def game(members: int = 4, rounds: int = 3) -> Coalitions:
    """A component of five parameters and members with updates of their own, under the mean."""
    spec = small_charter([Identity.from_seed(bytes(32))], dimension=5).components[0]
    source = np.random.default_rng(5)
    keys = [bytes([n]) * 32 for n in range(members)]
    values: dict[bytes, Integers] = {}
    lists = []
    for number in range(1, rounds + 1):
        entries = tuple(Entry(key + bytes([number]), key, b"", 0, 0, 4) for key in keys)
        values |= {entry.update: source.integers(-100, 101, 5).astype(np.int8) for entry in entries}
        lists.append(Round(number, number, entries, (members - 1) // 3, b""))
    return Coalitions(spec, lists, values, {key: key for key in keys}, tuple(keys))


def judge(states: Sequence[State]) -> list[Figures]:
    """Two tasks: one saturates, one is a norm."""
    return [np.array([np.tanh(state.sum() / 2e4), np.linalg.norm(state) / 1e4]) for state in states]


def exact(coalitions: Coalitions) -> Figures:
    """By all permutations."""
    players = coalitions.players
    total = np.zeros((len(players), 2))
    orders = list(permutations(range(len(players))))
    for order in orders:
        (before,) = judge([coalitions.state(())])
        for step, index in enumerate(order, start=1):
            (after,) = judge([coalitions.state({players[player] for player in order[:step]})])
            total[index] += after - before
            before = after
    return np.asarray(total / len(orders))


def test_shapley_values_near_the_exact_ones() -> None:
    truth = exact(game())
    values = shapley(game(), judge, samples=400, seed=1)
    assert np.all(values.errors > 0)
    assert np.all(np.abs(values.values - truth) <= 4 * values.errors)
    assert np.abs(truth).max() > 10 * values.errors.max()  # so that this could fail
    (empty,), (whole,) = judge([game().state(())]), judge([game().state(game().players)])
    assert values.values.sum(axis=0) == pytest.approx(whole - empty)
    again, other = shapley(game(), judge, samples=50, seed=1), shapley(game(), judge, samples=50, seed=2)
    assert np.array_equal(again.values, shapley(game(), judge, samples=50, seed=1).values)
    assert not np.array_equal(again.values, other.values)


def test_equal_coalitions_are_folded_once() -> None:
    counted = game()
    shapley(counted, judge, samples=100, seed=1)
    assert counted.refolds == 16 == most_coalitions(4, 100)
    assert most_coalitions(20, 10) == 2 + 10 * 19


def test_a_tolerance_cuts_samples_short() -> None:
    """Where everything is near enough to everybody's, nothing is evaluated and nobody is worth anything."""
    counted = game()
    values = shapley(counted, judge, samples=10, seed=1, tolerance=1e9)
    assert (values.truncated, counted.refolds) == (40, 2)
    assert not values.values.any()
    some = shapley(game(), judge, samples=200, seed=1, tolerance=0.2)
    assert 0 < some.truncated < 800
    assert np.abs(some.values - exact(game())).max() < 0.2


def test_a_component_is_judged_by_the_tasks_that_depend_on_it() -> None:
    modalities = tuple(Modality(name, "tabular", 1, 1) for name in ("a", "b"))
    tasks = (Task("x", "binary", 2, ("a",)), Task("y", "binary", 2, ("a", "b")))
    learning = Learning(modalities, tasks, (), 1, 1, 0, 1)
    expected = {
        "encoder/a": ("x", "y"),
        "encoder/b": ("y",),
        "adapter/b": ("y",),
        "head/x": ("x",),
        "skip/y": ("y",),
        "backbone": ("x", "y"),
    }
    assert {name: learning.judged_by(name) for name in expected} == expected
