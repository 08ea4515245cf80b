"""Speed-accuracy curves of calibrated logit banks, and how thresholds are chosen."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import cascade, metrics
from sweet_jax.exits.criteria import compute_scores, threshold_range
from sweet_jax.exits.learned import scale_lte
from sweet_jax.exits.temperatures import apply_temperatures

# Costs are means of float64 fractions: 1/12 for every example may average to an ulp
# more than 1/12, which must still satisfy a budget of 1/12.
_COST_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Curve:
    """The trade-off of one criterion on one set of examples, by rising threshold.

    Attributes:
        threshold: float32; `FULL` runs every exit.
        score: the task's metric.
        accuracy: the share answered correctly.
        cost_fraction: mean layers run / layers of the full model; rises.
        exit_counts: weight of the examples that leave at each exit.
    """

    threshold: Float[np.ndarray, " K"]
    score: Float[np.ndarray, " K"]
    accuracy: Float[np.ndarray, " K"]
    cost_fraction: Float[np.ndarray, " K"]
    exit_counts: Float[np.ndarray, "K E"]

    def find(self, threshold: float) -> int:
        """Returns the point of an exact curve that holds at any given threshold."""
        return int(np.searchsorted(self.threshold, np.float32(threshold)))

    def read_at(self, costs_K: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        """Returns the scores of an exact curve at given costs, NaN outside of it.

        The threshold follows from the cost alone: no label has a say in it, so that
        methods are compared at equal cost on the very rows that are scored. Between
        two thresholds scores go in a straight line.
        """
        low, high = self.cost_fraction[0], self.cost_fraction[-1]
        within_K = (costs_K >= low - _COST_TOLERANCE) & (
            costs_K <= high + _COST_TOLERANCE
        )
        scores_K = np.interp(costs_K, self.cost_fraction, self.score)
        return np.where(within_K, scores_K, np.nan)


@dataclasses.dataclass(frozen=True)
class CalibratedBank:
    """A logit bank after temperatures, ready to be swept; made by `calibrate_bank`.

    Attributes:
        bank: the bank, with calibrated logits and scaled learning-to-exit scores in
            the place of the raw ones.
        predictions: the class each exit answers.
        label_counts: weight of the examples of each class.
    """

    bank: LogitBank
    predictions: Int[np.ndarray, "N E"]
    label_counts: Float[np.ndarray, " C"]

    def make_curve(
        self,
        criterion: str,
        metric: str,
        costs_E: Float[np.ndarray, " E"],
        thresholds_T: Float[np.ndarray, " T"] | None = None,
    ) -> Curve:
        """Returns the curve at the thresholds, or the exact curve if there are none."""
        bank, num_classes = self.bank, len(self.label_counts)
        scores_NE = np.asarray(compute_scores(criterion, bank.logits, bank.lte))
        examples = (self.predictions, bank.labels, bank.weights, num_classes)
        if thresholds_T is None:
            low, _ = threshold_range(criterion, num_classes, bank.num_exits)
            statistics = cascade.exact_curve(scores_NE, *examples, low)
        else:
            statistics = cascade.sweep(scores_NE, thresholds_T, *examples)
        return make_curve(statistics, metric, self.label_counts, costs_E)


def make_curve(
    statistics: cascade.CascadeStatistics,
    metric: str,
    label_counts_C: Float[np.ndarray, " C"],
    costs_E: Float[np.ndarray, " E"],
) -> Curve:
    """Returns the curve of the statistics under a metric and the exits' costs."""
    sums = (statistics.correct, statistics.predicted_counts, label_counts_C)
    return Curve(
        statistics.thresholds,
        metrics.compute_score(metric, *sums),
        metrics.compute_score("accuracy", *sums),
        statistics.exit_counts @ costs_E / label_counts_C.sum(),
        statistics.exit_counts,
    )


def compute_area(curve: Curve, first_cost: float) -> float:
    """Returns the best score at cost <= c, averaged over c from `first_cost` to 1.

    Args:
        curve: an exact curve; the best score is a step function of c on it.
        first_cost: cost of exit 0. At 1 (a single exit) the mean is the score there.
    """
    order = np.argsort(curve.cost_fraction, kind="stable")
    # Mean costs may miss first_cost by a rounding error. What costs more than 1 comes
    # last in `best` and is no wider than a point.
    costs = np.clip(curve.cost_fraction[order], first_cost, 1.0)
    if first_cost == 1:
        return float(curve.score[order[0]])
    best = np.maximum.accumulate(curve.score[order])
    return float(best @ np.diff(costs, append=1.0) / (1 - first_cost))


def choose_threshold(curve: Curve, max_cost: float) -> float | None:
    """Returns the threshold of the best score at cost <= `max_cost`, or None.

    Ties go to the lower cost. Choose on budget rows (calibration part 1): the best
    point of the very curve that is reported would flatter it.
    """
    best = find_best(curve, max_cost)
    return None if best is None else float(curve.threshold[best])


def find_best(curve: Curve, max_cost: float) -> int | None:
    """Returns the point of the best score at cost <= `max_cost`, or None."""
    within = np.flatnonzero(curve.cost_fraction <= max_cost + _COST_TOLERANCE)
    if not len(within):
        return None
    # Cost rises along the curve and argmax takes the first of equal scores.
    return int(within[np.argmax(curve.score[within])])


def calibrate_bank(
    bank: LogitBank,
    temperatures: Float32[np.ndarray, " E"],
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None,
) -> CalibratedBank:
    """Returns the bank with logits and learning-to-exit scores made comparable.

    Args:
        bank: outputs as the model gives them.
        temperatures: each exit's logits are divided by its own.
        lte_ranges: each exit's learning-to-exit scores are scaled by its own; None:
            the calibrated bank has none.

    Raises:
        ValueError: the bank is empty, or some of its logits or scores are not finite.
    """
    if not np.any(bank.weights > 0):
        raise ValueError("the logit bank has no rows: check the split it was made of")
    finite_NE = np.isfinite(bank.logits).all(axis=2)
    if bank.lte is not None:
        finite_NE &= np.isfinite(bank.lte)
    broken_E = np.sum(~finite_NE, axis=0)
    if broken_E.any():
        raise ValueError(
            f"outputs of exits {np.flatnonzero(broken_E).tolist()} are not finite on"
            f" {broken_E.max()} of {len(bank.labels)} rows: lower the learning rates or"
            " use encoder.dtype=float32"
        )
    logits_NEC = np.asarray(apply_temperatures(bank.logits, temperatures))
    lte_NE = None
    if bank.lte is not None and lte_ranges is not None:
        lte_NE = scale_lte(bank.lte, lte_ranges)
    return CalibratedBank(
        dataclasses.replace(bank, logits=logits_NEC, lte=lte_NE),
        logits_NEC.argmax(axis=2),
        np.bincount(bank.labels, bank.weights, logits_NEC.shape[2]),
    )
