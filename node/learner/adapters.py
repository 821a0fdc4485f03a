"""Adapters and prompts on a frozen text encoder, by `peft`: shared ones from component specs, and private ones.

A shared adapter trains one matrix for each of its modules, since the mean of products is not the product of means:

- `lora-ffa` (Sun et al. 2024): W + B·A; A [r, in] frozen, B [out, r] trained from zero.
- `lora-core` (as in Fed-SB): W + B·R·A; A and B frozen, R [r, r] trained from zero.

The frozen factors are expanded from the charter's seed with exact scaling, so that every member has the same bits.
Their rows (A) and columns (B) are random and, for r ≪ width, nearly orthonormal. `lora-core`'s B is longer by √(out/r):
then R's gradient is as large as that of the B it replaces, and one clip and one learning rate fit both.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...crypto.errors import CorruptError, UsageError
from ...crypto.hashing import digest
from ...protocol.components import ComponentSpec
from ..pretrained.folder import Dimensions
from ..pretrained.tensors import LORA, PROMPT, SOFT_PROMPT, target_modules
from .text import TextEncoder
from .writer import Writer

SHARED, PRIVATE = "shared", "private"  # peft's names of our two adapters
PRIVATE_KINDS = ("lora", "rslora", "dora")
SCALE = "scale"  # in the metadata of a private adapter's file


def install_adapter(encoder: TextEncoder | Writer, spec: ComponentSpec, seed: bytes) -> list[nn.Parameter]:
    """Put `adapter/MODALITY` on a pretrained encoder; return its parameters in the order of the spec's tensors.

    `seed` is the charter's. Parameters of zero leave the model's embeddings unchanged. Raises UsageError.
    """
    if spec.starts_pretrained:
        return _last_layers(encoder, spec)
    sizes = _dimensions(encoder, spec.name)
    letter = LORA.get(spec.architecture)
    if letter is None:
        raise UsageError(f"component {spec.name!r}: unknown architecture {spec.architecture!r}", _known_names(LORA))
    rank = spec.tensors[0].shape[-1]
    modules = [tensor.name.removesuffix(f".{letter}") for tensor in spec.tensors]
    allowed = {name for names in sizes.projections.values() for name in names}
    for tensor, module in zip(spec.tensors, modules, strict=True):
        shape = (sizes.outputs.get(module, sizes.hidden) if letter == "B" else rank, rank)
        if module not in allowed or tensor.name != f"{module}.{letter}" or tensor.shape != shape:
            raise UsageError(f"component {spec.name!r}: the tensor {tensor.name!r} {tensor.shape} fits no module")
    layers = _inject(encoder, SHARED, modules, rank, "lora")
    parameters = []
    for module, layer in zip(modules, layers, strict=True):
        outputs = sizes.outputs.get(module, sizes.hidden)
        _set(layer.lora_A[SHARED], factor("lora-a", seed, spec.name, module, (rank, sizes.hidden)))
        if letter == "B":
            trained = layer.lora_B[SHARED]
        else:
            trained, out = nn.Linear(rank, rank, bias=False), nn.Linear(rank, outputs, bias=False)
            _set(out, factor("lora-b", seed, spec.name, module, (outputs, rank)) * sqrt(outputs / rank))
            layer.lora_B[SHARED] = nn.Sequential(trained, out)
        nn.init.zeros_(trained.weight)
        parameters.append(trained.weight)
    for parameter in (parameter for layer in layers for parameter in _adapter(layer, SHARED).values()):
        parameter.requires_grad_(any(parameter is one for one in parameters))
    return parameters


def _last_layers(encoder: TextEncoder | Writer, spec: ComponentSpec) -> list[nn.Parameter]:
    """Return the parameters of a pretrained encoder's last layers, which are trained whole, in the spec's order.

    Raises UsageError for tensors that the model does not have.
    """
    _dimensions(encoder, spec.name)
    try:
        parameters = [encoder.model.get_parameter(tensor.name) for tensor in spec.tensors]
    except AttributeError as error:
        raise UsageError(f"component {spec.name!r}: {error}") from error
    for tensor, parameter in zip(spec.tensors, parameters, strict=True):
        if tuple(parameter.shape) != tensor.shape:
            raise UsageError(f"component {spec.name!r}: the model's {tensor.name!r} is {tuple(parameter.shape)}")
    return parameters


def install_prompt(encoder: TextEncoder, spec: ComponentSpec) -> list[nn.Parameter]:
    """Put `prompt/MODALITY` before every text of a pretrained encoder; return its one parameter. Raises UsageError."""
    from peft import PromptEmbedding, PromptTuningConfig  # noqa: PLC0415  # takes seconds

    sizes = _dimensions(encoder, spec.name)
    if spec.architecture != SOFT_PROMPT:
        raise UsageError(
            f"component {spec.name!r}: unknown architecture {spec.architecture!r}", _known_names([SOFT_PROMPT])
        )
    if [tensor.name for tensor in spec.tensors] != [PROMPT] or spec.tensors[0].shape[1:] != (sizes.hidden,):
        raise UsageError(f"component {spec.name!r}: a prompt has the tensor {PROMPT!r} [n, {sizes.hidden}]")
    length = spec.tensors[0].shape[0]
    if length > sizes.positions // 2:
        raise UsageError(f"component {spec.name!r}: {length} tokens before the {sizes.positions} of the model")
    config = PromptTuningConfig(
        num_virtual_tokens=length, token_dim=sizes.hidden, num_transformer_submodules=1, prompt_tuning_init="RANDOM"
    )
    prompt: nn.Embedding = PromptEmbedding(config, None).embedding  # type: ignore[no-untyped-call]
    encoder.prompt = prompt
    return [prompt.get_parameter("weight")]


def install_private(
    encoder: TextEncoder | Writer, kind: str, rank: int, targets: Sequence[str] = ("query", "value")
) -> dict[str, nn.Parameter]:
    """Put a private adapter on a pretrained encoder, beside a shared one if there is one; return its parameters.

    `kind` is "lora" (Hu et al. 2022), "rslora" (Kalajdzievski 2023) or "dora" (Liu et al. 2024). It never leaves the
    node, so it is not clipped and all its factors are trained. Before training it changes nothing. Raises UsageError.
    """
    sizes = _dimensions(encoder, "the private adapter")
    if kind not in PRIVATE_KINDS:
        raise UsageError(f"unknown private adapter {kind!r}", _known_names(PRIVATE_KINDS))
    if not 1 <= rank <= sizes.hidden:
        raise UsageError(f"a private adapter of rank {rank} on a model of width {sizes.hidden}")
    last = len(encoder.upper) if isinstance(encoder, Writer) else None  # its layers below are not there to be adapted
    modules = target_modules(sizes, targets, last)
    for module, layer in zip(modules, _inject(encoder, PRIVATE, modules, rank, kind), strict=True):
        # A constant seed: the values only need to have no preferred direction, and runs are repeatable.
        _set(layer.lora_A[PRIVATE], factor("lora-a", bytes(32), PRIVATE, module, (rank, sizes.hidden)))
    parameters = private_parameters(encoder)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


def private_parameters(encoder: TextEncoder | Writer) -> dict[str, nn.Parameter]:
    """Return the parameters of the private adapter by name, sorted; empty if there is none."""
    layers = {name: module for name, module in encoder.model.named_modules() if _is_lora(module)}
    parameters = {
        f"{name}.{part}": weight for name, at in layers.items() for part, weight in _adapter(at, PRIVATE).items()
    }
    return dict(sorted(parameters.items()))


def save_private(encoder: TextEncoder | Writer, path: Path) -> None:
    """Write the private adapter to a safetensors file, mode 0600, whole or not at all."""
    from safetensors.torch import save  # noqa: PLC0415

    weights = {name: weight.detach().cpu().contiguous() for name, weight in private_parameters(encoder).items()}
    data = save(weights, {SCALE: _scale(encoder)})
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def load_private(encoder: TextEncoder | Writer, path: Path) -> None:
    """Read a file of `save_private` into an installed adapter of the same kind and rank.

    Raises CorruptError for a damaged file, UsageError for one of another adapter.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    try:
        weights: dict[str, Tensor] = load(path.read_bytes())
        with safe_open(path, "pt") as file:
            scale = (file.metadata() or {}).get(SCALE)
    except OSError as error:
        raise UsageError(f"cannot read the private adapter {path} ({error.strerror})") from error
    except SafetensorError as error:
        raise CorruptError(f"the private adapter {path} is damaged ({error})", "Remove it and train again.") from error
    parameters = private_parameters(encoder)
    expected = {name: (weight.shape, weight.dtype) for name, weight in parameters.items()}
    held = {name: (weight.shape, weight.dtype) for name, weight in weights.items()}
    if (held, scale) != (expected, _scale(encoder)):  # lora's tensors have the same shapes as rslora's
        raise UsageError(f"{path} holds a private adapter of another kind, rank or model", "Remove it and train again.")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise CorruptError(f"the private adapter {path} holds numbers that are not finite", "Train it again.")
    with torch.no_grad():
        for name, weight in parameters.items():
            weight.copy_(weights[name])


def factor(domain: str, seed: bytes, component: str, module: str, shape: tuple[int, int]) -> Tensor:
    """Return a frozen factor, float32: uniform, each entry of variance 1 / (the longer side).

    SHAKE-256 and exact scaling, like θ_base (`protocol.components.base_vector`); it is part of no state.
    """
    name = digest(domain, seed, component.encode(), module.encode())
    integers = np.frombuffer(hashlib.shake_256(name).digest(2 * shape[0] * shape[1]), dtype="<i2").astype(np.float64)
    bound = sqrt(3.0 / max(shape))
    return torch.from_numpy((integers * (bound / 2**15)).astype(np.float32).reshape(shape))


def _inject(encoder: TextEncoder | Writer, name: str, modules: Sequence[str], rank: int, kind: str) -> list[Any]:
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  # takes seconds

    model: Any = encoder.model
    if any(name in layer.lora_A for layer in model.modules() if _is_lora(layer)):
        raise UsageError(f"the encoder has a {name} adapter already")
    before = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # B·A as it stands; √r·B·A for rslora
        lora_dropout=0.0,
        bias="none",
        target_modules=list(modules),
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
    )
    # peft's initial values are overwritten or zero; and it warns of every second adapter.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=name)
    for layer in filter(_is_lora, model.modules()):  # peft keeps one adapter active, and trains only that
        layer.set_adapter([one for one in (SHARED, PRIVATE) if one in layer.lora_A])
    for parameter in model.parameters():
        parameter.requires_grad_(before.get(id(parameter), False))
    return [model.get_submodule(module) for module in modules]


def _is_lora(module: Any) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "set_adapter")


def _adapter(layer: Any, name: str) -> dict[str, nn.Parameter]:
    parts = {"A": layer.lora_A, "B": layer.lora_B, "magnitude": layer.lora_magnitude_vector}
    weights = {}
    for letter, held in parts.items():
        for part, weight in held[name].named_parameters() if name in held else ():
            weights[f"{letter}.{part}"] = weight
    return weights


def _scale(encoder: TextEncoder | Writer) -> str:
    """Return the multiplier of the private factors' product, as written in its file."""
    layers: Any = [layer for layer in encoder.model.modules() if _is_lora(layer)]
    return next(f"{layer.scaling[PRIVATE]:.6f}" for layer in layers if PRIVATE in layer.scaling)


def _set(linear: nn.Linear, value: Tensor) -> None:
    with torch.no_grad():
        linear.weight.copy_(value)
    linear.weight.requires_grad_(False)


def _dimensions(encoder: TextEncoder | Writer, what: str) -> Dimensions:
    if encoder.dimensions is None:
        raise UsageError(f"{what}: adapters and prompts are for pretrained encoders", "Train the encoder itself.")
    return encoder.dimensions


def _known_names(names: Sequence[str] | dict[str, str]) -> str:
    return f"Known: {', '.join(names)}."
