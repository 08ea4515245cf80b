"""The backend for jax: segments compiled for few static shapes.

A segment passes a tree of arrays to the next; their first axis is the row. Rows that
continue stay on the device: they are gathered into a smaller bucket or put into a
queue. The host reads one small array per segment, the output of its exit.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Int

from sweet_jax.arrays import Batch, ExitOutput, Params
from sweet_jax.devices import Programs, Shape, compile_together
from sweet_jax.engine.backend import Rows, SegmentOutput
from sweet_jax.models.multi_exit import pack_model

logger = logging.getLogger(__name__)

Shared = Any  # arrays that all rows of one length share
SegmentFn: TypeAlias = Callable[[Params, Rows, Shared], tuple[Rows, Shared, jax.Array]]


class Segments:
    """The segments of one model, compiled once per (segment, rows, length).

    Safe to call from several threads: they share only programs and constants.

    Attributes:
        num_segments: number of segments E.
        num_classes: number of classes C.
        packed: the same segments for packed rows; None if the model cannot pack.
    """

    has_fixed_shapes = True
    packed: "PackedSegments | None" = None

    def __init__(
        self,
        model: nn.Module,
        params: Params,
        num_segments: int,
        num_classes: int,
        matmul_precision: str = "default",
    ) -> None:
        """Puts the parameters on the device; compiles nothing yet.

        Args:
            model: a MultiExitClassifier or a MultiModelSet.
            params: parameters of the model.
            num_segments: number of segments E.
            num_classes: number of classes C.
            matmul_precision: overrides jax's own setting when a segment compiles.
        """
        self.num_segments, self.num_classes = num_segments, num_classes
        self._params = jax.device_put(params)
        functions = [
            _fix_precision(make_segment(model, i), matmul_precision)
            for i in range(num_segments)
        ]
        self._first = functions[0]
        self._programs = [Programs(jax.jit(function)) for function in functions]
        # The new queue reuses the memory of the old one.
        self._put = jax.jit(self._put_rows, donate_argnums=0)
        self._take = jax.jit(self._take_rows)
        self._shared: dict[int, Shared] = {}
        self._lock = threading.Lock()
        twin = pack_model(model)
        self.packed = twin and PackedSegments(
            twin, self._params, num_segments, num_classes, matmul_precision
        )

    @property
    def num_programs(self) -> int:
        """Number of segments compiled so far, over all shapes, packed ones included."""
        own = sum(len(programs.by_shape) for programs in self._programs)
        return own + (self.packed.num_programs if self.packed else 0)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling segments, packed ones included."""
        own = sum(programs.seconds for programs in self._programs)
        return own + (self.packed.compile_seconds if self.packed else 0)

    def count_flops(self, segment: int, num_rows: int, length: int) -> float:
        """Returns the FLOPs of a compiled segment, by XLA's analysis."""
        return self._programs[segment].by_shape[num_rows, length].flops

    def start(self, batch: Batch) -> SegmentOutput:
        """Runs segment 0, embeddings included, on a host batch."""
        num_rows, length = batch.token_ids.shape
        program = self._find_program(0, (num_rows, length), batch, None)
        rows, shared, answers = program(self._params, batch, None)
        with self._lock:
            self._shared.setdefault(length, shared)
        return SegmentOutput(rows, answers)

    def run(self, segment: int, rows: Rows, length: int) -> SegmentOutput:
        """Runs a later segment on the rows of the segment before it."""
        shared = self._shared[length]
        num_rows = jax.tree.leaves(rows)[0].shape[0]
        program = self._find_program(segment, (num_rows, length), rows, shared)
        rows, _, answers = program(self._params, rows, shared)
        return SegmentOutput(rows, answers)

    def take(self, rows: Rows, indices: Int[np.ndarray, " ..."]) -> Rows:
        """Returns the rows at `indices`; see `backend.Backend`."""
        return self._take(rows, indices)

    def put(self, queue: Rows, rows: Rows, slots: Int[np.ndarray, " S"]) -> Rows:
        """Returns the queue with row r at slots[r]; see `backend.Backend`."""
        return self._put(queue, rows, slots)

    def compile_lengths(self, num_rows: int, lengths: Sequence[int]) -> None:
        """Compiles every segment for these shapes, one per core at a time."""
        work: dict[tuple[Programs, Shape], tuple[Any, ...]] = {}
        first, *later = self._programs
        for length in lengths:
            if all((num_rows, length) in p.by_shape for p in self._programs):
                continue
            batch = self.make_example(num_rows, length)
            work[first, (num_rows, length)] = (self._params, batch, None)
            # The output of segment 0 has the input shapes of all later segments.
            rows, shared, _ = jax.eval_shape(self._first, self._params, batch, None)
            for programs in later:
                work[programs, (num_rows, length)] = (self._params, rows, shared)
        with self._lock:
            compile_together(work)

    def warm_up(self, batch_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Compiles every segment for all combinations of these shapes."""
        for num_rows in batch_rows:
            self.compile_lengths(num_rows, lengths)
        logger.info(
            "%d programs compiled in %.1f s", self.num_programs, self.compile_seconds
        )

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Returns a batch of this shape."""
        ids = np.zeros((num_rows, length), np.int32)
        row = np.zeros(num_rows, np.int32)
        # Real tokens only: some encoders fail on rows without any.
        return Batch(ids, ids, ids + 1, row, row.astype(np.float32), row)

    @staticmethod
    def _put_rows(queue: Rows, rows: Rows, slots: jax.Array) -> Rows:
        return jax.tree.map(lambda q, x: q.at[slots].set(x, mode="drop"), queue, rows)

    @staticmethod
    def _take_rows(rows: Rows, indices: jax.Array) -> Rows:
        return jax.tree.map(lambda x: x[indices], rows)

    def _find_program(
        self, segment: int, shape: tuple[int, int], rows: Any, shared: Any
    ) -> Any:
        programs = self._programs[segment]
        if shape not in programs.by_shape:
            # One thread compiles; the others find its program.
            with self._lock:
                programs.compile(shape, self._params, rows, shared)
        return programs.by_shape[shape].call


class PackedSegments(Segments):
    """The segments on packed rows; what moves between batches is tokens.

    Answers come per text: `count_texts(width)` for each row.
    """

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Returns a batch of this shape, with one text in each row."""
        batch = super().make_example(num_rows, length)
        positions_BL = np.broadcast_to(np.arange(1, length + 1), batch.mask.shape)
        return batch._replace(mask=positions_BL.astype(np.int32))

    @staticmethod
    def _put_rows(queue: Rows, rows: Rows, slots: jax.Array) -> Rows:
        """Puts token s of all rows at slots[s] of all tokens of the queue."""

        def put(queue: jax.Array, x: jax.Array) -> jax.Array:
            flat = _join_rows(queue).at[slots].set(_join_rows(x), mode="drop")
            return flat.reshape(queue.shape)

        return jax.tree.map(put, queue, rows)

    @staticmethod
    def _take_rows(rows: Rows, indices: jax.Array) -> Rows:
        """Returns rows of these tokens; an index past them takes zeros: padding."""
        return jax.tree.map(
            lambda x: _join_rows(x).at[indices].get(mode="fill", fill_value=0), rows
        )


def _join_rows(x: jax.Array) -> jax.Array:
    """Returns the tokens of all rows along one axis."""
    return x.reshape(-1, *x.shape[2:])


def make_segment(model: nn.Module, segment: int) -> SegmentFn:
    """Returns the pure function of a segment, not yet jitted.

    Args:
        model: a MultiExitClassifier or a MultiModelSet.
        segment: its number; segment 0 reads a Batch and no shared arrays.

    Returns:
        A function from (parameters, rows, shared) to (rows, shared, answers): the input
        of the next segment, and the answers as in `SegmentOutput`.
    """
    served: Any = model

    def run(
        params: Params, rows: Rows, shared: Shared
    ) -> tuple[Rows, Shared, jax.Array]:
        def apply(module: Any) -> Any:
            carry = module.join_carry(rows, shared) if segment else module.start(rows)
            carry = module.run_segment(segment, carry)
            return carry, module.exit_outputs(segment, carry)

        carry, output = served.apply({"params": params}, method=apply)
        return *served.split_carry(carry), _stack_answers(output)

    return run


def _fix_precision(segment: SegmentFn, matmul_precision: str) -> SegmentFn:
    """Returns the segment, always traced at this matmul precision."""

    def run(
        params: Params, rows: Rows, shared: Shared
    ) -> tuple[Rows, Shared, jax.Array]:
        with jax.default_matmul_precision(matmul_precision):
            return segment(params, rows, shared)

    return run


def _stack_answers(output: ExitOutput) -> jax.Array:
    if output.lte_B is None:
        return jnp.asarray(output.logits_BC)
    return jnp.concatenate([output.logits_BC, output.lte_B[:, None]], axis=1)
