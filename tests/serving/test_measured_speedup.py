"""Speed-ups that are measured on a model that is served."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sweet_jax
from sweet_jax.data.examples import Examples
from sweet_jax.engine.costs import SegmentCosts
from sweet_jax.serving import measured_speedup
from sweet_jax.serving.measured_speedup import (
    FullModel,
    Speedup,
    find_threshold,
    format_speedups,
    measure_speedups,
    time_paired,
)


@pytest.fixture(scope="module")
def classifier(tiny_model):
    return sweet_jax.load(tiny_model, batch_size=4)


@given(
    scores=st.lists(st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)), min_size=2),
    target=st.floats(1, 2),
)
@settings(max_examples=30)
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
        # Embeddings, exits and padding are FLOPs but no layers.
        assert 1 / 3 < item.in_flops / item.in_layers < 3
    lines = list(format_speedups(measured))
    assert [line.split(" | ")[1] for line in lines if line.startswith("| 4 |")] == [
        f"{item.threshold:.4f}" for item in measured[1:]
    ]


@pytest.fixture(scope="module")
def examples(classifier) -> Examples:
    """Texts of several lengths, more than one batch of each."""
    texts = [" ".join(["good", *["film"] * (n % 12)]) for n in range(30)]
    return classifier.make_examples(texts)


def test_the_full_model_gives_the_logits_of_the_last_exit(classifier, examples):
    rows = classifier.tokenize(examples)
    full = FullModel(classifier, classifier.engine.shapes)
    chunks = list(rows.cut(12))
    batches = [b for c in chunks for b, _ in classifier.engine.shapes.make_batches(c)]
    logits_NC = np.full((rows.num_rows, 2), np.nan, np.float32)
    for batch, logits_BC in zip(batches, full.run(chunks), strict=True):
        real = batch.weights > 0
        logits_NC[batch.row_ids[real]] = logits_BC[real]
    expected = classifier.collect(examples).logits[:, -1]
    np.testing.assert_allclose(logits_NC, expected, atol=1e-5)
    # As often as it runs: twice the chunks are twice the work.
    once = full.count_flops(chunks)
    assert full.count_flops(chunks * 2) == 2 * once > 0


def test_functions_take_turns_after_each_was_called_once(monkeypatch):
    clock, calls = itertools.count(), []
    monkeypatch.setattr(measured_speedup.time, "perf_counter", lambda: next(clock))

    def slow() -> None:
        calls.append("slow")
        next(clock)

    seconds_WR = time_paired([slow, lambda: calls.append("fast")], 3)
    assert calls == ["slow", "fast"] * 4
    np.testing.assert_array_equal(seconds_WR, [[2, 2, 2], [1, 1, 1]])


def test_the_faster_full_model_is_the_baseline_in_every_round(
    classifier, examples, monkeypatch
):
    """Rows are the cascade, the compiled full model, the engine without exits."""
    seconds_WR = np.array([[1.0, 2.0, 4.0], [9.0, 2.0, 8.0], [3.0, 6.0, 6.0]])
    monkeypatch.setattr(measured_speedup, "time_paired", lambda *_: seconds_WR)
    monkeypatch.setattr(FullModel, "count_flops", lambda *_: 1e6)
    costs, item = measure_speedups(classifier, examples, [4], [1.5])
    assert isinstance(costs, SegmentCosts)
    # Medians are 8 and 6, so that the third is the baseline: rounds of 3, 3 and 1.5.
    assert item.in_seconds == 3.0
    assert item.rows_per_second == 30 / 2
    assert item.full_rows_per_second == 30 / 6


def test_measurements_are_tables_of_markdown():
    costs = SegmentCosts(
        num_rows=4,
        lengths=(8, 16),
        weights_S=np.array([0.75, 0.25]),
        flops_SE=np.ones((2, 2)),
        seconds_SE=np.array([[0.001, 0.002], [0.003, 0.0045]]),
        device="cpu",
    )
    lines = list(format_speedups([costs, Speedup(4, 0.9, 2.0, 1.8, 1.5, 100.0, 50.0)]))
    assert lines == [
        "",
        "Milliseconds of each segment with its exit, batches of 4, cpu",
        "",
        "| length | share of batches | 0 | 1 |",
        "| --- | --- | --- | --- |",
        "| 8 | 0.75 | 1.00 | 2.00 |",
        "| 16 | 0.25 | 3.00 | 4.50 |",
        "",
        "| batch | threshold | speed-up in layers | in FLOPs | in seconds |"
        " seconds / layers | rows/s | rows/s, full model |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 4 | 0.9000 | 2.00 | 1.80 | 1.50 | 0.75 | 100 | 50 |",
    ]
