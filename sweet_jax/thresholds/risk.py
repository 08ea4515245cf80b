"""Thresholds within a risk: the cheapest ones that pass a statistical test.

Part 0 of the calibration rows fixes a sequence of thresholds, part 1 tests them in
order (`risk_control`, docs/budgets.md). If none passes, every exit runs.

The full model may be another one than the cascade's: a model in int8 is compared with
the model before rounding. Its own last exit may then err as well, so running every exit
is the first step that is tested.
"""

import numpy as np
from jaxtyping import Float32

from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL, threshold_range
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

# Savings below this share of the full model's cost are rounding errors.
_COST_TOLERANCE = 1e-9


def choose_risk(
    calibration: Calibration,
    epsilon: float,
    risk: str = "accuracy_loss",
    *,
    delta: float = 0.1,
    per_exit: bool = False,
    criterion: str = "confidence",
) -> Choice:
    """Returns the cheapest thresholds whose risk is shown to be at most epsilon.

    With probability at least 1 - delta over the rows of part 1, the chosen cascade has
    a risk of at most epsilon on new inputs from the same distribution (`risk_control`).
    The guarantee holds for one request that was fixed beforehand, not for the best of
    several.

    Args:
        calibration: calibration of the model.
        epsilon: largest allowed share of inputs with an error.
        risk: `accuracy_loss` (the full model is right and the cascade wrong; accuracy
            drops by at most this) or `disagreement` (their predictions differ).
        delta: probability that the guarantee is wrong.
        per_exit: True: a threshold per exit, along a sequence made from part 0; False:
            one threshold for all exits.
        criterion: a name in `CRITERIA`.

    Raises:
        ValueError: epsilon or delta is not between 0 and 1, the risk is unknown, the
            risk is an accuracy loss but the metric is not accuracy, a part has no rows,
            rows are weighted, or the criterion is unknown or does not fit the model.
    """
    check_level(f"max_{risk}", epsilon)
    check_level("delta", delta)
    if risk == "accuracy_loss" and calibration.metric != "accuracy":
        raise ValueError(
            f"max_accuracy_loss is not offered for metric={calibration.metric}: this"
            " score is not a mean over inputs, so a share of new errors does not bound"
            " its drop; use speedup or max_disagreement instead"
        )
    rows = calibration.select_part(1)
    num_rows = len(rows.bank.labels)
    if np.any(rows.bank.weights != 1):
        raise ValueError(
            "max_accuracy_loss and max_disagreement need rows of weight 1, because the"
            " binomial test counts rows; use speedup instead"
        )
    path_TK = _make_path(calibration, criterion, risk, per_exit)
    if rows.full is not None:
        path_TK = np.concatenate([np.full_like(path_TK[:1], FULL), path_TK])
    scores_NE = rows.score(criterion)
    errors_NE = mark_errors(risk, rows.predictions, rows.bank.labels, rows.full)
    errors_T = count_errors(scores_NE, errors_NE, path_TK)
    passed = int(count_certified(errors_T, num_rows, epsilon, delta))

    # Cost decreases along the path, so the last step that passed is the cheapest.
    chosen_K = path_TK[passed - 1] if passed else np.full_like(path_TK[0], FULL)
    exits_N = find_exits(scores_NE, chosen_K[None])[0]
    cost = float(calibration.costs_E[exits_N].mean())
    feasible = cost < float(calibration.costs_E[-1]) - _COST_TOLERANCE
    if not feasible:
        chosen_K = np.full_like(chosen_K, FULL)
    # A model with a single exit passes every step and still saves nothing. So does one
    # with several if only its first step passes, which runs every exit.
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
        reached=epsilon if feasible else compute_upper_bound(errors, num_rows, delta),
        cost_fraction=cost,
        num_rows=num_rows,
        holds=passed > 0 or rows.full is None,
        evidence=Evidence(
            delta=delta,
            errors=errors,
            p_value=float(compute_p_values(errors_T, num_rows, epsilon)[shown]),
            rows_without_error=rows_without_error,
            rows_at_this_rate=count_rows_needed(epsilon, delta, errors / num_rows),
        ),
    )


def _make_path(
    calibration: Calibration, criterion: str, risk: str, per_exit: bool
) -> Float32[np.ndarray, "T K"]:
    """Returns thresholds to test in order, from rows of part 0 alone."""
    rows = calibration.select_part(0)
    scores_NE = rows.score(criterion)
    low, _ = threshold_range(criterion, rows.num_classes, calibration.num_exits)
    if not per_exit:
        return make_global_path(scores_NE, low)
    errors_NE = mark_errors(risk, rows.predictions, rows.bank.labels, rows.full)
    return make_path_per_exit(scores_NE, errors_NE, calibration.costs_E, low)
