"""What the cascade needs of whatever computes the segments of a model.

The cascade (`cascade_run`) knows rows and decisions; a backend runs a segment on rows,
moves rows between batches, and says what its segments cost. `segments.Segments` is
jax's; `register_backend` adds another (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int

from sweet_jax.arrays import Batch, Params

Rows: TypeAlias = Any  # a tree of arrays [R, ...]


class SegmentOutput(NamedTuple):
    """What a segment leaves on the device.

    Attributes:
        rows: states for the next segment.
        answers: logits, then the learning-to-exit score where there is one.
    """

    rows: Rows
    answers: Float[jax.Array, "R C_or_more"]


@runtime_checkable
class Backend(Protocol):
    """Segments of one model; safe to call from several threads.

    Calls may return before the device has computed: the cascade reads the answers of a
    segment only after it has started others.

    Attributes:
        num_segments: E.
        num_classes: C.
    """

    num_segments: int
    num_classes: int

    @property
    def num_programs(self) -> int:
        """Programs compiled so far, over all shapes."""
        ...

    def start(self, batch: Batch) -> SegmentOutput:
        """Runs segment 0, embeddings included, on a batch."""
        ...

    def run(self, segment: int, rows: Rows, length: int) -> SegmentOutput:
        """Runs a segment behind the first on rows that segment 0 has started."""
        ...

    def take(self, rows: Rows, indices_R: Int[np.ndarray, " R"]) -> Rows:
        """Returns the rows at `indices_R`."""
        ...

    def put(self, queue: Rows, rows: Rows, slots_R: Int[np.ndarray, " R"]) -> Rows:
        """Returns the queue with row r at slots_R[r]; a slot past its end drops it.

        The queue that was given is not used again.
        """
        ...

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Returns a batch of a shape, to measure with."""
        ...

    def compile_lengths(self, num_rows: int, lengths: Sequence[int]) -> None:
        """Prepares every segment for these shapes."""
        ...

    def warm_up(self, batch_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Prepares every segment for all shapes there can be."""
        ...

    def count_flops(self, segment: int, num_rows: int, length: int) -> float:
        """Returns the FLOPs of a segment on a shape that it has run on."""
        ...


# (model, parameters, number of segments, number of classes, matmul precision): as
# `segments.Segments` is made.
BackendFn: TypeAlias = Callable[[nn.Module, Params, int, int, str], Backend]
