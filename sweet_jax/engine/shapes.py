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
from sweet_jax.data.tokenize import Tokenized

# Largest share of a bucket that may be padding.
MOST_FILLING = 0.25


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
            bucket = self.find_row_bucket(num_rows)
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
        if (longest := lengths_N.max(initial=0)) > self.lengths[-1]:
            raise ValueError(
                f"a row of {longest} tokens exceeds the limit of {self.lengths[-1]}:"
                " tokenise to that length"
            )
        order = np.argsort(lengths_N, kind="stable")
        return [
            BatchPlan(int(lengths_N[rows[-1]]), rows)
            for first in range(0, len(order), self.batch_size)
            for rows in [order[first : first + self.batch_size]]
        ]


def make_row_buckets(batch_size: int) -> tuple[int, ...]:
    """Returns the powers of 2 below the batch size, and the batch size."""
    powers = [2**k for k in range(batch_size.bit_length()) if 2**k < batch_size]
    return (*powers, batch_size)
