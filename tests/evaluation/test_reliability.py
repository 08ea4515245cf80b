"""Calibration error and AUC against slow definitions."""

import hypothesis
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sweet_jax.evaluation.reliability import (
    compute_auc,
    compute_ece,
    compute_reliability,
)

fast = hypothesis.settings(max_examples=50)


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
@hypothesis.given(data=st.data())
def test_auc_is_that_of_scikit_learn(data):
    size = data.draw(st.integers(1, 12))
    labels = data.draw(hnp.arrays(int, size, elements=st.integers(0, 1)))
    # Thirds do not sum exactly in binary.
    weights = data.draw(hnp.arrays(int, size, elements=st.integers(1, 5))) / 3
    # Few values, so that many tie.
    scores = data.draw(
        hnp.arrays(np.float32, size, elements=st.sampled_from([0.0, 0.1, 0.7]))
    )
    got = compute_auc(scores, labels == 1, weights)
    if len(set(labels.tolist())) < 2:
        assert got is None
    else:
        expected = sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights)
        assert got == pytest.approx(expected)
