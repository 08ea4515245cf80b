"""How far confidences and learned scores can be trusted: calibration error and AUC."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from sweet_jax.arrays import Array

NUM_BINS = 15  # as in the released code


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence; the k-th contains (k/K, (k+1)/K].

    Attributes:
        confidence: mean confidence in the bin; NaN if it is empty.
        accuracy: share of correct predictions in the bin; NaN if it is empty.
        count: total weight of the rows in the bin.
    """

    confidence: Float[np.ndarray, " K"]
    accuracy: Float[np.ndarray, " K"]
    count: Float[np.ndarray, " K"]


def compute_reliability(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Returns accuracy against confidence, in bins of confidence."""
    weights_N = np.ones(len(labels_N)) if weights_N is None else weights_N
    logits_NC = np.asarray(logits_NC)
    # Not the argmax of the probabilities: softmax may round nearly equal logits to
    # ties.
    correct_N = logits_NC.argmax(axis=1) == labels_N
    confidence_N = special.softmax(logits_NC.astype(np.float64), axis=1).max(axis=1)
    # Bins include their upper edge. Rounding may give a confidence just above 1.
    bins_N = np.clip(np.ceil(confidence_N * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bins_N, weights_N, num_bins)
    divisor = np.where(count > 0, count, np.nan)
    return Reliability(
        np.bincount(bins_N, weights_N * confidence_N, num_bins) / divisor,
        np.bincount(bins_N, weights_N * correct_N, num_bins) / divisor,
        count,
    )


def compute_ece(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
    num_bins: int = NUM_BINS,
) -> float:
    """Returns the expected calibration error: the mean gap over bins of confidence."""
    bins = compute_reliability(logits_NC, labels_N, weights_N, num_bins)
    gaps = np.abs(bins.confidence - bins.accuracy)
    return float(np.nansum(gaps * bins.count) / bins.count.sum())


def compute_auc(
    scores_N: Float[np.ndarray, " N"],
    positive_N: Bool[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
) -> float | None:
    """Returns the ROC area: P(a positive row scores above a negative row).

    Equal scores count half. None if there are no positive or no negative rows.
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
