"""Groups of held-out students under the shared model: counts of decisions and a histogram of scores (ADR 36).

Counts are whole numbers of grid units: a record has its share 1/K of a student, rounded towards zero, so the sums of
two groups of students add up to the sum of all.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ...protocol.components import MILLION
from ...protocol.equity import DECIDED, SCORES
from ...protocol.statistics import Numbers, edges
from .evaluate import predict
from .session import Session, SplitData, build
from .statistics import SLACK, named
from .tasks import scores


def exact(session: Session, states: Mapping[str, bytes], part: SplitData, names: Iterable[str]) -> dict[str, Numbers]:
    """Return the exact counts of a split for each of the components `names`, in grid units, [d] int64.

    `states` are those of the shared model. A record without a label, or of a level that the charter does not name,
    counts nowhere.
    """
    (equity,) = session.learning.equity
    modules = {name: state for name, state in states.items() if name in session.modules}
    logits = predict(build(session, modules), part.batch.without(session.withheld))
    weights = part.batch.weights.numpy().reshape(-1).astype(np.float64)
    counts = {}
    for name in names:
        spec = session.specs[name]
        task = named(session, spec)
        decision = equity.decision(task.name)
        assert decision is not None  # checked with the charter
        labels = part.batch.labels[task.name].numpy().reshape(-1) if task.name in part.batch.labels else None
        decided, histogram = (np.zeros(tensor.shape, dtype=np.int64) for tensor in spec.tensors)
        if labels is not None and task.name in logits:
            chance = scores(task.kind, logits[task.name].reshape(-1, task.outputs))[:, 1]
            below = chance < decision.threshold / MILLION
            flagged = (below if decision.flagged == "below" else ~below).astype(np.int64)
            bins = np.searchsorted(edges(equity, decision), chance, side="right")
            known = np.flatnonzero((weights > 0.0) & ~np.isnan(labels))
            share = weights * (SLACK / spec.grid_step)
            for row, (attribute, level) in enumerate(equity.rows):
                levels, codes = part.groups.get(attribute, ((), np.empty(0, np.int64)))
                if level not in levels:
                    continue
                chosen = known[codes.reshape(-1)[known] == levels.index(level)]
                label = labels[chosen].astype(np.int64)
                np.add.at(decided[row], (label, flagged[chosen]), np.trunc(DECIDED * share[chosen]).astype(np.int64))
                np.add.at(histogram[row], (label, bins[chosen]), np.trunc(SCORES * share[chosen]).astype(np.int64))
        counts[name] = np.concatenate([decided.reshape(-1), histogram.reshape(-1)])
    return counts
