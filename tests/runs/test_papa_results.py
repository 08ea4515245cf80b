"""papa.json: scores, paired losses and drops with intervals, ranks of heads."""

import dataclasses

import numpy as np
import pytest
from papa_models import make_rows

from sweet_jax.analysis.papa.heads import keep_dynamic, sort_heads
from sweet_jax.evaluation.statistics import student_interval
from sweet_jax.runs.papa_inputs import prepare_papa
from sweet_jax.runs.papa_results import Curve, Point, make_record
from sweet_jax.settings.papa import papa_from_config_dict

SCORES = np.array([[0.2, 0.1], [0.4, 0.3], [0.6, 0.5], [0.8, 0.7]])
NUM_ROWS = 200


@pytest.fixture(scope="module")
def prepared(tiny_encoder, tiny_task):
    config = {
        "encoder": {"name": str(tiny_encoder)},
        "data": {
            "train_file": str(tiny_task / "train.jsonl"),
            "test_file": str(tiny_task / "test.jsonl"),
        },
        "papa": {"length": 16},
    }
    return prepare_papa(*papa_from_config_dict(config))


@pytest.fixture
def make_inputs(prepared):
    """Returns a function to inputs with other settings and random rows."""

    def make(metric="accuracy", **papa):
        _, settings = papa_from_config_dict({"papa": {"seeds": (0, 1, 2), **papa}})
        task = dataclasses.replace(prepared.raw.task, metric=metric)
        return dataclasses.replace(
            prepared,
            papa=settings,
            raw=dataclasses.replace(prepared.raw, task=task),
            train=make_rows(NUM_ROWS),
            scored=make_rows(NUM_ROWS),
        )

    return make


def make_logits(inputs, share_right, seed=0):
    """Returns logits of three seeds that are right on a share of the rows."""
    rng = np.random.default_rng(seed)
    right = rng.random((3, NUM_ROWS)) < share_right
    answers = np.where(right, inputs.scored.labels, 1 - inputs.scored.labels)
    return np.eye(2, dtype=np.float32)[answers]


def make_test_record(inputs, logits):
    order = sort_heads(SCORES)
    points = tuple(
        Point(name, k, keep_dynamic(order, k, 2), "averages")
        for name, k in zip(logits, (0, 4, 8), strict=True)
    )
    curves = [Curve("gates", "averages", points)]
    return make_record(inputs, "0" * 16, curves, logits, {"gates": SCORES}, {"k0": 1.0})


def test_drops_are_paired_by_seed(make_inputs):
    inputs = make_inputs()
    names = zip(("k0", "k2", "k4"), (0.9, 0.85, 0.7), strict=True)
    logits = {n: make_logits(inputs, share, i) for i, (n, share) in enumerate(names)}
    record = make_test_record(inputs, logits)
    whole, half, last = record["curves"][0]["points"]
    accuracies = {
        name: (x.argmax(axis=2) == inputs.scored.labels).mean(axis=1)
        for name, x in logits.items()
    }
    np.testing.assert_allclose(last["scores"], accuracies["k4"])
    drops = (accuracies["k0"] - accuracies["k4"]) / accuracies["k0"]
    np.testing.assert_allclose(last["drop"], drops.mean())
    np.testing.assert_allclose(last["drop_seed_interval"], student_interval(drops))
    low, high = last["drop_interval"]
    assert low <= last["drop_seed_interval"][0] <= drops.mean() <= high
    assert whole["drop"] == whole["loss"] == 0
    assert half["dynamic_by_layer"] == [0, 0, 2, 2]
    assert record["rankings"]["gates"]["ranks"] == [[1, 0], [3, 2], [5, 4], [7, 6]]
    assert record["majority"] == 0.5


def test_equal_probes_lose_nothing_with_certainty(make_inputs):
    inputs = make_inputs()
    same = make_logits(inputs, 0.8)
    record = make_test_record(inputs, dict.fromkeys(("k0", "k2", "k4"), same))
    for point in record["curves"][0]["points"]:
        assert point["drop_interval"] == [0, 0]
        assert point["interval"][0] < point["score"] < point["interval"][1]


def test_a_score_about_zero_has_no_relative_drop(make_inputs):
    inputs = make_inputs("matthews")
    logits = {n: make_logits(inputs, 0.5, i) for i, n in enumerate(("a", "b", "c"))}
    last = make_test_record(inputs, logits)["curves"][0]["points"][-1]
    assert last["drop"] is last["drop_interval"] is None
    assert last["loss_interval"][0] < last["loss"] < last["loss_interval"][1]


def test_one_seed_has_no_interval(make_inputs):
    inputs = make_inputs(seeds=(0,))
    logits = {n: make_logits(inputs, 0.8)[:1] for n in ("a", "b", "c")}
    for point in make_test_record(inputs, logits)["curves"][0]["points"]:
        assert point["interval"] is point["drop_interval"] is None


@pytest.mark.parametrize("faithful", [False, True])
def test_departures_from_the_released_code_are_named(make_inputs, faithful):
    inputs = make_inputs(faithful_release=faithful)
    same = make_logits(inputs, 0.8)
    record = make_test_record(inputs, dict.fromkeys(("k0", "k2", "k4"), same))
    text = " ".join(record["departures"])
    named = ["no dropout", "cut once", "type ids", "kept", "papa.num_epochs is 10"]
    assert [name in text for name in named] == [not faithful] * 5
