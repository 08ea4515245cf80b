"""Scores of predictions, and calibration errors.

Our own metrics are functions of counts (weight answered correctly, weight predicted per
class), which are sums over examples: a whole curve of thresholds is scored in one
vectorised call. A registered metric (`register_metric`, docs/extending.md) is any
function of labels, predictions and probabilities; it is called once for each set of
predictions, so curves have fewer points under it (`curves.make_curve`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import special

from sweet_jax.arrays import Array, LogitBank
from sweet_jax.exits.temperatures import compute_nll as compute_nll
from sweet_jax.settings.registries import METRICS

NUM_BINS = 15  # as in the released code
RowsFn: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


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


class Counts(NamedTuple):
    """Sums over examples for one set of predictions or many (`*T`).

    Attributes:
        correct: weight of the rows predicted correctly.
        predicted_C: weight of the rows predicted as each class.
        labels_C: weight of the rows of each class; one set for all predictions, or one
            each where every prediction is of rows of its own.
        hits_C: weight of the rows of each class that are predicted as it; None where
            the metric does not read it.
    """

    correct: Num[np.ndarray, "*T"]
    predicted_C: Num[np.ndarray, "*T C"]
    labels_C: Num[np.ndarray, "*#T C"]
    hits_C: Num[np.ndarray, "*T C"] | None = None


class Metric(NamedTuple):
    """What is registered as a metric: one of the two functions, and what it reads.

    Attributes:
        counts_fn: maps `Counts` to scores.
        rows_fn: maps (labels_N, predictions_N, probabilities_NC) to a score.
        reads_hits: of the counts.
    """

    counts_fn: Callable[[Counts], np.ndarray] | None = None
    rows_fn: RowsFn | None = None
    reads_hits: bool = False


def _accuracy(counts: Counts) -> np.ndarray:
    return np.asarray(counts.correct / counts.labels_C.sum(axis=-1))


def _matthews(counts: Counts) -> np.ndarray:
    """Multi-class Matthews correlation (R_K); 0 where one side has a single class."""
    correct, predicted_C, labels_C, _ = counts
    total = labels_C.sum(axis=-1)
    covariance = correct * total - (predicted_C * labels_C).sum(axis=-1)
    spread_predicted = total**2 - (predicted_C**2).sum(axis=-1)
    spread_labels = total**2 - (labels_C**2).sum(axis=-1)
    # A single class gives 0 but for the rounding of fractional weights; two classes
    # give at least about 2 / N of total squared.
    tiny = 1e-12 * total**2
    defined = (spread_predicted > tiny) & (spread_labels > tiny)
    product = np.where(defined, spread_predicted * spread_labels, 1.0)
    return np.where(defined, covariance / np.sqrt(product), 0.0)


def _f1(counts: Counts) -> np.ndarray:
    """Binary F1 of class 1; 0 where class 1 is neither a label nor predicted."""
    correct, predicted_C, labels_C, _ = counts
    if labels_C.shape[-1] != 2:
        raise ValueError(
            f"metric='f1' is the F1 of class 1 of two, the task has"
            f" {labels_C.shape[-1]} classes: use accuracy, matthews or macro_f1"
        )
    # True negatives are N - predicted_1 - labels_1 + true positives, and correct is the
    # sum of both, so the true positives follow.
    both = predicted_C[..., 1] + labels_C[..., 1]
    twice_true_positives = correct - labels_C.sum(axis=-1) + both
    return np.where(both > 0, twice_true_positives / np.where(both > 0, both, 1), 0.0)


def _macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 of the classes that are a label or predicted, as in scikit-learn."""
    assert counts.hits_C is not None
    both_C = counts.predicted_C + counts.labels_C
    f1_C = 2 * _divide(counts.hits_C, both_C)
    return np.asarray(f1_C.sum(axis=-1) / (both_C > 0).sum(axis=-1))


def _balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall of the classes that have rows."""
    assert counts.hits_C is not None
    recall_C = _divide(counts.hits_C, counts.labels_C)
    return np.asarray(recall_C.sum(axis=-1) / (counts.labels_C > 0).sum(axis=-1))


def _divide(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Returns the quotient, 0 where there is nothing to divide by."""
    return counts / np.where(totals > 0, totals, 1)


def _check_metric(name: str, value: Any) -> None:
    """Raises ValueError if what is registered as a metric is none."""
    if not isinstance(value, Metric):
        raise ValueError(
            f"metric {name!r} is a {type(value).__name__}: register it with"
            " sweet_jax.register_metric, from a function of labels, predictions and"
            " probabilities"
        )
    try:
        _try_out(name, value, 2)
    except ValueError as first:
        # It may be for more classes than two.
        try:
            _try_out(name, value, 3)
        except ValueError:
            raise first from None


for _name, _metric in {
    "accuracy": Metric(_accuracy),
    "matthews": Metric(_matthews),
    "f1": Metric(_f1),
    "macro_f1": Metric(_macro_f1, reads_hits=True),
    "balanced_accuracy": Metric(_balanced_accuracy, reads_hits=True),
}.items():
    METRICS.register(_name, _metric)
METRICS.check = _check_metric


@overload
def register_metric(
    name: str, fn: RowsFn, *, higher_is_better: bool = ..., replace: bool = ...
) -> RowsFn: ...
@overload
def register_metric(
    name: str, fn: None = None, *, higher_is_better: bool = ..., replace: bool = ...
) -> Callable[[RowsFn], RowsFn]: ...
def register_metric(
    name: Any,
    fn: Any = None,
    *,
    higher_is_better: bool = True,
    replace: bool = False,
) -> Any:
    """Adds a metric for `data.metric`, or without `fn` returns a decorator that does.

    Args:
        name: what `data.metric` calls it.
        fn: maps (labels [N], predictions [N], probabilities [N, C]) to one finite
            number. Labels and predictions are class numbers; probabilities are
            calibrated.
        higher_is_better: otherwise the metric is called `neg_NAME` and its scores are
            negated, as in scikit-learn: thresholds, areas and studies take more for
            better.
        replace: take the name over from an earlier registration.

    Raises:
        ValueError: the name is taken, or the function fails on random predictions.
    """
    if fn is None:
        METRICS.check_new(name, replace)
        return lambda fn: register_metric(
            name, fn, higher_is_better=higher_is_better, replace=replace
        )
    rows_fn: RowsFn = fn
    if not callable(rows_fn):
        raise ValueError(
            f"metric {name!r} is a {type(fn).__name__}: give a function of labels,"
            " predictions and probabilities"
        )
    if higher_is_better:
        METRICS.register(name, Metric(rows_fn=rows_fn), replace=replace)
    else:
        negated = Metric(rows_fn=lambda *rows: -rows_fn(*rows))
        METRICS.register(f"neg_{name}", negated, replace=replace)
    return fn


def find_metric(name: str) -> Metric:
    """Returns the metric of a name.

    Raises:
        ValueError: the name is unknown.
    """
    return METRICS.lookup(name)


def check_metric(metric: str, num_classes: int, task: str) -> None:
    """Raises ValueError if a metric cannot score a task, before any work is done.

    Args:
        metric: a name.
        num_classes: C.
        task: its name, for the message.
    """
    try:
        _try_out(metric, find_metric(metric), num_classes)
    except ValueError as error:
        raise ValueError(
            f"data.metric={metric} does not fit {task}, which has {num_classes} classes"
            f" ({error}): set data.metric to accuracy, matthews or macro_f1"
        ) from error


def _try_out(name: str, metric: Metric, num_classes: int) -> None:
    """Raises ValueError if the metric fails on random predictions."""
    rng = np.random.default_rng(0)
    labels = np.arange(max(40, 4 * num_classes)) % num_classes
    probabilities = rng.dirichlet(np.ones(num_classes), len(labels))
    predictions = probabilities.argmax(axis=1)
    _score(name, metric, labels, predictions, np.ones(len(labels)), probabilities)


def reads_rows(metric: str) -> bool:
    """Whether a metric is called for each set of predictions, and so is slow."""
    return find_metric(metric).counts_fn is None


def reads_hits(metric: str) -> bool:
    """Whether a metric needs `Counts.hits_C`."""
    return find_metric(metric).reads_hits


def compute_score(
    metric: str,
    correct: Num[np.ndarray, "*T"],
    predicted_counts_C: Num[np.ndarray, "*T C"],
    label_counts_C: Num[np.ndarray, "*#T C"],
    hits_C: Num[np.ndarray, "*T C"] | None = None,
) -> Float[np.ndarray, "*T"]:
    """Returns the score of each set of predictions of labelled rows.

    Args:
        metric: a metric of counts, one of ours.
        correct: see `Counts`.
        predicted_counts_C: see `Counts`.
        label_counts_C: see `Counts`.
        hits_C: see `Counts`; None unless `reads_hits`.

    Returns:
        Scores of the shape of `correct`. A degenerate Matthews or F1 is 0, as in
        scikit-learn.

    Raises:
        ValueError: the metric is unknown, or `f1` meets other than two classes.
    """
    counts_fn = find_metric(metric).counts_fn
    assert counts_fn is not None, f"{metric} is a function of rows"
    return counts_fn(
        Counts(
            np.asarray(correct, np.float64),
            np.asarray(predicted_counts_C, np.float64),
            np.asarray(label_counts_C, np.float64),
            None if hits_C is None else np.asarray(hits_C, np.float64),
        )
    )


def score_predictions(
    metric: str,
    labels: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None = None,
    logits_NC: Float[Array, "N C"] | None = None,
) -> float:
    """Returns the score of one prediction per row.

    Args:
        metric: a name.
        labels: class numbers.
        predictions: class numbers.
        weights: of the rows; None: each counts once.
        logits_NC: what the predictions follow from, for metrics of probabilities.

    Raises:
        ValueError: the metric is unknown, or it fails; as `compute_score`.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    row = find_metric(metric)
    probabilities_NC = None
    if row.rows_fn is not None:
        assert logits_NC is not None, f"{metric} reads probabilities"
        probabilities_NC = special.softmax(np.asarray(logits_NC, np.float64), axis=1)
    return _score(metric, row, labels, predictions, weights, probabilities_NC)


def _score(
    name: str,
    metric: Metric,
    labels_N: np.ndarray,
    predictions_N: np.ndarray,
    weights_N: np.ndarray,
    probabilities_NC: np.ndarray | None,
) -> float:
    if metric.counts_fn is not None:
        width = 0 if probabilities_NC is None else probabilities_NC.shape[1]
        counts = count_predictions(labels_N, predictions_N, weights_N, width)
        return float(metric.counts_fn(counts))
    assert metric.rows_fn is not None
    assert probabilities_NC is not None
    times_N = np.rint(weights_N).astype(int)
    if not np.array_equal(times_N, weights_N):
        raise ValueError(
            f"metric {name!r} takes rows, and these have fractional weights"
        )
    rows = (labels_N, predictions_N, probabilities_NC)
    try:
        score = metric.rows_fn(*(np.repeat(part, times_N, axis=0) for part in rows))
        score = float(score)
    except Exception as error:  # Of somebody else's code.
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"metric {name!r} fails ({type(error).__name__}: {line[:200]}): it takes"
            " labels, predictions and probabilities, and returns one number"
        ) from error
    if not math.isfinite(score):
        raise ValueError(
            f"metric {name!r} returns {score}: it must return one finite number for any"
            " predictions"
        )
    return score


def score_exits_alone(metric: str, bank: LogitBank) -> float:
    """Returns the mean over exits of the score of each, answering every row.

    Args:
        metric: a name.
        bank: outputs before temperature; rows count once.
    """
    scores = [
        score_predictions(
            metric, bank.labels, logits_NC.argmax(axis=1), logits_NC=logits_NC
        )
        for logits_NC in bank.logits.transpose(1, 0, 2)
    ]
    return float(np.mean(scores))


def count_predictions(
    labels_N: Int[np.ndarray, " N"],
    predictions_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int = 0,
) -> Counts:
    """Returns the counts of one prediction per row.

    Args:
        labels_N: class numbers.
        predictions_N: class numbers.
        weights_N: of the rows.
        num_classes: C, if it is known to be higher than the classes that occur.
    """
    highest = max(2, int(labels_N.max()) + 1, int(predictions_N.max()) + 1)
    is_right_N = labels_N == predictions_N
    sizes = max(num_classes, highest)
    return Counts(
        np.asarray(np.sum(weights_N, where=is_right_N)),
        np.bincount(predictions_N, weights_N, sizes),
        np.bincount(labels_N, weights_N, sizes),
        np.bincount(labels_N, weights_N * is_right_N, sizes),
    )


class ClassScores(NamedTuple):
    """Scores of each class; 0 where there is nothing to divide by.

    Attributes:
        precision: share of the rows predicted as the class that are of it.
        recall: share of the rows of the class that are predicted as it.
        f1: harmonic mean of both.
    """

    precision: Float[np.ndarray, " C"]
    recall: Float[np.ndarray, " C"]
    f1: Float[np.ndarray, " C"]


def score_classes(counts: Counts) -> ClassScores:
    """Returns precision, recall and F1 of each class."""
    assert counts.hits_C is not None
    hits_C, both_C = counts.hits_C, counts.predicted_C + counts.labels_C
    return ClassScores(
        _divide(hits_C, counts.predicted_C),
        _divide(hits_C, counts.labels_C),
        2 * _divide(hits_C, both_C),
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
