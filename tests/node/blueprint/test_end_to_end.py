"""From a data folder to a model file to a charter to a trained model, with all five kinds of modality."""

import shutil
import sqlite3
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import TEXT_MODEL, model_toml
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts, needed
from collegium.node.learner.answers import Opened
from collegium.node.learner.messages import Engagement, Open, Train
from collegium.node.learner.worker import Worker
from collegium.protocol.charter import Charter, Member, Rules, check
from collegium.protocol.components import MILLION

from ..learner.asking import ask

STUDENTS = 12
DATASET = """
format = 1
[unit]
subject = "student"
table = "rows"
[tables.rows]
path = "rows.csv"
key = "id"
[tables.steps]
path = "steps.csv"
key = "id"
[[modality]]
name = "table"
kind = "tabular"
columns = [{ name = "a", low = -1, high = 1 }, { name = "b", levels = ["x", "y"] }]
[[modality]]
name = "clicks"
kind = "series"
table = "steps"
time = "day"
max_len = 4
columns = [{ name = "n", low = 0, high = 9 }]
[[modality]]
name = "scan"
kind = "image"
file = "scan"
size = 16
[[modality]]
name = "voice"
kind = "audio"
file = "voice"
rate = 8000
max_seconds = 0.2
bands = 8
frames = 10
[[modality]]
name = "essay"
kind = "text"
columns = ["question", "answer"]
[[modality]]
name = "note"
kind = "text"
columns = ["note"]
[[task]]
name = "pass"
kind = "binary"
column = "passed"
positive = "1"
[[task]]
name = "level"
kind = "ordinal"
column = "level"
classes = ["low", "middle", "high"]
[split]
share = 0.2
salt = "x"
"""


def written(folder: Path) -> Path:
    source = np.random.default_rng(1)
    folder.mkdir()
    (folder / "dataset.toml").write_text(DATASET)
    rows, steps = ["id,student,a,b,scan,voice,question,answer,note,passed,level"], ["id,day,n"]
    for number in range(2 * STUDENTS):
        name = f"r{number}"
        Image.fromarray(source.integers(0, 256, (16, 16)).astype(np.uint8)).save(folder / f"{name}.png")
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(source.integers(-9000, 9000, 1200).astype("<i2").tobytes())
        answer = " ".join(source.choice(["the", "cat", "sat", "why", "hello"], 4))
        rows.append(
            f"{name},s{number // 2},{source.uniform(-1, 1):.3f},{'xy'[number % 2]},{name}.png,{name}.wav,why the cat,"
            f"{answer},hello {answer},{number % 2},{('low', 'middle', 'high')[number % 3]}"
        )
        steps += [f"{name},{day},{source.integers(0, 9)}" for day in range(number % 4)]
    (folder / "rows.csv").write_text("\n".join(rows))
    (folder / "steps.csv").write_text("\n".join(steps))
    return folder


def charter_of(path: Path, budget: Budget | None) -> Charter:
    specs, learning = charter_parts(read_model(path).recipe, budget, min_updates=1)
    rules = Rules("crash", 1000, 1, 64, 1 << 20, 1000)
    drawn = Charter(1, "t", 0, NO_SEED, (Member(bytes(32), "a", ()),), rules, specs, learning)
    check(drawn)
    return drawn


def opened(charter: Charter, data: Path, tiny: Path, hosted: list[str], **more: Any) -> tuple[Worker, Opened]:
    worker = Worker()
    request = Open((str(data),), charter.components, charter.learning, NO_SEED, tuple(hosted), 5)
    return worker, ask(worker, replace(request, models={"tiny": str(tiny)}, **more))


@pytest.fixture
def model(tmp_path: Path, tiny: Path) -> tuple[Path, Path]:
    """A data folder, and the model file that `charter model` makes of it, edited as a researcher would."""
    data = written(tmp_path / "data")
    text = model_toml([data])
    named = f'pretrained = "{TEXT_MODEL}"'
    essay, note = text.split('name = "note"')
    essay = essay.replace(
        named, f'pretrained = "{tiny}"\nadapter = {{ kind = "lora-ffa", rank = 2 }}\nprompt = {{ length = 3 }}\n'
    )
    path = tmp_path / "model.toml"
    level, rest = note.split("skip = true", 1)
    note = f'{level}skip = ["table"]{rest}'
    path.write_text((essay + 'name = "note"' + note.replace(named, "")).replace("backbone = 0", "backbone = 8"))
    return data, path


def test_every_component_of_the_five_kinds_of_modality_learns(model: tuple[Path, Path], tiny: Path) -> None:
    data, path = model
    charter = charter_of(path, None)
    names = [spec.name for spec in charter.components]
    kinds = {name.split("/")[0] for name in names}
    assert kinds == {"adapter", "backbone", "encoder", "head", "prompt", "skip"}
    assert {m.kind for m in charter.learning.modalities} == {"tabular", "series", "image", "audio", "text"}
    worker, answer = opened(charter, data, tiny, names)
    assert answer.components == {spec.name: spec.dimension for spec in charter.components}
    engaged = {spec.name: Engagement.of(spec.clip_norm, 0, spec.learning_rate) for spec in charter.components}
    trained = ask(worker, Train({}, engaged, steps=3, sample_rate=1.0, lot=STUDENTS))
    for spec in charter.components:  # no noise: what is not zero was learned
        values = np.frombuffer(trained.updates[spec.name], spec.integer_type)
        assert values.size == spec.dimension
        assert np.any(values), spec.name


def test_a_node_without_some_modalities_and_tasks_trains_the_rest(model: tuple[Path, Path], tiny: Path) -> None:
    data, path = model
    charter = charter_of(path, Budget(8.0, 1e-5, 2))
    names = [spec.name for spec in charter.components]
    hosted = list(needed(charter.learning, names, {"table", "note"}, {"level"}))
    assert hosted == ["backbone", "encoder/note", "encoder/table", "head/level", "skip/level"]
    worker, answer = opened(charter, data, tiny, hosted)
    assert set(answer.modalities) == {"table", "note"}
    noises = {spec.name: spec.noise_multiplier / MILLION for spec in charter.components}
    assert min(noises.values()) > 0
    engaged = {name: Engagement(1.0, noises[name], 0.1) for name in hosted}
    trained = ask(worker, Train({}, engaged, steps=1, sample_rate=0.5, lot=5.0))
    assert set(trained.updates) == set(hosted)


@pytest.fixture
def frozen(tmp_path: Path, tiny: Path) -> tuple[Path, Charter]:
    """A data folder, and a charter by which its essays are read by the frozen model alone."""
    data = written(tmp_path / "data")
    text = model_toml([data]).replace(f'pretrained = "{TEXT_MODEL}"', f'pretrained = "{tiny}"')
    (tmp_path / "model.toml").write_text(text)
    return data, charter_of(tmp_path / "model.toml", None)


ESSAYS = ["encoder/essay", "head/pass"]


def stored(path: Path) -> tuple[int, bytes]:
    """The rows of a cache of embeddings, and its bytes."""
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
    connection.close()
    return count, b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def test_who_leaves_the_data_leaves_the_cached_embeddings(
    frozen: tuple[Path, Charter], tiny: Path, tmp_path: Path
) -> None:
    data, charter = frozen
    path = tmp_path / "cache" / "embeddings.db"
    opened(charter, data, tiny, ESSAYS, cache=str(path), purge=True)
    count, _ = stored(path)
    assert count == 3 * STUDENTS  # of each student the question, once, and two answers
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT subject, value FROM rows").fetchall()
    connection.close()

    table = (data / "rows.csv").read_text().splitlines()
    kept = [line for line in table if line.split(",")[1] not in ("s3", "s4")]
    (data / "rows.csv").write_text("\n".join(kept))
    opened(charter, data, tiny, ESSAYS, cache=str(path))
    assert stored(path)[0] == count, "who shares a cache with other institutions asks for no purge"
    opened(charter, data, tiny, ESSAYS, cache=str(path), purge=True)
    left, content = stored(path)
    assert left == count - 2 * 3
    connection = sqlite3.connect(path)
    there = {tag for (tag,) in connection.execute("SELECT DISTINCT subject FROM rows")}
    connection.close()
    gone = {tag for tag, _ in rows} - there
    assert len(gone) == 2
    assert not any(tag in content for tag in gone)
    # Two records of one student say the same to the same question: a value may be another student's, too.
    others = {value for tag, value in rows if tag in there}
    values = [value for tag, value in rows if tag in gone and value not in others]
    assert values
    assert not any(value[at : at + 16] in content for value in values for at in range(0, len(value), 16))


def test_a_purge_comes_before_any_refusal_and_makes_no_cache(
    frozen: tuple[Path, Charter], tiny: Path, tmp_path: Path
) -> None:
    data, charter = frozen
    path = tmp_path / "embeddings.db"
    opened(charter, data, tiny, ["encoder/table", "head/pass"], cache=str(path), purge=True)
    assert not path.exists()
    opened(charter, data, tiny, ESSAYS, cache=str(path))
    count, _ = stored(path)
    table = (data / "rows.csv").read_text().splitlines()
    (data / "rows.csv").write_text("\n".join(line for line in table if line.split(",")[1] != "s3"))
    manifest = data / "dataset.toml"
    manifest.write_text(manifest.read_text().replace('["question", "answer"]', '["answer", "question"]'))
    with pytest.raises(UsageError, match="'essay' is declared otherwise"):
        opened(charter, data, tiny, ESSAYS, cache=str(path), purge=True)
    assert stored(path)[0] == count - 3


def test_another_model_than_the_charters_is_refused(frozen: tuple[Path, Charter], tiny: Path, tmp_path: Path) -> None:
    data, charter = frozen
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = next(name for name in sorted(weights) if "LayerNorm.bias" in name)
    save_file(weights | {name: weights[name] + 1e-3}, other / "model.safetensors", {"format": "pt"})
    opened(charter, data, tiny, ESSAYS)
    with pytest.raises(UsageError, match="the charter asks for"):
        opened(charter, data, other, ESSAYS)
    # Nor one that only a hosted adapter loads, or that a cache makes it seem needless to load.
    path = tmp_path / "embeddings.db"
    opened(charter, data, tiny, ESSAYS, cache=str(path))
    with pytest.raises(UsageError, match="the charter asks for"):
        opened(charter, data, other, ESSAYS, cache=str(path))


def test_held_out_students_are_not_trained_on(frozen: tuple[Path, Charter], tiny: Path) -> None:
    data, charter = frozen
    hosted = ["encoder/table", "head/pass"]
    rules = dict.fromkeys(hosted, Engagement(1.0, 0.0, 1.0))

    def trained() -> tuple[set[str], set[str], dict[str, bytes]]:
        worker, answer = opened(charter, data, tiny, hosted)
        parts = {name: set(part.subjects) for name, part in worker._sessions[""].parts.items()}
        assert (answer.subjects, answer.held_out) == (len(parts["train"]), len(parts["held_out"]))
        reply = ask(worker, Train({}, rules, steps=2, sample_rate=1.0, lot=10.0))
        return parts["train"], parts["held_out"], reply.updates

    train, held_out, before = trained()
    assert train
    assert held_out
    assert train.isdisjoint(held_out)
    assert train | held_out == {f"s{number}" for number in range(STUDENTS)}

    def changed(students: set[str]) -> None:
        lines = [line.split(",") for line in (data / "rows.csv").read_text().splitlines()]
        for line in lines[1:]:
            if line[1] in students:
                line[2], line[9] = "0.77", str(1 - int(line[9]))
        (data / "rows.csv").write_text("\n".join(map(",".join, lines)))

    changed(held_out)
    assert trained()[2] == before
    changed({min(train)})
    assert trained()[2] != before
