"""`ledger blame` and `ledger influence` in process: the figures are those of an independent fold and evaluation."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from collegium.cli import removal
from collegium.consensus.components import origin, replay
from collegium.node import provenance
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Privacy, default_text
from collegium.node.learner.client import worker
from collegium.node.learner.messages import Evaluate, opening
from collegium.node.store import files
from collegium.protocol import statistics
from collegium.protocol.components import ComponentSpec
from collegium.protocol.update import Integers, payload_values
from collegium.sims.learn.datasets import prepare_digits
from collegium.sims.simulator import cluster as simulated
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.small import values_of

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

HEAD = "head/digit"
SUM = "statistic/digit"


@pytest.fixture(scope="module")
def trained() -> Cluster:
    """Four members of the digits' charter whose made-up updates are large enough to change what is predicted."""
    cluster = Cluster(4, 5, Invariants, rounds=2)
    specs, learning = preset("digits", budget=None, rounds=2, institutions=4, statistic=True)
    cluster.charter = replace(cluster.charter, components=specs, learning=learning, seed=NO_SEED)
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=tuple(spec.name for spec in specs))
    small = values_of

    def large(author: bytes, component: str, round_: int, spec: ComponentSpec) -> Integers:
        return small(author, component, round_, spec) * 700

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "values_of", large)
        cluster.start()
        assert cluster.run(lambda: cluster.all_closed(2))
        cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]


@pytest.fixture
def node(trained: Cluster, data: Path, tmp_path: Path, one_worker: None) -> Home:
    home = Home(tmp_path / "node")
    fill(home, trained, trained.nodes[1])
    configure(home, data)
    return home


def configure(home: Home, data: Path | None) -> None:
    home.config.write_text(default_text(Config(data=Data(data), privacy=Privacy(policy="open"))))


def named(blamed: Any, name: str) -> Any:
    (member,) = [member for member in blamed if member["name"] == name]
    return member


# ---- blame


def test_blame_tells_shares_and_what_was_withdrawn(run: "Run", home: Home, cluster: Cluster) -> None:
    blamed = run("ledger", "blame", "head/task0", "--home", home.root, "--json").value
    rounds = cluster.nodes[1].core.ledger.components["head/task0"].rounds  # type: ignore[union-attr]
    for number, node in enumerate(cluster.nodes):
        member, key = named(blamed["members"], f"member {number}"), node.identity.public_key
        # No noise, nothing stale: equal weights within a round.
        share = sum(1 / len(r.entries) for r in rounds for e in r.entries if e.author == key) / len(rounds)
        assert member["weight_share"] == pytest.approx(share, abs=1e-3)
        assert member["rounds"] == sum(e.author == key for r in rounds for e in r.entries)
    assert (blamed["height"], blamed["round"], blamed["generation"]) == (cluster.nodes[1].core.ledger.height, 4, 1)  # type: ignore[union-attr]
    gone = named(blamed["members"], "member 0")
    assert (gone["state"], gone["withdrawn"], gone["rounds"]) == ("withdrew", 2, 0)
    screen = run("ledger", "blame", "head/task0", "--home", home.root)
    assert (screen.code, "withdrew" in screen.out, "not on this disk" in screen.out) == (0, True, False)


def test_blame_says_whose_bytes_are_missing(run: "Run", home: Home) -> None:
    shutil.rmtree(home.blobs)
    answer = run("ledger", "blame", "head/task0", "--home", home.root)
    assert answer.code == 0, answer.err
    blamed = run("ledger", "blame", "head/task0", "--home", home.root, "--json").value
    counted = sum(member["rounds"] for member in blamed["members"])
    assert blamed["updates_without_bytes"] == counted > 0
    assert f"bytes of {counted} counted updates are not on this disk" in answer.out
    assert {member["norm_share"] for member in blamed["members"]} == {None}


def test_blame_draws(run: "Run", home: Home, tmp_path: Path) -> None:
    for name, start in (("shares.png", b"\x89PNG"), ("shares.html", b"<!doctype html>")):
        answer = run("ledger", "blame", "head/task0", "--plot", tmp_path / name, "--home", home.root, "--json")
        assert answer.value["plot"] == str(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)


def test_blame_draws_over_nothing_and_names_a_place_where_it_cannot(
    run: "Run", home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "home_blame", lambda *_, **__: pytest.fail("it had begun to work"))
        answer = run("ledger", "blame", "head/task0", "--plot", kept, "--home", home.root)
    assert (answer.code, "is there already" in answer.err, kept.read_bytes()) == (2, True, b"mine")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_stream", refuse)
    answer = run("ledger", "blame", "head/task0", "--plot", tmp_path / "x.html", "--home", home.root)
    assert (answer.code, "x.html: Permission denied" in answer.err) == (2, True), answer.err


def test_blame_names_what_is_wrong(run: "Run", home: Home, tmp_path: Path) -> None:
    for words, text in (
        (("head/none",), "There is no component 'head/none'"),
        (("head/task0", "--plot", tmp_path / "x.pdf"), "no picture"),
        (("head/task0", "--plot", tmp_path / "nowhere" / "x.png"), "There is no folder"),
    ):
        answer = run("ledger", "blame", *words, "--home", home.root)
        assert (answer.code, text in answer.err) == (2, True), answer.err
    home.database.unlink()
    assert run("ledger", "blame", "head/task0", "--home", home.root).code == 2


# ---- influence


def test_influence_is_the_difference_of_two_evaluations(run: "Run", node: Home, trained: Cluster, data: Path) -> None:
    answer = run("ledger", "influence", HEAD, "--all", "--shapley", 40, "--seed", 3, "--home", node.root, "--json")
    assert answer.code == 0, answer.out
    result, store = answer.value, trained.nodes[1].store
    assert trained.nodes[1].core is not None
    specs, components = trained.nodes[1].core.specs, trained.nodes[1].core.ledger.components

    def state(name: str, without: frozenset[bytes] = frozenset()) -> bytes:
        rounds = [
            replace(r, entries=tuple(e for e in r.entries if e.author not in without)) for r in components[name].rounds
        ]
        of = lambda entry: payload_values(store.blobs[entry.blob], specs[name])  # noqa: E731
        return replay(origin(specs[name]), specs[name], rounds, of)[0].astype("<i4").tobytes()

    keys = [n.identity.public_key for n in trained.nodes]
    with worker(opening(trained.charter, data)) as learner:

        def accuracy(without: frozenset[bytes]) -> float:
            states = {"encoder/image": state("encoder/image"), HEAD: state(HEAD, without)}
            return learner.ask(Evaluate(states)).tasks["digit"].value or 0.0

        figures = {
            frozenset(gone): accuracy(frozenset(gone))
            for gone in [[key for index, key in enumerate(keys) if number >> index & 1] for number in range(16)]
        }
    whole = figures[frozenset()]
    assert result["tasks"]["digit"]["value"] == pytest.approx(whole)
    changes = set()
    for number, key in enumerate(keys):
        member = named(result["left_out"], f"member {number}")
        assert member["without"]["digit"] == pytest.approx(figures[frozenset({key})])
        assert member["change"]["digit"] == pytest.approx(figures[frozenset({key})] - whole)
        assert (member["updates"], member["distance"] > 0) == (2, True)
        changes.add(member["change"]["digit"])
    assert len(changes) > 1
    values = [named(result["shapley"]["members"], f"member {n}") for n in range(4)]
    assert sum(v["value"]["digit"] for v in values) == pytest.approx(whole - figures[frozenset(keys)])
    for number, member in enumerate(values):
        # The exact value by the formula over subsets: |S|! (n-|S|-1)! / n!, n = 4.
        exact = 0.0
        for gone, value in figures.items():
            if keys[number] not in gone:
                factor = {0: 1 / 4, 1: 1 / 12, 2: 1 / 12, 3: 1 / 4}[3 - len(gone)]
                exact += factor * (value - figures[gone | {keys[number]}])
        assert abs(member["value"]["digit"] - exact) <= 4 * member["standard_error"]["digit"]
    assert result["refolds"] <= 17
    assert "publishing" in result["local"]


def test_influence_on_a_statistic_is_that_on_its_own_head(run: "Run", node: Home, trained: Cluster, data: Path) -> None:
    answer = run("ledger", "influence", SUM, "--all", "--shapley", 2, "--home", node.root, "--json")
    assert answer.code == 0, answer.err
    result, (core, blobs) = answer.value, (trained.nodes[1].core, trained.nodes[1].store.blobs)
    assert core is not None
    spec, rounds = core.specs[SUM], core.ledger.components[SUM].rounds
    parts = {e.author: payload_values(blobs[e.blob], spec).astype(np.int64) for r in rounds for e in r.entries}
    assert len(parts) == 4
    whole = sum(parts.values(), np.zeros(spec.dimension, dtype=np.int64))
    with worker(opening(trained.charter, data)) as learner:

        def accuracy(total: statistics.Numbers) -> float:
            return learner.ask(Evaluate({SUM: statistics.words(total).tobytes()})).statistics[SUM].value or 0.0

        assert list(result["tasks"]) == [SUM]
        assert result["tasks"][SUM]["value"] == pytest.approx(accuracy(whole))
        for number, other in enumerate(trained.nodes):
            part, member = parts[other.identity.public_key], named(result["left_out"], f"member {number}")
            assert member["updates"] == 1
            assert member["without"][SUM] == pytest.approx(accuracy(whole - part))
            assert member["distance"] == pytest.approx(np.linalg.norm(part.astype(float)) * spec.grid_step)


def test_influence_of_one_peer_for_people(run: "Run", node: Home) -> None:
    answer = run("ledger", "influence", HEAD, "--peer", "member 2", "--home", node.root)
    assert answer.code == 0, answer.err
    assert "member 2" in answer.out
    assert "member 1" not in answer.out
    assert "for this house alone" in answer.err


def test_influence_names_what_is_wrong(run: "Run", node: Home) -> None:
    for words, code, text in (
        (("head/none", "--all"), 2, "There is no component 'head/none'"),
        ((HEAD, "--peer", "nobody"), 2, "no member"),
        ((HEAD,), 2, "Nobody is named"),
        ((HEAD, "--shapley", 1), 2, "no standard error"),
    ):
        answer = run("ledger", "influence", *words, "--home", node.root)
        assert (answer.code, text in answer.err) == (code, True), answer.err


def test_influence_without_data_or_bytes_is_refused(run: "Run", node: Home, data: Path, tmp_path: Path) -> None:
    configure(node, None)
    answer = run("ledger", "influence", HEAD, "--all", "--home", node.root)
    assert (answer.code, "names no data folder" in answer.err) == (2, True)
    everything = tmp_path / "all-to-train"
    shutil.copytree(data, everything)
    text = (everything / "dataset.toml").read_text()
    (everything / "dataset.toml").write_text(text.replace("share = 0.25", "share = 0.0"))
    configure(node, everything)
    answer = run("ledger", "influence", HEAD, "--all", "--home", node.root)
    assert (answer.code, "No held-out subject" in answer.err) == (2, True), answer.err
    configure(node, data)
    shutil.rmtree(node.blobs)
    answer = run("ledger", "influence", HEAD, "--all", "--home", node.root)
    assert (answer.code, "blob-missing" in answer.err) == (6, True)


# ---- the price of a removal


def test_what_a_removal_costs_is_the_refold_without_just_these_updates(
    run: "Run", node: Home, trained: Cluster, data: Path
) -> None:
    words = ("ledger", "influence", HEAD, "--peer", "member 2", "--home", node.root, "--json")
    left = named(run(*words).value["left_out"], "member 2")
    ledger, key = trained.nodes[1].core.ledger, trained.nodes[2].identity.public_key  # type: ignore[union-attr]
    updates = {e.update for r in ledger.components[HEAD].rounds for e in r.entries if e.author == key}
    cost = removal.price(node, updates, quiet=True)
    digit = next(task for task in cost["quality"] if task["task"] == "digit")
    assert (digit["now"], digit["without"]) == (left["with"]["digit"], left["without"]["digit"])
    assert digit["now"] != digit["without"]
    assert digit["held_out"] > 0
    assert cost["not_measured"] is None
    rounds = [r for r in ledger.components[HEAD].rounds if any(e.update in updates for e in r.entries)]
    again = [r for r in ledger.components[HEAD].rounds if r.number >= rounds[0].number]
    left = [e.size for r in again for e in r.entries if e.update not in updates]
    (refold,) = cost["others"]["refold"]
    assert refold == {"component": HEAD, "rounds": len(again), "updates": len(left), "bytes": sum(left)}
    assert cost["others"]["members"] == len(trained.nodes) - 1
    last = [c.rounds[-1] for c in ledger.components.values() if "statistic" not in c.name]
    assert cost["others"]["recovery_bytes"] == 5 * sum(e.size for round_ in last for e in round_.entries) > 0

    # Where it cannot be measured it says why.
    configure(node, None)
    assert "names no data folder" in str(removal.price(node, updates, quiet=True)["not_measured"])
    configure(node, data)
    shutil.rmtree(node.blobs)
    assert "is not on this disk" in str(removal.price(node, updates, quiet=True)["not_measured"])
