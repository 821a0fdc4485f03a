"""Pretrained models that a charter names, and that this machine does not have."""

from ...crypto.errors import UsageError
from ...protocol.charter import Charter
from ..data.manifest import read_manifest
from ..pretrained.find import find
from .config import Config

MEND = (
    'Import each (`collegium model import NAME FOLDER`), name its folder in config.toml under [models] as "NAME" ='
    ' "FOLDER", and start the daemon anew if it runs.'
)


def missing_models(config: Config, charter: Charter) -> dict[str, list[str]]:
    """Return the models that a node with this data folder would need and cannot find, each with its modalities.

    Nothing where there is no data folder. Raises UsageError or CorruptError for one that cannot be read.
    """
    if config.data.path is None:
        return {}
    here = {entry.name for entry in read_manifest(config.data.path).modalities}
    missing: dict[str, list[str]] = {}
    for modality in charter.learning.modalities:
        for wanted in modality.pretrained if modality.name in here else ():
            try:
                find(wanted.model, dict(config.models.folders))
            except UsageError:
                missing.setdefault(wanted.model, []).append(modality.name)
    return missing


def check_models(config: Config, charter: Charter) -> None:
    """Raise UsageError if one is missing: no learner could open, and all training here would stop."""
    missing = missing_models(config, charter)
    if missing:
        raise UsageError(lacking(missing), MEND)


def lacking(missing: dict[str, list[str]]) -> str:
    """Return a sentence on missing models."""
    which = "; ".join(f"{model!r} for {', '.join(names)}" for model, names in missing.items())
    return f"this machine lacks a pretrained model of the charter: {which}"
