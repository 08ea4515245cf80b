"""Learning to exit: its targets, its loss, and how scores are scaled."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sweet_jax.arrays import ExitOutput, LogitBank
from sweet_jax.exits.learned import (
    compute_lte_losses,
    compute_lte_targets,
    compute_squared_error_sum,
    fit_lte_ranges,
    scale_lte,
)

# What a sigmoid gives: 0 and 1 and numbers next to each other included.
SCORES = st.floats(0, 1, width=32)
fast = hypothesis.settings(max_examples=100)


def _make_bank(lte_NE, weights_N=None) -> LogitBank:
    num_rows = len(lte_NE)
    return LogitBank(
        logits=np.zeros((*np.shape(lte_NE), 2), np.float32),
        labels=np.zeros(num_rows, int),
        weights=np.ones(num_rows)
        if weights_N is None
        else np.asarray(weights_N, float),
        row_ids=np.arange(num_rows),
        part=np.zeros(num_rows, int),
        lte=np.asarray(lte_NE, np.float32),
    )


@st.composite
def _fits_and_rows(draw):
    num_exits = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 8)), draw(st.integers(0, 8))]
    fit_NE, rows_NE = (
        draw(hnp.arrays(np.float32, (size, num_exits), elements=SCORES))
        for size in sizes
    )
    return fit_NE, rows_NE


@fast
@hypothesis.given(scores=_fits_and_rows())
def test_scaled_scores_fill_0_to_1_and_keep_the_order(scores):
    fit_NE, rows_NE = scores
    ranges_E2 = fit_lte_ranges(_make_bank(fit_NE))
    assert ranges_E2 is not None
    both_NE = np.concatenate([fit_NE, rows_NE])
    scaled_NE = scale_lte(both_NE, ranges_E2)
    assert scaled_NE.dtype == np.float32
    assert ((scaled_NE >= 0) & (scaled_NE <= 1)).all()
    for i in range(fit_NE.shape[1]):
        rising = scaled_NE[np.argsort(both_NE[:, i], kind="stable"), i]
        assert (np.diff(rising) >= 0).all()
        fitted = scaled_NE[: len(fit_NE), i]
        if fit_NE[:, i].min() == fit_NE[:, i].max():
            # Whatever a new row scores: a head that says nothing never exits early.
            assert not scaled_NE[:, i].any()
        else:
            assert (fitted.min(), fitted.max()) == (0, 1)
            assert (fitted[fit_NE[:, i] == fit_NE[:, i].max()] == 1).all()


def test_scaling_by_hand():
    ranges_E2 = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    lte_NE = np.array([[0.25, 0.1], [0.5, 0.5], [0.875, 0.9]], np.float32)
    expected_NE = [[0, 0], [0.5, 0], [1, 0]]
    np.testing.assert_array_equal(scale_lte(lte_NE, ranges_E2), expected_NE)
    # The narrowest range there is: the quotient is no float32.
    narrow = np.array([[0, 1e-45]], np.float32)
    np.testing.assert_array_equal(scale_lte(np.ones((1, 1), np.float32), narrow), 1)


def test_rows_of_no_weight_have_no_influence_on_the_range():
    bank = _make_bank([[0.2], [0.9], [np.nan], [0.4]], [1, 0, 0, 1])
    np.testing.assert_array_equal(fit_lte_ranges(bank), np.float32([[0.2, 0.4]]))


def test_what_cannot_be_fitted_is_refused_in_one_line():
    assert fit_lte_ranges(dataclasses.replace(_make_bank([[0.2]]), lte=None)) is None
    for bank, message in (
        (_make_bank([[0.2]], [0]), "raise data.calibration_examples"),
        (_make_bank([[0.2, np.nan], [0.3, 0.1]]), r"exits \[1\] are not finite"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            fit_lte_ranges(bank)
        assert "\n" not in str(error.value)


def test_the_target_is_being_right_and_has_no_gradient():
    logits_BC = jnp.array([[2.0, 1, 0], [0, 1, 2], [1, 1, 0], [0, 5, 5]])
    labels_B = jnp.array([0, 0, 1, 1])
    # Of equal logits the first answers, as everywhere.
    np.testing.assert_array_equal(
        compute_lte_targets(logits_BC, labels_B), [1, 0, 0, 1]
    )

    def compute_loss(logits_BC, lte_B):
        outputs = [ExitOutput(logits_BC, lte_B)]
        return compute_lte_losses(outputs, labels_B, jnp.ones(4))[0]

    lte_B = jnp.array([0.9, 0.8, 0.25, 0.5])
    loss, (of_logits, of_lte) = jax.value_and_grad(compute_loss, (0, 1))(
        logits_BC, lte_B
    )
    assert float(loss) == pytest.approx(0.01 + 0.64 + 0.0625 + 0.25)
    assert not np.asarray(of_logits).any()
    np.testing.assert_allclose(of_lte, [-0.2, 1.6, 0.5, -1.0], rtol=1e-5)


def test_filling_rows_add_exactly_nothing():
    lte_B = jnp.array([0.3, np.nan])
    targets_B, weights_B = jnp.array([1.0, np.nan]), jnp.array([1.0, 0.0])
    loss = compute_squared_error_sum(lte_B, targets_B, weights_B)
    assert float(loss) == float(jnp.float32(0.3 - 1) ** 2)
    gradient_B = jax.grad(compute_squared_error_sum)(lte_B, targets_B, weights_B)
    assert np.isfinite(gradient_B).all()
    assert float(gradient_B[1]) == 0


def test_without_heads_there_is_no_loss():
    outputs = [ExitOutput(jnp.zeros((2, 3))), ExitOutput(jnp.zeros((2, 3)))]
    assert compute_lte_losses(outputs, jnp.zeros(2, int), jnp.ones(2)) == ()
