"""Confidence intervals for means over seeds, and over seeds and test rows.

A study measures a difference d[s, n] for seeds s on test rows n. All seeds are scored
on the same rows, so the design is crossed, not nested:

    d[s, n] = mean + seed[s] + row[n] + rest[s, n]
    variance of the average = v_seed / S + v_row / N + v_rest / (S N)

Drawing other rows for every seed would treat v_row as if more seeds could average it
out, but a row that is hard for a method is hard with every seed. Rows are therefore
drawn once for all seeds, methods and exits.

There are two intervals. `student_interval` generalises to new seeds on the same test
rows: Student's t of S values. `two_level_interval` generalises to new seeds and new
test rows:

    half width^2 = t(S - 1)^2 s^2 / S + z^2 c, at least z^2 w

Here s^2 / S, from the S values, estimates v_seed / S + v_rest / (S N). c, from the
bootstrap over rows, estimates the missing v_row / N: it is the mean covariance of two
seeds' scores when both are scored on the same drawn rows. With c = 0 the interval is
Student's, and it is never narrower. w is the variance of the average over the drawn
rows, v_row / N + v_rest / (S N). Many rows estimate w well; this lower limit protects
against three seeds that agree by chance.

The usual bootstrap over seeds is wrong with 3 to 5 seeds. Drawing seeds with
replacement has only (S - 1) / S of the correct variance (two thirds for 3 seeds), and
its percentiles use 1.96 instead of the t quantile 4.30: if the variance between seeds
dominates, 95 % intervals then cover the true value only 75 to 80 % of the time. So the
variance between seeds is computed in closed form and only rows are drawn. Adding the
squared half widths, each with its own quantile (as Howe, 1974, for two means), covers
at least at the nominal level for any mixture of the components: with c and w known,
95.0 to 98.7 % with 3 seeds and 95.0 to 98.0 % with 5, in 400,000 simulated studies for
each of 15 mixtures. One t quantile with Satterthwaite's degrees of freedom for the
summed variance covers as little as 92.4 % with 3 seeds, because those degrees of
freedom are estimated, too.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import stats

from sweet_jax.evaluation import metrics

LEVEL = 0.95
NUM_DRAWS = 2000
# Draws for a metric that must be called for each: width of an interval to within 5 %.
NUM_SLOW_DRAWS = 200
LogitsFn: TypeAlias = Callable[[int], Float[np.ndarray, "N C"]]
# Number of row counts converted to float64 at once: 32 MB.
_ENTRIES_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def student_interval(
    values_S: Float[np.ndarray, " S"], level: float = LEVEL
) -> Interval | None:
    """Returns Student's interval for the mean, None for fewer than two values.

    For paired differences it is the interval of the paired t test.
    """
    half = _student_half_width(values_S, level)
    return None if half is None else _around(values_S, half)


def two_level_interval(
    values_S: Float[np.ndarray, " S"],
    draws_BS: Float[np.ndarray, "B S"],
    level: float = LEVEL,
) -> Interval | None:
    """Returns the interval of the mean for new seeds and new test rows.

    Args:
        values_S: a score, or a difference of scores, per seed.
        draws_BS: the same on bootstrapped rows. In a draw, all seeds (and both methods
            of a difference) are scored on the same rows; separate draws per column
            would lose the covariance between seeds.
        level: confidence level.

    Returns:
        The interval, centred at the mean; None for fewer than two seeds.
    """
    half = _student_half_width(values_S, level)
    if half is None:
        return None
    z = stats.norm.ppf((1 + level) / 2)
    both = np.hypot(half, z * np.sqrt(_shared(draws_BS)))
    rows_alone = z * np.std(draws_BS.mean(axis=1), ddof=1)
    return _around(values_S, float(max(both, rows_alone)))


def _student_half_width(values_S: np.ndarray, level: float) -> float | None:
    num_seeds = len(values_S)
    if num_seeds < 2:
        return None
    t = stats.t.ppf((1 + level) / 2, num_seeds - 1)
    return float(t * np.std(values_S, ddof=1) / np.sqrt(num_seeds))


def _around(values_S: np.ndarray, half: float) -> Interval:
    mean = float(np.mean(values_S))
    return Interval(mean - half, mean + half)


def _shared(draws_BS: np.ndarray) -> float:
    """Returns the mean covariance between seeds over the draws of rows, at least 0."""
    num_seeds = draws_BS.shape[1]
    # The variance of the sum is the sum of all entries of the covariance matrix.
    whole = np.var(draws_BS.sum(axis=1), ddof=1)
    diagonal = np.var(draws_BS, axis=0, ddof=1).sum()
    return max(0.0, float(whole - diagonal) / (num_seeds * (num_seeds - 1)))


@dataclasses.dataclass(frozen=True)
class RowDraws:
    """Bootstrap draws of test rows; made once per test set and used for all its banks.

    Attributes:
        counts: how often each row occurs in each draw; every draw has N rows in total.
    """

    counts: UInt8[np.ndarray, "B N"]

    @classmethod
    def make(
        cls, num_rows: int, rng: np.random.Generator, num_draws: int = NUM_DRAWS
    ) -> "RowDraws":
        """Draws `num_rows` rows with replacement, `num_draws` times."""
        counts = np.empty((num_draws, num_rows), np.uint8)
        for draw in counts:
            # uint8 suffices: that a row occurs 256 times in a draw is practically
            # impossible.
            draw[:] = np.bincount(rng.integers(num_rows, size=num_rows), None, num_rows)
        return cls(counts)

    def sum(self, terms_NK: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "B K"]:
        """Returns the sums of the terms over the rows of every draw."""
        return np.concatenate([part @ terms_NK for part in self._parts()])

    def _parts(self) -> Iterator[Float[np.ndarray, "b N"]]:
        num_draws, num_rows = self.counts.shape
        step = max(1, _ENTRIES_AT_ONCE // num_rows)
        for start in range(0, num_draws, step):
            yield self.counts[start : start + step].astype(np.float64)


def resample_scores(
    metric: str,
    draws: RowDraws,
    labels_N: Int[np.ndarray, " N"],
    predictions_NK: Int[np.ndarray, "N K"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int,
    logits_fn: LogitsFn | None = None,
) -> Float[np.ndarray, "B K"]:
    """Returns the score of K sets of predictions on the rows of every draw.

    Our metrics are functions of a few sums over rows, so that one matrix product serves
    all draws. A score that is undefined for a draw (Matthews with one class) is 0, as
    in `metrics.compute_score`. Registered metrics are called for every draw.

    Args:
        metric: name of the metric.
        draws: draws of rows.
        labels_N: class indices.
        predictions_NK: class indices.
        weights_N: weight of each row.
        num_classes: number of classes C.
        logits_fn: k -> the logits of predictions k, for metrics that read
            probabilities.
    """
    if metrics.reads_rows(metric):
        assert logits_fn is not None, f"{metric} reads probabilities"
        scores_KB = [
            [
                metrics.score_predictions(
                    metric, labels_N, predictions_NK[:, k], weights_N * times_N, logits
                )
                for times_N in draws.counts
            ]
            for k in range(predictions_NK.shape[1])
            for logits in [logits_fn(k)]
        ]
        return np.array(scores_KB).T
    weights_N1 = weights_N.astype(np.float64)[:, None]
    labels_NC = weights_N1 * (labels_N[:, None] == np.arange(num_classes)[None, :])
    # One product for all terms: correct, predicted as each class, and hits. None is a
    # difference of others: a class that a draw lacks must have exactly no weight.
    terms = [predictions_NK == labels_N[:, None]]
    terms += [predictions_NK == c for c in range(num_classes)]
    if metrics.reads_hits(metric):
        terms += [terms[0] & (labels_N == c)[:, None] for c in range(num_classes)]
    sums = draws.sum(np.concatenate([labels_NC, *(weights_N1 * t for t in terms)], 1))
    label_counts_BC, sums = np.split(sums, [num_classes], axis=1)
    correct_BK, *parts = np.split(sums, len(terms), axis=1)
    predicted, hits = parts[:num_classes], parts[num_classes:]
    return metrics.compute_score(
        metric,
        correct_BK,
        np.stack(predicted, axis=-1),
        label_counts_BC[:, None, :],
        np.stack(hits, axis=-1) if hits else None,
    )


@dataclasses.dataclass(frozen=True)
class CurveDraws:
    """The curve of a cascade on the rows of every draw; made by `resample_curve`.

    Attributes:
        score: at every threshold.
        cost: mean cost fraction at every threshold; ascending.
    """

    score: Float[np.ndarray, "B T"]
    cost: Float[np.ndarray, "B T"]

    def compute_areas(self, first_cost: float) -> Float[np.ndarray, " B"]:
        """Returns `curves.compute_area` of every draw's curve."""
        if first_cost == 1:  # A single exit: the area is its score.
            return self.score[:, 0]
        # Costs above 1 (multi_model) are not part of the area.
        costs_BT = np.clip(self.cost, first_cost, 1.0)
        best_BT = np.maximum.accumulate(self.score, axis=1)
        widths_BT = np.diff(costs_BT, axis=1, append=1.0)
        return (best_BT * widths_BT).sum(axis=1) / (1 - first_cost)

    def read_at(self, costs_K: Float[np.ndarray, " K"]) -> Float[np.ndarray, "B K"]:
        """Returns the scores of every draw at costs within the range of the curve.

        Each draw derives thresholds from its own costs, as in `curves.Curve.read_at`.
        """
        rows = zip(self.cost, self.score, strict=True)
        return np.stack([np.interp(costs_K, cost, score) for cost, score in rows])


def resample_curve(
    metric: str,
    draws: RowDraws,
    labels_N: Int[np.ndarray, " N"],
    predictions_NE: Int[np.ndarray, "N E"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int,
    exits_TN: Int[np.ndarray, "T N"],
    costs_E: Float[np.ndarray, " E"],
    logits_NEC: Float[np.ndarray, "N E C"] | None = None,
) -> CurveDraws:
    """Returns a cascade's curve on the rows of every draw.

    Args:
        metric: name of the metric.
        draws: draws of rows.
        labels_N: class indices.
        predictions_NE: the class that each exit predicts.
        weights_N: weight of each row.
        num_classes: number of classes C.
        exits_TN: the exit of each row, by ascending threshold. A few dozen thresholds
            spread over the costs suffice to estimate the variance of the area and of a
            score at a cost.
        costs_E: cost of leaving at each exit.
        logits_NEC: logits of the exits, for metrics that read probabilities.
    """
    answers_NT = np.take_along_axis(predictions_NE, exits_TN.T, axis=1)
    rows = (labels_N, answers_NT, weights_N, num_classes)
    places_N = np.arange(len(labels_N))
    scores_BT = resample_scores(
        metric,
        draws,
        *rows,
        None if logits_NEC is None else lambda t: logits_NEC[places_N, exits_TN[t]],
    )
    weights_N1 = weights_N.astype(np.float64)[:, None]
    paid = draws.sum(np.concatenate([weights_N1, weights_N1 * costs_E[exits_TN.T]], 1))
    return CurveDraws(scores_BT, paid[:, 1:] / paid[:, :1])
