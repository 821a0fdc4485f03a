"""The tensors of components that belong to a text encoder, for whoever writes a charter.

| component | architecture | tensors |
|---|---|---|
| `adapter/MODALITY` | `lora-ffa` | MODULE.B [out, r] (Sun et al. 2024); A is expanded from the charter's seed, frozen |
| | `lora-core` | MODULE.R [r, r] (as in Fed-SB); A and B are expanded from the charter's seed, frozen |
| `prompt/MODALITY` | `soft-prompt` | prompt.weight [n, hidden]: learned tokens before the text |
| `head/TASK` | `similarity` | shift.weight [h, 1]; the classes' names are embedded, frozen |
| `encoder/MODALITY` | `bert` | a small BERT from scratch: every parameter, by the name it has in transformers |

The mean of members' A times the mean of their B is not the mean of B·A; so what is shared is always linear.
"""

from collections.abc import Sequence
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.components import MILLION, TensorSpec
from .folder import Dimensions, dimensions

LORA = {"lora-ffa": "B", "lora-core": "R"}
SOFT_PROMPT = "soft-prompt"
SIMILARITY = "similarity"
PROMPT = "prompt.weight"
PROMPT_BOUND = 50_000  # of the size of BERT's word embeddings
BERT = "bert"
HEAD_SIZE = 16  # features of one attention head of `bert`: what the shapes of its tensors cannot say
TENSORS = 64  # of one component, at most


def lora_tensors(
    folder: Path, architecture: str, rank: int, targets: Sequence[str] = ("query", "value"), last: int | None = None
) -> tuple[TensorSpec, ...]:
    """Return the tensors of `adapter/MODALITY` on all layers of the model in `folder`, or the `last` ones.

    All start at zero.
    """
    letter = LORA.get(architecture)
    if letter is None:
        raise UsageError(f"unknown architecture {architecture!r} of an adapter", f"Known: {', '.join(LORA)}.")
    model = dimensions(folder)
    if last is not None and not 1 <= last <= model.layers:
        raise UsageError(f"an adapter on the last {last} layers of a model of {model.layers}")
    modules = target_modules(model, targets, last)
    least = min([model.hidden, *(model.outputs.get(module, model.hidden) for module in modules)])
    if not 1 <= rank <= least:
        raise UsageError(f"an adapter of rank {rank} on projections to {least} features")
    if len(modules) > TENSORS:
        raise UsageError(
            f"an adapter on {len(modules)} modules: a component has at most {TENSORS} tensors", "Name fewer targets."
        )
    rows = {module: model.outputs.get(module, model.hidden) if letter == "B" else rank for module in modules}
    return tuple(TensorSpec(f"{module}.{letter}", (rows[module], rank), 0) for module in modules)


def prompt_tensors(folder: Path, length: int) -> tuple[TensorSpec, ...]:
    """Return the tensors of `prompt/MODALITY`: `length` learned tokens before every text."""
    model = dimensions(folder)
    if not 1 <= length <= model.positions // 2:
        raise UsageError(f"a prompt of {length} tokens on a model of {model.positions} positions")
    return (TensorSpec(PROMPT, (length, model.hidden), PROMPT_BOUND),)


def target_modules(model: Dimensions, targets: Sequence[str], last: int | None = None) -> tuple[str, ...]:
    """Return the names of the modules that `targets` ("query", "key", "value") mean, layer by layer.

    Of the `last` layers, or of all.
    """
    unknown = sorted(set(targets) - set(model.projections))
    if unknown or not targets or len(set(targets)) != len(targets):
        raise UsageError(f"targets of an adapter: {', '.join(targets) or 'none'}", "Known: query, key, value.")
    layers = range(0 if last is None else model.layers - last, model.layers)
    return tuple(model.projections[target][layer] for layer in layers for target in targets)


def scratch_tensors(
    hidden: int, layers: int, vocabulary: int, positions: int = 64, intermediate: int | None = None
) -> tuple[TensorSpec, ...]:
    """Return the tensors of an `encoder/MODALITY` of architecture `bert`: hidden·(vocabulary + positions + …) numbers.

    Pieces are hashed into `vocabulary` buckets and `positions` is the number of them read of each text. The norms'
    tensors are offsets from the identity, so they start at zero like the biases; the others start as large as their
    fan-in wants.
    """
    wide = 2 * hidden if intermediate is None else intermediate
    if hidden < HEAD_SIZE or hidden % HEAD_SIZE != 0:
        raise UsageError(f"{hidden} features: a {BERT!r} has a multiple of {HEAD_SIZE}, the size of a head")
    if min(layers, vocabulary, positions, wide) < 1:
        raise UsageError(f"{layers} layers, {vocabulary} buckets, {positions} positions, {wide} wide: none may be 0")
    tables = {"word": vocabulary, "position": positions, "token_type": 1}
    tensors = [
        TensorSpec(f"embeddings.{name}_embeddings.weight", (rows, hidden), PROMPT_BOUND)
        for name, rows in tables.items()
    ]
    tensors += _norm("embeddings", hidden)
    for layer in range(layers):
        tensors += _layer(f"encoder.layer.{layer}", hidden, wide)
    if len(tensors) > TENSORS:
        raise UsageError(
            f"{layers} layers have {len(tensors)} tensors, a component at most {TENSORS}", "Take 3 layers."
        )
    return tuple(tensors)


def backbone_tensors(hidden: int, layers: int, intermediate: int) -> tuple[TensorSpec, ...]:
    """Return the tensors of a `backbone` of architecture `transformer`: BERT's layers over the modalities' embeddings.

    A layer's last norm comes back to what it was given at the start only roughly: it is no residual map like `mlp`.
    """
    if hidden < HEAD_SIZE or hidden % HEAD_SIZE != 0:
        raise UsageError(f"{hidden} features: a transformer has a multiple of {HEAD_SIZE}, the size of a head")
    if min(layers, intermediate) < 1 or 16 * layers > TENSORS:
        raise UsageError(f"a backbone of {layers} layers, {intermediate} wide", f"Take 1 to {TENSORS // 16} layers.")
    tensors: list[TensorSpec] = []
    for layer in range(layers):
        tensors += _layer(f"layers.{layer}", hidden, intermediate)
    return tuple(tensors)


def _layer(at: str, hidden: int, wide: int) -> list[TensorSpec]:
    tensors: list[TensorSpec] = []
    for name in ("query", "key", "value"):
        tensors += _linear(f"{at}.attention.self.{name}", hidden, hidden)
    tensors += _linear(f"{at}.attention.output.dense", hidden, hidden)
    tensors += _norm(f"{at}.attention.output", hidden)
    tensors += _linear(f"{at}.intermediate.dense", wide, hidden)
    tensors += _linear(f"{at}.output.dense", hidden, wide)
    return tensors + _norm(f"{at}.output", hidden)


def _linear(name: str, rows: int, columns: int) -> list[TensorSpec]:
    bound = round(MILLION * float(3.0 / columns) ** 0.5)  # variance 1 / fan-in
    return [TensorSpec(f"{name}.weight", (rows, columns), bound), TensorSpec(f"{name}.bias", (rows,), 0)]


def _norm(name: str, hidden: int) -> list[TensorSpec]:
    return [TensorSpec(f"{name}.LayerNorm.offset.{part}", (hidden,), 0) for part in ("weight", "bias")]
