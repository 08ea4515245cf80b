"""What leaving at an exit costs: in layers, in FLOPs, in seconds on this device.

The paper counts layers. FLOPs, by XLA's own analysis of every segment, include what
layers leave out: embeddings, poolers, classifiers. Seconds are measured, and say what
of it a device can use.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.data.batches import plan_evaluation
from sweet_jax.engine.segments import Segments

_REPEATS = 5


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentCosts:
    """What each segment, with its exit, takes for a batch of each length.

    Attributes:
        num_rows: rows of a batch.
        lengths: in tokens, of the batches.
        weights_S: share of the batches that have each length.
        flops_SE: of a batch, by length and segment.
        seconds_SE: likewise, medians of repeated calls.
        device: kind of the device it was measured on.
    """

    num_rows: int
    lengths: tuple[int, ...]
    weights_S: Float[np.ndarray, " S"]
    flops_SE: Float[np.ndarray, "S E"]
    seconds_SE: Float[np.ndarray, "S E"]
    device: str

    @property
    def flops_per_row(self) -> Float[np.ndarray, " E"]:
        """FLOPs of each segment per row, on average over lengths."""
        return self.weights_S @ self.flops_SE / self.num_rows

    @property
    def seconds_per_row(self) -> Float[np.ndarray, " E"]:
        """Seconds of each segment per row, on average over lengths."""
        return self.weights_S @ self.seconds_SE / self.num_rows

    def to_json(self, member_exits: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Returns plain values, as results.json holds them.

        Args:
            member_exits: as `accumulate` takes them.
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
        segment_costs_E: of each segment with its exit; an example pays for all up to
            the one it leaves at.
        member_exits: the exits of each model; the full model is the last one alone, as
            in the paper's costs.
    """
    full = segment_costs_E[list(member_exits[-1])].sum(dtype=np.float64)
    return np.cumsum(segment_costs_E, dtype=np.float64) / full


def measure_costs(
    segments: Segments,
    lengths_N: Int[np.ndarray, " N"],
    num_rows: int,
    buckets: tuple[int, ...],
    most_lengths: int | None = None,
) -> SegmentCosts:
    """Measures every segment on full batches of the lengths that rows come in.

    Args:
        segments: of the model; what they compile is kept.
        lengths_N: tokens of each row.
        num_rows: rows of a batch.
        buckets: lengths that batches are padded to.
        most_lengths: measure only so many lengths, those with most batches; None: all.
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
    segments: Segments, num_rows: int, length: int
) -> tuple[list[float], list[float]]:
    """Returns FLOPs and median seconds of each segment."""
    batch = segments.make_example(num_rows, length)
    seconds_RE = np.zeros((_REPEATS, segments.num_segments))
    # The first round warms up; rounds go through all segments, so that what slows the
    # machine for a moment meets them alike.
    for repeat in range(-1, _REPEATS):
        rows = None
        for segment in range(segments.num_segments):
            start = time.perf_counter()
            output = (
                segments.run(segment, rows, length)
                if segment
                else segments.start(batch)
            )
            # What the engine reads of a segment.
            np.asarray(output.answers)
            jax.block_until_ready(output.rows)
            seconds_RE[max(repeat, 0), segment] = time.perf_counter() - start
            rows = output.rows
    flops = [
        segments.count_flops(i, num_rows, length) for i in range(segments.num_segments)
    ]
    return flops, np.median(seconds_RE, axis=0).tolist()
