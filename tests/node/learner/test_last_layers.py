"""A component that starts from pretrained weights: the last layer of a tiny BERT, trained whole."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from collegium.crypto.errors import UsageError
from collegium.node.blueprint.parts import Part, encoder, head, last_layers
from collegium.node.blueprint.recipe import NO_SEED, Recipe, charter_parts
from collegium.node.learner.messages import Engagement, Open, PredictScores, Train
from collegium.node.learner.worker import Worker
from collegium.node.pretrained.folder import weights_digest
from collegium.node.pretrained.layers import checked_base, layers_base
from collegium.node.verify import Component
from collegium.protocol.components import FRACTION_BITS, MILLION, ComponentSpec, base_digest, weights
from collegium.protocol.learning import Learning, Modality, Pretrained, Task

from .asking import ask
from .test_memory import MANIFEST

LAYER, HEAD = "adapter/essay", "head/pass"
RULE = Engagement(1.0, 0.0, 0.5)


def parts_of(tiny: Path, *, whole: bool) -> tuple[tuple[ComponentSpec, ...], Learning]:
    essay = Modality("essay", "text", 32, 1, (Pretrained("tiny", weights_digest(tiny), 30),))
    task = Task("pass", "binary", 2, ("essay",))
    parts: list[Part] = [encoder(essay, 16, "pair-tanh"), head(task, 16)]
    if whole:
        parts.append(last_layers(essay, tiny, 1))
    recipe = Recipe((essay,), (task,), tuple(parts), 30, 2, 500_000, MILLION, MILLION, MILLION, 16)
    return charter_parts(recipe, None, min_updates=1)


def opening(folder: Path, tiny: Path, *, whole: bool = True) -> Open:
    specs, learning = parts_of(tiny, whole=whole)
    names = tuple(spec.name for spec in specs)
    return Open((str(folder),), specs, learning, NO_SEED, names, models={"tiny": str(tiny)}, seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [f"r{n},s{n},{('why the cat', 'hello fraction')[n % 2]} {n},{n % 2}" for n in range(30)]
    (tmp_path / "dataset.toml").write_text(MANIFEST.replace("0.05", "0.3"))
    (tmp_path / "work.csv").write_text("\n".join(["id,student,answer,pass", *rows]) + "\n")
    return tmp_path


def logits(worker: Worker, states: dict[str, bytes]) -> np.ndarray[Any, Any]:
    return np.array(ask(worker, PredictScores(states, "held_out")).tasks["pass"].scores)


def test_it_starts_as_the_model_and_is_trained_whole(folder: Path, tiny: Path) -> None:
    plain, whole = Worker(), Worker()
    ask(plain, opening(folder, tiny, whole=False))
    request = opening(folder, tiny)
    ask(whole, request)
    spec = next(spec for spec in request.components if spec.name == LAYER)
    assert spec.dimension == sum(layer.size for layer in [layers_base(tiny, spec.tensors)]) > 4 * 32 * 32
    # The head begins at zero, and then nothing below it shows: give it some state.
    other = next(one for one in request.components if one.name == HEAD)
    states = {HEAD: (np.arange(1, other.dimension + 1, dtype="<i4") << 16).tobytes()}
    start = logits(whole, states)
    assert np.ptp(start) > 1e-3
    np.testing.assert_allclose(start, logits(plain, states), atol=1e-5)
    update = ask(whole, Train(states, {LAYER: RULE}, steps=2, sample_rate=0.5, lot=10.0)).updates[LAYER]
    change = np.frombuffer(update, spec.integer_type).astype("<i4")
    assert np.mean(change != 0) > 0.5, "all of the layer moves"
    after = logits(whole, {**states, LAYER: (change << FRACTION_BITS).tobytes()})
    assert np.abs(after - start).max() > 1e-3
    base = layers_base(tiny, spec.tensors)
    assert np.array_equal(weights(base, np.zeros(base.size, np.int32), spec), base)


def test_another_model_is_refused_by_name(folder: Path, tiny: Path) -> None:
    """One that the charter does not name, and one that it names with a base of other weights."""
    from safetensors.numpy import load_file, save_file

    request = opening(folder, tiny)
    shutil.copytree(tiny, folder / "other")
    tensors = load_file(folder / "other" / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"][0] += 1.0
    save_file(tensors, folder / "other" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="the charter asks for"):
        ask(Worker(), replace(request, models={"tiny": str(folder / "other")}))
    spec = next(spec for spec in request.components if spec.name == LAYER)
    assert spec.base == base_digest(checked_base(spec, request.learning, {"tiny": tiny}))
    lie = tuple(replace(one, base=bytes(32)) if one is spec else one for one in request.components)
    with pytest.raises(UsageError, match=r"component 'adapter/essay' starts from layers with the digest .* in"):
        ask(Worker(), replace(request, components=lie))


def test_an_exported_state_has_the_models_own_weights(tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from collegium.cli.model import _weights

    specs, learning = parts_of(tiny, whole=True)
    spec = next(spec for spec in specs if spec.name == LAYER)
    held = Component(spec, np.zeros(spec.dimension, np.int32), 1, 0, bytes(32), True, "", ())
    charter = SimpleNamespace(learning=learning, seed=NO_SEED)
    model: Any = SimpleNamespace(report=SimpleNamespace(charter=charter), components={LAYER: held})
    ((file, _),) = _weights(model, tmp_path, {"tiny": tiny}).values()
    exported, published = load_file(tmp_path / file), load_file(tiny / "model.safetensors")
    assert exported.keys() == {name for name in published if name.startswith("encoder.layer.1.")}
    assert all(np.array_equal(values, published[name]) for name, values in exported.items())
