"""Speed-accuracy curves of calibrated logit banks, and how thresholds are chosen."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sweet_jax.evaluation import cascade, metrics
from sweet_jax.exits.calibration import CalibratedBank
from sweet_jax.exits.criteria import threshold_range

# Costs are means of float64 fractions: the mean of many 1/12 may exceed 1/12 by a
# rounding error, and must still satisfy a budget of 1/12.
_COST_TOLERANCE = 1e-9
# Number of curve points for a metric that must be called once per point.
MOST_SLOW_POINTS = 100


@dataclasses.dataclass(frozen=True)
class Curve:
    """The trade-off of one criterion on one set of examples, by ascending threshold.

    Attributes:
        threshold: float32; `FULL` runs every exit.
        score: the task's metric.
        accuracy: share of correct predictions.
        cost_fraction: mean layers run / layers of the full model; ascending.
        exit_counts: total weight of the examples that leave at each exit.
    """

    threshold: Float[np.ndarray, " K"]
    score: Float[np.ndarray, " K"]
    accuracy: Float[np.ndarray, " K"]
    cost_fraction: Float[np.ndarray, " K"]
    exit_counts: Float[np.ndarray, "K E"]

    def find(self, threshold: float) -> int:
        """Returns the index of the exact curve's point for any given threshold."""
        return int(np.searchsorted(self.threshold, np.float32(threshold)))

    def read_at(self, costs_K: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        """Returns the scores of an exact curve at given costs, NaN outside its range.

        The threshold follows from the cost and reads no label, so methods can be
        compared at equal cost on the scored rows themselves. Scores are interpolated
        linearly between thresholds.
        """
        low, high = self.cost_fraction[0], self.cost_fraction[-1]
        within_K = (costs_K >= low - _COST_TOLERANCE) & (
            costs_K <= high + _COST_TOLERANCE
        )
        scores_K = np.interp(costs_K, self.cost_fraction, self.score)
        return np.where(within_K, scores_K, np.nan)


def make_curve(
    rows: CalibratedBank,
    criterion: str,
    metric: str,
    costs_E: Float[np.ndarray, " E"],
    thresholds_T: Float[np.ndarray, " T"] | None = None,
    also: Sequence[float] = (),
) -> Curve:
    """Returns the curve at the given thresholds, or the exact curve without them.

    A metric that must be called for each set of predictions is too slow for thousands
    of
    points: the exact curve then has `MOST_SLOW_POINTS` of them, spread over the costs.

    Args:
        rows: the examples.
        criterion: a name in `CRITERIA`.
        metric: name of the metric.
        costs_E: cost of leaving at each exit.
        thresholds_T: ascending; None: all that change the cascade.
        also: thresholds whose points the exact curve always includes.
    """
    bank = rows.bank
    examples = (rows.predictions, bank.labels, bank.weights, rows.num_classes)
    scores_NE, with_hits = rows.score(criterion), metrics.reads_hits(metric)
    if thresholds_T is None:
        low, _ = threshold_range(criterion, rows.num_classes, bank.num_exits)
        sums = cascade.exact_curve(scores_NE, *examples, low, with_hits)
    else:
        sums = cascade.sweep(scores_NE, thresholds_T, *examples, with_hits)
    counts = (sums.correct, sums.predicted_counts, rows.label_counts, sums.hits)
    accuracy = metrics.compute_score("accuracy", *counts)
    costs = sums.exit_counts @ costs_E / rows.label_counts.sum()
    if not metrics.reads_rows(metric):
        score = metrics.compute_score(metric, *counts)
        return Curve(sums.thresholds, score, accuracy, costs, sums.exit_counts)
    kept = np.arange(len(costs))
    if thresholds_T is None:
        spread = np.linspace(costs[0], costs[-1], MOST_SLOW_POINTS)
        wanted = np.searchsorted(sums.thresholds, np.array(also, np.float32))
        kept = np.unique([*np.searchsorted(costs, spread), *wanted, len(costs) - 1])
        kept = kept[kept < len(costs)]
    thresholds = sums.thresholds[kept]
    exits_TN = np.asarray(cascade.choose_exits(scores_NE, thresholds))
    score = np.array([score_exits(rows, metric, exits_N) for exits_N in exits_TN])
    return Curve(thresholds, score, accuracy[kept], costs[kept], sums.exit_counts[kept])


def score_exits(
    rows: CalibratedBank, metric: str, exits_N: Int[np.ndarray, " N"]
) -> float:
    """Returns the score if each example leaves at its given exit."""
    places_N = np.arange(len(exits_N))
    bank = rows.bank
    return metrics.score_predictions(
        metric,
        bank.labels,
        rows.predictions[places_N, exits_N],
        bank.weights,
        bank.logits[places_N, exits_N],
    )


def compute_area(curve: Curve, first_cost: float) -> float:
    """Returns the best score at cost <= c, averaged over c from `first_cost` to 1.

    Args:
        curve: an exact curve; the best score is a step function of c on it.
        first_cost: cost of exit 0. If it is 1 (a single exit), the area is the score.
    """
    order = np.argsort(curve.cost_fraction, kind="stable")
    # Mean costs may miss first_cost by a rounding error. Points with a cost above 1
    # come last in `best`, and clipping gives them a width of 0.
    costs = np.clip(curve.cost_fraction[order], first_cost, 1.0)
    if first_cost == 1:
        return float(curve.score[order[0]])
    best = np.maximum.accumulate(curve.score[order])
    return float(best @ np.diff(costs, append=1.0) / (1 - first_cost))


def find_most_expensive(curve: Curve, max_cost: float) -> int | None:
    """Returns the index of the highest cost that is at most `max_cost`, or None.

    Among equal costs it takes the lowest threshold: if the budget allows only exit 0,
    that is the criterion's lowest, so that all other rows leave at exit 0, too. It
    reads no label.
    """
    within = np.flatnonzero(curve.cost_fraction <= max_cost + _COST_TOLERANCE)
    if not len(within):
        return None
    # Cost rises along the curve.
    return int(np.searchsorted(curve.cost_fraction, curve.cost_fraction[within[-1]]))


def find_best(curve: Curve, max_cost: float) -> int | None:
    """Returns the index of the best score at cost <= `max_cost`, or None.

    Ties go to the lower cost. It reads labels: on the rows that are reported, this
    score is biased upwards.
    """
    within = np.flatnonzero(curve.cost_fraction <= max_cost + _COST_TOLERANCE)
    if not len(within):
        return None
    # Cost rises along the curve and argmax takes the first of equal scores.
    return int(within[np.argmax(curve.score[within])])
