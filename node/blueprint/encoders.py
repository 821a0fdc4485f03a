"""`encoder`, `adapter` and `prompt` of a modality in a model file."""

from pathlib import Path

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind
from ...protocol.components import LAST_LAYERS
from ...protocol.learning import Modality
from .. import toml
from ..architectures import Sizes
from ..pretrained.tensors import BERT, LORA
from ..toml import Table
from . import parts
from .own import own_part
from .parts import Part, Transformer
from .settings import Own, own_numbers

FEATURES = 64  # that a pretrained model's are projected to
CHANNELS = {"conv-image": (8, 16, 16), "conv-series": (8, 16, 32)}


def encoder(section: Table, modality: Modality, hidden: int) -> tuple[Part, int, Own]:
    """Return the encoder, the features that a text is projected to, and what it has of its own. Raises UsageError."""
    declared = section.raw.pop("encoder", {})
    options = section.below("encoder", {"architecture": declared} if isinstance(declared, str) else declared)
    architecture = options.text("architecture", _usual_encoder(modality))
    brought: Part | None = None  # by a package
    if architecture not in parts.ENCODERS and (modality.kind != "text" or modality.pretrained):
        sizes = Sizes(hidden, modality.width, modality.length)
        brought = own_part(options, architecture, ComponentKind.ENCODER.named(modality.name), "encoder", sizes)
    missing = options.flag("missing", True) if architecture != BERT else False
    channels: tuple[int, ...] = ()
    features, transformer, usual = 0, None, Transformer()
    if architecture in CHANNELS:
        channels = _wholes(options, "channels", CHANNELS[architecture])
    elif architecture == "pair-tanh":
        whole = parts.pair_width(modality)
        features = options.whole("features", min(FEATURES, whole), 0, whole)
        if 0 < features < modality.length:
            raise options.fail(f"features = {features} of {modality.length} segments", f"Take {modality.length}, or 0.")
    elif architecture == BERT:
        transformer = Transformer(
            options.whole("layers", 1, 1, 16),
            options.whole("vocabulary", usual.vocabulary, 1, 2**20),
            options.whole("positions", usual.positions, 1, 4096),
            options.whole("intermediate", 2 * hidden, 1, 2**16),
        )
    own = own_numbers(options)
    try:
        part = brought or parts.encoder(
            modality, hidden, architecture, channels=channels, features=features, missing=missing,
            transformer=transformer,
        )  # fmt: skip
    except UsageError as error:
        raise UsageError(f"{options.where}: {error.message}", error.advice) from error
    options.done()
    return part, features, own


def _usual_encoder(modality: Modality) -> str:
    """Return the architecture of an encoder that the file does not choose."""
    if modality.pretrained:
        return parts.architectures(modality)[0]
    if modality.kind == "image" and modality.width >= 256 and round(modality.width**0.5) ** 2 == modality.width:
        return "conv-image"
    if modality.kind == "audio":
        return "conv-series"
    return parts.architectures(modality)[0]


def adapter_part(section: Table, key: str, modality: Modality, folder: Path | None) -> tuple[Part, Own]:
    """Return the adapter or prompt (`key`) on the model in `folder`, and what it has of its own. Raises UsageError."""
    options = section.table(key)
    if folder is None or modality.kind != "text":
        raise options.fail("there is no pretrained model of texts to adapt", "Adapters and prompts are for texts.")
    try:
        if key == "prompt":
            part = parts.prompt(modality, folder, options.whole("length", 8, 1, 4096))
        else:
            part = _adapter(options, modality, folder)
    except UsageError as error:
        if error.message.startswith(options.where):
            raise
        raise UsageError(f"{options.where}: {error.message}", error.advice) from error
    own = own_numbers(options)
    options.done()
    return part, own


def _adapter(options: Table, modality: Modality, folder: Path) -> Part:
    kind = options.text("kind")
    if kind == LAST_LAYERS:
        return parts.last_layers(modality, folder, options.whole("layers", 1, 1, 512))
    rank = options.whole("rank", 8, 1, 4096)
    if kind not in LORA:
        raise options.fail(f"kind = {kind!r} is unknown", f"Write one of {', '.join((*LORA, LAST_LAYERS))}.")
    last = options.whole("layers", None, 1, 512) if "layers" in options.raw else None
    return parts.adapter(modality, folder, kind, rank, options.texts("targets", ["query", "value"]), last)


def _wholes(section: Table, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    values = section.take(key, toml.kind(list), list(default))
    if not values or not all(type(value) is int and 1 <= value <= 1024 for value in values) or len(values) > 8:
        raise section.fail(f"{key} = {values!r} is no list of 1 to 8 whole numbers from 1 to 1024")
    return tuple(values)
