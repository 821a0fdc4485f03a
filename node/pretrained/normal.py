"""The normalised configuration of an imported model: what decides its features, in one order, and nothing else.

It is the config.json of the folder, so transformers reads it too, with two keys more: `collegium`, its format, and
`reads`, how a record becomes the model's input. Two members who import a model with two versions of a library get the
same bytes, and so the same digest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite, prod
from pathlib import Path
from typing import Any, TypeAlias, assert_never

from ...crypto.errors import CorruptError, UsageError
from ...protocol.schema import LATER, to_map
from .families import ACTIVATIONS, FAMILIES, LITE0, LITE0_BLOCKS, NEEDED, Config, Family, Kind, Shapes

FORMAT = 1
MARK, READS, TYPE = "collegium", "reads", "model_type"
MAX_WHOLE = 1 << 24  # of a number in a configuration
MAX_LAYERS = 512
MAX_GRID = 16  # cells along a side of a picture
MAX_NUMBERS = 1 << 33  # of all weights together: 16 GiB in half precision
NEWER = "Install the release of Collegium that imported it, or a later one."


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text: what is put `before` it ("query: " for E5); `centred`: less what all texts have in common."""

    before: str = ""
    centred: bool = field(default=False, metadata=LATER)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A picture of `size` × `size` pixels; each of red, green and blue in [0, 1] becomes (x - mean) / deviation.

    Its features are those after so many `blocks` (0: the whole model), the means over the cells of a `grid` × `grid`.
    """

    size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    blocks: int = field(default=0, metadata=LATER)
    grid: int = field(default=1, metadata=LATER)


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Sound at `rate` samples a second, in windows of at most `seconds`; how it becomes bands the family says."""

    rate: int = 16000
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class WriterInput:
    """A conversation, by the Jinja `template` that the model was trained with; "": it only continues a text."""

    template: str = ""


Input: TypeAlias = TextInput | ImageInput | AudioInput | WriterInput
INPUTS: Mapping[Kind, type[Input]] = {
    "text": TextInput, "image": ImageInput, "audio": AudioInput, "writer": WriterInput,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Normalised:
    """A checked configuration: the family's keys and no other, and what the model reads."""

    model_type: str
    config: Config
    reads: Input

    @property
    def family(self) -> Family:
        """The entry of the table."""
        return FAMILIES[self.model_type]

    @property
    def kind(self) -> Kind:
        """What the model embeds, or that it writes."""
        return self.family.kind

    @property
    def shapes(self) -> Shapes:
        """The tensors of the model."""
        return self.family.shapes(self.config)

    @property
    def width(self) -> int:
        """The number of its features."""
        width = int(self.config[self.family.hidden])
        if not isinstance(self.reads, ImageInput):
            return width
        return (LITE0_BLOCKS[self.reads.blocks - 1].outputs if self.reads.blocks else width) * self.reads.grid**2

    def bytes(self) -> bytes:
        """The file config.json."""
        whole = {**self.config, TYPE: self.model_type, MARK: FORMAT, READS: to_map(self.reads)}
        return (json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def family_of(where: object, raw: Mapping[str, Any]) -> Family:
    """Return the family of a config.json. Raises UsageError."""
    kind = raw.get(TYPE)
    family = FAMILIES.get(kind) if type(kind) is str else None
    if family is None:
        raise UsageError(
            f"{where}: models of type {kind!r} are not supported", f"Known: {', '.join(sorted(FAMILIES))}."
        )
    return family


def normalised(where: object, raw: Mapping[str, Any], reads: Input) -> Normalised:
    """Return the configuration of a model without what does not count. Raises UsageError, before anything is made.

    `where` is the file that an error names.
    """
    family = family_of(where, raw)
    if "quantization_config" in raw:
        raise UsageError(f"{where}: quantised weights are not supported", "Take the model as it was before.")
    for key, values in family.only.items():
        if raw.get(key, values[0]) not in values:
            raise UsageError(f"{where}: {key} = {raw[key]!r} is not supported", f"It has to be {values[0]!r}.")
    config = {key: _value(where, key, raw.get(key, default), default) for key, default in family.keys.items()}
    if "rope_theta" in config:
        config["rope_theta"] = _theta(where, raw)
    config |= {key: rule(config) for key, rule in family.derived.items() if config[key] is None}
    if family.kind == "text" and config["pad_token_id"] >= config["vocab_size"]:
        raise UsageError(
            f"{where}: pad_token_id = {config['pad_token_id']} is no word of its vocabulary", "Fetch the model again."
        )
    _check_buildable(where, family, config)
    made = Normalised(str(raw[TYPE]), config, reads)
    if isinstance(reads, ImageInput) and (reads.blocks or reads.grid > 1) and made.model_type != LITE0:
        raise UsageError(f"{where}: a model of type {raw[TYPE]!r} is read whole, as one mean", f"{LITE0} is not.")
    layers = config.get(family.layers)
    if isinstance(layers, int) and layers > MAX_LAYERS:
        raise UsageError(f"{where}: {layers} layers, at most {MAX_LAYERS} are supported")
    if sum(map(prod, made.shapes.values())) > MAX_NUMBERS:
        raise UsageError(f"{where}: a model of more than {MAX_NUMBERS:,} numbers", "Take a smaller one.")
    return made


def _check_buildable(where: object, family: Family, config: Config) -> None:
    """Raise UsageError for a configuration of which no library can build a model."""
    activation = config.get(family.activation)
    if activation is not None and activation not in ACTIVATIONS:
        raise UsageError(
            f"{where}: {family.activation} = {activation!r} is no function that is known",
            f"Known: {', '.join(sorted(ACTIVATIONS))}.",
        )
    heads, features = config.get(family.heads), config[family.hidden]
    sizes: list[tuple[Any, str, Any, str]] = []  # a number, its name, and what it has to be a multiple of
    if "num_key_value_heads" in config:
        sizes += [(heads, family.heads, config["num_key_value_heads"], "num_key_value_heads")]
        sizes += [(config["head_dim"], "head_dim", 2, "2")]  # rotary positions turn pairs
    elif heads is not None:
        sizes += [(features, family.hidden, heads, family.heads)]
    if "patch_size" in config:
        sizes += [(config["image_size"], "image_size", config["patch_size"], "patch_size")]
    for size, name, part, of in sizes:
        if not size or size % (part or 1):
            raise UsageError(
                f"{where}: {name} = {size} is no multiple of {of}{'' if of.isdecimal() else f' = {part}'}",
                "No model can be built of it: fetch it again.",
            )


def _value(where: object, key: str, value: Any, default: Any) -> Any:
    if value is NEEDED:
        raise UsageError(f"{where} has no {key!r}", "Fetch the model again.")
    if key == "eos_token_id" and type(value) is list and value:
        value = value[0]
    if value is None and default is None:
        return None
    whole = default is NEEDED or default is None or type(default) is int
    wanted: type = int if whole else type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    fits = type(value) is wanted
    if fits and wanted is float:
        fits = isfinite(value) and value >= 0.0
    if fits and whole:
        fits = (default is NEEDED) <= int(value) < MAX_WHOLE  # what has to be there is not 0 either
    if not fits:
        raise UsageError(f"{where}: {key} = {value!r} is no value for it", "Fetch the model again.")
    return value


def _theta(where: object, raw: Mapping[str, Any]) -> float:
    """Return the base of the rotary positions, from where each version of transformers writes it."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if type(rope) is not dict or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UsageError(f"{where}: rotary positions of another kind than default are not supported")
    theta = rope.get("rope_theta", raw.get("rope_theta", 10000.0))
    if not isinstance(theta, int | float) or not 1.0 <= theta <= 1e12:
        raise UsageError(f"{where}: rope_theta = {theta!r} is no base of positions")
    return float(theta)


def read(folder: Path, raw: Mapping[str, Any]) -> Normalised | None:
    """Return the configuration of an imported folder from its config.json, None for one that was not imported.

    Raises UsageError, CorruptError.
    """
    where = folder / "config.json"
    version = raw.get(MARK)
    if version is None:
        return None
    if version != FORMAT:
        raise UsageError(f"{where} has format {version!r}, this release reads {FORMAT}", NEWER)
    family = family_of(where, raw)
    inputs, reads = INPUTS[family.kind], raw.get(READS)
    later = {entry.name for entry in fields(inputs) if entry.metadata.get("later")}  # left out where they say nothing
    if type(reads) is not dict or set(reads) | later != {entry.name for entry in fields(inputs)}:
        raise CorruptError(f"{where}: {READS!r} does not say what the model reads", "Import the model again.")
    made = normalised(where, raw, input_of(where, family.kind, reads))
    if json.loads(made.bytes()) != dict(raw):
        raise CorruptError(f"{where} is not as it was imported", "Import the model again.")
    return made


def input_of(where: object, kind: Kind, reads: Mapping[str, Any]) -> Input:
    """Return what a model reads from its parts in JSON. Raises CorruptError."""
    try:
        match kind:
            case "text":
                made: Input = TextInput(_text(reads["before"]), bool(reads.get("centred", False)))
            case "image":
                mean, deviation = (tuple(float(x) for x in reads[key]) for key in ("mean", "deviation"))
                made = ImageInput(
                    int(reads["size"]), mean, deviation, int(reads.get("blocks", 0)), int(reads.get("grid", 1))
                )
                if not 0 <= made.blocks <= len(LITE0_BLOCKS) or not 1 <= made.grid <= MAX_GRID:
                    raise ValueError("blocks or a grid that no model has")
                if not all(map(isfinite, (*mean, *deviation))):
                    raise ValueError("a colour")
                if not 8 <= made.size <= 1024 or len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0.0:
                    raise ValueError("a picture")
            case "audio":
                made = AudioInput(int(reads["rate"]), float(reads["seconds"]))
                if not 1000 <= made.rate <= 192_000 or not 0.1 <= made.seconds <= 60.0:
                    raise ValueError("a sound")
            case "writer":
                made = WriterInput(_text(reads["template"]))
            case _:
                assert_never(kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise CorruptError(f"{where}: {READS!r} cannot be used ({error})", "Import the model again.") from error
    return made


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > 1 << 16:
        raise ValueError("no text")
    value.encode()  # half of a pair of surrogates is no text: UnicodeEncodeError, a ValueError
    return value
