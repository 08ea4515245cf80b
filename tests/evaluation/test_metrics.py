"""Scores from sufficient statistics against scikit-learn."""

import hypothesis
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from sweet_jax.evaluation.metrics import (
    check_metric,
    compute_nll,
    compute_score,
    count_predictions,
    register_metric,
    score_classes,
    score_predictions,
)
from sweet_jax.settings.registries import METRICS


def _matthews(labels, predictions, sample_weight=None) -> float:
    # scikit-learn warns where labels and predictions are one and the same class, and
    # returns 0.
    if len({*labels, *predictions}) == 1:
        return 0.0
    return sklearn.metrics.matthews_corrcoef(
        labels, predictions, sample_weight=sample_weight
    )


def _f1(labels, predictions, sample_weight=None) -> float:
    # The same for class 1 where there is none.
    if not (np.any(labels == 1) or np.any(predictions == 1)):
        return 0.0
    return float(
        sklearn.metrics.f1_score(labels, predictions, sample_weight=sample_weight)
    )


def _macro_f1(labels, predictions, sample_weight=None) -> float:
    # Of the classes that occur: what scikit-learn does where it is not told others.
    return sklearn.metrics.f1_score(
        labels, predictions, average="macro", sample_weight=sample_weight
    )


def _balanced_accuracy(labels, predictions, sample_weight=None) -> float:
    # scikit-learn's own warns of classes that are predicted and no label.
    recalls = sklearn.metrics.recall_score(
        labels,
        predictions,
        labels=np.unique(labels),
        average=None,
        sample_weight=sample_weight,
        zero_division=0,
    )
    return float(np.mean(recalls))


ORACLES = {
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
    "accuracy": sklearn.metrics.accuracy_score,
    "matthews": _matthews,
    "f1": _f1,
}
fast = hypothesis.settings(max_examples=50)


@st.composite
def _answers(draw, num_classes):
    size = draw(st.integers(1, 12))
    classes = st.integers(0, num_classes - 1)
    labels, predictions = (
        draw(hnp.arrays(int, size, elements=classes)) for _ in range(2)
    )
    # Thirds do not sum exactly in binary.
    weights = draw(hnp.arrays(int, size, elements=st.integers(1, 5))) / 3
    return labels, predictions, weights


@pytest.mark.parametrize(
    ("metric", "num_classes"),
    [
        *(
            ("accuracy", 3),
            ("matthews", 2),
            ("matthews", 3),
            ("matthews", 7),
            ("f1", 2),
        ),
        *(("macro_f1", 2), ("macro_f1", 5), ("balanced_accuracy", 4)),
    ],
)
@fast
@hypothesis.given(data=st.data())
def test_scores_equal_scikit_learn(metric, num_classes, data):
    labels, predictions, weights = data.draw(_answers(num_classes))
    expected = ORACLES[metric](labels, predictions)
    np.testing.assert_allclose(
        score_predictions(metric, labels, predictions), expected, atol=1e-12
    )
    # In whole numbers, which change no score: with thirds and one class scikit-learn
    # takes the root of a rounding error below 0.
    whole = np.rint(3 * weights)
    weighted = ORACLES[metric](labels, predictions, sample_weight=whole)
    np.testing.assert_allclose(
        score_predictions(metric, labels, predictions, weights), weighted, atol=1e-9
    )


@pytest.mark.parametrize("metric", ORACLES)
def test_statistics_of_many_thresholds_are_scored_at_once(rng, metric):
    labels = rng.integers(0, 2, 30)
    predictions_TN = rng.integers(0, 2, (5, 30))
    scores_T = compute_score(
        metric,
        (predictions_TN == labels[None]).sum(axis=1),
        np.stack([np.bincount(row, minlength=2) for row in predictions_TN]),
        np.bincount(labels, minlength=2),
        np.stack(
            [np.bincount(labels[row == labels], minlength=2) for row in predictions_TN]
        ),
    )
    np.testing.assert_allclose(
        scores_T, [ORACLES[metric](labels, row) for row in predictions_TN]
    )


def test_degenerate_scores_are_0():
    labels, ones = np.array([0, 1, 1]), np.ones(3, int)
    thirds = np.full(3, 0.1)
    assert score_predictions("matthews", labels, ones) == 0
    found = (
        np.array([1, 5, *[3] * 10]) / 3
    )  # one class, weights that do not sum exactly
    none = np.zeros(12, int)
    assert score_predictions("matthews", none, (found != 1 / 3).astype(int), found) == 0
    assert score_predictions("matthews", ones, labels, thirds) == 0
    assert score_predictions("f1", np.zeros(3, int), np.zeros(3, int)) == 0


def test_wrong_metrics_are_refused():
    with pytest.raises(ValueError, match="allowed are accuracy, matthews, f1"):
        score_predictions("mcc", np.array([0]), np.array([0]))
    with pytest.raises(
        ValueError, match="3 classes: use accuracy, matthews or macro_f1"
    ):
        score_predictions("f1", np.array([0, 2]), np.array([0, 1]))


@fast
@hypothesis.given(data=st.data())
def test_scores_of_classes_equal_scikit_learn(data):
    labels, predictions, weights = data.draw(_answers(4))
    weights = np.rint(3 * weights)
    expected = sklearn.metrics.precision_recall_fscore_support(
        *(labels, predictions),
        labels=range(4),
        sample_weight=weights,
        zero_division=0,
    )
    counts = count_predictions(labels, predictions, weights, 4)
    for found, wanted in zip(score_classes(counts), expected[:3], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.usefixtures("registries")
def test_a_registered_metric_reads_labels_predictions_and_probabilities(rng):
    @register_metric("auc")
    def auc(labels, predictions, probabilities):
        np.testing.assert_array_equal(predictions, probabilities.argmax(axis=1))
        return sklearn.metrics.roc_auc_score(labels, probabilities[:, 1])

    labels, logits_NC = np.arange(30) % 2, rng.normal(size=(30, 2))
    weights = np.arange(30) % 3  # 0, 1 or 2 times
    found = score_predictions(
        "auc", labels, logits_NC.argmax(axis=1), weights.astype(float), logits_NC
    )
    scores_N = special.softmax(logits_NC, axis=1)[:, 1]
    expected = sklearn.metrics.roc_auc_score(labels, scores_N, sample_weight=weights)
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="fractional weights"):
        score_predictions("auc", labels, labels, weights / 2, logits_NC)


@pytest.mark.usefixtures("registries")
def test_more_is_better_under_every_metric(rng):
    register_metric("brier", _compute_brier, higher_is_better=False)
    labels, right = np.arange(6) % 3, 9 * np.eye(3)[np.arange(6) % 3]
    scores = [
        score_predictions("neg_brier", labels, labels, logits_NC=logits_NC)
        for logits_NC in (right, np.zeros((6, 3)), -right)
    ]
    assert 0 > scores[0] > scores[1] > scores[2]
    with pytest.raises(ValueError, match="did you mean neg_brier"):
        score_predictions("brier", labels, labels)


def _compute_brier(labels, predictions, probabilities) -> float:
    return np.mean((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda labels, predictions: 1.0, "fails \\(TypeError.*it takes labels, pred"),
        (lambda *rows: float("nan"), "returns nan: it must return one finite number"),
        (lambda *rows: "high", "fails \\(ValueError"),
        (lambda *rows: np.ones(3), "fails"),
        (lambda *rows: 1 / 0, "fails \\(ZeroDivisionError"),
        (lambda *rows: 1j, "fails"),
    ],
)
def test_what_is_no_metric_is_refused_in_one_line(fn, message):
    with pytest.raises(ValueError, match=message) as error:
        register_metric("mine", fn)
    assert "\n" not in str(error.value)
    assert "mine" not in METRICS


@pytest.mark.usefixtures("registries")
def test_a_metric_is_refused_for_a_task_that_it_cannot_score():
    check_metric("f1", 2, "sst2")
    with pytest.raises(
        ValueError, match=r"data\.metric=f1 does not fit mnli, which ha"
    ):
        check_metric("f1", 3, "mnli")

    def auc(labels, predictions, probabilities):
        return sklearn.metrics.roc_auc_score(labels, probabilities[:, 1])

    register_metric("auc", auc)
    check_metric("auc", 2, "sst2")
    with pytest.raises(
        ValueError, match=r"3 classes .*fails .*multi.*set data.metric to"
    ):
        check_metric("auc", 3, "mnli")
    register_metric(
        "three", lambda labels, *_: [None, None, None, 1.0][max(labels) + 1]
    )
    check_metric("three", 3, "mnli")


def test_nll_equals_scikit_learn(rng):
    logits_NC = rng.normal(0, 3, (40, 3)).astype(np.float32)
    labels_N, weights_N = rng.integers(0, 3, 40), rng.uniform(0.1, 2, 40)
    probs_NC = special.softmax(logits_NC.astype(np.float64), axis=1)
    np.testing.assert_allclose(
        compute_nll(logits_NC, labels_N, weights_N),
        sklearn.metrics.log_loss(labels_N, probs_NC, sample_weight=weights_N),
        rtol=1e-6,
    )


def test_nll_of_a_sure_mistake_is_finite():
    logits_NC = np.array([[1e4, 0.0]], np.float32)
    assert compute_nll(logits_NC, np.array([1])) == 1e4
