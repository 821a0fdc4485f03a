"""Statistics: components that are added up, not averaged (design.md section 5, docs/adr/0016).

`statistic/TASK` is computed from the labels of a task and features φ of a record that depend on constants of the
charter only, never on learned states. So a contribution is never stale, and is made once. With ‖φ‖ ≤ 1 and targets ‖y‖
≤ 1, a student's part is the mean over their records, so its norm is at most the sensitivity for any data.

| architecture | tensors | a record's part | sensitivity |
|---|---|---|---|
| `ridge` | gram [m(m+1)/2], cross [outputs, m] | upper triangle of φφᵀ, its off-diagonal × √2; yφᵀ | √2 |
| `prototypes` | cross [outputs, m] | yφᵀ | 1 |

`groups/TASK` (architecture `histogram`) is added up in the same way: equity.py.

Gram's scale makes the vector's norm the matrix's (Frobenius): ‖φφᵀ‖ = ‖φ‖² ≤ 1 and ‖yφᵀ‖ = ‖y‖‖φ‖ ≤ 1.

A state is int64: at most 2^31 an update in each number, so it cannot overflow before 2^32 members have contributed.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.errors import UsageError
from .component_names import ComponentKind, parse_name
from .components import MILLION, ComponentSpec, TensorSpec
from .equity import ARCHITECTURE, HELD_OUT, Decision, Equity
from .learning import Learning, Modality

WIDTH = 32  # bits of an update's integers
SENSITIVITY = {"ridge": 1_414_214, "prototypes": MILLION}  # millionths, rounded up
CONSTANT = {"ridge": 0.25, "prototypes": 0.5}  # β of φ = (β, √(1-β²)·z/‖z‖), the same in every record
MAX_FEATURES = 4096
Numbers = npt.NDArray[np.int64]


def tensors(architecture: str, features: int, outputs: int) -> tuple[TensorSpec, ...]:
    """Return the tensors of a statistic over m features for a task's outputs, in order."""
    cross = TensorSpec("cross", (outputs, features), 0)
    return (TensorSpec("gram", (features * (features + 1) // 2,), 0), cross) if architecture == "ridge" else (cross,)


def is_groups(spec: ComponentSpec) -> bool:
    """Whether a component is the release of groups of held-out students."""
    return spec.architecture == ARCHITECTURE


def tensors_of_groups(equity: Equity) -> tuple[TensorSpec, ...]:
    """Return the tensors of `groups/TASK`."""
    rows = len(equity.rows)
    return TensorSpec("decided", (rows, 2, 2), 0), TensorSpec("scores", (rows, 2, equity.bins), 0)


def edges(equity: Equity, decision: Decision) -> npt.NDArray[np.float64]:
    """Return the inner edges of a decision's bins, [bins - 1]: equal steps below the threshold, and above it."""
    middle, half = decision.threshold / MILLION, equity.bins // 2
    below = np.linspace(0.0, middle, half + 1)[1:]
    return np.concatenate([below, np.linspace(middle, 1.0, half + 1)[1:-1]])


def sensitivity_of(spec: ComponentSpec, learning: Learning) -> int:
    """Return the most by which a student moves a statistic, in millionths."""
    if is_groups(spec):
        return learning.equity[0].sensitivity
    return SENSITIVITY[spec.architecture]


def shape(spec: ComponentSpec) -> tuple[int, int]:
    """Return (outputs, features) of a statistic."""
    outputs, features = spec.tensors[-1].shape
    return outputs, features


def most_students(spec: ComponentSpec) -> int:
    """Return the most students that one member may declare (G5): the finer the charter's grid, the fewer.

    Each changes a number by at most 1/Δ grid units, so their sum stays under 2^30; the other half is for the noise.
    """
    return 1 << max(0, 30 - spec.step_log2)


def inputs_of_modality(modality: Modality) -> int:
    """Return how many inputs φ has of a modality: its values (text: pair features), and the share of valid steps."""
    if modality.kind == "text":
        return (modality.width * (2 * modality.length - 1) if modality.pretrained else 0) + 1
    return modality.width + 1


def numbers(state: npt.NDArray[np.int32]) -> Numbers:
    """Return the int64 [d] that a statistic's state, int32 [2d], stands for."""
    return np.ascontiguousarray(state, dtype="<i4").view("<i8").astype(np.int64)


def words(values: Numbers) -> npt.NDArray[np.int32]:
    """Return int64 [d] as a state, int32 [2d]."""
    return np.ascontiguousarray(values, dtype="<i8").view("<i4").astype(np.int32)


def check(spec: ComponentSpec, learning: Learning) -> None:
    """Check a charter's spec of a statistic. Raises UsageError."""
    own = _of_groups(spec, learning) if parse_name(spec.name).kind is ComponentKind.GROUPS else _of_head(spec, learning)
    for ok, problem in (
        *own,
        (spec.width == WIDTH, f"its width is not {WIDTH}"),
        (spec.step_log2 <= 30, "its grid is finer than 2^-30"),
        (spec.learning_rate == MILLION, "its learning_rate is not 1"),
        (spec.min_updates == 1, "its min_updates is not 1: who comes late comes alone"),
    ):
        if not ok:
            raise UsageError(
                f"component {spec.name}: {problem}", "`collegium charter create` makes it as it has to be."
            )


def _of_groups(spec: ComponentSpec, learning: Learning) -> tuple[tuple[bool, str], ...]:
    equity, task = next(iter(learning.equity), None), parse_name(spec.name).of
    decided = equity is not None and equity.decision(task) is not None
    return (
        (decided, f"the charter has no decision of task {task!r} in its equity"),
        (spec.architecture == ARCHITECTURE, f"its architecture is not {ARCHITECTURE}"),
        (
            equity is None or spec.tensors == tensors_of_groups(equity),
            "its tensors are not those of the charter's groups",
        ),
        (equity is None or spec.clip_norm == equity.sensitivity, "its clip_norm is not its sensitivity"),
        (all(m.name != HELD_OUT for m in learning.modalities), f"a modality is named {HELD_OUT!r}"),
    )


def _of_head(spec: ComponentSpec, learning: Learning) -> tuple[tuple[bool, str], ...]:
    name = parse_name(spec.name).of
    task: Any = next((task for task in learning.tasks if task.name == name), None)
    last = spec.tensors[-1].shape
    outputs, features = last if len(last) == 2 else (0, 0)
    return (
        (task is not None, f"the charter has no task {name!r}"),
        (spec.architecture in SENSITIVITY, f"its architecture is not one of {', '.join(SENSITIVITY)}"),
        (spec.clip_norm == SENSITIVITY.get(spec.architecture), "its clip_norm is not its sensitivity"),
        (
            task is not None and (spec.architecture != "prototypes" or task.kind in ("binary", "multiclass")),
            "prototypes are of classes",
        ),
        (1 < features <= MAX_FEATURES, f"it has under 2 features, or over {MAX_FEATURES}"),
        (task is not None and outputs == task.outputs, "its outputs are not its task's"),
        (spec.tensors == tensors(spec.architecture, features, outputs), "its tensors are not its architecture's"),
    )
