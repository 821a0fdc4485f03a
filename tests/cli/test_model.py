"""`model export`: what is written is what the hosts certified, and nothing is written that is not."""

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file

from collegium.consensus.components import origin, replay
from collegium.node.home import Home
from collegium.node.store import States, Store
from collegium.node.verify import home_model
from collegium.protocol import schema
from collegium.protocol.blocks import Block, Certificate, VoteSignature, verify_certificate
from collegium.protocol.components import base_vector, state_digest
from collegium.protocol.update import payload_values
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

NAME = "head/task0"


def exported(run: "Run", home: Home, folder: Path) -> tuple[dict[str, object], dict[str, object]]:
    answer = run("model", "export", folder, "--home", home.root)
    assert answer.code == 0, answer.err
    documents = [json.loads((folder / name).read_text()) for name in ("provenance.json", "config.json")]
    return documents[0], documents[1]


def test_the_weights_are_base_and_grid_times_the_certified_state(
    run: "Run", home: Home, cluster: Cluster, tmp_path: Path
) -> None:
    provenance, config = exported(run, home, tmp_path / "out")
    described = provenance["components"][NAME]  # type: ignore[index]
    node = cluster.nodes[1]
    assert node.core is not None
    c, spec = node.core.ledger.components[NAME], cluster.charter.components[0]
    state, _ = replay(origin(spec), spec, c.rounds, lambda e: payload_values(node.store.blobs[e.blob], spec))
    assert c.certified is not None
    assert described["digest"] == state_digest(NAME, state).hex() == c.certified.digest.hex()
    assert (described["round"], described["generation"], described["certified"]) == (4, 1, True)
    assert {member["key"] for member in described["attested_by"]} <= {
        n.identity.public_key.hex() for n in cluster.nodes
    }
    assert len(described["attested_by"]) >= 3
    entry = config["components"][0]  # type: ignore[index]
    path = tmp_path / "out" / entry["file"]
    assert described["sha256"] == sha256(path.read_bytes()).hexdigest()
    weights = load_file(path)
    base = base_vector(cluster.charter.seed, NAME, spec.tensors)
    assert list(weights) == ["weight"]
    assert weights["weight"].dtype == np.float32
    expected = (base.astype(np.float64) + spec.grid_step * state / 256).astype(np.float32)
    assert np.array_equal(weights["weight"], expected)
    assert not np.array_equal(weights["weight"], base)
    assert (entry["name"], config["seed"]) == (NAME, cluster.charter.seed.hex())


def test_a_statistic_is_exported_as_the_sum_that_it_is(run: "Run", tmp_path: Path) -> None:
    cluster = Cluster(4, 9, Invariants, rounds=1, statistics=1)
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(1))
    cluster.run(lambda: False, cluster.now + 20_000)
    node, name = cluster.nodes[1], "statistic/task0"
    assert node.core is not None
    home = Home(tmp_path / "node")
    fill(home, cluster, node)
    provenance, config = exported(run, home, tmp_path / "out")
    entry = next(item for item in config["components"] if item["name"] == name)  # type: ignore[attr-defined]
    assert provenance["components"][name]["certified"] is True  # type: ignore[index]
    weights = load_file(tmp_path / "out" / entry["file"])
    spec = next(spec for spec in cluster.charter.components if spec.name == name)
    rounds = node.core.ledger.components[name].rounds
    values = [payload_values(node.store.blobs[entry.blob], spec) for round_ in rounds for entry in round_.entries]
    total = np.sum([value.astype(np.int64) for value in values], axis=0) * spec.grid_step
    assert len(values) == 4
    assert np.allclose(np.concatenate([weights["gram"].reshape(-1), weights["cross"].reshape(-1)]), total)


def test_a_later_round_that_nobody_certified_yet_is_not_the_model(run: "Run", tmp_path: Path) -> None:
    cluster = Cluster(4, 7, Invariants, rounds=4)
    cluster.start()
    node = cluster.nodes[1]

    def between() -> bool:
        c = node.core.ledger.components[NAME] if node.core is not None else None
        return c is not None and c.certified is not None and 1 <= c.certified.round < c.round

    assert cluster.run(between)
    assert node.core is not None
    c, spec = node.core.ledger.components[NAME], cluster.charter.components[0]
    assert c.certified is not None
    home = Home(tmp_path / "node")
    fill(home, cluster, node)
    rounds = c.rounds[: c.certified.round]
    state, _ = replay(origin(spec), spec, rounds, lambda e: payload_values(node.store.blobs[e.blob], spec))
    for from_bytes in (True, False):
        component = home_model(home, from_bytes=from_bytes).components[NAME]
        assert (component.round, component.digest, component.certified) == (c.certified.round, c.certified.digest, True)
        assert component.label == "certified"
        assert np.array_equal(component.state, state)
    provenance, _ = exported(run, home, tmp_path / "out")
    assert provenance["components"][NAME]["round"] == c.certified.round < c.round  # type: ignore[index]


def test_the_certificate_bears_out_the_block_by_itself(
    run: "Run", home: Home, cluster: Cluster, tmp_path: Path
) -> None:
    provenance, _ = exported(run, home, tmp_path / "out")
    block = schema.load(Block, bytes.fromhex(str(provenance["block_bytes"])), 1 << 20)
    assert block.id.hex() == provenance["block"]
    stated = provenance["certificate"]
    signatures = tuple(
        VoteSignature(bytes.fromhex(s["key"]), bytes.fromhex(s["signature"]))
        for s in stated["signatures"]  # type: ignore[index]
    )
    members = frozenset(node.identity.public_key for node in cluster.nodes)
    verify_certificate(block, Certificate(stated["view"], signatures), members, "byzantine")  # type: ignore[index]
    with Store.open_readonly(home.database) as store:
        assert block.height == provenance["height"] == store.height()


def test_a_folder_with_something_in_it_is_left_alone(run: "Run", home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    answer = run("model", "export", tmp_path, "--home", home.root, "--json")
    assert (answer.code, answer.value["exit_code"]) == (2, 2)
    assert (tmp_path / "mine").read_text() == "x"
    assert run("model", "export", tmp_path / "mine", "--home", home.root).code == 2
    assert run("model", "export", tmp_path / "not" / "there", "--home", home.root).code == 2


def test_what_is_exported_is_for_its_owner_alone(run: "Run", home: Home, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert run("model", "export", out, "--home", home.root).code == 0
    assert run("ledger", "export", tmp_path / "ledger", "--home", home.root).code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (out, *out.iterdir(), tmp_path / "ledger")}
    assert modes == {name: 0o700 if name == "model" else 0o600 for name in modes}


def test_nothing_is_written_of_states_that_do_not_verify(run: "Run", home: Home, tmp_path: Path) -> None:
    blob = next(iter(sorted(home.blobs.glob("[0-9a-f]*/*/*"))))
    data = blob.read_bytes()
    blob.write_bytes(data + b"x")
    assert run("model", "export", tmp_path / "out", "--home", home.root).code == 6
    blob.unlink()
    assert run("model", "export", tmp_path / "out", "--home", home.root).code == 6
    assert not (tmp_path / "out").exists()


def test_stored_states_are_not_believed(run: "Run", home: Home, cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.nodes[1]
    assert node.core is not None
    wrong = np.ones(cluster.charter.components[0].dimension, dtype=np.int32)
    States(home.states).put(NAME, 4, node.core.ledger.components[NAME].chain, wrong)
    provenance, _ = exported(run, home, tmp_path / "out")
    assert provenance["components"][NAME]["digest"] == node.core.folded[NAME][3].hex()  # type: ignore[index]


def test_without_a_round_there_is_nothing_to_export(run: "Run", home: Home, cluster: Cluster, tmp_path: Path) -> None:
    home.database.unlink()
    with Store.open(home.database, cluster.charter.federation):
        pass
    answer = run("model", "export", tmp_path / "out", "--home", home.root)
    assert (answer.code, "No round is closed" in answer.err) == (2, True)
    answer = run("predict", home.charter, "--home", home.root)
    assert (answer.code, "No round is closed" in answer.err) == (2, True)


@pytest.mark.parametrize("word", ["a/../../b", "..", "a b", "é"])
def test_a_name_from_the_charter_chooses_no_path(word: str, tmp_path: Path, cluster: Cluster) -> None:
    from collegium.cli.model import _weights
    from collegium.consensus.ledger import genesis
    from collegium.node.verify import Component, Model, Report

    spec = cluster.charter.components[0]
    component = Component(spec, origin(spec), 1, 0, bytes(32), True, "", ())
    model = Model(Report(cluster.charter, genesis(cluster.charter), 1000), {word: component, word + "!": component})
    files = _weights(model, tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name for name, _ in files.values())
    assert len(files) == 2
