"""A task that writes, from dataset.toml to the draft: `charter model`, `create`, `show`, `data check`, `predict`."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.presets import NO_SEED
from collegium.node.blueprint.recipe import charter_parts
from collegium.node.home import Home
from collegium.node.home.config import Config, Data, Learning, Models, Privacy, default_text
from collegium.sims.simulator.cluster import Cluster
from collegium.sims.simulator.invariants import Invariants

from ..node.learner.writers import tiny_writer
from .conftest import fill

if TYPE_CHECKING:
    from .conftest import Run

MANIFEST = """
format = 1
[unit]
kind = "record"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "work"
kind = "text"
columns = ["question", "answer"]
[[task]]
name = "feedback"
kind = "generate"
column = "feedback"
max_tokens = 8
[split]
share = 0.25
salt = "x"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, and beside it the model file that is made of it, with a tiny model."""
    folder = tmp_path_factory.mktemp("school")
    (folder / "dataset.toml").write_text(MANIFEST)
    rows = [f"r{n},why {n},because {n},{('good', 'a b c d e f g h i', '1 2 3 4 5')[n % 3]}" for n in range(24)]
    (folder / "work.csv").write_text("\n".join(["id,question,answer,feedback", *rows]) + "\n")
    tiny_writer(folder)
    return folder


@pytest.fixture
def model(run: "Run", folder: Path) -> Path:
    made = run("charter", "model", folder)
    assert made.code == 0, made.err
    text = re.sub(r'"models/smollm2".*', json.dumps(str(folder / "tiny-writer")), made.out)
    text = text.replace("max_tokens = 512", "max_tokens = 64").replace("rank = 8, layers = 4", "rank = 3, layers = 1")
    (folder / "model.toml").write_text(text)
    return folder / "model.toml"


def test_the_model_file_of_a_folder_makes_a_charter_that_says_what_is_written(
    run: "Run", model: Path, tmp_path: Path
) -> None:
    declared = read_model(model).recipe
    (part,) = declared.parts
    assert (part.name, part.architecture, part.dimension) == ("adapter/work", "lora-core", 18)
    task = declared.tasks[0]
    assert (task.kind, task.classes, task.template, task.outputs) == ("generate", 8, "{1}\n\n{2}\n\n", 1)
    for wrong, error in {
        "template does not have each passage": ('"{1}\\n\\n{2}\\n\\n"', '"{1} {3}"'),
        "nothing that is trained": ("adapter =", "# adapter ="),
        "which is there to write from": ('kind = "generate"', 'kind = "binary"'),
    }.items():
        broken = tmp_path / "broken.toml"
        broken.write_text(model.read_text().replace(*error))
        refused = run("charter", "create", "--name", "x", "--model", broken, "--home", tmp_path / "none")
        assert refused.code != 0
        with pytest.raises(Exception, match=wrong):
            read_model(broken)


def test_data_check_counts_what_is_too_long_to_be_written(run: "Run", folder: Path, tmp_path: Path) -> None:
    checked = run("data", "check", folder, "--json", "--home", tmp_path)
    assert "8 texts to be written have over max_tokens = 8 words and signs" in checked.out + checked.err
    assert "8 texts to be written have over 4 words and signs, and may have" in checked.out + checked.err


@pytest.fixture
def home(model: Path, folder: Path, tmp_path: Path) -> Home:
    """A node of a federation that closed two rounds; its updates are made up."""
    cluster = Cluster(4, 5, Invariants, rounds=2)
    specs, learning = charter_parts(read_model(model).recipe, None, min_updates=1)
    cluster.charter = replace(cluster.charter, components=specs, learning=learning, seed=NO_SEED)
    for node in cluster.nodes:
        node.options = replace(node.options, hosted=tuple(spec.name for spec in specs))
    cluster.start()
    assert cluster.run(lambda: cluster.all_closed(2))
    cluster.run(lambda: False, cluster.now + 20_000)
    home = Home(tmp_path / "node")
    fill(home, cluster, cluster.nodes[1])
    config = Config(data=Data(folder), learning=Learning(), privacy=Privacy(policy="open"))
    home.config.write_text(default_text(replace(config, models=Models((("tiny-writer", folder / "tiny-writer"),)))))
    return home


def test_every_text_is_called_a_draft(run: "Run", home: Home, folder: Path, tmp_path: Path, one_worker: None) -> None:
    shown = run("charter", "show", "--home", home.root)
    assert "feedback writes 8 tokens at most, after this template:\n{1}\n\n{2}" in shown.out
    reviewed = run("charter", "review", "--home", home.root)
    assert "draft for a teacher" in " ".join(reviewed.out.split())
    checked = run("data", "check", folder, "--home", home.root)
    assert "task 'feedback': 16 texts to be written have over 8 tokens" in " ".join((checked.out + checked.err).split())
    new = tmp_path / "new.csv"
    new.write_text("id,question,answer\nn1,why,because\nn2,,\nn3,how,so\n")
    plain = run("predict", new, "--home", home.root)
    assert plain.code == 0, plain.err
    assert "feedback: each text is a draft for a teacher" in " ".join(plain.err.split())
    rows = list(csv.DictReader(io.StringIO(plain.out)))
    assert [list(row) for row in rows] == [["record", "feedback (draft for a teacher)"]] * 3
    drafts = [row["feedback (draft for a teacher)"] for row in rows]
    assert drafts[0]
    assert drafts[1] == ""
    answer = json.loads(run("predict", new, "--home", home.root, "--json", "--sample", "3").out)
    assert answer["drafts"] == {"feedback": "draft for a teacher"}
    assert [row["feedback (draft for a teacher)"] for row in answer["predictions"]] != drafts


def test_what_moved_a_draft_is_told_by_sentence_to_a_teacher_alone(
    run: "Run", home: Home, folder: Path, tmp_path: Path, one_worker: None
) -> None:
    new = tmp_path / "new.csv"
    new.write_text("id,question,answer\nn1,Why? Say it.,because\n")
    words = ("explain", new, "--role", "instructor", "--home", home.root)
    out = tmp_path / "why.json"
    shown = run(*words, "--out", out)
    assert shown.code == 0, shown.err
    says = json.loads(out.read_text())["says"]
    assert [(one["passage"], one["text"]) for one in says["moved"]] == [
        ("question, sentence 1", "Why?"), ("question, sentence 2", "Say it."), ("answer", "because"),
    ]  # fmt: skip
    (row,) = json.loads(run("predict", new, "--home", home.root, "--json").out)["predictions"]
    assert says["draft"] == row["feedback (draft for a teacher)"]
    assert "Draft for a teacher, which can be wrong" in shown.out
    assert any(abs(one["nats"]) > 1e-3 for one in says["moved"])
    assert run("explain", "verify", out, new, "--home", home.root).code == 0
    # Another answer, and another draft's loss: the figures are of this record.
    new.write_text("id,question,answer\nn1,Why? Say it.,since\n")
    assert run("explain", "verify", out, new, "--home", home.root).code == 6
    for role in ("student", "guardian"):
        refused = run("explain", new, "--role", role, "--home", home.root)
        assert (refused.code, "for a teacher to read first" in refused.err) == (2, True)
