"""papa.json: scores, paired losses and drops with intervals, ranks of heads."""

import dataclasses

import numpy as np
import pytest
from papa_models import make_rows

from sweet_jax.analysis.papa.frozen import Frozen
from sweet_jax.analysis.papa.heads import keep_dynamic, sort_heads
from sweet_jax.data.examples import RawTask
from sweet_jax.data.tasks import get_task
from sweet_jax.evaluation.statistics import student_interval
from sweet_jax.runs.papa_inputs import PapaInputs
from sweet_jax.runs.papa_results import Curve, Point, make_record
from sweet_jax.settings.papa import papa_from_config_dict

SCORES = np.array([[0.2, 0.1], [0.4, 0.3]])
NUM_ROWS = 200


class FakeEncoder:
    """As deep as the scores."""

    num_layers = 2


def make_inputs(metric="accuracy", **papa):
    settings, papa = papa_from_config_dict({"papa": {"seeds": (0, 1, 2), **papa}})
    task = dataclasses.replace(get_task("rotten_tomatoes"), metric=metric)
    rows = make_rows(NUM_ROWS)

    class Splits:
        notes = ("a note",)

    class Config:
        family = "bert"

    return PapaInputs(
        settings, papa, Config, Frozen(FakeEncoder, {}, None, 2, 16), None,
        RawTask(task, {}, ("no", "yes")), Splits, rows, rows, "aa", "bb",
    )  # fmt: skip


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
        for name, k in zip(logits, (0, 2, 4), strict=True)
    )
    curves = [Curve("gates", "averages", points)]
    return make_record(inputs, "0" * 16, curves, logits, {"gates": SCORES}, {"k0": 1.0})


def test_drops_are_paired_by_seed():
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
    assert half["dynamic_by_layer"] == [0, 2]
    assert record["rankings"]["gates"]["ranks"] == [[1, 0], [3, 2]]
    assert record["majority"] == 0.5


def test_equal_probes_lose_nothing_with_certainty():
    inputs = make_inputs()
    same = make_logits(inputs, 0.8)
    record = make_test_record(inputs, dict.fromkeys(("k0", "k2", "k4"), same))
    for point in record["curves"][0]["points"]:
        assert point["drop_interval"] == [0, 0]
        assert point["interval"][0] < point["score"] < point["interval"][1]


def test_a_score_about_zero_has_no_relative_drop():
    inputs = make_inputs("matthews")
    logits = {n: make_logits(inputs, 0.5, i) for i, n in enumerate(("a", "b", "c"))}
    last = make_test_record(inputs, logits)["curves"][0]["points"][-1]
    assert last["drop"] is last["drop_interval"] is None
    assert last["loss_interval"][0] < last["loss"] < last["loss_interval"][1]


def test_one_seed_has_no_interval():
    inputs = make_inputs(seeds=(0,))
    logits = {n: make_logits(inputs, 0.8)[:1] for n in ("a", "b", "c")}
    for point in make_test_record(inputs, logits)["curves"][0]["points"]:
        assert point["interval"] is point["drop_interval"] is None


@pytest.mark.parametrize("faithful", [False, True])
def test_departures_from_the_released_code_are_named(faithful):
    inputs = make_inputs(faithful_release=faithful)
    same = make_logits(inputs, 0.8)
    record = make_test_record(inputs, dict.fromkeys(("k0", "k2", "k4"), same))
    text = " ".join(record["departures"])
    named = ["no dropout", "cut once", "type ids", "kept", "papa.num_epochs is 10"]
    assert [name in text for name in named] == [not faithful] * 5
