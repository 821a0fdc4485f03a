"""The memory that a learner needs: the estimate, beside the peak of a real worker."""

from pathlib import Path
from typing import Any

from collegium.node.blueprint.parts import adapter, encoder, head, last_layers
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.data.arrays import load
from collegium.node.learner.client import process
from collegium.node.learner.memory import FACTOR, MIB, model_size, needed
from collegium.node.learner.messages import Engagement, Open, Train
from collegium.node.learner.session import open_session
from collegium.node.pretrained.folder import weights_digest
from collegium.protocol.components import MILLION
from collegium.protocol.learning import Modality, Pretrained, Task

from . import test_writing
from .writers import tiny_writer

TOKENS, STUDENTS, LOT = 120, 40, 30.0
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
columns = ["answer"]
[[task]]
name = "pass"
kind = "binary"
column = "pass"
positive = "1"
[split]
share = 0.05
salt = "x"
"""


def wide_model(tiny: Path, folder: Path) -> Path:
    """The tiny BERT, with more and wider layers: a pass keeps much of every text."""
    import transformers

    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    sizes: dict[str, Any] = {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 4096}
    config = transformers.AutoConfig.from_pretrained(tiny, max_position_embeddings=TOKENS, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_workers_peak_is_as_estimated(tiny: Path, tmp_path: Path) -> None:
    """Of an adapter: once before any text passes through the model, and once with the gradients of a step."""
    model = wide_model(tiny, tmp_path / "wide")
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    rows = [f"r{n},s{n},{'why the cat sat ' * 40},{n % 2}" for n in range(STUDENTS)]
    (tmp_path / "work.csv").write_text("\n".join(["id,student,answer,pass", *rows]) + "\n")
    essay = Modality("essay", "text", 64, 1, (Pretrained("wide", weights_digest(model), TOKENS),))
    task = Task("pass", "binary", 2, ("essay",))
    parts = (encoder(essay, 16, "pair-tanh"), head(task, 16), adapter(essay, model, "lora-core", 4, ("query",)))
    recipe = Recipe((essay,), (task,), parts, STUDENTS, 1, 500_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    estimate = needed(learning, specs, {"essay": model_size(model)}, load(tmp_path), LOT)
    names = tuple(spec.name for spec in specs)
    with process() as worker:
        worker.ask(Open((str(tmp_path),), specs, learning, NO_SEED, names, models={"wide": str(model)}, seed=1))
        opened = peak(worker.pid)
        worker.ask(Train({}, dict.fromkeys(names, Engagement(1.0, 0.1, 1.0)), 1, 0.9, LOT))
        whole, step = peak(worker.pid), estimate["gradients of a step"]
    assert step > sum(estimate.values()) / 2, "or nothing is tested"
    within(opened, sum(estimate.values()) - step)
    within(whole, sum(estimate.values()))
    within(whole - opened, step)


def test_small_parts_of_the_estimate_are_right_too(tiny: Path, tmp_path: Path) -> None:
    """In a worker's peak they would not show: weights are as long as their file, states as many as the worker keeps."""
    essay = Modality("essay", "text", 32, 1, (Pretrained("tiny", weights_digest(tiny), 30),))
    task = Task("pass", "binary", 2, ("essay",))
    parts = (encoder(essay, 16, "pair-tanh"), head(task, 16), last_layers(essay, tiny, 2))
    recipe = Recipe((essay,), (task,), parts, STUDENTS, 1, 500_000, MILLION, MILLION, MILLION, 16)
    specs, learning = charter_parts(recipe, None, min_updates=1)
    counted = needed(learning, specs, {"essay": model_size(tiny)}, None, LOT)
    within((tiny / "model.safetensors").stat().st_size, counted["frozen models"])
    numbers = sum(spec.dimension for spec in specs)
    within(numbers * (4 + 4 + 8 + 8), counted["trained parts"])  # itself and a gradient; a sum and noise in float64

    model, school = tiny_writer(tmp_path / "writer"), tmp_path / "school"
    school.mkdir()
    words = "why the cat sat on it"  # prompts fill max_tokens, and no two are alike
    rows = [f"r{n},s{n},{n} {words},{n} {words},{words}" for n in range(STUDENTS)]
    (school / "dataset.toml").write_text(test_writing.MANIFEST)
    (school / "work.csv").write_text("\n".join(["id,student,question,answer,feedback", *rows]) + "\n")
    request = test_writing.opening(school, model)
    session, _ = open_session(request)
    kept = sum(state.nbytes for state in session.hidden["work"].values())
    counted = needed(request.learning, request.components, {"work": model_size(model)}, load(school), LOT)
    within(kept, counted["features and states"])


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def within(measured: int, estimated: int) -> None:
    assert measured / FACTOR < estimated < measured * FACTOR, f"{measured // MIB} MiB, estimated {estimated // MIB}"
