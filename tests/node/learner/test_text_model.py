"""The whole model with text in it: a BERT from scratch, LoRA of both kinds and a prompt on a frozen one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.node.blueprint.parts import Part, Transformer, adapter, backbone, encoder, head, last_layers, prompt
from collegium.node.learner.dpsgd import Batch, kinds_of, see, student_losses, watch
from collegium.node.learner.model import M3TModel
from collegium.node.learner.text import pretrained_encoder
from collegium.protocol.components import ComponentSpec, base_digest, base_vector
from collegium.protocol.learning import Learning, Modality, Pretrained, PrivacyFloor, Task

SEED, HIDDEN, RECORDS, SEGMENTS = bytes(range(32)), 16, 3, 2
ESSAY = Modality("essay", "text", 32, SEGMENTS, (Pretrained("tiny", bytes(32)),))
NOTE = Modality("note", "text", HIDDEN, SEGMENTS)
TABLE = Modality("table", "tabular", 3, 1)
GRADE = Task("grade", "multiclass", 3, ("essay", "note", "table"))
TOPICS = Task("topics", "multilabel", 2, ("essay",))
LEARNING = Learning(
    (ESSAY, NOTE, TABLE), (GRADE, TOPICS), tuple(PrivacyFloor(m.name, "dp", 8000, 10) for m in (ESSAY, NOTE, TABLE)),
    1, 100_000, 0, 1,
)  # fmt: skip
MODELS = {
    "lora-ffa": ["lora-ffa"],
    "lora-core": ["lora-core"],
    "last-layers": ["last-layers"],
    "soft-prompt": ["soft-prompt"],
    "bert": ["bert"],
    "everything": ["lora-core", "soft-prompt", "bert", "table"],
    "the other adapter too": ["lora-ffa", "soft-prompt", "bert"],
}


def specs_of(tiny: Path, names: list[str]) -> list[ComponentSpec]:
    parts: list[Part] = [head(GRADE, HIDDEN), backbone(HIDDEN, 4)]
    if set(names) - {"bert", "table"}:
        parts += [encoder(ESSAY, HIDDEN, "pair-tanh", features=20), head(TOPICS, HIDDEN)]
    for name in names:
        if name.startswith("lora"):
            parts.append(adapter(ESSAY, tiny, name, 3, ["query", "value"]))
        elif name == "last-layers":
            parts.append(last_layers(ESSAY, tiny, 1))
        elif name == "soft-prompt":
            parts.append(prompt(ESSAY, tiny, 4))
        elif name == "bert":
            parts.append(encoder(NOTE, HIDDEN, "bert", transformer=Transformer(2, 30, 9, 11)))
        else:
            parts.append(encoder(TABLE, HIDDEN, "linear-tanh"))
    return [
        ComponentSpec(
            part.name, part.architecture, part.tensors, 14, 16, "mean", 1, 10**6, 10**6, 10**6,
            base_digest(base_vector(SEED, part.name, part.tensors)),
        )
        for part in parts
    ]  # fmt: skip


def model_of(tiny: Path, specs: list[ComponentSpec]) -> M3TModel:
    live = any(spec.name.startswith(("adapter/", "prompt/")) for spec in specs)
    model = M3TModel(specs, LEARNING, SEED, {"essay": pretrained_encoder(tiny)} if live else {})
    for spec in specs:
        base = base_vector(SEED, spec.name, spec.tensors)
        # What starts at zero is moved, so that no gradient is right by being zero.
        model.load(spec, base + 0.2 * np.sin(np.arange(base.size) + len(spec.name)).astype(np.float32))
    return model


def batch_of(names: set[str], students: int) -> Batch:
    """Texts of 0 to 7 tokens, up to 3 records a student, missing segments, records and labels."""
    source = np.random.default_rng(3)
    real = np.arange(RECORDS) < source.integers(1, RECORDS + 1, students)[:, None]
    inputs = {}
    for name, words in (("essay", 60), ("note", 30)):
        if name in names:
            steps = (source.random((students, RECORDS, SEGMENTS)) < 0.8) & real[:, :, None]
            length = source.integers(1, 8, steps.shape) * steps
            ids = source.integers(5, words, (*steps.shape, 7))
            ids[np.arange(7) >= length[..., None]] = -1
            inputs[name] = (torch.from_numpy(ids), torch.from_numpy(steps))
    if "table" in names:
        values = source.normal(size=(students, RECORDS, 1, 3)).astype(np.float32)
        inputs["table"] = (torch.from_numpy(values), torch.from_numpy(real[:, :, None].copy()))
    labels = {}
    for task in (GRADE, TOPICS):
        labelled = real & (source.random(real.shape) < 0.8)
        size, most = (task.classes, 2) if task.kind == "multilabel" else (1, task.classes)
        drawn = source.integers(0, most, (*real.shape, size))
        labels[task.name] = torch.from_numpy(np.where(labelled[:, :, None], drawn, np.nan).astype(np.float32))
    return Batch(torch.from_numpy((real / real.sum(1, keepdims=True)).astype(np.float32)), inputs, labels)


@pytest.mark.parametrize("name", MODELS)
def test_g6_gradients_of_students_equal_a_loop_over_students(tiny: Path, name: str) -> None:
    specs = specs_of(tiny, MODELS[name])
    read = {spec.name.split("/", 1)[1] for spec in specs if spec.name.startswith("encoder/")}
    batch, model, plain = batch_of(read, 5), model_of(tiny, specs), model_of(tiny, specs)
    with watch(model, specs) as watched:
        see(watched, model, batch)
        gradients, norms = watched.each(), watched.norms()
        clips = {spec.name: 0.5 * float(norms[spec.name].median()) + 1e-9 for spec in specs}
        sums = watched.clipped_sums(clips)
    watch(plain, specs).close()  # so that the same parameters ask for gradients
    total = {spec.name: torch.zeros(spec.dimension) for spec in specs}
    for student in range(batch.size):
        one = batch.take(torch.tensor([student]))
        plain.zero_grad()
        student_losses(kinds_of(plain), plain(one.inputs), one).sum().backward()  # type: ignore[no-untyped-call]
        for spec in specs:
            grads = torch.cat(
                [torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in plain.tensors(spec)]
            )
            assert torch.allclose(gradients[spec.name][student], grads, atol=1e-6, rtol=1e-5), spec.name
            assert float(norms[spec.name][student]) == pytest.approx(float(grads.norm()), rel=1e-3, abs=1e-6)
            total[spec.name] += grads * min(1.0, clips[spec.name] / max(float(grads.norm()), 1e-12))
    for spec in specs:
        assert torch.allclose(sums[spec.name], total[spec.name], atol=1e-5, rtol=1e-3), spec.name
        assert float(total[spec.name].norm()) > 0, spec.name


def test_what_is_frozen_has_no_gradient_and_stays(tiny: Path) -> None:
    specs = specs_of(tiny, ["lora-core", "soft-prompt"])
    model = model_of(tiny, specs)
    trained = {id(p) for spec in specs for p in model.tensors(spec)}
    with watch(model, specs):
        assert {id(p) for p in model.parameters() if p.requires_grad} == trained
    assert sum(p.numel() for p in model.parameters()) > sum(spec.dimension for spec in specs)
