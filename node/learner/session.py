"""What `open` prepares for the other operations: an institution's data, the specs and bases of its components."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...crypto.errors import UsageError
from ...protocol.components import ComponentSpec, base_digest, base_vector, weights
from ...protocol.learning import Learning
from ..data.arrays import Dataset, load
from .dpsgd import Batch
from .model import M3TModel
from .randomness import Randomness, randomness

States = Mapping[str, bytes]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """An opened institution. `subjects` names the students of each split, in the order of its batch."""

    specs: dict[str, ComponentSpec]
    bases: dict[str, Vector]
    kinds: dict[str, str]
    splits: dict[str, Batch]
    subjects: dict[str, tuple[str, ...]]
    source: Randomness


def open_session(
    folder: Path,
    components: tuple[ComponentSpec, ...],
    learning: Learning,
    base_seed: bytes,
    *,
    hosted: tuple[str, ...],
    seed: int | None,
) -> tuple[Session, Dataset]:
    """Load the data and check that they fit the charter. Raises UsageError or CorruptError, with advice."""
    known = {spec.name: spec for spec in components}
    for name in hosted:
        if name not in known:
            raise UsageError(f"component {name!r} is not in the charter", f"The charter has {', '.join(known)}.")
    specs = {spec.name: spec for spec in components if spec.name in hosted}
    bases = {}
    for name, spec in specs.items():
        bases[name] = base_vector(base_seed, name, spec.tensors)
        if base_digest(bases[name]) != spec.base:
            advice = "The charter's seed and its specs do not belong together, or this build expands seeds otherwise."
            raise UsageError(f"component {name!r}: initial weights differ from the charter's", advice)
    model = M3TModel(list(specs.values()))
    if not model.heads or not model.encoders:
        raise UsageError("nothing to train: no head or no encoder is hosted", "Host one of each at least.")
    data = load(folder)
    _check(data, learning, model, specs)
    splits, subjects = {}, {}
    for split, chosen in (("train", ~data.held_out), ("held_out", data.held_out)):
        splits[split] = _batch(data, np.flatnonzero(chosen), model)
        subjects[split] = tuple(np.array(data.subjects, dtype=object)[chosen].tolist())
    if splits["train"].size == 0:
        raise UsageError(f"{folder}: every subject is held out", "Lower the share of the split.")
    kinds = {name: data.tasks[name].kind for name in model.heads}
    return Session(specs, bases, kinds, splits, subjects, randomness(seed)), data


def build(session: Session, states: States) -> M3TModel:
    """Return the model with the weights of `states` (int32 little-endian bytes; a component not named: its base)."""
    for name in states:
        if name not in session.specs:
            raise UsageError(f"a state for {name!r}, which is not hosted here")
    model = M3TModel(list(session.specs.values()))
    for name, spec in session.specs.items():
        raw = states.get(name, bytes(4 * spec.dimension))
        if len(raw) != 4 * spec.dimension:
            raise UsageError(f"the state of {name!r} has {len(raw)} bytes, not {4 * spec.dimension}")
        model.load(spec, weights(session.bases[name], np.frombuffer(raw, dtype="<i4").astype(np.int32), spec))
    return model


def _batch(data: Dataset, index: npt.NDArray[np.int64], model: M3TModel) -> Batch:
    modalities = {name: data.modalities[name] for name in _modalities(model) if name in data.modalities}
    return Batch(
        torch.from_numpy(data.weights[index]),
        {
            name: (torch.from_numpy(found.values[index]), torch.from_numpy(found.steps[index]))
            for name, found in modalities.items()
        },
        {name: torch.from_numpy(_codes(data, name)[index]) for name in model.heads},
    )


def _codes(data: Dataset, name: str) -> npt.NDArray[np.int64]:
    labels = data.tasks[name].labels[:, :, 0]
    return np.where(np.isnan(labels), -1.0, labels).astype(np.int64)


def _modalities(model: M3TModel) -> list[str]:
    # A skip reads only modalities whose encoder is hosted too: what a node keeps out of training stays out of both.
    return list(model.encoders)


def _check(data: Dataset, learning: Learning, model: M3TModel, specs: Mapping[str, ComponentSpec]) -> None:
    modalities = {modality.name: modality for modality in learning.modalities}
    for name in model.encoders:
        if name not in modalities:
            raise UsageError(f"encoder/{name}: the charter has no modality {name!r}")
        if name not in data.modalities:
            advice = f"Add the modality to dataset.toml, or do not host encoder/{name}."
            raise UsageError(f"the data have no modality {name!r}", advice)
        here, charter = data.modalities[name], modalities[name]
        if (here.kind, here.width) != (charter.kind, charter.width) or here.length > charter.length:
            raise UsageError(
                f"modality {name!r}: the data have {here.kind} of {here.width} features and {here.length} steps,"
                f" the charter {charter.kind} of {charter.width} and at most {charter.length}",
                "Declare the same columns, levels and max_len in dataset.toml as the other members do.",
            )
        width = next(tensor.shape[1] for tensor in specs[f"encoder/{name}"].tensors if tensor.name == "project.weight")
        if width != charter.width:
            raise UsageError(f"encoder/{name} reads {width} features, the charter's modality has {charter.width}")
    tasks = {task.name: task for task in learning.tasks}
    for name in model.heads:
        if name not in tasks:
            raise UsageError(f"head/{name}: the charter has no task {name!r}")
        if name not in data.tasks:
            advice = f"Add the task to dataset.toml, or do not host head/{name}."
            raise UsageError(f"the data have no task {name!r}", advice)
        task, found = tasks[name], data.tasks[name]
        if (found.kind, found.classes) != (task.kind, task.classes):
            raise UsageError(
                f"task {name!r}: the data have {found.kind} with {found.classes} classes,"
                f" the charter {task.kind} with {task.classes}",
                "Declare the same classes in dataset.toml as the other members do.",
            )
