"""The static shapes of a cascade, and how rows are laid out in them."""

import numpy as np
import pytest

from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.shapes import PackedShapes, Shapes, make_row_buckets


def test_row_buckets():
    assert make_row_buckets(1) == (1,)
    assert make_row_buckets(6) == (1, 2, 4, 6)
    assert make_row_buckets(32) == (1, 2, 4, 8, 16, 32)
    assert make_row_buckets(32, 4) == (1, 4, 16, 32)


def test_rows_are_split_into_buckets_they_nearly_fill():
    shapes = Shapes(128, (8,), 0)
    assert shapes.split_rows(128) == [128]
    assert shapes.split_rows(100) == [100]
    assert shapes.split_rows(70) == [64, 6]
    assert shapes.split_rows(300) == [128, 128, 32, 12]
    for num_rows in range(1, 129):
        sizes = shapes.split_rows(num_rows)
        assert sum(sizes) == num_rows
        assert sum(map(shapes.find_row_bucket, sizes)) <= num_rows * 4 / 3


def test_without_fixed_shapes_nothing_is_padded_but_to_the_longest_row():
    shapes = Shapes(4, (8, 16), 0, are_fixed=False).with_batch_size(3)
    assert shapes.split_rows(3) == [3]
    assert [shapes.find_row_bucket(n) for n in (1, 2, 3)] == [1, 2, 3]
    rows = make_rows([5, 12, 2, 7, 3])
    found = {
        tuple(positions.tolist()): batch.token_ids.shape
        for batch, positions in shapes.make_batches(rows)
    }
    assert found == {(2, 4, 0): (3, 5), (3, 1): (2, 12)}


def test_packed_shapes_follow_those_of_single_texts():
    packed = PackedShapes(Shapes(32, (16, 48, 96, 200), 0))
    assert (packed.batch_size, packed.lengths) == (16, (64, 96, 200))
    assert PackedShapes(Shapes(1, (8, 16), 0)).batch_size == 1


def test_packed_batches_hold_every_text_once():
    shapes = PackedShapes(Shapes(8, (8, 20, 40), 0), 20)
    rows = make_rows([5, 12, 20, 8, 40, 7, 3, 33, 20, 20, 20])
    shapes_seen, seen = [], []
    for batch, texts, packing in shapes.make_packed_batches(rows):
        shapes_seen.append(batch.token_ids.shape)
        seen.extend(texts.tolist())
        starts = packing.find_starts(batch.mask.shape[1])
        for i, start in zip(texts, starts, strict=True):
            np.testing.assert_array_equal(
                batch.token_ids.ravel()[start : start + rows.lengths[i]],
                rows.token_ids[rows.offsets[i] : rows.offsets[i + 1]],
            )
    assert sorted(seen) == list(range(11))
    # 40 and 33 + 7 in rows of 40; four of 20, 12 + 8 and 5 + 3 in rows of 20.
    assert shapes_seen == [(4, 20), (1, 20), (1, 20), (1, 40), (1, 40)]


def test_a_text_longer_than_the_model_reads_is_refused_though_rows_are_wider():
    shapes = PackedShapes(Shapes(8, (8, 16), 0))
    with pytest.raises(ValueError, match="a row of 17 tokens exceeds the limit of 16"):
        list(shapes.make_packed_batches(make_rows([3, 17])))


def make_rows(lengths: list[int]) -> Tokenized:
    ids = np.arange(sum(lengths), dtype=np.int32)
    zeros = np.zeros(len(lengths), np.int64)
    return Tokenized(
        token_ids=ids,
        type_ids=0 * ids,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=zeros.astype(np.int32),
        row_ids=zeros,
        truncated_rows=0,
    )
