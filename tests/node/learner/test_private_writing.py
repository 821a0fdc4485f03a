"""A private adapter of a model that writes: it learns one school's own words, changes nothing shared, stays at home."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from collegium.crypto.errors import UsageError
from collegium.node.learner.messages import Evaluate, Personalise, Predict, PrivateAdapter
from collegium.node.learner.worker import Worker

from .asking import ask
from .test_writing import ADAPTER, MANIFEST, opening, parts_of
from .writers import tiny_writer

SHARED = {ADAPTER: bytes(4 * 18)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One school whose teachers write "see me" below every answer."""
    rows = [f"r{n},s{n},why {n},because {'abcdefghijklmnopqrst'[n % 20]},see me" for n in range(40)]
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "work.csv").write_text("\n".join(["id,student,question,answer,feedback", *rows]) + "\n")
    (tmp_path / "new.csv").write_text("id,student,question,answer\nn1,t1,why 77,because x\n")
    return tmp_path


def test_it_learns_the_school_s_own_words_beside_the_shared_model_and_stays_at_home(model: Path, folder: Path) -> None:
    (spec,), _ = parts_of(model)
    assert spec.dimension == 18
    private, new = folder / "private", str(folder / "new.csv")
    ours = replace(opening(folder, model), private=str(private), private_adapter=PrivateAdapter("lora", 8))
    worker = Worker()
    ask(worker, ours)
    before = ask(worker, Evaluate(SHARED, home_layer=True))
    assert before.home_layer == {}
    draft = ask(worker, Predict(SHARED, new)).tasks["feedback"].texts
    assert ask(worker, Predict(SHARED, new, home_layer=True)).tasks["feedback"].texts == draft, "not trained yet"

    told: list[tuple[int, int]] = []
    answer = ask(worker, Personalise(SHARED), lambda done, total: told.append((done, total)))
    # Query 32 to 32 and value 32 to 16, on the one layer that the shared adapter changes: A [8, 32], B [out, 8].
    assert answer.parameters == 2 * 8 * 32 + 8 * 32 + 8 * 16
    assert told[-1][0] == told[-1][1]
    (file,) = private.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    after = ask(worker, Evaluate(SHARED, home_layer=True))
    assert after.tasks["feedback"].value == before.tasks["feedback"].value
    shared, own = after.tasks["feedback"].value, after.home_layer["feedback"].value
    assert shared is not None
    assert own is not None
    assert own < shared - 1.0, "held-out students of the same school"
    assert ask(worker, Predict(SHARED, new)).tasks["feedback"].texts == draft
    assert ask(worker, Predict(SHARED, new, home_layer=True)).tasks["feedback"].texts != draft

    # Another worker finds it; one whose configuration has none, or another kind, does not use it.
    again = Worker()
    ask(again, ours)
    found = ask(again, Evaluate(SHARED, home_layer=True)).home_layer
    assert found["feedback"].value == own
    ask(again, replace(ours, private_adapter=None))
    assert ask(again, Evaluate(SHARED, home_layer=True)).home_layer == {}
    ask(again, replace(ours, private_adapter=PrivateAdapter("lora", 4)))
    with pytest.raises(UsageError, match="another kind, rank or model"):
        ask(again, Evaluate(SHARED, home_layer=True))
