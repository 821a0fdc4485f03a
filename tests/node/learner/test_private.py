"""A private adapter on a frozen text model: it learns, stays apart, and stays at home."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.crypto.errors import CorruptError, UsageError
from collegium.node.blueprint.parts import adapter, encoder, head
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.home import Home
from collegium.node.learner.adapters import PRIVATE_KINDS
from collegium.node.learner.answers import Personalised
from collegium.node.learner.messages import (
    Engagement,
    Evaluate,
    LeftOut,
    Open,
    Personalise,
    Predict,
    PrivateAdapter,
    Train,
)
from collegium.node.learner.worker import Worker
from collegium.node.pretrained.folder import weights_digest
from collegium.node.unlearning.students import exclude
from collegium.protocol.components import MILLION
from collegium.protocol.learning import Modality, Pretrained, Task

from .asking import ask
from .test_predict import MANIFEST

LORA = PrivateAdapter("lora", 4)
NOTE = """
[[modality]]
name = "note"
kind = "text"
columns = ["note"]
[[task]]"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 students, up to two texts each: the mark is in the order of two words, and the note tells it plainly."""
    source, rows = np.random.default_rng(4), []
    for n in range(240):
        good = bool(source.integers(2))
        words = ["why", "cat"] if good else ["cat", "why"]
        essay = " ".join(["the", *words, *source.choice(list("abcdefgh"), 3)])
        rows.append(f"r{n},s{n % 160},{essay},{'hello' if good else ''},{'good' if good else 'bad'}")
    folder = tmp_path_factory.mktemp("texts")
    (folder / "dataset.toml").write_text(MANIFEST.replace("\n[[task]]", NOTE))
    (folder / "work.csv").write_text("\n".join(["id,student,essay,note,mark", *rows]) + "\n")
    return folder


def opening(folder: Path, tiny: Path, home: Path, *, adapted: bool = False, **more: Any) -> Open:
    essay, note = (Modality(n, "text", 32, 1, (Pretrained("tiny", weights_digest(tiny)),)) for n in ("essay", "note"))
    task = Task("pass", "binary", 2, ("essay", "note"))
    parts = [encoder(essay, 8, "pair-tanh", features=16), head(task, 8)]
    if adapted:
        parts.append(adapter(essay, tiny, "lora-ffa", 2, ["query"]))
    recipe = Recipe((essay, note), (task,), tuple(parts), 300, 1, 100_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    request = Open((str(folder),), specs, learning, NO_SEED, tuple(spec.name for spec in specs), 5, withheld=("note",))
    given = {"private_adapter": LORA} | more
    models, cache, private = {"tiny": str(tiny)}, str(home / "embeddings.db"), str(home / "private")
    return replace(request, models=models, cache=cache, private=private, home_layer=True, **given)


Opener = Callable[..., Worker]


@pytest.fixture
def opened(folder: Path, tiny: Path, tmp_path: Path) -> Opener:
    def open_(**more: Any) -> Worker:
        worker = Worker()
        ask(worker, opening(folder, tiny, tmp_path, **more))
        return worker

    return open_


def trained(worker: Worker) -> Personalised:
    return ask(worker, Personalise({}))


def value(worker: Worker, *, home_layer: bool = True) -> float:
    """AUC on the held-out students."""
    answer = ask(worker, Evaluate({}, home_layer=True))
    figure = (answer.home_layer if home_layer else answer.tasks)["pass"].value
    assert figure is not None
    return figure


def test_who_is_left_out_is_still_known_to_be_in_the_data(folder: Path, tiny: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "node")
    home.make()
    excluded = exclude(home, "s7")
    left_out = LeftOut(excluded.salt, tuple(excluded.tags))
    answer = ask(Worker(), opening(folder, tiny, tmp_path, excluded=left_out))
    assert answer.everybody is not None
    assert sorted(answer.everybody) == sorted(f"s{n}" for n in range(160))
    assert answer.subjects + answer.held_out == 159


@pytest.mark.parametrize("kind", PRIVATE_KINDS)
def test_an_adapter_learns_what_frozen_features_do_not_show(opened: Opener, tmp_path: Path, kind: str) -> None:
    plain = value(opened(withheld=(), private_adapter=None))
    worker = opened(withheld=(), private_adapter=PrivateAdapter.named(kind, 4))
    assert value(worker) == plain, "it is not trained yet"
    answer = trained(worker)
    assert answer.parameters > 100
    (path,) = (tmp_path / "private").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("adapter-essay.safetensors", 0o600)
    assert value(worker) > plain + 0.02
    # Another process reads the same from the disk.
    assert value(opened(withheld=(), private_adapter=PrivateAdapter.named(kind, 4))) == value(worker)


@pytest.mark.parametrize("adapted", [False, True], ids=["frozen", "beside a shared adapter"])
def test_shared_updates_and_their_order_of_draws_are_the_same_with_and_without(opened: Opener, adapted: bool) -> None:
    def update(at_home: bool) -> dict[str, bytes]:
        worker = opened(adapted=adapted, private_adapter=LORA if at_home else None)
        if at_home:
            trained(worker)
            value(worker)
        names = [*worker._sessions[""].specs]
        engaged = dict.fromkeys(names, Engagement(1.0, 1.0, 1.0))
        return ask(worker, Train({}, engaged, steps=2, sample_rate=0.5, lot=30.0)).updates

    first = update(False)
    assert len(first) == 2 + adapted
    assert update(True) == first


def test_a_modality_under_never_is_adapted_for_oneself_alone(opened: Opener, tmp_path: Path) -> None:
    worker = opened()
    trained(worker)
    assert (tmp_path / "private" / "adapter-note.safetensors").exists()
    assert value(worker) > value(worker, home_layer=False) + 0.1


def test_the_home_layer_reads_by_the_adapter_that_is_stored(opened: Opener, folder: Path, tmp_path: Path) -> None:
    request = Predict({}, str(folder / "work.csv"), home_layer=True)

    def predicted(**more: Any) -> Any:
        return ask(opened(withheld=(), **more), request).tasks["pass"].scores

    plain = predicted()
    trained(opened(withheld=()))
    assert not np.allclose(plain, predicted(), atol=0.01)
    assert predicted(private_adapter=None) == plain
    with pytest.raises(UsageError, match="another kind, rank or model"):
        predicted(private_adapter=PrivateAdapter("rslora", 4))
    (path,) = (tmp_path / "private").glob("adapter-*")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptError, match=r"adapter-essay\.safetensors is damaged"):
        predicted()
    path.unlink()
    assert predicted() == plain


def test_without_an_adapter_there_is_nothing_to_train(opened: Opener) -> None:
    with pytest.raises(UsageError, match="no private adapters"):
        trained(opened(private_adapter=None))


def test_progress_reaches_its_total(opened: Opener) -> None:
    seen: list[tuple[int, int]] = []
    worker = opened(withheld=())
    ask(worker, Personalise({}), lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]
    assert {total for _, total in seen} == {seen[0][1]}
