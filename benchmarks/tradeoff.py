"""The trade-off of 11 thresholds: one run per threshold, or one pass for all."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from measuring import print_header, print_row, time_median
from train_step import make_step

from sweet_jax.data.batches import make_batch, plan_evaluation
from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.criteria import compute_scores, make_thresholds
from sweet_jax.runs.inputs import prepare
from sweet_jax.settings.from_config import from_config_dict

_REPEATS = 3
_ROWS, _BATCH_SIZE = 100, 16


def measure_tradeoff() -> None:
    """Prints the time for the trade-off of 11 thresholds, improved step by step.

    The first row is the method of the released code: it runs the model for every
    threshold, one example at a time, padded to 256, and stops at the confident exit.
    Each row below adds one change; all give the same exits.
    """
    prepared = prepare(from_config_dict({"data": {"max_length": 256}}))
    model = prepared.models[0]
    _, state, _ = make_step(
        model, prepared.members[0], prepared.settings, prepared.loaded.encoder
    )
    params = jax.device_put(state.params)
    rows = prepared.rows["test"]
    end = int(rows.offsets[_ROWS])
    rows = dataclasses.replace(
        rows,
        token_ids=rows.token_ids[:end],
        type_ids=rows.type_ids[:end],
        offsets=rows.offsets[: _ROWS + 1],
        labels=rows.labels[:_ROWS],
        row_ids=rows.row_ids[:_ROWS],
    )
    thresholds = make_thresholds("confidence", 11, 2, model.num_segments)
    start_fn = jax.jit(lambda p, b: model.apply({"params": p}, b, method="start"))
    segment_fns = [
        jax.jit(functools.partial(_run_segment, model, i))
        for i in range(model.num_segments)
    ]
    collector = Collector(model, _BATCH_SIZE, prepared.buckets, prepared.pad_id)

    def run_singly(buckets: tuple[int, ...], thresholds: np.ndarray) -> np.ndarray:
        exits = np.zeros((len(thresholds), _ROWS), np.int64)
        for plan in plan_evaluation(rows.lengths, 1, buckets):
            for t, threshold in enumerate(thresholds):
                carry = start_fn(params, make_batch(rows, plan, 1, prepared.pad_id))
                for i, segment_fn in enumerate(segment_fns):
                    carry, score = segment_fn(params, carry)
                    if float(score) >= threshold or i == len(segment_fns) - 1:
                        exits[t, plan.rows[0]] = i
                        break
        return exits

    def run_batched(thresholds: np.ndarray) -> np.ndarray:
        bank = collector.collect(params, rows)
        scores = compute_scores("confidence", bank.logits)
        return np.asarray(choose_exits(scores, thresholds))

    def run_each(thresholds: np.ndarray) -> np.ndarray:
        return np.concatenate([run_batched(t[None]) for t in thresholds])

    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "the model per threshold, batch 1, padded to 256 (released code)": (
            functools.partial(run_singly, (256,))
        ),
        "+ length buckets": functools.partial(run_singly, prepared.buckets),
        f"+ batches of {_BATCH_SIZE}, every exit": run_each,
        "+ one pass, thresholds replayed": run_batched,
    }
    print_header(
        f"11 thresholds, {_ROWS} test rows", "seconds", "times faster", "same exits"
    )
    first, reference = 0.0, np.zeros(0)
    for name, way in ways.items():
        # The highest threshold runs every segment, so this compiles everything.
        way(thresholds[-1:])
        if way is run_batched:
            way(thresholds)
        seconds, exits = time_median(functools.partial(way, thresholds), _REPEATS)
        if not first:
            first, reference = seconds, exits
        same = float((exits == reference).mean())
        print_row(name, f"{seconds:.3f}", f"{first / seconds:.1f}", f"{same:.4f}")


def _run_segment(model: Any, i: int, params: Any, carry: Any) -> Any:
    carry = model.apply({"params": params}, i, carry, method="run_segment")
    output = model.apply({"params": params}, i, carry, method="exit_outputs")
    return carry, jax.nn.softmax(output.logits_BC).max()
