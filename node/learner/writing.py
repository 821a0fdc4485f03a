"""Texts to write, of a session: their tokens, the model's hidden states by record, and the writer itself."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...crypto.errors import UsageError
from ...crypto.hashing import digest
from ...protocol.component_names import ComponentKind
from ...protocol.components import ComponentSpec
from ..data.arrays import Dataset, ModalityArray
from ..pretrained.find import find
from ..pretrained.folder import check
from ..pretrained.script import Script, script_of
from .cache import EmbeddingCache
from .writer import AT_ONCE, Writer, key_of

if TYPE_CHECKING:
    from .session import Session

READ_AT_ONCE = 64  # records whose states are looked up together


def script(session: "Session", name: str) -> Script:
    """Return how a modality becomes tokens. Raises UsageError, also for another model than the charter's."""
    modality = next(one for one in session.learning.modalities if one.name == name)
    (wanted,) = modality.pretrained
    folder = find(wanted.model, session.texts.folders)
    check(folder, wanted.digest)
    return script_of(folder, modality, session.learning.writers[name])


def writer(session: "Session", name: str) -> Writer:
    """Return the model that writes from a modality, without its adapter, with the states that the session has."""
    modality = next(one for one in session.learning.modalities if one.name == name)
    (wanted,) = modality.pretrained
    folder = find(wanted.model, session.texts.folders)
    check(folder, wanted.digest)
    return Writer(folder, first_layer(session.specs[ComponentKind.ADAPTER.named(name)]), session.hidden.get(name))


def first_layer(spec: ComponentSpec) -> int:
    """Return the number of the first layer that an adapter changes. Raises UsageError for tensors of none."""
    try:
        return min(int(tensor.name.split(".")[2]) for tensor in spec.tensors)
    except (IndexError, ValueError) as error:
        raise UsageError(f"component {spec.name!r}: its tensors name no layers of a model that writes") from error


def to_write(
    session: "Session", array: ModalityArray, data: Dataset, progress: Callable[[int, int], None] | None
) -> tuple[Tensor, Tensor]:
    """Return the ids of prompts and answers [S, K, 2, L] int64, -1 beyond them, and which there are [S, K, 2].

    Their hidden states go into the session, and to the disk as embeddings do. Records read in part are counted.
    """
    assert array.texts is not None
    how, task = script(session, array.name), session.learning.writers[array.name]
    answers = data.tasks[task.name].texts if task.name in data.tasks else None
    found: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    cut = 0
    for place in zip(*np.nonzero(array.steps.any(2)), strict=True):
        prompt, prompt_cut = how.prompt([str(text) for text in array.texts[place]])
        text = "" if answers is None else str(answers[place])
        answer, answer_cut = how.answer(text) if text else ([], False)
        found[int(place[0]), int(place[1])] = (prompt, answer)
        cut += prompt_cut or answer_cut
    session.cut[array.name] = session.cut.get(array.name, 0) + cut
    longest = max((len(ids) for pair in found.values() for ids in pair), default=1)
    values = torch.full((*array.steps.shape[:2], 2, max(1, longest)), -1, dtype=torch.int64)
    for (student, record), pair in found.items():
        for part, ids in enumerate(pair):
            values[student, record, part, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    taught = {at: [*prompt, *answer] for at, (prompt, answer) in found.items() if answer}
    _fill(session, array.name, [(data.subjects[at[0]], ids) for at, ids in taught.items()], progress)
    return values, values[:, :, :, 0] >= 0


def nothing_to_write(students: int, records: int) -> tuple[Tensor, Tensor]:
    """Return the same for records without the texts."""
    values = torch.full((students, records, 2, 1), -1, dtype=torch.int64)
    return values, values[:, :, :, 0] >= 0


def answer_lengths(values: Tensor, steps: Tensor) -> Tensor:
    """Return the labels of a task that writes, [S, K, 1]: the tokens of the answer, NaN without one or its prompt."""
    lengths = (values[:, :, 1] >= 0).sum(2, keepdim=True).float()
    return torch.where(steps.all(2, keepdim=True), lengths, torch.full_like(lengths, torch.nan))


def _fill(
    session: "Session",
    name: str,
    records: Sequence[tuple[str, list[int]]],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Put the states of records, each with its student, into the session: from the cache, or computed and stored."""
    states = session.hidden.setdefault(name, {})
    model = writer(session, name)
    (wanted,) = next(one for one in session.learning.modalities if one.name == name).pretrained
    kind = digest("hidden", wanted.digest, model.first.to_bytes(4, "big"))
    names = [digest("hidden", who.encode("utf-8", "surrogatepass"), key_of(ids)) for who, ids in records]
    path = session.texts.cache
    cache = None if path is None else EmbeddingCache(path, read_only=session.texts.read_only)
    try:
        lacking = []
        for begin in range(0, len(records), READ_AT_ONCE):
            rows = range(begin, min(begin + READ_AT_ONCE, len(records)))
            held = [None] * len(rows) if cache is None else cache.get_many(kind, [names[row] for row in rows])
            for row, value in zip(rows, held, strict=True):
                ids = records[row][1]
                if value is None or 2 * value.size != (len(ids) - 1) * model.width:
                    lacking.append(row)
                else:
                    states[key_of(ids)] = torch.from_numpy(value).view(torch.float16).reshape(-1, model.width)
        lacking.sort(key=lambda row: len(records[row][1]))
        for begin in range(0, len(lacking), AT_ONCE):
            rows_now = lacking[begin : begin + AT_ONCE]
            made = model.states([records[row][1] for row in rows_now])
            for row, state in zip(rows_now, made, strict=True):
                states[key_of(records[row][1])] = state
            if cache is not None:
                # Two numbers of half precision in the place of one: the cache keeps bits.
                packed = [state.contiguous().view(torch.float32).numpy().reshape(-1) for state in made]
                cache.put_many(
                    kind,
                    [(names[row], records[row][0], value) for row, value in zip(rows_now, packed, strict=True)],
                )
            if progress is not None:
                progress(begin + len(rows_now), len(lacking))
    finally:
        if cache is not None:
            cache.close()
