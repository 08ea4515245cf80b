"""Scores from sufficient statistics against scikit-learn, and calibration errors."""

import hypothesis
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from sweet_jax.evaluation.metrics import (
    compute_auc,
    compute_ece,
    compute_nll,
    compute_reliability,
    compute_score,
    score_predictions,
)


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


ORACLES = {
    "accuracy": sklearn.metrics.accuracy_score,
    "matthews": _matthews,
    "f1": _f1,
}
fast = hypothesis.settings(max_examples=50, deadline=None)


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
    [("accuracy", 3), ("matthews", 2), ("matthews", 3), ("matthews", 7), ("f1", 2)],
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


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "f1"])
def test_statistics_of_many_thresholds_are_scored_at_once(rng, metric):
    labels = rng.integers(0, 2, 30)
    predictions_TN = rng.integers(0, 2, (5, 30))
    scores_T = compute_score(
        metric,
        (predictions_TN == labels[None]).sum(axis=1),
        np.stack([np.bincount(row, minlength=2) for row in predictions_TN]),
        np.bincount(labels, minlength=2),
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
    with pytest.raises(ValueError, match="3 classes: use accuracy or matthews"):
        score_predictions("f1", np.array([0, 2]), np.array([0, 1]))


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


def test_ece_and_bins_by_hand():
    # 0.79, once right and once wrong, lies in (11/15, 12/15]; 0.9 in (13/15, 14/15].
    confidence_N = np.array([0.79, 0.79, 0.9])
    logits_NC = np.log(np.stack([confidence_N, 1 - confidence_N], axis=1))
    labels_N = np.array([0, 1, 0])
    bins = compute_reliability(logits_NC, labels_N)
    assert np.flatnonzero(bins.count).tolist() == [11, 13]
    np.testing.assert_array_equal(bins.count[[11, 13]], [2, 1])
    np.testing.assert_allclose(bins.confidence[[11, 13]], [0.79, 0.9])
    np.testing.assert_allclose(bins.accuracy[[11, 13]], [0.5, 1])
    assert np.isnan(bins.accuracy[0])
    np.testing.assert_allclose(
        compute_ece(logits_NC, labels_N), (2 * 0.29 + 0.1) / 3, rtol=1e-9
    )


def test_bins_close_above_and_hold_certainty():
    # Equal logits: confidence exactly 0.5 closes (0, 0.5]; 1 closes the last bin.
    logits_NC = np.array([[0.0, 0.0], [900.0, 0.0]])
    bins = compute_reliability(logits_NC, np.array([0, 0]), num_bins=2)
    np.testing.assert_array_equal(bins.count, [1, 1])


def test_logits_that_nearly_tie_are_answered_by_their_argmax():
    # Both probabilities round to 0.5, yet the exit answers 1.
    bins = compute_reliability(np.array([[-1e-30, 0.0]]), np.array([1]))
    assert bins.accuracy[bins.count > 0] == 1


@fast
@hypothesis.given(data=st.data())
def test_bins_partition_the_weight(data):
    num_rows = data.draw(st.integers(1, 9))
    logits_NC = data.draw(
        hnp.arrays(np.float32, (num_rows, 3), elements=st.floats(-50, 50, width=32))
    )
    labels_N = data.draw(hnp.arrays(int, num_rows, elements=st.integers(0, 2)))
    weights_N = np.arange(1, num_rows + 1) / 4
    bins = compute_reliability(logits_NC, labels_N, weights_N)
    assert bins.count.sum() == weights_N.sum()
    right = weights_N[logits_NC.argmax(axis=1) == labels_N].sum()
    np.testing.assert_allclose(np.nansum(bins.accuracy * bins.count), right)


@fast
@hypothesis.given(answers=_answers(2), data=st.data())
def test_auc_is_that_of_scikit_learn(answers, data):
    labels, _, weights = answers
    # Few values, so that many tie.
    scores = data.draw(
        hnp.arrays(np.float32, len(labels), elements=st.sampled_from([0.0, 0.1, 0.7]))
    )
    got = compute_auc(scores, labels == 1, weights)
    if len(set(labels.tolist())) < 2:
        assert got is None
    else:
        expected = sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights)
        assert got == pytest.approx(expected)
