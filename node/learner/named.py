"""The names of classes as a frozen text model reads them: what a head of similarities compares with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...crypto.errors import UsageError
from ...protocol.component_names import ComponentKind, of_kind
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from ..pretrained.tensors import SIMILARITY


def embedded_names(
    specs: Mapping[str, ComponentSpec],
    learning: Learning,
    class_names: Mapping[str, Sequence[str]],
    encoder: Callable[[str], Any],
) -> dict[str, Tensor]:
    """Return the embeddings [classes, width] of class names, by task whose hosted head compares with them.

    `encoder` gives the frozen encoder of a text modality. Raises UsageError if the charter has none to read names.
    """
    heads = [name for name, spec in specs.items() if spec.architecture == SIMILARITY]
    if not heads:
        return {}
    reader = learning.names_reader
    if reader is None:
        raise UsageError(f"{heads[0]} compares with names, and the charter has no text with a pretrained model")
    model = encoder(reader)
    return {task: torch.from_numpy(model.embed(class_names[task])) for task in of_kind(ComponentKind.HEAD, heads)}
