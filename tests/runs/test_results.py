"""What a run says of itself."""

import numpy as np

from sweet_jax.runs.results import count_buckets


def test_a_row_counts_in_the_first_bucket_that_holds_it():
    assert count_buckets(np.array([3, 8, 9, 16, 17]), (8, 16, 32)) == (2, 2, 1)
    assert count_buckets(np.array([9]), (8, 16, 32)) == (0, 1, 0)
