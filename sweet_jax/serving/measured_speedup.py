"""Expected and measured speed-up of real early exit, on this device.

The baseline is the faster of two ways to run the full model, in the same batches and
buckets: one compiled function, and the engine without early exits. In each round the
cascade and both baselines run one after the other, so that a slow phase of the machine
affects all three; ratios are computed within a round.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sweet_jax.arrays import Batch
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import Programs, shape_of
from sweet_jax.engine.cascade_run import NO_POOLING, POOLING
from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.engine import CHUNK_BATCHES, Engine
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats, count_costs
from sweet_jax.exits.criteria import FULL
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.thresholds.sequences import find_exits

BATCH_SIZES = (1, 8, 32, 128)
TARGETS = (1.5, 2.0, 3.0)
REPEATS = 5
_CRITERION = "confidence"
_HEADER = (
    "batch",
    "threshold",
    "speed-up in layers",
    "in FLOPs",
    "in seconds",
    "seconds / layers",
    "rows/s",
    "rows/s, full model",
)


@dataclasses.dataclass(frozen=True)
class Speedup:
    """The speed-up of a threshold at a batch size.

    Attributes:
        batch_size: largest number of rows of a batch.
        threshold: threshold of confidence.
        in_layers: speed-up in layers, for the timed rows.
        in_flops: speed-up in FLOPs of all programs that ran, padding included.
        in_seconds: measured speed-up; median of paired rounds.
        rows_per_second: rate of the cascade; median.
        full_rows_per_second: rate of the full model, the faster of two ways; median.
    """

    batch_size: int
    threshold: float
    in_layers: float
    in_flops: float
    in_seconds: float
    rows_per_second: float
    full_rows_per_second: float


def measure_speedups(
    classifier: AdaptiveClassifier,
    examples: Examples,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    targets: Sequence[float] = TARGETS,
    repeats: int = REPEATS,
) -> Iterator[Speedup | SegmentCosts]:
    """Yields the segment costs of each batch size, then a speed-up per threshold.

    Args:
        classifier: measured with the criterion confidence.
        examples: rows to time; their labels are not read.
        batch_sizes: undecided rows are pooled at all batch sizes but 1.
        targets: speed-ups in layers; for each the nearest threshold on these rows is
            measured.
        repeats: number of rounds; medians are reported.
    """
    rows = classifier.tokenize(examples)
    scores_NE = classifier.score(examples, _CRITERION)
    costs_E = classifier.calibration.costs_E
    thresholds = [find_threshold(scores_NE, costs_E, target) for target in targets]
    for batch_size in batch_sizes:
        engine = classifier.engine.with_batch_size(batch_size)
        costs = measure_costs(
            engine.segments, rows.lengths, batch_size, classifier.description.buckets
        )
        yield costs
        full = FullModel(classifier, engine.shapes)
        chunks = list(rows.cut(CHUNK_BATCHES * batch_size))
        for threshold in thresholds:
            yield _measure(classifier, engine, full, chunks, threshold, repeats)


def format_speedups(measured: Iterable[Speedup | SegmentCosts]) -> Iterator[str]:
    """Yields lines of Markdown tables as soon as they are measured."""
    for item in measured:
        if isinstance(item, SegmentCosts):
            yield from _format_costs(item)
            yield from ("", _format_row(_HEADER), _format_row(["---"] * len(_HEADER)))
            continue
        yield _format_row(
            [
                str(item.batch_size),
                f"{item.threshold:.4f}",
                f"{item.in_layers:.2f}",
                f"{item.in_flops:.2f}",
                f"{item.in_seconds:.2f}",
                f"{item.in_seconds / item.in_layers:.2f}",
                f"{item.rows_per_second:.0f}",
                f"{item.full_rows_per_second:.0f}",
            ]
        )


def _format_costs(costs: SegmentCosts) -> Iterator[str]:
    num_segments = costs.flops_SE.shape[1]
    yield ""
    yield (
        f"Milliseconds of each segment with its exit, batches of {costs.num_rows},"
        f" {costs.device}"
    )
    yield ""
    header = ["length", "share of batches", *(f"{i}" for i in range(num_segments))]
    yield _format_row(header)
    yield _format_row(["---"] * len(header))
    for length, weight, seconds_E in zip(
        costs.lengths, costs.weights_S, costs.seconds_SE, strict=True
    ):
        cells = [f"{seconds * 1000:.2f}" for seconds in seconds_E]
        yield _format_row([str(length), f"{weight:.2f}", *cells])


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def find_threshold(
    scores_NE: Float[np.ndarray, "N E"], costs_E: Float[np.ndarray, " E"], target: float
) -> float:
    """Returns the threshold whose speed-up in layers on these rows is nearest.

    It lies midway between two distinct scores, so that rounding cannot change an exit.
    """
    values = np.unique(scores_NE[:, :-1].astype(np.float32))
    middles = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    # A few hundred candidates are enough.
    middles = middles[:: max(len(middles) // 500, 1)]
    thresholds = np.concatenate([values[:1], middles, values[-1:]])
    exits_TN = find_exits(scores_NE, thresholds[:, None])
    speedups_T = 1 / costs_E[exits_TN].mean(axis=1)
    return float(thresholds[np.argmin(np.abs(speedups_T - target))])


def _measure(
    classifier: AdaptiveClassifier,
    engine: Engine,
    full: "FullModel",
    chunks: Sequence[Tokenized],
    threshold: float,
    repeats: int,
) -> Speedup:
    rule = classifier.make_rule((threshold,), _CRITERION)
    none = classifier.make_rule((FULL,), _CRITERION)
    pooling = NO_POOLING if engine.shapes.batch_size == 1 else POOLING
    cascade = functools.partial(_exhaust, engine, chunks, rule, pooling)
    seconds_WR = time_paired(
        [
            cascade,
            functools.partial(full.run, chunks),
            functools.partial(_exhaust, engine, chunks, none, NO_POOLING),
        ],
        repeats,
    )
    # One baseline for all rounds: taking the faster of two in each round is biased.
    baseline_R = seconds_WR[1 + np.median(seconds_WR[1:], axis=1).argmin()]
    stats = EngineStats.make(rule.num_exits)
    num_rows = len(_exhaust(engine, chunks, rule, pooling, stats))
    costs_E = classifier.calibration.costs_E
    return Speedup(
        batch_size=engine.shapes.batch_size,
        threshold=threshold,
        in_layers=1 / count_costs(stats.exit_counts, costs_E),
        in_flops=full.count_flops(chunks) / stats.flops,
        in_seconds=statistics.median((baseline_R / seconds_WR[0]).tolist()),
        rows_per_second=num_rows / statistics.median(seconds_WR[0].tolist()),
        full_rows_per_second=num_rows / statistics.median(baseline_R.tolist()),
    )


def _exhaust(engine: Engine, *args: Any) -> list[Any]:
    return list(engine.run(*args))


def time_paired(
    functions: Sequence[Callable[[], Any]], repeats: int
) -> Float[np.ndarray, "W R"]:
    """Returns the seconds of each function in each round; all are compiled first."""
    for function in functions:
        function()
    seconds_WR = np.zeros((len(functions), repeats))
    for r in range(repeats):
        for w, function in enumerate(functions):
            start = time.perf_counter()
            function()
            seconds_WR[w, r] = time.perf_counter() - start
    return seconds_WR


class FullModel:
    """The full model as one compiled function, on an engine's batches.

    It computes neither earlier exits nor the other members of a multi_model, on which
    its output does not depend.
    """

    def __init__(self, classifier: AdaptiveClassifier, shapes: Shapes) -> None:
        """Makes the jitted function; nothing is compiled yet."""
        self._shapes = shapes
        self._params = jax.device_put(classifier.params)
        model: Any = classifier.model
        precision = classifier.description.matmul_precision

        def compute(params: Any, batch: Batch) -> Any:
            with jax.default_matmul_precision(precision):
                return model.apply({"params": params}, batch)[-1].logits_BC

        self._programs = Programs(jax.jit(compute))

    def run(self, chunks: Sequence[Tokenized]) -> list[np.ndarray]:
        """Returns the logits of every batch."""
        pending = [
            self._programs.compile(shape_of(batch), self._params, batch).call(
                self._params, batch
            )
            for batch in self._make_batches(chunks)
        ]
        return [np.asarray(logits) for logits in pending]

    def count_flops(self, chunks: Sequence[Tokenized]) -> float:
        """Returns the FLOPs of `run`, by XLA's analysis; call `run` first."""
        programs = self._programs.by_shape
        return sum(
            programs[shape_of(batch)].flops for batch in self._make_batches(chunks)
        )

    def _make_batches(self, chunks: Sequence[Tokenized]) -> Iterator[Batch]:
        for chunk in chunks:
            for batch, _ in self._shapes.make_batches(chunk):
                yield batch
