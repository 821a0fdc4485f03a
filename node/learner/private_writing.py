"""A private adapter of a model that writes: one institution's own way of writing, beside the shared one, never sent.

It is on the layers that the shared adapter changes, so the hidden states below them are at hand. It trains as the
other private adapters do (private.py): afterwards, with Adam, without clipping and noise, on four fifths of the
students; the epoch with the least loss on the other fifth is kept. It needs `private_adapter` in [learning].
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from .adapters import install_private, load_private, private_parameters, save_private
from .dpsgd import Batch, kinds_of, student_losses, students_at_once
from .evaluate import Floats
from .model import M3TModel
from .session import Session, SplitData
from .writer import Writer

EPOCHS = 10  # at most; after PATIENCE epochs without a better one no more
PATIENCE = 3
RATE = 0.003
DECAY = 0.01
FILES = "writer-*.safetensors"


def train_writers(
    session: Session, model: M3TModel, aside: Tensor, progress: Callable[[int, int], None]
) -> tuple[float, int]:
    """Train and store an adapter for each model that writes; return their loss together, and number of parameters.

    `aside` [S] are the students of the fifth that decides. Without any, or without `private_adapter`, none is trained.
    """
    folder, kind = session.private, session.private_adapter
    assert folder is not None
    for path in folder.glob(FILES):  # of other tasks, or of an older configuration
        path.unlink()
    if kind is None or not bool(aside.any()):
        return 0.0, 0
    total, numbers = 0.0, 0
    for task, name in sorted(model.writes.items()):
        writer = _with_adapter(session, model, name)
        lot = students_at_once(model, session.parts["train"].batch)
        total += _train(writer, {task: kinds_of(model)[task]}, name, session.parts["train"].batch, aside, lot, progress)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        save_private(writer, folder / _file(name))
        numbers += sum(parameter.numel() for parameter in private_parameters(writer).values())
    return total, numbers


def written_losses(session: Session, model: M3TModel, part: SplitData) -> dict[str, Floats]:
    """Return the loss a token with the private adapter, [S, K, 1], of each task that has one stored here."""
    found = {}
    for task, name in model.writes.items():
        writer = private_writer(session, model, name)
        if writer is not None and part.batch.size:
            values, _ = part.batch.inputs[name]
            with torch.no_grad():
                found[task] = writer.losses(values.to(session.device)).double().cpu().numpy().astype(np.float64)
    return found


def private_writer(session: Session, model: M3TModel, name: str) -> Writer | None:
    """Return the model that writes from a modality with its stored private adapter; None without one.

    Raises CorruptError for a damaged file, UsageError for an adapter of another kind or rank.
    """
    if session.private is None or session.private_adapter is None:
        return None
    path = session.private / _file(name)
    if not path.exists():
        return None
    writer = _with_adapter(session, model, name)
    load_private(writer, path)
    return writer


def _train(
    writer: Writer,
    kind: Mapping[str, str],
    name: str,
    data: Batch,
    aside: Tensor,
    at_once: int,
    progress: Callable[[int, int], None],
) -> float:
    """Train the private parameters in place, keep the best, and return its loss on the students `aside`.

    `kind` is the task's, by its name; `at_once` students are in a step.
    """
    parameters: list[nn.Parameter] = list(private_parameters(writer).values())
    device = next(writer.parameters()).device
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    own, judges = torch.nonzero(~aside)[:, 0], torch.nonzero(aside)[:, 0]
    order, done, since = torch.Generator().manual_seed(0), 0, 0
    total = EPOCHS * -(-len(own) // at_once)

    def losses(students: Tensor) -> Tensor:
        batch = data.take(students).to(device)
        return student_losses(kind, dict.fromkeys(kind, writer.losses(batch.inputs[name][0])), batch)

    def judged() -> float:
        with torch.no_grad():
            return float(torch.cat([losses(students) for students in torch.split(judges, at_once)]).mean())

    best, kept = judged(), [parameter.detach().clone() for parameter in parameters]
    for _ in range(EPOCHS):
        for students in torch.split(own[torch.randperm(len(own), generator=order)], at_once):
            optimiser.zero_grad(set_to_none=True)
            losses(students).mean().backward()  # type: ignore[no-untyped-call]  # torch
            optimiser.step()
            done += 1
            progress(done, total)
        now, since = judged(), since + 1
        if now < best:
            best, kept, since = now, [parameter.detach().clone() for parameter in parameters], 0
        if since == PATIENCE:
            break
    progress(total, total)
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return best


def _with_adapter(session: Session, model: M3TModel, name: str) -> Writer:
    """Return a copy of the model that writes, with a new private adapter; that of `model` is not touched."""
    shared, kind = dict(model.texts.items())[name], session.private_adapter
    assert isinstance(shared, Writer)
    assert kind is not None
    writer = shared.copied()
    writer.requires_grad_(False)
    install_private(writer, kind.kind, kind.rank)
    return writer.to(session.device)


def _file(modality: str) -> Path:
    return Path(FILES.replace("*", quote(modality, safe="")))
