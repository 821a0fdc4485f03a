"""The components that the learner can build (node/learner/model.py), as names, architectures and tensors.

Weights start uniform in ±√(6 / (in + out)) (Glorot and Bengio 2010), biases, heads and skips at zero.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isqrt, prod, sqrt
from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind, names_statistic
from ...protocol.components import LAST_LAYERS, MILLION, RIDGE, TensorSpec, base_digest
from ...protocol.equity import ARCHITECTURE, Equity
from ...protocol.learning import Modality, Task
from ...protocol.statistics import inputs_of_modality, tensors, tensors_of_groups
from ..pretrained.layers import layer_tensors, layers_base
from ..pretrained.tensors import (
    BERT,
    SIMILARITY,
    SOFT_PROMPT,
    backbone_tensors,
    lora_tensors,
    prompt_tensors,
    scratch_tensors,
)
from ..pretrained.tensors import TENSORS as MAX_TENSORS

IMAGE_TAPS, SERIES_TAPS = 9, 5  # 3 × 3 pixels, 5 steps
EXPERTS = tuple(f"experts-top{chosen}" for chosen in (1, 2, 3, 4))  # how many a record gets is in the name
MAX_INPUTS = 96  # the default of a statistic: a ridge head's noise grows with the square of its features
FITTING = {
    "tabular": ("linear-tanh",),
    "image": ("linear-tanh", "conv-image"),
    "series": ("attention-pool", "conv-series"),
    "audio": ("attention-pool", "conv-series"),
}
ENCODERS = {"pair-tanh", BERT}.union(*FITTING.values())


@dataclass(frozen=True, slots=True)
class Transformer:
    """The size of a `bert` from scratch: pieces of texts (data/pieces.py) are hashed into `vocabulary`
    buckets, `positions` of them are read.
    """

    layers: int = 1
    vocabulary: int = 256
    positions: int = 32
    intermediate: int | None = None  # None: twice the features


@dataclass(frozen=True, slots=True)
class Part:
    """A component before its noise is known.

    `base` is the digest of what it starts from, b"": the charter's seed; `ridge` in millionths, of a ridge statistic.
    """

    name: str
    architecture: str
    tensors: tuple[TensorSpec, ...]
    ridge: int = RIDGE
    base: bytes = b""

    @property
    def dimension(self) -> int:
        """The number of parameters d."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def is_statistic(self) -> bool:
        """Whether it is a statistic."""
        return names_statistic(self.name)


def linear(name: str, outputs: int, inputs: int, *, zero: bool = False, bias: bool = True) -> tuple[TensorSpec, ...]:
    """Return the weight and, if wanted, the bias of a linear map."""
    bound = 0 if zero else round(sqrt(6.0 / (inputs + outputs)) * MILLION)
    weight = TensorSpec(f"{name}.weight", (outputs, inputs), bound)
    return (weight, TensorSpec(f"{name}.bias", (outputs,), 0)) if bias else (weight,)


def architectures(modality: Modality) -> tuple[str, ...]:
    """Return the architectures of encoders that read a modality."""
    if modality.pretrained:
        return ("pair-tanh",)
    if modality.kind == "text":
        return (BERT,)
    return FITTING[modality.kind]


def encoder(
    modality: Modality,
    hidden: int,
    architecture: str,
    *,
    channels: Sequence[int] = (8, 16, 32),
    features: int = 0,
    missing: bool = True,
    transformer: Transformer | None = None,
) -> Part:
    """Return an encoder of a modality to `hidden` features.

    `channels` are those of convolutions; `features` is what pair features are projected to (0: all of them);
    `transformer` is the size of a `bert`, which has no token for a missing text. Raises UsageError for an architecture
    that does not fit the kind.
    """
    name, fitting = ComponentKind.ENCODER.named(modality.name), architectures(modality)
    if architecture not in fitting:
        what = modality.kind
        if modality.pretrained:
            what = "the features of a pretrained model"
        elif what == "text":
            what = "text without a pretrained model"
        advice = f"Known: {', '.join(fitting)}, and those of packages that are installed here."
        raise UsageError(f"{name}: {architecture!r} does not read {what}", advice)
    if architecture == BERT:
        size = transformer or Transformer()
        scratch = scratch_tensors(hidden, size.layers, size.vocabulary, size.positions, size.intermediate)
        return Part(name, architecture, scratch)
    tensors: tuple[TensorSpec, ...] = ()
    if architecture == "conv-image":
        side, before = isqrt(modality.width), 1
        if side * side != modality.width:
            raise UsageError(f"modality {modality.name!r}: {modality.width} pixels are no square")
        for index, count in enumerate(channels):
            tensors += linear(f"conv{index}", count, IMAGE_TAPS * before)
            side, before = (side + 1) // 2, count
        tensors += linear("project", hidden, side * side * before)
    elif architecture == "conv-series":
        before = modality.width
        for index, count in enumerate(channels):
            tensors += linear(f"conv{index}", count, SERIES_TAPS * before)
            before = count
        tensors += linear("project", hidden, 2 * before)
    elif architecture == "pair-tanh":
        tensors += linear("project", hidden, features or pair_width(modality))
    else:
        tensors += linear("project", hidden, modality.width)
        if architecture == "attention-pool":
            tensors += linear("score", 1, hidden, zero=True, bias=False)
    if missing:
        tensors += linear("missing", hidden, 1, zero=True, bias=False)
    return Part(name, architecture, tensors)


def pair_width(modality: Modality) -> int:
    """Return the number of a pretrained model's features: of a text's last segment, and its comparisons with others."""
    return modality.width * (1 + 2 * (modality.length - 1)) + modality.length - 1


def adapter(
    modality: Modality, folder: Path, architecture: str, rank: int, targets: Sequence[str], last: int | None = None
) -> Part:
    """Return an adapter of the given rank on all or the `last` layers of the pretrained model in `folder`.

    Raises UsageError.
    """
    tensors = lora_tensors(folder, architecture, rank, targets, last)
    return Part(ComponentKind.ADAPTER.named(modality.name), architecture, tensors)


def last_layers(modality: Modality, folder: Path, last: int) -> Part:
    """Return the `last` layers of the pretrained model in `folder`, trained whole from its weights on.

    Raises UsageError.
    """
    tensors = layer_tensors(folder, last)
    return Part(
        ComponentKind.ADAPTER.named(modality.name), LAST_LAYERS, tensors, base=base_digest(layers_base(folder, tensors))
    )


def prompt(modality: Modality, folder: Path, length: int) -> Part:
    """Return a prompt of `length` learned tokens before every text of the pretrained model. Raises UsageError."""
    return Part(ComponentKind.PROMPT.named(modality.name), SOFT_PROMPT, prompt_tensors(folder, length))


def backbone(hidden: int, middle: int) -> Part:
    """Return the residual backbone shared by all tasks; it starts as the identity."""
    return Part(
        ComponentKind.BACKBONE.value,
        "mlp",
        (*linear("hidden", middle, hidden), *linear("out", hidden, middle, zero=True)),
    )


def transformer_backbone(hidden: int, layers: int, middle: int) -> Part:
    """Return a backbone of `layers` transformer layers, `middle` wide, that attends to the modalities."""
    return Part(ComponentKind.BACKBONE.value, "transformer", backbone_tensors(hidden, layers, middle))


def concat_backbone(hidden: int, middle: int, modalities: Collection[str]) -> Part:
    """Return a backbone of the embeddings of `modalities` beside each other, with a bit each for what is there."""
    bound = round(sqrt(6.0 / (middle + len(modalities) * (hidden + 1))) * MILLION)
    places = [TensorSpec(f"modality/{name}.weight", (middle, hidden + 1), bound) for name in sorted(modalities)]
    if len(places) + 2 > MAX_TENSORS:
        raise UsageError(
            f"a backbone of {len(places)} modalities beside each other", f"Take {MAX_TENSORS - 2} at most."
        )
    return Part(ComponentKind.BACKBONE.value, "concat", (*places, *linear("out", hidden, middle, zero=True)))


def attention_backbone(hidden: int) -> Part:
    """Return a backbone in which the sum of the modalities attends to them."""
    maps = [linear(name, hidden, hidden, zero=name == "out") for name in ("query", "key", "value", "out")]
    return Part(ComponentKind.BACKBONE.value, "cross-attention", tuple(chain.from_iterable(maps)))


def experts_backbone(hidden: int, middle: int, experts: int, chosen: int) -> Part:
    """Return a mixture of `experts`, each `middle` wide, of which every record gets `chosen`."""
    architecture = f"experts-top{chosen}"
    if architecture not in EXPERTS or chosen >= experts:
        raise UsageError(
            f"{chosen} of {experts} experts for each record", f"Take 1 to {len(EXPERTS)}, fewer than there are."
        )
    inner = TensorSpec("hidden.weight", (experts * middle, hidden), round(sqrt(6.0 / (middle + hidden)) * MILLION))
    return Part(
        ComponentKind.BACKBONE.value,
        architecture,
        (
            *linear("router", experts, hidden, bias=False),
            inner,
            TensorSpec("hidden.bias", (experts * middle,), 0),
            *linear("out", hidden, experts * middle, zero=True),
        ),
    )


def head(task: Task, hidden: int) -> Part:
    """Return a task's head."""
    return Part(ComponentKind.HEAD.named(task.name), "linear", linear("linear", task.outputs, hidden, zero=True))


def similarity_head(task: Task, hidden: int) -> Part:
    """Return a task's head of similarities to the names of its classes."""
    return Part(ComponentKind.HEAD.named(task.name), SIMILARITY, linear("shift", hidden, 1, zero=True, bias=False))


def places_of(modality: Modality) -> int:
    """Return the number of features of a series with a place for each step: its values, and whether it is there."""
    return modality.length * (modality.width + 1)


def skip(task: Task, widths: Mapping[str, int]) -> Part:
    """Return a task's linear map of the features themselves, for the modalities in `widths` (`places_of`: by place)."""
    tensors = [linear(name, task.outputs, width, zero=True, bias=False)[0] for name, width in sorted(widths.items())]
    return Part(ComponentKind.SKIP.named(task.name), "linear-skip", tuple(tensors))


def groups(task: Task, equity: Equity) -> Part:
    """Return the release of a task's groups of held-out students."""
    return Part(ComponentKind.GROUPS.named(task.name), ARCHITECTURE, tensors_of_groups(equity))


def statistic(
    task: Task,
    modalities: Collection[Modality],
    architecture: str = "ridge",
    features: int | None = None,
    ridge: int = RIDGE,
) -> Part:
    """Return a statistic of a task over the given number of features, one of them constant; 0: of all inputs.

    By default all inputs of the modalities that it reads, or MAX_INPUTS random ones made of more.
    """
    inputs = sum(inputs_of_modality(entry) for entry in modalities if entry.name in task.modalities)
    features = min(inputs, MAX_INPUTS) + 1 if features is None else features or inputs + 1
    made = tensors(architecture, features, task.outputs)
    return Part(ComponentKind.STATISTIC.named(task.name), architecture, made, ridge)
