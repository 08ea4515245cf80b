"""Temperatures: the optimum, what it must not change, and where it stops."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from sweet_jax.arrays import LogitBank
from sweet_jax.exits.temperatures import (
    RELEASED_RANGE,
    TEMPERATURE_RANGE,
    apply_temperatures,
    compute_nll,
    fit_temperatures,
)

# Few, because each compiles once.
SHAPES = [(1, 1, 2), (6, 3, 3), (6, 1, 7)]
fast = hypothesis.settings(max_examples=30)


def _make_bank(logits_NEC, labels_N, weights_N=None) -> LogitBank:
    num_rows = len(labels_N)
    return LogitBank(
        logits=np.asarray(logits_NEC, np.float32),
        labels=np.asarray(labels_N),
        weights=np.ones(num_rows) if weights_N is None else np.asarray(weights_N),
        row_ids=np.arange(num_rows),
        part=np.zeros(num_rows, int),
    )


@st.composite
def _banks(draw):
    num_rows, num_exits, num_classes = draw(st.sampled_from(SHAPES))
    logits_NEC = draw(
        hnp.arrays(
            np.float32,
            (num_rows, num_exits, num_classes),
            elements=st.floats(-30, 30, width=32, allow_subnormal=False),
        )
    )
    labels_N = draw(hnp.arrays(int, num_rows, elements=st.integers(0, num_classes - 1)))
    return _make_bank(logits_NEC, labels_N)


def _sample_bank(rng, temperature: float, num_rows: int = 20_000) -> LogitBank:
    """Logits whose labels were drawn at `temperature`, so that it is the truth."""
    logits_NC = rng.normal(0, 2, (num_rows, 3))
    noise_NC = rng.gumbel(size=logits_NC.shape)
    labels_N = (logits_NC / temperature + noise_NC).argmax(axis=1)
    return _make_bank(logits_NC[:, None], labels_N)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_finds_the_temperature_that_the_labels_were_drawn_at(rng, temperature):
    fitted = fit_temperatures(_sample_bank(rng, temperature))
    np.testing.assert_allclose(fitted, [temperature], rtol=0.05)


def test_finds_the_minimum_of_a_fine_grid(rng):
    bank = _sample_bank(rng, 2.3, num_rows=300)
    grid = np.exp(np.linspace(-2.3, 2.99, 4001))
    logits_NC = bank.logits[:, 0].astype(np.float64)
    nll = [
        -np.mean(special.log_softmax(logits_NC / t, 1)[np.arange(300), bank.labels])
        for t in grid
    ]
    np.testing.assert_allclose(fit_temperatures(bank), grid[np.argmin(nll)], rtol=2e-3)


@fast
@hypothesis.given(bank=_banks())
def test_never_raises_nll_on_its_own_rows(bank):
    fitted_E = fit_temperatures(bank)
    ones_E = np.ones_like(fitted_E)
    for i in range(bank.num_exits):
        before, after = (
            compute_nll(apply_temperatures(bank.logits, t_E)[:, i], bank.labels)
            for t_E in (ones_E, fitted_E)
        )
        assert after <= before


@fast
@hypothesis.given(bank=_banks(), data=st.data())
def test_keeps_the_argmax_even_between_neighbouring_floats(bank, data):
    logits_NEC = bank.logits.copy()
    if data.draw(st.booleans()):
        # Class 1 above class 0 by one ulp, and both above the rest.
        logits_NEC[..., 0] = np.abs(logits_NEC).max(axis=-1) + np.float32(1)
        logits_NEC[..., 1] = np.nextafter(logits_NEC[..., 0], np.float32(np.inf))
    low, high = TEMPERATURE_RANGE
    temperatures_E = data.draw(
        hnp.arrays(np.float32, logits_NEC.shape[1], elements=st.floats(low, high)).map(
            np.float32
        )
    )
    calibrated_NEC = np.asarray(apply_temperatures(logits_NEC, temperatures_E))
    np.testing.assert_array_equal(calibrated_NEC.argmax(-1), logits_NEC.argmax(-1))


def test_divides_by_the_exits_own_temperature(rng):
    logits_NEC = rng.normal(size=(4, 2, 3)).astype(np.float32)
    temperatures_E = np.array([0.5, 4.0], np.float32)
    np.testing.assert_allclose(
        special.softmax(apply_temperatures(logits_NEC, temperatures_E), axis=-1),
        special.softmax(logits_NEC / temperatures_E[None, :, None], axis=-1),
        rtol=1e-5,
    )


def test_separable_and_hopeless_rows_end_at_the_bounds():
    logits_NEC = np.array([[[3, 0], [0, 3]], [[0, 3], [3, 0]]])
    right_then_wrong = fit_temperatures(_make_bank(logits_NEC, [0, 1]))
    np.testing.assert_allclose(right_then_wrong, TEMPERATURE_RANGE, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.02, 60.0])
def test_the_released_search_is_not_held_to_our_bounds(rng, temperature):
    # Logits as large or small as the temperature, or no label would tell it.
    bank = _sample_bank(rng, 1.0)
    bank = _make_bank(bank.logits * temperature, bank.labels)
    fitted = fit_temperatures(bank, RELEASED_RANGE)
    np.testing.assert_allclose(fitted, [temperature], rtol=0.05)
    assert not TEMPERATURE_RANGE[0] < temperature < TEMPERATURE_RANGE[1]


def test_rows_without_evidence_keep_temperature_1():
    np.testing.assert_array_equal(
        fit_temperatures(_make_bank(np.zeros((3, 2, 2)), [0, 1, 1])), [1, 1]
    )


def test_a_weight_counts_as_so_many_rows(rng):
    bank = _sample_bank(rng, 2.0, num_rows=50)
    weights_N = rng.integers(0, 3, 50)
    rows = np.repeat(np.arange(50), weights_N)
    np.testing.assert_allclose(
        fit_temperatures(_make_bank(bank.logits, bank.labels, weights_N * 1.0)),
        fit_temperatures(_make_bank(bank.logits[rows], bank.labels[rows])),
        rtol=1e-3,
    )


def test_refuses_to_fit_on_nothing():
    with pytest.raises(ValueError, match=r"raise data\.calibration_examples"):
        fit_temperatures(_make_bank(np.zeros((0, 2, 2)), np.zeros(0, int)))
