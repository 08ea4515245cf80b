"""Thresholds within a risk: what is promised, what is said of it, what is refused."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL
from sweet_jax.thresholds.budget import choose_speedup
from sweet_jax.thresholds.risk import _make_path, choose_risk
from sweet_jax.thresholds.risk_control import RISKS, mark_errors
from sweet_jax.thresholds.sequences import find_exits
from tests.exit_banks import COSTS_E, LAYERS, make_bank, make_calibration


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return make_calibration(make_bank(np.random.default_rng(0)))


@pytest.mark.parametrize("risk", sorted(RISKS))
@pytest.mark.parametrize("per_exit", [False, True])
def test_a_risk_is_bounded_at_the_least_cost_and_more_may_err_for_less(
    calibration, risk, per_exit
):
    costs, rows = [], calibration.select_part(1)
    scores_NE = rows.score("confidence")
    for epsilon in (0.001, 0.02, 0.05, 0.1, 0.9):
        choice = choose_risk(calibration, epsilon, risk, per_exit=per_exit)
        costs.append(choice.cost_fraction)
        evidence = choice.evidence
        assert evidence is not None
        assert (len(choice.thresholds) > 1) == per_exit
        exits_N = find_exits(scores_NE, np.array([choice.thresholds]))[0]
        assert choice.cost_fraction == pytest.approx(COSTS_E[exits_N].mean())
        if choice.feasible:
            answers = rows.predictions
            errors_NE = mark_errors(risk, answers, rows.bank.labels)
            assert evidence.errors == errors_NE[np.arange(300), exits_N].sum()
            tail = stats.binom.cdf(evidence.errors, 300, epsilon)
            assert evidence.p_value == pytest.approx(tail)
            assert evidence.p_value <= 0.1
            assert choice.reached == epsilon
    assert costs[0] == 1
    assert costs[-1] == COSTS_E[0]
    assert np.all(np.diff(costs) <= 0)
    assert 1 > costs[2] > COSTS_E[0], "a choice in between"


def test_a_path_does_not_depend_on_the_rows_it_is_tested_on(calibration, rng):
    bank, other = calibration.bank, make_bank(rng, noise=2.0)
    first_NEC = bank.part[:, None, None] == 0
    mixed = dataclasses.replace(
        bank,
        logits=np.where(first_NEC, bank.logits, other.logits),
        labels=np.where(bank.part == 0, bank.labels, other.labels),
    )
    for per_exit in (False, True):
        one, same = (
            _make_path(c, "confidence", "accuracy_loss", per_exit)
            for c in (calibration, make_calibration(mixed))
        )
        np.testing.assert_array_equal(one, same)


def test_too_few_rows_for_a_promise_say_how_many_it_takes():
    # All exits agree with the last: no error at any threshold.
    bank = make_bank(np.random.default_rng(0), 400)
    bank = dataclasses.replace(bank, logits=np.tile(bank.logits[:, 3:], (1, 4, 1)))
    calibration = make_calibration(bank)
    for risk in RISKS:
        choice = choose_risk(calibration, 0.01, risk)
        evidence = choice.evidence
        assert evidence is not None
        assert not choice.feasible
        assert (choice.thresholds, choice.speedup) == ((FULL,), 1.0)
        assert (evidence.errors, evidence.rows_without_error) == (0, 230)
        assert evidence.rows_at_this_rate == 230
        assert choice.reached == pytest.approx(1 - 0.1 ** (1 / 200))
        assert "it takes 230 rows without an error" in str(choice)
        # What was reached can be promised, on all rows at once.
        again = choose_risk(calibration, choice.reached + 1e-9, risk)
        assert again.feasible
        assert again.speedup == pytest.approx(6)


def test_errors_at_the_first_thresholds_say_how_many_rows_it_takes(calibration):
    # Patience has few thresholds; at the first that lets anything leave many err.
    choice = choose_risk(calibration, 0.015, criterion="patience")
    evidence = choice.evidence
    assert evidence is not None
    assert not choice.feasible
    assert 0 < evidence.errors < 0.015 * 300
    assert evidence.p_value == pytest.approx(
        stats.binom.cdf(evidence.errors, 300, 0.015)
    )
    assert evidence.p_value > 0.1
    assert choice.reached > 0.015
    assert evidence.rows_at_this_rate is not None
    assert evidence.rows_at_this_rate > 300
    assert f"{evidence.rows_at_this_rate} at this rate" in str(choice)
    never = choose_risk(calibration, evidence.errors / 300, criterion="patience")
    assert "no number at this rate" in str(never)


def test_a_single_exit_has_nothing_to_save(rng):
    bank = make_bank(rng)
    bank = dataclasses.replace(bank, logits=bank.logits[:, 3:])
    calibration = make_calibration(bank)
    for per_exit in (False, True):
        choice = choose_risk(calibration, 0.05, per_exit=per_exit)
        assert not choice.feasible
        assert choice.cost_fraction == 1
        assert "no thresholds of this model save anything" in str(choice)


def test_a_multi_model_cascade_pays_for_every_model(rng):
    costs_E = costs_from_layers(LAYERS, separate_models=True)
    calibration = dataclasses.replace(make_calibration(make_bank(rng)), costs_E=costs_E)
    choice = choose_risk(calibration, 0.001)
    assert choice.cost_fraction == pytest.approx(13 / 6)
    assert choose_speedup(calibration, 1.0).speedup >= 1
    assert choose_risk(calibration, 0.05).cost_fraction < 13 / 6


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_no_loss_is_promised_for_scores_that_are_no_means(metric):
    bank = make_bank(np.random.default_rng(0))
    if metric == "f1":
        bank = dataclasses.replace(bank, labels=bank.labels % 2)
        bank = dataclasses.replace(bank, logits=bank.logits[:, :, :2])
    calibration = make_calibration(bank, metric)
    with pytest.raises(
        ValueError, match=f"not offered for metric={metric}: this score"
    ):
        choose_risk(calibration, 0.05)
    assert choose_speedup(calibration, 2.0).feasible


def test_weighted_rows_are_refused(rng):
    bank = make_bank(rng)
    calibration = make_calibration(dataclasses.replace(bank, weights=bank.weights * 2))
    with pytest.raises(ValueError, match="need rows of weight 1"):
        choose_risk(calibration, 0.05)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_risks_and_levels_lie_between_0_and_1(calibration, value):
    with pytest.raises(ValueError, match=r"max_accuracy_loss=.*allowed is a number ab"):
        choose_risk(calibration, value)
    with pytest.raises(ValueError, match="delta="):
        choose_risk(calibration, 0.05, delta=value)


def test_an_unknown_risk_and_a_choice_per_exit_are_one_line(calibration):
    with pytest.raises(ValueError, match="allowed are accuracy_loss, disagreement"):
        choose_risk(calibration, 0.05, "loss")
    with pytest.raises(ValueError, match="no heads for them"):
        choose_risk(calibration, 0.05, criterion="lte")
    with pytest.raises(ValueError, match="has its own threshold"):
        _ = choose_risk(calibration, 0.05, per_exit=True).threshold


@pytest.mark.parametrize("part", [0, 1])
def test_both_parts_are_needed(rng, part):
    calibration = make_calibration(make_bank(rng).select_part(1 - part))
    with pytest.raises(ValueError, match=f"no rows of part {part}: raise data.cal"):
        choose_risk(calibration, 0.05)


def test_a_full_model_of_its_own_is_what_promises_are_about(calibration):
    """A model in 8 bits is compared with the model before rounding."""
    bank = calibration.bank
    own_N = bank.logits[:, -1].argmax(axis=1)
    same = dataclasses.replace(calibration, full=own_N)
    for risk in RISKS:
        for epsilon in (0.001, 0.02, 0.05, 0.9):
            theirs, ours = (choose_risk(c, epsilon, risk) for c in (calibration, same))
            assert (ours.feasible, ours.thresholds) == (
                theirs.feasible,
                theirs.thresholds,
            )
    # It differs from the last exit on every tenth row of part 1, where it is right.
    places = np.flatnonzero(bank.part == 1)[::10]
    right = dataclasses.replace(
        bank, labels=np.where(np.isin(bank.row_ids, places), 2, bank.labels)
    )
    own_N[places] = 2
    rounded = dataclasses.replace(calibration, bank=right, full=own_N)
    wrong = int((bank.logits[places, -1].argmax(axis=1) != 2).sum())
    choice = choose_risk(rounded, 0.02)
    evidence = choice.evidence
    assert evidence is not None
    assert wrong > 10
    assert (choice.feasible, choice.holds) == (False, False)
    assert choice.thresholds == (FULL,)
    assert evidence.errors == wrong
    assert choice.reached == pytest.approx(stats.beta.ppf(0.9, wrong + 1, 300 - wrong))
    assert "although every exit ran: the full model is the one before" in str(choice)
    wide = choose_risk(rounded, 0.3)
    assert (wide.feasible, wide.holds) == (True, True)
    # Errors of the full depth count, too.
    assert wide.evidence is not None
    assert wide.evidence.errors >= wrong / 2
    # What full depth reaches holds, where the first thresholds that save fail.
    only = choose_risk(rounded, choice.reached + 1e-9, criterion="patience")
    assert (only.feasible, only.holds, only.thresholds) == (False, True, (FULL,))
    assert only.evidence is not None
    assert only.evidence.errors > wrong
    assert "at the first thresholds that failed" in str(only)


def test_promises_against_a_model_before_rounding_are_kept(rng):
    """In at most a tenth of draws the risk is above the promised one."""
    everything = make_bank(rng, 20000)
    noise_NEC = 0.4 * rng.normal(size=everything.logits.shape)
    full_N = everything.logits[:, -1].argmax(axis=1)
    rounded = dataclasses.replace(
        everything, logits=(everything.logits + noise_NEC).astype(np.float32)
    )
    scores_NE = make_calibration(rounded).apply(rounded).score("confidence")
    errors_NE = mark_errors(
        "accuracy_loss", rounded.logits.argmax(axis=2), rounded.labels, full_N
    )
    # Running every exit has this risk.
    epsilon = float(errors_NE[:, -1].mean()) + 0.005
    broken = 0
    draws = 60
    for _ in range(draws):
        rows = rng.choice(len(full_N), 600, replace=False)
        bank = dataclasses.replace(rounded.select(rows), part=np.arange(600) % 2)
        calibration = dataclasses.replace(make_calibration(bank), full=full_N[rows])
        choice = choose_risk(calibration, epsilon)
        if choice.holds:
            exits_N = find_exits(scores_NE, np.array([choice.thresholds]))[0]
            broken += errors_NE[np.arange(len(exits_N)), exits_N].mean() > epsilon
    assert broken <= 0.1 * draws + 2 * math.sqrt(0.09 * draws)
