"""Thresholds from a budget: a speed-up, a cost, a latency, or a risk with a promise.

Everything is chosen on calibration part 1, which nothing else has touched; the
sequences that a promise is tested along come from part 0 (docs/budgets.md). A target
that cannot be met gets an answer that says so, with the nearest cascade there is.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.curves import CalibratedBank, calibrate_bank, find_best
from sweet_jax.exits.criteria import FULL, compute_scores, threshold_range
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import load_calibration
from sweet_jax.thresholds.choice import Choice, Evidence
from sweet_jax.thresholds.risk_control import (
    check_level,
    compute_p_values,
    compute_upper_bound,
    count_certified,
    count_rows_needed,
    mark_errors,
)
from sweet_jax.thresholds.sequences import (
    count_errors,
    find_exits,
    make_global_path,
    make_path_per_exit,
)

# Mean costs are rounded: what saves less than this of the full model saves nothing.
_COST_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Budget:
    """Calibration rows to choose thresholds on; made by `make_budget`.

    Every choice is a look at the rows of part 1. A promise holds for one choice that
    was settled on beforehand, not for the best of several (docs/budgets.md).

    Attributes:
        fit: rows of part 0, which sequences of thresholds are made of.
        rows: rows of part 1, which choices are made on.
        costs_E: of leaving at each exit, in layers of the full model.
        metric: of the task's score.
    """

    fit: CalibratedBank
    rows: CalibratedBank
    costs_E: Float[np.ndarray, " E"]
    metric: str

    @property
    def num_rows(self) -> int:
        """Rows of part 1."""
        return len(self.rows.bank.labels)

    def choose_speedup(self, speedup: float, criterion: str = "confidence") -> Choice:
        """Returns the threshold of the best score at a speed-up of at least this.

        Raises:
            ValueError: the speed-up is no positive number, or the criterion is unknown
                or does not fit the model.
        """
        _check_positive("speedup", speedup)
        choice = self._choose_cost(criterion, self.costs_E, 1 / speedup)
        return dataclasses.replace(
            choice, target="speedup", asked=speedup, reached=choice.speedup
        )

    def choose_cost(
        self, cost_fraction: float, criterion: str = "confidence"
    ) -> Choice:
        """Returns the threshold of the best score at a mean cost of at most this.

        Raises:
            ValueError: as `choose_speedup`, of the cost.
        """
        _check_positive("cost_fraction", cost_fraction)
        return self._choose_cost(criterion, self.costs_E, cost_fraction)

    def choose_seconds(
        self,
        seconds: float,
        segment_seconds_E: Float[np.ndarray, " E"],
        criterion: str = "confidence",
    ) -> Choice:
        """Returns the threshold of the best score at a mean latency of at most this.

        Args:
            seconds: per example, on average over examples.
            segment_seconds_E: measured seconds per example of each segment with its
                exit; an example pays for all segments up to the exit that answers.
            criterion: a name in `CRITERIA`.

        Raises:
            ValueError: as `choose_speedup`, of any time; or there is not one time per
                segment.
        """
        _check_positive("seconds", seconds)
        if len(segment_seconds_E) != len(self.costs_E):
            raise ValueError(
                f"segment_seconds has {len(segment_seconds_E)} times, the model"
                f" {len(self.costs_E)} segments: give one per segment"
            )
        for i, value in enumerate(segment_seconds_E.tolist()):
            _check_positive(f"segment_seconds[{i}]", value)
        paid_E = np.cumsum(segment_seconds_E, dtype=np.float64)
        # Relative to the last exit: what curves allow for rounding is made for that.
        unit = float(paid_E[-1])
        choice = self._choose_cost(criterion, paid_E / unit, seconds / unit)
        return dataclasses.replace(
            choice, target="seconds", asked=seconds, reached=choice.reached * unit
        )

    def choose_risk(
        self,
        epsilon: float,
        risk: str = "accuracy_loss",
        *,
        delta: float = 0.1,
        per_exit: bool = False,
        criterion: str = "confidence",
    ) -> Choice:
        """Returns the cheapest thresholds whose risk is shown to be at most epsilon.

        With probability at least 1 - delta over the rows of part 1 the chosen cascade
        has a risk of at most epsilon on new inputs like them (`risk_control`).

        Args:
            epsilon: the share of inputs that may err.
            risk: `accuracy_loss`, the full model is right and the cascade wrong, so
                that accuracy drops by no more; or `disagreement`, they answer
                differently.
            delta: the chance that the promise is wrong.
            per_exit: each exit has its own threshold, along a sequence that part 0
                decides on; False: one for all.
            criterion: a name in `CRITERIA`.

        Raises:
            ValueError: epsilon or delta is not between 0 and 1, the risk is unknown, a
                accuracy loss is asked of a task scored by F1 or Matthews, rows are
                weighted, or the criterion is unknown or does not fit the model.
        """
        check_level(f"max_{risk}", epsilon)
        check_level("delta", delta)
        if risk == "accuracy_loss" and self.metric != "accuracy":
            raise ValueError(
                f"max_accuracy_loss is not offered for metric={self.metric}: the score"
                " is no mean over inputs, so the share of answers lost does not bound"
                " its drop; choose by speedup or max_disagreement"
            )
        bank = self.rows.bank
        if np.any(bank.weights != 1):
            raise ValueError(
                "max_accuracy_loss and max_disagreement need rows of weight 1: binomial"
                " tails count whole rows; choose by speedup"
            )
        path_TK = self._make_path(criterion, risk, per_exit)
        scores_NE = _score(self.rows, criterion)
        errors_NE = mark_errors(risk, self.rows.predictions, bank.labels)
        errors_T = count_errors(scores_NE, errors_NE, path_TK)
        passed = int(count_certified(errors_T, self.num_rows, epsilon, delta))

        # Cost falls along the path, so the last step that passed is the cheapest.
        chosen_K = path_TK[passed - 1] if passed else np.full_like(path_TK[0], FULL)
        cost = self._compute_mean_cost(find_exits(scores_NE, chosen_K[None])[0])
        feasible = cost < float(self.costs_E[-1]) - _COST_TOLERANCE
        if not feasible:
            chosen_K = np.full_like(chosen_K, FULL)
        # A model with a single exit passes every step and still saves nothing.
        shown = passed - 1 if feasible else min(passed, len(path_TK) - 1)
        errors = int(errors_T[shown])
        rows_without_error = count_rows_needed(epsilon, delta)
        assert rows_without_error is not None
        return Choice(
            criterion=criterion,
            target=f"max_{risk}",
            asked=epsilon,
            feasible=feasible,
            thresholds=tuple(chosen_K.tolist()),
            reached=epsilon
            if feasible
            else compute_upper_bound(errors, self.num_rows, delta),
            cost_fraction=cost,
            num_rows=self.num_rows,
            evidence=Evidence(
                delta=delta,
                errors=errors,
                p_value=float(
                    compute_p_values(errors_T, self.num_rows, epsilon)[shown]
                ),
                rows_without_error=rows_without_error,
                rows_at_this_rate=count_rows_needed(
                    epsilon, delta, errors / self.num_rows
                ),
            ),
        )

    def _make_path(
        self, criterion: str, risk: str, per_exit: bool
    ) -> Float32[np.ndarray, "T K"]:
        """Returns thresholds to test in order, from rows of part 0 alone."""
        scores_NE = _score(self.fit, criterion)
        low, _ = threshold_range(
            criterion, len(self.fit.label_counts), self.fit.bank.num_exits
        )
        if not per_exit:
            return make_global_path(scores_NE, low)
        errors_NE = mark_errors(risk, self.fit.predictions, self.fit.bank.labels)
        return make_path_per_exit(scores_NE, errors_NE, self.costs_E, low)

    def _choose_cost(
        self, criterion: str, costs_E: Float[np.ndarray, " E"], max_cost: float
    ) -> Choice:
        curve = self.rows.make_curve(criterion, self.metric, costs_E)
        best = find_best(curve, max_cost)
        point = 0 if best is None else best  # Cost rises along the curve.
        exit_counts_E = curve.exit_counts[point]
        return Choice(
            criterion=criterion,
            target="cost_fraction",
            asked=max_cost,
            feasible=best is not None,
            thresholds=(float(curve.threshold[point]),),
            reached=float(curve.cost_fraction[point]),
            cost_fraction=float(exit_counts_E @ self.costs_E / exit_counts_E.sum()),
            num_rows=self.num_rows,
        )

    def _compute_mean_cost(self, exits_N: Int[np.ndarray, " N"]) -> float:
        return float(self.costs_E[exits_N].mean())


def make_budget(
    calibration: LogitBank,
    temperatures: Float32[np.ndarray, " E"],
    costs_E: Float[np.ndarray, " E"],
    metric: str,
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None,
) -> Budget:
    """Returns the calibration rows, ready to choose thresholds on.

    Args:
        calibration: rows of both parts.
        temperatures: of each exit, fitted on part 0.
        costs_E: of leaving at each exit (`costs_from_layers`).
        metric: of the task's score.
        lte_ranges: of learning-to-exit scores, fitted on part 0; None without them.

    Raises:
        ValueError: a part has no rows, or outputs are not finite.
    """
    parts = []
    for part, use in ((0, "declare sequences of thresholds"), (1, "choose thresholds")):
        bank = calibration.select_part(part)
        if not len(bank.labels):
            raise ValueError(
                f"calibration has no rows of part {part} to {use} on: raise"
                " data.calibration_examples"
            )
        parts.append(calibrate_bank(bank, temperatures, lte_ranges))
    return Budget(*parts, costs_E=costs_E, metric=metric)


def load_budget(folder: Path, description: ModelDescription) -> Budget:
    """Returns the budget of a model folder.

    Args:
        folder: the model folder.
        description: its description, as `load_model_folder` returns it.

    Raises:
        ModelFolderError: the folder has no calibration rows, or they are damaged or of
            another model.
    """
    return make_budget(
        load_calibration(folder, description),
        np.array(description.temperatures, np.float32),
        np.array(description.cost_fractions),
        description.metric,
        np.array(description.lte_ranges, np.float32)
        if description.lte_ranges
        else None,
    )


def _score(rows: CalibratedBank, criterion: str) -> Float32[np.ndarray, "N E"]:
    return np.asarray(compute_scores(criterion, rows.bank.logits, rows.bank.lte))


def _check_positive(name: str, value: float) -> None:
    # Written so that NaN is refused too.
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value}: allowed is a number above 0")
