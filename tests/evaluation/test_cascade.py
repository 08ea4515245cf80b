"""The cascade against a slow loop over examples, and what every cascade must obey."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sweet_jax.evaluation import cascade
from sweet_jax.evaluation.cascade import (
    CascadeStatistics,
    choose_exits,
    costs_from_layers,
    exact_curve,
    sweep,
)
from sweet_jax.exits.criteria import FULL

# Few, because each compiles once.
SHAPES = [(1, 1, 2), (1, 4, 3), (6, 1, 7), (6, 4, 2), (6, 4, 7)]

# Below every score that the examples draw.
LOWEST = -0.5

fast = hypothesis.settings(max_examples=40)


@st.composite
def _examples(draw):
    """(scores, predictions, labels, weights, C) with many ties."""
    num_rows, num_exits, num_classes = draw(st.sampled_from(SHAPES))
    classes = st.integers(0, num_classes - 1)
    values = draw(st.sampled_from([[0.5], [0.25, 0.5, 0.75], None]))
    scores_NE = draw(
        hnp.arrays(
            np.float32,
            (num_rows, num_exits),
            elements=st.sampled_from(values)
            if values
            else st.floats(0, 1, width=32, allow_subnormal=False),
        )
    )
    return (
        scores_NE,
        draw(hnp.arrays(int, (num_rows, num_exits), elements=classes)),
        draw(hnp.arrays(int, num_rows, elements=classes)),
        draw(hnp.arrays(float, num_rows, elements=st.sampled_from([0.25, 1.0, 2.0]))),
        num_classes,
    )


def _make_dense_thresholds(scores_NE: np.ndarray) -> np.ndarray:
    """Every distinct score, the midpoints between them, below all, above all, FULL."""
    values = np.unique(scores_NE)
    middles = (values[:-1] + values[1:]) / np.float32(2)
    # XLA takes smaller numbers for 0; between 0 and the smallest normal one they occur.
    middles = middles[np.abs(middles) >= np.finfo(np.float32).tiny]
    ends = [values[0] - 1, values[-1] + 1, FULL]
    return np.unique(np.concatenate([values, middles, ends]).astype(np.float32))


def _pad(thresholds_T: np.ndarray) -> np.ndarray:
    """Repeats FULL up to one length, so that the sweep compiles once a shape."""
    return np.concatenate(
        [thresholds_T, np.full(60 - len(thresholds_T), FULL, np.float32)]
    )


def _trace(examples) -> CascadeStatistics:
    scores_NE, predictions_NE, labels_N, weights_N, num_classes = examples
    return exact_curve(
        scores_NE, predictions_NE, labels_N, weights_N, num_classes, LOWEST
    )


def _loop(threshold, scores_NE, predictions_NE, labels_N, weights_N, num_classes):
    """The cascade as one would explain it."""
    num_exits = scores_NE.shape[1]
    exits = []
    exit_counts, predicted_counts = np.zeros(num_exits), np.zeros(num_classes)
    correct = 0.0
    for scores_E, answers_E, label, weight in zip(
        scores_NE, predictions_NE, labels_N, weights_N, strict=True
    ):
        chosen = num_exits - 1
        for i in range(num_exits):
            if scores_E[i] >= threshold:
                chosen = i
                break
        exits.append(chosen)
        exit_counts[chosen] += weight
        predicted_counts[answers_E[chosen]] += weight
        correct += weight * (answers_E[chosen] == label)
    return exits, exit_counts, correct, predicted_counts


@fast
@hypothesis.example(
    (
        np.array([[np.finfo(np.float32).tiny, 0, 0, 0]] + [[0] * 4] * 5, np.float32),
        np.zeros((6, 4), int),
        np.zeros(6, int),
        np.ones(6),
        2,
    )
)
@hypothesis.given(examples=_examples())
def test_sweep_equals_a_loop_over_examples(examples):
    thresholds_T = _pad(_make_dense_thresholds(examples[0]))
    statistics = sweep(examples[0], thresholds_T, *examples[1:])
    exits_TN = np.asarray(choose_exits(examples[0], thresholds_T))
    for k, threshold in enumerate(thresholds_T):
        exits, exit_counts, correct, predicted_counts = _loop(threshold, *examples)
        np.testing.assert_array_equal(exits_TN[k], exits)
        np.testing.assert_array_equal(statistics.exit_counts[k], exit_counts)
        np.testing.assert_array_equal(statistics.predicted_counts[k], predicted_counts)
        assert statistics.correct[k] == correct


@fast
@hypothesis.given(examples=_examples())
def test_exact_curve_equals_the_sweep_at_and_between_all_scores(examples):
    exact = _trace(examples)
    assert np.all(np.diff(exact.thresholds) > 0)
    assert exact.thresholds[0] == LOWEST
    assert exact.thresholds[-1] == FULL
    thresholds_T = _pad(_make_dense_thresholds(examples[0]))
    dense = sweep(examples[0], thresholds_T, *examples[1:])
    # Between two of its thresholds an exact curve is what it is at the upper one.
    points = np.searchsorted(exact.thresholds, thresholds_T)
    for field in ("exit_counts", "correct", "predicted_counts"):
        np.testing.assert_array_equal(
            getattr(exact, field)[points], getattr(dense, field)
        )


@fast
@hypothesis.given(examples=_examples())
def test_lowest_threshold_is_exit_0_and_full_is_every_exit(examples):
    scores_NE, predictions_NE, labels_N, weights_N, _ = examples
    thresholds_T = _pad(_make_dense_thresholds(scores_NE))
    dense = sweep(scores_NE, thresholds_T, *examples[1:])
    for statistics in (dense, _trace(examples)):
        first, last = statistics.exit_counts[0], statistics.exit_counts[-1]
        assert first[0] == last[-1] == weights_N.sum()
        assert statistics.correct[-1] == weights_N @ (predictions_NE[:, -1] == labels_N)


@fast
@hypothesis.given(examples=_examples(), separate_models=st.booleans())
def test_cost_rises_with_the_threshold(examples, separate_models):
    layers = (0, 3, 5, 11)[: examples[0].shape[1]]
    costs_E = costs_from_layers(layers, separate_models)
    thresholds_T = _pad(_make_dense_thresholds(examples[0]))
    dense = sweep(examples[0], thresholds_T, *examples[1:])
    for statistics in (dense, _trace(examples)):
        assert np.all(np.diff(statistics.exit_counts @ costs_E) >= -1e-12)


def test_a_score_equal_to_the_threshold_exits():
    scores_NE = np.array([[0.5, 0.9, 0.9]], np.float32)
    thresholds_T = np.array([0.5, np.nextafter(np.float32(0.5), 1)], np.float32)
    np.testing.assert_array_equal(choose_exits(scores_NE, thresholds_T), [[0], [1]])


def test_exact_curve_does_not_repeat_the_lowest_threshold():
    scores_NE = np.array([[1.0, 1.0], [1.0, 2.0]], np.float32)
    zeros = np.zeros((2, 2), int)
    exact = exact_curve(scores_NE, zeros, np.zeros(2, int), np.ones(2), 2, 1.0)
    np.testing.assert_array_equal(exact.thresholds, [1, FULL])
    np.testing.assert_array_equal(exact.exit_counts, [[2, 0], [0, 2]])


def test_a_threshold_between_floats_is_compared_in_float32():
    # 0.3 in float64 is below its float32, which is the score.
    scores_NE = np.array([[0.3, 1.0]], np.float32)
    np.testing.assert_array_equal(choose_exits(scores_NE, np.array([0.3])), [[0]])


def test_exact_curve_has_one_point_per_score_that_changes_something():
    # Row 0's second score is below its first and the last exit's never count.
    scores_NE = np.array([[0.6, 0.4, 0.99], [0.7, 0.8, 0.98]], np.float32)
    zeros = np.zeros((2, 3), int)
    exact = exact_curve(scores_NE, zeros, np.zeros(2, int), np.ones(2), 2, 0.5)
    expected = np.array([0.5, 0.6, 0.7, 0.8, FULL], np.float32)
    np.testing.assert_array_equal(exact.thresholds, expected)
    np.testing.assert_array_equal(
        exact.exit_counts, [[2, 0, 0], [2, 0, 0], [1, 0, 1], [0, 1, 1], [0, 0, 2]]
    )


@pytest.mark.parametrize(
    ("method", "exit_layers", "twelfths"),
    [
        ("sweet", (0, 3, 5, 11), [1, 4, 6, 12]),
        ("early_exit", (0, 3, 5, 11), [1, 4, 6, 12]),
        ("multi_model", (0, 3, 5, 11), [1, 5, 11, 23]),
        ("sweet", (0, 5, 11, 23), [0.5, 3, 6, 12]),
        ("multi_model", (0, 5, 11, 23), [0.5, 3.5, 9.5, 21.5]),
        ("sweet", (5,), [12]),
    ],
)
def test_costs_of_the_paper(method, exit_layers, twelfths):
    costs_E = costs_from_layers(exit_layers, method == "multi_model")
    np.testing.assert_allclose(costs_E, np.array(twelfths) / 12, rtol=1e-15)


def test_memory_of_the_sweep_does_not_grow_with_thresholds():
    num_rows, num_exits = 5000, 4

    def measure(num_thresholds: int) -> int:
        shapes = [
            jax.ShapeDtypeStruct(shape, dtype)
            for shape, dtype in (
                ((num_rows, num_exits), np.float32),
                ((num_thresholds,), np.float32),
                ((num_rows, num_exits), np.int32),
                ((num_rows,), np.int32),
                ((num_rows,), np.float32),
            )
        ]
        compiled = cascade._sweep.lower(*shapes, num_classes=3).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert measure(1600) < 1.5 * measure(32)
