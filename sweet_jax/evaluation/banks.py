"""Computes everything a run reports from its logit banks.

Input and output are arrays and plain numbers; no models, no files.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import cascade, metrics, reliability
from sweet_jax.evaluation.curves import (
    Curve,
    compute_area,
    find_best,
    find_most_expensive,
    make_curve,
    score_exits,
)
from sweet_jax.exits.calibration import CalibratedBank, Calibration
from sweet_jax.exits.criteria import FULL, make_thresholds
from sweet_jax.settings.fields import Settings

# Number of thresholds in the plot "where examples exit", for continuous criteria.
NUM_SHARE_THRESHOLDS = 101
# Lower bound of a class probability, so that its logarithm is finite.
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class CascadeSpec:
    """The cascades to measure.

    Attributes:
        separate_models: True if each exit has its own model; decides the cost formula.
        exit_layers: the layer each exit reads.
        criteria: names of criteria.
        num_thresholds: number of grid points for continuous criteria.
        speedups: target speed-ups s; a cascade that meets one costs at most 1/s.
    """

    separate_models: bool
    exit_layers: tuple[int, ...]
    criteria: tuple[str, ...]
    num_thresholds: int
    speedups: tuple[float, ...]

    @classmethod
    def from_settings(cls, settings: Settings, separate_models: bool) -> "CascadeSpec":
        """Returns the cascades of a run; its settings have exit layers filled in."""
        return cls(
            separate_models=separate_models,
            exit_layers=settings.exits.layers,
            criteria=settings.evaluate.criteria,
            num_thresholds=settings.evaluate.num_thresholds,
            speedups=settings.evaluate.speedups,
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Measurements of the exits and their cascades, as in `results.json`.

    Numbers are plain Python ones; None means that no threshold reaches this speed-up.

    Attributes:
        cost_formula: the formula of `cost_fraction`.
        exits: one entry per exit, measured alone on every test example; `nll` and
            `ece_after` are with temperature scaling, `nll_before` and `ece_before`
            without; `cost_fraction` is the cost of leaving there in a cascade. With
            learning to exit also `lte_range`, the lowest and highest score on
            the rows used for fitting, and `lte_auc`, the ROC area of its scores as
            predictors of a correct prediction (None if the exit is always or never
            right).
        curves: per criterion, one entry per threshold of the grid.
        at_speedup: per criterion, one entry per target: the most expensive threshold
            within its cost on the calibration rows (None also means `FULL` if `score`
            is a number), its test score and realised cost, and `oracle`, the best score
            within the cost, chosen on test itself.
        area: per criterion, `compute_area` of the exact test curve.
        majority: score of always predicting the most frequent training class.
        full: score of the last exit on every example.
        oracle_exit: score, accuracy and cost if each example left at the earliest exit
            that is right (the last if none is): the upper bound of any criterion.
        classes: per class, by its number: the number of its test examples, and lists of
            `precision`, `recall` and `f1` with one value per exit.
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
    classes: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]

    def to_results(self) -> dict[str, Any]:
        """Returns the fields of `results.json`, without the arrays."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "arrays"
        }


def evaluate_banks(
    spec: CascadeSpec,
    *,
    test: LogitBank,
    calibration: Calibration,
    train_label_counts_C: Num[np.ndarray, " C"],
) -> Evaluation:
    """Measures the exits and their cascades on the test rows.

    Args:
        spec: the cascades to measure.
        test: the test rows.
        calibration: calibration of the model; thresholds are chosen on all its rows, by
            their cost alone.
        train_label_counts_C: training rows per class, for the majority class.

    Raises:
        ValueError: a name is unknown, a bank is empty or holds outputs that are not
            finite, or a criterion needs learning-to-exit scores and there are none.
    """
    metric, costs_E = calibration.metric, calibration.costs_E
    calibrated, chooser = (calibration.apply(b) for b in (test, calibration.bank))
    exit_rows, arrays = _measure_exits(test, calibrated, calibration, spec.exit_layers)
    if calibration.lte_ranges is not None:
        measured = _measure_lte(calibrated, calibration.lte_ranges)
        for row, more in zip(exit_rows, measured, strict=True):
            row |= more
    curves, at_speedup, area = {}, {}, {}
    for criterion in spec.criteria:
        # Neither the choice by cost nor the exit shares read the score.
        held_out = make_curve(chooser, criterion, "accuracy", costs_E)
        share = make_curve(
            calibrated,
            criterion,
            "accuracy",
            costs_E,
            _make_grid(criterion, NUM_SHARE_THRESHOLDS, test),
        )
        chosen = {s: _choose(held_out, s) for s in spec.speedups}
        measures = (calibrated, criterion, metric, costs_E)
        exact = make_curve(
            *measures, also=[t for t in chosen.values() if t is not None]
        )
        grid = make_curve(*measures, _make_grid(criterion, spec.num_thresholds, test))
        curves[criterion] = [_describe_point(grid, k) for k in range(len(grid.score))]
        at_speedup[criterion] = [_measure_at(s, t, exact) for s, t in chosen.items()]
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
    # The majority baseline predicts the class shares of the training rows.
    shares_1C = train_label_counts_C[None] / train_label_counts_C.sum()
    majority = np.full(len(test.labels), int(np.argmax(train_label_counts_C)))
    return Evaluation(
        cost_formula=cascade.describe_cost(spec.separate_models),
        exits=exit_rows,
        curves=curves,
        at_speedup=at_speedup,
        area=area,
        majority=metrics.score_predictions(
            metric,
            test.labels,
            majority,
            test.weights,
            np.log(np.maximum(np.repeat(shares_1C, len(majority), 0), _TINY)),
        ),
        full=exit_rows[-1]["score"],
        oracle_exit=_measure_oracle(calibrated, calibration),
        classes=_measure_classes(calibrated),
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
    calibration: Calibration,
    exit_layers: tuple[int, ...],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns one entry per exit, and its reliability bins."""
    rows, arrays = [], {}
    examples = (test.labels, test.weights)
    for i, layer in enumerate(exit_layers):
        before_NC, after_NC = test.logits[:, i], calibrated.bank.logits[:, i]
        answers = (test.labels, calibrated.predictions[:, i], test.weights)
        rows.append(
            {
                "exit": i,
                "layer": layer,
                "score": metrics.score_predictions(
                    calibration.metric, *answers, after_NC
                ),
                "accuracy": metrics.score_predictions("accuracy", *answers),
                "nll": metrics.compute_nll(after_NC, *examples),
                "nll_before": metrics.compute_nll(before_NC, *examples),
                "ece_before": reliability.compute_ece(before_NC, *examples),
                "ece_after": reliability.compute_ece(after_NC, *examples),
                "temperature": _shorten(calibration.temperatures[i]),
                "cost_fraction": float(calibration.costs_E[i]),
            }
        )
        for when, logits_NC in (("before", before_NC), ("after", after_NC)):
            bins = reliability.compute_reliability(logits_NC, *examples)
            for name, values in dataclasses.asdict(bins).items():
                arrays[f"reliability/{when}/exit_{i}/{name}"] = values
    return rows, arrays


def _measure_lte(
    calibrated: CalibratedBank, lte_ranges: Float32[np.ndarray, "E 2"]
) -> list[dict[str, Any]]:
    """Returns range and ROC area of the learning-to-exit scores of each exit."""
    bank = calibrated.bank
    assert bank.lte is not None, "ranges come from scores"
    right_NE = calibrated.predictions == bank.labels[:, None]
    return [
        {
            "lte_range": [_shorten(low), _shorten(high)],
            "lte_auc": reliability.compute_auc(lte_N, right_N, bank.weights),
        }
        for (low, high), lte_N, right_N in zip(
            lte_ranges, bank.lte.T, right_NE.T, strict=True
        )
    ]


def _measure_classes(calibrated: CalibratedBank) -> list[dict[str, Any]]:
    """Returns precision, recall and F1 of each class, per exit."""
    bank, num_classes = calibrated.bank, calibrated.num_classes
    scores = [
        metrics.score_classes(
            metrics.count_predictions(bank.labels, answers_N, bank.weights, num_classes)
        )
        for answers_N in calibrated.predictions.T
    ]
    return [
        {
            "class": c,
            "examples": float(calibrated.label_counts[c]),
            "precision": [float(score.precision[c]) for score in scores],
            "recall": [float(score.recall[c]) for score in scores],
            "f1": [float(score.f1[c]) for score in scores],
        }
        for c in range(num_classes)
    ]


def _describe_point(curve: Curve, k: int) -> dict[str, Any]:
    cost = float(curve.cost_fraction[k])
    return {
        "threshold": _shorten(curve.threshold[k]),
        "score": float(curve.score[k]),
        "accuracy": float(curve.accuracy[k]),
        "cost_fraction": cost,
        "speedup": 1 / cost,
        # Integers for weights of 1; sums of other weights stay floats.
        "exit_counts": [
            int(n) if n.is_integer() else n for n in curve.exit_counts[k].tolist()
        ],
    }


def _choose(held_out: Curve, speedup: float) -> float | None:
    """Returns the most expensive threshold that meets a speed-up, or None."""
    point = find_most_expensive(held_out, 1 / speedup)
    return None if point is None else float(held_out.threshold[point])


def _measure_at(
    speedup: float, threshold: float | None, exact: Curve
) -> dict[str, Any]:
    best = find_best(exact, 1 / speedup)
    row: dict[str, Any] = dict.fromkeys(
        ("threshold", "score", "accuracy", "cost_fraction")
    )
    if threshold is not None:
        point = _describe_point(exact, exact.find(threshold))
        row = {name: point[name] for name in row}
        # `find` returns the point that is valid at this threshold; its own threshold
        # may be higher.
        row["threshold"] = None if threshold == FULL else _shorten(threshold)
    oracle = None if best is None else float(exact.score[best])
    return {"target": float(speedup), **row, "oracle": oracle}


def _measure_oracle(
    calibrated: CalibratedBank, calibration: Calibration
) -> dict[str, float]:
    bank = calibrated.bank
    right_NE = calibrated.predictions == bank.labels[:, None]
    right_NE[:, -1] = True  # If no exit is right, the last one answers.
    exits_N = right_NE.argmax(axis=1)
    score, accuracy = (
        score_exits(calibrated, metric, exits_N)
        for metric in (calibration.metric, "accuracy")
    )
    return {
        "score": score,
        "accuracy": accuracy,
        "cost_fraction": float(
            np.average(calibration.costs_E[exits_N], weights=bank.weights)
        ),
    }


def _shorten(value: Any) -> float:
    """Returns the shortest decimal for a float32: 0.55, not 0.550000012."""
    return float(str(np.float32(value)))
