"""Thresholds within a budget: what is chosen, what is said of it, what is refused."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.arrays import UNLABELLED
from sweet_jax.evaluation.curves import Curve, find_best, make_curve
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL
from sweet_jax.thresholds.budget import (
    choose_milliseconds,
    choose_speedup,
)
from sweet_jax.thresholds.risk import choose_risk
from sweet_jax.thresholds.sequences import find_exits
from tests.exit_banks import COSTS_E, make_bank, make_calibration

CRITERIA = ("confidence", "entropy", "margin", "patience")


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return make_calibration(make_bank(np.random.default_rng(0)))


def compute_costs(
    calibration: Calibration, criterion: str, thresholds: np.ndarray
) -> np.ndarray:
    """Returns the mean cost on all rows at each threshold, one row at a time."""
    scores_NE = calibration.apply(calibration.bank).score(criterion)
    exits_TN = find_exits(scores_NE, thresholds[:, None])
    return calibration.costs_E[exits_TN].mean(axis=1)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    # Few sizes: scores are compiled for each.
    num_rows=st.sampled_from((2, 7, 40)),
    digits=st.integers(0, 3),
    speedup=st.floats(0.5, 6.0),
    criterion=st.sampled_from(CRITERIA),
)
def test_the_dearest_threshold_within_the_budget_is_chosen(
    seed, num_rows, digits, speedup, criterion
):
    bank = make_bank(np.random.default_rng(seed), num_rows)
    # Few digits: many rows have equal scores.
    bank = dataclasses.replace(bank, logits=bank.logits.round(digits))
    calibration = make_calibration(bank)
    choice = choose_speedup(calibration, speedup, criterion)
    scores_NE = calibration.apply(bank).score(criterion)
    thresholds = np.unique([*scores_NE.ravel(), np.float32(FULL)])
    costs_T = compute_costs(calibration, criterion, thresholds)
    chosen = compute_costs(calibration, criterion, np.array([choice.threshold]))[0]
    assert chosen == pytest.approx(choice.cost_fraction)
    assert chosen <= 1 / speedup + 1e-9
    assert choice.reached == choice.speedup >= speedup - 1e-6
    assert choice.num_rows == num_rows
    # Whatever costs more is outside of the budget.
    assert (costs_T[costs_T > chosen + 1e-9] > 1 / speedup).all()


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    speedups=st.lists(st.floats(0.5, 6.0), min_size=2, max_size=5),
    criterion=st.sampled_from(CRITERIA),
)
def test_a_larger_speedup_has_no_higher_threshold(seed, speedups, criterion):
    calibration = make_calibration(make_bank(np.random.default_rng(seed), 40))
    chosen = [choose_speedup(calibration, s, criterion) for s in sorted(speedups)]
    thresholds = [choice.threshold for choice in chosen]
    assert thresholds == sorted(thresholds, reverse=True)
    costs = [choice.cost_fraction for choice in chosen]
    assert costs == sorted(costs, reverse=True)


def test_labels_have_no_say_but_in_the_best_score(calibration):
    bank = calibration.bank
    turned = make_calibration(dataclasses.replace(bank, labels=(bank.labels + 1) % 3))
    for choose, same in (("cost", True), ("score", False)):
        found = [choose_speedup(c, 2.0, choose=choose) for c in (calibration, turned)]
        assert (found[0] == found[1]) == same


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_best_score_within_a_budget_is_chosen_on_part_1(calibration, criterion):
    rows = calibration.select_part(1)
    curve: Curve = make_curve(rows, criterion, "accuracy", COSTS_E)
    for speedup in (1.0, 1.5, 2.0, 3.0):
        choice = choose_speedup(calibration, speedup, criterion, choose="score")
        best = find_best(curve, 1 / speedup)
        assert choice.threshold == curve.threshold[best]
        assert choice.cost_fraction == pytest.approx(curve.cost_fraction[best])
        assert choice.num_rows == 300
        dearest = choose_speedup(calibration, speedup, criterion)
        assert dearest.num_rows == 600


@pytest.mark.parametrize("choose", ["cost", "score"])
def test_milliseconds_choose_as_a_speedup_does(calibration, choose):
    by_speedup = choose_speedup(calibration, 2.0, choose=choose)
    # Of the layers' proportion: the same choice.
    seconds_E = np.diff(COSTS_E, prepend=0) * 0.012
    by_time = choose_milliseconds(calibration, 6.0, seconds_E, choose=choose)
    assert by_time.thresholds == by_speedup.thresholds
    assert by_time.reached == pytest.approx(12 * by_speedup.cost_fraction)
    assert by_time.cost_fraction == by_speedup.cost_fraction
    # A dear first segment leaves less to save.
    seconds_E = np.array([0.0055, 0.001, 0.003, 0.0025])
    dear = choose_milliseconds(calibration, 6.0, seconds_E, choose=choose)
    assert dear.reached <= 6.0
    assert dear.cost_fraction < by_speedup.cost_fraction


SECONDS_E = np.array([0.0123456789, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("choose", ["cost", "score"])
@pytest.mark.parametrize(
    ("function", "asked", "args", "message"),
    [
        (choose_speedup, 7.0, (), "speedup=7 is out of reach.* has a speed-up of 6;"),
        (
            *(choose_milliseconds, 1.0, (SECONDS_E,)),
            "milliseconds=1 is out of reach.* takes 12.35 ms per input on this device;",
        ),
    ],
)
def test_what_is_out_of_reach_is_refused_with_what_is_not(
    calibration, function, asked, args, message, choose
):
    with pytest.raises(ValueError, match=message) as error:
        function(calibration, asked, *args, choose=choose)
    assert "\n" not in str(error.value)
    # Asked for, that is met: by exit 0 for all.
    named = re.search(r"(?:of|takes) ([0-9.]+)[; ]", str(error.value))
    assert named is not None
    choice = function(calibration, float(named[1]), *args, choose=choose)
    assert choice.speedup == pytest.approx(6)


@settings(max_examples=50)
@given(layers=st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True))
def test_the_speedup_that_a_refusal_names_can_be_asked_for(layers):
    costs_E = (np.array([*sorted(layers), 12]) + 1) / 13
    bank = make_bank(np.random.default_rng(0), 20)
    bank = dataclasses.replace(bank, logits=bank.logits[:, : len(costs_E)])
    calibration = make_calibration(bank)
    costs_E = costs_E[: bank.num_exits]
    calibration = dataclasses.replace(calibration, costs_E=costs_E)
    with pytest.raises(ValueError, match="is out of reach") as error:
        choose_speedup(calibration, 14.0)
    named = re.search(r"a speed-up of ([0-9.]+);", str(error.value))
    assert named is not None
    asked = float(named[1])
    assert choose_speedup(calibration, asked).speedup >= asked - 1e-6


def test_a_choice_is_a_line_and_plain_json(calibration):
    choices = [
        choose_speedup(calibration, 2.0),
        choose_speedup(calibration, 3.0, choose="score"),
        choose_milliseconds(calibration, 20.0, np.full(4, 0.01)),
        choose_risk(calibration, 0.05, per_exit=True),
        choose_risk(calibration, 0.05, "disagreement"),
        choose_risk(calibration, 0.001),
        choose_risk(calibration, 0.02, criterion="patience"),
    ]
    for choice in choices:
        fields = json.loads(json.dumps(choice.to_json(), allow_nan=False))
        assert fields["message"] == str(choice)
        assert "\n" not in str(choice)
        assert fields["speedup"] == pytest.approx(choice.speedup)
    assert "ms per input" in str(choices[2])
    loss = str(choices[3])
    assert "with probability 0.9 at most 0.05 of inputs lose a right answer" in loss
    assert choices[5].to_json()["thresholds"] == [None]


def test_wrong_targets_are_one_line(calibration):
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"speedup={value}: allowed"):
            choose_speedup(calibration, value)
        with pytest.raises(ValueError, match=f"milliseconds={value}: allowed"):
            choose_milliseconds(calibration, value, np.ones(4))
    with pytest.raises(ValueError, match="has 3 times, the model 4 segments"):
        choose_milliseconds(calibration, 0.1, np.ones(3))
    with pytest.raises(ValueError, match=r"segment_seconds\[1\]=0.0: allowed"):
        choose_milliseconds(calibration, 0.1, np.array([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="choose='best': allowed are cost, score"):
        choose_speedup(calibration, 2.0, choose="best")
    with pytest.raises(ValueError, match="no heads for them"):
        choose_speedup(calibration, 2.0, "lte")


def test_without_labels_only_cost_can_be_chosen_by(calibration):
    bank = dataclasses.replace(
        calibration.bank,
        labels=np.zeros_like(calibration.bank.labels),
        part=np.full(len(calibration.bank.labels), UNLABELLED),
    )
    unlabelled = make_calibration(bank)
    for criterion in CRITERIA:
        expected = choose_speedup(calibration, 2.0, criterion)
        assert choose_speedup(unlabelled, 2.0, criterion) == expected
    for choose in (
        lambda: choose_speedup(unlabelled, 2.0, choose="score"),
        lambda: choose_risk(unlabelled, 0.1),
        lambda: choose_risk(unlabelled, 0.1, "disagreement"),
    ):
        with pytest.raises(ValueError, match=r"without labels.* a speedup") as caught:
            choose()
        assert "\n" not in str(caught.value)
