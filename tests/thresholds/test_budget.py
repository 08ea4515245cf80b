"""Thresholds from a budget: what is chosen, what is said of it, what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.tiny_model import DESCRIPTION
from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.evaluation.curves import choose_threshold
from sweet_jax.exits.criteria import FULL, compute_scores
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import ModelFolderError
from sweet_jax.thresholds.budget import Budget, load_budget, make_budget
from sweet_jax.thresholds.choice import pick_target
from sweet_jax.thresholds.risk_control import RISKS, mark_errors
from sweet_jax.thresholds.sequences import find_exits

LAYERS = (0, 1, 3, 5)
COSTS_E = costs_from_layers("sweet", LAYERS)
ONES_E = np.ones(4, np.float32)


def make_bank(rng, num_rows: int = 600, noise: float = 1.0) -> LogitBank:
    """Exits that know more of the label the deeper they are; parts take turns."""
    labels_N = rng.integers(0, 3, num_rows)
    knowledge_E = np.array([1.5, 2.5, 3.5, 4.0])
    truth_NC = np.eye(3)[labels_N]
    # Exits share most of their noise, as exits of one encoder do.
    shared_N1C = rng.normal(size=(num_rows, 1, 3))
    own_NEC = 0.5 * rng.normal(size=(num_rows, 4, 3))
    logits_NEC = noise * (shared_N1C + own_NEC)
    logits_NEC += knowledge_E[None, :, None] * truth_NC[:, None]
    return LogitBank(
        logits=logits_NEC.astype(np.float32),
        labels=labels_N,
        weights=np.ones(num_rows),
        row_ids=np.arange(num_rows),
        part=np.arange(num_rows) % 2,
    )


def make_test_budget(bank: LogitBank, metric: str = "accuracy") -> Budget:
    return make_budget(bank, ONES_E[: bank.num_exits], COSTS_E, metric)


@pytest.fixture(scope="module")
def budget() -> Budget:
    return make_test_budget(make_bank(np.random.default_rng(0)))


@pytest.mark.parametrize("criterion", ["confidence", "entropy", "margin", "patience"])
def test_a_speedup_is_met_as_in_the_results(budget, criterion):
    curve = budget.rows.make_curve(criterion, "accuracy", COSTS_E)
    for speedup in (1.0, 1.5, 2.0, 3.0):
        choice = budget.choose_speedup(speedup, criterion)
        assert choice.feasible
        assert choice.threshold == choose_threshold(curve, 1 / speedup)
        assert choice.reached == choice.speedup >= speedup - 1e-6
        scores_NE = np.asarray(compute_scores(criterion, budget.rows.bank.logits))
        exits_N = find_exits(scores_NE, np.array([choice.thresholds]))[0]
        assert choice.cost_fraction == pytest.approx(COSTS_E[exits_N].mean())
        assert choice == dataclasses.replace(
            budget.choose_cost(1 / speedup, criterion),
            target="speedup",
            asked=speedup,
            reached=choice.speedup,
        )


def test_seconds_are_those_of_all_segments_run(budget):
    # Of the layers' proportion: the same choice as by cost.
    seconds_E = np.diff(COSTS_E, prepend=0) * 0.012
    by_seconds = budget.choose_seconds(0.006, seconds_E)
    by_cost = budget.choose_cost(0.5)
    assert by_seconds.thresholds == by_cost.thresholds
    assert by_seconds.reached == pytest.approx(0.012 * by_cost.cost_fraction)
    assert by_seconds.cost_fraction == by_cost.cost_fraction
    # A dear first segment leaves less to save.
    dear = budget.choose_seconds(0.006, np.array([0.0055, 0.001, 0.003, 0.0025]))
    assert dear.feasible
    assert dear.reached <= 0.006
    assert dear.cost_fraction < by_cost.cost_fraction


@pytest.mark.parametrize("risk", sorted(RISKS))
@pytest.mark.parametrize("per_exit", [False, True])
def test_a_risk_is_bounded_at_the_least_cost_and_more_may_err_for_less(
    budget, risk, per_exit
):
    costs = []
    for epsilon in (0.001, 0.02, 0.05, 0.1, 0.9):
        choice = budget.choose_risk(epsilon, risk, per_exit=per_exit)
        costs.append(choice.cost_fraction)
        evidence = choice.evidence
        assert evidence is not None
        assert (len(choice.thresholds) > 1) == per_exit
        scores_NE = np.asarray(compute_scores("confidence", budget.rows.bank.logits))
        exits_N = find_exits(scores_NE, np.array([choice.thresholds]))[0]
        assert choice.cost_fraction == pytest.approx(COSTS_E[exits_N].mean())
        if choice.feasible:
            answers = budget.rows.predictions
            errors_NE = mark_errors(risk, answers, budget.rows.bank.labels)
            assert evidence.errors == errors_NE[np.arange(300), exits_N].sum()
            tail = stats.binom.cdf(evidence.errors, 300, epsilon)
            assert evidence.p_value == pytest.approx(tail)
            assert evidence.p_value <= 0.1
            assert choice.reached == epsilon
    assert costs[0] == 1
    assert costs[-1] == COSTS_E[0]
    assert np.all(np.diff(costs) <= 0)
    assert 1 > costs[2] > COSTS_E[0], "a choice in between"


def test_a_path_does_not_depend_on_the_rows_it_is_tested_on(budget, rng):
    other = make_test_budget(make_bank(rng, noise=2.0))
    mixed = dataclasses.replace(budget, rows=other.rows)
    for per_exit in (False, True):
        np.testing.assert_array_equal(
            budget._make_path("confidence", "accuracy_loss", per_exit),
            mixed._make_path("confidence", "accuracy_loss", per_exit),
        )


def test_a_choice_is_a_line_and_plain_json(budget):
    choices = [
        budget.choose_speedup(2.0),
        budget.choose_speedup(100.0),
        budget.choose_seconds(0.01, np.full(4, 0.01)),
        budget.choose_risk(0.05, per_exit=True),
        budget.choose_risk(0.05, "disagreement"),
        budget.choose_risk(0.001),
        budget.choose_risk(0.02, criterion="patience"),
    ]
    for choice in choices:
        fields = json.loads(json.dumps(choice.to_json(), allow_nan=False))
        assert fields["message"] == str(choice)
        assert "\n" not in str(choice)
        assert fields["speedup"] == pytest.approx(choice.speedup)
    loss = str(choices[3])
    assert "with probability 0.9 at most 0.05 of inputs lose a right answer" in loss
    assert choices[5].to_json()["thresholds"] == [None]


def test_targets_out_of_reach_say_what_can_be_reached(budget):
    choice = budget.choose_speedup(7.0)
    assert not choice.feasible
    assert (choice.reached, choice.thresholds) == (
        pytest.approx(6),
        (pytest.approx(1 / 3),),
    )
    assert "speed-up 7 is out of reach: the cheapest cascade has speed-up 6" in str(
        choice
    )
    choice = budget.choose_cost(0.1)
    assert not choice.feasible
    assert choice.reached == pytest.approx(1 / 6)
    choice = budget.choose_seconds(0.001, np.array([0.002, 0.01, 0.01, 0.01]))
    assert not choice.feasible
    assert choice.reached == pytest.approx(0.002)


def test_too_few_rows_for_a_promise_say_how_many_it_takes():
    # All exits agree with the last: no error at any threshold.
    bank = make_bank(np.random.default_rng(0), 400)
    bank = dataclasses.replace(bank, logits=np.tile(bank.logits[:, 3:], (1, 4, 1)))
    budget = make_test_budget(bank)
    for risk in RISKS:
        choice = budget.choose_risk(0.01, risk)
        evidence = choice.evidence
        assert evidence is not None
        assert not choice.feasible
        assert (choice.thresholds, choice.speedup) == ((FULL,), 1.0)
        assert (evidence.errors, evidence.rows_without_error) == (0, 230)
        assert evidence.rows_at_this_rate == 230
        assert choice.reached == pytest.approx(1 - 0.1 ** (1 / 200))
        assert "it takes 230 rows without an error" in str(choice)
        # What was reached can be promised, on all rows at once.
        again = budget.choose_risk(choice.reached + 1e-9, risk)
        assert again.feasible
        assert again.speedup == pytest.approx(6)


def test_errors_at_the_first_thresholds_say_how_many_rows_it_takes(budget):
    # Patience has few thresholds; at the first that lets anything leave many err.
    choice = budget.choose_risk(0.015, criterion="patience")
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
    never = budget.choose_risk(evidence.errors / 300, criterion="patience")
    assert "no number at this rate" in str(never)


def test_a_single_exit_has_nothing_to_save(rng):
    bank = make_bank(rng)
    bank = dataclasses.replace(bank, logits=bank.logits[:, 3:])
    budget = make_budget(bank, ONES_E[:1], np.ones(1), "accuracy")
    for per_exit in (False, True):
        choice = budget.choose_risk(0.05, per_exit=per_exit)
        assert not choice.feasible
        assert choice.cost_fraction == 1
        assert "no thresholds of this model save anything" in str(choice)


def test_a_multi_model_cascade_pays_for_every_model(rng):
    costs_E = costs_from_layers("multi_model", LAYERS)
    budget = make_budget(make_bank(rng), ONES_E, costs_E, "accuracy")
    choice = budget.choose_risk(0.001)
    assert choice.cost_fraction == pytest.approx(13 / 6)
    assert budget.choose_speedup(1.0).speedup >= 1
    assert budget.choose_risk(0.05).cost_fraction < 13 / 6


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_no_loss_is_promised_for_scores_that_are_no_means(metric):
    bank = make_bank(np.random.default_rng(0))
    if metric == "f1":
        bank = dataclasses.replace(bank, labels=bank.labels % 2)
        bank = dataclasses.replace(bank, logits=bank.logits[:, :, :2])
    budget = make_test_budget(bank, metric)
    with pytest.raises(ValueError, match=f"not offered for metric={metric}: the score"):
        budget.choose_risk(0.05)
    assert budget.choose_speedup(2.0).feasible


def test_weighted_rows_are_refused(rng):
    bank = make_bank(rng)
    budget = make_test_budget(dataclasses.replace(bank, weights=bank.weights * 2))
    with pytest.raises(ValueError, match="need rows of weight 1"):
        budget.choose_risk(0.05)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_risks_and_levels_lie_between_0_and_1(budget, value):
    with pytest.raises(ValueError, match=r"max_accuracy_loss=.*allowed is a number ab"):
        budget.choose_risk(value)
    with pytest.raises(ValueError, match="delta="):
        budget.choose_risk(0.05, delta=value)


def test_wrong_targets_are_one_line(budget):
    for value in (0.0, -1.0, math.nan, math.inf):
        for choose in (budget.choose_speedup, budget.choose_cost):
            with pytest.raises(ValueError, match="allowed is a number above 0"):
                choose(value)
    with pytest.raises(ValueError, match="has 3 times, the model 4 segments"):
        budget.choose_seconds(0.1, np.ones(3))
    with pytest.raises(ValueError, match=r"segment_seconds\[1\]=0.0: allowed"):
        budget.choose_seconds(0.1, np.array([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="allowed are accuracy_loss, disagreement"):
        budget.choose_risk(0.05, "loss")
    with pytest.raises(ValueError, match="no heads for them"):
        budget.choose_risk(0.05, criterion="lte")
    with pytest.raises(ValueError, match="has its own threshold"):
        _ = budget.choose_risk(0.05, per_exit=True).threshold


def test_conflicting_targets_are_refused():
    assert pick_target(threshold=None, speedup=None) is None
    assert pick_target(threshold=None, speedup=2.0) == ("speedup", 2.0)
    with pytest.raises(ValueError, match=r"threshold=0\.9 and speedup=2\.0 are conf"):
        pick_target(threshold=0.9, speedup=2.0, max_accuracy_loss=None)


def test_both_parts_are_needed(rng):
    bank = make_bank(rng)
    for part in (0, 1):
        with pytest.raises(ValueError, match=f"no rows of part {part}"):
            make_test_budget(bank.select_part(1 - part))


def make_description(**changes) -> ModelDescription:
    description = dataclasses.replace(
        DESCRIPTION,
        label_names=("a", "b", "c"),
        exit_layers=LAYERS,
        member_exits=((0, 1, 2, 3),),
        temperatures=(1.5, 1.0, 2.0, 0.5),
        cost_fractions=tuple(COSTS_E.tolist()),
        buckets=(32,),
        bucket_rows=(600,),
        digest="digest",
    )
    return dataclasses.replace(description, **changes)


def test_a_model_folder_brings_its_budget(tmp_path, rng):
    lte_NE = rng.random((600, 4)).astype(np.float32)
    bank = dataclasses.replace(make_bank(rng), lte=lte_NE)
    description = make_description(lte_ranges=((0.0, 1.0),) * 4)
    bank.save(tmp_path / "calibration.npz", description.digest)
    loaded = load_budget(tmp_path, description)
    temperatures = np.array(description.temperatures, np.float32)
    ranges = np.array(description.lte_ranges, np.float32)
    made = make_budget(bank, temperatures, COSTS_E, "accuracy", ranges)
    for criterion in ("confidence", "lte"):
        assert loaded.choose_risk(0.1, criterion=criterion) == made.choose_risk(
            0.1, criterion=criterion
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "other"}, "is of another training: copy the folder again"),
        ({"bucket_rows": (599,)}, "has other rows, exits or classes than model.json"),
        ({"label_names": ("a", "b")}, "has other rows, exits or classes"),
        ({"lte_ranges": ((0.0, 1.0),) * 4}, "has other rows, exits or classes"),
        ({"exit_layers": (0,), "member_exits": ((0,),)}, "has other rows, exits"),
    ],
)
def test_calibration_rows_of_another_model_are_refused(tmp_path, rng, changes, message):
    if "exit_layers" in changes:
        changes = changes | {"temperatures": (1.0,), "cost_fractions": (1.0,)}
    make_bank(rng).save(tmp_path / "calibration.npz", "digest")
    with pytest.raises(ModelFolderError, match=message):
        load_budget(tmp_path, make_description(**changes))


def test_missing_calibration_rows_are_one_line(tmp_path):
    with pytest.raises(ModelFolderError, match="npz is missing: copy the folder"):
        load_budget(tmp_path, make_description())
