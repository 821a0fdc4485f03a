"""Do explanations name what matters? Features are deleted, and the result's probability is watched.

As in Petsiuk et al. (2018). Deleted is what an explanation compares with: the feature has the value of the record in
the middle of all bounds. An explanation is of use where its order takes the probability away faster than a random one.
"""

from collections.abc import Callable, Sequence
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch

from ...data.features import Feature
from ..answers import BadRequestError, DeletionCurves
from ..dpsgd import Batch
from ..explain import Explainer
from ..messages import DeleteFeatures
from ..model import Inputs
from ..session import Session

Floats = npt.NDArray[np.float64]


def curves(request: DeleteFeatures, session: Session, progress: Callable[[int, int], None]) -> DeletionCurves:
    """Return the deletion curves of a session's first held-out records. Raises BadRequestError."""
    started = monotonic()
    task = next((task for task in session.learning.tasks if task.name == request.task), None)
    if task is None or task.carrier not in session.specs or task.kind not in {"binary", "multiclass"}:
        raise BadRequestError(f"there is no task {request.task!r} with classes here")
    part = session.parts["held_out"]
    read = [name for name in task.modalities if name in part.batch.inputs and name not in session.withheld]
    batch = Batch(part.batch.weights, {name: part.batch.inputs[name] for name in read}, {})
    made = Explainer(session, task, request.states, batch, read)
    places = np.argwhere(part.batch.weights.numpy() > 0)[: request.records].tolist()
    source, lost, features = np.random.default_rng(request.seed), [], []
    for done, place in enumerate(places, start=1):
        found = _record(made, (int(place[0]), int(place[1])), source, request.orders)
        if found is not None:
            lost.append(found[0])
            features.append(found[1])
        progress(done, len(places))
    if not lost:
        raise BadRequestError("no held-out record has a feature to be deleted")
    means = np.mean(lost, axis=0)
    random = means[1:]
    return DeletionCurves(
        len(lost), float(np.mean(features)), float(means[0]), float(random.mean()), float(random.max()),
        float(random.std(ddof=1)), monotonic() - started,
    )  # fmt: skip


def _record(
    made: Explainer, place: tuple[int, int], source: np.random.Generator, orders: int
) -> tuple[Floats, int] | None:
    """Return what the result's probability loses, [1 + orders], in the mean over a whole curve; and the features."""
    own = made.one(place)
    with torch.no_grad():
        logits = made.logits(own)
    _, score = made.result(logits[0])
    chosen = int(logits[0].argmax())
    effects = made.by_feature(own, score)[0]
    there = [
        (name, feature)
        for name, (_, steps) in own.items()
        if bool(steps.any())
        for feature in made.features[name]
        if bool(steps[0, 0, list(feature.steps)].any())
    ]
    if not there:
        return None
    first = np.argsort([-effect.effect for effect in effects], kind="stable")
    curves = [_curve(made, own, there, first.tolist(), chosen)]
    curves += [_curve(made, own, there, source.permutation(len(there)).tolist(), chosen) for _ in range(orders)]
    return np.array(curves), len(there)


def _curve(
    made: Explainer, own: Inputs, there: Sequence[tuple[str, Feature]], order: Sequence[int], chosen: int
) -> float:
    """Return what the probability of a class has lost, in the mean over the deletions of all features in an order."""
    count = len(order) + 1
    rows = {n: (v.repeat(count, 1, 1, 1), t.expand(count, -1, -1)) for n, (v, t) in own.items()}
    for row, index in enumerate(order, start=1):
        name, feature = there[index]
        values, steps = rows[name]
        place = np.ix_(feature.steps, feature.numbers)
        start = (made.starts[name] * steps[0, 0].unsqueeze(1))[place]
        for later in range(row, count):
            values[later, 0][place] = start
    with torch.no_grad():
        probabilities = torch.softmax(made.logits(rows), dim=1)[:, chosen].numpy()
    return float((probabilities[0] - probabilities[1:]).mean())
