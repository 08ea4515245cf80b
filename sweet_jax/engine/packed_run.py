"""Runs one stream of texts through the segments of a cascade, in packed rows.

Rows that hold several texts need few shapes and have little padding. After an exit, the
tokens of texts that did not leave are packed anew, so later rows are full as well.
"""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.arrays import Batch, count_texts
from sweet_jax.data.packing import Packing, find_tokens, pack_texts
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import Backend, Rows
from sweet_jax.engine.cascade_run import CascadeRun, Group, Pooling, Running
from sweet_jax.engine.shapes import PackedShapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule

# An index past all tokens.
NOWHERE = np.iinfo(np.int32).max


@dataclasses.dataclass
class _TokenQueue:
    """Texts that wait for a segment.

    The tokens of a text may be at any places of the rows.

    Attributes:
        rows: places for tokens on the device.
        free: places without a token.
        group: host data of the texts.
        tokens: places of each text's tokens, in their order.
        entered_rows: the engine's count of texts when each text began to wait.
        entered: time when each text began to wait.
    """

    rows: Rows
    free: Int[np.ndarray, " F"]
    group: Group
    tokens: list[np.ndarray]
    entered_rows: Int[np.ndarray, " n"]
    entered: Float[np.ndarray, " n"]

    @property
    def since_rows(self) -> int:
        """The count of texts when the first began to wait."""
        return int(self.entered_rows[0])

    @property
    def since(self) -> float:
        """Time when the first began to wait."""
        return float(self.entered[0])

    def drop(self, texts: Int[np.ndarray, " K"]) -> None:
        """Removes texts; the others keep their order."""
        kept = np.setdiff1d(np.arange(len(self.tokens)), texts)
        self.free = np.concatenate([self.free, *(self.tokens[i] for i in texts)])
        self.tokens = [self.tokens[i] for i in kept]
        self.group = self.group.select(kept)
        self.entered_rows, self.entered = self.entered_rows[kept], self.entered[kept]


class PackedRun(CascadeRun):
    """Runs one stream of texts through the segments, in packed rows."""

    def __init__(
        self,
        segments: Backend,
        shapes: PackedShapes,
        rule: ExitRule,
        pooling: Pooling,
        stats: EngineStats,
    ) -> None:
        """Sets up empty queues; nothing runs yet.

        Args:
            segments: the segments of the model on packed rows.
            shapes: the static shapes in use.
            rule: decides at which exit a text leaves.
            pooling: limits on how long undecided texts wait.
            stats: statistics that the run adds to.
        """
        super().__init__(segments, shapes, rule, pooling, stats)
        self._packed_shapes = shapes

    def _make_batches(
        self, chunk: Tokenized
    ) -> Iterator[tuple[Batch, np.ndarray, Packing | None]]:
        compiled = set()
        for batch, texts, packing in self._packed_shapes.make_packed_batches(chunk):
            num_rows, width = batch.token_ids.shape
            if num_rows == self._shapes.batch_size and width not in compiled:
                # All segments side by side; they will have full batches, too.
                self._segments.compile_lengths(num_rows, [width])
                compiled.add(width)
            yield batch, texts, packing

    def _continue(self, run: Running, survivors: np.ndarray) -> None:
        """Passes texts that did not leave to the next segment, or to its queue."""
        assert run.packing is not None
        key, rows = (run.segment + 1, run.length), run.output.rows
        pools = self._pooling.max_rows > 0
        is_full = jax.tree.leaves(rows)[0].shape[0] == self._shapes.batch_size
        if len(survivors) == len(run.group.index) and (is_full or not pools):
            self._run(*key, rows, run.group, run.packing)  # Nothing to move.
            return
        group = run.group.select(survivors)
        starts = run.packing.select(survivors).find_starts(run.length)
        tokens = find_tokens(starts, group.lengths)
        if pools:
            self._enqueue_tokens(key, rows, tokens, group)
        else:
            self._run_texts(key, rows, _split(tokens, group), group)

    def _enqueue_tokens(
        self, key: tuple[int, int], rows: Rows, tokens: np.ndarray, group: Group
    ) -> None:
        """Puts texts into a queue; starts full batches of its texts.

        Args:
            key: the segment and the width of its rows.
            rows: packed rows with these and other texts.
            tokens: places of the texts' tokens in the rows, text by text.
            group: the texts.
        """
        width, num_rows = key[1], self._shapes.batch_size
        # A batch is taken as soon as there is a row more, to choose the fullest rows.
        # Until then the texts of one more batch must fit.
        enough = (num_rows + 1) * width
        queue = self._queues.get(key) or self._make_queue(rows, enough, width)
        places, queue.free = np.split(queue.free, [len(tokens)])
        slots = np.full(jax.tree.leaves(rows)[0].shape[0] * width, NOWHERE, np.int32)
        slots[tokens] = places
        queue.rows = self._segments.put(queue.rows, rows, slots)
        queue.tokens += _split(places, group)
        queue.group = queue.group.join(group) if len(queue.entered) else group
        count = len(group.index)
        queue.entered_rows = np.append(
            queue.entered_rows, np.full(count, self._num_entered)
        )
        queue.entered = np.append(queue.entered, np.full(count, time.perf_counter()))
        self._queues[key] = queue
        most_texts = (num_rows + 1) * count_texts(width)
        while queue.group.lengths.sum() >= enough or len(queue.tokens) >= most_texts:
            packing = pack_texts(queue.group.lengths, (width,))
            filling = np.bincount(packing.rows, weights=queue.group.lengths)
            chosen = np.argsort(-filling, kind="stable")[:num_rows]
            if packing.rows[0] not in chosen:  # The oldest text has waited enough.
                chosen[-1] = packing.rows[0]
            texts = self._run_rows(
                key, queue.rows, queue.tokens, queue.group, packing, chosen
            )
            queue.drop(texts)  # At least one row of texts is left.

    def _make_queue(self, rows: Rows, enough: int, width: int) -> _TokenQueue:
        """Returns an empty queue."""
        num_rows = 2 * (enough // width) - 1
        nowhere = np.full((num_rows, width), NOWHERE, np.int32)
        empty = np.zeros(0, np.int64)
        return _TokenQueue(
            self._segments.take(rows, nowhere),
            np.arange(nowhere.size),
            Group(empty, empty, empty.astype(float), np.zeros((0, 1, 1), np.float32)),
            [],
            empty,
            empty.astype(float),
        )

    def _start_queue(self, key: tuple[int, int]) -> None:
        """Starts the segment that a queue waits for, on all texts of the queue."""
        queue = self._queues.pop(key)
        self._run_texts(key, queue.rows, queue.tokens, queue.group)

    def _run_texts(
        self, key: tuple[int, int], rows: Rows, tokens: list[np.ndarray], group: Group
    ) -> None:
        """Starts a segment on all texts of a group; see `_run_rows`."""
        packing = pack_texts(group.lengths, (key[1],))
        for part in self._packed_shapes.cut_rows(np.arange(len(packing.widths))):
            self._run_rows(key, rows, tokens, group, packing, part)

    def _run_rows(
        self,
        key: tuple[int, int],
        rows: Rows,
        tokens: list[np.ndarray],
        group: Group,
        packing: Packing,
        chosen: np.ndarray,
    ) -> Int[np.ndarray, " K"]:
        """Starts a segment on some rows of a packing; returns the texts in them.

        Args:
            key: the segment and the width of its rows.
            rows: rows on the device that hold the texts.
            tokens: places of each text's tokens in these rows.
            group: the texts.
            packing: where the texts go.
            chosen: the rows of the packing that run now.
        """
        width = key[1]
        texts, places = packing.choose_rows(chosen)
        now = group.select(texts)
        num_rows = self._shapes.find_row_bucket(len(chosen))
        indices = np.full(num_rows * width, NOWHERE, np.int32)
        targets = find_tokens(places.find_starts(width), now.lengths)
        indices[targets] = np.concatenate([tokens[i] for i in texts])
        taken = self._segments.take(rows, indices.reshape(num_rows, width))
        self._run(*key, taken, now, places)
        return texts


def _split(tokens: np.ndarray, group: Group) -> list[np.ndarray]:
    """Returns the tokens of each text, from those of all texts."""
    return np.split(tokens, np.cumsum(group.lengths)[:-1])
