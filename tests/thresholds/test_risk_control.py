"""Binomial tails, testing in order, and whether promises are kept."""

import dataclasses
import math
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from sweet_jax.arrays import LogitBank
from sweet_jax.data.calibration_rows import assign_parts
from sweet_jax.exits.calibration import Calibration, calibrate_bank
from sweet_jax.thresholds.risk import choose_risk
from sweet_jax.thresholds.risk_control import (
    RISKS,
    compute_p_values,
    compute_upper_bound,
    count_certified,
    count_rows_needed,
    mark_errors,
)
from sweet_jax.thresholds.sequences import (
    find_exits,
    make_global_path,
    make_path_per_exit,
)

ONES_E = np.ones(3, np.float32)
COSTS_E = np.array([1 / 3, 2 / 3, 1.0])

fast = hypothesis.settings(max_examples=30)


@fast
@hypothesis.given(
    num_rows=st.integers(1, 60), data=st.data(), tenths=st.integers(1, 99)
)
def test_p_values_are_exact_binomial_tails(num_rows, data, tenths):
    errors = data.draw(st.integers(0, num_rows))
    rate = Fraction(tenths, 100)
    exact = sum(
        math.comb(num_rows, k) * rate**k * (1 - rate) ** (num_rows - k)
        for k in range(errors + 1)
    )
    got = compute_p_values(np.array(errors), num_rows, float(rate))
    assert float(got) == pytest.approx(float(exact), rel=1e-9)
    # What passes is what the bound allows, but for rounding at the edge.
    for delta in (0.05, 0.1, 0.3):
        if abs(float(exact) - delta) > 1e-9:
            bound = compute_upper_bound(errors, num_rows, delta)
            assert (float(exact) <= delta) == (bound <= float(rate))


def test_230_rows_without_an_error_show_one_percent():
    assert 0.99**230 <= 0.1 < 0.99**229
    assert count_rows_needed(0.01, 0.1) == 230
    assert count_certified(np.array([0]), 230, 0.01, 0.1) == 1
    assert count_certified(np.array([0]), 229, 0.01, 0.1) == 0


@fast
@hypothesis.given(
    epsilon=st.floats(0.002, 0.5),
    delta=st.floats(0.01, 0.5),
    share=st.floats(0, 0.9),
)
def test_rows_needed_are_the_first_that_pass(epsilon, delta, share):
    rate = share * epsilon
    num_rows = count_rows_needed(epsilon, delta, rate)
    assert num_rows is not None
    errors = math.floor(rate * num_rows)
    assert stats.binom.cdf(errors, num_rows, epsilon) <= delta
    without = count_rows_needed(epsilon, delta)
    assert without is not None
    assert (1 - epsilon) ** without <= delta * (1 + 1e-9)
    assert without == 1 or (1 - epsilon) ** (without - 1) > delta * (1 - 1e-9)
    assert num_rows >= without
    # One row fewer had to forgive at least as many errors, and cannot.
    fewer = math.ceil(rate * (num_rows - 1))
    assert stats.binom.cdf(fewer, num_rows - 1, epsilon) > delta * (1 - 1e-9)


def test_no_number_of_rows_shows_a_risk_that_is_there():
    assert count_rows_needed(0.01, 0.1, 0.01) is None
    assert count_rows_needed(0.01, 0.1, 0.01 - 1e-9) is None


def test_testing_stops_at_the_first_step_that_fails():
    errors = np.array([[0, 0, 90, 0], [0, 90, 0, 0], [90, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(count_certified(errors, 500, 0.05, 0.1), [2, 1, 0, 4])


@fast
@hypothesis.given(
    errors=st.lists(st.integers(0, 60), min_size=1, max_size=20),
    levels=st.tuples(st.floats(0.001, 0.3), st.floats(0.001, 0.3)),
    deltas=st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
)
def test_more_is_certified_where_more_is_allowed(errors, levels, deltas):
    small, large = (
        count_certified(np.array(errors), 200, epsilon, delta)
        for epsilon, delta in zip(sorted(levels), sorted(deltas), strict=True)
    )
    assert small <= large


def make_population(risk: str, shape: str, rng, num_rows: int = 10_000) -> LogitBank:
    """Two classes, three exits, and a risk near 0.05 at very many thresholds.

    `gradual`: down to a threshold of 0.8 more and more err, then the same 5.2 %.
    `plateau`: above a threshold of 0.9 nothing errs, below it the same 5.1 % do.
    `rotating`: as the threshold falls some rows start to err and others stop, while
    some 5.5 % do at each: whoever looks for a lucky threshold finds one.
    """
    confidence_NE = rng.uniform(0.5, 1, (num_rows, 3))
    differs_NE = np.zeros((num_rows, 3), bool)
    rows = np.arange(num_rows)
    if shape == "gradual":
        erring = rows < 0.052 * num_rows
        confidence_NE[erring] = rng.uniform(0.8, 1, (erring.sum(), 3))
        differs_NE[erring, :2] = True
    if shape == "plateau":
        erring = rows < 0.051 * num_rows
        confidence_NE[erring] = 0.9
        differs_NE[erring, :2] = True
    if shape == "rotating":
        # Exit 1 errs with some confidence; exit 0, right but 0.05 less sure, takes over
        # at thresholds below its own.
        width, share = 0.05, 0.055
        erring = rows < share * 0.4 / width * num_rows
        confidence_NE[erring, 1] = rng.uniform(0.6, 1, erring.sum())
        confidence_NE[erring, 0] = confidence_NE[erring, 1] - width
        differs_NE[erring, 1] = True
        # And so that it does not end well, these err at all thresholds below 0.6.
        last = ~erring & (rows < (share * 0.4 / width + share) * num_rows)
        confidence_NE[last, :2] = 0.6
        differs_NE[last, :2] = True
    full_N = rng.integers(0, 2, num_rows)
    labels_N = full_N.copy()
    if risk == "disagreement":
        labels_N = rng.integers(0, 2, num_rows)  # plays no part
    else:
        # Where the full model is wrong, other answers are no loss.
        wrong = rows >= 0.95 * num_rows
        labels_N[wrong] = 1 - full_N[wrong]
        differs_NE[wrong, :2] = True
    predictions_NE = np.where(differs_NE, 1 - full_N[:, None], full_N[:, None])
    # Two logits whose softmax is this confidence.
    z_NE = np.log(confidence_NE / (1 - confidence_NE)) * (2 * predictions_NE - 1)
    order = rng.permutation(num_rows)
    return LogitBank(
        logits=np.stack([-z_NE / 2, z_NE / 2], axis=2).astype(np.float32)[order],
        labels=labels_N[order],
        weights=np.ones(num_rows),
        row_ids=np.arange(num_rows),
        part=np.zeros(num_rows, int),
    )


def score(bank: LogitBank, risk: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (scores_NE, errors_NE) of a bank under confidence."""
    rows = calibrate_bank(bank, ONES_E)
    return rows.score("confidence"), mark_errors(
        risk, rows.predictions, rows.bank.labels
    )


def draw_errors(
    scores_NE, errors_NE, path_TK, num_rows: int, num_draws: int, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the risk of each step, and its errors in draws with replacement.

    Rows that err at the same steps are alike: their numbers in a draw are multinomial.
    """
    exits_TN = find_exits(scores_NE, path_TK)
    errs_NT = errors_NE[np.arange(len(scores_NE))[None], exits_TN].T
    kinds_KT, counts_K = np.unique(errs_NT, axis=0, return_counts=True)
    drawn_DK = rng.multinomial(num_rows, counts_K / counts_K.sum(), num_draws)
    return errs_NT.mean(axis=0), drawn_DK @ kinds_KT.astype(np.int64)


@pytest.mark.parametrize("risk", sorted(RISKS))
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("global", shape) for shape in ("gradual", "plateau", "rotating")),
        # A path per exit is not taken in by rotating errors: exit 0 is right there.
        *(("per_exit", shape) for shape in ("gradual", "plateau")),
    ],
)
def test_promises_are_kept_in_all_but_delta_of_draws(risk, kind, shape, rng):
    epsilon, delta, num_rows, num_draws = 0.05, 0.1, 500, 4000
    error = 3 * math.sqrt(delta * (1 - delta) / num_draws)
    bank = make_population(risk, shape, rng)
    scores_NE, errors_NE = score(bank, risk)
    part_0 = rng.integers(0, len(scores_NE), 500)
    if kind == "global":
        path_TK = make_global_path(scores_NE[part_0], 0.5)
    else:
        path_TK = make_path_per_exit(scores_NE[part_0], errors_NE[part_0], COSTS_E, 0.5)
    path_TK = path_TK[:: math.ceil(len(path_TK) / 50)]
    risk_T, errors_DT = draw_errors(
        scores_NE, errors_NE, path_TK, num_rows, num_draws, rng
    )
    assert np.any(risk_T > epsilon)

    def rate_violations(passed_DT: np.ndarray) -> float:
        """How often any step that passed has a larger risk."""
        return float(np.mean(np.any(passed_DT & (risk_T > epsilon)[None], axis=1)))

    steps = np.arange(len(path_TK))[None]
    passed_D = count_certified(errors_DT, num_rows, epsilon, delta)
    certified_DT = steps < passed_D[:, None]
    assert rate_violations(certified_DT) <= delta + error
    assert np.mean(passed_D > 0) > 0.5, "something is certified"

    # The naive choice, the cheapest with so few errors on the rows, breaks promises.
    few_DT = errors_DT <= epsilon * num_rows
    cheapest_DT = steps == np.where(few_DT, steps, -1).max(axis=1)[:, None]
    assert rate_violations(cheapest_DT) > 2 * delta + error
    if kind == "global" and shape == "rotating":
        # So does testing in no order: among many thresholds one has luck.
        passes_DT = compute_p_values(errors_DT, num_rows, epsilon) <= delta
        assert rate_violations(passes_DT) > delta + error
    if kind == "global" and shape == "plateau":
        # And no more is given away than whole numbers of errors demand.
        allowed = int(stats.binom.ppf(delta, num_rows, epsilon)) - 1
        first = risk_T[risk_T > epsilon][0]
        assert rate_violations(certified_DT) == pytest.approx(
            stats.binom.cdf(allowed, num_rows, first), abs=error
        )


@pytest.mark.long
@pytest.mark.parametrize(
    ("risk", "per_exit", "shape"),
    # As above: a path per exit stays with exit 0, at no risk, when errors rotate.
    [
        ("accuracy_loss", False, "rotating"),
        ("disagreement", False, "gradual"),
        ("accuracy_loss", True, "gradual"),
    ],
)
def test_promises_of_whole_choices_are_kept(risk, per_exit, shape, rng):
    # As in a run: rows are drawn, stratified into parts, and part 0 declares the path.
    epsilon, delta, num_rows, num_draws = 0.05, 0.1, 700, 1000
    population = make_population(risk, shape, rng)
    scores_NE, errors_NE = score(population, risk)
    risks = []
    for _ in range(num_draws):
        bank = take(population, rng.integers(0, len(scores_NE), num_rows))
        bank = dataclasses.replace(bank, part=assign_parts(bank.labels))
        rows = Calibration(bank, ONES_E, None, COSTS_E, "accuracy")
        choice = choose_risk(rows, epsilon, risk, delta=delta, per_exit=per_exit)
        exits_N = find_exits(scores_NE, np.array([choice.thresholds]))[0]
        risks.append(errors_NE[np.arange(len(exits_N)), exits_N].mean())
    error = 3 * math.sqrt(delta * (1 - delta) / num_draws)
    assert np.mean(np.array(risks) > epsilon) <= delta + error
    assert np.mean(np.array(risks) > epsilon / 4) > 0.5, "choices go near the limit"


def take(bank: LogitBank, rows: np.ndarray) -> LogitBank:
    """Returns rows of a bank, some of them several times."""
    return dataclasses.replace(
        bank,
        **{
            name: getattr(bank, name)[rows]
            for name in ("logits", "labels", "weights", "row_ids", "part")
        },
    )
