"""Thresholds within a budget: a speed-up or a mean time per input.

The default is the most expensive threshold whose mean cost on the calibration rows is
within the budget. Cost needs no label, so all calibration rows are used, also those on
which temperatures were fitted. `choose="score"` takes the best score within the budget
instead; it reads labels, so it uses the rows of part 1 only (docs/budgets.md).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sweet_jax.evaluation.curves import find_best, find_most_expensive, make_curve
from sweet_jax.exits.calibration import Calibration
from sweet_jax.thresholds.choice import Choice, check_choose

# Significant digits of the reachable value that an error message names.
_DIGITS = 4


def choose_speedup(
    calibration: Calibration,
    speedup: float,
    criterion: str = "confidence",
    choose: str = "cost",
) -> Choice:
    """Returns the threshold for a mean speed-up of at least `speedup`, in layers.

    Args:
        calibration: calibration of the model.
        speedup: 1 / cost fraction.
        criterion: a name in `CRITERIA`.
        choose: `cost`: the most expensive threshold within the budget, on all
            calibration rows; `score`: the one with the best score, on part 1.

    Raises:
        ValueError: the speed-up is not a positive number or is out of reach, `choose`
            or the criterion is unknown, or the criterion does not fit the model.
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
    """Returns the threshold for a mean time per input of at most `milliseconds`.

    Args:
        calibration: calibration of the model.
        milliseconds: mean time per input.
        segment_seconds_E: measured seconds per input of each segment with its exit; an
            input pays for all segments up to the exit that answers.
        criterion: a name in `CRITERIA`.
        choose: see `choose_speedup`.

    Raises:
        ValueError: as in `choose_speedup`, for all times; or the number of times is not
            the number of segments.
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
    # Relative to the last exit, because the rounding tolerance of curves expects that.
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
    # NaN fails this comparison, too.
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value}: allowed is a number above 0")


class _Point(NamedTuple):
    """A point of the trade-off on calibration rows.

    Attributes:
        threshold: the chosen one; None if even the cheapest cascade exceeds the budget.
        cost: cost of the threshold, or of the cheapest cascade if there is none, in the
            budget's unit.
        cost_fraction: the same cost in layers.
        num_rows: number of rows used for the choice.
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
        # This rule reads no scores, so any metric works.
        rows, find = calibration.apply(calibration.bank), find_most_expensive
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
    """Rounds a value to a few digits, in the direction that stays reachable."""
    scale = 10.0 ** (_DIGITS - 1 - math.floor(math.log10(value)))
    # A whole number with a rounding error stays that number.
    near = round(value * scale)
    is_whole = math.isclose(value * scale, near, rel_tol=1e-10)
    return f"{(near if is_whole else towards(value * scale)) / scale:.{_DIGITS}g}"
