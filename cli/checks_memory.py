"""The check of `collegium doctor` on memory: what the learner of this home needs, and what the machine has."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..crypto.errors import OperatorError
from ..node.home.config import Config
from .checks_charter import Check

if TYPE_CHECKING:
    from ..node.data.arrays import Dataset
    from ..protocol.charter import Charter

SHARE = 0.8  # of the memory, for the learner: the daemon and the system need the rest
TIGHT = (
    "Close other programs, set [learning] processes = 1, or let this node train fewer components ([learning] engage):"
    " heads need little. Else take a machine with more memory."
)


def memory_check(config: Config, charter: "Charter", data: "Dataset | None") -> Iterator[Check]:
    """What the built-in learner needs; without `data`, what it needs beside them. A node without data has none."""
    if config.data.path is None or config.learning.learner:
        return
    from ..node.data.manifest import read_manifest  # numpy; only this check needs it
    from ..node.home.policies import parts_here
    from ..node.learner.memory import machine, model_size, needed
    from ..node.pretrained.find import find

    entries = {entry.name: entry for entry in read_manifest(config.data.path).modalities}
    models = {}
    for modality in charter.learning.modalities:
        entry = entries.get(modality.name)
        if modality.pretrained and entry is not None:
            try:
                folder = find(modality.pretrained[0].model, dict(config.models.folders))
                models[modality.name] = model_size(folder, entry.audio.max_seconds if entry.audio is not None else 0.0)
            except OperatorError as error:
                yield Check("memory", "fail", f"modality {modality.name!r}: {error.message}", error.advice)
                return
    held = set(parts_here(config, charter).held)
    specs = [spec for spec in charter.components if spec.name in held]
    learning = config.learning
    parts = needed(charter.learning, specs, models, data, learning.lot_size, learning.processes)
    whole, there = sum(parts.values()), machine()
    named = ", ".join(f"{name} {_size(part)}" for name, part in parts.items() if part)
    without = "" if data is not None else "; without the data"
    text = f"the learner needs about {_size(whole)} ({named}{without}), of {_size(there)}"
    short = whole > SHARE * there
    yield Check("memory", "warn" if short else "ok", text, TIGHT if short else "", {**parts, "machine": there})


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
