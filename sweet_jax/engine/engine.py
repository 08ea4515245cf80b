"""Real early exit: each segment runs only on the rows that are still undecided.

A batch runs segment 0. Rows that pass the threshold leave; the others are compacted
into smaller row buckets and continue. With pooling they wait instead, in one queue per
(segment, length), until a queue is full, so that deep segments run full batches; a
row's wait is bounded in rows and in milliseconds. All shapes are static: each (segment,
row bucket, length) compiles once.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

import numpy as np
from flax import linen as nn
from jaxtyping import Int

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import Backend, BackendFn
from sweet_jax.engine.cascade_run import NO_POOLING, Answer, CascadeRun, Pooling
from sweet_jax.engine.packed_run import PackedRun
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import PackedShapes, Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.settings.registries import BACKENDS
from sweet_jax.system.files import show
from sweet_jax.system.packages import install_extra

# Backend -> the precisions that it offers.
PRECISIONS = {"onnx": ("float32", "int8")}
# Tokenized rows are sorted by length within this many batches.
CHUNK_BATCHES = 16
_MOST_THREADS = 1024


class Engine:
    """Runs a cascade on streams of rows; safe to call from several threads.

    Attributes:
        segments: the segments of the model, on a backend.
        shapes: the static shapes in use.
    """

    def __init__(self, segments: Backend, shapes: Shapes) -> None:
        """Stores both; nothing is compiled yet."""
        self.segments, self.shapes = segments, shapes
        self._packed_shapes = PackedShapes(shapes)

    def run(
        self,
        chunks: Iterable[Tokenized],
        rule: ExitRule,
        pooling: Pooling = NO_POOLING,
        stats: EngineStats | None = None,
    ) -> Iterator[Answer]:
        """Yields one prediction per row, in the order of the rows.

        Args:
            chunks: rows; batches are formed within a chunk. Chunks are read only as
                predictions are consumed, so a stream of any length needs constant
                memory.
            rule: decides at which exit a row leaves.
            pooling: limits on how long undecided rows wait.
            stats: statistics that the run adds to.

        Raises:
            ValueError: a threshold is out of range, a row is too long.
        """
        rule.check(self.segments.num_classes)
        if stats is None:
            stats = EngineStats.make(rule.num_exits)
        chunks = iter(chunks)
        start = list(itertools.islice(chunks, 1))
        run = self._choose_run(start)(rule, pooling, stats)
        waiting: dict[int, Answer] = {}
        next_index = 0
        for answers in run.iterate(itertools.chain(start, chunks)):
            waiting.update((answer.index, answer) for answer in answers)
            while next_index in waiting:
                yield waiting.pop(next_index)
                next_index += 1
        assert not waiting, "every row gets an answer"

    def _choose_run(self, start: list[Tokenized]) -> Callable[..., CascadeRun]:
        """Returns how a stream is run, of which `start` has the first chunk, if any.

        Single texts and small lists run without the padding of a wide row, as does all
        that is to be computed one by one.
        """
        packed, shapes = self.segments.packed, self._packed_shapes
        are_many = self.shapes.batch_size > 1 and any(map(shapes.are_filled_by, start))
        if packed is not None and are_many:
            return functools.partial(PackedRun, packed, shapes)
        return functools.partial(CascadeRun, self.segments, self.shapes)

    def collect(
        self, rows: Tokenized, part: Int[np.ndarray, " N"] | None = None
    ) -> LogitBank:
        """Returns the outputs of all exits on all rows, in their order.

        Args:
            rows: tokenized rows.
            part: calibration part per row; None: zeros.
        """
        segments = self.segments
        answers: list[Any] = [None] * rows.num_rows
        for batch, positions in self.shapes.make_batches(rows):
            output = segments.start(batch)
            found = [np.asarray(output.answers)]
            for i in range(1, segments.num_segments):
                output = segments.run(i, output.rows, batch.token_ids.shape[1])
                found.append(np.asarray(output.answers))
            for position, answer in zip(
                positions, np.stack(found, axis=1)[: len(positions)], strict=True
            ):
                answers[position] = answer
        joined_NEA, count = np.stack(answers), segments.num_classes
        return LogitBank(
            logits=joined_NEA[:, :, :count],
            labels=rows.labels.astype(np.int32),
            weights=np.ones(rows.num_rows, np.float32),
            row_ids=rows.row_ids.astype(np.int64),
            part=np.zeros(rows.num_rows, np.int32) if part is None else part,
            lte=joined_NEA[:, :, count] if joined_NEA.shape[2] > count else None,
        )

    def with_batch_size(self, batch_size: int) -> "Engine":
        """Returns an engine with another batch size that shares compiled segments."""
        shapes = self.shapes.with_batch_size(batch_size)
        return Engine(self.segments, shapes)

    def warm_up(self) -> None:
        """Compiles every segment for every shape."""
        self.segments.warm_up(self.shapes.row_buckets, self.shapes.lengths)
        if self.segments.packed is not None:
            shapes = self._packed_shapes
            self.segments.packed.warm_up(shapes.row_buckets, shapes.lengths)


def make_onnx_backend(
    model: nn.Module,
    params: Params,
    num_segments: int,
    num_classes: int,
    matmul_precision: str,
    precision: str = "float32",
    threads: int | None = None,
) -> Backend:
    """Returns the segments of a model on ONNX Runtime; see `make_backend`.

    Raises:
        ValueError: a package is missing, or ONNX cannot express the encoder.
    """
    del num_segments, matmul_precision  # Those of the model; of jax alone.
    check_packages("onnx", "onnxruntime")
    # Imported here: the packages are an extra.
    from sweet_jax.engine.onnx_backend import OnnxSegments
    from sweet_jax.onnx_graphs.segments import make_segment_models

    models = make_segment_models(model, params)
    segments = [model.SerializeToString() for model in models]
    return OnnxSegments(segments, num_classes, threads)


def check_packages(*packages: str) -> None:
    """Raises ValueError if a package of the backend `onnx` is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"backend onnx needs the package {package}, which is not installed:"
                f" {install_extra('onnx')}"
            )


def check_precision(backend: str, precision: str | None) -> None:
    """Raises ValueError if the backend has no such precision; None is its usual one."""
    allowed = PRECISIONS.get(backend, ())
    if precision is not None and precision not in allowed:
        choices = ", ".join(allowed)
        raise ValueError(
            f"precision={show(precision)}: backend {backend} "
            + (f"has {choices}" if choices else "has no choice of it: leave it out")
        )


def check_threads(backend: str, threads: int | None) -> None:
    """Raises ValueError unless the backend can use this number; None is its usual."""
    if threads is not None and backend != "onnx":
        raise ValueError(
            f"threads={threads}: backend {backend} has no choice of it: leave it out"
        )
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise ValueError(f"threads={threads}: allowed are 1 to {_MOST_THREADS}")


BACKENDS.register("jax", Segments)
BACKENDS.register("onnx", make_onnx_backend)


@overload
def register_backend(name: str, fn: BackendFn, *, replace: bool = ...) -> BackendFn: ...
@overload
def register_backend(
    name: str, fn: None = None, *, replace: bool = ...
) -> Callable[[BackendFn], BackendFn]: ...
def register_backend(name: Any, fn: Any = None, *, replace: bool = False) -> Any:
    """Registers a backend; without `fn`, returns a decorator that does.

    Args:
        name: the name for `load(path, backend=...)`.
        fn: a class or function that makes a `backend.Backend` from a model.
        replace: allows a name that is already registered.

    Raises:
        ValueError: the name is taken, or `fn` cannot be called.
    """
    return BACKENDS.register(name, fn, replace=replace)


def make_backend(
    name: str,
    model: nn.Module,
    params: Params,
    num_segments: int,
    num_classes: int,
    matmul_precision: str = "default",
    precision: str | None = None,
    threads: int | None = None,
) -> Backend:
    """Returns the segments of a model on a backend, given by its name.

    Args:
        name: name of the backend.
        model: a MultiExitClassifier or a MultiModelSet.
        params: parameters of the model.
        num_segments: number of segments E.
        num_classes: number of classes C.
        matmul_precision: the same as in training.
        precision: one of `PRECISIONS`; None: the backend's usual one.
        threads: see `check_threads`.

    Raises:
        ValueError: the name or the precision is unknown, or the registered function
            makes no backend.
    """
    fn: BackendFn = BACKENDS.lookup(name)
    check_precision(name, precision)
    check_threads(name, threads)
    asked = {"precision": precision, "threads": threads}
    chosen = {key: value for key, value in asked.items() if value is not None}
    made: Any = fn(model, params, num_segments, num_classes, matmul_precision, **chosen)
    needed = [n for n in (*Backend.__annotations__, *vars(Backend)) if n[0] != "_"]
    if lacking := [member for member in needed if not hasattr(made, member)]:
        raise ValueError(
            f"backend {name!r} makes a {type(made).__name__} without"
            f" {', '.join(lacking)}: see sweet_jax.engine.backend.Backend"
        )
    return made


def _check_backend(name: str, value: object) -> None:
    """Raises ValueError if the registered object cannot make a backend."""
    if not callable(value):
        raise ValueError(
            f"backend {name!r} is a {type(value).__name__}: register a class, or a"
            " function that makes a sweet_jax.engine.backend.Backend"
        )


BACKENDS.check = _check_backend
