"""Curves, their area, and the points within a budget."""

import numpy as np
from exit_banks import COSTS_E, make_bank, make_calibration
from sklearn.metrics import f1_score

from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.evaluation.curves import (
    Curve,
    compute_area,
    find_best,
    find_most_expensive,
    make_curve,
)
from sweet_jax.exits.calibration import calibrate_bank
from sweet_jax.exits.criteria import FULL


def _make_curve(cost_fraction, score) -> Curve:
    size = len(cost_fraction)
    return Curve(
        threshold=np.append(np.arange(1, size), FULL).astype(np.float32),
        score=np.asarray(score, float),
        accuracy=np.zeros(size),
        cost_fraction=np.asarray(cost_fraction, float),
        exit_counts=np.zeros((size, 1)),
    )


def test_area_of_steps_by_hand():
    # Best score .6 on [.25, .5), .8 on [.5, .75), and still .8, not .7, to the end.
    curve = _make_curve([0.25, 0.5, 0.75, 1.0], [0.6, 0.8, 0.7, 0.75])
    expected = (0.6 * 0.25 + 0.8 * 0.5) / 0.75
    np.testing.assert_allclose(compute_area(curve, 0.25), expected)


def test_area_ignores_costs_above_1_and_survives_rounding():
    # A multi_model cascade: the dear points win, but not within the budget.
    above = np.nextafter(0.25, 1)
    curve = _make_curve([above, 0.5, 1.2, 1.9], [0.5, 0.7, 0.9, 1.0])
    expected = (0.5 * 0.25 + 0.7 * 0.5) / 0.75
    np.testing.assert_allclose(compute_area(curve, 0.25), expected)


def test_area_of_a_single_exit_is_its_score():
    assert compute_area(_make_curve([1.0], [0.7]), 1.0) == 0.7


def test_area_is_the_mean_of_best_scores_under_many_budgets(rng):
    bank = calibrate_bank(make_bank(rng, 200), np.ones(4, np.float32))
    curve = make_curve(bank, "margin", "accuracy", COSTS_E)
    budgets = np.linspace(1 / 6, 1, 20_001)
    best = [curve.score[curve.cost_fraction <= c + 1e-9].max() for c in budgets]
    np.testing.assert_allclose(compute_area(curve, 1 / 6), np.mean(best), atol=1e-4)


def test_the_dearest_and_the_best_point_within_a_budget():
    curve = _make_curve([0.25, 0.5, 0.75, 1.0], [0.6, 0.8, 0.8, 0.7])
    assert [find_most_expensive(curve, c) for c in (0.2, 0.25, 0.74, 0.8, 1.0)] == [
        *(None, 0, 1, 2, 3)
    ]
    # Of equal scores the cheaper one.
    assert [find_best(curve, c) for c in (0.2, 0.6, 0.8, 1.0)] == [None, 1, 1, 1]
    # The mean of many twelfths may be an ulp above a twelfth.
    above = _make_curve([np.nextafter(1 / 12, 1)], [1])
    assert find_most_expensive(above, 1 / 12) == find_best(above, 1 / 12) == 0
    # A higher threshold of the same cost may cost more on other rows.
    assert find_most_expensive(_make_curve([0.25, 0.25, 0.5], [0, 0, 0]), 0.3) == 0


def test_macro_f1_of_a_curve_is_that_of_its_cascades(rng):
    test = make_bank(rng, 200)
    calibration = make_calibration(test, "macro_f1")
    rows = calibration.apply(test)
    exact = make_curve(rows, "margin", "macro_f1", calibration.costs_E)
    grid = make_curve(
        rows, "margin", "macro_f1", calibration.costs_E, exact.threshold[::40]
    )
    np.testing.assert_allclose(grid.score, exact.score[::40], rtol=1e-12)
    exits_TN = np.asarray(choose_exits(rows.score("margin"), grid.threshold))
    expected = [
        sklearn_f1(test.labels, rows.predictions[np.arange(200), exits_N])
        for exits_N in exits_TN
    ]
    np.testing.assert_allclose(grid.score, expected, rtol=1e-12)


def sklearn_f1(labels, predictions):
    return f1_score(labels, predictions, average="macro")
