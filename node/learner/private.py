"""Private components: what an institution learns for itself, beside the shared model, and never sends.

For each task a linear map of the shared representation and of the modalities' features, the withheld ones included,
added to the shared logits. It trains afterwards, with Adam, on detached outputs of the shared model, so that no shared
update depends on it (DESIGN.md section 6). It lies in a safetensors file under the node's home and nowhere else.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...crypto.errors import CorruptError, UsageError
from .dpsgd import Batch, kinds_of, student_losses
from .evaluate import Floats
from .model import M3TModel, mean_of_steps, pair_features
from .protocol import Message
from .session import Session

EPOCHS = 60  # at most: the best of them on a fifth of the students is kept
LEARNING_RATE = 0.01
DECAY = 0.01
FILE = "private.safetensors"


class PrivateHeads(nn.Module):
    """One linear map for each task; zero at the start, so that it begins as the shared model."""

    def __init__(self, widths: dict[str, tuple[int, int]]) -> None:
        """Build from task → (features, outputs)."""
        super().__init__()
        self.maps = nn.ModuleDict({name: nn.Linear(*shape) for name, shape in widths.items()})
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features [S, K, width] of each task → what is added to its logits."""
        return {name: linear(features[name]) for name, linear in self.maps.items()}


def train_private(session: Session, model: M3TModel, progress: Callable[[int, int], None]) -> Message:
    """Train the private heads beside `model` and write them. Raises UsageError without a place for them."""
    if session.private is None:
        raise UsageError("this node keeps no private components", "Set private = true under [learning].")
    data = session.parts["train"].batch
    model.requires_grad_(False)
    features, logits = _features(session, model, data)
    heads = _heads(session, features).to(session.device)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    kinds, whole = kinds_of(model), data.to(session.device)
    aside = torch.tensor([_aside(name) for name in session.parts["train"].subjects], device=session.device)
    best, kept = float("inf"), heads.state_dict()
    for epoch in range(EPOCHS + 1):
        optimiser.zero_grad(set_to_none=True)
        added = heads(features)
        losses = student_losses(kinds, {name: logits[name] + added[name] for name in logits}, whole)
        # Stopping by private data is allowed here: nothing of it leaves. At epoch 0 it is the shared model.
        judged = float(losses[aside].mean().detach()) if bool(aside.any()) else 0.0
        if judged < best:
            best, kept = judged, {name: value.detach().clone() for name, value in heads.state_dict().items()}
        losses[~aside].sum().div((~aside).sum().clamp(min=1)).backward()  # type: ignore[no-untyped-call]  # torch
        optimiser.step()
        progress(epoch, EPOCHS)
    session.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = session.private / f"{FILE}.new"
    save_file({name: value.cpu() for name, value in kept.items()}, temporary)
    temporary.chmod(0o600)
    temporary.replace(session.private / FILE)
    return {"loss": best, "parameters": sum(parameter.numel() for parameter in heads.parameters())}


def _aside(subject: str) -> bool:
    """Whether a student to train on is one of the fifth by which training stops."""
    return sha256(b"private" + subject.encode()).digest()[0] < 256 // 5


def apply_private(
    session: Session, model: M3TModel, data: Batch, logits: dict[str, Floats]
) -> dict[str, Floats] | None:
    """Return the logits with the private heads' part; None if there are none. Raises CorruptError."""
    path = session.private / FILE if session.private is not None else None
    if path is None or not path.exists() or data.size == 0:
        return None
    with torch.no_grad():
        features, _ = _features(session, model, data)
        heads = _heads(session, features)
        _read(heads, path)
        added = heads.to(session.device)(features)
    return {
        name: found + added[name].double().cpu().numpy() if name in added else found for name, found in logits.items()
    }


def _read(heads: PrivateHeads, path: Path) -> None:
    advice = "Remove it: it is trained again after the next round."
    try:
        heads.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptError(f"{path} cannot be read or is of another model: {error}", advice) from error


def _features(session: Session, model: M3TModel, data: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what the private heads read and the shared logits, both detached."""
    data = data.to(session.device)
    with torch.no_grad():
        shared = model.embed(data.without(session.withheld).inputs)
        hidden, logits = model.represent(shared), model(data.without(session.withheld).inputs)
        own = {**shared, **{name: data.inputs[name] for name in session.withheld if name in data.inputs}}
        rows = []
        for name in sorted(own):
            values, steps = own[name]
            if not values.is_floating_point():
                continue  # tokens of a text that is not embedded here
            text = any(m.name == name and m.kind == "text" for m in session.learning.modalities)
            rows.append(pair_features(values, steps) if text else mean_of_steps(values, steps))
            rows.append(steps.any(2, keepdim=True).to(values.dtype))
        return {name: torch.cat([z, *rows], dim=2).detach() for name, z in hidden.items()}, logits


def _heads(session: Session, features: dict[str, Tensor]) -> PrivateHeads:
    outputs = {task.name: task.outputs for task in session.learning.tasks}
    return PrivateHeads({name: (int(found.shape[2]), outputs[name]) for name, found in features.items()})
