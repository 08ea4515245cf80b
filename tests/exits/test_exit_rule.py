"""The rule of a running cascade decides as the evaluator does on a whole bank."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from exit_banks import make_bank

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.cascade import choose_exits, costs_from_layers
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.settings import registries

EXITS, CLASSES = 4, 3
TEMPERATURES = np.array([0.5, 1.5, 1.0, 2.0], np.float32)
RANGES = np.array([[0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.0, 0.9]], np.float32)


@pytest.fixture
def bank(rng) -> LogitBank:
    lte_NE = rng.uniform(0.1, 0.9, (60, EXITS)).astype(np.float32)
    return dataclasses.replace(make_bank(rng, 60), lte=lte_NE)


def make_calibration(bank: LogitBank, **changes: Any) -> Calibration:
    costs_E = costs_from_layers((0, 1, 3, 5))
    whole = Calibration(bank, TEMPERATURES, RANGES, costs_E, "accuracy")
    return dataclasses.replace(whole, **changes)


def run_cascade(rule: ExitRule, bank: LogitBank) -> np.ndarray:
    """Returns the exit of each row, asked exit after exit.

    What no exit has said yet is NaN, and must not be looked at.
    """
    width = CLASSES + rule.reads_lte
    exits_N = np.full(len(bank.labels), -1)
    history_NEA = np.full((len(exits_N), EXITS, width), np.nan, np.float32)
    for i in range(EXITS):
        answers_NA = np.column_stack([bank.logits[:, i], bank.lte[:, i]])
        scores_N = rule.score(i, history_NEA, jnp.asarray(answers_NA))
        leaves_N = rule.decide(
            i, None if scores_N is None else np.asarray(scores_N), answers_NA
        )
        history_NEA[:, i] = answers_NA[:, :width]
        exits_N[leaves_N & (exits_N < 0)] = i
    return exits_N


@pytest.mark.parametrize("criterion", registries.BUILTIN_CRITERIA)
def test_exits_are_those_of_the_evaluator(bank, criterion):
    calibration = make_calibration(bank)
    scores_NE = calibration.apply(bank).score(criterion)
    values = np.unique(scores_NE).astype(np.float64)
    # Between two scores, which another program may round in another way; and on them
    # where nothing is rounded.
    thresholds = (values[1:] + values[:-1])[:: max(len(values) // 8, 1)] / 2
    if criterion in ("patience", "lte"):
        thresholds = np.concatenate([thresholds, values[[0, len(values) // 2, -1]]])
    for threshold in thresholds:
        rule = ExitRule.make(calibration, [float(threshold)], criterion)
        expected_TN = np.asarray(choose_exits(scores_NE, rule.thresholds[:1]))
        np.testing.assert_array_equal(run_cascade(rule, bank), expected_TN[0])


@pytest.mark.parametrize("criterion", ["confidence", "lte"])
def test_every_exit_has_its_own_threshold(bank, criterion):
    calibration = make_calibration(bank)
    scores_NE = calibration.apply(bank).score(criterion)
    thresholds = [np.quantile(scores_NE[:, i], 0.7).item() for i in range(3)]
    rule = ExitRule.make(calibration, thresholds, criterion)
    passes_NE = scores_NE >= np.array([*thresholds, 0], np.float32)
    expected_N = passes_NE.argmax(axis=1)
    assert set(expected_N) == {0, 1, 2, 3}
    np.testing.assert_array_equal(run_cascade(rule, bank), expected_N)


def test_one_threshold_is_that_of_all_exits_but_the_last(bank):
    calibration = make_calibration(bank)
    rule = ExitRule.make(calibration, [0.5])
    np.testing.assert_array_equal(rule.thresholds, [0.5, 0.5, 0.5, FULL])
    rule = ExitRule.make(calibration, [0.4, FULL, 0.6])
    np.testing.assert_allclose(rule.thresholds, [0.4, FULL, 0.6, FULL])
    assert (rule.num_exits, rule.criterion) == (EXITS, "confidence")
    assert [rule.leaves_none(i) for i in range(EXITS)] == [False, True, False, True]


def test_nothing_is_scored_where_nothing_can_be_decided(bank):
    """No program is started for an exit that none, or all, leave."""
    rule = ExitRule.make(make_calibration(bank), [FULL, 1 / CLASSES, FULL])
    history_NEA = np.zeros((60, EXITS, CLASSES), np.float32)
    scores = [rule.score(i, history_NEA, bank.logits[:, i]) for i in range(EXITS)]
    assert [s is None for s in scores] == [True, False, True, True]
    for i, leaves in ((0, False), (2, False), (3, True)):
        assert (rule.decide(i, None, bank.logits[:, i]) == leaves).all()
    np.testing.assert_array_equal(run_cascade(rule, bank), np.full(60, 1))


def test_what_exits_say_of_themselves_needs_no_program(bank):
    rule = ExitRule.make(make_calibration(bank), [0.5], "lte")
    answers_NA = np.column_stack([bank.logits[:, 1], bank.lte[:, 1]])
    history_NEA = np.zeros((60, EXITS, CLASSES + 1), np.float32)
    assert rule.score(1, history_NEA, answers_NA) is None
    # Half of the way from the exit's lowest score, 0.2, to its highest, 0.8.
    np.testing.assert_array_equal(
        rule.decide(1, None, answers_NA), bank.lte[:, 1] >= 0.5
    )


@pytest.mark.parametrize(
    ("thresholds", "criterion", "message"),
    [
        ([0.1], "confidence", r"threshold=0.1 is outside the range .* 0.3333333 to 1"),
        ([0.5, 0.5, 1.5], "confidence", r"threshold=1.5 is outside"),
        ([5.0], "patience", r"3 classes and 4 exits: allowed is 1 to 4"),
        ([0.5], "patient", r"criterion='patient': allowed are .* did you mean"),
        ([0.5], "lte", "no heads for them: train with exits.learn_to_exit=True"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(bank, thresholds, criterion, message):
    calibration = make_calibration(bank, lte_ranges=None)
    with pytest.raises(ValueError, match=message) as error:
        ExitRule.make(calibration, thresholds, criterion)
    assert "\n" not in str(error.value)


def test_a_model_with_heads_may_leave_by_its_logits(bank):
    """Their scores come behind the logits, and no criterion of logits sees them."""
    without = dataclasses.replace(bank, lte=np.full_like(bank.lte, np.nan))
    rule = ExitRule.make(make_calibration(bank), [0.7])
    assert not rule.reads_lte
    np.testing.assert_array_equal(run_cascade(rule, bank), run_cascade(rule, without))
