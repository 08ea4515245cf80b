"""Real early exit: each segment runs only on the rows that are still undecided.

A batch runs segment 0. Rows that pass the threshold leave; the others are compacted
into smaller row buckets and continue. With pooling they wait instead, in one queue per
(segment, length), until a queue is full, so that deep segments run full batches; a
row's wait is bounded in rows and in milliseconds. All shapes are static: each (segment,
row bucket, length) compiles once.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

from flax import linen as nn

from sweet_jax.arrays import Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import Backend, BackendFn
from sweet_jax.engine.cascade_run import NO_POOLING, Answer, CascadeRun, Pooling
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.settings.registries import BACKENDS

# Tokenized rows are sorted by length within this many batches.
CHUNK_BATCHES = 16


class Engine:
    """Runs a cascade on streams of rows; safe to call from several threads.

    Attributes:
        segments: the segments of the model, on a backend.
        shapes: the static shapes in use.
    """

    def __init__(self, segments: Backend, shapes: Shapes) -> None:
        """Stores both; nothing is compiled yet."""
        self.segments, self.shapes = segments, shapes

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
        run = CascadeRun(self.segments, self.shapes, rule, pooling, stats)
        waiting: dict[int, Answer] = {}
        next_index = 0
        for answers in run.iterate(chunks):
            waiting.update((answer.index, answer) for answer in answers)
            while next_index in waiting:
                yield waiting.pop(next_index)
                next_index += 1
        assert not waiting, "every row gets an answer"

    def with_batch_size(self, batch_size: int) -> "Engine":
        """Returns an engine with another batch size that shares compiled segments."""
        shapes = Shapes(batch_size, self.shapes.lengths, self.shapes.pad_id)
        return Engine(self.segments, shapes)

    def warm_up(self) -> None:
        """Compiles every segment for every shape."""
        self.segments.warm_up(self.shapes.row_buckets, self.shapes.lengths)


BACKENDS.register("jax", Segments)


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
) -> Backend:
    """Returns the segments of a model on a backend, given by its name.

    Args:
        name: name of the backend.
        model: a MultiExitClassifier or a MultiModelSet.
        params: parameters of the model.
        num_segments: number of segments E.
        num_classes: number of classes C.
        matmul_precision: the same as in training.

    Raises:
        ValueError: the name is unknown, or the registered function makes no backend.
    """
    fn: BackendFn = BACKENDS.lookup(name)
    made: Any = fn(model, params, num_segments, num_classes, matmul_precision)
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
