"""How backbones join modalities: what is absent, what is learned of it, and experts that stay in use."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from collegium.node.blueprint import parts
from collegium.node.learner.backbones import BALANCE, Experts
from collegium.node.learner.dpsgd import Batch, Sampling, train, training_losses
from collegium.node.learner.messages import Engagement
from collegium.node.learner.model import M3TModel
from collegium.node.learner.randomness import randomness
from collegium.protocol.components import ComponentSpec, base_vector
from collegium.protocol.learning import Learning, Modality, PrivacyFloor, Task

from .test_dpsgd import TRANSFORMER, WIDE, WIDE_HEAD, batch_of, joining, model_of, spec

JOINED = {
    "mlp": parts.backbone(16, 8),
    "transformer": parts.transformer_backbone(16, 1, 8),
    "concat": parts.concat_backbone(16, 8, ["image", "table"]),
    "cross-attention": parts.attention_backbone(16),
    "experts": parts.experts_backbone(16, 8, 4, 2),
}


def logits(specs: Sequence[ComponentSpec], batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model_of(specs)(batch.inputs)["grade"]
        return out


@pytest.mark.parametrize("name", JOINED)
def test_a_modality_that_is_absent_is_read_as_by_a_node_that_never_had_it(name: str) -> None:
    backbone = joining(JOINED[name])
    both, batch = [*WIDE.values(), backbone, WIDE_HEAD], batch_of(40)
    alone = [item for item in both if item.name != "encoder/image"]
    there = {name: steps.any(2) for name, (_, steps) in batch.inputs.items()}
    without, whole = logits(alone, batch), logits(both, batch)
    only = there["table"] & ~there["image"]
    assert only.sum() >= 3
    assert torch.allclose(whole[only], without[only], atol=1e-5)
    together = there["table"] & there["image"]
    assert not torch.allclose(whole[together], without[together], atol=1e-3)


def test_a_transformer_gives_zero_where_nothing_is_there() -> None:
    specs, batch = [*WIDE.values(), TRANSFORMER, WIDE_HEAD], batch_of(40)
    bias = model_of(specs).parts["head/grade"].linear.bias.detach()  # type: ignore[union-attr, operator]
    neither = ~batch.inputs["table"][1].any(2) & ~batch.inputs["image"][1].any(2)
    assert neither.sum() >= 3
    assert torch.allclose(logits(specs, batch)[neither], bias.expand(int(neither.sum()), -1))


def test_a_learned_token_of_what_is_missing_is_attended_to() -> None:
    token = spec(
        "encoder/image", "linear-tanh",
        {"project.weight": (16, 5), "project.bias": (16,), "missing.weight": (16, 1)},
    )  # fmt: skip
    specs, batch = [WIDE["table"], token, TRANSFORMER, WIDE_HEAD], batch_of(11)
    weights = batch.weights > 0
    model = model_of(specs)
    before = model(batch.inputs)["grade"].detach()
    with torch.no_grad():
        model.parts["encoder/image"].missing.weight.add_(1.0)  # type: ignore[union-attr, operator]
    moved = (model(batch.inputs)["grade"] - before).abs().amax(2) > 1e-4
    assert torch.equal(moved & weights, ~batch.inputs["image"][1].any(2) & weights)


@pytest.mark.parametrize("name", ["mlp", "concat", "cross-attention", "experts"])
def test_a_backbone_begins_as_the_sum(name: str) -> None:
    batch, part = batch_of(11), JOINED[name]
    declared = replace(joining(part), tensors=part.tensors)
    began = logits([*WIDE.values(), declared, WIDE_HEAD], batch)
    assert torch.allclose(began, logits([*WIDE.values(), WIDE_HEAD], batch), atol=1e-6)
    # But for the last map, nothing is zero: all of it learns from the second step on.
    assert {t.name for t in part.tensors if not t.bound} <= {"hidden.bias", "out.weight", "out.bias"} | {
        f"{name}.bias" for name in ("query", "key", "value")
    }


def test_a_concatenation_tells_what_is_absent_from_what_is_zero() -> None:
    model = model_of([*WIDE.values(), joining(JOINED["concat"]), WIDE_HEAD])
    tokens = torch.zeros(1, 1, 2, 16)
    there, absent = torch.ones(1, 1, 2, dtype=torch.bool), torch.tensor([[[True, False]]])
    zero, missing = (model.parts["backbone"](tokens, present, ("table", "image")) for present in (there, absent))
    assert not torch.allclose(zero, missing, atol=1e-4)


def test_only_the_chosen_experts_of_a_record_are_trained_by_it() -> None:
    part = parts.experts_backbone(16, 8, 4, 1)
    model, batch = model_of([*WIDE.values(), joining(part), WIDE_HEAD]), batch_of(1)
    one = Batch(torch.ones(1, 1), {n: (v[:, :1], torch.ones_like(s[:, :1])) for n, (v, s) in batch.inputs.items()},
                {n: torch.zeros_like(labels[:, :1]) for n, labels in batch.labels.items()})  # fmt: skip
    training_losses(model, one).sum().backward()  # type: ignore[no-untyped-call]
    experts = model.parts["backbone"]
    assert isinstance(experts, Experts)
    gradient = experts.hidden.weight.grad
    assert gradient is not None
    used = gradient.reshape(4, 8, 16).abs().sum((1, 2)) > 0
    assert used.tolist() == [index == int(experts.routed[0].argmax()) for index in range(4)]


def test_the_imbalance_of_a_student_is_of_its_own_records_and_least_when_all_experts_are_used_alike() -> None:
    experts = Experts(joining(parts.experts_backbone(16, 8, 4, 1)))
    sharp = torch.eye(4) * 0.9 + 0.025
    weights = torch.full((2, 4), 0.25)
    experts.routed.append(torch.stack([sharp[[0, 0, 0, 0]], sharp]))
    crowded, even = experts.imbalance(weights)  # type: ignore[misc]
    assert float(even) == pytest.approx(BALANCE)
    assert float(crowded) == pytest.approx(BALANCE * 4 * 0.925)
    experts.routed[0] = experts.routed[0][1:]
    assert float(experts.imbalance(weights[1:])) == pytest.approx(float(even))


def two_signs(students: int, seed: int) -> Batch:
    """The label is whether two signs are equal: one is in the table, the other one in the picture."""
    source = np.random.default_rng(seed)
    signs, inputs = source.choice([-1.0, 1.0], (students, 2)), {}
    for column, (name, width) in enumerate((("table", 3), ("image", 5))):
        values = source.normal(size=(students, 1, 1, width)) * 0.3
        values[:, 0, 0, 0] += signs[:, column]
        inputs[name] = (torch.from_numpy(values.astype(np.float32)), torch.ones(students, 1, 1, dtype=torch.bool))
    labels = torch.from_numpy((signs.prod(1) > 0).astype(np.float32)).reshape(-1, 1, 1)
    return Batch(torch.ones(students, 1), inputs, {"pass": labels})


@pytest.mark.parametrize("name", ["sum", *JOINED])
def test_what_two_modalities_say_only_together_is_learned_under_noise_but_by_the_sum(name: str) -> None:
    both = (Modality("image", "image", 5, 1), Modality("table", "tabular", 3, 1))
    task = Task("pass", "binary", 2, ("image", "table"))
    made = [*(parts.encoder(entry, 16, "linear-tanh") for entry in both), parts.head(task, 16)]
    made += [JOINED[name]] if name in JOINED else []
    specs = {part.name: replace(joining(part), tensors=part.tensors) for part in made}
    learning = Learning(both, (task,), tuple(PrivacyFloor(m.name, "dp", 8000, 10) for m in both), 1, 100_000, 0, 1)
    model = M3TModel(list(specs.values()), learning)
    for item in specs.values():
        model.load(item, base_vector(bytes(32), item.name, item.tensors))
    rules = dict.fromkeys(specs, Engagement(1.0, 1.0, 2.0))
    train(
        model, specs, rules, two_signs(400, 1), sampling=Sampling(60, 0.25, 100.0), source=randomness(1),
        progress=lambda _done, _total: None,
    )  # fmt: skip
    unseen = two_signs(400, 2)
    with torch.no_grad():
        guessed = model(unseen.inputs)["pass"].argmax(2)
    right = float((guessed == unseen.labels["pass"][:, :, 0]).float().mean())
    assert right < 0.65 if name == "sum" else right > 0.9
