"""Thresholds within a budget: a speed-up or a mean time per input.

The default is the dearest threshold whose mean cost on the calibration rows is within
the budget. Cost needs no label, so all calibration rows are used, those that
temperatures were fitted on among them. The best score within the budget can be chosen
instead; it reads labels, so it has the rows of part 1 only (docs/budgets.md).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sweet_jax.evaluation.curves import find_best, find_dearest, make_curve
from sweet_jax.exits.calibration import Calibration
from sweet_jax.thresholds.choice import Choice, check_choose

# Digits of a value that a refusal tells people to ask for.
_DIGITS = 4


def choose_speedup(
    calibration: Calibration,
    speedup: float,
    criterion: str = "confidence",
    choose: str = "cost",
) -> Choice:
    """Returns the threshold for a mean speed-up of at least this, in layers.

    Args:
        calibration: of the model.
        speedup: 1 / cost fraction.
        criterion: a name in `CRITERIA`.
        choose: `cost`: the dearest threshold within the budget, on all calibration
            rows; `score`: that of the best score within it, on those of part 1.

    Raises:
        ValueError: the speed-up is no positive number or out of reach, `choose` or the
            criterion is unknown, or the criterion does not fit the model.
    """
    check_positive("speedup", speedup)
    costs_E = calibration.costs_E
    point = _choose_point(calibration, costs_E, 1 / speedup, criterion, choose)
    if point.threshold is None:
        raise ValueError(
            f"speedup={speedup:g} is out of reach: the cheapest cascade of this model,"
            " which answers everything at exit 0, has a speed-up of"
            f" {_round(1 / point.cost, math.floor)}; ask for at most that"
        )
    reached = 1 / point.cost_fraction
    return _make_choice(point, criterion, "speedup", speedup, reached)


def choose_milliseconds(
    calibration: Calibration,
    milliseconds: float,
    segment_seconds_E: Float[np.ndarray, " E"],
    criterion: str = "confidence",
    choose: str = "cost",
) -> Choice:
    """Returns the threshold for a mean time per input of at most this.

    Args:
        calibration: of the model.
        milliseconds: per input, on average over inputs.
        segment_seconds_E: measured seconds per input of each segment with its exit; an
            input pays for all segments up to the exit that answers.
        criterion: a name in `CRITERIA`.
        choose: as `choose_speedup`.

    Raises:
        ValueError: as `choose_speedup`, of any time; or there is not one time per
            segment.
    """
    check_positive("milliseconds", milliseconds)
    if len(segment_seconds_E) != calibration.num_exits:
        raise ValueError(
            f"segment_seconds has {len(segment_seconds_E)} times, the model"
            f" {calibration.num_exits} segments: give one per segment"
        )
    for i, value in enumerate(segment_seconds_E.tolist()):
        check_positive(f"segment_seconds[{i}]", value)
    paid_E = 1000 * np.cumsum(segment_seconds_E, dtype=np.float64)
    # Relative to the last exit: what curves allow for rounding is made for that.
    full = float(paid_E[-1])
    point = _choose_point(
        calibration, paid_E / full, milliseconds / full, criterion, choose
    )
    if point.threshold is None:
        raise ValueError(
            f"milliseconds={milliseconds:g} is out of reach: the cheapest cascade of"
            " this model, which answers everything at exit 0, takes"
            f" {_round(point.cost * full, math.ceil)} ms per input on this device;"
            " allow more than that, since measured times vary"
        )
    return _make_choice(
        point, criterion, "milliseconds", milliseconds, point.cost * full
    )


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless the value is a finite number above 0."""
    # Written so that NaN is refused too.
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value}: allowed is a number above 0")


class _Point(NamedTuple):
    """A point of the trade-off on calibration rows.

    Attributes:
        threshold: chosen; None where even the cheapest cascade is above the budget.
        cost: of the threshold, else of the cheapest cascade, in the budget's unit.
        cost_fraction: likewise in layers.
        num_rows: rows that it was chosen on.
    """

    threshold: float | None
    cost: float
    cost_fraction: float
    num_rows: int


def _choose_point(
    calibration: Calibration,
    costs_E: Float[np.ndarray, " E"],
    max_cost: float,
    criterion: str,
    choose: str,
) -> _Point:
    check_choose(choose)
    if choose == "cost":
        # No score is read, so any will do.
        rows, find = calibration.apply(calibration.bank), find_dearest
        metric = "accuracy"
    else:
        rows, find = calibration.select_part(1), find_best
        metric = calibration.metric
    curve = make_curve(rows, criterion, metric, costs_E)
    found = find(curve, max_cost)
    k = 0 if found is None else found
    counts_E = curve.exit_counts[k]
    return _Point(
        None if found is None else float(curve.threshold[k]),
        float(curve.cost_fraction[k]),
        float(counts_E @ calibration.costs_E / counts_E.sum()),
        len(rows.bank.labels),
    )


def _make_choice(
    point: _Point, criterion: str, target: str, asked: float, reached: float
) -> Choice:
    assert point.threshold is not None
    return Choice(
        criterion=criterion,
        target=target,
        asked=asked,
        feasible=True,
        thresholds=(point.threshold,),
        reached=reached,
        cost_fraction=point.cost_fraction,
        num_rows=point.num_rows,
    )


def _round(value: float, towards: Callable[[float], int]) -> str:
    """Returns a few digits of a value, on the side that can be reached."""
    scale = 10.0 ** (_DIGITS - 1 - math.floor(math.log10(value)))
    # What is a whole number but for rounding errors stays that number.
    near = round(value * scale)
    is_whole = math.isclose(value * scale, near, rel_tol=1e-10)
    return f"{(near if is_whole else towards(value * scale)) / scale:.{_DIGITS}g}"
