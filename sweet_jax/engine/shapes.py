"""The static shapes that a cascade uses."""

from collections.abc import Iterator

import numpy as np

from sweet_jax.arrays import Batch
from sweet_jax.data.batches import make_batch, plan_evaluation
from sweet_jax.data.tokenize import Tokenized

# Largest share of a bucket that may be padding.
MOST_FILLING = 0.25


class Shapes:
    """Row buckets and lengths, and how rows are placed in them.

    Attributes:
        batch_size: largest number of rows of a batch.
        row_buckets: numbers of rows that programs are compiled for, ascending.
        lengths: lengths that rows are padded to, ascending.
    """

    def __init__(self, batch_size: int, lengths: tuple[int, ...], pad_id: int) -> None:
        """Sets the shapes.

        Args:
            batch_size: largest number of rows of a batch.
            lengths: lengths that rows are padded to.
            pad_id: token id of padding.
        """
        self.batch_size, self.lengths = batch_size, lengths
        self.row_buckets = make_row_buckets(batch_size)
        self.pad_id = pad_id

    def find_row_bucket(self, num_rows: int) -> int:
        """Returns the smallest bucket that holds `num_rows` rows."""
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
        """Yields batches, and the positions of their rows in the chunk."""
        for plan in plan_evaluation(chunk.lengths, self.batch_size, self.lengths):
            num_rows = self.find_row_bucket(len(plan.rows))
            yield make_batch(chunk, plan, num_rows, self.pad_id), plan.rows


def make_row_buckets(batch_size: int) -> tuple[int, ...]:
    """Returns the powers of 2 below the batch size, and the batch size."""
    powers = [2**k for k in range(batch_size.bit_length()) if 2**k < batch_size]
    return (*powers, batch_size)
