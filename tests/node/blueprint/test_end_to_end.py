"""From a data folder to a model file to a charter to a trained model, with all five kinds of modality."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collegium.node.blueprint.declare import read_model
from collegium.node.blueprint.derive import TEXT_MODEL, model_toml
from collegium.node.blueprint.recipe import NO_SEED, Budget, charter_parts, needed
from collegium.node.learner.protocol import Message
from collegium.node.learner.worker import Worker
from collegium.protocol.charter import Charter, Member, Rules, check
from collegium.protocol.components import MILLION
from collegium.protocol.schema import to_map

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


def opened(charter: Charter, data: Path, tiny: Path, hosted: list[str]) -> tuple[Worker, Message]:
    worker = Worker()
    answer = worker.handle(
        {
            "op": "open", "data": str(data), "components": [to_map(spec) for spec in charter.components],
            "learning": to_map(charter.learning), "base_seed": NO_SEED, "hosted": hosted, "seed": 5,
            "models": {"tiny": str(tiny)},
        },
        lambda _done, _total: None,
    )  # fmt: skip
    return worker, answer


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
    assert answer["components"] == {spec.name: spec.dimension for spec in charter.components}
    trained = worker.handle(
        {
            "op": "train", "states": {}, "steps": 3, "sample_rate": 1.0, "lot": float(STUDENTS),
            "engaged": {
                spec.name: {
                    "clip": spec.clip_norm / MILLION, "noise": 0.0, "learning_rate": spec.learning_rate / MILLION
                } for spec in charter.components
            },
        },
        lambda _done, _total: None,
    )  # fmt: skip
    for spec in charter.components:  # no noise: what is not zero was learned
        values = np.frombuffer(trained["updates"][spec.name], spec.integer_type)
        assert values.size == spec.dimension
        assert np.any(values), spec.name


def test_a_node_without_some_modalities_and_tasks_trains_the_rest(model: tuple[Path, Path], tiny: Path) -> None:
    data, path = model
    charter = charter_of(path, Budget(8.0, 1e-5, 2))
    names = [spec.name for spec in charter.components]
    hosted = list(needed(charter.learning, names, {"table", "note"}, {"level"}))
    assert hosted == ["backbone", "encoder/note", "encoder/table", "head/level", "skip/level"]
    worker, answer = opened(charter, data, tiny, hosted)
    assert set(answer["modalities"]) == {"table", "note"}
    noises = {spec.name: spec.noise_multiplier / MILLION for spec in charter.components}
    assert min(noises.values()) > 0
    trained = worker.handle(
        {
            "op": "train", "states": {}, "steps": 1, "sample_rate": 0.5, "lot": 5.0,
            "engaged": {name: {"clip": 1.0, "noise": noises[name], "learning_rate": 0.1} for name in hosted},
        },
        lambda _done, _total: None,
    )  # fmt: skip
    assert set(trained["updates"]) == set(hosted)
