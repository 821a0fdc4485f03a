"""Private components: trained for one institution, beside the shared model, and never sent.

Each task has a linear map of the shared representation and of the modalities' features, with the withheld ones, which
is added to the shared logits. It trains afterwards, with Adam, on detached outputs of the shared model, so that no
shared update depends on it (design.md section 6). It is stored in a safetensors file in the node's home only.

A private adapter (adapters.py) is installed on each pretrained text model, beside the shared one if there is one. It
trains together with the maps, after these were trained alone, and its embeddings go through the frozen shared model
too. Every epoch runs the text model forwards and backwards: minutes, not seconds.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...crypto.errors import CorruptError
from .answers import BadRequestError
from .dpsgd import Batch, kinds_of, student_losses
from .evaluate import Floats
from .layers import ByName, mean_of_steps
from .model import M3TModel, embed_tokens
from .pairs import pair_features
from .session import Session, SplitData
from .text import TextEncoder

EPOCHS = 60  # at most: the best of them on a fifth of the students is kept
LEARNING_RATE = 0.01
DECAY = 0.01
FILE = "private.safetensors"
ADAPTER_EPOCHS = 10  # at most, with an adapter; after PATIENCE epochs without a better one no more
PATIENCE = 3
ADAPTER_RATE = 0.003
RECORDS = 64  # in one step with an adapter, and in memory at once; a student is not cut
ADAPTERS = "adapter-*.safetensors"


class PrivateHeads(nn.Module):
    """One linear map for each task; zero at the start, which equals the shared model."""

    def __init__(self, widths: dict[str, tuple[int, int]]) -> None:
        """Build from task → (features, outputs)."""
        super().__init__()
        self.maps = ByName({name: nn.Linear(*shape) for name, shape in widths.items()})
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features [S, K, width] of each task → the addition to its logits."""
        return {name: linear(features[name]) for name, linear in self.maps.items()}


def train_private(session: Session, model: M3TModel, progress: Callable[[int, int], None]) -> tuple[float, int]:
    """Train the private components beside `model` and write them; return their loss and number of parameters.

    Raises BadRequestError without a place for them.
    """
    if session.private is None:
        raise BadRequestError("this node keeps no private components", "Set private = true under [learning].")
    part = session.parts["train"]
    model.requires_grad_(False)
    aside = torch.tensor([_is_validation(name) for name in part.subjects])
    loss, numbers = 0.0, 0
    if model.writes:
        from .private_writing import train_writers  # noqa: PLC0415  # only who writes needs it

        loss, numbers = train_writers(session, model, aside, progress)
    if not model.heads:  # all tasks write: there is nothing that a map could be added to
        return loss, numbers
    texts = _private_encoders(session, model)
    lots = _lots(part.batch, ~aside) if bool(aside.any()) else 0
    total = EPOCHS + (ADAPTER_EPOCHS * lots if texts else 0)
    heads, best = _train_heads(session, model, part.batch, aside, lambda done, _: progress(done, total))
    if texts:
        best = _train_adapters(session, model, heads, texts, aside, best, lambda done: progress(EPOCHS + done, total))
        progress(total, total)
    _write(session.private, heads, texts)
    trained = [*heads.parameters(), *(p for text in texts.values() for p in _parameters(text))]
    return loss + best, numbers + sum(parameter.numel() for parameter in trained)


def _train_heads(
    session: Session, model: M3TModel, data: Batch, aside: Tensor, progress: Callable[[int, int], None]
) -> tuple[PrivateHeads, float]:
    """Train the heads on the outputs of the shared model alone; return the best heads and their loss."""
    with torch.no_grad():
        features, logits = _features(session, model, data)
    heads = _heads(session, features).to(session.device)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    kinds, whole, aside = kinds_of(model), data.to(session.device), aside.to(session.device)
    best, kept = float("inf"), heads.state_dict()
    for epoch in range(EPOCHS + 1):
        optimiser.zero_grad(set_to_none=True)
        added = heads(features)
        losses = student_losses(kinds, {name: logits[name] + added[name] for name in logits}, whole)
        # Stopping by private data is allowed here: nothing of it leaves the node. Epoch 0 is the shared model.
        judged = float(losses[aside].mean().detach()) if bool(aside.any()) else 0.0
        if judged < best:
            best, kept = judged, {name: value.detach().clone() for name, value in heads.state_dict().items()}
        losses[~aside].sum().div((~aside).sum().clamp(min=1)).backward()  # type: ignore[no-untyped-call]  # torch
        optimiser.step()
        progress(epoch, EPOCHS)
    heads.load_state_dict(kept)
    return heads, best


def _train_adapters(
    session: Session,
    model: M3TModel,
    heads: PrivateHeads,
    texts: Mapping[str, TextEncoder],
    aside: Tensor,
    best: float,
    progress: Callable[[int], None],
) -> float:
    """Train the adapters of `texts` and the heads further, in place, and keep the best; return its loss on the fifth.

    Without any student in the fifth there is no stopping rule, and nothing is trained.
    """
    data, kinds = _with_tokens(session.parts["train"]), kinds_of(model)
    own, judges = torch.nonzero(~aside)[:, 0], torch.nonzero(aside)[:, 0]
    adapters = [parameter for text in texts.values() for parameter in _parameters(text)]
    groups = [{"params": list(heads.parameters()), "lr": LEARNING_RATE}, {"params": adapters, "lr": ADAPTER_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=DECAY)
    trained = [*heads.parameters(), *adapters]
    kept = [parameter.detach().clone() for parameter in trained]
    # An order of its own: the session's randomness is for shared components, and must not depend on this.
    order, at_once, done, since = torch.Generator().manual_seed(0), _at_once(data), 0, 0

    def losses(students: Tensor) -> Tensor:
        batch = data.take(students).to(session.device)
        features, logits = _features(session, model, batch, texts)
        added = heads(features)
        return student_losses(kinds, {name: logits[name] + added[name] for name in logits}, batch)

    for _ in range(ADAPTER_EPOCHS if len(judges) else 0):
        for students in torch.split(own[torch.randperm(len(own), generator=order)], at_once):
            optimiser.zero_grad(set_to_none=True)
            losses(students).mean().backward()  # type: ignore[no-untyped-call]  # torch
            optimiser.step()
            done += 1
            progress(done)
        with torch.no_grad():
            judged = float(torch.cat([losses(students) for students in torch.split(judges, at_once)]).mean())
        since += 1
        if judged < best:
            best, kept, since = judged, [parameter.detach().clone() for parameter in trained], 0
        if since == PATIENCE:
            break
    with torch.no_grad():
        for parameter, value in zip(trained, kept, strict=True):
            parameter.copy_(value)
    return best


def _is_validation(subject: str) -> bool:
    """Whether a training student is in the validation fifth, which decides when training stops."""
    return sha256(b"private" + subject.encode()).digest()[0] < 256 // 5


def apply_private(
    session: Session, model: M3TModel, part: SplitData, logits: dict[str, Floats]
) -> dict[str, Floats] | None:
    """Return the logits with the private components' part; None if there are none, or none for these modalities.

    Of a task that writes: the loss a token. Raises CorruptError for damaged files, UsageError for an adapter of another
    kind or rank.
    """
    heads = _apply_heads(session, model, part, logits) if model.heads else {}
    if heads is None or not model.writes:
        return heads or None
    from .private_writing import written_losses  # noqa: PLC0415  # only who writes needs it

    written = written_losses(session, model, part)
    return {**logits, **heads, **written} if heads or written else None


def _apply_heads(
    session: Session, model: M3TModel, part: SplitData, logits: dict[str, Floats]
) -> dict[str, Floats] | None:
    path, data = session.private / FILE if session.private is not None else None, part.batch
    if path is None or not path.exists() or data.size == 0:
        return None
    # The heads were trained with these adapters, and are useless without them or with others.
    if {stored.name for stored in path.parent.glob(ADAPTERS)} != {_file(name) for name in session.adapted}:
        return None
    with torch.no_grad():
        if session.adapted:
            return _apply_adapted(session, model, part, path)
        features, _ = _features(session, model, data)
        heads = _heads(session, features)
        _read(heads, path)
        added = heads.to(session.device)(features)
    return {
        name: shared + added[name].double().cpu().numpy() if name in added else shared
        for name, shared in logits.items()
    }


def _apply_adapted(session: Session, model: M3TModel, part: SplitData, path: Path) -> dict[str, Floats]:
    from .adapters import load_private  # noqa: PLC0415  # only who has text needs it

    texts, data = _private_encoders(session, model), _with_tokens(part)
    for name, text in texts.items():
        load_private(text, path.parent / _file(name))
    outputs = {task.name: task.outputs for task in session.learning.tasks}
    corrections = {name: np.zeros((*data.weights.shape, outputs[name])) for name in model.heads}
    heads = None
    for students in torch.split(torch.arange(data.size), _at_once(data)):
        features, logits = _features(session, model, data.take(students), texts)
        if heads is None:
            heads = _heads(session, features)
            _read(heads, path)
            heads.to(session.device)
        added = heads(features)
        for name, values in logits.items():
            rows = (values + added[name]).double().cpu().numpy()
            corrections[name][students.numpy(), : rows.shape[1]] = rows
    return corrections


def _private_encoders(session: Session, model: M3TModel) -> dict[str, TextEncoder]:
    """Return the text models with a new private adapter each; those of `model` are copied, not touched."""
    if session.private_adapter is None or not session.adapted:
        return {}
    from .adapters import install_private  # noqa: PLC0415  # as above

    shared: dict[str, Any] = dict(model.texts.items())
    embedder, texts = session.embedder(), {}
    for name in sorted(session.adapted):
        text: TextEncoder = deepcopy(shared[name]) if name in shared else embedder.encoder(name, fresh=True)
        install_private(text, session.private_adapter.kind, session.private_adapter.rank)
        texts[name] = text.to(session.device)
    return texts


def _parameters(text: TextEncoder) -> list[nn.Parameter]:
    from .adapters import private_parameters  # noqa: PLC0415  # as above

    return list(private_parameters(text).values())


def _with_tokens(part: SplitData) -> Batch:
    """Return the part's batch with token ids where a private adapter reads them."""
    inputs = {name: (part.tokens.get(name, values), steps) for name, (values, steps) in part.batch.inputs.items()}
    return Batch(part.batch.weights, inputs, part.batch.labels)


def _at_once(data: Batch) -> int:
    """Return the number of students that have RECORDS records together."""
    return max(1, RECORDS // max(1, int(data.weights.shape[1])))


def _lots(data: Batch, chosen: Tensor) -> int:
    return -(-int(chosen.sum()) // _at_once(data))


def _file(modality: str) -> str:
    return ADAPTERS.replace("*", quote(modality, safe=""))


def _write(folder: Path, heads: PrivateHeads, texts: Mapping[str, TextEncoder]) -> None:
    """Write the heads, mode 0600, and last: without them the other files, complete or not, are not used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if texts or any(folder.glob(ADAPTERS)):
        (folder / FILE).unlink(missing_ok=True)
        for path in folder.glob(ADAPTERS):
            path.unlink()
    for name, text in texts.items():
        from .adapters import save_private  # noqa: PLC0415  # as above

        save_private(text, folder / _file(name))
    temporary = folder / f"{FILE}.new"
    save_file({name: value.detach().cpu() for name, value in heads.state_dict().items()}, temporary)
    temporary.chmod(0o600)
    temporary.replace(folder / FILE)


def _read(heads: PrivateHeads, path: Path) -> None:
    advice = "Remove it: it is trained again after the next round."
    try:
        heads.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptError(f"{path} cannot be read or is of another model: {error}", advice) from error


def _features(
    session: Session, model: M3TModel, data: Batch, texts: Mapping[str, TextEncoder] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the input of the private heads, and the logits without them, by the private adapters of `texts`."""
    data, texts = data.to(session.device), texts or {}
    own = {
        name: (_embedded(texts[name], values), steps)
        for name, (values, steps) in data.inputs.items()
        if name in texts and not values.is_floating_point()
    }
    rest = {name: pair for name, pair in data.inputs.items() if name not in own}
    own |= model.embed({name: pair for name, pair in rest.items() if name not in session.withheld})
    shared = {name: own[name] for name in data.inputs if name in own and name not in session.withheld}
    hidden, logits = model.represent(shared), model.decide(shared)
    own |= {name: pair for name, pair in rest.items() if name in session.withheld}
    rows = []
    for name in sorted(own):
        values, steps = own[name]
        if not values.is_floating_point():
            continue  # token ids: this text is not embedded here
        text = any(m.name == name and m.kind == "text" for m in session.learning.modalities)
        rows.append(pair_features(values, steps) if text else mean_of_steps(values, steps))
        rows.append(steps.any(2, keepdim=True).to(values.dtype))
    return {name: torch.cat([z, *rows], dim=2) for name, z in hidden.items()}, logits


def _embedded(text: TextEncoder, ids: Tensor) -> Tensor:
    """Token ids [S, K, T, L] → embeddings [S, K, T, width]; equal texts are read once."""
    rows, back = torch.unique(ids.reshape(-1, ids.shape[3]), dim=0, return_inverse=True)
    return embed_tokens(text, rows[:, None, None])[:, 0, 0][back].reshape(*ids.shape[:3], -1)


def _heads(session: Session, features: dict[str, Tensor]) -> PrivateHeads:
    outputs = {task.name: task.outputs for task in session.learning.tasks}
    return PrivateHeads({name: (int(rows.shape[2]), outputs[name]) for name, rows in features.items()})
