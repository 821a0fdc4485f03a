"""Metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from collegium.node.learner.evaluate import accuracy, area_under_curve, scored


@pytest.mark.parametrize("seed", range(5))
def test_area_under_curve_equals_scikit_learn(seed: int) -> None:
    source = np.random.default_rng(seed)
    labels = source.integers(0, 2, 300)
    scores = np.round(source.normal(size=300) + labels, seed)  # with ties
    assert area_under_curve(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_one_class_has_no_area_and_no_rows_no_accuracy() -> None:
    assert area_under_curve(np.array([1.0, 2.0]), np.array([1, 1])) is None
    assert area_under_curve(np.array([]), np.array([], dtype=np.int64)) is None
    assert accuracy(np.zeros((0, 3)), np.array([], dtype=np.int64)) is None


def test_accuracy_equals_scikit_learn() -> None:
    source = np.random.default_rng(0)
    labels, scores = source.integers(0, 4, 200), source.normal(size=(200, 4))
    assert accuracy(scores, labels) == pytest.approx(accuracy_score(labels, scores.argmax(1)))


def test_only_labelled_records_are_scored() -> None:
    logits = np.arange(12.0).reshape(3, 2, 2)
    logits[..., 1] *= 2
    subject, scores, labels = scored("binary", logits, np.array([[1, -1], [-1, -1], [0, 1]]))
    assert subject.tolist() == [0, 2, 2]
    assert scores.tolist() == [2.0, 10.0, 12.0]
    assert labels.tolist() == [1, 0, 1]
