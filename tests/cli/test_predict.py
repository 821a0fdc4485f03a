"""`predict`: a real learner, the states that the hosts certified, records from a file."""

import csv
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from collegium.cli import predict
from collegium.node.blueprint.presets import NO_SEED, preset
from collegium.node.core.events import PutFlag
from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Learning, Privacy, default_text
from collegium.node.learner.client import worker
from collegium.node.learner.messages import Open, Predict, opening
from collegium.node.store.database import Store
from collegium.node.unlearning.exclusion import LEFT_OUT
from collegium.protocol.components import state_digest
from collegium.sims.learn.datasets import prepare_digits
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill
from .terminal import Terminal

if TYPE_CHECKING:
    from .conftest import Run

ROUNDS = 2
COMMAND = Path(sys.executable).with_name("collegium")


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Four members whose charter is the digits' one; their updates are made up. One is lost after the first round."""
    cluster = Cluster(4, 5, Invariants, rounds=ROUNDS)
    specs, learning = preset("digits", budget=None, rounds=ROUNDS, institutions=4)
    cluster.charter = replace(cluster.charter, components=specs, learning=learning, seed=NO_SEED)
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=tuple(spec.name for spec in specs))
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    cluster.nodes[3].crash()
    cores = [node.core for node in cluster.nodes[:3]]
    assert cluster.run(
        lambda: all(core and core.folded.get(spec.name, (0,))[0] >= ROUNDS for core in cores for spec in specs
                    if not spec.is_statistic), cluster.now + 600_000)  # fmt: skip
    cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]


@pytest.fixture
def home_alone(cluster: Cluster, data: Path, tmp_path: Path) -> Home:
    """A home whose predictions each start a learner of their own."""
    home = Home(tmp_path / "node")
    fill(home, cluster, cluster.nodes[1])
    configure(home, data)
    return home


@pytest.fixture
def node(home_alone: Home, one_worker: None) -> Home:
    """The same, with one learner process for all."""
    return home_alone


def configure(home: Home, data: Path | None, home_layer: bool = True) -> None:
    config = Config(data=Data(data), learning=Learning(home_layer=home_layer), privacy=Privacy(policy="open"))
    home.config.write_text(default_text(config))


@pytest.fixture
def file(data: Path, tmp_path: Path) -> Path:
    """Seven records, without labels, with a column that nobody knows."""
    source = next(iter([*data.glob("*.parquet"), *data.glob("*.csv")]))
    read = pyarrow.parquet.read_table if source.suffix == ".parquet" else pyarrow.csv.read_csv
    table = read(source).slice(0, 7).drop_columns(["digit"])
    table = table.append_column("unheard_of", [["x"] * 7])
    pyarrow.csv.write_csv(table, tmp_path / "records.csv")
    pyarrow.parquet.write_table(table, tmp_path / "records.parquet")
    return tmp_path / "records.csv"


def test_every_class_has_its_probability_and_the_states_are_named(
    run: "Run", home_alone: Home, file: Path, cluster: Cluster, data: Path, request: pytest.FixtureRequest
) -> None:
    answer = run("predict", file, "--shared", "--home", home_alone.root)
    assert answer.code == 0, answer.err
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert len(rows) == 7
    names = [f"digit:{n}" for n in range(10)]
    assert list(rows[0]) == ["record", "digit", *names]
    core = cluster.nodes[1].core
    assert core is not None
    for name in core.hosted:
        assert (
            f"{name}: round {ROUNDS}, generation 0, certified, digest {core.folded[name][3].hex()[:16]}" in answer.err
        )
    assert "missing" not in answer.err
    # A few rounds of noise: the held-out students here say so.
    assert "warning: digit is no better than a constant on the held-out records here: accuracy 0.0" in answer.err
    for row in rows:
        probabilities = [float(row[name]) for name in names]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["digit"] == str(int(np.argmax(probabilities)))
    assert rows != [rows[0]] * 7
    # The same from another worker that is given the folded states by hand, and not from the first states.
    values = [[float(row[name]) for name in names] for row in rows]
    states = {name: state_of(cluster, name) for name in core.hosted}
    request.getfixturevalue("one_worker")
    with worker(opening(cluster.charter, data)) as learner:
        for given, equal in ((states, True), ({}, False)):
            scores = learner.ask(Predict(given, str(file))).tasks["digit"].scores
            assert np.allclose(values, scores, atol=2e-6) is equal


SPREADSHEET = 'separator = ";"\ndecimal = ","\nencoding = "windows-1252"\n'


def test_predictions_are_spelled_as_the_schools_own_table(
    run: "Run", home_alone: Home, data: Path, file: Path, tmp_path: Path, one_worker: None
) -> None:
    plain = list(csv.DictReader(io.StringIO(run("predict", file, "--home", home_alone.root).out)))
    own, out = tmp_path / "own", tmp_path / "out.csv"
    shutil.copytree(data, own)
    text = (own / "dataset.toml").read_text()
    (own / "dataset.toml").write_text(re.sub(r"(?m)^key = ", f"{SPREADSHEET}key = ", text, count=1))
    records = tmp_path / "records.parquet"  # it has no separator of its own
    configure(home_alone, own)
    answer = run("predict", records, "--out", out, "--home", home_alone.root)
    assert answer.code == 0, answer.err
    assert out.read_bytes().startswith(b"\xef\xbb\xbf"), "by which a spreadsheet knows UTF-8"
    rows = list(csv.DictReader(out.open(newline="", encoding="utf-8-sig"), delimiter=";"))
    assert [[cell.replace(",", ".") for cell in row.values()] for row in rows] == [list(row.values()) for row in plain]
    assert all(re.fullmatch(r"[01],\d{6}", row[f"digit:{n}"]) for row in rows for n in range(10))
    tiny = io.StringIO()
    predict._write(tiny, ["record", "t:a"], [["S1", 3.4e-05], ["S2", 2.5e9]], ";", ",")
    assert tiny.getvalue() == "record;t:a\nS1;0,000034\nS2;2500000000,000000\n", "never with an exponent"
    assert run("predict", records, "--home", home_alone.root).out == out.read_text(encoding="utf-8-sig")


def test_on_a_terminal_it_shows_what_it_waits_for(home_alone: Home, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    words = (COMMAND, "--home", home_alone.root, "predict", file, "--out", out)
    terminal = Terminal([str(word) for word in words])
    try:
        terminal.until(lambda screen: "starting a learner on the own data" in screen.text)
        end = terminal.end()
    finally:
        terminal.kill()
    assert terminal.code == 0, end.scroll
    assert "starting a learner" not in end.scroll, "it is gone when the answer is there"
    assert len(out.read_text().splitlines()) == 8


def state_of(cluster: Cluster, name: str, upto: int = ROUNDS) -> bytes:
    from collegium.consensus.components import origin, replay
    from collegium.protocol.update import payload_values

    node = cluster.nodes[0]
    assert node.core is not None
    spec, rounds = node.core.specs[name], node.core.ledger.components[name].rounds[:upto]
    state, _ = replay(origin(spec), spec, rounds, lambda entry: payload_values(node.store.blobs[entry.blob], spec))
    return state.astype("<i4").tobytes()


def test_parquet_in_a_file_out_and_json(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    answer = run(
        "predict",
        file.with_suffix(".parquet"),
        "--out",
        out,
        "--task",
        "digit",
        "--shared",
        "--home",
        node.root,
        "--json",
    )
    assert (answer.code, answer.err) == (0, "")
    result = answer.value
    assert (result["records"], result["out"], result["missing"]) == (7, str(out), {})
    assert {c["state"] for c in result["components"].values()} == {"certified"}
    assert (
        set(result["no_better"])
        == set(result["certain"])
        == set(result["nearly_certain"])
        == set(result["held_out"])
        == {"digit"}
    )
    assert result["held_out"]["digit"] > 0
    assert len(out.read_text().splitlines()) == 8
    assert out.stat().st_mode & 0o777 == 0o600


def test_the_mean_of_the_states_at_the_end_of_tenures_predicts(
    run: "Run", node: Home, file: Path, cluster: Cluster
) -> None:
    """Of member 3 that is the state after round 1, of the others the present one: three quarters and one."""
    words = ("predict", file, "--home", node.root, "--json")
    plain, mean = run(*words, "--shared").value, run(*words, "--shared", "--tenure-mean").value
    core = cluster.nodes[0].core
    assert core is not None
    for name in core.hosted:
        found = mean["tenure_mean"][name]
        if core.specs[name].is_statistic:
            assert (found["digest"], found["ends"]) == (core.folded[name][3].hex(), [])
            continue
        counted = [{e.author for e in round_.entries} for round_ in core.ledger.components[name].rounds]
        assert [len(authors) for authors in counted] == [4, 3]
        ends = {end["key"]: end["round"] for end in found["ends"]}
        assert ends == {author.hex(): 2 if author in counted[1] else 1 for author in counted[0]}
        first, last = (np.frombuffer(state_of(cluster, name, upto), "<i4").astype(np.int64) for upto in (1, 2))
        expected = np.rint((first + 3 * last) / 4).astype(np.int32)
        assert found["digest"] == state_digest(name, expected).hex() != mean["components"][name]["digest"]
    assert "tenure_mean" not in plain
    assert plain["predictions"] != mean["predictions"]
    said = run("predict", file, "--home", node.root, "--tenure-mean").err
    assert "at the end of tenures (member 0 round 2, member 1 round 2, member 2 round 2, member 3 round 1)" in said


def test_a_missing_modality_is_told(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    lines = file.read_text().splitlines()
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("\n".join([*lines, f"nobody{',' * lines[0].count(',')}"]) + "\n")
    answer = run("predict", lacking, "--home", node.root)
    assert answer.code == 0, answer.err
    assert "image: missing in 1 of 8 records" in answer.err
    assert run("predict", lacking, "--home", node.root, "--json").value["missing"] == {"image": 1}


def test_a_file_that_no_task_can_be_told_from_is_refused(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    table = pyarrow.csv.read_csv(file)
    bare = tmp_path / "bare.csv"
    pyarrow.csv.write_csv(table.select(["image"]), bare)
    answer = run("predict", bare, "--home", node.root)
    assert (answer.code, answer.out) == (2, "")
    assert f"{bare}: no record has a modality of task 'digit'" in answer.err
    pyarrow.csv.write_csv(table.drop_columns(["pixel3", "pixel17", "pixel40", "pixel63"]), bare)
    answer = run("predict", bare, "--home", node.root)
    assert (answer.code, answer.out) == (2, "")
    assert f"{bare}: modality 'image' lacks columns pixel3, pixel17, pixel40, pixel63" in answer.err


DAMAGE: dict[str, tuple[Callable[[str], str], int]] = {
    "infinity": (lambda text: text.replace(",0,", ",inf,", 1), 3),
    "no number": (lambda text: text.replace(",0,", ",many,", 1), 3),
    "a record twice": (lambda text: text + text.splitlines()[1] + "\n", 3),
    "a ragged line": (lambda text: text + "x,y\n", 3),
    "another delimiter": (lambda text: text.replace(",", ";"), 2),
    "no rows": (lambda text: text.splitlines()[0] + "\n", 2),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_file_ends_as_data_check_does(
    run: "Run", node: Home, file: Path, tmp_path: Path, data: Path, name: str
) -> None:
    spoil, code = DAMAGE[name]
    bad = tmp_path / "bad"
    bad.mkdir()
    text = "\n".join(line.rsplit(",", 1)[0] + ",1" for line in file.read_text().splitlines()) + "\n"
    text = text.replace('"unheard_of"', "unheard_of").replace('"', "")
    header, rest = text.split("\n", 1)
    (bad / "digits.csv").write_text(spoil(header.rsplit(",", 1)[0] + ",digit\n" + rest))
    (bad / "dataset.toml").write_text((data / "dataset.toml").read_text().replace(".parquet", ".csv"))
    assert run("data", "check", bad).code == code
    answer = run("predict", bad / "digits.csv", "--home", node.root, "--json")
    assert (answer.code, answer.value["exit_code"]) == (code, code), answer.value
    assert str(bad / "digits.csv") in answer.value["error"]


def test_what_is_no_parquet_and_too_many_pixels_are_refused(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("image,pixel0\n")
    assert run("predict", tmp_path / "no.parquet", "--home", node.root).code == 3
    wide = pyarrow.csv.read_csv(file).append_column("pixel64", [[0] * 7])
    pyarrow.csv.write_csv(wide, tmp_path / "wide.csv")
    answer = run("predict", tmp_path / "wide.csv", "--home", node.root)
    assert (answer.code, "does not know column pixel64" in answer.err) == (2, True)


def test_embeddings_of_a_file_are_not_kept(run: "Run", node: Home, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Open] = []

    @contextmanager
    def recorded(request: Open, command: Sequence[str]) -> Iterator[Any]:
        seen.append(request)
        with worker(request, command) as learner:
            yield learner

    monkeypatch.setattr("collegium.node.learner.client.worker", recorded)
    assert run("predict", file, "--home", node.root).code == 0
    assert (seen[0].cache, seen[0].cache_read_only) == (str(node.embeddings), True)
    assert not node.embeddings.exists()


def test_the_home_layer_is_used_and_said_and_can_be_left_out(run: "Run", node: Home, file: Path, data: Path) -> None:
    answer = run("predict", file, "--home", node.root)
    assert (answer.code, "digit: with the home layer, which learned from " in answer.err) == (0, True)
    # What the noise of two rounds does not show is learned from the own students: the warning is gone.
    assert "no better than a constant" not in answer.err
    alone = run("predict", file, "--shared", "--home", node.root)
    assert "digit: by the shared model alone" in alone.err
    assert "no better than a constant" in alone.err
    assert alone.out != answer.out
    told = run("predict", file, "--home", node.root, "--json").value["home_layer"]["digit"]
    assert told["form"] == "stacked"
    assert f"learned from {told['students']} own students" in answer.err
    configure(node, data, home_layer=False)
    assert run("predict", file, "--home", node.root).out == alone.out


def test_g7_no_home_layer_where_it_is_not_known_who_was_removed(run: "Run", node: Home, file: Path) -> None:
    with Store.open(node.database, Store.open_readonly(node.database).federation) as store:
        store.apply([PutFlag(LEFT_OUT, 1)])
    answer = run("predict", file, "--home", node.root)
    assert (answer.code, "the home layer would learn from them" in answer.err) == (5, True)
    assert run("predict", file, "--shared", "--home", node.root).code == 0


def predictions(run: "Run", node: Home, file: Path, *more: str) -> list[dict[str, Any]]:
    answer = run("predict", file, *more, "--home", node.root, "--json")
    assert answer.code == 0, answer.out
    rows: list[dict[str, Any]] = answer.value["predictions"]
    return rows


def test_what_is_wrong_is_named(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    for words, code, text in (
        ((tmp_path / "none.csv",), 2, "There is no"),
        (("/dev/null",), 2, "/dev/null is neither a file nor a folder"),
        ((file, "--task", "weather"), 2, "no task 'weather'"),
        ((file, "--out", file), 2, "is there already"),
        ((file, "--out", tmp_path / "not" / "there.csv"), 2, "There is no folder"),
    ):
        answer = run("predict", *words, "--home", node.root)
        assert (answer.code, text in answer.err) == (code, True), answer.err
    configure(node, None)
    assert "names no data folder" in run("predict", file, "--home", node.root).err


def test_a_state_that_the_hosts_did_not_sign_predicts_nothing(
    run: "Run", node: Home, file: Path, cluster: Cluster
) -> None:
    from collegium.node.store.states import States

    core = cluster.nodes[1].core
    assert core is not None
    name = "head/digit"
    rounds = core.ledger.components[name].rounds
    wrong = np.ones(core.specs[name].dimension, dtype=np.int32)
    States(node.states).put(name, ROUNDS, rounds[-1].chain, wrong)
    answer = run("predict", file, "--home", node.root)
    assert (answer.code, "state-differs" in answer.err) == (6, True)
