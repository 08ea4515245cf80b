"""The cost of leaving at an exit: in layers, in FLOPs, in seconds on this device.

The paper counts layers. FLOPs come from XLA's analysis of every segment and include
embeddings, poolers and classifiers, which a count of layers ignores. Seconds are
measured and show how much of the saving this device realises.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.data.batches import plan_evaluation
from sweet_jax.engine.backend import Backend

_REPEATS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentCosts:
    """The cost of each segment, with its exit, for a batch of each length.

    Attributes:
        num_rows: rows per batch.
        lengths: batch lengths in tokens.
        weights_S: share of the batches that have each length.
        flops_SE: FLOPs of a batch, by length and segment.
        seconds_SE: seconds of a batch, by length and segment; medians of repeated
            calls.
        device: kind of the device on which seconds were measured.
    """

    num_rows: int
    lengths: tuple[int, ...]
    weights_S: Float[np.ndarray, " S"]
    flops_SE: Float[np.ndarray, "S E"]
    seconds_SE: Float[np.ndarray, "S E"]
    device: str

    @property
    def flops_per_row(self) -> Float[np.ndarray, " E"]:
        """FLOPs of each segment per row, averaged over lengths."""
        return self.weights_S @ self.flops_SE / self.num_rows

    @property
    def seconds_per_row(self) -> Float[np.ndarray, " E"]:
        """Seconds of each segment per row, averaged over lengths."""
        return self.weights_S @ self.seconds_SE / self.num_rows

    def to_json(self, member_exits: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Returns plain values for results.json.

        Args:
            member_exits: see `accumulate`.
        """
        return {
            "flops": accumulate(self.flops_per_row, member_exits).tolist(),
            "seconds": accumulate(self.seconds_per_row, member_exits).tolist(),
            "rows": self.num_rows,
            "device": self.device,
            "segments": [
                {
                    "length": length,
                    "batches": float(weight),
                    "flops": flops_E.tolist(),
                    "milliseconds": (seconds_E * 1000).tolist(),
                }
                for length, weight, flops_E, seconds_E in zip(
                    self.lengths,
                    self.weights_S,
                    self.flops_SE,
                    self.seconds_SE,
                    strict=True,
                )
            ],
        }


def accumulate(
    segment_costs_E: Float[np.ndarray, " E"], member_exits: Sequence[Sequence[int]]
) -> Float[np.ndarray, " E"]:
    """Returns the cost of leaving at each exit, relative to the full model.

    Args:
        segment_costs_E: cost of each segment with its exit; an example pays for all
            segments up to the exit at which it leaves.
        member_exits: the exits of each model; the cost of the full model is that of the
            last one alone, as in the paper.
    """
    full = segment_costs_E[list(member_exits[-1])].sum(dtype=np.float64)
    return np.cumsum(segment_costs_E, dtype=np.float64) / full


def measure_costs(
    segments: Backend,
    lengths_N: Int[np.ndarray, " N"],
    num_rows: int,
    buckets: tuple[int, ...],
    most_lengths: int | None = None,
) -> SegmentCosts:
    """Measures every segment on full batches of the lengths that the rows have.

    Args:
        segments: the segments of the model; they keep their compiled programs.
        lengths_N: number of tokens of each row.
        num_rows: rows per batch.
        buckets: lengths that batches are padded to.
        most_lengths: measures only this many lengths, the most frequent ones; None:
            all.
    """
    plans = plan_evaluation(lengths_N, num_rows, buckets)
    found, counts = np.unique([plan.length for plan in plans], return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:most_lengths])
    lengths = tuple(found[kept].tolist())
    segments.compile_lengths(num_rows, lengths)
    pairs = [_measure_length(segments, num_rows, length) for length in lengths]
    return SegmentCosts(
        num_rows=num_rows,
        lengths=lengths,
        weights_S=counts[kept] / counts[kept].sum(),
        flops_SE=np.array([flops_E for flops_E, _ in pairs]),
        seconds_SE=np.array([seconds_E for _, seconds_E in pairs]),
        device=jax.devices()[0].device_kind,
    )


def _measure_length(
    segments: Backend, num_rows: int, length: int
) -> tuple[list[float], list[float]]:
    """Returns FLOPs and median seconds of each segment."""
    batch = segments.make_example(num_rows, length)
    seconds_RE = np.zeros((_REPEATS, segments.num_segments))
    # The first round warms up. Each round runs all segments, so that a short slowdown
    # of the machine affects them equally.
    for repeat in range(-1, _REPEATS):
        rows = None
        for segment in range(segments.num_segments):
            start = time.perf_counter()
            output = (
                segments.run(segment, rows, length)
                if segment
                else segments.start(batch)
            )
            # The engine, too, reads this array of every segment.
            np.asarray(output.answers)
            jax.block_until_ready(output.rows)
            seconds_RE[max(repeat, 0), segment] = time.perf_counter() - start
            rows = output.rows
    flops = [
        segments.count_flops(i, num_rows, length) for i in range(segments.num_segments)
    ]
    return flops, np.median(seconds_RE, axis=0).tolist()
