"""What is read of an institution's own students beside the shared model: for the home layer and private adapters."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .dpsgd import Batch, kinds_of, students_at_once
from .layers import mean_of_steps
from .model import M3TModel, embed_tokens
from .pairs import pair_features
from .session import Session, SplitData
from .stack import Own, fold_of
from .text import TextEncoder

PLACES = 1024  # numbers of a series whose steps have a place each
RECORDS = 64  # in one step with an adapter, and in memory at once; a student is not cut
Texts = Mapping[str, TextEncoder]  # modality → its text model with a private adapter


def read(
    session: Session, model: M3TModel, data: Batch, texts: Texts | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for each task with a head the shared logits [S, K, C] and what is read beside them [S, K, F].

    That is the input of the head, and all modalities, also those that no shared update may see. A series has its mean,
    and a place for each step where these are few numbers; a text is what `linear-skip` reads. Texts that have a private
    adapter in `texts` are read by it, and so are the shared logits.
    """
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
    written = {modality.name for modality in session.learning.modalities if modality.kind == "text"}
    rows = []
    for name in sorted(own):
        values, steps = own[name]
        if not values.is_floating_point():
            continue  # token ids: this text is not embedded here
        rows.append(pair_features(values, steps) if name in written else mean_of_steps(values, steps))
        rows.append(steps.any(2, keepdim=True).to(values.dtype))
        length, width = values.shape[2:]
        if name not in written and length > 1 and length * width <= PLACES:
            rows += [(values * steps.unsqueeze(3)).flatten(2), steps.to(values.dtype)]
    return {name: (logits[name], torch.cat([z, *rows], dim=2)) for name, z in hidden.items()}


def in_parts(
    session: Session, model: M3TModel, part: SplitData, texts: Texts
) -> Iterator[tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]]:
    """Yield the rows of some students at a time, and what `read` gives of them, float64, without gradients."""
    data = with_tokens(part) if texts else part.batch
    most = at_once(data) if texts else students_at_once(model, data)
    for students in torch.split(torch.arange(data.size), most):
        with torch.no_grad():
            both = read(session, model, data.take(students), texts)
        yield students, {name: (s.double().cpu(), x.double().cpu()) for name, (s, x) in both.items()}


def own_records(session: Session, model: M3TModel, part: SplitData, texts: Texts) -> dict[str, Own]:
    """Return the labelled records of each task with a head."""
    kinds, folds = kinds_of(model), torch.tensor([fold_of(name) for name in part.subjects])
    found: dict[str, list[Own]] = {name: [] for name in model.heads}
    for students, seen in in_parts(session, model, part, texts):
        chunk = part.batch.take(students)
        for name, (logits, values) in seen.items():
            labels = chunk.labels[name]
            places = torch.nonzero(~labels.isnan().any(2) & (chunk.weights > 0), as_tuple=True)
            rows, weights = students[places[0]], chunk.weights[places].double()
            parts = (logits[places], values[places], labels[places], weights, rows, folds[rows])
            found[name].append(Own(kinds[name], *parts))
    return {name: Own.joined(parts) for name, parts in found.items() if parts}


def with_tokens(part: SplitData) -> Batch:
    """Return the part's batch with token ids where a private adapter reads them."""
    inputs = {name: (part.tokens.get(name, values), steps) for name, (values, steps) in part.batch.inputs.items()}
    return Batch(part.batch.weights, inputs, part.batch.labels)


def at_once(data: Batch) -> int:
    """Return the number of students that have RECORDS records together."""
    return max(1, RECORDS // max(1, int(data.weights.shape[1])))


def _embedded(text: TextEncoder, ids: Tensor) -> Tensor:
    """Token ids [S, K, T, L] → embeddings [S, K, T, width]; equal texts are read once."""
    rows, back = torch.unique(ids.reshape(-1, ids.shape[3]), dim=0, return_inverse=True)
    return embed_tokens(text, rows[:, None, None])[:, 0, 0][back].reshape(*ids.shape[:3], -1)
