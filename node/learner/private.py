"""Private adapters: on the frozen text models of one institution, beside the shared ones if there are any; never sent.

They train after the shared model, together with linear maps that start as the home layer (stack.py) of some of the
students, on detached outputs of the shared model, so that no shared update depends on them (design.md section 6). The
maps are dropped: the home layer is learned anew, with the adapted texts. The adapters are stored in safetensors files
in the node's home only. Every epoch runs the text models forwards and backwards: minutes, not seconds.
"""

from collections.abc import Callable
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor, nn

from .answers import BadRequestError
from .dpsgd import kinds_of, student_losses
from .layers import ByName
from .model import M3TModel
from .reading import Texts, at_once, own_records, read, with_tokens
from .session import Session
from .stack import Correction, fit
from .text import TextEncoder

LEARNING_RATE = 0.01  # of the maps
ADAPTER_RATE = 0.003
DECAY = 0.01
ADAPTER_EPOCHS = 10  # at most; after PATIENCE epochs without a better one no more
PATIENCE = 3
ADAPTERS = "adapter-*.safetensors"


class Maps(nn.Module):
    """The corrections of the tasks, to be trained further: scale, bias and weight of each."""

    def __init__(self, start: dict[str, Correction]) -> None:
        super().__init__()
        self.tasks = ByName()
        for name, at in start.items():
            linear = nn.Linear(len(at.weight), len(at.bias))
            with torch.no_grad():
                linear.weight.copy_(at.weight.T)
                linear.bias.copy_(at.bias - at.mean @ at.weight)
            self.tasks[name] = linear
        self.scales = {name: float(at.scale) for name, at in start.items()}

    def forward(self, seen: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Shared logits and what is read of each task → its corrected logits."""
        return {name: self.scales[name] * seen[name][0] + linear(seen[name][1]) for name, linear in self.tasks.items()}


def train_private(session: Session, model: M3TModel, progress: Callable[[int, int], None]) -> tuple[float, int]:
    """Train the private adapters beside `model` and write them; return their loss and number of parameters.

    The loss is on a fifth of the students, who decide when training stops; without any of them nothing is trained.
    Raises BadRequestError without a place for them.
    """
    if session.private is None or session.private_adapter is None:
        advice = 'Set private_adapter under [learning], as in "lora".'
        raise BadRequestError("this node has no private adapters", advice)
    model.requires_grad_(False)
    aside = torch.tensor([_is_validation(name) for name in session.parts["train"].subjects])
    loss, numbers = 0.0, 0
    if model.writes:
        from .private_writing import train_writers  # noqa: PLC0415  # only who writes needs it

        loss, numbers = train_writers(session, model, aside, progress)
    texts = _private_encoders(session, model)
    if not texts or not model.heads:
        return loss, numbers
    best = _train(session, model, texts, aside, progress)
    _write(session.private, texts)
    return loss + best, numbers + sum(parameter.numel() for text in texts.values() for parameter in _parameters(text))


def _train(
    session: Session, model: M3TModel, texts: Texts, aside: Tensor, progress: Callable[[int, int], None]
) -> float:
    """Train the adapters of `texts` in place, and keep the best; return its loss on the fifth, `aside`."""
    part = session.parts["train"]
    data, kinds = with_tokens(part), kinds_of(model)
    own, judges = torch.nonzero(~aside)[:, 0], torch.nonzero(aside)[:, 0]
    records = own_records(session, model, part, texts).items()
    start = {name: fit(each.of(~aside[each.students])) for name, each in records}
    kinds = {name: kinds[name] for name in start}
    maps = Maps(start).to(session.device)
    adapters = [parameter for text in texts.values() for parameter in _parameters(text)]
    groups = [{"params": list(maps.parameters()), "lr": LEARNING_RATE}, {"params": adapters, "lr": ADAPTER_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=DECAY)
    # An order of its own: the session's randomness is for shared components, and must not depend on this.
    order, most, done, since = torch.Generator().manual_seed(0), at_once(data), 0, 0
    total = ADAPTER_EPOCHS * -(-len(own) // most)

    def losses(students: Tensor) -> Tensor:
        batch = data.take(students).to(session.device)
        return student_losses(kinds, maps(read(session, model, batch, texts)), batch)

    def judged() -> float:
        with torch.no_grad():
            return float(torch.cat([losses(students) for students in torch.split(judges, most)]).mean())

    best, kept = judged() if len(judges) else 0.0, [parameter.detach().clone() for parameter in adapters]
    for _ in range(ADAPTER_EPOCHS if len(judges) else 0):
        for students in torch.split(own[torch.randperm(len(own), generator=order)], most):
            optimiser.zero_grad(set_to_none=True)
            losses(students).mean().backward()  # type: ignore[no-untyped-call]  # torch
            optimiser.step()
            done += 1
            progress(done, total)
        since += 1
        if (now := judged()) < best:
            best, kept, since = now, [parameter.detach().clone() for parameter in adapters], 0
        if since == PATIENCE:
            break
    progress(total, total)
    with torch.no_grad():
        for parameter, value in zip(adapters, kept, strict=True):
            parameter.copy_(value)
    return best


def _is_validation(subject: str) -> bool:
    """Whether a training student is in the validation fifth, which decides when training stops."""
    return sha256(b"private" + subject.encode()).digest()[0] < 256 // 5


def stored(session: Session, model: M3TModel) -> tuple[Texts, bytes]:
    """Return the text models with the stored private adapters, and a digest of these; none where one is missing.

    Raises CorruptError for damaged files, UsageError for an adapter of another kind or rank.
    """
    if session.private is None or not session.adapted:
        return {}, b""
    paths = [session.private / _file(name) for name in sorted(session.adapted)]
    if not all(path.exists() for path in paths):
        return {}, b""
    from .adapters import load_private  # noqa: PLC0415  # only who has text needs it

    texts = _private_encoders(session, model)
    for name, path in zip(sorted(session.adapted), paths, strict=True):
        load_private(texts[name], path)
    return texts, b"".join(sha256(path.read_bytes()).digest() for path in paths)


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


def _file(modality: str) -> str:
    return ADAPTERS.replace("*", quote(modality, safe=""))


def _write(folder: Path, texts: Texts) -> None:
    """Write the adapters, mode 0600; those of other modalities are deleted."""
    from .adapters import save_private  # noqa: PLC0415  # as above

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob(ADAPTERS):
        path.unlink()
    for name, text in texts.items():
        save_private(text, folder / _file(name))
