"""Components of architectures that a package brings (node/architectures.py), as model files declare them."""

from collections.abc import Sequence

from ...crypto.errors import UsageError
from ...protocol.components import TensorSpec
from ..architectures import Architecture, Reference, Sizes, installed, load
from ..pretrained.tensors import TENSORS
from ..toml import Table
from .parts import Part

MAX_NUMBER = 2**24
SETTINGS = ("learning_rate", "rule")  # that every component may have of its own


def own_part(options: Table, architecture: str, component: str, kind: str, sizes: Sizes) -> Part | None:
    """Return a component of an installed architecture of this name; None if no package has one.

    Takes the table's whole numbers. Raises UsageError: of another kind, numbers or a module that do not fit.
    """
    own = installed(architecture)
    if own is None:
        return None
    loaded = load(own)
    if loaded.kind != kind:
        raise options.fail(f"{own.words} is for a {loaded.kind}", f"Name one for a {kind}.")
    keys = [key for key in options.raw if key not in SETTINGS]
    numbers = {key: options.whole(key, None, 0, MAX_NUMBER) for key in keys}
    try:
        tensors = tuple(loaded.tensors(sizes, numbers))
    except ValueError as error:
        raise options.fail(f"{own.words}: {error}") from error
    _check(own, loaded, tensors)
    return Part(component, str(own), tensors)


def _check(own: Reference, architecture: Architecture, tensors: Sequence[TensorSpec]) -> None:
    """Raise UsageError if the module's parameters are not the tensors."""
    if not 1 <= len(tensors) <= TENSORS or not all(isinstance(tensor, TensorSpec) for tensor in tensors):
        raise UsageError(f"{own.words} gives {len(tensors)} tensors", f"A component has 1 to {TENSORS} TensorSpecs.")
    declared = {tensor.name: tensor.shape for tensor in tensors}
    held = {name: tuple(p.shape) for name, p in architecture.module(tensors).named_parameters()}
    if held != declared:
        wrong = sorted(name for name in held.keys() | declared.keys() if held.get(name) != declared.get(name))
        raise UsageError(
            f"{own.words}: the module's parameters are not its tensors ({', '.join(wrong)})",
            "Every parameter has to be a tensor of the same name and shape: ask who wrote the package.",
        )
