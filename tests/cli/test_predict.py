"""`predict`: a real learner, the states that the hosts certified, records from a file."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Learning, Privacy, default_text
from collegium.sims.cluster import Cluster
from collegium.sims.datasets import prepare_digits
from collegium.sims.offline import worker
from collegium.sims.presets import NO_SEED, preset

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

ROUNDS = 2


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Four members whose charter is the digits' one; their updates are made up."""
    cluster = Cluster(4, 5, rounds=ROUNDS)
    specs, learning = preset("digits", dp=False, epsilon=1.0, delta=1e-5, rounds=ROUNDS, institutions=4)
    cluster.charter = replace(cluster.charter, components=specs, learning=learning, seed=NO_SEED)
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=tuple(spec.name for spec in specs))
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(ROUNDS))
    cluster.run(lambda: False, cluster.now + 20_000)
    return cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("digits"), 4, 0.5, 1)[0]


@pytest.fixture
def node(cluster: Cluster, data: Path, tmp_path: Path) -> Home:
    home = Home(tmp_path / "node")
    fill(home, cluster, cluster.nodes[1])
    configure(home, data)
    return home


def configure(home: Home, data: Path | None, private: bool = False) -> None:
    config = Config(data=Data(data), learning=Learning(private=private), privacy=Privacy(policy="open"))
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
    run: "Run", node: Home, file: Path, cluster: Cluster, data: Path
) -> None:
    answer = run("predict", file, "--home", node.root)
    assert answer.code == 0, answer.err
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert len(rows) == 7
    names = [f"digit:{n}" for n in range(10)]
    assert list(rows[0]) == ["record", "digit", *names]
    core = cluster.nodes[1].core
    assert core is not None
    for name in core.hosted:
        assert f"{name}: round {ROUNDS}, epoch 0, certified, digest {core.folded[name][3].hex()[:16]}" in answer.err
    assert "missing" not in answer.err
    for row in rows:
        found = [float(row[name]) for name in names]
        assert sum(found) == pytest.approx(1, abs=1e-5)
        assert row["digit"] == str(int(np.argmax(found)))
    assert rows != [rows[0]] * 7
    # The same from a worker that is given the folded states by hand, and another from the first states.
    values = [[float(row[name]) for name in names] for row in rows]
    states = {name: state_of(cluster, name) for name in core.hosted}
    with worker(cluster.charter, data) as learner:
        for given, equal in ((states, True), ({}, False)):
            told = learner.ask({"op": "predict", "states": given, "file": str(file)})["tasks"]["digit"]["scores"]
            assert np.allclose(values, told, atol=2e-6) is equal


def state_of(cluster: Cluster, name: str) -> bytes:
    from collegium.consensus.components import origin, replay
    from collegium.protocol.update import payload_values

    node = cluster.nodes[0]
    assert node.core is not None
    spec, rounds = node.core.specs[name], node.core.ledger.components[name].rounds
    state, _ = replay(origin(spec), spec, rounds, lambda entry: payload_values(node.store.blobs[entry.blob], spec))
    return state.astype("<i4").tobytes()


def test_parquet_in_a_file_out_and_json(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    answer = run(
        "predict", file.with_suffix(".parquet"), "--out", out, "--task", "digit", "--home", node.root, "--json"
    )
    assert (answer.code, answer.err) == (0, "")
    told = answer.value
    assert (told["records"], told["out"], told["missing"]) == (7, str(out), {})
    assert {c["state"] for c in told["components"].values()} == {"certified"}
    assert len(out.read_text().splitlines()) == 8


def test_a_missing_modality_is_told(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    pyarrow.csv.write_csv(pyarrow.csv.read_csv(file).select(["image"]), bare)
    answer = run("predict", bare, "--home", node.root)
    assert answer.code == 0, answer.err
    assert "image: missing in all records" in answer.err
    assert run("predict", bare, "--home", node.root, "--json").value["missing"] == {"image": 7}


def test_private_components_change_the_prediction_and_are_asked_for(
    run: "Run", node: Home, file: Path, cluster: Cluster, data: Path
) -> None:
    answer = run("predict", file, "--personal", "--home", node.root)
    assert (answer.code, "no private components" in answer.err) == (5, True)
    configure(node, data, private=True)
    with worker(cluster.charter, data, private=str(node.private)) as learner:
        learner.ask({"op": "personalise", "states": {}})
    shared, personal = (predictions(run, node, file, *more) for more in ((), ("--personal",)))
    assert [row["record"] for row in shared] == [row["record"] for row in personal]
    assert shared != personal


def predictions(run: "Run", node: Home, file: Path, *more: str) -> list[dict[str, Any]]:
    answer = run("predict", file, *more, "--home", node.root, "--json")
    assert answer.code == 0, answer.out
    found: list[dict[str, Any]] = answer.value["predictions"]
    return found


def test_what_is_wrong_is_named(run: "Run", node: Home, file: Path, tmp_path: Path) -> None:
    for words, code, text in (
        ((tmp_path / "none.csv",), 2, "There is no"),
        ((file, "--task", "weather"), 2, "no task 'weather'"),
        ((file, "--out", file), 2, "overwrite"),
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
