"""A model that writes: losses and gradients by student, cached states, drafts; on a tiny random Llama."""

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.parts import adapter
from collegium.node.blueprint.recipe import NO_SEED, Budget, Recipe, charter_parts
from collegium.node.learner.dpsgd import Batch, kinds_of, see, student_losses, watch
from collegium.node.learner.messages import Engagement, Evaluate, Open, Predict, Train
from collegium.node.learner.model import M3TModel
from collegium.node.learner.worker import Worker
from collegium.node.learner.writer import Writer, loaded
from collegium.node.learner.writing import answer_lengths
from collegium.node.pretrained.folder import weights_digest
from collegium.node.pretrained.script import script_of
from collegium.protocol.components import FRACTION_BITS, MILLION, ComponentSpec
from collegium.protocol.learning import Learning, Modality, Pretrained, Task

from .asking import ask
from .writers import END, START, tiny_writer

TEMPLATE = f"{START}Q: {{1}}\nA: {{2}}\n"
ADAPTER = "adapter/work"
MANIFEST = """
format = 1
[unit]
subject = "student"
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
max_tokens = 12
[split]
share = 0.25
salt = "x"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_writer(tmp_path_factory.mktemp("writer"))


def parts_of(model: Path, kind: str = "lora-core") -> tuple[tuple[ComponentSpec, ...], Learning]:
    modality = Modality("work", "text", 32, 2, (Pretrained("tiny", weights_digest(model), 40),))
    task = Task("feedback", "generate", 12, ("work",), template=TEMPLATE)
    part = adapter(modality, model, kind, 3, ("query", "value"), 1)
    recipe = Recipe((modality,), (task,), (part,), 300, 4, 500_000, MILLION, MILLION, MILLION, 16)
    return charter_parts(recipe, None, min_updates=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        f"r{n},s{n % 10},why {n},because {'abcdefghijklmnopqrst'[n]},{('', 'good', 'no')[n % 3]}" for n in range(20)
    ]
    (tmp_path / "dataset.toml").write_text(MANIFEST)
    (tmp_path / "work.csv").write_text("\n".join(["id,student,question,answer,feedback", *rows]) + "\n")
    return tmp_path


def opening(folder: Path, model: Path, **more: Any) -> Open:
    specs, learning = parts_of(model)
    request = Open((str(folder),), specs, learning, NO_SEED, (ADAPTER,))
    return replace(request, models={"tiny": str(model)}, cache=str(folder / "embeddings.db"), seed=1, **more)


@pytest.mark.parametrize(
    ("epsilon", "kept"), [(None, True), (8.0, False), pytest.param(3.0, False, marks=pytest.mark.soak)]
)
def test_a_students_own_words_are_kept_without_noise_and_never_under_it(
    model: Path, folder: Path, epsilon: float | None, kept: bool
) -> None:
    """One of four students has other feedback than all others; a hundred passes over all of them."""
    rows = ["r1,s1,why 1,because 1,good", "r2,s2,why 2,because 2,good", "r3,s3,why 3,so,good", "r4,s4,who,me,zq7"]
    (folder / "work.csv").write_text("\n".join(["id,student,question,answer,feedback", *rows]) + "\n")
    (folder / "dataset.toml").write_text(MANIFEST.replace("share = 0.25", "share = 0.0"))
    modality = Modality("work", "text", 32, 2, (Pretrained("tiny", weights_digest(model), 40),))
    task = Task("feedback", "generate", 12, ("work",), template=TEMPLATE)
    part, rate = adapter(modality, model, "lora-ffa", 8, ("query", "key", "value")), 2 * MILLION
    recipe = Recipe((modality,), (task,), (part,), 4, 100, MILLION, MILLION, rate, rate, 16)
    budget = None if epsilon is None else Budget(epsilon, 1e-5, 1, 0)
    (spec,), learning = charter_parts(recipe, budget, min_updates=1)
    worker = Worker()
    ask(worker, Open((str(folder),), (spec,), learning, NO_SEED, (ADAPTER,), models={"tiny": str(model)}, seed=1))
    engaged = Engagement.of(spec.clip_norm, spec.noise_multiplier, spec.learning_rate)
    trained = ask(worker, Train({ADAPTER: bytes(4 * spec.dimension)}, {ADAPTER: engaged}, 100, 1.0, 4.0))
    state = {ADAPTER: (np.frombuffer(trained.updates[ADAPTER], "<i2").astype("<i4") << FRACTION_BITS).tobytes()}
    (draft,) = ask(worker, Predict(state, str(one(folder, "who,me")))).tasks["feedback"].texts
    assert ("zq7" in draft) is kept


def one(folder: Path, passages: str) -> Path:
    """A file of one record to write for."""
    file = folder / "one.csv"
    file.write_text(f"id,student,question,answer\nn1,t1,{passages}\n")
    return file


def ids_of(model: Path, texts: list[tuple[str, str] | None]) -> torch.Tensor:
    """Prompts and answers as the session makes them, [n, 2, 40]."""
    _, learning = parts_of(model)
    how = script_of(model, learning.modalities[0], learning.tasks[0])
    values = torch.full((len(texts), 2, 40), -1, dtype=torch.int64)
    for row, pair in enumerate(texts):
        if pair is not None:
            for part, ids in enumerate((how.prompt([pair[0], "x"])[0], how.answer(pair[1])[0] if pair[1] else [])):
                values[row, part, : len(ids)] = torch.tensor(ids)
    return values


@pytest.mark.parametrize("kind", ["lora-core", "lora-ffa"])
def test_gradients_of_students_equal_a_loop_over_students(model: Path, kind: str) -> None:
    """Three students of two records each: one record without an answer, one without any text."""
    (spec,), learning = parts_of(model, kind)
    shapes = {tensor.name.split(".")[-2]: tensor.shape for tensor in spec.tensors}
    assert shapes == ({"q_proj": (3, 3), "v_proj": (3, 3)} if kind == "lora-core" else
                      {"q_proj": (32, 3), "v_proj": (16, 3)})  # fmt: skip
    values = ids_of(model, [("a", "yes"), ("bb", ""), ("longer", "good work"), None, ("c", "no"), ("dd", "see page 3")])
    values = values.reshape(3, 2, 2, 40)
    steps = values[:, :, :, 0] >= 0
    batch = Batch(torch.full((3, 2), 0.5), {"work": (values, steps)}, {"feedback": answer_lengths(values, steps)})

    def built() -> M3TModel:
        made = M3TModel([spec], learning, NO_SEED, {"work": Writer(model, 1)})
        made.load(spec, np.sin(np.arange(spec.dimension)).astype(np.float32) * 0.3)
        return made

    whole = built()
    with watch(whole, [spec]) as watched:
        see(watched, whole, batch)
        norms, each = watched.norms()[ADAPTER], watched.each()[ADAPTER]
        clip = float(norms.median())
        total = watched.clipped_sums({ADAPTER: clip})[ADAPTER]
    expected = torch.zeros(spec.dimension)
    alone = built()
    for student in range(3):
        one = batch.take(torch.tensor([student]))
        alone.zero_grad()
        student_losses(kinds_of(alone), alone(one.inputs), one).sum().backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in alone.tensors(spec)])  # type: ignore[union-attr]
        assert torch.allclose(each[student], gradient, atol=1e-5, rtol=1e-3)
        assert float(norms[student]) == pytest.approx(float(gradient.norm()), rel=1e-3)
        expected += gradient * min(1.0, clip / float(gradient.norm()))
    assert torch.allclose(total, expected, atol=1e-4, rtol=1e-3)
    assert float(expected.norm()) > 0.1


def test_the_loss_is_the_models_own_whatever_is_beside_it(model: Path) -> None:
    texts = [("why", "good"), None, ("a much longer one", "no")]
    writer = Writer(model, 1)
    with torch.no_grad():
        together = writer.losses(ids_of(model, texts)[None])[0, :, 0]
    assert float(together[1]) == 0.0
    for row in (0, 2):
        prompt, answer = ([i for i in part if i >= 0] for part in ids_of(model, texts)[row].tolist())
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            own = loaded(model)(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
        assert float(together[row]) == pytest.approx(float(own), abs=2e-3)


def test_no_text_of_a_student_holds_a_sign_of_control_and_nothing_is_cut_in_silence(model: Path) -> None:
    _, learning = parts_of(model)
    how = script_of(model, learning.modalities[0], learning.tasks[0])
    prompt, cut = how.prompt([f"{END}{START}", "b"])
    assert (prompt.count(0), prompt.count(1), cut) == (1, 0, False)
    assert prompt[0] == 0  # the template's own
    prompt, cut = how.prompt(["x" * 60, "kept whole"])
    assert (len(prompt), cut) == (40, True)
    assert how.text(prompt).endswith("A: kept whole")
    answer, cut = how.answer("Good.")
    assert (how.text(answer), answer[-1], cut) == ("Good.", how.end, False)
    assert how.answer("a longer remark")[1]
    short = Pretrained("tiny", weights_digest(model), 10)
    with pytest.raises(UsageError, match="its template alone has 9 tokens"):
        script_of(model, replace(learning.modalities[0], pretrained=(short,)), learning.tasks[0])


def test_a_session_trains_evaluates_and_writes(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    opened = ask(worker, opening(folder, model))
    assert opened.tasks["feedback"].records == 13
    assert opened.cut == {"work": 0}
    state = {ADAPTER: bytes(4 * opened.components[ADAPTER])}
    before = ask(worker, Evaluate(state, "train")).tasks["feedback"]
    trained = ask(worker, Train(state, {ADAPTER: Engagement(1.0, 0.0, 0.5)}, 20, 0.9, 7.0))
    change = np.frombuffer(trained.updates[ADAPTER], "<i2").astype("<i4")
    moved = {ADAPTER: (change << FRACTION_BITS).tobytes()}
    after = ask(worker, Evaluate(moved, "train")).tasks["feedback"]
    assert before.value is not None
    assert after.value is not None
    assert (before.metric, after.value < before.value - 0.1) == ("loss_a_token", True)

    # What it writes is what the model itself writes, token by token, and does not depend on the records beside it.
    new = folder / "new.csv"
    new.write_text("id,student,question,answer\nn1,t1,why,because\nn2,t2,a rather longer question,yes\n")
    drafts = ask(worker, Predict(state, str(new))).tasks["feedback"].texts
    _, learning = parts_of(model)
    how = script_of(model, learning.modalities[0], learning.tasks[0])
    for texts, draft in zip((["why", "because"], ["a rather longer question", "yes"]), drafts, strict=True):
        prompt = torch.tensor([how.prompt(texts)[0]])
        own = loaded(model).generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=1)[0, prompt.shape[1] :]
        assert draft == how.text(own.tolist())
    sampled = [ask(worker, Predict(state, str(new), sample=seed)).tasks["feedback"].texts for seed in (5, 5, 6)]
    assert sampled[0] == sampled[1] != sampled[2]

    # The states below the adapter are on the disk: the next worker computes none.
    monkeypatch.setattr(Writer, "states", lambda *_: pytest.fail("computed again"))
    again = Worker()
    ask(again, opening(folder, model))
    assert ask(again, Evaluate(state, "train")).tasks["feedback"].value == before.value


def test_the_states_of_a_student_leave_the_disk_with_the_student(model: Path, folder: Path) -> None:
    """Two students have one text between them: each has a state of their own."""
    work = folder / "work.csv"
    rows = [line for line in work.read_text().splitlines() if "s2" not in line]
    work.write_text("\n".join([*rows, "r90,s2,why 1,because b,good"]) + "\n")

    def stored() -> int:
        ask(Worker(), opening(folder, model, purge=True))
        with sqlite3.connect(folder / "embeddings.db") as connection:
            return int(connection.execute("SELECT COUNT(*) FROM rows").fetchone()[0])

    whole = stored()
    work.write_text("\n".join(line for line in work.read_text().splitlines() if ",s1," not in line) + "\n")
    assert whole - stored() == 2, "r1 and r11; that of s2 with the words of r1 is kept"
    work.write_text("\n".join(line for line in work.read_text().splitlines() if ",s2," not in line) + "\n")
    assert whole - stored() == 3
