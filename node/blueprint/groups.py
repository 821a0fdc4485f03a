"""`[equity]` of a model file: what members release of their held-out students, once (protocol/equity.py).

```toml
[equity]
after = 20                  # rounds of the task's components; the release is of the model then
epsilon = 1.0               # of each held-out student, of its own: no other budget pays for it
delta = 1e-5
bins = 10                   # of the histogram of probabilities; half on each side of the threshold
[[equity.attribute]]        # the fewer, the less noise: k of them cost √k times as much
name = "gender"             # as in [sensitive] of dataset.toml
levels = ["F", "M"]
[[equity.decision]]
task = "pass"               # binary
threshold = 0.5
flagged = "below"           # who is at risk: below the threshold, or "above"
```
"""

from collections.abc import Collection
from math import floor

from ...protocol.bounds import delta_problem, epsilon_problem
from ...protocol.components import MILLION
from ...protocol.equity import FLAGGED, Attribute, Decision, Equity
from ..toml import Table, one_of

EPSILON, DELTA, BINS = 1.0, 1e-5, 10


def equity_of(section: Table, binary: Collection[str]) -> Equity:
    """Return what the table declares; `binary` are the model's binary tasks. Raises UsageError."""
    attributes = []
    for one in section.tables("attribute"):
        attributes.append(Attribute(one.text("name"), one.texts("levels")))
        if len(attributes[-1].levels) < 2:
            raise one.fail("levels has fewer than two groups", "Name those of dataset.toml.")
        one.done()
    decisions = []
    for one in section.tables("decision", "task"):
        task, threshold = one.text("task"), one.number("threshold", 0.5)
        if task not in binary:
            raise one.fail(f"there is no binary task {task!r}", f"Binary are {', '.join(sorted(binary)) or 'none'}.")
        if not 1 / MILLION <= threshold <= 1.0 - 1 / MILLION:
            raise one.fail(f"threshold = {threshold} is not between 0 and 1", "It is a probability.")
        decisions.append(Decision(task, round(threshold * MILLION), one.take("flagged", one_of(*FLAGGED), FLAGGED[0])))
        one.done()
    if not attributes or not decisions:
        raise section.fail("it names no attribute, or no decision", "Add [[equity.attribute]] and [[equity.decision]].")
    epsilon, delta = section.number("epsilon", EPSILON), section.number("delta", DELTA)
    problem = epsilon_problem(epsilon) or delta_problem(delta)
    if problem:
        raise section.fail(problem)
    equity = Equity(
        tuple(attributes),
        tuple(decisions),
        section.whole("after", None, 1, 2**20),
        floor(epsilon * 1000 + 1e-6),
        floor(delta * 1e9 + 1e-6),
        section.whole("bins", BINS, 2, 64),
    )
    section.done()
    problem = equity.problem(frozenset(binary))
    if problem:
        raise section.fail(problem)
    return equity
