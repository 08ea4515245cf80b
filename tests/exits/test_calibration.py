"""The calibration object: what it fits, and what it hands to a model folder."""

import dataclasses
import json

import numpy as np
import pytest

from sweet_jax.arrays import UNLABELLED
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.learned import fit_lte_ranges
from sweet_jax.exits.temperatures import RELEASED_RANGE, fit_temperatures
from tests.exit_banks import COSTS_E, make_bank


@pytest.fixture
def bank(rng):
    return dataclasses.replace(
        make_bank(rng, 200), lte=rng.random((200, 4)).astype(np.float32)
    )


def test_it_is_fitted_on_part_0_or_on_given_rows(bank):
    part_0 = bank.select_part(0)
    fitted = Calibration.fit(bank, COSTS_E, "accuracy")
    np.testing.assert_array_equal(fitted.temperatures, fit_temperatures(part_0))
    np.testing.assert_array_equal(fitted.lte_ranges, fit_lte_ranges(part_0))
    other = bank.select(np.arange(50))
    fitted = Calibration.fit(bank, COSTS_E, "accuracy", other, RELEASED_RANGE)
    expected = fit_temperatures(other, RELEASED_RANGE)
    np.testing.assert_array_equal(fitted.temperatures, expected)
    np.testing.assert_array_equal(fitted.lte_ranges, fit_lte_ranges(other))
    assert fitted.bank is bank


def test_a_calibrated_bank_has_temperature_and_range_taken_out(bank):
    calibration = Calibration(
        bank,
        np.array([1, 2, 4, 0.5], np.float32),
        np.array([[0.25, 0.75]] * 4, np.float32),
        COSTS_E,
        "accuracy",
    )
    rows = calibration.apply(bank)
    margins_NE = np.ptp(bank.logits, axis=2) / calibration.temperatures[None]
    np.testing.assert_allclose(np.ptp(rows.bank.logits, axis=2), margins_NE, rtol=1e-5)
    np.testing.assert_array_equal(rows.predictions, bank.logits.argmax(axis=2))
    np.testing.assert_allclose(
        rows.score("lte"), np.clip((bank.lte - 0.25) / 0.5, 0, 1), rtol=1e-6
    )
    assert rows.label_counts.sum() == 200
    part = calibration.select_part(1)
    np.testing.assert_array_equal(part.bank.row_ids, bank.row_ids[bank.part == 1])


def test_it_is_described_in_plain_values(bank):
    fitted = Calibration.fit(bank, COSTS_E, "accuracy")
    fields = fitted.describe()
    assert json.loads(json.dumps(fields))["metric"] == "accuracy"
    np.testing.assert_array_equal(
        np.float32(fields["temperatures"]), fitted.temperatures
    )
    np.testing.assert_array_equal(np.float32(fields["lte_ranges"]), fitted.lte_ranges)
    plain = dataclasses.replace(bank, lte=None)
    assert Calibration.fit(plain, COSTS_E, "accuracy").describe()["lte_ranges"] == ()


def test_rows_that_are_not_there_are_one_line(bank):
    with pytest.raises(ValueError, match="no calibration rows to fit temperatures on"):
        Calibration.fit(bank.select_part(1), COSTS_E, "accuracy")
    fitted = Calibration.fit(bank.select_part(0), COSTS_E, "accuracy")
    with pytest.raises(ValueError, match="no rows of part 1: raise"):
        fitted.select_part(1)


def test_without_labels_temperatures_are_1_and_ranges_are_fitted(bank):
    unlabelled = dataclasses.replace(
        bank, labels=np.zeros_like(bank.labels), part=np.full(200, UNLABELLED)
    )
    fitted = Calibration.fit(unlabelled, COSTS_E, "accuracy")
    assert not fitted.has_labels
    assert fitted.temperatures.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(fitted.lte_ranges, fit_lte_ranges(bank))
    with pytest.raises(ValueError, match="calibrated without labels"):
        fitted.select_part(1)
    assert Calibration.fit(bank, COSTS_E, "accuracy").has_labels
