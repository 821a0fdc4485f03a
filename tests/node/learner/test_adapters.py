"""Adapters and prompts: nothing at first, then gradients of single texts, and the same frozen factors everywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from collegium.crypto.errors import CorruptError, UsageError
from collegium.node.learner.adapters import (
    PRIVATE_KINDS,
    factor,
    install_adapter,
    install_private,
    install_prompt,
    load_private,
    private_parameters,
    save_private,
)
from collegium.node.learner.text import TextEncoder, pretrained_encoder, scratch_encoder
from collegium.node.pretrained.tensors import LORA, lora_tensors, prompt_tensors, scratch_tensors
from collegium.protocol.components import ComponentSpec, TensorSpec

TEXTS = ["the cat sat", "why", "hello the cat sat why hello fraction zebra", "a fraction"]
SEED = bytes(range(32))
SHARED = ["lora-ffa", "lora-core", "soft-prompt"]


def spec(name: str, architecture: str, tensors: tuple[TensorSpec, ...]) -> ComponentSpec:
    return ComponentSpec(name, architecture, tensors, 14, 16, "mean", 1, 10**6, 10**6, 10**6, bytes(32))


def installed(folder: Path, architecture: str, rank: int = 3) -> tuple[TextEncoder, ComponentSpec, list[nn.Parameter]]:
    encoder = pretrained_encoder(folder)
    if architecture == "soft-prompt":
        component = spec("prompt/essay", architecture, prompt_tensors(folder, rank))
        return encoder, component, install_prompt(encoder, component)
    component = spec("adapter/essay", architecture, lora_tensors(folder, architecture, rank))
    return encoder, component, install_adapter(encoder, component, SEED)


def move(parameters: list[nn.Parameter]) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            parameter.copy_(0.3 * torch.sin(index + torch.arange(parameter.numel())).view(parameter.shape))


def losses(embeddings: Tensor) -> Tensor:
    scores = 5.0 * embeddings @ torch.sin(torch.arange(96.0)).view(32, 3)
    return scores.logsumexp(1) - scores[:, 0]


@pytest.mark.parametrize("architecture", LORA)
def test_a_zero_adapter_is_the_model_alone(tiny: Path, architecture: str) -> None:
    alone = pretrained_encoder(tiny).embed(TEXTS)
    encoder, _, parameters = installed(tiny, architecture)
    assert not any(parameter.any() for parameter in parameters)
    np.testing.assert_array_equal(encoder.embed(TEXTS), alone)
    assert encoder.adapted
    move(parameters)
    assert np.abs(encoder.embed(TEXTS) - alone).max() > 0.01


@pytest.mark.parametrize("architecture", LORA)
def test_an_adapter_adds_the_product_of_its_factors(tiny: Path, architecture: str) -> None:
    encoder, component, parameters = installed(tiny, architecture)
    move(parameters)
    plain = pretrained_encoder(tiny)
    with torch.no_grad():
        for tensor, parameter in zip(component.tensors, parameters, strict=True):
            module = tensor.name.rpartition(".")[0]
            product = parameter @ factor("lora-a", SEED, component.name, module, (3, 32))
            if architecture == "lora-core":
                product = factor("lora-b", SEED, component.name, module, (32, 3)) @ product * (32 / 3) ** 0.5
            plain.model.get_submodule(module).weight += product  # type: ignore[operator]
    np.testing.assert_allclose(encoder.embed(TEXTS), plain.embed(TEXTS), atol=1e-5)


@pytest.mark.parametrize("architecture", SHARED)
def test_only_the_components_own_tensors_train_and_in_layers_that_can_be_clipped(tiny: Path, architecture: str) -> None:
    encoder, component, parameters = installed(tiny, architecture)
    trained = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in parameters}
    assert [tuple(parameter.shape) for parameter in parameters] == [tensor.shape for tensor in component.tensors]
    for module in encoder.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            assert type(module) in (nn.Linear, nn.LayerNorm, nn.Embedding)


@pytest.mark.parametrize("architecture", SHARED)
def test_the_gradients_are_those_of_single_texts(tiny: Path, architecture: str) -> None:
    """A prompt whose ids are shared gives one row for the whole batch, which would be clipped as one student."""
    encoder, component, parameters = installed(tiny, architecture)
    move(parameters)
    alone = [torch.autograd.grad(losses(encoder(*encoder.tokenise([text]))).sum(), parameters) for text in TEXTS]
    ids, mask = encoder.tokenise(TEXTS)
    for padding in (0, 3):
        ids = torch.cat([ids, torch.full((4, padding), 7)], 1)
        mask = torch.cat([mask, torch.zeros(4, padding) > 0], 1)
        module = GradSampleModule(encoder, loss_reduction="sum")
        losses(module(ids, mask)).sum().backward()  # type: ignore[no-untyped-call]
        for index, (tensor, parameter) in enumerate(zip(component.tensors, parameters, strict=True)):
            sample = parameter.grad_sample  # type: ignore[attr-defined]
            assert sample.shape == (len(TEXTS), *tensor.shape)
            expected = torch.stack([row[index] for row in alone])
            torch.testing.assert_close(sample, expected, atol=1e-5, rtol=1e-4)
            assert expected.abs().amax(dim=tuple(range(1, expected.dim()))).min() > 1e-5
        module.to_standard_module()
        for parameter in parameters:
            parameter.grad = None


@pytest.mark.parametrize("architecture", SHARED)
def test_an_adapted_text_is_still_embedded_by_itself(tiny: Path, architecture: str) -> None:
    encoder, _, parameters = installed(tiny, architecture)
    move(parameters)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.embed(TEXTS), alone, atol=1e-5)
    assert not encoder.embed([None, "why"])[0].any()
    training = encoder.train().embed(TEXTS)
    np.testing.assert_array_equal(encoder.eval().embed(TEXTS), training)


def test_a_prompt_stands_before_the_text_takes_places_and_stays_out_of_the_mean(tiny: Path) -> None:
    import transformers

    encoder, _, (prompt,) = installed(tiny, "soft-prompt", rank=5)
    move([prompt])
    model = transformers.AutoModel.from_pretrained(tiny)
    ids, _ = encoder.tokenise([TEXTS[0]])
    with torch.no_grad():
        words = model.get_input_embeddings()(ids)
        hidden = model(inputs_embeds=torch.cat([prompt[None], words], 1)).last_hidden_state[0, 5:].mean(0)
    np.testing.assert_allclose(encoder.embed([TEXTS[0]])[0], (hidden / hidden.norm()).numpy(), atol=1e-6)
    assert encoder.window == 35
    assert encoder.embed(["the " * 60]).shape == (1, 32)


def test_frozen_factors_are_the_same_everywhere_and_different_for_each_module() -> None:
    one = factor("lora-a", SEED, "adapter/essay", "m", (8, 384))
    assert one.dtype == torch.float32
    # Worked out once with hashlib and exact fractions.
    assert [round(float(value), 6) for value in one[0, :3]] == [0.014129, -0.058898, -0.014962]
    assert torch.equal(one, factor("lora-a", SEED, "adapter/essay", "m", (8, 384)))
    for other in (
        factor("lora-b", SEED, "adapter/essay", "m", (8, 384)),
        factor("lora-a", bytes(32), "adapter/essay", "m", (8, 384)),
        factor("lora-a", SEED, "adapter/other", "m", (8, 384)),
        factor("lora-a", SEED, "adapter/essay", "n", (8, 384)),
    ):
        assert not torch.equal(one, other)
    gram = one @ one.T
    assert float((gram - torch.eye(8)).abs().max()) < 0.25  # nearly orthonormal rows
    assert float(one.abs().max()) <= (3 / 384) ** 0.5


def test_two_adapters_of_one_kind_do_not_fit_one_encoder(tiny: Path) -> None:
    encoder, component, _ = installed(tiny, "lora-ffa")
    with pytest.raises(UsageError, match="has a shared adapter already"):
        install_adapter(encoder, component, SEED)


@pytest.mark.parametrize("kind", PRIVATE_KINDS)
@pytest.mark.parametrize("beside", ["lora-ffa", "lora-core", None])
def test_a_private_adapter_changes_nothing_until_it_is_trained(tiny: Path, kind: str, beside: str | None) -> None:
    shared: list[nn.Parameter] = []
    if beside is None:
        encoder = pretrained_encoder(tiny)
    else:
        encoder, _, shared = installed(tiny, beside)
        move(shared)
    before = encoder.embed(TEXTS)
    parameters = install_private(encoder, kind, 2)
    np.testing.assert_allclose(encoder.embed(TEXTS), before, atol=1e-6)
    trained = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in (*shared, *parameters.values())}
    assert len(parameters) == (3 if kind == "dora" else 2) * 4
    optimiser = torch.optim.Adam(parameters.values(), lr=0.05)
    first = None
    for _ in range(5):
        optimiser.zero_grad()
        loss = losses(encoder(*encoder.tokenise(TEXTS))).sum()
        first = first or float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(loss.detach()) < first  # type: ignore[operator]
    assert np.abs(encoder.embed(TEXTS) - before).max() > 0.01


@pytest.mark.parametrize(("kind", "scale"), [("lora", 1.0), ("rslora", 2.0**0.5)])
def test_a_private_adapter_adds_the_product_of_its_factors(tiny: Path, kind: str, scale: float) -> None:
    encoder, plain = trained_private(tiny, kind), pretrained_encoder(tiny)
    weights = private_parameters(encoder)
    with torch.no_grad():
        for name in (name for name in weights if name.endswith(".A.weight")):
            module = name.removesuffix(".A.weight")
            product = weights[f"{module}.B.weight"] @ weights[name] * scale
            plain.model.get_submodule(module).weight += product  # type: ignore[operator]
    np.testing.assert_allclose(encoder.embed(TEXTS), plain.embed(TEXTS), atol=1e-5)


def trained_private(folder: Path, kind: str) -> TextEncoder:
    encoder = pretrained_encoder(folder)
    move(list(install_private(encoder, kind, 2).values()))
    return encoder


@pytest.mark.parametrize("kind", PRIVATE_KINDS)
def test_a_private_adapter_comes_back_from_its_file(tiny: Path, tmp_path: Path, kind: str) -> None:
    encoder, path = trained_private(tiny, kind), tmp_path / "private.safetensors"
    save_private(encoder, path)
    save_private(encoder, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    other, _, shared = installed(tiny, "lora-core")
    install_private(other, kind, 2)
    load_private(other, path)
    np.testing.assert_allclose(other.embed(TEXTS), encoder.embed(TEXTS), atol=1e-6)
    assert not any(parameter.any() for parameter in shared)


def test_a_file_that_is_no_private_adapter_of_this_shape_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "private.safetensors"
    save_private(trained_private(tiny, "lora"), path)
    encoder = pretrained_encoder(tiny)
    for kind, rank in (("dora", 2), ("lora", 3), ("rslora", 2)):
        encoder = pretrained_encoder(tiny)
        install_private(encoder, kind, rank)
        with pytest.raises(UsageError, match="another kind, rank or model"):
            load_private(encoder, path)
    with pytest.raises(UsageError, match="cannot read"):
        load_private(encoder, tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptError, match="damaged"):
        load_private(encoder, path)
    broken = trained_private(tiny, "lora")
    with torch.no_grad():
        next(iter(private_parameters(broken).values()))[0, 0] = torch.nan
    path.unlink()
    save_private(broken, path)
    with pytest.raises(CorruptError, match="not finite"):
        load_private(trained_private(tiny, "lora"), path)


def test_what_does_not_fit_the_model_is_refused(tiny: Path) -> None:
    tensors = lora_tensors(tiny, "lora-ffa", 3)
    wrong: dict[str, Callable[[], object]] = {
        "an unknown adapter": lambda: install_adapter(
            pretrained_encoder(tiny), spec("adapter/e", "lora", tensors), SEED
        ),
        "tensors of the other kind": lambda: install_adapter(
            pretrained_encoder(tiny), spec("adapter/e", "lora-core", tensors), SEED
        ),
        "a module that is no projection": lambda: install_adapter(
            pretrained_encoder(tiny),
            spec("adapter/e", "lora-ffa", (TensorSpec("encoder.layer.0.output.dense.B", (32, 3), 0),)),
            SEED,
        ),
        "two ranks": lambda: install_adapter(
            pretrained_encoder(tiny),
            spec("adapter/e", "lora-ffa", (tensors[0], TensorSpec(tensors[1].name, (32, 4), 0))),
            SEED,
        ),
        "a prompt of another width": lambda: install_prompt(
            pretrained_encoder(tiny), spec("prompt/e", "soft-prompt", (TensorSpec("prompt.weight", (3, 31), 0),))
        ),
        "a prompt longer than the model": lambda: install_prompt(
            pretrained_encoder(tiny), spec("prompt/e", "soft-prompt", (TensorSpec("prompt.weight", (39, 32), 0),))
        ),
        "a prompt of an unknown kind": lambda: install_prompt(
            pretrained_encoder(tiny), spec("prompt/e", "prefix", prompt_tensors(tiny, 3))
        ),
        "an unknown private adapter": lambda: install_private(pretrained_encoder(tiny), "ia3", 2),
        "a private adapter of no rank": lambda: install_private(pretrained_encoder(tiny), "lora", 0),
        "an adapter on an encoder from scratch": lambda: install_private(
            scratch_encoder(spec("encoder/e", "bert", scratch_tensors(16, 1, 20))), "lora", 2
        ),
    }
    for what, install in wrong.items():
        try:
            install()
        except UsageError:
            continue
        raise AssertionError(f"{what} was taken")
