"""Where the model that a charter names lies on this machine. Nothing is ever downloaded."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ...crypto.errors import UsageError
from .folder import CONFIG, is_model
from .packages import package_of


def find(model: str, folders: Mapping[str, Path]) -> Path:
    """Return the folder of a model: the first of `folders` (the node's configuration), an installed package whose
    distribution or import name it is, a local folder, a hub id in the local Hugging Face cache.

    That a folder was found says nothing of its content: `check` compares it with the charter. Raises UsageError.
    """
    if model in folders:
        if not is_model(folders[model]):
            raise UsageError(
                f"the folder {folders[model]}, configured for the model {model!r}, holds no model",
                f"A model's folder holds {CONFIG}, *.safetensors and the files of its tokenizer.",
            )
        return folders[model]
    for folder in (*_in_packages(model), Path(model).expanduser(), *_in_hub_cache(model)):
        if is_model(folder):
            return folder
    package = package_of(model)
    if package is not None and package.form != "folder":
        raise UsageError(
            f"{model!r} is a package that has to be imported first",
            f"`collegium model import {model} FOLDER`, then name that folder.",
        )
    hint = f"Run {package.advice}, or" if package else "Install the package that carries it, or"
    raise UsageError(
        f"the pretrained model {model!r} is not on this machine",
        f"{hint} import it (`collegium model import`), and name the folder in config.toml under [models]: "
        f'"{model}" = "FOLDER". Nothing is downloaded by itself.',
    )


def _in_packages(model: str) -> Iterator[Path]:
    try:
        files = metadata.files(model) or []
    except (metadata.PackageNotFoundError, ValueError):
        files = []
    for file in files:
        if file.name == CONFIG:
            yield Path(str(file.locate())).parent
    name = model.replace("-", "_")
    # No dots: for a name inside a package find_spec would import that package, and run what a charter names.
    if name.isidentifier():
        spec = find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from (Path(location), Path(location) / "model")


def _in_hub_cache(model: str) -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  # rarely needed
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        config = try_to_load_from_cache(model, CONFIG)
    except HFValidationError:  # no hub id
        return
    if isinstance(config, str):
        yield Path(config).parent
