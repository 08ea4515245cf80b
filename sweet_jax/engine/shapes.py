"""The shapes of batches that a cascade uses.

A backend that compiles each shape gets few of them: row buckets and length buckets. One
that runs any shape at once gets batches without padding rows, as long as their longest
row.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from sweet_jax.arrays import Batch
from sweet_jax.data.batches import BatchPlan, make_batch, plan_evaluation
from sweet_jax.data.packing import Packing, make_packed_batch, pack_texts
from sweet_jax.data.tokenize import Tokenized

# Largest share of a bucket that may be padding.
MOST_FILLING = 0.25
# Tokens of a packed row, unless a text is longer. Texts of 27 tokens on average take
# 5 % less time in rows of 64 than in rows of 96 (attention) or of 48 (padding).
PACKED_WIDTH = 64
# A packed batch has a row for this many rows of an ordinary one.
TEXTS_PER_ROW = 2


class Shapes:
    """Row buckets and lengths, and how rows are placed in them.

    Attributes:
        batch_size: largest number of rows of a batch.
        row_buckets: numbers of rows that programs are compiled for, ascending.
        lengths: lengths that rows are padded to, ascending; only the longest if the
            shapes are not fixed.
        pad_id: token id of padding.
        are_fixed: whether there are few shapes.
    """

    def __init__(
        self,
        batch_size: int,
        lengths: tuple[int, ...],
        pad_id: int,
        are_fixed: bool = True,
    ) -> None:
        """Sets the shapes.

        Args:
            batch_size: largest number of rows of a batch.
            lengths: lengths that rows are padded to; if the shapes are not fixed, only
                the last, the longest row, is kept.
            pad_id: token id of padding.
            are_fixed: whether there should be few shapes.
        """
        self.batch_size, self.pad_id, self.are_fixed = batch_size, pad_id, are_fixed
        if are_fixed:
            self.row_buckets, self.lengths = make_row_buckets(batch_size), lengths
        else:
            self.row_buckets = tuple(range(1, batch_size + 1))
            self.lengths = lengths[-1:]

    def with_batch_size(self, batch_size: int) -> "Shapes":
        """Returns the same shapes with another batch size."""
        return Shapes(batch_size, self.lengths, self.pad_id, self.are_fixed)

    def find_row_bucket(self, num_rows: int) -> int:
        """Returns the smallest bucket that holds `num_rows` rows."""
        if not self.are_fixed:
            return num_rows
        return next(bucket for bucket in self.row_buckets if bucket >= num_rows)

    def split_rows(self, num_rows: int) -> list[int]:
        """Splits `num_rows` rows into parts that fill their buckets.

        Two full calls cost less than one that is half empty: 70 rows are computed as 64
        and 6, not as 128. A bucket with at most a share `MOST_FILLING` of padding is
        used as it is.
        """
        sizes = []
        while num_rows:
            bucket = self.find_row_bucket(min(num_rows, self.batch_size))
            if num_rows < bucket * (1 - MOST_FILLING):
                bucket = max(b for b in self.row_buckets if b <= num_rows)
            sizes.append(min(bucket, num_rows))
            num_rows -= sizes[-1]
        return sizes

    def make_batches(self, chunk: Tokenized) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yields batches, and the positions of their rows in the chunk.

        Raises:
            ValueError: a row is longer than the last length.
        """
        for plan in self._plan(chunk.lengths):
            num_rows = self.find_row_bucket(len(plan.rows))
            yield make_batch(chunk, plan, num_rows, self.pad_id), plan.rows

    def _plan(self, lengths_N: Int[np.ndarray, " N"]) -> list[BatchPlan]:
        if self.are_fixed:
            return plan_evaluation(lengths_N, self.batch_size, self.lengths)
        check_lengths(lengths_N, self.lengths[-1])
        order = np.argsort(lengths_N, kind="stable")
        return [
            BatchPlan(int(lengths_N[rows[-1]]), rows)
            for first in range(0, len(order), self.batch_size)
            for rows in [order[first : first + self.batch_size]]
        ]


class PackedShapes(Shapes):
    """Rows for several texts each; see `data.packing`.

    Attributes:
        lengths: widths of rows, ascending; the first may be longer than the encoder's
            longest text.
        most_tokens: tokens of the longest text allowed.
    """

    def __init__(self, shapes: Shapes, width: int = PACKED_WIDTH) -> None:
        """Sets the shapes that correspond to those of single texts.

        Args:
            shapes: those of single texts.
            width: width of a row of texts that are not longer.
        """
        longer = (length for length in shapes.lengths if length > width)
        num_rows = max(shapes.batch_size // TEXTS_PER_ROW, 1)
        super().__init__(num_rows, (width, *longer), shapes.pad_id)
        # Few rows are left over, and packed rows of any number are full.
        self.row_buckets = make_row_buckets(self.batch_size, 4)
        self.most_tokens = shapes.lengths[-1]

    def are_filled_by(self, chunk: Tokenized) -> bool:
        """Whether the texts fill a batch, with several texts in a row."""
        num_tokens = len(chunk.token_ids)
        fills = num_tokens >= self.batch_size * self.lengths[0]
        return fills and chunk.num_rows > self.batch_size

    def make_packed_batches(
        self, chunk: Tokenized
    ) -> Iterator[tuple[Batch, np.ndarray, Packing]]:
        """Yields batches, the positions of their texts in the chunk, and their places.

        Raises:
            ValueError: a text is longer than allowed.
        """
        check_lengths(chunk.lengths, self.most_tokens)
        packing = pack_texts(chunk.lengths, self.lengths)
        for width in np.unique(packing.widths):
            rows = np.flatnonzero(packing.widths == width)
            for part in self.cut_rows(rows):
                texts, places = packing.choose_rows(part)
                num_rows = self.find_row_bucket(len(part))
                batch = make_packed_batch(chunk, texts, places, num_rows, self.pad_id)
                yield batch, texts, places

    def cut_rows(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the rows in parts that fill their buckets."""
        first = 0
        for size in self.split_rows(len(rows)):
            yield rows[first : first + size]
            first += size


def check_lengths(lengths_N: Int[np.ndarray, " N"], most_tokens: int) -> None:
    """Raises ValueError if a row is longer than the limit."""
    if (longest := lengths_N.max(initial=0)) > most_tokens:
        raise ValueError(
            f"a row of {longest} tokens exceeds the limit of {most_tokens}:"
            " tokenise to that length"
        )


def make_row_buckets(batch_size: int, base: int = 2) -> tuple[int, ...]:
    """Returns the powers of `base` below the batch size, and the batch size."""
    powers = (base**k for k in range(batch_size.bit_length()))
    return (*(power for power in powers if power < batch_size), batch_size)
