"""`explain`: what each role is shown, nothing of others in a person's page, and the same figures at another node."""

import json
import re
from dataclasses import replace
from functools import partial
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collegium.cli.explain import for_page
from collegium.cli.read import from_store
from collegium.consensus.components import origin, replay
from collegium.node.blueprint import parts
from collegium.node.blueprint.presets import NO_SEED
from collegium.node.blueprint.recipe import Recipe, charter_parts
from collegium.node.explaining import written
from collegium.node.explaining.roles import ROLES
from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Privacy, default_text
from collegium.node.learner.client import worker
from collegium.node.learner.messages import Predict, opening
from collegium.node.page.blocks import Form
from collegium.node.page.content.learning import quality
from collegium.node.page.source import Source
from collegium.protocol.components import MILLION, ComponentSpec
from collegium.protocol.update import Integers, payload_values
from collegium.sims.simulator import cluster as simulated
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants
from collegium.sims.simulator.small import values_of

from ..node.learner.pupils import ABOUT, DAYS, TASKS, WIDTH, write_pupils
from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

PUPILS, ROUNDS = 120, 2
TASK = replace(TASKS[0], modalities=("about", "days"))


@pytest.fixture(scope="module")
def trained() -> Cluster:
    """Four members whose made-up updates are large enough to change results."""
    made = (
        parts.encoder(ABOUT, WIDTH, "linear-tanh"),
        parts.encoder(DAYS, WIDTH, "attention-pool"),
        parts.backbone(WIDTH, 4),
        parts.head(TASK, WIDTH),
        parts.skip(TASK, {"about": ABOUT.width}),
    )
    recipe = Recipe((ABOUT, DAYS), (TASK,), made, 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    cluster = Cluster(4, 5, Invariants, rounds=ROUNDS)
    cluster.charter = replace(cluster.charter, components=specs, learning=learning, seed=NO_SEED)
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=tuple(spec.name for spec in specs))

    def large(author: bytes, component: str, round_: int, spec: ComponentSpec) -> Integers:
        return values_of(author, component, round_, spec) * 200

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "values_of", large)
        cluster.start()
        assert cluster.run(lambda: cluster.all_closed(ROUNDS))
        cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pupils(tmp_path_factory.mktemp("school"), PUPILS)


def home_of(cluster: Cluster, number: int, data: Path, root: Path) -> Home:
    home = Home(root)
    fill(home, cluster, cluster.nodes[number])
    home.config.write_text(default_text(Config(data=Data(data), privacy=Privacy(policy="open"))))
    return home


@pytest.fixture
def node(trained: Cluster, data: Path, tmp_path: Path, one_worker: None) -> Home:
    return home_of(trained, 1, data, tmp_path / "node")


@pytest.fixture
def other(trained: Cluster, tmp_path: Path, one_worker: None) -> Home:
    """Another member, with pupils of its own."""
    (tmp_path / "other-school").mkdir()
    return home_of(trained, 2, write_pupils(tmp_path / "other-school", 40, seed=9), tmp_path / "other")


def words_for(role: str, file: Path) -> list[object]:
    return ["explain", file, "--role", role, *(["--record", "r5"] if role in {"student", "guardian"} else [])]


def leaves(value: Any) -> list[object]:
    if isinstance(value, dict):
        return [leaf for name, each in value.items() for leaf in (name, *leaves(each))]
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def test_roles_see_disjoint_fields_and_a_person_nothing_of_others(
    run: "Run", node: Home, data: Path, tmp_path: Path
) -> None:
    _, *rows = [line.split(",") for line in (data / "pupils.csv").read_text().splitlines()]
    own = next(row for row in rows if row[0] == "r5")
    says: dict[str, dict[str, Any]] = {}
    pages: dict[str, str] = {}
    for role in ROLES:
        out, page = tmp_path / f"{role}.json", tmp_path / f"{role}.html"
        answer = run(*words_for(role, data), "--out", out, "--html", page, "--home", node.root)
        assert answer.code == 0, answer.err
        assert all(len(line) <= 80 for line in answer.out.splitlines()), answer.out
        whole = json.loads(out.read_text())
        says[role] = whole["says"]
        pages[role] = answer.out + page.read_text()
        assert (out.stat().st_mode | page.stat().st_mode) & 0o777 == 0o600
        assert set(whole["proof"]["components"]) == {
            "encoder/about", "encoder/days", "backbone", "head/pass", "skip/pass",
        }  # fmt: skip
        strangers = {cell for row in rows if row is not own for cell in (row[0], row[1], row[2])} - {"", own[2]}
        told = {str(leaf) for leaf in leaves(whole["says"])} | set(re.findall(r"[\w.]+", pages[role]))
        assert not strangers & told, "another pupil's key, id or hours"
        if role not in {"student"}:
            assert own[2] not in told, f"{role}: the pupil's own hours are the pupil's"
    for role in ROLES:
        for another in ROLES:
            assert role == another or not set(says[role]) & set(says[another])
    at_home = run("predict", data, "--home", node.root, "--json").value["predictions"]
    of_r5 = next(row["pass"] for row in at_home if row["record"] == "r5")
    heres = {role: json.loads((tmp_path / f"{role}.json").read_text())["here"] for role in ROLES}
    assert heres["student"] == heres["guardian"] == {"result": of_r5}
    assert heres["instructor"] is None
    assert set(heres["administrator"]) == {"adds"}
    mine = {one["feature"]: one for one in says["student"]["yours"]}
    assert [mine[name]["value"] for name in ("hours", "gender")] == [f"{float(own[2]):.4g}", own[4]]
    assert {name for name, one in mine.items() if one["fixed"]} == {"age", "gender"}
    assert not {"age", "gender"} & {one["feature"] for one in says["student"]["changes"]}
    assert "gender" not in pages["guardian"]
    for private in ("gender", "age"):
        assert private not in {leaf for role in ("instructor", "guardian") for leaf in leaves(says[role])}
    assert sum(says["student"]["chances"].values()) == pytest.approx(1)
    assert says["instructor"]["students"] == PUPILS
    assert {one["name"] for one in says["instructor"]["weighs"]} == {"hours", "course", "clicks", "tries"}


def test_a_class_has_no_cell_under_fifty(run: "Run", node: Home, data: Path, tmp_path: Path) -> None:
    """One more of the commoner result than 50, and one of the rarer: both counts are hidden, the sum would tell."""
    whole = run("predict", data, "--shared", "--home", node.root, "--json").value["predictions"]
    header, *lines = (data / "pupils.csv").read_text().splitlines()
    by_result: dict[str, list[str]] = {}
    for line, row in zip(lines, whole, strict=True):
        by_result.setdefault(row["pass"], []).append(line)
    common, rare = sorted(by_result.values(), key=len, reverse=True)
    days = (data / "days.csv").read_text().splitlines()

    def class_of(rows: list[str]) -> dict[str, Any]:
        (tmp_path / "class").mkdir(exist_ok=True)
        (tmp_path / "class" / "pupils.csv").write_text("\n".join([header, *rows]) + "\n")
        keys = {row.split(",")[0] for row in rows}
        kept = [day for day in days if day.split(",")[0] in keys | {"id"}]
        (tmp_path / "class" / "days.csv").write_text("\n".join(kept) + "\n")
        words = ("explain", tmp_path / "class", "--role", "instructor", "--home", node.root, "--json")
        answer: dict[str, Any] = run(*words).value["says"]
        return answer

    assert len(common) >= 51, "the fixture has to give one result to that many"
    of_all = class_of([*common[:51], rare[0]])
    assert of_all["students"] == 52
    assert set(of_all["results"].values()) == {None}
    days_there = {line.split(",")[0] for line in days}
    with_days = sum(row.split(",")[0] in days_there for row in [*common[:51], rare[0]])
    assert with_days < 50 <= len([*common[:51], rare[0]])
    assert {one["modality"] for one in of_all["weighs"]} == {"about"}, "too few have days"
    assert class_of(common[:49]) == {"students": None, "results": {}, "weighs": []}


def test_another_member_finds_the_same_figures(run: "Run", node: Home, other: Home, data: Path, tmp_path: Path) -> None:
    for role in ROLES:
        out = tmp_path / f"{role}.json"
        assert run(*words_for(role, data), "--out", out, "--home", node.root, "--json").code == 0
        answer = run("explain", "verify", out, data, "--home", other.root, "--json")
        assert answer.code == 0, answer.value
        assert answer.value["largest_difference"] <= 1e-6
        assert (answer.value["figures"] > 0) is (role != "guardian")
    out = tmp_path / "student.json"
    whole = json.loads(out.read_text())

    def refused(change: Any, text: str, records: Path = data) -> None:
        wrong = json.loads(json.dumps(whole))
        change(wrong)
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        answer = run("explain", "verify", tmp_path / "wrong.json", records, "--home", other.root)
        assert answer.code != 0
        assert text in answer.err, answer.err

    refused(lambda w: w["says"]["yours"][0].update(effect=w["says"]["yours"][0]["effect"] + 2e-6), "yours 1 effect is")
    refused(lambda w: w["says"].update(result="other"), "result is another one here")
    wrong_state = "backbone: its state is of round 2"
    refused(lambda w: w["proof"]["components"]["backbone"].update(digest="00" * 32), wrong_state)
    refused(lambda w: w["proof"].update(federation="00" * 32), "is of federation 0000000000000000")
    refused(lambda w: w.pop("proof"), "is no explanation, or a damaged one")
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "pupils.csv").write_bytes((data / "pupils.csv").read_bytes())
    clicks = re.sub(r"(?m)^(r5,0),\d+", r"\1,31", (data / "days.csv").read_text())
    (tmp_path / "edited" / "days.csv").write_text(clicks)
    refused(lambda _: None, "the records are not those that were explained", tmp_path / "edited")


def test_an_explanation_of_an_earlier_round_is_verified_by_its_states(
    run: "Run", node: Home, other: Home, trained: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.node import verify

    now = verify.home_model

    def then(home: Home, **more: Any) -> verify.Model:
        return now(home, **{**more, "at": dict.fromkeys(trained.charter.specs, (1, 0))})

    out = tmp_path / "then.json"
    with monkeypatch.context() as patch:
        patch.setattr(verify, "home_model", then)
        assert run(*words_for("student", data), "--out", out, "--home", node.root).code == 0
    assert {one["round"] for one in json.loads(out.read_text())["proof"]["components"].values()} == {1}
    answer = run("explain", "verify", out, data, "--home", other.root)
    assert answer.code == 0, answer.err


def test_a_contributors_share_is_what_a_model_refolded_without_it_predicts_otherwise(
    run: "Run", node: Home, trained: Cluster, data: Path
) -> None:
    words = ("explain", data, "--role", "administrator", "--record", "r5", "--home", node.root, "--json")
    says = run(*words).value["says"]
    core, blobs = trained.nodes[0].core, trained.nodes[0].store.blobs
    assert core is not None
    with worker(opening(trained.charter, data)) as learner:

        def log_odds(without: bytes) -> float:
            states = {}
            for name, spec in core.specs.items():
                rounds = [
                    replace(r, entries=tuple(e for e in r.entries if e.author != without))
                    for r in core.ledger.components[name].rounds
                ]
                state, _ = replay(origin(spec), spec, rounds, lambda e, s=spec: payload_values(blobs[e.blob], s))  # type: ignore[misc]
                states[name] = state.astype("<i4").tobytes()
            answer = learner.ask(Predict(states, str(data)))
            bad, good = answer.tasks["pass"].scores[answer.records.index("r5")]
            return log(good / bad)

        whole = log_odds(b"")
        for member in says["contributors"]:
            change = whole - log_odds(bytes.fromhex(member["key"]))
            assert abs(member["share"]) == pytest.approx(abs(change), abs=1e-3), "predictions are of single precision"
    assert [member["member"] for member in says["contributors"]] != []
    assert len(says["contributors"]) == 4
    assert says["gap"] <= 1e-4
    assert set(says["components"]) == {"encoder/about", "encoder/days", "backbone", "skip/pass"}


def test_the_page_has_the_form_and_explains_as_the_command_does(
    run: "Run", node: Home, data: Path, tmp_path: Path
) -> None:
    source = Source(node, partial(from_store, node), None, for_page(node))
    page, _ = source.read(lambda reading: quality(reading, {}))
    forms = [block for section in page.sections for block in section.blocks if isinstance(block, Form)]
    assert [(form.path, [each.name for each in form.inputs]) for form in forms] == [
        ("/act/explain", ["file", "role", "task", "record"])
    ]
    assert source.explains is not None
    made = source.explains(str(data), "student", None, "r5")
    assert (
        json.loads(json.dumps(written(made))) == run(*words_for("student", data), "--home", node.root, "--json").value
    )


def test_what_cannot_be_explained_is_refused(run: "Run", node: Home, data: Path, tmp_path: Path) -> None:
    for words, text in {
        (data, "--role", "parent"): "There is no role 'parent'",
        (data, "--role", "student"): f"{data} has {PUPILS} records, and this explanation is for one person",
        (data, "--role", "student", "--record", "x"): "no record of that name",
        (data, "--role", "instructor", "--record", "r5"): "an instructor sees the class",
        (data, "--role", "student", "--task", "mark"): "there is no task 'mark' here",
        (tmp_path / "none.csv", "--role", "student"): "There is no",
    }.items():
        answer = run("explain", *words, "--home", node.root)
        assert (answer.code, text in answer.err) == (2, True), answer.err
