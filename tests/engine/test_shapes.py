"""The static shapes of a cascade, and how rows are laid out in them."""

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
