"""The time of a DP step: the learner's own, the same step without DP, and one with Opacus' hooks.

`collegium bench dp` runs this as `python -m collegium.node.learner.audit.timing [REPEATS]`. It prints one line of JSON,
{"device": …, "models": {name: {"plain": seconds, "dp": …, "opacus": …}}}: medians of one step.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from string import ascii_lowercase
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....crypto.extras import extra
from ....protocol.component_names import ComponentKind, of_kind
from ....protocol.components import ComponentSpec, base_digest, base_vector
from ....protocol.learning import Learning, Modality, Pretrained, PrivacyFloor, Task
from ...blueprint.parts import Part, adapter, backbone, encoder, head, skip
from ..dpsgd import Batch, Sampling, kinds_of, student_losses, train
from ..messages import Engagement
from ..model import M3TModel
from ..randomness import gaussian, randomness

SEED, REPEATS, WARM = bytes(32), 25, 2
CLIP, NOISE, RATE = 1.0, 1.0, 0.1
WORDS, TOKENS = 200, 32  # of the small transformer's vocabulary, of one text


@dataclass(frozen=True, slots=True)
class Case:
    """A model and its number of students, one record each."""

    modalities: tuple[Modality, ...]
    tasks: tuple[Task, ...]
    parts: tuple[Part, ...]
    students: int


def cases(tiny: Path) -> dict[str, Case]:
    """Return the timed models; `tiny` is the folder of a small transformer."""
    table, steps = Modality("table", "tabular", 45, 1), Modality("steps", "series", 13, 12)
    passed = Task("pass", "binary", 2, ("steps", "table"))
    oulad = (encoder(table, 16, "linear-tanh", missing=False), encoder(steps, 16, "attention-pool"), head(passed, 16))
    linear = skip(passed, {"table": 45, "steps": 13})
    scan, letter = Modality("scan", "image", 784, 1), Task("letter", "multiclass", 8, ("scan",))
    answer = Modality("answer", "text", 384, 3, (Pretrained("minilm", bytes(32)),))
    grade = Task("grade", "multiclass", 3, ("answer",))
    essay, level = (
        Modality("essay", "text", 64, 1, (Pretrained("tiny", bytes(32)),)),
        Task("level", "ordinal", 3, ("essay",)),
    )
    return {
        "linear": Case((table, steps), (passed,), (*oulad, linear), 200),
        "backbone": Case((table, steps), (passed,), (*oulad, linear, backbone(16, 32)), 200),
        "text-head": Case((answer,), (grade,), (encoder(answer, 16, "pair-tanh", features=128), head(grade, 16)), 100),
        "conv-image": Case(
            (scan,), (letter,), (encoder(scan, 16, "conv-image", channels=(8, 16, 16)), head(letter, 16)), 100
        ),
        "lora": Case(
            (essay,), (level,),
            (
                encoder(essay, 16, "pair-tanh"), head(level, 16),
                adapter(essay, tiny, "lora-ffa", 8, ["query", "value"]),
            ), 32,
        ),
    }  # fmt: skip


def small_transformer(folder: Path) -> Path:
    """Write a transformer with random weights, of 2 layers and 64 features, in the format of a pretrained one."""
    import transformers  # noqa: PLC0415  # takes seconds

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(WORDS))]
    words += [start + letter for start in ("", "##") for letter in ascii_lowercase]  # so that any two words differ
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def million() -> Case:
    """Return a model of one million parameters, with which `bench refold` compares a refold."""
    wide = Modality("wide", "tabular", 1000, 1)
    task = Task("task", "binary", 2, ("wide",))
    return Case((wide,), (task,), (encoder(wide, 997, "linear-tanh", missing=False), head(task, 997)), 20)


def specs_of(case: Case) -> list[ComponentSpec]:
    """Return the specs of a case's parts."""
    return [
        ComponentSpec(
            part.name, part.architecture, part.tensors, 14, 16, "mean", 1, 10**6, 10**6, 10**6,
            base_digest(base_vector(SEED, part.name, part.tensors)),
        )
        for part in case.parts
    ]  # fmt: skip


def model_of(case: Case, specs: Sequence[ComponentSpec], tiny: Path, device: torch.device) -> M3TModel:
    """Return a fresh model at its first weights."""
    from ..text import pretrained_encoder  # noqa: PLC0415  # transformers takes seconds

    floors = tuple(PrivacyFloor(modality.name, "dp", 8000, 10) for modality in case.modalities)
    learning = Learning(case.modalities, case.tasks, floors, 1, 100_000, 0, 1)
    live = of_kind(ComponentKind.ADAPTER, (spec.name for spec in specs))
    model = M3TModel(specs, learning, SEED, {name: pretrained_encoder(tiny) for name in live})
    for spec in specs:
        model.load(spec, base_vector(SEED, spec.name, spec.tensors))
    return model.to(device)


def batch_of(case: Case, live: bool) -> Batch:
    """Return made-up students with one record each, on the CPU, where the learner keeps them."""
    source = np.random.default_rng(1)
    inputs: dict[str, tuple[Tensor, Tensor]] = {}
    for modality in case.modalities:
        shape = (case.students, 1, modality.length)
        steps = torch.ones(shape, dtype=torch.bool)
        values = (
            torch.from_numpy(source.integers(5, WORDS, (*shape, TOKENS)))
            if live
            else torch.from_numpy(source.normal(size=(*shape, modality.width)).astype(np.float32))
        )
        inputs[modality.name] = (values, steps)
    labels = {
        task.name: torch.from_numpy(source.integers(0, task.classes, (case.students, 1, 1)).astype(np.float32))
        for task in case.tasks
    }
    return Batch(torch.ones(case.students, 1), inputs, labels)


def dp_step(model: M3TModel, specs: Sequence[ComponentSpec], batch: Batch, steps: int) -> None:
    """The learner's own steps, with all students drawn."""
    rules = {spec.name: Engagement(CLIP, NOISE, RATE) for spec in specs}
    by_name = {spec.name: spec for spec in specs}
    train(
        model, by_name, rules, batch, sampling=Sampling(steps, 1.0, float(batch.size)), source=randomness(None),
        progress=lambda _done, _total: None,
    )  # fmt: skip


def plain_step(model: M3TModel, specs: Sequence[ComponentSpec], batch: Batch, steps: int) -> None:
    """The same without DP: the same students, forward, backward, SGD."""
    kinds, trained = kinds_of(model), _let_train(model, specs)
    everybody, device = torch.arange(batch.size), next(model.parameters()).device
    for _ in range(steps):
        taken = batch.take(everybody).to(device)
        loss = student_losses(kinds, model(taken.inputs), taken).sum() / batch.size
        with torch.no_grad():
            for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
                parameter.sub_(gradient, alpha=RATE)


def opacus_step(module: Any, specs: Sequence[ComponentSpec], batch: Batch, steps: int) -> None:
    """The same with the students' gradients as Opacus' hooks form them; our clip by component, our noise."""
    model: M3TModel = module._module
    kinds, source = kinds_of(model), randomness(None)
    everybody, device = torch.arange(batch.size), next(model.parameters()).device
    for _ in range(steps):
        taken = batch.take(everybody).to(device)
        student_losses(kinds, module(taken.inputs), taken).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for spec in specs:
                parameters = model.tensors(spec)
                rows = [p.grad_sample.reshape(batch.size, -1) for p in parameters]  # type: ignore[attr-defined]
                norms = torch.stack([row.square().sum(1) for row in rows]).sum(0).sqrt()
                factors = (CLIP / norms.clamp(min=1e-12)).clamp(max=1.0)
                noise = torch.from_numpy(gaussian(source, spec.dimension)).to(device, torch.float32)
                change = (torch.cat([factors @ row for row in rows]) + NOISE * CLIP * noise) * (RATE / batch.size)
                start = 0
                for parameter in parameters:
                    parameter.sub_(change[start : start + parameter.numel()].view_as(parameter))
                    start += parameter.numel()
        for parameter in model.parameters():
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]


def measure(case: Case, tiny: Path, device: torch.device, repeats: int) -> Mapping[str, float]:
    """Return the median seconds of one step of each kind; they take turns, on models of their own."""
    with extra("audit"):
        from opacus.grad_sample import GradSampleModule  # noqa: PLC0415  # takes seconds

    specs = specs_of(case)
    live = bool(of_kind(ComponentKind.ADAPTER, (spec.name for spec in specs)))
    batch = batch_of(case, live)
    models = [model_of(case, specs, tiny, device) for _ in range(3)]
    for model in models:
        _let_train(model, specs)
    hooked = GradSampleModule(models[2], loss_reduction="sum")
    jobs: dict[str, Callable[[int], None]] = {
        "plain": lambda steps: plain_step(models[0], specs, batch, steps),
        "dp": lambda steps: dp_step(models[1], specs, batch, steps),
        "opacus": lambda steps: opacus_step(hooked, specs, batch, steps),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    steps = 8  # steps of one measurement, as in a round: they share the setup of `train`
    for repeat in range(WARM + repeats):
        for name, job in jobs.items():
            before = perf_counter()
            job(steps)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= WARM:
                times[name].append((perf_counter() - before) / steps)
    return {name: median(seconds) for name, seconds in times.items()}


def _million(device: torch.device, repeats: int) -> float:
    """Return the median seconds of one DP step of a million parameters, 20 students drawn."""
    case = million()
    specs = specs_of(case)
    model, batch = model_of(case, specs, Path(), device), batch_of(case, live=False)
    times = []
    for _ in range(repeats):
        before = perf_counter()
        dp_step(model, specs, batch, 8)
        times.append((perf_counter() - before) / 8)
    return median(times)


def _let_train(model: M3TModel, specs: Sequence[ComponentSpec]) -> list[torch.nn.Parameter]:
    """Let only the parameters of `specs` ask for gradients, and return them."""
    parameters = [parameter for spec in specs for parameter in model.tensors(spec)]
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is one for one in parameters))
    return parameters


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)  # as in the worker
    repeats = int(arguments[0]) if arguments else REPEATS
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments[1:] == ["million"]:
        print(json.dumps({"device": _name(device), "step": _million(device, repeats)}))  # noqa: T201  # the answer
        return
    with tempfile.TemporaryDirectory() as folder:
        tiny = small_transformer(Path(folder))
        measured = {name: measure(case, tiny, device, repeats) for name, case in cases(tiny).items()}
    print(json.dumps({"device": _name(device), "models": measured}))  # noqa: T201  # the answer


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU, 1 thread"


if __name__ == "__main__":
    main(sys.argv[1:])
