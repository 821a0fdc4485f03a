"""`backbone` of a model file: how the modalities of a record are joined, and what all tasks share after that.

```toml
[model]
backbone = 16                                        # an MLP over their sum, 16 wide in the middle; 0: the sum alone
backbone = "cross-attention"                         # the sum asks, and the modalities that are there answer
backbone = { architecture = "concat", width = 16 }   # beside each other, with a mask of what is there
backbone = { architecture = "experts", width = 8, experts = 4, chosen = 2 }      # a mixture of small networks
backbone = { architecture = "transformer", layers = 1, width = 32 }              # of the modalities as tokens
```

The table has `learning_rate` and `rule` of its own, too. `concat` has places for the modalities that it names
(`modalities`, by default all that have an encoder): those that open later are in the sum alone.
"""

from collections.abc import Sequence

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind
from ...protocol.components import ComponentSpec
from .. import toml
from ..architectures import Sizes, words
from ..toml import Table
from . import parts
from .own import own_part
from .parts import EXPERTS, Part
from .settings import Own, own_numbers

ARCHITECTURES = ("mlp", "concat", "cross-attention", "experts", "transformer")
WIDTH, COUNT, CHOSEN = 16, 4, 2


def backbone(model: Table, hidden: int, encoded: Sequence[str]) -> tuple[list[Part], Own]:
    """Return the backbone that [model] declares, if any, and what it has of its own.

    `encoded` are the modalities with an encoder. Raises UsageError, naming the file and the key.
    """
    declared = model.take("backbone", toml.kind(int, str, dict), 0)
    layers = model.whole("layers", 0, 0, 4)
    if isinstance(declared, int):
        if declared or layers:
            _need_encoders(model, encoded)
        if not 0 <= declared <= 4096:
            raise model.fail(f"backbone = {declared} is not between 0 and 4,096")
        if layers:
            return [parts.transformer_backbone(hidden, layers, declared or 2 * hidden)], Own()
        return [parts.backbone(hidden, declared)] if declared else [], Own()
    if layers:
        raise model.fail("layers beside a backbone with a name", "Write layers in the backbone's table.")
    _need_encoders(model, encoded)
    options = model.below("backbone", {"architecture": declared} if isinstance(declared, str) else declared)
    try:
        part = _part(options, hidden, encoded)
    except UsageError as error:
        if error.message.startswith(options.where):
            raise
        raise UsageError(f"{options.where}: {error.message}", error.advice) from error
    own = own_numbers(options)
    options.done()
    return [part], own


def described(spec: ComponentSpec | None) -> str:
    """Say in plain words how a charter's backbone joins the modalities of a record; None: there is none."""
    if spec is None:
        return "are added up"
    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    if spec.architecture == "mlp":
        return f"are added up, and pass through a network {shapes['hidden.weight'][0]} wide"
    if spec.architecture == "concat":
        names = [name[9:].removesuffix(".weight") for name in shapes if name.startswith("modality/")]
        return f"stand beside each other ({', '.join(names)}), with a mask of what is absent"
    if spec.architecture == "cross-attention":
        return "are weighed by attention: their sum asks, and those that are there answer"
    if spec.architecture in EXPERTS:
        chosen = spec.architecture.removeprefix("experts-top")
        return f"are added up, and each record goes to {chosen} of {shapes['router.weight'][0]} experts"
    if spec.architecture == "transformer":
        return f"are the tokens of a transformer of {sum('query.weight' in name for name in shapes)} layers"
    return f"are joined by {words(spec.architecture)}"


def _need_encoders(model: Table, encoded: Sequence[str]) -> None:
    if not encoded:
        raise model.fail("a backbone, and no encoder that it reads", "Remove layers and backbone from [model].")


def _part(options: Table, hidden: int, encoded: Sequence[str]) -> Part:
    architecture = options.text("architecture")
    match architecture:
        case "mlp":
            return parts.backbone(hidden, options.whole("width", WIDTH, 1, 4096))
        case "concat":
            names = options.texts("modalities", sorted(encoded))
            if not names:
                raise options.fail("modalities: none that it joins", f"Name some of {', '.join(sorted(encoded))}.")
            for name in names:
                if name not in encoded:
                    raise options.fail(f"modalities: {name!r} has no encoder", f"Known: {', '.join(sorted(encoded))}.")
            return parts.concat_backbone(hidden, options.whole("width", WIDTH, 1, 4096), set(names))
        case "cross-attention":
            return parts.attention_backbone(hidden)
        case "experts":
            experts = options.whole("experts", COUNT, 2, 64)
            chosen = options.whole("chosen", min(CHOSEN, experts - 1), 1, 64)
            return parts.experts_backbone(hidden, options.whole("width", WIDTH, 1, 4096), experts, chosen)
        case "transformer":
            layers = options.whole("layers", 1, 1, 4)
            return parts.transformer_backbone(hidden, layers, options.whole("width", 2 * hidden, 1, 4096))
        case _:
            own = own_part(options, architecture, ComponentKind.BACKBONE.value, "backbone", Sizes(hidden))
            if own is not None:
                return own
            raise options.fail(
                f"architecture = {architecture!r} is unknown",
                f"Write one of {', '.join(ARCHITECTURES)}, or install the package that brings it.",
            )
