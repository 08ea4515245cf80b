"""What segments and exits cost, in layers, FLOPs and seconds."""

from collections import Counter

import numpy as np
import pytest

import sweet_jax
from sweet_jax.data.batches import plan_evaluation
from sweet_jax.engine.costs import accumulate, measure_costs


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


def test_costs_are_measured_on_lengths_as_in_calibration(classifier):
    d, costs = classifier.description, classifier.measure_costs()
    lengths_N = np.repeat(d.buckets, d.bucket_rows)
    plans = plan_evaluation(lengths_N, costs.num_rows, d.buckets)
    counts = Counter(plan.length for plan in plans)
    shares = dict(zip(costs.lengths, costs.weights_S, strict=True))
    assert shares == {length: n / len(plans) for length, n in counts.items()}
