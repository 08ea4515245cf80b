"""Costs in three currencies, and speed-ups measured on a model that is served."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweet_jax
from sweet_jax.data.batches import plan_evaluation
from sweet_jax.engine.costs import SegmentCosts, accumulate, measure_costs
from sweet_jax.serving.measured_speedup import (
    Speedup,
    find_threshold,
    format_speedups,
    measure_speedups,
)


def test_exits_of_one_model_pay_for_their_segments():
    np.testing.assert_allclose(
        accumulate(np.array([1.0, 3.0, 4.0]), [(0, 1, 2)]), [1 / 8, 1 / 2, 1]
    )


def test_exits_of_separate_models_pay_for_every_model_that_ran():
    # As the paper counts: relative to the last model alone.
    np.testing.assert_allclose(
        accumulate(np.array([1.0, 3.0, 4.0]), [(0,), (1,), (2,)]), [1 / 4, 1, 2]
    )


@pytest.fixture(scope="module")
def classifier(tiny_model):
    return sweet_jax.load(tiny_model, batch_size=4)


def test_a_segment_costs_more_with_more_tokens_and_rows(classifier):
    segments, buckets = classifier.engine.segments, classifier.description.buckets
    lengths = np.repeat(buckets[:2], [8, 4])
    four, two = (measure_costs(segments, lengths, n, buckets) for n in (4, 2))
    np.testing.assert_allclose(four.weights_S, [2 / 3, 1 / 3])
    assert (np.diff(four.flops_SE, axis=0) > 0).all()
    np.testing.assert_allclose(two.flops_SE / four.flops_SE, 0.5, atol=0.05)
    # Of a row, whatever the batch: the mean over lengths, twice as many short as long.
    np.testing.assert_allclose(two.flops_per_row, four.flops_per_row, rtol=0.1)
    for mean_E, values_SE in (
        (four.flops_per_row, four.flops_SE),
        (four.seconds_per_row, four.seconds_SE),
    ):
        np.testing.assert_allclose(mean_E, (2 * values_SE[0] + values_SE[1]) / 12)
    assert (four.seconds_SE > 0).all()
    one = measure_costs(segments, lengths, 4, buckets, most_lengths=1)
    assert one.lengths == buckets[:1]


@given(
    scores=st.lists(st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)), min_size=2),
    target=st.floats(1, 2),
)
@settings(deadline=None, max_examples=30)
def test_the_threshold_is_the_one_whose_speedup_is_nearest(scores, target):
    scores_NE = np.array([(*row, 1.0) for row in scores], np.float32)
    costs_E = np.array([0.5, 0.75, 1.0])
    threshold = find_threshold(scores_NE, costs_E, target)

    def count(limit):
        passes_NE = scores_NE >= np.float32(limit)
        passes_NE[:, -1] = True
        return 1 / costs_E[passes_NE.argmax(axis=1)].mean()

    best = min(abs(count(value) - target) for value in np.unique(scores_NE[:, :-1]))
    assert abs(count(threshold) - target) <= best + 1e-6


def test_what_is_counted_is_what_leaves(classifier):
    words = ["the", "film", "good", "bad"]
    texts = [" ".join(p) for k in (1, 3) for p in itertools.permutations(words, k)]
    examples = classifier.make_examples(texts)
    measured = list(measure_speedups(classifier, examples, [4], [1.2, 1.5]))
    assert [type(item) for item in measured] == [SegmentCosts, Speedup, Speedup]
    costs_E = np.array(classifier.description.cost_fractions)
    for item in measured[1:]:
        assert isinstance(item, Speedup)
        answers = classifier.predict(texts, threshold=item.threshold)
        mean = np.mean([costs_E[answer.exit] for answer in answers])
        assert item.in_layers == pytest.approx(1 / mean)
        assert item.in_seconds > 0
    lines = list(format_speedups(measured))
    assert [line.split(" | ")[1] for line in lines if line.startswith("| 4 |")] == [
        f"{item.threshold:.4f}" for item in measured[1:]
    ]


def test_costs_are_measured_on_lengths_as_in_calibration(classifier):
    d, costs = classifier.description, classifier.measure_costs()
    lengths_N = np.repeat(d.buckets, d.bucket_rows)
    plans = plan_evaluation(lengths_N, costs.num_rows, d.buckets)
    counts = Counter(plan.length for plan in plans)
    shares = dict(zip(costs.lengths, costs.weights_S, strict=True))
    assert shares == {length: n / len(plans) for length, n in counts.items()}
