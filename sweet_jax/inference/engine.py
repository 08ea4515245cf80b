"""Early exit for real: each segment runs on the rows that are still undecided.

A batch runs segment 0; rows whose exit is sure leave, the others are compacted and go
on in the row buckets that they fill best. With pooling they wait instead, in one
queue per (segment, length), until a queue is full, so that deep segments run full
batches; how long a row may wait is bounded in rows and in milliseconds. All shapes are
static: compilation happens once per (segment, row bucket, length).
"""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int64

from sweet_jax.arrays import Batch
from sweet_jax.data.batches import make_batch, plan_evaluation
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.inference.decisions import ExitRule
from sweet_jax.inference.segments import Rows, SegmentOutput, Segments

# Share of a bucket that may be filled with rows that are not needed.
MOST_FILLING = 0.25
# Tokenised rows are sorted by length over this many batches.
CHUNK_BATCHES = 16


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
class EngineStats:
    """What running a cascade took, summed over calls.

    Attributes:
        exit_counts: rows that left at each exit.
        rows_run: rows that each segment ran on.
        rows_padded: the same with the rows that only filled a bucket.
        tokens_run: real tokens of segment 0.
        tokens_padded: tokens of the shapes that segment 0 ran.
        seconds: of each row from entering to its answer, the latest 100,000.
    """

    exit_counts: Int64[np.ndarray, " E"]
    rows_run: Int64[np.ndarray, " E"]
    rows_padded: Int64[np.ndarray, " E"]
    tokens_run: int = 0
    tokens_padded: int = 0
    seconds: deque[float] = dataclasses.field(
        default_factory=lambda: deque(maxlen=100_000)
    )

    @classmethod
    def make(cls, num_exits: int) -> "EngineStats":
        """Returns statistics of nothing yet."""
        return cls(*(np.zeros(num_exits, np.int64) for _ in range(3)))

    def add(self, other: "EngineStats") -> None:
        """Adds what another call took."""
        self.exit_counts += other.exit_counts
        self.rows_run += other.rows_run
        self.rows_padded += other.rows_padded
        self.tokens_run += other.tokens_run
        self.tokens_padded += other.tokens_padded
        self.seconds.extend(other.seconds)


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


class Engine:
    """Runs a cascade on streams of rows; safe to call from several threads.

    Attributes:
        segments: the compiled parts.
        batch_size: most rows of a shape.
        row_buckets: rising numbers of rows that are compiled for.
        num_classes: C.
    """

    def __init__(
        self,
        segments: Segments,
        batch_size: int,
        buckets: tuple[int, ...],
        pad_id: int,
        num_classes: int,
    ) -> None:
        """Compiles nothing yet.

        Args:
            segments: of the model.
            batch_size: most rows of a shape.
            buckets: lengths that batches are padded to.
            pad_id: token id of padding.
            num_classes: C.
        """
        self.segments, self.batch_size = segments, batch_size
        self.row_buckets = make_row_buckets(batch_size)
        self._buckets, self._pad_id = buckets, pad_id
        self.num_classes = num_classes

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
        rule.check(self.num_classes)
        run = _Run(self, rule, pooling, stats or EngineStats.make(rule.num_exits))
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
        return Engine(
            self.segments, batch_size, self._buckets, self._pad_id, self.num_classes
        )

    def find_row_bucket(self, num_rows: int) -> int:
        """Returns the smallest number of rows that holds `num_rows`."""
        return next(bucket for bucket in self.row_buckets if bucket >= num_rows)

    def split_rows(self, num_rows: int) -> list[int]:
        """Returns numbers of rows that fill their buckets, with the sum `num_rows`.

        Two calls that are full cost less than one that is half empty: 70 rows are
        computed as 64 and 6, not as 128. A bucket that lacks no more than
        `MOST_FILLING` of its rows is taken as it is.
        """
        sizes = []
        while num_rows:
            bucket = self.find_row_bucket(num_rows)
            if num_rows < bucket * (1 - MOST_FILLING):
                bucket = max(b for b in self.row_buckets if b <= num_rows)
            sizes.append(min(bucket, num_rows))
            num_rows -= sizes[-1]
        return sizes

    def make_batches(self, chunk: Tokenized) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields batches in few shapes, and where in the chunk their rows are."""
        for plan in plan_evaluation(chunk.lengths, self.batch_size, self._buckets):
            num_rows = self.find_row_bucket(len(plan.rows))
            yield make_batch(chunk, plan, num_rows, self._pad_id), plan.rows

    def warm_up(self) -> None:
        """Compiles every shape there can be."""
        self.segments.warm_up(self.row_buckets, self._buckets)


def make_row_buckets(batch_size: int) -> tuple[int, ...]:
    """Returns the powers of 2 below the batch size, and the batch size."""
    powers = [2**k for k in range(batch_size.bit_length()) if 2**k < batch_size]
    return (*powers, batch_size)


class _Run:
    """The state of one call of `Engine.run`."""

    def __init__(
        self, engine: Engine, rule: ExitRule, pooling: Pooling, stats: EngineStats
    ) -> None:
        self._engine, self._segments = engine, engine.segments
        self._rule, self._pooling, self._stats = rule, pooling, stats
        self._queues: dict[tuple[int, int], _Queue] = {}
        self._running: deque[_Running] = deque()
        self._num_entered = 0

    def iterate(self, chunks: Iterable[Tokenized]) -> Iterator[list[Answer]]:
        """Yields answers as they come."""
        first = 0
        for chunk in chunks:
            for batch, positions in self._engine.make_batches(chunk):
                self._start(batch, first + positions)
                # One batch ahead: the host prepares while the device computes.
                while len(self._running) > 1:
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
        logits = np.zeros((count, num_exits, self._engine.num_classes), np.float32)
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
        group.logits[:, segment] = answers[:, : self._engine.num_classes]
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
        engine, segment = self._engine, run.segment + 1
        group = run.group.select(survivors)
        num_rows = jax.tree.leaves(run.output.rows)[0].shape[0]
        key = (segment, run.length)
        waits = self._pooling.max_rows > 0 and len(survivors) < engine.batch_size
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
        for size in self._engine.split_rows(len(places)):
            now = np.arange(first, first + size)
            # Filled with a row that is real, whatever it is.
            indices = np.full(
                self._engine.find_row_bucket(size), places[first], np.int32
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
        capacity = self._engine.batch_size
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
        if count == self._engine.batch_size:
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


def count_costs(exit_counts: np.ndarray, costs_E: np.ndarray) -> float:
    """Returns the mean cost fraction of rows that left so."""
    return float(exit_counts @ costs_E / max(exit_counts.sum(), 1))


def summarise(stats: EngineStats, costs_E: np.ndarray) -> dict[str, Any]:
    """Returns statistics as people read them.

    Args:
        stats: of an engine.
        costs_E: cost of leaving at each exit, relative to the full model.
    """
    seconds = np.array(stats.seconds) if stats.seconds else np.full(1, np.nan)
    return {
        "rows": int(stats.exit_counts.sum()),
        "exit_counts": stats.exit_counts.tolist(),
        "cost_fraction": count_costs(stats.exit_counts, costs_E),
        "row_filling": float(stats.rows_padded.sum() / max(stats.rows_run.sum(), 1)),
        "padded_over_real": stats.tokens_padded / max(stats.tokens_run, 1),
        "latency_p50_ms": float(np.percentile(seconds, 50) * 1000),
        "latency_p95_ms": float(np.percentile(seconds, 95) * 1000),
    }
