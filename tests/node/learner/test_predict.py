"""`predict` of texts: the embeddings of people whom the institution's data do not know are kept nowhere."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.parts import encoder, head
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.learner.messages import Open, Predict
from collegium.node.learner.worker import Worker
from collegium.node.pretrained.folder import weights_digest
from collegium.protocol.components import MILLION
from collegium.protocol.learning import Modality, Pretrained, Task

from .asking import ask

MANIFEST = """
format = 1
[unit]
subject = "student"
[tables.work]
path = "work.csv"
key = "id"
[[modality]]
name = "essay"
kind = "text"
columns = ["essay"]
[[task]]
name = "pass"
kind = "binary"
column = "mark"
positive = ["good"]
[split]
share = 0.25
salt = "x"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"r{n},s{n},the cat {'abcdefghijklmnopqrst'[n]},{('good', 'bad')[n % 2]}" for n in range(20)]
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "work.csv").write_text("\n".join(["id,student,essay,mark", *rows]) + "\n")
    return tmp_path


def opening(folder: Path, tiny: Path, **more: Any) -> Open:
    modality = Modality("essay", "text", 32, 1, (Pretrained("tiny", weights_digest(tiny)),))
    task = Task("pass", "binary", 2, ("essay",))
    parts = (encoder(modality, 8, "pair-tanh", features=16), head(task, 8))
    recipe = Recipe((modality,), (task,), parts, 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    request = Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs))
    return replace(request, models={"tiny": str(tiny)}, cache=str(folder / "embeddings.db"), **more)


def test_predicting_leaves_the_cache_of_embeddings_as_it_is(folder: Path, tiny: Path) -> None:
    worker, cache, file = Worker(), folder / "embeddings.db", folder / "new.csv"
    file.write_text("id,essay\nn1,hello fraction\nn2,why\n")
    opened = ask(worker, opening(folder, tiny, cache_read_only=True))
    source = np.random.default_rng(1)
    states = {
        name: source.integers(-(2**16), 2**16, size).astype("<i4").tobytes() for name, size in opened.components.items()
    }
    request = Predict(states, str(file))
    first = ask(worker, request)
    assert not cache.exists()
    ask(worker, opening(folder, tiny))  # as a node that trains opens it
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (20,)
    before = cache.read_bytes()
    ask(worker, opening(folder, tiny, cache_read_only=True))
    again = ask(worker, request)
    assert again == first
    assert again.tasks["pass"].scores[0] != again.tasks["pass"].scores[1]
    assert cache.read_bytes() == before


def test_only_the_task_that_is_asked_for_is_told(folder: Path, tiny: Path) -> None:
    worker, file = Worker(), folder / "new.csv"
    ask(worker, opening(folder, tiny, cache_read_only=True))
    file.write_text("id\nn1\n")
    request = Predict({}, str(file))
    with pytest.raises(UsageError, match=r"no record has a modality of task 'pass'.*essay"):
        ask(worker, request)
    assert ask(worker, replace(request, task="another")).tasks == {}
