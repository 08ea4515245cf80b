"""The way of rows through the segments of a cascade, for one stream of them."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jaxtyping import Float, Int64

from sweet_jax.arrays import Batch
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.segments import Rows, SegmentOutput, Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule

# Calls that the device has before it: the host prepares and decides meanwhile, and a
# device with room computes them side by side.
AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Pooling:
    """How long undecided rows may wait for others.

    Attributes:
        max_rows: rows that may have entered the engine since a row began to wait; 0: no
            row waits.
        max_milliseconds: likewise, in time.
    """

    max_rows: int = 8192
    max_milliseconds: float = float("inf")


POOLING = Pooling()
NO_POOLING = Pooling(max_rows=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What the cascade says about one row.

    Attributes:
        index: position of the row among all that entered.
        exit_index: the exit that answered.
        logits_C: of that exit, before temperature.
        seconds: from entering the engine to the answer.
    """

    index: int
    exit_index: int
    logits_C: Float[np.ndarray, " C"]
    seconds: float


@dataclasses.dataclass
class _Group:
    """Host side of rows that are in the same place: one position per row.

    Attributes:
        index: position among all rows that entered.
        entered: when, in seconds of `perf_counter`.
        logits: of the exits so far; E wide, the rest zeros.
    """

    index: Int64[np.ndarray, " n"]
    entered: Float[np.ndarray, " n"]
    logits: Float[np.ndarray, "n E C"]

    def select(self, chosen: np.ndarray) -> "_Group":
        return _Group(self.index[chosen], self.entered[chosen], self.logits[chosen])

    def join(self, other: "_Group") -> "_Group":
        return _Group(
            np.concatenate([self.index, other.index]),
            np.concatenate([self.entered, other.entered]),
            np.concatenate([self.logits, other.logits]),
        )


@dataclasses.dataclass
class _Queue:
    """Rows that wait before a segment.

    Attributes:
        rows: on the device, `batch_size` slots of which the first hold them.
        group: the same rows on the host.
        since_rows: rows that had entered the engine when the first began to wait.
        since: when that was.
    """

    rows: Rows
    group: _Group
    since_rows: int
    since: float


@dataclasses.dataclass
class _Running:
    """A segment at work on the device."""

    segment: int
    length: int
    output: SegmentOutput
    scores: jax.Array | None
    group: _Group


class CascadeRun:
    """One stream of rows on its way through the segments.

    Two things are at work at any time: the device computes a batch, the host decides
    about the one before and prepares the next.
    """

    def __init__(
        self,
        segments: Segments,
        shapes: Shapes,
        rule: ExitRule,
        pooling: Pooling,
        stats: EngineStats,
    ) -> None:
        """Starts nothing yet.

        Args:
            segments: of the model.
            shapes: that they run in.
            rule: who leaves where.
            pooling: how long undecided rows may wait.
            stats: to add to.
        """
        self._segments, self._shapes = segments, shapes
        self._rule, self._pooling, self._stats = rule, pooling, stats
        self._queues: dict[tuple[int, int], _Queue] = {}
        self._running: deque[_Running] = deque()
        self._num_entered = 0

    def iterate(self, chunks: Iterable[Tokenized]) -> Iterator[list[Answer]]:
        """Yields answers as they come."""
        first = 0
        for chunk in chunks:
            for batch, positions in self._shapes.make_batches(chunk):
                self._start(batch, first + positions)
                while len(self._running) > AHEAD:
                    yield self._finish()
                self._start_overdue()
            first += chunk.num_rows
        while self._running or self._queues:
            while self._running:
                yield self._finish()
            # The shallowest first: what it lets through joins deeper queues.
            if self._queues:
                self._start_queue(min(self._queues))

    def _start(self, batch: Batch, index: np.ndarray) -> None:
        """Starts segment 0 on a batch."""
        num_rows, length = batch.token_ids.shape
        count, num_exits = len(index), self._rule.num_exits
        logits = np.zeros((count, num_exits, self._segments.num_classes), np.float32)
        group = _Group(index, np.full(count, time.perf_counter()), logits)
        self._num_entered += count
        self._stats.tokens_run += int(batch.mask.sum())
        self._stats.tokens_padded += num_rows * length
        self._note(0, length, self._segments.start(batch), group)

    def _run(self, segment: int, length: int, rows: Rows, group: _Group) -> None:
        """Starts a later segment on rows that fill a bucket."""
        output = self._segments.run(segment, rows, length)
        self._note(segment, length, output, group)

    def _note(
        self, segment: int, length: int, output: SegmentOutput, group: _Group
    ) -> None:
        """Starts scoring what a segment is going to say."""
        count, num_rows = len(group.index), len(output.answers)
        self._stats.rows_run[segment] += count
        self._stats.rows_padded[segment] += num_rows
        self._stats.flops += self._segments.count_flops(segment, num_rows, length)
        history = np.pad(group.logits, [(0, num_rows - count), (0, 0), (0, 0)])
        # Before the next segment is started: behind it, scores would be late.
        scores = self._rule.score(segment, history, output.answers)
        self._running.append(_Running(segment, length, output, scores, group))

    def _finish(self) -> list[Answer]:
        """Reads the oldest running segment; returns the rows that leave."""
        run = self._running.popleft()
        segment, group, count = run.segment, run.group, len(run.group.index)
        answers = np.asarray(run.output.answers)[:count]
        scores = None if run.scores is None else np.asarray(run.scores)[:count]
        group.logits[:, segment] = answers[:, : self._segments.num_classes]
        leaves = self._rule.decide(segment, scores, answers)
        survivors = np.flatnonzero(~leaves)
        if len(survivors):
            self._go_on(run, survivors)
        now = time.perf_counter()
        self._stats.exit_counts[segment] += int(leaves.sum())
        seconds = now - group.entered[leaves]
        self._stats.seconds.extend(seconds.tolist())
        return [
            Answer(int(i), segment, logits_EC[segment], float(s))
            for i, logits_EC, s in zip(
                group.index[leaves], group.logits[leaves], seconds, strict=True
            )
        ]

    def _go_on(self, run: _Running, survivors: np.ndarray) -> None:
        """Hands rows that did not leave to the next segment, or to its queue."""
        segment = run.segment + 1
        group = run.group.select(survivors)
        num_rows = jax.tree.leaves(run.output.rows)[0].shape[0]
        key = (segment, run.length)
        waits = self._pooling.max_rows > 0 and len(survivors) < self._shapes.batch_size
        if waits or key in self._queues:
            self._enqueue(key, run.output.rows, survivors, group)
        elif len(survivors) == num_rows:  # None left, none only fills: nothing moves.
            self._run(segment, run.length, run.output.rows, group)
        else:
            self._run_selected(key, run.output.rows, survivors, group)

    def _run_selected(
        self, key: tuple[int, int], rows: Rows, places: np.ndarray, group: _Group
    ) -> None:
        """Starts a segment on some of the rows, in the buckets they fill best."""
        first = 0
        for size in self._shapes.split_rows(len(places)):
            now = np.arange(first, first + size)
            # Filled with a row that is real, whatever it is.
            indices = np.full(
                self._shapes.find_row_bucket(size), places[first], np.int32
            )
            indices[:size] = places[now]
            self._run(*key, self._segments.take(rows, indices), group.select(now))
            first += size

    def _enqueue(
        self,
        key: tuple[int, int],
        rows: Rows,
        survivors: np.ndarray,
        group: _Group,
    ) -> None:
        """Puts rows into a queue; a queue that is full is started."""
        capacity = self._shapes.batch_size
        while len(survivors):
            queue = self._queues.get(key)
            held = 0 if queue is None else len(queue.group.index)
            now_in = min(capacity - held, len(survivors))
            joining = group.select(np.arange(now_in))
            if queue is None:
                # Slots that are still free hold some row or other.
                places = np.full(capacity, survivors[0], np.int32)
                places[:now_in] = survivors[:now_in]
                queue = _Queue(
                    self._segments.take(rows, places),
                    joining,
                    self._num_entered,
                    time.perf_counter(),
                )
                self._queues[key] = queue
            else:
                # Rows that left, or find no room any more, go past the end: dropped.
                num_rows = jax.tree.leaves(rows)[0].shape[0]
                slots = np.full(num_rows, capacity, np.int32)
                slots[survivors[:now_in]] = held + np.arange(now_in)
                queue.rows = self._segments.put(queue.rows, rows, slots)
                queue.group = queue.group.join(joining)
            survivors = survivors[now_in:]
            group = group.select(np.arange(now_in, len(group.index)))
            if held + now_in == capacity:
                self._start_queue(key)

    def _start_queue(self, key: tuple[int, int]) -> None:
        """Starts the segment that a queue waits for."""
        queue = self._queues.pop(key)
        count = len(queue.group.index)
        if count == self._shapes.batch_size:
            self._run(*key, queue.rows, queue.group)
        else:
            self._run_selected(key, queue.rows, np.arange(count), queue.group)

    def _start_overdue(self) -> None:
        """Starts queues whose first row has waited for as long as it may."""
        now = time.perf_counter()
        overdue = [
            key
            for key, queue in self._queues.items()
            if self._num_entered - queue.since_rows >= self._pooling.max_rows
            or (now - queue.since) * 1000 >= self._pooling.max_milliseconds
        ]
        for key in sorted(overdue):
            self._start_queue(key)
