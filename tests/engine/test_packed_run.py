"""Packed rows of a cascade; `test_cascade_run` has its answers."""

import copy
from typing import Any

import numpy as np
import pytest
from scipy import special
from served_engines import PACKED_KINDS, TEMPERATURES, cut, make_rows, serve

from sweet_jax.engine.cascade_run import CascadeRun, Pooling
from sweet_jax.engine.engine import Engine
from sweet_jax.engine.packed_run import PackedRun
from sweet_jax.engine.stats import EngineStats
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.exit_rule import ExitRule


@pytest.fixture(params=PACKED_KINDS, scope="module")
def packed(request) -> tuple[Engine, Collector, Any]:
    return serve(request.param)


def test_packed_rows_are_full_in_all_segments(packed):
    engine, collector, params = packed
    rows = make_rows([8] * 40, 3)
    logits_NC = collector.collect(params, rows).logits[:, 0] / TEMPERATURES[0]
    confidence_N = special.softmax(logits_NC, axis=1).max(axis=1)
    # About half of the texts, here and there, leave at exit 0.
    half = min(float(np.median(confidence_N)), 0.999)
    rule = ExitRule("confidence", np.array([half, 1, 1], np.float32), TEMPERATURES)
    stats = EngineStats.make(3)
    list(engine.run(cut(rows, [4] * 10), rule, Pooling(), stats))
    assert 8 < stats.exit_counts[0] < 32
    # Two texts fill a row, so no more than one place is empty.
    np.testing.assert_array_less(stats.rows_padded - stats.rows_run, 2)


def test_texts_that_fill_half_a_row_do_not_overfill_queues(packed):
    engine, *_ = packed
    rule = ExitRule("confidence", np.array([np.inf, 0.6, 1], np.float32), TEMPERATURES)
    answers = engine.run([make_rows([3, *[9] * 60, 3], 5)], rule, Pooling(), None)
    assert [answer.index for answer in answers] == list(range(62))


def test_streams_are_packed_from_the_first_full_batch_on():
    """With batches of 4: two rows of 64 tokens."""
    engine, *_ = serve("bert sweet")

    def choose(lengths: list[int]) -> Any:
        return engine._choose_run([make_rows(lengths, 0)]).func

    assert choose([16] * 8) is PackedRun
    assert choose([16] * 7 + [15]) is CascadeRun
    assert choose([64, 64]) is CascadeRun
    assert engine._choose_run([]).func is CascadeRun
    alone = engine.with_batch_size(1)
    assert alone._choose_run([make_rows([16] * 16, 0)]).func is CascadeRun


def test_a_backend_that_cannot_pack_runs_a_text_a_row():
    engine, *_ = serve("bert sweet")
    segments = copy.copy(engine.segments)
    segments.packed = None
    engine = Engine(segments, engine.shapes)
    assert engine._choose_run([make_rows([16] * 99, 0)]).func is CascadeRun
