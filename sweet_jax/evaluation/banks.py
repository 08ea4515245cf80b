"""Everything a run reports about its logit banks.

Arrays in, plain numbers and arrays out; no model and no file.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Num

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import cascade, metrics
from sweet_jax.evaluation.curves import (
    CalibratedBank,
    Curve,
    calibrate_bank,
    choose_threshold,
    compute_area,
    find_best,
)
from sweet_jax.exits.criteria import FULL, make_thresholds
from sweet_jax.settings.fields import Settings

# Points of the shares "where examples exit" for criteria that do not count.
NUM_SHARE_THRESHOLDS = 101


@dataclasses.dataclass(frozen=True)
class CascadeSpec:
    """Which cascades are measured, and how.

    Attributes:
        metric: of `score`: accuracy, matthews or f1.
        method: how the exits were trained, which decides what an exit costs.
        exit_layers: the layer each exit reads.
        criteria: names of criteria.
        num_thresholds: points of the grid of criteria that do not count.
        speedups: targets s; a cascade within target costs at most 1/s.
    """

    metric: str
    method: str
    exit_layers: tuple[int, ...]
    criteria: tuple[str, ...]
    num_thresholds: int
    speedups: tuple[float, ...]

    @classmethod
    def from_settings(cls, settings: Settings, metric: str) -> "CascadeSpec":
        """Returns what a run of these settings measures, its exit layers known."""
        return cls(
            metric=metric,
            method=settings.method,
            exit_layers=settings.exits.layers,
            criteria=settings.evaluate.criteria,
            num_thresholds=settings.evaluate.num_thresholds,
            speedups=settings.evaluate.speedups,
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All that is known of the exits and their cascades, as in `results.json`.

    Numbers are plain Python ones; None stands for "no threshold reaches this speed-up".

    Attributes:
        cost_formula: how `cost_fraction` is computed.
        exits: one row per exit answering every test example; `nll` and `ece_after` are
            after temperature, `nll_before` and `ece_before` without; `cost_fraction` is
            the price of leaving there in a cascade. Where exits learn to exit also
            `lte_range`, lowest and highest score on the rows of the fit, and `lte_auc`,
            the chance that the exit scores an example that it answers rightly above one
            that it does not (None where it is always right, or never).
        curves: per criterion, one row per threshold of the grid.
        at_speedup: per criterion, one row per target: the threshold chosen on the
            budget rows (None for `FULL` where `score` is a number), the test score and
            realised cost there, and `oracle`, the best score chosen on test itself.
        area: per criterion, `compute_area` of the exact test curve.
        majority: score of always answering the commonest training class.
        full: score of the last exit on every example.
        oracle_exit: score, accuracy and cost if the earliest exit that is right
            answered (the last where none is): the limit of any criterion.
        arrays: the exact curves, grids, shares and reliability bins of `curves.npz`.
    """

    cost_formula: str
    exits: list[dict[str, Any]]
    curves: dict[str, list[dict[str, Any]]]
    at_speedup: dict[str, list[dict[str, Any]]]
    area: dict[str, float]
    majority: float
    full: float
    oracle_exit: dict[str, float]
    arrays: dict[str, np.ndarray]

    def to_results(self) -> dict[str, Any]:
        """Returns the fields of `results.json`: all but the arrays."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "arrays"
        }


def evaluate_banks(
    spec: CascadeSpec,
    *,
    test: LogitBank,
    calibration: LogitBank,
    temperatures: Float32[np.ndarray, " E"],
    train_label_counts_C: Num[np.ndarray, " C"],
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None,
) -> Evaluation:
    """Measures the exits and their cascades on test.

    Args:
        spec: what is measured.
        test: the rows that every figure is about.
        calibration: of these, the rows of part 1 choose thresholds; no other is used.
        temperatures: fitted on calibration part 0.
        train_label_counts_C: training rows per class, for the majority class.
        lte_ranges: of each exit's learning-to-exit scores, fitted on calibration part
            0; None where no exit has them.

    Raises:
        ValueError: a name is unknown, a bank is empty or holds outputs that are not
            finite, calibration has no row of part 1, or a criterion reads
            learning-to-exit scores and there are none.
    """
    metric = spec.metric
    costs_E = cascade.costs_from_layers(spec.method, spec.exit_layers)
    budget_rows = calibration.part == 1
    if not budget_rows.any():
        raise ValueError(
            "calibration has no rows of part 1 to choose thresholds on: raise"
            " data.calibration_examples"
        )
    calibrated = calibrate_bank(test, temperatures, lte_ranges)
    budget = calibrate_bank(calibration.select(budget_rows), temperatures, lte_ranges)
    exit_rows, arrays = _measure_exits(test, calibrated, temperatures, spec, costs_E)
    if lte_ranges is not None:
        for row, more in zip(
            exit_rows, _measure_lte(calibrated, lte_ranges), strict=True
        ):
            row |= more
    curves, at_speedup, area = {}, {}, {}
    for criterion in spec.criteria:
        exact = calibrated.make_curve(criterion, metric, costs_E)
        grid, share = (
            calibrated.make_curve(
                criterion, metric, costs_E, _make_grid(criterion, number, test)
            )
            for number in (spec.num_thresholds, NUM_SHARE_THRESHOLDS)
        )
        chooser = budget.make_curve(criterion, metric, costs_E)
        curves[criterion] = [_describe_point(grid, k) for k in range(len(grid.score))]
        at_speedup[criterion] = [_measure_at(s, chooser, exact) for s in spec.speedups]
        area[criterion] = compute_area(exact, float(costs_E[0]))
        arrays |= {
            f"exact/{criterion}/threshold": exact.threshold,
            f"exact/{criterion}/score": exact.score,
            f"exact/{criterion}/cost_fraction": exact.cost_fraction,
            f"grid/{criterion}/threshold": grid.threshold,
            f"grid/{criterion}/exit_counts": grid.exit_counts,
            f"share/{criterion}/threshold": share.threshold,
            f"share/{criterion}/share": share.exit_counts / test.weights.sum(),
        }
    majority = np.full(len(test.labels), int(np.argmax(train_label_counts_C)))
    return Evaluation(
        cost_formula=cascade.COST_FORMULA[spec.method],
        exits=exit_rows,
        curves=curves,
        at_speedup=at_speedup,
        area=area,
        majority=metrics.score_predictions(metric, test.labels, majority, test.weights),
        full=exit_rows[-1]["score"],
        oracle_exit=_measure_oracle(calibrated, metric, costs_E),
        arrays=arrays,
    )


def _make_grid(
    criterion: str, num_thresholds: int, bank: LogitBank
) -> Float32[np.ndarray, " T"]:
    _, num_exits, num_classes = bank.logits.shape
    return make_thresholds(criterion, num_thresholds, num_classes, num_exits)


def _measure_exits(
    test: LogitBank,
    calibrated: CalibratedBank,
    temperatures: Float32[np.ndarray, " E"],
    spec: CascadeSpec,
    costs_E: Float[np.ndarray, " E"],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns one row per exit and the arrays of its reliability."""
    rows, arrays = [], {}
    examples = (test.labels, test.weights)
    for i, layer in enumerate(spec.exit_layers):
        before_NC, after_NC = test.logits[:, i], calibrated.bank.logits[:, i]
        answers = (test.labels, calibrated.predictions[:, i], test.weights)
        rows.append(
            {
                "exit": i,
                "layer": layer,
                "score": metrics.score_predictions(spec.metric, *answers),
                "accuracy": metrics.score_predictions("accuracy", *answers),
                "nll": metrics.compute_nll(after_NC, *examples),
                "nll_before": metrics.compute_nll(before_NC, *examples),
                "ece_before": metrics.compute_ece(before_NC, *examples),
                "ece_after": metrics.compute_ece(after_NC, *examples),
                "temperature": _shorten(temperatures[i]),
                "cost_fraction": float(costs_E[i]),
            }
        )
        for when, logits_NC in (("before", before_NC), ("after", after_NC)):
            bins = metrics.compute_reliability(logits_NC, *examples)
            for name, values in dataclasses.asdict(bins).items():
                arrays[f"reliability/{when}/exit_{i}/{name}"] = values
    return rows, arrays


def _measure_lte(
    calibrated: CalibratedBank, lte_ranges: Float32[np.ndarray, "E 2"]
) -> list[dict[str, Any]]:
    """Returns per exit what is known of its learning-to-exit scores."""
    bank = calibrated.bank
    assert bank.lte is not None, "ranges come from scores"
    right_NE = calibrated.predictions == bank.labels[:, None]
    return [
        {
            "lte_range": [_shorten(low), _shorten(high)],
            "lte_auc": metrics.compute_auc(lte_N, right_N, bank.weights),
        }
        for (low, high), lte_N, right_N in zip(
            lte_ranges, bank.lte.T, right_NE.T, strict=True
        )
    ]


def _describe_point(curve: Curve, k: int) -> dict[str, Any]:
    cost = float(curve.cost_fraction[k])
    return {
        "threshold": _shorten(curve.threshold[k]),
        "score": float(curve.score[k]),
        "accuracy": float(curve.accuracy[k]),
        "cost_fraction": cost,
        "speedup": 1 / cost,
        # Counts of rows stay whole numbers; sums of other weights do not.
        "exit_counts": [
            int(n) if n.is_integer() else n for n in curve.exit_counts[k].tolist()
        ],
    }


def _measure_at(speedup: float, chooser: Curve, exact: Curve) -> dict[str, Any]:
    threshold = choose_threshold(chooser, 1 / speedup)
    best = find_best(exact, 1 / speedup)
    row: dict[str, Any] = dict.fromkeys(
        ("threshold", "score", "accuracy", "cost_fraction")
    )
    if threshold is not None:
        point = _describe_point(exact, exact.find(threshold))
        row = {name: point[name] for name in row}
        # The point found is the one that holds at the threshold, not the threshold.
        row["threshold"] = None if threshold == FULL else _shorten(threshold)
    oracle = None if best is None else float(exact.score[best])
    return {"target": float(speedup), **row, "oracle": oracle}


def _measure_oracle(
    calibrated: CalibratedBank, metric: str, costs_E: Float[np.ndarray, " E"]
) -> dict[str, float]:
    bank = calibrated.bank
    right_NE = calibrated.predictions == bank.labels[:, None]
    right_NE[:, -1] = True  # where no exit is right, the last one answers
    exits_N = right_NE.argmax(axis=1)
    answers_N = calibrated.predictions[np.arange(len(exits_N)), exits_N]
    answers = (bank.labels, answers_N, bank.weights)
    return {
        "score": metrics.score_predictions(metric, *answers),
        "accuracy": metrics.score_predictions("accuracy", *answers),
        "cost_fraction": float(np.average(costs_E[exits_N], weights=bank.weights)),
    }


def _shorten(value: Any) -> float:
    """Returns the shortest decimal that is this float32: 0.55, not 0.550000012."""
    return float(str(np.float32(value)))
