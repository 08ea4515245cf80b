"""Constants: sums add up over parts, and each kind is what its name says."""

import numpy as np
import pytest
from papa_models import load_frozen, make_random_sums, make_rows

from sweet_jax.analysis.papa.constants import (
    AttentionPass,
    AttentionSums,
    find_row_numbers,
    make_constants,
)


def test_two_parts_added_up_are_the_whole(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(7)
    seen = []
    attention = AttentionPass(frozen, 2)
    whole = attention.run(rows, np.arange(7), seen.append)
    order = np.array([6, 0, 3, 5, 1, 4, 2])
    first, second = (
        attention.run(rows, part, seen.append) for part in (order[:3], order[3:])
    )
    both = first + second
    np.testing.assert_array_equal(both.counts, whole.counts)
    np.testing.assert_allclose(both.sums, whole.sums, rtol=1e-6)
    assert both.num_rows == whole.num_rows == sum(seen[:4]) == 7
    # Averages of the parts are something else: their cells have other counts.
    middle = (first.average() + second.average()) / 2
    assert np.abs(middle - whole.average()).max() > 1e-3


def test_averages_are_the_formula_row_by_row(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(3)
    whole = AttentionPass(frozen, 4).run(rows, np.arange(3), lambda _: None)
    batch = rows.take(np.arange(3), 3)
    probabilities = np.asarray(frozen.compute_attention(frozen.weights, batch))
    pairs = rows.mask[:, :, None] * rows.mask[:, None, :]
    counts = pairs.sum(axis=0)
    sums = (probabilities * pairs[None, :, None]).sum(axis=1)
    expected = np.where(counts > 0, sums / np.maximum(counts, 1), 0)
    np.testing.assert_allclose(whole.average(), expected, atol=1e-6)
    assert (expected[..., counts == 0] == 0).all()
    assert (counts == 0).any()


def test_few_rows_are_the_first_ones():
    by_rows = {2: make_random_sums(2), 5: make_random_sums(5, seed=1)}
    few, whole = (make_constants(kind, by_rows) for kind in ("averages_2", "averages"))
    np.testing.assert_array_equal(few, by_rows[2].average())
    np.testing.assert_array_equal(whole, by_rows[5].average())
    assert find_row_numbers(("averages", "averages_8", "identity", "averages_1")) == [
        1,
        8,
    ]


def test_constants_by_distance_are_those_of_a_toeplitz_matrix():
    sums = make_random_sums(9)
    constants = make_constants("by_distance", {9: sums})
    length = constants.shape[-1]
    for distance in range(-length + 1, length):
        queries = [a for a in range(length) if 0 <= a + distance < length]
        keys = [a + distance for a in queries]
        total = sums.sums[..., queries, keys].sum(axis=-1)
        mean = total / max(sums.counts[queries, keys].sum(), 1)
        for a, b in zip(queries, keys, strict=True):
            np.testing.assert_allclose(constants[..., a, b], mean, rtol=1e-5)


@pytest.mark.parametrize("kind", ["uniform", "identity"])
def test_simple_constants(kind):
    constants = make_constants(kind, {3: make_random_sums(3)})
    expected = np.ones((4, 4)) if kind == "uniform" else np.eye(4)
    assert (constants == expected).all()
    assert constants.dtype == np.float32


def test_a_toeplitz_encoder_is_its_own_average_by_distance():
    diagonal = np.subtract.outer(np.arange(4), np.arange(4)) + 4.0
    counts = np.full((4, 4), 5)
    sums = AttentionSums(np.broadcast_to(diagonal * 5, (1, 1, 4, 4)), counts, 5)
    constants = make_constants("by_distance", {5: sums})
    np.testing.assert_allclose(constants[0, 0], diagonal, rtol=1e-6)
