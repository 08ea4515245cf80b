"""Runs one stream of rows through the segments of a cascade."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int64

from sweet_jax.arrays import Batch, count_texts
from sweet_jax.data.packing import Packing
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import Backend, Rows, SegmentOutput
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule

# Number of calls queued on the device. The host prepares and decides meanwhile, and a
# device with free cores runs several at once.
AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Limits on how long undecided rows wait for a full batch.

    Attributes:
        max_rows: a row waits until this many rows have entered the engine after it; 0
            turns waiting off.
        max_milliseconds: a row waits at most this long.
    """

    max_rows: int = 8192
    max_milliseconds: float = float("inf")


POOLING = Pooling()
NO_POOLING = Pooling(max_rows=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """The prediction of the cascade for one row.

    Attributes:
        index: position of the row in the stream.
        exit_index: the exit at which the row left.
        logits_C: logits of that exit, before temperature scaling.
        seconds: time from entering the engine to the prediction.
    """

    index: int
    exit_index: int
    logits_C: Float[np.ndarray, " C"]
    seconds: float


@dataclasses.dataclass
class Group:
    """Host data of rows that move together, one entry per row.

    A row is a text also where packed rows hold several.

    Attributes:
        index: position of the row in the stream.
        lengths: number of its tokens.
        entered: time of entering the engine, in seconds of `perf_counter`.
        answers: outputs of the exits run so far; zeros for the other exits.
    """

    index: Int64[np.ndarray, " n"]
    lengths: Int64[np.ndarray, " n"]
    entered: Float[np.ndarray, " n"]
    answers: Float[np.ndarray, "n E C_or_more"]

    def select(self, chosen: np.ndarray) -> "Group":
        """Returns some of the rows."""
        return Group(*(values[chosen] for values in self._columns()))

    def join(self, other: "Group") -> "Group":
        """Returns these rows, then the other ones."""
        pairs = zip(self._columns(), other._columns(), strict=True)
        return Group(*(np.concatenate(pair) for pair in pairs))

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.index, self.lengths, self.entered, self.answers


@dataclasses.dataclass
class _Queue:
    """Rows that wait for a segment.

    Attributes:
        rows: `batch_size` slots on the device; the first ones hold the rows.
        group: host data of the same rows.
        since_rows: number of rows in the engine's count when the first began to wait.
        since: time when the first began to wait.
    """

    rows: Rows
    group: Group
    since_rows: int
    since: float


@dataclasses.dataclass
class Running:
    """A segment that is running on the device.

    Attributes:
        places: place of each row of the group in the answers.
        packing: where the texts of a packed batch are; None: text i is row i.
    """

    segment: int
    length: int
    output: SegmentOutput
    scores: jax.Array | np.ndarray | None
    group: Group
    places: np.ndarray
    packing: Packing | None


class CascadeRun:
    """Runs one stream of rows through the segments.

    While the device computes a batch, the host decides which rows of the previous batch
    leave, and prepares the next.
    """

    def __init__(
        self,
        segments: Backend,
        shapes: Shapes,
        rule: ExitRule,
        pooling: Pooling,
        stats: EngineStats,
    ) -> None:
        """Sets up empty queues; nothing runs yet.

        Args:
            segments: the segments of the model.
            shapes: the static shapes in use.
            rule: decides at which exit a row leaves.
            pooling: limits on how long undecided rows wait.
            stats: statistics that the run adds to.
        """
        self._segments, self._shapes = segments, shapes
        self._rule, self._pooling, self._stats = rule, pooling, stats
        self._queues: dict[tuple[int, int], Any] = {}
        self._running: deque[Running] = deque()
        self._num_entered = 0

    def iterate(self, chunks: Iterable[Tokenized]) -> Iterator[list[Answer]]:
        """Yields predictions as soon as they are ready."""
        first = 0
        for chunk in chunks:
            lengths_N = chunk.lengths
            for batch, positions, packing in self._make_batches(chunk):
                index = first + positions
                self._start(batch, index, lengths_N[positions], packing)
                while len(self._running) > AHEAD:
                    yield self._finish()
                self._start_overdue()
            first += chunk.num_rows
        while self._running or self._queues:
            while self._running:
                yield self._finish()
            # The shallowest queue first: its undecided rows join deeper queues.
            if self._queues:
                self._start_queue(min(self._queues))

    def _make_batches(
        self, chunk: Tokenized
    ) -> Iterator[tuple[Batch, np.ndarray, Packing | None]]:
        """Yields batches, the positions of their rows in the chunk, and a packing."""
        for batch, positions in self._shapes.make_batches(chunk):
            yield batch, positions, None

    def _start(
        self,
        batch: Batch,
        index: np.ndarray,
        lengths: np.ndarray,
        packing: Packing | None,
    ) -> None:
        """Starts segment 0 on a batch."""
        num_rows, length = batch.token_ids.shape
        count, num_exits = len(index), self._rule.num_exits
        width = self._segments.num_classes + self._rule.reads_lte
        answers = np.zeros((count, num_exits, width), np.float32)
        now = np.full(count, time.perf_counter())
        group = Group(index, lengths, now, answers)
        self._num_entered += count
        self._stats.tokens_run += int(lengths.sum())
        self._stats.tokens_padded += num_rows * length
        self._start_scoring(0, length, self._segments.start(batch), group, packing)

    def _run(
        self,
        segment: int,
        length: int,
        rows: Rows,
        group: Group,
        packing: Packing | None = None,
    ) -> None:
        """Starts a later segment on rows that fill a bucket."""
        output = self._segments.run(segment, rows, length)
        self._start_scoring(segment, length, output, group, packing)

    def _start_scoring(
        self,
        segment: int,
        length: int,
        output: SegmentOutput,
        group: Group,
        packing: Packing | None,
    ) -> None:
        """Counts a started segment and starts the scores of its exit."""
        count, num_answers = len(group.index), len(output.answers)
        if packing is None:
            places = np.arange(count)
            num_rows = computed = num_answers
        else:
            places = packing.find_answers(length)
            num_rows = num_answers // count_texts(length)
            # In texts of the same mean length.
            computed = round(count * num_rows * length / group.lengths.sum())
        self._stats.rows_run[segment] += count
        self._stats.rows_padded[segment] += computed
        self._stats.flops += self._segments.count_flops(segment, num_rows, length)
        history = group.answers
        if packing is not None or count < num_answers:
            history = np.zeros((num_answers, *history.shape[1:]), np.float32)
            history[places] = group.answers
        # Queued before the next segment, otherwise the scores would wait for it.
        scores = self._rule.score(segment, history, output.answers)
        self._running.append(
            Running(segment, length, output, scores, group, places, packing)
        )

    def _finish(self) -> list[Answer]:
        """Reads the oldest running segment; returns predictions of rows that leave."""
        run = self._running.popleft()
        segment, group = run.segment, run.group
        answers = np.asarray(run.output.answers)[run.places]
        scores = None if run.scores is None else np.asarray(run.scores)[run.places]
        group.answers[:, segment] = answers[:, : group.answers.shape[2]]
        leaves = self._rule.decide(segment, scores, answers)
        survivors = np.flatnonzero(~leaves)
        if len(survivors):
            self._continue(run, survivors)
        now = time.perf_counter()
        self._stats.exit_counts[segment] += int(leaves.sum())
        seconds = now - group.entered[leaves]
        logits_NC = answers[:, : self._segments.num_classes]
        self._stats.seconds.extend(seconds.tolist())
        return [
            Answer(int(i), segment, logits_C, float(s))
            for i, logits_C, s in zip(
                group.index[leaves], logits_NC[leaves], seconds, strict=True
            )
        ]

    def _continue(self, run: Running, survivors: np.ndarray) -> None:
        """Passes rows that did not leave to the next segment, or to its queue."""
        segment = run.segment + 1
        group = run.group.select(survivors)
        num_rows = jax.tree.leaves(run.output.rows)[0].shape[0]
        key = (segment, run.length)
        # Without fixed shapes, a small batch costs little more per row than a full one.
        pools = self._pooling.max_rows > 0 and self._shapes.are_fixed
        waits = pools and len(survivors) < self._shapes.batch_size
        if waits or key in self._queues:
            self._enqueue(key, run.output.rows, survivors, group)
        elif len(survivors) == num_rows:  # No row left, no padding: nothing to move.
            self._run(segment, run.length, run.output.rows, group)
        else:
            self._run_selected(key, run.output.rows, survivors, group)

    def _run_selected(
        self, key: tuple[int, int], rows: Rows, places: np.ndarray, group: Group
    ) -> None:
        """Starts a segment on some of the rows, in buckets with little padding."""
        first = 0
        for size in self._shapes.split_rows(len(places)):
            now = np.arange(first, first + size)
            # Padded with copies of a real row.
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
        group: Group,
    ) -> None:
        """Puts rows into a queue; starts the segment when the queue is full."""
        capacity = self._shapes.batch_size
        while len(survivors):
            queue = self._queues.get(key)
            held = 0 if queue is None else len(queue.group.index)
            now_in = min(capacity - held, len(survivors))
            joining = group.select(np.arange(now_in))
            if queue is None:
                # Free slots hold copies of a real row.
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
                # Rows that left or do not fit get a slot past the end: `put` drops
                # them.
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
        """Starts the queues whose first row has waited for the allowed time."""
        now = time.perf_counter()
        overdue = [
            key
            for key, queue in self._queues.items()
            if self._num_entered - queue.since_rows >= self._pooling.max_rows
            or (now - queue.since) * 1000 >= self._pooling.max_milliseconds
        ]
        for key in sorted(overdue):
            self._start_queue(key)
