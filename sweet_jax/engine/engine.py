"""Early exit for real: each segment runs on the rows that are still undecided.

A batch runs segment 0; rows whose exit is sure leave, the others are compacted and go
on in the row buckets that they fill best. With pooling they wait instead, in one
queue per (segment, length), until a queue is full, so that deep segments run full
batches; how long a row may wait is bounded in rows and in milliseconds. All shapes are
static: compilation happens once per (segment, row bucket, length).
"""

from collections.abc import Iterable, Iterator

from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.cascade_run import NO_POOLING, Answer, CascadeRun, Pooling
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule

# Tokenised rows are sorted by length over this many batches.
CHUNK_BATCHES = 16


class Engine:
    """Runs a cascade on streams of rows; safe to call from several threads.

    Attributes:
        segments: the compiled parts.
        shapes: that they run in.
    """

    def __init__(self, segments: Segments, shapes: Shapes) -> None:
        """Compiles nothing yet."""
        self.segments, self.shapes = segments, shapes

    def run(
        self,
        chunks: Iterable[Tokenized],
        rule: ExitRule,
        pooling: Pooling = NO_POOLING,
        stats: EngineStats | None = None,
    ) -> Iterator[Answer]:
        """Yields an answer per row, in the order in which rows came.

        Args:
            chunks: rows; batches are formed within a chunk. Chunks are read as answers
                are taken, so a stream of any length needs constant memory.
            rule: who leaves where.
            pooling: how long undecided rows may wait.
            stats: to add to.

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
        """Returns an engine of another batch size that shares compiled segments."""
        shapes = Shapes(batch_size, self.shapes.lengths, self.shapes.pad_id)
        return Engine(self.segments, shapes)

    def warm_up(self) -> None:
        """Compiles every shape there can be."""
        self.segments.warm_up(self.shapes.row_buckets, self.shapes.lengths)
