"""Scores of predictions: our metrics, and registered ones.

Our own metrics are functions of counts (weight of correct predictions, weight predicted
per class). Counts are sums over examples, so one vectorised call scores a whole curve.
A registered metric (`register_metric`, docs/extending.md) is any function of labels,
predictions and probabilities; it is called once for each set of predictions, so its
curves have fewer points (`curves.make_curve`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
from jaxtyping import Float, Int, Num

from sweet_jax.arrays import Array, LogitBank
from sweet_jax.exits.temperatures import compute_nll as compute_nll
from sweet_jax.settings.registries import METRICS
from sweet_jax.system.errors import describe_error

RowsFn: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


class Counts(NamedTuple):
    """Sums over examples for one or several (`*T`) sets of predictions.

    Attributes:
        correct: total weight of the correct predictions.
        predicted_C: total weight of the predictions of each class.
        labels_C: total weight of the rows of each class; shared by all sets of
            predictions, or one per set if each has its own rows.
        hits_C: total weight of the correct predictions of each class; None if the
            metric does not use it.
    """

    correct: Num[np.ndarray, "*T"]
    predicted_C: Num[np.ndarray, "*T C"]
    labels_C: Num[np.ndarray, "*#T C"]
    hits_C: Num[np.ndarray, "*T C"] | None = None


class Metric(NamedTuple):
    """A registered metric: exactly one of the two functions is given.

    Attributes:
        counts_fn: maps `Counts` to scores.
        rows_fn: maps (labels_N, predictions_N, probabilities_NC) to a score.
        reads_hits: whether `counts_fn` needs `Counts.hits_C`.
    """

    counts_fn: Callable[[Counts], np.ndarray] | None = None
    rows_fn: RowsFn | None = None
    reads_hits: bool = False


def _accuracy(counts: Counts) -> np.ndarray:
    return np.asarray(counts.correct / counts.labels_C.sum(axis=-1))


def _matthews(counts: Counts) -> np.ndarray:
    """Multi-class Matthews correlation (R_K); 0 if one side has a single class."""
    correct, predicted_C, labels_C, _ = counts
    total = labels_C.sum(axis=-1)
    covariance = correct * total - (predicted_C * labels_C).sum(axis=-1)
    spread_predicted = total**2 - (predicted_C**2).sum(axis=-1)
    spread_labels = total**2 - (labels_C**2).sum(axis=-1)
    # A single class gives 0 up to rounding of fractional weights; two classes give at
    # least about 2 / N of total squared.
    tiny = 1e-12 * total**2
    defined = (spread_predicted > tiny) & (spread_labels > tiny)
    product = np.where(defined, spread_predicted * spread_labels, 1.0)
    return np.where(defined, covariance / np.sqrt(product), 0.0)


def _f1(counts: Counts) -> np.ndarray:
    """Binary F1 of class 1; 0 if class 1 is neither a label nor predicted."""
    correct, predicted_C, labels_C, _ = counts
    if labels_C.shape[-1] != 2:
        raise ValueError(
            f"metric='f1' is the F1 of class 1 of two classes, but the task has"
            f" {labels_C.shape[-1]} classes: use accuracy, matthews or macro_f1"
        )
    # correct = true positives + true negatives, and true negatives =
    # N - predicted_1 - labels_1 + true positives; solved for the true positives.
    both = predicted_C[..., 1] + labels_C[..., 1]
    twice_true_positives = correct - labels_C.sum(axis=-1) + both
    return np.where(both > 0, twice_true_positives / np.where(both > 0, both, 1), 0.0)


def _macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 over classes that are a label or a prediction, as in scikit-learn."""
    assert counts.hits_C is not None
    both_C = counts.predicted_C + counts.labels_C
    f1_C = 2 * _divide(counts.hits_C, both_C)
    return np.asarray(f1_C.sum(axis=-1) / (both_C > 0).sum(axis=-1))


def _balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall over the classes that have rows."""
    assert counts.hits_C is not None
    recall_C = _divide(counts.hits_C, counts.labels_C)
    return np.asarray(recall_C.sum(axis=-1) / (counts.labels_C > 0).sum(axis=-1))


def _divide(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Returns the quotient, 0 where the divisor is 0."""
    return counts / np.where(totals > 0, totals, 1)


def _check_metric(name: str, value: Any) -> None:
    """Raises ValueError if the registered object is not a metric."""
    if not isinstance(value, Metric):
        raise ValueError(
            f"metric {name!r} is a {type(value).__name__}: register it with"
            " sweet_jax.register_metric, from a function of labels, predictions and"
            " probabilities"
        )
    try:
        _try_out(name, value, 2)
    except ValueError as first:
        # A metric may need more than two classes.
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
    """Registers a metric for `data.metric`; without `fn`, returns a decorator.

    Args:
        name: the name for `data.metric`.
        fn: maps (labels [N], predictions [N], probabilities [N, C]) to one finite
            number. Labels and predictions are class numbers; probabilities are
            calibrated.
        higher_is_better: False: the metric gets the name `neg_NAME` and its scores are
            negated, as in scikit-learn, so that a higher score is always better.
        replace: allows a name that is already registered.

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
        metric: name of the metric.
        num_classes: number of classes C.
        task: name of the task, for the message.
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
    """Whether a metric must be called for each set of predictions, which is slow."""
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
        metric: one of our metrics, which are functions of counts.
        correct: see `Counts`.
        predicted_counts_C: see `Counts`.
        label_counts_C: see `Counts`.
        hits_C: see `Counts`; None unless `reads_hits`.

    Returns:
        Scores of the shape of `correct`. A degenerate Matthews or F1 is 0, as in
        scikit-learn.

    Raises:
        ValueError: the metric is unknown, or it is `f1` and there are not two classes.
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
        metric: name of the metric.
        labels: class numbers.
        predictions: class numbers.
        weights: weight of each row; None: 1.
        logits_NC: logits of the predictions, for metrics that read probabilities.

    Raises:
        ValueError: the metric is unknown or fails; see also `compute_score`.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    row = find_metric(metric)
    probabilities_NC = None
    if row.rows_fn is not None:
        from scipy import special  # Slow to import, and serving does not call this.

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
        raise ValueError(f"metric {name!r} cannot score rows with fractional weights")
    rows = (labels_N, predictions_N, probabilities_NC)
    try:
        score = metric.rows_fn(*(np.repeat(part, times_N, axis=0) for part in rows))
        score = float(score)
    except Exception as error:  # A registered function may raise anything.
        raise ValueError(
            f"metric {name!r} fails ({describe_error(error)}): it takes labels,"
            " predictions and probabilities, and returns one number"
        ) from error
    if not math.isfinite(score):
        raise ValueError(
            f"metric {name!r} returns {score}: it must return one finite number for any"
            " predictions"
        )
    return score


def score_exits_alone(metric: str, bank: LogitBank) -> float:
    """Returns the mean over exits of the score of each exit on all rows.

    Args:
        metric: name of the metric.
        bank: outputs before temperature scaling; all rows have weight 1.
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
        weights_N: weight of each row.
        num_classes: at least this many classes, if not all of them occur in the rows.
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
    """Scores of each class; 0 where the divisor is 0.

    Attributes:
        precision: correct predictions of the class / all predictions of the class.
        recall: correct predictions of the class / rows of the class.
        f1: harmonic mean of precision and recall.
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
