"""The last layers of a pretrained text encoder, to be trained whole: their tensors, and the weights they start from.

`adapter/MODALITY` of architecture `last-layers` has every parameter of these layers, by its name in the model. θ_base
is what the imported model has there, in float32, the tensors end to end; the charter names it by its digest. So whoever
has the model can compute it, and nobody sends it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...crypto.errors import UsageError
from ...protocol.component_names import parse_name
from ...protocol.components import ComponentSpec, TensorSpec, base_digest
from ...protocol.learning import Learning
from .find import find
from .folder import WEIGHTS, check, configuration, decisive_files, dimensions
from .tensors import TENSORS
from .weights import FLOATS, Tensor, chunks, header

Vector = npt.NDArray[np.float32]


def layer_tensors(folder: Path, last: int) -> tuple[TensorSpec, ...]:
    """Return the tensors of the `last` layers of the text encoder in a folder, by name. Raises UsageError."""
    _, family, _ = configuration(folder)
    if family.kind != "text":
        raise UsageError(f"the model in {folder} reads no text", "Layers are trained whole of text encoders only.")
    model = dimensions(folder)
    if not 1 <= last <= model.layers:
        raise UsageError(f"the last {last} layers of a model of {model.layers}")
    stems = tuple(_stem(module) for module in model.projections["query"][model.layers - last :])
    names = sorted(name for name in _named(folder) if name.startswith(stems))
    if not 1 <= len(names) <= TENSORS:
        raise UsageError(
            f"{last} layers of {folder} have {len(names)} tensors: a component has at most {TENSORS}",
            "Train fewer layers whole.",
        )
    return tuple(TensorSpec(name, _named(folder)[name].shape, 0) for name in names)


def layers_base(folder: Path, tensors: tuple[TensorSpec, ...]) -> Vector:
    """Return what the model in a folder has in these tensors, [d] float32. Raises UsageError for others."""
    held = _named(folder)
    parts = []
    for tensor in tensors:
        stored = held.get(tensor.name)
        if stored is None or stored.shape != tensor.shape or stored.dtype not in FLOATS:
            raise UsageError(f"the model in {folder} has no {tensor.name} {list(tensor.shape)}", "Import it again.")
        parts.append(_floats(stored))
    return np.concatenate(parts)


def checked_base(spec: ComponentSpec, learning: Learning, folders: Mapping[str, Path]) -> Vector:
    """Return θ_base of a component that starts from a pretrained model, from this member's copy of it.

    Raises UsageError, by the component's name, if it is not what the charter says.
    """
    modality = next((entry for entry in learning.modalities if entry.name == parse_name(spec.name).modality), None)
    if modality is None or not modality.pretrained:
        raise UsageError(f"component {spec.name!r} starts from a pretrained model, and its modality has none")
    (wanted,) = modality.pretrained
    folder = find(wanted.model, folders)
    check(folder, wanted.digest)
    base = layers_base(folder, spec.tensors)
    if base_digest(base) != spec.base:
        raise UsageError(
            f"component {spec.name!r} starts from layers with the digest {base_digest(base).hex()} in {folder},"
            f" the charter asks for {spec.base.hex()}",
            "The charter and the model do not belong together: do not sign it, and tell who drew it up.",
        )
    return base


def _stem(module: str) -> str:
    """`encoder.layer.5.attention.self.query` is in `encoder.layer.5.`."""
    found = re.match(r".*?\.\d+\.", module)
    assert found is not None
    return found[0]


def _named(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder, without the prefix that its family may put before them."""
    _, family, _ = configuration(folder)
    tensors: dict[str, Tensor] = {}
    for path in decisive_files(folder):
        if path.name.endswith(WEIGHTS):
            for name, tensor in header(path).items():
                start = next((start for start in family.prefixes if name.startswith(start)), "")
                tensors[name.removeprefix(start)] = tensor
    return tensors


def _floats(tensor: Tensor) -> Vector:
    data = b"".join(chunks(tensor))
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, FLOATS[tensor.dtype][1]).astype("<f4")
