"""How much memory the learner of a home needs: an estimate from the charter, the models' sizes and the data. No torch.

It is stated within a factor of two (tests/node/learner/test_memory.py has a real worker's peak): sizes are counted, and
what libraries take is a constant, measured with the torch that this release asks for, on processors.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ...protocol.component_names import ComponentKind, of_kind
from ...protocol.components import ComponentSpec
from ...protocol.learning import Learning
from ..data.arrays import Dataset
from ..pretrained.folder import WEIGHTS, configuration, decisive_files
from ..pretrained.weights import header

PHYSICAL_RECORDS = 4096  # records in memory at once; the clipped sums of their students add up
READ_RECORDS = 32  # texts, where each passes through a pretrained model in every step
WRITTEN_RECORDS = 8  # texts, where they are written
POSITIONS = 50  # that an encoder of sound has a second
EMBEDDED = 32  # records that a pretrained model embeds at once
MIB = 1 << 20
PROGRAM, LIBRARIES = 300 * MIB, 150 * MIB  # Python with torch; with what loads pretrained models
FACTOR = 2  # the estimate is right within it
FLOAT, STATE = 4, 2  # bytes of a number in training; of a hidden state that is kept
OPTIMISED = 40  # bytes of a trained number: itself, its gradient, sums and noise in double precision
UNCACHED = 100  # numbers kept of a record and feature, where nothing pretrained is read


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a pretrained model takes: its numbers, and what decides the size of a pass through it."""

    numbers: int
    layers: int
    hidden: int
    wide: int
    heads: int
    words: int
    positions: int  # that an image or a window of sound has; 0: as many as a text has tokens

    def layer(self, tokens: int) -> int:
        """Return the bytes of what one layer makes of a record of `tokens`, kept for its gradient."""
        return FLOAT * (tokens * (3 * self.wide + 10 * self.hidden) + 3 * self.heads * tokens**2)


def model_size(folder: Path, seconds: float = 30.0) -> ModelSize:
    """Return the size of the model in a folder, from its configuration and headers.

    `seconds` is the longest sound that it reads. Raises UsageError, CorruptError.
    """
    raw, family, _ = configuration(folder)

    def whole(*keys: str, default: int) -> int:
        return next((value for key in keys if type(value := raw.get(key)) is int and value > 0), default)

    hidden = whole(family.hidden, default=1)
    files = [path for path in decisive_files(folder) if path.name.endswith(WEIGHTS)]
    numbers = sum(prod(tensor.shape) for path in files for tensor in header(path).values())
    positions = 0
    if family.kind == "image":
        positions = (whole("image_size", default=224) // whole("patch_size", default=16)) ** 2 + 1
    elif family.kind == "audio":
        positions = min(whole(family.positions, default=1500), max(POSITIONS, round(POSITIONS * seconds)))
    return ModelSize(
        numbers,
        whole(family.layers, default=1),
        hidden,
        whole("intermediate_size", "hidden_dim", "encoder_ffn_dim", "n_inner", default=4 * hidden),
        whole("num_attention_heads", "n_heads", "n_head", "encoder_attention_heads", default=max(1, hidden // 64)),
        whole("vocab_size", default=0),
        positions,
    )


def needed(
    learning: Learning,
    specs: Collection[ComponentSpec],
    models: Mapping[str, ModelSize],
    data: Dataset | None,
    lot: float,
    processes: int = 1,
) -> dict[str, int]:
    """Return the bytes that a learner needs at most, by what for; together they are its peak.

    `specs` are the hosted components, `models` the pretrained models of modalities here, `lot` the declared L. Without
    `data` nothing is counted for them. Each of several `processes` holds all but its share of the gradients.
    """
    names = [spec.name for spec in specs]
    live = {*of_kind(ComponentKind.ADAPTER, names), *of_kind(ComponentKind.PROMPT, names)}
    libraries = LIBRARIES if models or any(spec.architecture == "bert" for spec in specs) else 0
    trained = sum(spec.dimension for spec in specs if not spec.is_statistic)
    frozen, kept, passes = 0, 0, [FLOAT * UNCACHED * learning_width(learning) * max(1, round(lot))]
    for modality in learning.modalities:
        array = None if data is None else data.modalities.get(modality.name)
        size, steps = models.get(modality.name), 0 if array is None else int(array.steps.size)
        if size is not None and size.positions:  # one vector for each picture or sound
            steps = 0 if array is None else int(array.steps.any(2).size)
        tokens = modality.pretrained[0].max_tokens if modality.pretrained else 0
        if size is None:
            kept += 2 * steps * FLOAT * modality.width
            continue
        task = learning.writers.get(modality.name)
        frozen += FLOAT * size.numbers
        if task is not None:
            layers = adapted_layers(specs, modality.name, size)
            tokens += task.classes
            frozen += FLOAT * size.numbers * layers // (size.layers + 2)  # the layers that are adapted are copied
            records = 0 if array is None else int(array.steps.any(2).sum())
            kept += records * tokens * size.hidden * STATE
            words = 3 * FLOAT * size.words * task.classes  # the scores of every word, at each token that is written
            passes.append(WRITTEN_RECORDS * (layers * size.layer(tokens) + words))
        elif modality.name in live:
            kept += 2 * steps * 8 * tokens
            passes.append(min(READ_RECORDS, max(1, round(lot) * modality.length)) * size.layers * size.layer(tokens))
        else:
            kept += 2 * steps * FLOAT * modality.width
            passes.append(min(EMBEDDED, steps) * size.layer(size.positions or tokens))
    return {
        "program": processes * (PROGRAM + libraries),
        "frozen models": processes * frozen,
        "trained parts": processes * OPTIMISED * trained,
        "features and states": processes * kept,
        "gradients of a step": processes * max(passes),
    }


def adapted_layers(specs: Collection[ComponentSpec], modality: str, size: ModelSize) -> int:
    """Return how many layers of a model that writes are adapted."""
    name = ComponentKind.ADAPTER.named(modality)
    tensors = [tensor.name.split(".") for spec in specs if spec.name == name for tensor in spec.tensors]
    first = min((int(parts[2]) for parts in tensors if len(parts) > 2 and parts[2].isdecimal()), default=0)
    return max(1, size.layers - first)


def learning_width(learning: Learning) -> int:
    """Return the features of a record of whatever is read without a pretrained model."""
    return sum(modality.width * modality.length for modality in learning.modalities if not modality.pretrained) or 1


def machine() -> int:
    """Return the bytes of memory that processes here may have: the machine's, or its container's."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits)
