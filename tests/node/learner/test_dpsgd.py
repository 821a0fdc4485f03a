"""The mechanism: gradients of single students, clipping, sampling, and the noise in the bytes that leave."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn

from collegium.node.blueprint import parts
from collegium.node.learner.dpsgd import (
    Batch,
    Sampling,
    kinds_of,
    see,
    student_losses,
    train,
    training_losses,
    watch,
)  # fmt: skip
from collegium.node.learner.gradients import StudentGradients
from collegium.node.learner.messages import Engagement, Open, Train
from collegium.node.learner.model import ARCHITECTURES, M3TModel
from collegium.node.learner.pairs import pair_width
from collegium.node.learner.randomness import gaussian, randomness, uniform
from collegium.node.learner.worker import Worker
from collegium.node.pretrained.tensors import backbone_tensors
from collegium.node.privacy.accountant import effective_noise
from collegium.protocol.components import ComponentSpec, TensorSpec, base_digest, base_vector
from collegium.protocol.learning import Learning, Modality, PrivacyFloor, Task

from .asking import ask

Ints = npt.NDArray[np.int64]
SEED = bytes(32)


def spec(name: str, architecture: str, shapes: dict[str, tuple[int, ...]], bound: int = 500_000) -> ComponentSpec:
    tensors = tuple(TensorSpec(tensor, shape, bound) for tensor, shape in shapes.items())
    base = base_digest(base_vector(SEED, name, tensors))
    return ComponentSpec(name, architecture, tensors, 14, 16, "mean", 1, 1_000_000, 1_000_000, 1_000_000, base)


def joining(part: parts.Part) -> ComponentSpec:
    return spec(part.name, part.architecture, {tensor.name: tensor.shape for tensor in part.tensors})


TABULAR = spec(
    "encoder/table", "linear-tanh", {"project.weight": (4, 3), "project.bias": (4,), "missing.weight": (4, 1)}
)
SERIES = spec(
    "encoder/series",
    "attention-pool",
    {"project.weight": (4, 2), "project.bias": (4,), "score.weight": (1, 4), "missing.weight": (4, 1)},
)
IMAGE = spec("encoder/image", "linear-tanh", {"project.weight": (4, 5), "project.bias": (4,)})
BACKBONE = spec(
    "backbone", "mlp", {"hidden.weight": (6, 4), "hidden.bias": (6,), "out.weight": (4, 6), "out.bias": (4,)}
)
WIDE = {name: spec(f"encoder/{name}", "linear-tanh", {"project.weight": (16, width), "project.bias": (16,)})
        for name, width in (("table", 3), ("image", 5))}  # fmt: skip
TRANSFORMER = spec("backbone", "transformer", {t.name: t.shape for t in backbone_tensors(16, 1, 8)}, 300_000)
WIDE_HEAD = spec("head/grade", "linear", {"linear.weight": (3, 16), "linear.bias": (3,)})
HEAD = spec("head/grade", "linear", {"linear.weight": (3, 4), "linear.bias": (3,)})
OTHER = spec("head/pass", "linear", {"linear.weight": (2, 4), "linear.bias": (2,)})
SKIP = spec("skip/pass", "linear-skip", {"table.weight": (2, 3), "series.weight": (2, 2), "text.weight": (2, 22)})
TEXT = spec("encoder/text", "pair-tanh", {"project.weight": (4, 6), "project.bias": (4,), "missing.weight": (4, 1)})
PICTURE = spec(
    "encoder/picture",
    "conv-image",
    {
        "conv0.weight": (3, 9), "conv0.bias": (3,), "conv1.weight": (2, 27), "conv1.bias": (2,),
        "project.weight": (4, 8), "project.bias": (4,),
    },
)  # fmt: skip
STROKES = spec(
    "encoder/strokes",
    "conv-series",
    {
        "conv0.weight": (3, 10), "conv0.bias": (3,), "conv1.weight": (2, 15), "conv1.bias": (2,),
        "project.weight": (4, 4), "project.bias": (4,), "missing.weight": (4, 1),
    },
)  # fmt: skip
MARK = spec("head/mark", "linear", {"linear.weight": (1, 4), "linear.bias": (1,)})
LEVEL = spec("head/level", "linear", {"linear.weight": (2, 4), "linear.bias": (2,)})
THEME = spec("head/theme", "similarity", {"shift.weight": (4, 1)})
NAMES = {"theme": torch.randn(5, 7, generator=torch.Generator().manual_seed(1))}  # embeddings of five classes' names
TOPICS = spec("head/topics", "linear", {"linear.weight": (3, 4), "linear.bias": (3,)})
MODELS = {
    "tabular": [TABULAR, HEAD],
    "series": [SERIES, OTHER],
    "image": [IMAGE, HEAD],
    "backbone": [TABULAR, BACKBONE, HEAD],
    "skip": [TABULAR, SERIES, TEXT, OTHER, SKIP],
    "skip alone": [OTHER, SKIP],
    "text": [TEXT, HEAD],
    "picture": [PICTURE, HEAD],
    "strokes": [STROKES, OTHER],
    "transformer": [*WIDE.values(), TRANSFORMER, WIDE_HEAD],  # without tokens of what is missing: its mask is used
    # The picture has no place beside the others, as if it had opened later.
    "concat": [TABULAR, SERIES, IMAGE, joining(parts.concat_backbone(4, 3, ["series", "table"])), HEAD, MARK],
    "cross-attention": [TABULAR, SERIES, IMAGE, joining(parts.attention_backbone(4)), HEAD, MARK],
    **{
        name: [TABULAR, SERIES, IMAGE, joining(parts.experts_backbone(4, 3, 5, int(name[-1]))), HEAD, MARK]
        for name in parts.EXPERTS
    },
    "similarity": [TABULAR, SERIES, THEME],
    "kinds": [TABULAR, SERIES, MARK, LEVEL, TOPICS],
    "everything": [TABULAR, SERIES, IMAGE, PICTURE, STROKES, TEXT, BACKBONE, HEAD, OTHER, MARK, LEVEL, TOPICS, SKIP],
}
KINDS = {
    "grade": ("multiclass", 3), "pass": ("binary", 2), "mark": ("regression", 1), "level": ("ordinal", 3),
    "topics": ("multilabel", 3), "theme": ("multiclass", 5),
}  # fmt: skip
MODALITIES = {
    "table": ("tabular", 3, 1), "series": ("series", 2, 4), "image": ("image", 5, 1), "picture": ("image", 36, 1),
    "strokes": ("series", 2, 9), "text": ("text", 4, 3),
}  # fmt: skip
LEARNING = Learning(
    tuple(Modality(name, *rest) for name, rest in MODALITIES.items()),
    tuple(
        # `mark` reads less than the others: it has its own pass through the backbone.
        Task(name, kind, classes, ("series", "table") if name == "mark" else tuple(sorted(MODALITIES)))
        for name, (kind, classes) in KINDS.items()
    ),
    tuple(PrivacyFloor(name, "dp", 8000, 10) for name in MODALITIES), 1, 100_000, 0, 1,
)  # fmt: skip


def model_of(specs: Sequence[ComponentSpec]) -> M3TModel:
    model = M3TModel(specs, LEARNING, SEED, names=NAMES)
    for item in specs:
        model.load(item, base_vector(SEED, item.name, item.tensors))
    return model


def gradients_of(specs: Sequence[ComponentSpec], batch: Batch, model: M3TModel | None = None) -> StudentGradients:
    model = model or model_of(specs)
    watched = watch(model, specs)
    see(watched, model, batch)
    return watched


def batch_of(students: int, seed: int = 1) -> Batch:
    """Up to 3 records a student, missing modalities, missing steps, missing labels."""
    source = np.random.default_rng(seed)
    counts = source.integers(1, 4, students)
    real = np.arange(3) < counts[:, None]
    inputs = {}
    for name, (_, width, length) in MODALITIES.items():
        steps = (source.random((students, 3, length)) < 0.7) & real[:, :, None]
        values = (source.normal(size=(students, 3, length, width)) * 3 * steps[..., None]).astype(np.float32)
        inputs[name] = (torch.from_numpy(values), torch.from_numpy(steps))
    labels = {}
    for name, (kind, classes) in KINDS.items():
        labelled = real & (source.random((students, 3)) < 0.8)
        size = classes if kind == "multilabel" else 1
        drawn = source.integers(0, 2 if kind == "multilabel" else max(classes, 2), (students, 3, size))
        labels[name] = torch.from_numpy(np.where(labelled[:, :, None], drawn, np.nan).astype(np.float32))
    weights = torch.from_numpy((real / counts[:, None]).astype(np.float32))
    return Batch(weights, inputs, labels)


def test_every_architecture_is_tried_here() -> None:
    tried = {(item.name.split("/")[0], item.architecture) for item in itertools.chain(*MODELS.values())}
    assert tried == set(ARCHITECTURES) - {("encoder", "bert")}  # test_text_model.py
    assert pair_width(4, 3) == 22


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_students_equal_a_loop_over_students(name: str) -> None:
    hold_against_a_loop(MODELS[name], batch_of(11))


def hold_against_a_loop(specs: Sequence[ComponentSpec], batch: Batch) -> None:
    watched = gradients_of(specs, batch)
    gradients, norms = watched.each(), watched.norms()
    clips = {item.name: 0.5 * float(norms[item.name].median()) + 1e-9 for item in specs}
    sums = watched.clipped_sums(clips)
    plain = model_of(specs)
    total = {item.name: torch.zeros(item.dimension) for item in specs}
    for student in range(batch.size):
        one = batch.take(torch.tensor([student]))
        plain.zero_grad()
        training_losses(plain, one).sum().backward()  # type: ignore[no-untyped-call]
        for item in specs:
            grads = torch.cat(
                [torch.zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in plain.tensors(item)]
            )
            assert torch.allclose(gradients[item.name][student], grads, atol=1e-6, rtol=1e-5)
            assert float(norms[item.name][student]) == pytest.approx(float(grads.norm()), rel=1e-4, abs=1e-6)
            total[item.name] += grads * min(1.0, clips[item.name] / max(float(grads.norm()), 1e-12))
    for item in specs:
        assert torch.allclose(sums[item.name], total[item.name], atol=1e-5, rtol=1e-4)
        assert float(total[item.name].norm()) > 0


READS = {"grade": ("image", "picture"), "pass": ("series", "table"), "mark": ("series", "text")}


@pytest.mark.parametrize("middle", [True, False])
@pytest.mark.parametrize("changed", MODALITIES)
def test_g6_a_students_data_change_only_what_the_charter_says_they_reach(changed: str, middle: bool) -> None:
    """`Learning.upstream` decides who is noised and what is charged: it is held against the gradients themselves."""
    learning = replace(
        LEARNING, tasks=tuple(replace(t, modalities=READS[t.name]) for t in LEARNING.tasks if t.name in READS)
    )
    specs = [TABULAR, SERIES, IMAGE, PICTURE, TEXT, HEAD, OTHER, MARK, SKIP, *([BACKBONE] if middle else [])]
    results = []
    for shift in (0.0, 1.0):
        batch, model = batch_of(11), M3TModel(specs, learning, SEED)
        for label in batch.labels.values():
            label[4] = 1.0
        for name, (values, steps) in batch.inputs.items():
            steps[4] = True
            values[4] += 0.5 + (shift if name == changed else 0.0)
        for item in specs:
            model.load(item, base_vector(SEED, item.name, item.tensors))
        watched = watch(model, specs)
        see(watched, model, batch)
        results.append(watched.clipped_sums({item.name: 100.0 for item in specs}))
    differ = {item.name for item in specs if not torch.equal(results[0][item.name], results[1][item.name])}
    assert differ == set(learning.downstream(changed, [item.name for item in specs]))


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize(
    "name",
    ["tabular", "series", "backbone", "skip", "kinds", "concat", "cross-attention", "experts-top2", "similarity"],
)
def test_gradients_of_students_are_those_of_opacus(name: str) -> None:
    specs, batch = MODELS[name], batch_of(11)
    gradients = gradients_of(specs, batch).each()
    model = model_of(specs)
    module = GradSampleModule(model, loss_reduction="sum")
    (student_losses(kinds_of(model), module(batch.inputs), batch) + model.imbalance(batch.weights)).sum().backward()  # type: ignore[no-untyped-call]
    for item in specs:
        samples = torch.cat([p.grad_sample.reshape(batch.size, -1) for p in model.tensors(item)], dim=1)  # type: ignore[attr-defined]
        assert torch.allclose(gradients[item.name], samples, atol=1e-6, rtol=1e-5)


def test_a_layer_that_mixes_students_is_refused() -> None:
    class Prompt(nn.Module):
        """The trap of prompt tuning: ids that are not expanded for each sample, so that all share one row."""

        def __init__(self, expanded: bool) -> None:
            super().__init__()
            self.tokens, self.expanded = nn.Embedding(3, 2), expanded

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ids = torch.arange(3).unsqueeze(0)
            prompt = self.tokens(ids.expand(x.shape[0], -1) if self.expanded else ids)
            total: torch.Tensor = (x.sum() * 0 + prompt.sum((1, 2))).expand(x.shape[0]) * x[:, 0]
            return total

    for expanded in (True, False):
        prompt = Prompt(expanded)
        watched = StudentGradients(prompt, {"prompt": [prompt.tokens.weight]})
        losses = prompt(torch.arange(1.0, 6.0).reshape(5, 1))
        if expanded:
            watched.backward(losses, {5})
            assert watched.norms()["prompt"] == pytest.approx([s * sqrt(6) for s in range(1, 6)])
        else:
            with pytest.raises(AssertionError, match="1 rows for 5 students"):
                watched.backward(losses, {5})


def test_a_layer_whose_students_have_no_gradients_is_refused() -> None:
    convolution = nn.Conv1d(1, 1, 3)
    with pytest.raises(AssertionError, match="Conv1d"):
        StudentGradients(convolution, {"c": [convolution.weight]})
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with pytest.raises(AssertionError, match="two layers"):
        StudentGradients(nn.Sequential(first, second), {"c": [first.weight]})


def test_a_loss_is_the_average_over_records_summed_over_tasks() -> None:
    logits = {
        "grade": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]),
        "pass": torch.tensor([[[0.5, 0.0], [3.0, 0.0]]]),
    }
    labels = {"grade": torch.tensor([[[0.0], [2.0]]]), "pass": torch.tensor([[[1.0], [torch.nan]]])}
    kinds = {"grade": "multiclass", "pass": "binary"}
    loss = student_losses(kinds, logits, Batch(torch.full((1, 2), 0.5), {}, labels))
    grade = (np.log(np.e + 2) - 1 + np.log(np.e**2 + 2)) / 2
    passed = np.log(np.e**0.5 + 1) / 2  # the record without a label counts as zero
    assert loss.tolist() == pytest.approx([grade + passed])


@pytest.mark.parametrize("name", ["everything", "concat", "cross-attention", "experts-top2", "similarity"])
def test_padding_and_the_company_of_others_change_nothing(name: str) -> None:
    batch, model = batch_of(6), model_of(MODELS[name])
    losses = training_losses(model, batch)
    alone = torch.cat([training_losses(model, batch.take(torch.tensor([student]))) for student in range(6)])
    assert torch.allclose(losses, alone, atol=1e-6)
    for values, steps in batch.inputs.values():
        values[~steps] = 99.0
    batch.inputs["table"][0][5] = 7.0
    again = training_losses(model, batch)
    # Values where a mask says "nothing" must not be read, by no architecture.
    assert torch.allclose(losses[:5], again[:5], atol=1e-6)


def one_step(batch: Batch, specs: Sequence[ComponentSpec], clip: float) -> dict[str, npt.NDArray[np.float64]]:
    by_name = {item.name: item for item in specs}
    rules = {name: Engagement(clip, 0.0, 1.0) for name in by_name}
    return train(
        model_of(specs), by_name, rules, batch, sampling=Sampling(1, 1.0, 1.0), source=randomness(1),
        progress=lambda _done, _total: None,
    )  # fmt: skip


def test_several_records_of_a_student_are_clipped_as_one() -> None:
    inputs = {"table": (torch.ones(1, 3, 1, 3) * 5, torch.ones(1, 3, 1, dtype=torch.bool))}
    labels = {"grade": torch.zeros(1, 3, 1)}
    together = one_step(Batch(torch.full((1, 3), 1 / 3), inputs, labels), MODELS["tabular"], 0.01)
    split = {"table": (inputs["table"][0].transpose(0, 1), inputs["table"][1].transpose(0, 1))}
    alone = {"grade": labels["grade"].transpose(0, 1)}
    apart = one_step(Batch(torch.ones(3, 1), split, alone), MODELS["tabular"], 0.01)
    for name in together:
        assert np.linalg.norm(together[name]) == pytest.approx(0.01, rel=1e-4)
        assert np.linalg.norm(apart[name]) == pytest.approx(0.03, rel=1e-4)


def test_clipping_bounds_every_student_and_drops_what_is_not_finite() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with StudentGradients(layer, {"c": [layer.weight]}) as watched:
        rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [float("nan"), 0.0], [float("inf"), 0.0]])
        watched.backward(layer(rows).squeeze(1), {4})
        assert watched.clipped_sums({"c": 1.0})["c"].tolist() == pytest.approx([0.9, 1.2], rel=1e-4)
        assert float(watched.clipped_sums({"c": 1.0})["c"].norm()) <= 1.5


def test_a_component_that_is_not_engaged_stays_and_physical_batches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = MODELS["everything"]
    by_name = {item.name: item for item in specs}

    def run(source: int) -> dict[str, npt.NDArray[np.float64]]:
        model = model_of(specs)
        changes = train(
            model, by_name, {"head/grade": Engagement(1.0, 0.5, 0.1)}, batch_of(20), sampling=Sampling(3, 0.7, 10.0),
            source=randomness(source), progress=lambda _done, _total: None,
        )  # fmt: skip
        untouched = torch.cat([p.detach().reshape(-1) for p in model.tensors(TABULAR)]).numpy()
        assert np.array_equal(untouched, base_vector(SEED, TABULAR.name, TABULAR.tensors))
        return changes

    whole = run(3)
    monkeypatch.setattr("collegium.node.learner.dpsgd.PHYSICAL_RECORDS", 12)
    parts = run(3)
    assert set(whole) == {"head/grade"}
    assert parts["head/grade"] == pytest.approx(whole["head/grade"], abs=1e-6)


def test_random_numbers_have_their_distribution() -> None:
    for seed in (None, 7):
        source = randomness(seed)
        numbers = gaussian(source, 100_001)
        assert numbers.shape == (100_001,)
        assert abs(numbers.mean()) < 5 / sqrt(1e5)
        assert abs(numbers.std() - 1) < 5 / sqrt(2e5)
        assert abs((numbers**4).mean() - 3) < 5 * sqrt(96 / 1e5)
        assert 0 <= uniform(source, 1000).min() < uniform(source, 1000).max() < 1


# What leaves the worker: the bytes of `train`.

CLIP, NOISE, RATE, LOT, RUNS = 0.5, 1.5, 2.0, 20.0, 250
MECHANISM = [
    spec("encoder/table", "linear-tanh", {"project.weight": (4, 3), "project.bias": (4,)}),
    spec("head/pass", "linear", {"linear.weight": (2, 4), "linear.bias": (2,)}),
]
DIMENSION = {item.name: item.dimension for item in MECHANISM}
STD = RATE * NOISE * CLIP / LOT * 2.0**14  # s/Δ of one step, in grid units


def institution(folder: Path, rows: Sequence[tuple[float, float, float, int]]) -> Worker:
    folder.mkdir()
    lines = ["student,a,b,c,passed", *(f"s{number},{a},{b},{c},{y}" for number, (a, b, c, y) in enumerate(rows))]
    (folder / "rows.csv").write_text("\n".join(lines))
    columns = ", ".join(f'{{ name = "{name}", low = -1, high = 1 }}' for name in "abc")
    (folder / "dataset.toml").write_text(
        '[unit]\nkind = "record"\n[tables.rows]\npath = "rows.csv"\nkey = "student"\n'
        f'[[modality]]\nname = "table"\nkind = "tabular"\ncolumns = [{columns}]\n'
        '[[task]]\nname = "pass"\nkind = "binary"\ncolumn = "passed"\npositive = "1"\n[split]\nshare = 0\nsalt = ""\n'
    )
    learning = Learning(
        (Modality("table", "tabular", 3, 1),), (Task("pass", "binary", 2, ("table",)),),
        (PrivacyFloor("table", "dp", 1000, 10),), 1, 1_000_000, 0, 1,
    )  # fmt: skip
    worker = Worker()
    ask(worker, Open((str(folder),), tuple(MECHANISM), learning, SEED, tuple(DIMENSION), 11))
    return worker


def updates(worker: Worker, *, noise: float = NOISE, rate: float = 1.0, clip: float = CLIP, steps: int = 1) -> Any:
    """Return for each component the integers of RUNS updates from the base, [RUNS, d]."""
    request = Train({}, dict.fromkeys(DIMENSION, Engagement(clip, noise, RATE)), steps, rate, LOT)
    released: dict[str, list[Ints]] = {name: [] for name in DIMENSION}
    for _ in range(RUNS):
        for name, raw in ask(worker, request).updates.items():
            released[name].append(np.frombuffer(raw, "<i2").astype(np.int64))
    return {name: np.stack(rows) for name, rows in released.items()}


def noised_as_declared(values: Ints, std: float) -> bool:
    """Chi-square over runs and coordinates, at five standard deviations; rounding to the grid adds 1/12."""
    freedom = (values.shape[0] - 1) * values.shape[1]
    statistic = float(((values - values.mean(0)) ** 2).sum()) / (std**2 + 1 / 12)
    return bool(abs(statistic - freedom) < 5 * sqrt(2 * freedom))


ROWS = [(0.1 * n - 0.5, 0.5 - 0.1 * n, 0.2, n % 2) for n in range(11)]


def test_g6_the_bytes_that_leave_carry_the_declared_noise(tmp_path: Path) -> None:
    worker = institution(tmp_path / "a", ROWS)
    noisy, silent, weak = updates(worker), updates(worker, noise=0.0), updates(worker, noise=NOISE * 0.8)
    for name in DIMENSION:
        assert noised_as_declared(noisy[name], STD)
        assert not noised_as_declared(silent[name], STD)
        assert not noised_as_declared(weak[name], STD)
        # Independent between components, coordinates and runs.
        flat = (noisy[name] - noisy[name].mean(0)) / STD
        assert abs((flat[1:] * flat[:-1]).mean()) < 5 / sqrt(flat.size)
        assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 5 / sqrt(flat.size)


def test_g6_the_noise_of_several_steps_adds_up(tmp_path: Path) -> None:
    # Almost nobody is drawn, so that only noise moves the parameters.
    values = updates(institution(tmp_path / "a", ROWS), rate=1e-9, steps=4)
    for name in DIMENSION:
        assert noised_as_declared(values[name], STD * 2)
        assert not noised_as_declared(values[name], STD)


def test_g6_an_empty_draw_adds_noise(tmp_path: Path) -> None:
    values = updates(institution(tmp_path / "a", ROWS), rate=1e-9)
    for name in DIMENSION:
        assert noised_as_declared(values[name], STD)
        assert np.abs(values[name].mean(0)).max() < 5.5 * STD / sqrt(RUNS)


def test_g6_one_student_shifts_the_mean_by_no_more_than_the_clip(tmp_path: Path) -> None:
    loud = (1.0, -1.0, 1.0, 0)
    with_student, without = institution(tmp_path / "a", [*ROWS, loud]), institution(tmp_path / "b", ROWS)
    exact = {name: rows[0] for name, rows in updates(with_student, noise=0.0).items()}
    exact_without = {name: rows[0] for name, rows in updates(without, noise=0.0).items()}
    noisy, noisy_without = updates(with_student), updates(without)
    most, total = RATE * CLIP / LOT * 2.0**14, 0.0
    for name, dimension in DIMENSION.items():
        shift = float(np.linalg.norm(exact[name] - exact_without[name]))
        assert 0.5 * most < shift <= most + sqrt(dimension)  # clipped, and the grid rounds twice
        measured = noisy[name].mean(0) - noisy_without[name].mean(0)
        error = STD * sqrt(2 / RUNS)
        assert np.linalg.norm(measured - (exact[name] - exact_without[name])) < error * (sqrt(dimension) + 5)
        total += (shift / STD) ** 2
    # Over all components: what the accountant is told, σ_eff (the slack is the rounding to the grid).
    assert sqrt(total) <= 1 / effective_noise([NOISE] * len(DIMENSION)) * 1.01


def test_students_are_drawn_by_poisson(tmp_path: Path) -> None:
    students, rate, clip = 40, 0.3, 0.001
    worker = institution(tmp_path / "a", [(0.5, 0.5, 0.5, 1)] * students)
    head = updates(worker, noise=0.0, rate=rate, clip=clip)["head/pass"]
    # Equal students with gradients above the clip: the norm of the update counts them.
    counts = np.linalg.norm(head / 2.0**14, axis=1) * LOT / RATE / clip
    assert abs(counts.mean() - students * rate) < 5 * sqrt(students * rate * (1 - rate) / RUNS) + 0.2
    expected = students * rate * (1 - rate)
    assert abs(counts.var() - expected) < 5 * expected * sqrt(2 / RUNS)
