"""Why a text was written: what each sentence of what was read does to the loss a token of what was written.

The text is written once. Then each sentence is left out of what is read, and the same text is judged again: where it
becomes less likely, the sentence moved it (leave-one-out; Li et al. 2016, "Understanding neural networks through
representation erasure"). The model works in single precision, so another kind of machine may find other last digits, or
another text.
"""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...crypto.errors import UsageError
from ...protocol.learning import Task
from ..data.arrays import Dataset
from ..data.manifest import read_manifest
from ..pretrained.script import Script
from . import writing
from .answers import FeatureEffect, RecordExplained
from .drafts import write
from .messages import Explain
from .session import Session, build
from .writer import Writer

METHOD = "loss a written token, each sentence left out"
SENTENCES = 64  # of one record
END = re.compile(r"(?<=[.!?…。！？])\s+")


def explain_texts(
    session: Session,
    request: Explain,
    task: Task,
    data: Dataset,
    places: Sequence[tuple[int, int, str]],
    progress: Callable[[int, int], None],
) -> list[RecordExplained]:
    """Return for each place (student, record, name) the text that is written, and what moved it. Raises UsageError."""
    name = task.modalities[0]
    array = data.modalities.get(name)
    if array is None or array.texts is None:
        raise UsageError(f"{request.file}: it has no {name} to write from", "Add the columns of that modality.")
    how, names = script_and_names(session, name)
    models = [build(session, {**request.states, **states}) for states in ({}, *request.variants)]
    authors: list[Writer] = [model.texts[name] for model in models]  # type: ignore[misc]  # a Writer
    found = []
    for done, (student, record, called) in enumerate(places, start=1):
        passages = [str(text) for text in array.texts[student, record]]
        found.append(_record(how, authors, names, passages, called, data.subjects[student], name))
        progress(done, len(places))
    return found


def script_and_names(session: Session, name: str) -> tuple[Script, tuple[str, ...]]:
    """Return how passages become tokens, and the names of their columns."""
    entry = next(entry for entry in read_manifest(session.folder).modalities if entry.name == name)
    return writing.script(session, name), entry.segments


def _record(
    how: Script,
    authors: Sequence[Writer],
    names: Sequence[str],
    passages: Sequence[str],
    called: str,
    student: str,
    modality: str,
) -> RecordExplained:
    prompt = how.prompt(passages)[0] if any(passages) else []
    written = write(authors[0], [prompt], how.most, how.end)[0]
    parts: list[tuple[str, str, list[str]]] = []  # what it is, its words, the passages without it
    for number, passage in enumerate(passages):
        sentences = [sentence for sentence in END.split(passage) if sentence.strip()]
        for place, sentence in enumerate(sentences):
            left = list(passages)
            left[number] = " ".join(sentences[:place] + sentences[place + 1 :])
            title = names[number % len(names)] + (f", sentence {place + 1}" if len(sentences) > 1 else "")
            parts.append((title, sentence, left))
    parts = parts[:SENTENCES] if written else []
    tried = [prompt, *(how.prompt(left)[0] for _, _, left in parts)]
    losses = _losses(authors[0], tried, written)
    effects = tuple(
        FeatureEffect(modality, title, sentence, False, float(loss - losses[0]))
        for (title, sentence, _), loss in zip(parts, losses[1:], strict=True)
    )
    variants = tuple(-_losses(author, [prompt], written)[0] for author in authors[1:])
    nothing: dict[str, float] = {}
    return RecordExplained(
        called, student, how.text(written), (), -losses[0], 0.0, 0.0, 0.0, 0.0, effects, nothing, nothing, variants, ()
    )


def _losses(author: Writer, prompts: Sequence[Sequence[int]], written: Sequence[int]) -> list[float]:
    """Return the loss a token of a text after each prompt."""
    if not written:
        return [0.0] * len(prompts)
    longest = max(len(written), *map(len, prompts))
    values: Tensor = torch.full((len(prompts), 1, 2, longest), -1, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        values[row, 0, 0, : len(prompt)] = torch.tensor(list(prompt), dtype=torch.int64)
        values[row, 0, 1, : len(written)] = torch.tensor(list(written), dtype=torch.int64)
    with torch.no_grad():
        return [float(loss) for loss in author.losses(values).reshape(-1)]
