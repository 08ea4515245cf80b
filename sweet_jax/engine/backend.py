"""The interface between the cascade and the backend that computes segments.

The cascade (`cascade_run`) decides which rows leave; a backend runs a segment on rows,
moves rows between batches and reports what its segments cost. `segments.Segments` is
the backend for jax; `register_backend` adds another (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from sweet_jax.arrays import Array, Batch

Rows: TypeAlias = Any  # a tree of arrays [R, ...]


class SegmentOutput(NamedTuple):
    """The output of a segment, possibly still being computed on the device.

    Attributes:
        rows: the input of the next segment.
        answers: logits, then the learning-to-exit score if the exits have one.
    """

    rows: Rows
    answers: Float[Array, "R C_or_more"]


@runtime_checkable
class Backend(Protocol):
    """The segments of one model; safe to call from several threads.

    Calls may return before the device has finished: the cascade starts other segments
    before it reads the answers of one.

    Attributes:
        num_segments: number of segments E.
        num_classes: number of classes C.
        has_fixed_shapes: whether each shape is compiled, so that batches should have
            few; otherwise any shape runs at once.
    """

    num_segments: int
    num_classes: int
    has_fixed_shapes: bool

    @property
    def packed(self) -> "Backend | None":
        """A backend for the same segments on packed rows (see `Batch`), or None.

        Its answers are those of `count_texts(width)` texts for each row, used or not.
        It takes and puts tokens, counted over all rows, instead of rows: an index past
        the last token takes zeros, and `indices` has the shape of rows.
        """
        ...

    @property
    def num_programs(self) -> int:
        """Number of programs compiled so far, over all shapes."""
        ...

    def start(self, batch: Batch) -> SegmentOutput:
        """Runs segment 0, embeddings included, on a batch."""
        ...

    def run(self, segment: int, rows: Rows, length: int) -> SegmentOutput:
        """Runs a later segment on the rows of the segment before it."""
        ...

    def take(self, rows: Rows, indices: Int[np.ndarray, " ..."]) -> Rows:
        """Returns the rows at `indices`."""
        ...

    def put(self, queue: Rows, rows: Rows, slots: Int[np.ndarray, " S"]) -> Rows:
        """Returns the queue with row r at slots[r]; drops slots past its end.

        The caller does not use the given queue again.
        """
        ...

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Returns a batch of this shape, for measurements."""
        ...

    def compile_lengths(self, num_rows: int, lengths: Sequence[int]) -> None:
        """Prepares every segment for these shapes."""
        ...

    def warm_up(self, batch_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Prepares every segment for all combinations of these shapes."""
        ...

    def count_flops(self, segment: int, num_rows: int, length: int) -> float:
        """Returns the FLOPs of a segment for a shape on which it has already run."""
        ...


# Arguments: model, parameters, number of segments, number of classes, matmul precision,
# as in `segments.Segments`. A backend that offers a choice of precisions has their
# names in an attribute `precisions`, and takes one of them as `precision`.
BackendFn: TypeAlias = Callable[..., Backend]
