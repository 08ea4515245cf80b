"""Scores of predictions, from sufficient statistics, and calibration errors.

The statistics of a cascade (weight answered correctly, weight predicted per class) are
sums over examples, so a whole curve of thresholds is scored in one vectorised call.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import special

from sweet_jax.arrays import Array
from sweet_jax.exits.temperatures import compute_nll as compute_nll

NUM_BINS = 15  # as in the released code


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence, the k-th holding (k/K, (k+1)/K].

    Attributes:
        confidence: mean confidence of the bin's rows; NaN where it is empty.
        accuracy: share of them that is right; NaN where it is empty.
        count: weight of the rows in the bin.
    """

    confidence: Float[np.ndarray, " K"]
    accuracy: Float[np.ndarray, " K"]
    count: Float[np.ndarray, " K"]


def _accuracy(
    correct: np.ndarray, predicted_counts_C: np.ndarray, label_counts_C: np.ndarray
) -> np.ndarray:
    return np.asarray(correct / label_counts_C.sum(axis=-1))


def _matthews(
    correct: np.ndarray, predicted_counts_C: np.ndarray, label_counts_C: np.ndarray
) -> np.ndarray:
    """Multi-class Matthews correlation (R_K); 0 where one side has a single class."""
    total = label_counts_C.sum(axis=-1)
    covariance = correct * total - (predicted_counts_C * label_counts_C).sum(axis=-1)
    spread_predicted = total**2 - (predicted_counts_C**2).sum(axis=-1)
    spread_labels = total**2 - (label_counts_C**2).sum(axis=-1)
    # A single class gives 0 but for the rounding of fractional weights; two classes
    # give at least about 2 / N of total squared.
    tiny = 1e-12 * total**2
    defined = (spread_predicted > tiny) & (spread_labels > tiny)
    product = np.where(defined, spread_predicted * spread_labels, 1.0)
    return np.where(defined, covariance / np.sqrt(product), 0.0)


def _f1(
    correct: np.ndarray, predicted_counts_C: np.ndarray, label_counts_C: np.ndarray
) -> np.ndarray:
    """Binary F1 of class 1; 0 where class 1 is neither a label nor predicted."""
    if label_counts_C.shape[-1] != 2:
        raise ValueError(
            f"metric='f1' is the F1 of class 1 of two, the task has"
            f" {label_counts_C.shape[-1]} classes: use accuracy or matthews"
        )
    # True negatives are N - predicted_1 - labels_1 + true positives, and correct is the
    # sum of both, so the true positives follow.
    both = predicted_counts_C[..., 1] + label_counts_C[..., 1]
    twice_true_positives = correct - label_counts_C.sum(axis=-1) + both
    return np.where(both > 0, twice_true_positives / np.where(both > 0, both, 1), 0.0)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "matthews": _matthews,
    "f1": _f1,
}


def compute_score(
    metric: str,
    correct: Num[np.ndarray, "*T"],
    predicted_counts_C: Num[np.ndarray, "*T C"],
    label_counts_C: Num[np.ndarray, "*#T C"],
) -> Float[np.ndarray, "*T"]:
    """Returns the score of each set of predictions of labelled rows.

    Args:
        metric: `accuracy`, `matthews` (multi-class) or `f1` (of class 1 of two).
        correct: weight of the rows predicted correctly.
        predicted_counts_C: weight of the rows predicted as each class.
        label_counts_C: weight of the rows of each class; one set for all predictions,
            or one each where every prediction is of rows of its own.

    Returns:
        Scores of the shape of `correct`. A degenerate Matthews or F1 is 0, as in
        scikit-learn.

    Raises:
        ValueError: the metric is unknown, or `f1` meets other than two classes.
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}: allowed are {', '.join(METRICS)}")
    return METRICS[metric](
        np.asarray(correct, np.float64),
        np.asarray(predicted_counts_C, np.float64),
        np.asarray(label_counts_C, np.float64),
    )


def score_predictions(
    metric: str,
    labels: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
) -> float:
    """Returns the score of one prediction per row; raises as `compute_score` does."""
    weights = np.ones(len(labels)) if weights is None else weights
    num_classes = max(2, int(labels.max()) + 1, int(predictions.max()) + 1)
    return float(
        compute_score(
            metric,
            np.asarray(np.sum(weights, where=labels == predictions)),
            np.bincount(predictions, weights, num_classes),
            np.bincount(labels, weights, num_classes),
        )
    )


def compute_reliability(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Returns how often an exit is right against how sure it is."""
    weights_N = np.ones(len(labels_N)) if weights_N is None else weights_N
    logits_NC = np.asarray(logits_NC)
    # Not the argmax of the probabilities, where logits that nearly tie are equal.
    correct_N = logits_NC.argmax(axis=1) == labels_N
    confidence_N = special.softmax(logits_NC.astype(np.float64), axis=1).max(axis=1)
    # Bins are closed above. Rounding may give a confidence just above 1.
    bins_N = np.clip(np.ceil(confidence_N * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bins_N, weights_N, num_bins)
    divisor = np.where(count > 0, count, np.nan)
    return Reliability(
        np.bincount(bins_N, weights_N * confidence_N, num_bins) / divisor,
        np.bincount(bins_N, weights_N * correct_N, num_bins) / divisor,
        count,
    )


def compute_auc(
    scores_N: Float[np.ndarray, " N"],
    positive_N: Bool[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
) -> float | None:
    """Returns the chance that a positive row scores above a negative one (ROC area).

    Equal scores count half. None where there are no two rows to compare.
    """
    weights_N = np.ones(len(scores_N)) if weights_N is None else weights_N
    values, ranks_N = np.unique(scores_N, return_inverse=True)
    positive, negative = (
        np.bincount(ranks_N, np.where(chosen, weights_N, 0), len(values))
        for chosen in (positive_N, ~positive_N)
    )
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / pairs)


def compute_ece(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
    num_bins: int = NUM_BINS,
) -> float:
    """Returns the expected calibration error: the mean gap of `compute_reliability`."""
    bins = compute_reliability(logits_NC, labels_N, weights_N, num_bins)
    gaps = np.abs(bins.confidence - bins.accuracy)
    return float(np.nansum(gaps * bins.count) / bins.count.sum())
