"""Real early exit answers as the cascade does, whatever leaves where."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served_engines import (
    BATCH,
    BUCKETS,
    CLASSES,
    KINDS,
    LTE_RANGES,
    PACKED_KINDS,
    TEMPERATURES,
    cut,
    make_rows,
    serve,
)

from sweet_jax.engine.cascade_run import AHEAD, NO_POOLING, Pooling
from sweet_jax.engine.engine import Engine
from sweet_jax.engine.shapes import make_row_buckets
from sweet_jax.engine.stats import EngineStats
from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.criteria import compute_scores, register_criterion
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.exits.learned import scale_lte
from sweet_jax.exits.temperatures import apply_temperatures
from sweet_jax.settings import registries


@pytest.fixture(params=[*KINDS, *PACKED_KINDS], scope="module")
def served(request) -> tuple[Engine, Collector, Any]:
    return serve(request.param)


@pytest.fixture(params=KINDS, scope="module")
def unpacked(request) -> tuple[Engine, Collector, Any]:
    return serve(request.param)


def score(criterion: str, logits_NEC: np.ndarray, lte_NE: np.ndarray) -> np.ndarray:
    calibrated = apply_temperatures(logits_NEC, TEMPERATURES)
    return np.asarray(
        compute_scores(criterion, calibrated, scale_lte(lte_NE, LTE_RANGES))
    )


def choose_threshold(scores_NE: np.ndarray, share: float) -> float:
    """Returns a threshold midway between two scores, with `share` of them below."""
    values = np.unique(scores_NE)
    if len(values) == 1:
        return float(values[0])
    k = int(share * (len(values) - 2))
    return float((values[k].astype(np.float64) + values[k + 1]) / 2)


def draw_streams(criteria: tuple[str, ...], sizes: tuple[int, ...]) -> Any:
    """Draws rows, chunks, thresholds and waiting; every number of rows is compiled."""
    return given(
        lengths=st.sampled_from(sizes).flatmap(
            lambda n: st.lists(st.integers(1, 16), min_size=n, max_size=n)
        ),
        sizes=st.lists(st.integers(1, 9), max_size=3),
        criterion=st.sampled_from(criteria),
        share=st.floats(0, 1),
        pooling=st.sampled_from([NO_POOLING, Pooling(), Pooling(5), Pooling(99, 0.0)]),
        repeat=st.booleans(),
        seed=st.integers(0, 3),
    )


@draw_streams(("confidence", "patience"), (1, 13))
@settings(max_examples=10)
def test_answers_are_the_cascades(
    served, lengths, sizes, criterion, share, pooling, repeat, seed
):
    check_answers(served, lengths, sizes, criterion, share, pooling, repeat, seed)


@pytest.mark.slow
@draw_streams(registries.BUILTIN_CRITERIA, (1, 2, 7, 23))
@settings(max_examples=30)
def test_answers_are_the_cascades_by_every_criterion(
    served, lengths, sizes, criterion, share, pooling, repeat, seed
):
    check_answers(served, lengths, sizes, criterion, share, pooling, repeat, seed)


@pytest.mark.usefixtures("registries")
def test_registered_criteria_run_as_the_evaluator_scores_them(served):
    """One reads all exits so far, one what they have learned to say of themselves."""
    register_criterion("mean_margin", _average_margins)
    register_criterion(
        "mean_lte",
        lambda logits, lte: (
            jnp.cumsum(lte, axis=1) / jnp.arange(1, lte.shape[1] + 1)[None]
        ),
        reads_lte=True,
    )
    for criterion in ("mean_margin", "mean_lte"):
        for share in (0.3, 0.6):
            check_answers(
                served, [3, 16, 1, 8, 9, 5, 12], [3], criterion, share, Pooling(), 0, 1
            )


def _average_margins(logits_NEC: jax.Array) -> jax.Array:
    best_NE2 = jax.lax.top_k(jax.nn.softmax(logits_NEC), 2)[0]
    margins_NE = best_NE2[..., 0] - best_NE2[..., 1]
    return jnp.cumsum(margins_NE, axis=1) / jnp.arange(1, margins_NE.shape[1] + 1)[None]


def check_answers(served, lengths, sizes, criterion, share, pooling, repeat, seed):
    engine, collector, params = served
    rows = make_rows(lengths, seed, repeat)
    bank = collector.collect(params, rows)
    scores_NE = score(criterion, bank.logits, bank.lte)
    threshold = choose_threshold(scores_NE, share)
    rule = ExitRule(
        criterion, np.full(3, threshold, np.float32), TEMPERATURES, LTE_RANGES
    )
    stats = EngineStats.make(3)
    answers = list(engine.run(cut(rows, sizes), rule, pooling, stats))
    assert [a.index for a in answers] == list(range(len(lengths)))
    expected = np.asarray(choose_exits(scores_NE, rule.thresholds[:1]))[0]
    exits = np.array([a.exit_index for a in answers])
    far_N = (np.abs(scores_NE - np.float32(threshold)) > 1e-5).all(axis=1)
    np.testing.assert_array_equal(exits[far_N], expected[far_N])
    for n, answer in enumerate(answers):
        np.testing.assert_allclose(
            answer.logits_C, bank.logits[n, answer.exit_index], rtol=0, atol=1e-5
        )
    np.testing.assert_array_equal(stats.exit_counts, np.bincount(exits, minlength=3))
    assert stats.rows_run[0] == len(lengths)
    # A segment runs on the rows that no earlier exit let go, and on no other.
    left = len(lengths) - np.cumsum(stats.exit_counts)
    np.testing.assert_array_equal(stats.rows_run[1:], left[:-1])


@pytest.mark.parametrize("exit_index", [0, 1, 2])
@pytest.mark.parametrize("pooling", [NO_POOLING, Pooling()])
def test_all_rows_leave_together(served, exit_index, pooling):
    engine, *_ = served
    thresholds = np.full(3, np.inf, np.float32)
    thresholds[exit_index] = 1 / CLASSES
    rule = ExitRule("confidence", thresholds, TEMPERATURES)
    rows = make_rows([3, 16, 1, 8, 9], 0)
    answers = list(engine.run([rows], rule, pooling))
    assert [a.exit_index for a in answers] == [exit_index] * 5


def test_every_threshold_may_have_its_own_exit(served):
    engine, collector, params = served
    rows = make_rows([5, 7, 2, 11, 16, 3, 3], 1)
    bank = collector.collect(params, rows)
    scores_NE = score("confidence", bank.logits, bank.lte)
    medians = np.median(scores_NE, axis=0)
    thresholds = np.minimum(medians - 1e-3, 0.999).astype(np.float32)
    thresholds = np.maximum(thresholds, np.float32(1 / CLASSES))
    rule = ExitRule("confidence", thresholds, TEMPERATURES)
    passes_NE = scores_NE >= thresholds
    passes_NE[:, -1] = True
    answers = list(engine.run([rows], rule))
    assert [a.exit_index for a in answers] == passes_NE.argmax(axis=1).tolist()


def test_compiled_programs_are_bounded_and_shared(served):
    engine, *_ = served
    engine.warm_up()
    bound = 3 * len(make_row_buckets(BATCH)) * len(BUCKETS)
    if engine.segments.packed is not None:
        shapes = engine._packed_shapes
        bound += 3 * len(shapes.row_buckets) * len(shapes.lengths)
    assert engine.segments.num_programs == bound
    rule = ExitRule("confidence", np.full(3, 0.6, np.float32), TEMPERATURES)
    list(engine.run([make_rows(list(range(1, 17)), 2)], rule, Pooling()))
    assert engine.segments.num_programs == bound


def test_pooled_segments_run_full_batches(unpacked):
    engine, *_ = unpacked
    rows = make_rows([6] * 40, 3)
    # Exit 0 lets none go: every row waits before segment 1.
    rule = ExitRule(
        "confidence", np.array([np.inf, 1 / 3, 1], np.float32), TEMPERATURES
    )
    chunks = cut(rows, [3] * 13)
    pooled, alone = EngineStats.make(3), EngineStats.make(3)
    list(engine.run(chunks, rule, Pooling(), pooled))
    list(engine.run(chunks, rule, NO_POOLING, alone))
    assert pooled.rows_padded[1] == 40
    assert alone.rows_padded[1] == 14 * 4 - 3


def test_no_row_waits_for_longer_than_it_may(served):
    """A stream is read only as far as the rows that may wait."""
    engine, *_ = served
    rule = ExitRule(
        "confidence", np.array([np.inf, 1 / 3, 1], np.float32), TEMPERATURES
    )
    read = 0

    def stream():
        nonlocal read
        for chunk in cut(make_rows([6] * 60, 4), [1] * 60):
            read += 1
            yield chunk

    # Each segment may have that many calls before the device.
    most = 4 + 2 * AHEAD
    for pooling in (Pooling(2), Pooling(100, 0.0)):
        read = 0
        answers = engine.run(stream(), rule, pooling)
        next(answers)
        assert read <= most
        answers.close()
