"""`head` and `statistic` of a task in a model file: what predicts its classes."""

from collections.abc import Collection, Sequence

from ...protocol.components import MILLION, RIDGE
from ...protocol.learning import Modality, Task
from ...protocol.statistics import MAX_FEATURES, SENSITIVITY
from ..pretrained.tensors import SIMILARITY
from ..toml import Table
from . import parts
from .parts import Part
from .settings import millionths

EVERY = "all"  # inputs, as `features` of a statistic


def head(section: Table, task: Task, hidden: int, encoded: Collection[str], embedding: Collection[str]) -> Part:
    """Return the head of a task: linear, or similarities to the names of its classes.

    `encoded` are the modalities with an encoder, `embedding` those whose model embeds texts. Raises UsageError.
    """
    architecture = section.text("head", "linear")
    if architecture == "linear":
        return parts.head(task, hidden if encoded else 1)  # 1: its bias alone
    if architecture != SIMILARITY:
        raise section.fail(f"head = {architecture!r} is unknown", f'Write "linear" or "{SIMILARITY}".')
    if task.kind != "multiclass":
        raise section.fail(f"head: a {task.kind} task has no names of classes to compare with", 'Write "linear".')
    if not set(task.modalities) & set(encoded):
        raise section.fail("head: no encoder to compare with the names of classes", "Give a modality an encoder.")
    if not embedding:
        raise section.fail(
            "head: no model to embed the names of classes", "Give a [[modality]] of text a pretrained model."
        )
    return parts.similarity_head(task, hidden)


def statistic(section: Table, task: Task, shared: Sequence[Modality]) -> list[Part]:
    """Return the statistic of a task over its `shared` modalities, if the file asks for one. Raises UsageError."""
    declared = section.raw.pop("statistic", None)
    if declared is None:
        return []
    options = section.below("statistic", {"architecture": declared} if isinstance(declared, str) else declared)
    architecture = options.text("architecture", "ridge")
    if architecture not in SENSITIVITY:
        raise options.fail(f"architecture = {architecture!r} is unknown", f"Write one of {', '.join(SENSITIVITY)}.")
    if architecture == "prototypes" and task.kind not in {"binary", "multiclass"}:
        raise options.fail(f"a {task.kind} task has no class means", 'Write "ridge".')
    features: int | None = None
    if options.raw.get("features") == EVERY:
        options.raw.pop("features")
        features = 0
    elif "features" in options.raw:
        features = options.whole("features", 0, 2, MAX_FEATURES)
    ridge = RIDGE
    if "ridge" in options.raw:
        if architecture != "ridge":
            raise options.fail(f"ridge: {architecture} are not solved with one", "Remove ridge.")
        ridge = millionths(options, "ridge", RIDGE / MILLION, MILLION)
    options.done()
    part = parts.statistic(task, shared, architecture, features, ridge)
    if part.tensors[-1].shape[1] > MAX_FEATURES:
        raise options.fail(
            f'features = "{EVERY}" are {part.tensors[-1].shape[1]:,}; at most {MAX_FEATURES:,} are allowed',
            "Give a number: so many random features are made of all.",
        )
    return [part]
