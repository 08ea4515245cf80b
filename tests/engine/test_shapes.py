"""The static shapes of a cascade, and how rows are laid out in them."""

import numpy as np

from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.shapes import Shapes, make_row_buckets


def test_row_buckets():
    assert make_row_buckets(1) == (1,)
    assert make_row_buckets(6) == (1, 2, 4, 6)
    assert make_row_buckets(32) == (1, 2, 4, 8, 16, 32)


def test_rows_are_split_into_buckets_they_nearly_fill():
    shapes = Shapes(128, (8,), 0)
    assert shapes.split_rows(128) == [128]
    assert shapes.split_rows(100) == [100]
    assert shapes.split_rows(70) == [64, 6]
    for num_rows in range(1, 129):
        sizes = shapes.split_rows(num_rows)
        assert sum(sizes) == num_rows
        assert sum(map(shapes.find_row_bucket, sizes)) <= num_rows * 4 / 3


def test_without_fixed_shapes_nothing_is_padded_but_to_the_longest_row():
    shapes = Shapes(4, (8, 16), 0, are_fixed=False).with_batch_size(3)
    assert shapes.split_rows(3) == [3]
    assert [shapes.find_row_bucket(n) for n in (1, 2, 3)] == [1, 2, 3]
    lengths = [5, 12, 2, 7, 3]
    ids = np.arange(sum(lengths), dtype=np.int32)
    zeros = np.zeros(len(lengths), np.int64)
    rows = Tokenized(
        token_ids=ids,
        type_ids=0 * ids,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=zeros.astype(np.int32),
        row_ids=zeros,
        truncated_rows=0,
    )
    found = {
        tuple(positions.tolist()): batch.token_ids.shape
        for batch, positions in shapes.make_batches(rows)
    }
    assert found == {(2, 4, 0): (3, 5), (3, 1): (2, 12)}
