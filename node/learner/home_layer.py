"""The home layer: the shared model's logits, corrected by what this institution's own students show (stack.py).

It is learned without noise and kept in this process's memory only, anew for each state. Nothing of it is stored or
sent, and of a student who is left out nothing remains: the worker that knew the student has ended (design.md section
6).
"""

from collections.abc import Mapping
from hashlib import sha256

from .answers import HomeLayer
from .evaluate import Floats
from .messages import States
from .model import M3TModel
from .private import stored
from .reading import in_parts, own_records
from .session import Session, SplitData
from .stack import Correction, fit


def learned(session: Session, model: M3TModel, states: States) -> dict[str, Correction]:
    """Return the home layer beside these states, those of `model`: for each task with a head what is learned.

    The last one is kept. Raises CorruptError for a damaged private adapter, UsageError for one of another kind or rank.
    """
    texts, digest = stored(session, model)
    key = sha256(digest + b"".join(name.encode() + sha256(states[name]).digest() for name in sorted(states))).digest()
    if key not in session.home_layers:
        session.home_layers.clear()
        rows = own_records(session, model, session.parts["train"], texts)
        session.home_layers[key] = {task: fit(own) for task, own in rows.items()}
    return session.home_layers[key]


def correct(
    session: Session, model: M3TModel, states: States, part: SplitData, logits: Mapping[str, Floats]
) -> tuple[dict[str, Floats], dict[str, HomeLayer]]:
    """Return the logits [S, K, outputs] with the home layer, and what it does to each task.

    Of a task that writes they are the loss a token, by its private adapter where one is stored.
    """
    corrected = {name: values.copy() for name, values in logits.items()}
    written: dict[str, HomeLayer] = {}
    if model.writes:
        from .private_writing import written_losses  # noqa: PLC0415  # only who writes needs it

        losses = written_losses(session, model, part)
        corrected |= losses
        written = dict.fromkeys(losses, HomeLayer("adapted", session.parts["train"].batch.size))
    if not model.heads:
        return corrected, written
    layer, (texts, _) = learned(session, model, states), stored(session, model)
    for students, seen in in_parts(session, model, part, texts):
        for name, (shared, values) in seen.items():
            if name in layer and layer[name].told.form:
                rows = layer[name](shared, values).numpy()
                corrected[name][students.numpy(), : rows.shape[1]] = rows
    return corrected, {name: correction.told for name, correction in layer.items()} | written
