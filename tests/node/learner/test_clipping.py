"""What one student adds to a clipped sum is no longer than C, whatever the weights and however its records cancel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from collegium.node.learner import gradients
from collegium.node.learner.dpsgd import see, watch
from collegium.node.learner.gradients import StudentGradients

from .test_dpsgd import MODELS, batch_of, model_of

CLIP = 1.0
LIMIT = CLIP * (1 + 1e-3)
VICTIM = 1  # the student whose records cancel


@dataclass(frozen=True)
class Case:
    """One way in which a layer's norms and sums are computed: rows of a student, and what is trained."""

    layer: Callable[[], nn.Module]
    rows: int
    width: int
    trained: tuple[str, ...] = ("weight", "bias")
    kept: bool = True
    uses: int = 1


class Labelled(nn.Module):
    """An embedding whose ids are the features' whole parts: records of any width can enter every case."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8, padding_idx=padding)

    def forward(self, x: Tensor) -> Tensor:
        """[S, P, 1] → [S, P, 8]."""
        out: Tensor = self.table(x[..., 0].abs().long() % 5)
        return out


CASES = {
    "linear, one row": Case(lambda: nn.Linear(6, 4), 1, 6),
    "linear, formed": Case(lambda: nn.Linear(6, 4), 40, 6),
    "linear, formed and not kept": Case(lambda: nn.Linear(6, 4), 40, 6, kept=False),
    "linear, ghost": Case(lambda: nn.Linear(64, 32), 6, 64),
    "linear, its bias alone": Case(lambda: nn.Linear(6, 4), 12, 6, ("bias",)),
    "linear, used twice": Case(lambda: nn.Linear(48, 48), 6, 48, uses=2),
    "layer norm": Case(lambda: nn.LayerNorm(8), 10, 8),
    "layer norm, not kept": Case(lambda: nn.LayerNorm(8), 10, 8, kept=False),
    "embedding": Case(lambda: Labelled(None), 12, 1, ("table.weight",)),
    "embedding with padding": Case(lambda: Labelled(0), 12, 1, ("table.weight",)),
}


@contextmanager
def watched(case: Case) -> Iterator[tuple[nn.Module, StudentGradients]]:
    """A layer of the case, its gradients watched."""
    layer, kept = case.layer(), gradients.KEPT
    parameters = dict(layer.named_parameters())
    gradients.KEPT = kept if case.kept else 0
    try:
        with StudentGradients(layer, {"c": [parameters[name] for name in case.trained]}) as by_student:
            yield layer, by_student
    finally:
        gradients.KEPT = kept


def clipped(case: Case, layer: nn.Module, by_student: StudentGradients, x: Tensor, pull: Tensor) -> Tensor:
    """The clipped sum where the loss of a student is `Σ pull · layer(x)`: the gradient at the output is `pull`."""
    by_student.forget()
    losses = torch.zeros(x.shape[0])
    for _ in range(case.uses):
        losses = losses + (layer(x) * pull).sum((1, 2))
    by_student.backward(losses, {int(x.shape[0])})
    return by_student.clipped_sums({"c": CLIP})["c"]


def records(case: Case, seed: int, scale: float, gap: float) -> tuple[Tensor, Tensor]:
    """Three students; the victim's records come in pairs that cancel but for `gap`, at `scale`."""
    source = torch.Generator().manual_seed(seed)
    with watched(case) as (layer, _):
        out = int(layer(torch.zeros(1, 1, case.width)).shape[2])
    x = torch.randn(3, case.rows, case.width, generator=source)
    pull = torch.randn(3, case.rows, out, generator=source)
    half = case.rows // 2
    if half:
        x[VICTIM, half : 2 * half] = x[VICTIM, :half]
        pull[VICTIM, half : 2 * half] = -pull[VICTIM, :half] * (1 + gap)
        pull[VICTIM, 2 * half :] = 0.0
    pull[VICTIM] *= scale
    return x, pull


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(-3.0, 30.0).map(lambda power: 10.0**power),
    gap=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.0]),
)
def test_g6_records_that_cancel_under_large_weights_stay_within_the_clip(
    name: str, seed: int, scale: float, gap: float
) -> None:
    case = CASES[name]
    x, pull = records(case, seed, scale, gap)
    with watched(case) as (layer, by_student):
        whole = clipped(case, layer, by_student, x, pull)
        alone = clipped(case, layer, by_student, x[[VICTIM]], pull[[VICTIM]])
        others = torch.tensor([row for row in range(3) if row != VICTIM])
        rest = clipped(case, layer, by_student, x[others], pull[others])
    for contribution in (alone.double(), whole.double() - rest.double()):
        assert bool(contribution.isfinite().all())
        assert float(contribution.norm()) <= LIMIT


@pytest.mark.parametrize("alike", ["inputs", "gradients"])
def test_g6_records_that_are_nearly_alike_do_not_hide_a_norm(alike: str) -> None:
    """Each factor of the ghost norm needs its digits: of one side nearly equal rows, of the other rows that cancel.

    In float32 the products of the nearly equal rows are all the same, and the norm comes out as zero.
    """
    case = Case(lambda: nn.Linear(256, 256, bias=False), 16, 256, ("weight",))
    for seed in range(20):
        source = torch.Generator().manual_seed(seed)
        near = torch.randn(256, generator=source) + 1e-4 * torch.randn(1, 16, 256, generator=source)
        far = 20.0 * torch.randn(1, 16, 256, generator=source)
        far -= far.mean(dim=1, keepdim=True)
        x, pull = (near, far) if alike == "inputs" else (far, near)
        true = torch.einsum("spo,spi->oi", pull.double(), x.double()).norm()
        assert float(true) > 1.1 * CLIP, "there is something to clip"
        # Beside others, whose small gradients leave room under the guard on the whole sum.
        others = torch.full((4, 16, 256), 1e-3)
        with watched(case) as (layer, by_student):
            whole = clipped(case, layer, by_student, torch.cat([x, others]), torch.cat([pull, others])).double()
            rest = clipped(case, layer, by_student, others, others).double()
        assert float((whole - rest).norm()) <= LIMIT, seed


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_g6_what_is_not_finite_counts_as_nothing_and_the_others_stay(name: str, bad: float) -> None:
    case = CASES[name]
    x, pull = records(case, 1, 1.0, 1.0)
    pull[VICTIM] = bad
    others = torch.tensor([0, 2])
    with watched(case) as (layer, by_student):
        whole = clipped(case, layer, by_student, x, pull)
        rest = clipped(case, layer, by_student, x[others], pull[others])
    assert bool(whole.isfinite().all())
    assert float((whole.double() - rest.double()).norm()) <= LIMIT
    if bad != 3e38:
        assert whole.tolist() == pytest.approx(rest.tolist(), abs=1e-5)


def test_g6_a_sum_is_never_longer_than_all_its_students_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last guard: whatever else is wrong with the factors."""
    case = CASES["linear, formed"]

    def wrong(_self: StudentGradients, _parameter: Tensor) -> tuple[Tensor, None]:
        return torch.full((3,), 1e-6), None

    monkeypatch.setattr(StudentGradients, "_squared_norm", wrong)
    x, pull = records(case, 2, 1e6, 1.0)
    with watched(case) as (layer, by_student):
        assert float(clipped(case, layer, by_student, x, pull).norm()) <= 3 * LIMIT
        pull[0] = float("nan")
        assert clipped(case, layer, by_student, x, pull).tolist() == [0.0] * 28


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [30.0, 1e5])
def test_g6_no_architecture_lets_a_student_beyond_the_clip_under_large_weights(name: str, scale: float) -> None:
    specs, model, batch = MODELS[name], model_of(MODELS[name]), batch_of(4)
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * scale)
    # One record twice, with labels that pull to opposite sides.
    batch.weights[VICTIM] = torch.tensor([0.5, 0.5, 0.0])
    for values, steps in batch.inputs.values():
        values[VICTIM, 1], steps[VICTIM, 1] = values[VICTIM, 0] * (1 + 1e-6), steps[VICTIM, 0]
    for labels in batch.labels.values():
        labels[VICTIM, 0], labels[VICTIM, 1] = 0.0, 1.0
    clips = {item.name: CLIP for item in specs}
    with watch(model, specs) as by_student:
        see(by_student, model, batch)
        whole = by_student.clipped_sums(clips)
        batch.weights[VICTIM] = 0.0
        see(by_student, model, batch)
        rest = by_student.clipped_sums(clips)
    for component in whole:
        assert bool(whole[component].isfinite().all())
        assert float((whole[component].double() - rest[component].double()).norm()) <= LIMIT
