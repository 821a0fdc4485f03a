"""Losses and metrics of every kind of task, against scikit-learn and by hand; groups that are too small."""

from math import exp, log

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, r2_score, roc_auc_score

from collegium.node.learner.answers import GroupFigure
from collegium.node.learner.dpsgd import Batch, kinds_of
from collegium.node.learner.evaluate import labelled, report
from collegium.node.learner.model import M3TModel
from collegium.node.learner.session import SplitData
from collegium.node.learner.tasks import METRICS, metrics, record_losses, scores
from collegium.node.metrics import area_under_curve, macro_f1, nearly_certain
from collegium.node.store.observations import MIN_CELL
from collegium.node.views.worth import certain, no_better
from collegium.protocol.components import ComponentSpec, TensorSpec
from collegium.protocol.learning import TASK_KINDS, Learning, Modality, PrivacyFloor, Task

NAN = float("nan")


@pytest.mark.parametrize("seed", range(5))
def test_area_under_curve_equals_scikit_learn(seed: int) -> None:
    source = np.random.default_rng(seed)
    labels = source.integers(0, 2, 300)
    values = np.round(source.normal(size=300) + labels, seed)  # with ties
    assert area_under_curve(values, labels) == pytest.approx(roc_auc_score(labels, values))


def test_one_class_has_no_area_and_no_rows_no_metric() -> None:
    assert area_under_curve(np.array([1.0, 2.0]), np.array([1, 1])) is None
    assert area_under_curve(np.array([]), np.array([], dtype=np.int64)) is None
    for kind in TASK_KINDS:
        assert metrics(kind, np.zeros((0, 3)), np.zeros((0, 1))) == {METRICS[kind]: None}


def test_metrics_equal_scikit_learn() -> None:
    source = np.random.default_rng(0)
    labels, values = source.integers(0, 4, 200), source.random(size=(200, 4))
    figures = metrics("multiclass", values, labels[:, None].astype(float))
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, values.argmax(1)))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, values.argmax(1), average="macro"))
    assert metrics("ordinal", values, labels[:, None].astype(float))["mae"] == pytest.approx(
        np.abs(labels - values.argmax(1)).mean()
    )
    truth = source.normal(size=(200, 1))
    assert metrics("regression", values[:, :1], truth)["r2"] == pytest.approx(r2_score(truth, values[:, :1]))
    several = source.integers(0, 2, (200, 4)).astype(float)
    assert metrics("multilabel", values, several)["auc"] == pytest.approx(roc_auc_score(several, values))
    assert macro_f1(np.array([0, 0]), np.array([1, 1])) == 0.0


def test_a_constant_is_what_it_is_compared_with() -> None:
    """The best constant has exactly its own figures; what is right has better ones, and certainty alone has not."""
    labels = np.array([[0.0], [1.0], [1.0], [2.0]])
    rates = np.tile([0.25, 0.5, 0.25], (4, 1))
    right, wrong = np.eye(3)[labels[:, 0].astype(int)], np.eye(3)[[1, 0, 0, 1]]
    for kind in ("multiclass", "ordinal"):
        constant = metrics(kind, rates, labels)
        assert constant["accuracy"] == constant["accuracy_constant"] == 0.5
        assert constant["brier"] == pytest.approx(constant["brier_constant"])
        assert constant["brier"] == pytest.approx(0.625)
        assert len(no_better(constant)) == 2
        assert no_better(metrics(kind, right, labels)) == []
        assert len(no_better(metrics(kind, wrong, labels))) == 2
    both = np.array([[0.0], [1.0], [1.0], [1.0]])
    assert "0.500 is not above 0.750" in no_better(metrics("binary", np.eye(2)[[0, 1, 0, 0]], both))[0]
    several = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert no_better(metrics("multilabel", several * 0.8 + 0.1, several)) == []
    assert len(no_better(metrics("multilabel", np.tile([0.25, 0.75], (4, 1)), several))) == 2
    assert no_better(metrics("regression", both * 0 - 5.0, both)) == ["R² -176 is not above 0, which the mean has"]
    assert no_better(metrics("regression", both * 0.9, both)) == []
    assert no_better(metrics("regression", both[:1], both[:1])) == []  # not defined of one record
    sure = [[0.2, 0.8], [0.0, 1.0], [1e-7, 1 - 1e-7], [1e-5, 1 - 1e-5], [0.0009, 0.9991], [0.002, 0.998]]
    assert certain(sure) == 2
    assert (nearly_certain(sure), nearly_certain([])) == (4, 0)
    assert nearly_certain([[0.0001, 0.5, 0.4999], [5e-7, 0.5, 0.4999995]]) == 0, "of many classes most are unlikely"
    for kind in ("multiclass", "ordinal"):
        assert metrics(kind, wrong, labels)["nearly_certain"] == 1.0
        assert metrics(kind, rates, labels)["nearly_certain"] == 0.0
    assert metrics("binary", np.array(sure[:4]), both)["nearly_certain"] == 0.75
    assert metrics("multilabel", several * 0.8 + 0.1, several)["nearly_certain"] == 0.0


def test_losses_by_hand() -> None:
    def loss(kind: str, logits: list[float], label: list[float]) -> float:
        losses = record_losses(kind, torch.tensor([[logits]]), torch.tensor([[label]]))
        assert losses.shape == (1, 1)
        return float(losses)

    below = log(1 + exp(-2.0))  # the binary cross-entropy of being right with a logit of 2
    assert loss("regression", [0.5], [-0.5]) == pytest.approx(0.5)
    assert loss("multiclass", [1.0, 0.0, 0.0], [0.0]) == pytest.approx(log(exp(1) + 2) - 1)
    assert loss("ordinal", [2.0, -2.0], [1.0]) == pytest.approx(below)
    assert loss("ordinal", [2.0, -2.0], [2.0]) == pytest.approx((below + below + 2.0) / 2)
    assert loss("multilabel", [2.0, -2.0, 2.0], [1.0, 0.0, 1.0]) == pytest.approx(below)
    for kind, size in (("regression", 1), ("multiclass", 3), ("ordinal", 2), ("multilabel", 2), ("binary", 2)):
        assert loss(kind, [3.0] * size, [NAN] * (2 if kind == "multilabel" else 1)) == 0.0


def test_scores_are_probabilities() -> None:
    logits = np.array([[3.0, -1.0], [-1.0, 3.0], [0.0, 0.0]])
    for kind in ("binary", "multiclass", "ordinal"):
        probabilities = scores(kind, logits)
        assert probabilities.shape == (3, 3 if kind == "ordinal" else 2)
        assert probabilities.min() >= 0
        assert probabilities.sum(1) == pytest.approx(1)
    assert scores("multilabel", logits)[2].tolist() == [0.5, 0.5]
    assert scores("ordinal", logits)[0].argmax() == 1  # above the first threshold, not above the second


def test_only_labelled_records_are_scored() -> None:
    logits = np.arange(12.0).reshape(3, 2, 2)
    flat, values, labels = labelled("binary", logits, np.array([[[1], [NAN]], [[NAN], [NAN]], [[0], [1]]]))
    assert flat.tolist() == [0, 4, 5]
    assert values[:, 1] == pytest.approx([1 / (1 + exp(-1))] * 3)
    assert labels.tolist() == [[1], [0], [1]]


def test_a_group_of_fewer_than_fifty_subjects_is_not_told() -> None:
    head = ComponentSpec(
        "head/pass", "linear", (TensorSpec("linear.weight", (2, 1), 0),), 8, 8, "mean", 1, 1, 0, 1, bytes(32)
    )
    learning = Learning(
        (Modality("m", "tabular", 1, 1),), (Task("pass", "binary", 2, ("m",)),), (PrivacyFloor("m", "open", 0, 0),),
        1, 1, 0, 1,
    )  # fmt: skip
    model = M3TModel([head], learning)
    size = 2 * MIN_CELL - 1
    codes = np.array([[0, 0]] * MIN_CELL + [[1, 1]] * (MIN_CELL - 1))
    labels = torch.tensor([[[float(n % 2)], [NAN]] for n in range(size)])
    batch = Batch(torch.ones(size, 2), {}, {"pass": labels})
    part = SplitData(batch, (), {"sex": (("f", "m", "other"), codes)}, np.empty((0, 0), dtype=object))
    logits = np.random.default_rng(0).normal(size=(size, 2, 2))
    reported = report(kinds_of(model), part, {"pass": logits})["pass"]
    assert reported.n == size
    assert reported.groups["sex"]["m"] == GroupFigure(None, None)
    assert set(reported.groups["sex"]) == {"f", "m"}
    assert reported.groups["sex"]["f"] == GroupFigure(None, None), "what is left of everybody would tell of the few"
    assert MIN_CELL == 50

    size = 4 * MIN_CELL - 1
    codes = np.array([[0, 0]] * MIN_CELL + [[1, 1]] * (MIN_CELL - 1) + [[2, 2]] * (2 * MIN_CELL))
    # A third of the students has two labelled records: subjects are counted.
    labels = torch.tensor([[[float(n % 2)], [1.0 if n % 3 == 0 else NAN]] for n in range(size)])
    batch = Batch(torch.ones(size, 2), {}, {"pass": labels})
    part = SplitData(batch, (), {"sex": (("f", "m", "other"), codes)}, np.empty((0, 0), dtype=object))
    logits = np.random.default_rng(0).normal(size=(size, 2, 2))
    reported = report(kinds_of(model), part, {"pass": logits})["pass"]
    assert (reported.n, reported.records) == (size, size + len(range(0, size, 3)))
    assert [level for level, group in reported.groups["sex"].items() if group.n is None] == ["f", "m"]
    assert reported.groups["sex"]["other"].n == 2 * MIN_CELL

    size = 2 * MIN_CELL
    codes = np.array([[0, 0]] * MIN_CELL + [[1, 1]] * MIN_CELL)
    labels = torch.tensor([[[float(n % 2)], [NAN]] for n in range(size)])
    batch = Batch(torch.ones(size, 2), {}, {"pass": labels})
    part = SplitData(batch, (), {"sex": (("f", "m", "other"), codes)}, np.empty((0, 0), dtype=object))
    reported = report(kinds_of(model), part, {"pass": logits[:size]})["pass"]
    first = logits[:MIN_CELL, 0]
    expected = roc_auc_score([n % 2 for n in range(MIN_CELL)], first[:, 1] - first[:, 0])
    group = reported.groups["sex"]["f"]
    assert group.value == pytest.approx(expected)
    assert group.n == MIN_CELL
