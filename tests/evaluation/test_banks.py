"""What a run reports of its logit banks, against slow loops, down to its keys."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import metrics
from sweet_jax.evaluation.banks import CascadeSpec, evaluate_banks
from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.evaluation.curves import MOST_SLOW_POINTS, make_curve
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL, compute_scores
from sweet_jax.exits.temperatures import apply_temperatures
from sweet_jax.settings import registries
from sweet_jax.settings.from_config import from_config_dict

LAYERS = (0, 1, 3, 5)


SPEC = CascadeSpec(
    separate_models=False,
    exit_layers=LAYERS,
    criteria=registries.BUILTIN_CRITERIA,
    num_thresholds=11,
    speedups=(1.0, 1.5, 2.0, 6.0, 7.0),
)


def _make_bank(rng, num_rows=200, exit_layers=LAYERS, num_classes=3) -> LogitBank:
    """Exits whose logits know more of the label the deeper they are."""
    labels_N = rng.integers(0, num_classes, num_rows)
    shape = (num_rows, len(exit_layers), num_classes)
    knowledge_E = np.linspace(0.5, 1.5, len(exit_layers))
    truth_NC = np.eye(num_classes)[labels_N]
    logits_NEC = rng.normal(size=shape) + knowledge_E[None, :, None] * truth_NC[:, None]
    return LogitBank(
        logits=(5 * logits_NEC).astype(np.float32),  # overconfident
        labels=labels_N,
        weights=np.ones(num_rows),
        row_ids=np.arange(num_rows),
        part=np.arange(num_rows) % 2,
        # No head uses the whole range.
        lte=special.expit(logits_NEC.max(axis=2) - 2).astype(np.float32),
    )


def _calibrate(held_out, metric="accuracy", separate_models=False, layers=LAYERS):
    costs_E = costs_from_layers(layers, separate_models)
    return Calibration.fit(held_out, costs_E, metric)


def _evaluate(
    test,
    held_out,
    train_label_counts_C=None,
    metric="accuracy",
    calibration=None,
    **changes,
):
    """Evaluates with every criterion; returns the temperatures, too."""
    spec = dataclasses.replace(SPEC, **changes)
    if calibration is None:
        calibration = _calibrate(held_out, metric, spec.separate_models)
    evaluation = evaluate_banks(
        spec,
        test=test,
        calibration=calibration,
        train_label_counts_C=(
            np.bincount(held_out.labels)
            if train_label_counts_C is None
            else train_label_counts_C
        ),
    )
    return calibration.temperatures, evaluation


def _replay(test, held_out, temperatures, criterion, threshold):
    """The cascade one example at a time: (accuracy, cost) of the exits of LAYERS."""
    logits_NEC = np.asarray(apply_temperatures(test.logits, temperatures))
    low_E, high_E = (
        f(held_out.lte[held_out.part == 0], axis=0) for f in (np.min, np.max)
    )
    lte_NE = np.clip((test.lte - low_E[None]) / (high_E - low_E)[None], 0, 1)
    scores_NE = np.asarray(compute_scores(criterion, logits_NEC, lte_NE))
    right, cost = [], []
    for n, label in enumerate(test.labels):
        early = [i for i in range(3) if scores_NE[n, i] >= np.float32(threshold)]
        chosen = early[0] if early else 3
        right.append(logits_NEC[n, chosen].argmax() == label)
        cost.append((LAYERS[chosen] + 1) / 6)
    return np.mean(right), np.mean(cost)


def _flatten(value):
    """Yields the leaves of nested dicts and lists."""
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _flatten(child)
    else:
        yield value


@pytest.mark.parametrize("criterion", registries.BUILTIN_CRITERIA)
def test_every_reported_point_is_a_replay_of_the_cascade(rng, criterion):
    test, held_out = _make_bank(rng), _make_bank(rng)
    temperatures, evaluation = _evaluate(test, held_out, criteria=(criterion,))
    points = list(evaluation.curves[criterion])
    for row in evaluation.at_speedup[criterion]:
        if row["score"] is not None:
            threshold = FULL if row["threshold"] is None else row["threshold"]
            points.append(row | {"threshold": threshold})
    assert len(points) >= 4 + 4
    for point in points:
        expected = _replay(test, held_out, temperatures, criterion, point["threshold"])
        got = (point["score"], point["cost_fraction"])
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_thresholds_are_the_dearest_on_all_calibration_rows(rng):
    test, held_out = _make_bank(rng), _make_bank(rng)
    calibration = _calibrate(held_out)
    _, evaluation = _evaluate(test, held_out, calibration=calibration)
    rows = calibration.apply(held_out)
    curve = make_curve(rows, "entropy", "accuracy", calibration.costs_E)
    for row in evaluation.at_speedup["entropy"][:4]:
        limit = FULL if row["threshold"] is None else row["threshold"]
        cost = curve.cost_fraction[curve.find(limit)]
        assert cost <= 1 / row["target"] + 1e-9
        dearer = curve.cost_fraction[curve.cost_fraction > cost]
        assert (dearer > 1 / row["target"]).all()
    # No label has a say, neither of test nor of calibration rows.
    turned = [
        dataclasses.replace(b, labels=(b.labels + 1) % 3) for b in (test, held_out)
    ]
    again = dataclasses.replace(calibration, bank=turned[1])
    _, other = _evaluate(turned[0], held_out, calibration=again)
    for criterion in registries.BUILTIN_CRITERIA:
        chosen, same = (
            [row["threshold"] for row in e.at_speedup[criterion]]
            for e in (evaluation, other)
        )
        assert chosen == same


def test_speedups_end_where_the_first_exit_is_too_dear(rng):
    _, evaluation = _evaluate(_make_bank(rng), _make_bank(rng))
    for rows in evaluation.at_speedup.values():
        assert [row["target"] for row in rows] == [1.0, 1.5, 2.0, 6.0, 7.0]
        at_6, at_7 = rows[-2:]
        # Exit 0 of 6 layers is exactly 6 times faster.
        assert at_6["oracle"] is not None
        assert at_6["cost_fraction"] == pytest.approx(1 / 6)
        assert at_7 == dict.fromkeys(at_7) | {"target": 7.0}
        oracles = [row["oracle"] for row in rows[:-1]]
        assert oracles == sorted(oracles, reverse=True)


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "f1"])
def test_rows_per_exit_and_reference_scores(rng, metric):
    test, held_out = _make_bank(rng, num_classes=2), _make_bank(rng, num_classes=2)
    temperatures, evaluation = _evaluate(test, held_out, metric=metric)
    for i, row in enumerate(evaluation.exits):
        answers_N = test.logits[:, i].argmax(axis=1)
        calibrated_NC = test.logits[:, i] / temperatures[i]
        probs_NC = special.softmax(calibrated_NC.astype(np.float64), axis=1)
        nll = -np.log(probs_NC[np.arange(len(answers_N)), test.labels]).mean()
        score = metrics.score_predictions(metric, test.labels, answers_N)
        assert row["score"] == pytest.approx(score)
        assert row["accuracy"] == pytest.approx(np.mean(answers_N == test.labels))
        assert row["nll"] == pytest.approx(nll, rel=1e-5)
        assert row["nll"] < row["nll_before"]  # overconfident by construction
        assert row["ece_after"] < row["ece_before"]
        assert np.float32(row["temperature"]) == temperatures[i]
        assert (row["exit"], row["layer"]) == (i, LAYERS[i])
        fit_lte_N = held_out.lte[held_out.part == 0, i]
        np.testing.assert_array_equal(
            np.float32(row["lte_range"]), [fit_lte_N.min(), fit_lte_N.max()]
        )
        auc = roc_auc_score(
            answers_N == test.labels, np.clip(test.lte[:, i], *row["lte_range"])
        )
        assert row["lte_auc"] == pytest.approx(auc)
        assert row["cost_fraction"] == (LAYERS[i] + 1) / 6
    assert evaluation.full == evaluation.exits[-1]["score"]
    for rows in evaluation.curves.values():
        assert rows[0]["score"] == pytest.approx(evaluation.exits[0]["score"])
        assert rows[0]["exit_counts"] == [200, 0, 0, 0]
        assert rows[0]["speedup"] == pytest.approx(6)


def test_majority_is_that_of_training(rng):
    test, held_out = _make_bank(rng), _make_bank(rng)
    counts_C = np.array([5, 1, 9])
    _, evaluation = _evaluate(test, held_out, train_label_counts_C=counts_C)
    assert evaluation.majority == pytest.approx(np.mean(test.labels == 2))


def test_oracle_exit_answers_at_the_earliest_exit_that_is_right(rng):
    test = _make_bank(rng)
    _, evaluation = _evaluate(test, _make_bank(rng))
    right_NE = test.logits.argmax(axis=2) == test.labels[:, None]
    costs = [(LAYERS[row.argmax() if row.any() else 3] + 1) / 6 for row in right_NE]
    oracle = evaluation.oracle_exit
    assert oracle["score"] == oracle["accuracy"] == right_NE.any(axis=1).mean()
    assert oracle["cost_fraction"] == pytest.approx(np.mean(costs))


def test_results_are_plain_json(rng):
    _, evaluation = _evaluate(_make_bank(rng), _make_bank(rng))
    results = evaluation.to_results()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert "arrays" not in results
    assert results["cost_formula"] == "sum_i n_i (e_i + 1) / (N (e_last + 1))"
    assert results["curves"]["confidence"][1]["threshold"] == 0.4  # not 0.40000001

    for point in results["curves"]["margin"]:
        assert all(type(count) is int for count in point["exit_counts"])


def test_full_is_null_beside_a_score(rng):
    # All exits but the last are sure and wrong: a faster cascade is a worse one.
    bank = _make_bank(rng)
    wrong_NC = 9 * np.eye(3)[(bank.labels + 1) % 3]
    logits = np.repeat(wrong_NC[:, None], 4, axis=1)
    logits[:, 3] = np.eye(3)[bank.labels]
    bank = dataclasses.replace(bank, logits=logits.astype(np.float32))
    _, evaluation = _evaluate(bank, bank, speedups=(1.0,), criteria=("margin",))
    (row,) = evaluation.at_speedup["margin"]
    assert (row["threshold"], row["score"], row["cost_fraction"]) == (None, 1.0, 1.0)
    json.dumps(evaluation.to_results(), allow_nan=False)


def test_arrays_of_the_curves_file(rng):
    _, evaluation = _evaluate(_make_bank(rng), _make_bank(rng))
    shapes = {name: array.shape for name, array in evaluation.arrays.items()}
    for criterion in registries.BUILTIN_CRITERIA:
        counts = criterion == "patience"
        (num_points,) = shapes.pop(f"exact/{criterion}/threshold")
        assert num_points == 4 if counts else num_points > 300
        assert shapes.pop(f"exact/{criterion}/score") == (num_points,)
        assert shapes.pop(f"exact/{criterion}/cost_fraction") == (num_points,)
        for name, size in (("grid", 11), ("share", 101)):
            size = 4 if counts else size
            assert shapes.pop(f"{name}/{criterion}/threshold") == (size,)
            last = "exit_counts" if name == "grid" else "share"
            assert shapes.pop(f"{name}/{criterion}/{last}") == (size, 4)
        share = evaluation.arrays[f"share/{criterion}/share"]
        np.testing.assert_allclose(share.sum(axis=1), 1)
    for when in ("before", "after"):
        for i in range(4):
            for name in ("confidence", "accuracy", "count"):
                assert shapes.pop(f"reliability/{when}/exit_{i}/{name}") == (15,)
    assert not shapes


def test_weights_count_as_rows(rng):
    test, held_out = _make_bank(rng), _make_bank(rng)
    weights_N = rng.integers(0, 4, 200)
    repeated = LogitBank(
        *(
            np.repeat(getattr(test, name), weights_N, axis=0)
            for name in ("logits", "labels", "weights", "row_ids", "part", "lte")
        )
    )
    weighted = dataclasses.replace(test, weights=weights_N.astype(float))
    _, one = _evaluate(repeated, held_out, metric="matthews")
    _, other = _evaluate(weighted, held_out, metric="matthews")
    for field in ("exits", "curves", "at_speedup"):
        for a, b in zip(
            *(_flatten(getattr(e, field)) for e in (one, other)), strict=True
        ):
            assert a == pytest.approx(b)
    assert one.oracle_exit == pytest.approx(other.oracle_exit)
    assert one.area == pytest.approx(other.area)


@pytest.mark.parametrize("separate_models", [False, True])
def test_a_single_exit_and_a_single_row(rng, separate_models):
    one = _make_bank(rng, num_rows=1, exit_layers=(5,))
    _, evaluation = _evaluate(
        one,
        one,
        calibration=_calibrate(one, separate_models=separate_models, layers=(5,)),
        separate_models=separate_models,
        exit_layers=(5,),
        speedups=(1.0, 2.0),
    )
    for criterion, (at_1, at_2) in evaluation.at_speedup.items():
        assert at_1["score"] == evaluation.full == evaluation.area[criterion]
        assert at_2["score"] is None


def test_multi_model_pays_for_every_member(rng):
    _, evaluation = _evaluate(
        _make_bank(rng), _make_bank(rng), separate_models=True, speedups=(1.0,)
    )
    costs = [row["cost_fraction"] for row in evaluation.exits]
    np.testing.assert_allclose(costs, [1 / 6, 3 / 6, 7 / 6, 13 / 6])
    # Running all members costs more than the full model alone: not within 1/1.
    for rows in evaluation.at_speedup.values():
        assert rows[0]["threshold"] is not None
    exact = evaluation.arrays["exact/confidence/cost_fraction"]
    assert math.isclose(exact[-1], 13 / 6)


def test_without_ranges_there_is_no_lte(rng):
    test, held_out = _make_bank(rng), _make_bank(rng)
    plain = [dataclasses.replace(bank, lte=None) for bank in (test, held_out)]
    logit_criteria = registries.LOGIT_CRITERIA
    _, evaluation = _evaluate(*plain, criteria=logit_criteria)
    _, more = _evaluate(test, held_out)
    for row, longer in zip(evaluation.exits, more.exits, strict=True):
        assert longer.keys() - row.keys() == {"lte_range", "lte_auc"}
        assert {name: longer[name] for name in row} == row
    assert {c: more.area[c] for c in logit_criteria} == evaluation.area
    with pytest.raises(ValueError, match="criterion=lte reads learning-to-exit scores"):
        _evaluate(*plain)


def test_broken_banks_are_refused_in_one_line(rng):
    bank = _make_bank(rng)
    logits = bank.logits.copy()
    logits[3:5, 2] = np.nan
    with pytest.raises(ValueError, match=r"exits \[2\] are not finite on 2 of 200"):
        _evaluate(dataclasses.replace(bank, logits=logits), bank)
    lte = bank.lte.copy()
    lte[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"exits \[1\] are not finite on 1 of 200"):
        _evaluate(dataclasses.replace(bank, lte=lte), bank)
    with pytest.raises(ValueError, match="has no rows"):
        _evaluate(bank.select(np.zeros(200, bool)), bank)
    unsplit = dataclasses.replace(bank, part=np.ones(200, int))
    with pytest.raises(ValueError, match="no calibration rows to fit temperatures on"):
        _evaluate(bank, unsplit)


@pytest.mark.usefixtures("registries")
def test_a_registered_metric_is_measured_like_ours(rng):
    """The accuracy once more, as a function of rows: the same numbers, fewer points."""
    calls = []

    def agreement(labels, predictions, probabilities):
        calls.append(len(labels))
        return np.mean(labels == predictions)

    metrics.register_metric("agreement", agreement)
    test, held_out = _make_bank(rng), _make_bank(rng)
    found, expected = (
        _evaluate(test, held_out, metric=metric)[1]
        for metric in ("agreement", "accuracy")
    )
    assert len(calls) < 5 * 150
    for name in ("exits", "curves", "at_speedup", "oracle_exit", "majority", "classes"):
        ours, theirs = getattr(expected, name), getattr(found, name)
        if name == "at_speedup":  # but for the best of fewer points
            for rows in (*ours.values(), *theirs.values()):
                for row in rows:
                    del row["oracle"]
        assert theirs == ours
    for criterion, area in expected.area.items():
        assert found.area[criterion] == pytest.approx(area, abs=0.02)
        curve = found.arrays[f"exact/{criterion}/score"]
        assert len(curve) <= MOST_SLOW_POINTS + len(SPEC.speedups) + 1


def test_classes_are_scored_at_every_exit(rng):
    test, held_out = _make_bank(rng), _make_bank(rng)
    _, evaluation = _evaluate(test, held_out)
    assert [row["class"] for row in evaluation.classes] == [0, 1, 2]
    assert sum(row["examples"] for row in evaluation.classes) == 200
    for i in range(4):
        shares = [row["examples"] / 200 for row in evaluation.classes]
        recalls = [row["recall"][i] for row in evaluation.classes]
        assert np.dot(shares, recalls) == pytest.approx(evaluation.exits[i]["accuracy"])


@pytest.mark.parametrize("separate", [False, True])
def test_a_spec_is_what_the_settings_ask_for(separate):
    asked = {
        "exits": {"layers": LAYERS},
        "evaluate": {
            "criteria": ("margin",),
            "num_thresholds": 7,
            "speedups": (1.5, 3.0),
        },
    }
    spec = CascadeSpec.from_settings(from_config_dict(asked), separate)
    assert spec == CascadeSpec(separate, LAYERS, ("margin",), 7, (1.5, 3.0))
